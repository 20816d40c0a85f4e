"""The schedule of a search that is the safest to train with: ``robust.yaml``.

The lowest of hundreds of losses has been lucky, and luck favours high rates, which may fail on
another seed. So the finalists of a search are *raised*: trained at 1.7 times their rates, on fresh
seeds. A schedule near the edge fails there.

1. The winner, a gentler schedule and a third one are raised on one seed.
2. If none of them bears it (:func:`bears`), three more are.
3. The three lowest of all are raised on a second seed.

Each finalist counts with the worse of two losses: that of the search, and that at higher rates,
which alone would favour rates that are too low. The one with the lowest of these is the robust
one, unless a usual recipe is better:

4. It and the best recipe of the search are trained at their own rates, on a fresh seed. The lower
   mean of two losses, that of the search and that one, is the answer.

What this is worth is in ``studies/winners``.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import optuna

from lrsearch.attributes import confirmation_study
from lrsearch.report.finalists import LEAST_SURE, arm_of, finalists, gentler
from lrsearch.report.raised import is_near_edge, mean_loss, measured, own_losses, raised_losses
from lrsearch.report.tables import ENDED, StudyTable, TrialRow, load, load_confirmation

STEP = 3
"""How many finalists are raised together; if none of them bears it, as many more are."""
MOST = 6
"""How many finalists are raised at most."""
AGAIN = 3
"""How many are raised on a second seed: those with the lowest losses."""
SHARE = 1 / 5
"""Of the epochs of a search, how many all of this may cost, where it was not asked for."""

Raised = Mapping[int, Sequence[float]]
"""Trial number of a finalist -> its losses at :data:`~lrsearch.report.raised.RAISE` times its
rates, one for each seed; infinite where it diverged, NaN where the run failed. In the order in
which they were raised."""


@dataclass(frozen=True)
class Beside:
    """The best recipe of a search beside the finalist, both at their own rates.

    Attributes:
        recipe: The baseline with the lowest loss in the search.
        loss: Its mean loss over the seed of the search and the fresh ones that both ran on;
            infinite where it diverged.
        finalist: That of the finalist.
        seeds: How many seeds these are.
    """

    recipe: TrialRow
    loss: float
    finalist: float
    seeds: int

    @property
    def better(self) -> bool:
        """Whether the recipe is better than the finalist."""
        return self.loss < self.finalist


@dataclass(frozen=True)
class Robust:
    """The schedule of a search that is the safest to train with.

    Attributes:
        finalist: The one that did best at higher rates, or the only one. Where none was raised,
            the gentler one; where all failed, the gentler one or the best.
        raised: The losses of the finalists at higher rates; empty where none was raised.
        beside: The best recipe of the search beside it; None where they were not compared.
    """

    finalist: TrialRow
    raised: Raised = field(default_factory=dict)
    beside: Beside | None = None

    @property
    def trial(self) -> TrialRow:
        """What to train with: the finalist, or the recipe where that is better."""
        beside = self.beside
        return beside.recipe if beside is not None and beside.better else self.finalist

    @property
    def bears(self) -> bool:
        """Whether the finalist was raised and bore that."""
        losses = self.raised.get(self.finalist.number)
        return losses is not None and bears(self.finalist, losses)

    @property
    def did_best(self) -> bool:
        """Whether the finalist did best at higher rates."""
        losses = measured(self.raised.get(self.finalist.number, ()))
        return bool(losses) and math.isfinite(mean_loss(losses))

    @property
    def decided(self) -> bool:
        """Whether runs on fresh seeds say that :attr:`trial` is what to train with."""
        return self.did_best or self.trial is not self.finalist

    @property
    def diverged(self) -> int:
        """Finalists that diverged at higher rates, on one seed at least."""
        return sum(math.inf in losses for losses in self.raised.values())

    @property
    def failed(self) -> int:
        """Finalists of which no run at higher rates came to an end, other than by diverging."""
        return sum(not measured(losses) for losses in self.raised.values())


def bears(trial: TrialRow, raised: Sequence[float]) -> bool:
    """Whether a trial bears higher rates: its losses there are not far above its own loss."""
    losses = measured(raised)
    if trial.value is None or not losses:
        return False
    return not is_near_edge(mean_loss(losses), trial.value, trial.first_loss)


def robust(table: StudyTable, study: optuna.Study) -> Robust | None:
    """The finalist of a search that did best at higher rates, beside the best recipe.

    Where none was raised, or all failed, it is the gentler one
    (:func:`lrsearch.report.finalists.gentler`), which costs no training.

    Args:
        table: The search.
        study: What it was read from; its confirmation has the finalists.

    Returns:
        None where no trial is complete, where the best is a baseline, or where none was raised
        and fewer than :data:`~lrsearch.report.finalists.LEAST_SURE` trials are complete, or no
        gentler one is better than the baselines.
    """
    again, planned = load_confirmation(study)
    tried = _asked(table, planned.get("finalists", [])) or contenders(table)
    if not tried:
        return None
    raised = read_raised(tried, again)
    rivals = rivals_of(table, tried, raised)
    beside = None if rivals is None else _beside(*rivals, again)
    lowest = lowest_raised(tried, raised)
    if beside is not None or lowest is not None:
        return Robust(lowest or tried[0], raised, beside)
    if not raised and len(table.complete) < LEAST_SURE:
        return None
    milder = gentler(table)
    if milder is None or milder not in tried:
        return Robust(tried[0], raised) if raised else None
    return Robust(milder, raised)


def best_recipe(table: StudyTable) -> TrialRow | None:
    """The baseline with the lowest loss in the search; None where none came to its end."""
    return next((t for t in table.complete if t.baseline is not None and t.schedule), None)


def rivals_of(
    table: StudyTable, tried: Sequence[TrialRow], raised: Raised
) -> tuple[TrialRow, TrialRow] | None:
    """The finalist and the recipe that are compared at their own rates.

    The finalist is the one that did best at higher rates, or the only one.

    Args:
        table: The search.
        tried: All finalists, in order.
        raised: The losses of those that were raised.

    Returns:
        None where there is no such finalist, or no recipe came to its end.
    """
    finalist = tried[0] if len(tried) == 1 else lowest_raised(tried, raised)
    recipe = best_recipe(table)
    return None if finalist is None or recipe is None else (finalist, recipe)


def have_run(rivals: Sequence[TrialRow], again: StudyTable | None) -> bool:
    """Whether some seed is known on which all of them have ended at their own rates."""
    return bool(set.intersection(*(set(_own(trial, again)) for trial in rivals)))


def _own(trial: TrialRow, again: StudyTable | None) -> dict[int, float]:
    """Seed -> loss of a trial at its own rates."""
    return {} if again is None else own_losses(again, arm_of(trial)["key"])


def _beside(finalist: TrialRow, recipe: TrialRow, again: StudyTable | None) -> Beside | None:
    """Both on all seeds on which both ran; None before that, or where both diverged.

    A run that failed tells nothing.
    """
    its, own = _own(recipe, again), _own(finalist, again)
    seeds = sorted(s for s in its.keys() & own.keys() if not math.isnan(its[s] + own[s]))
    if not seeds:
        return None
    loss, other = (
        statistics.fmean([float(trial.value or 0.0), *(losses[seed] for seed in seeds)])
        for trial, losses in ((recipe, its), (finalist, own))
    )
    lost = math.isinf(loss) and math.isinf(other)
    return None if lost else Beside(recipe, loss, other, 1 + len(seeds))


def contenders(table: StudyTable) -> list[TrialRow]:
    """The finalists that may be raised, the best first: those with a lower loss than any baseline.

    There are none where the best is a baseline itself.
    """
    tried = finalists(table, MOST, [gentler(table)])
    if not tried or tried[0].baseline is not None:
        return []
    losses = [t.value for t in table.complete if t.baseline is not None and t.value is not None]
    return below(tried, losses)


def below(tried: Sequence[TrialRow], baselines: Sequence[float]) -> list[TrialRow]:
    """The trials with a lower loss than any of the baselines."""
    least = min(baselines, default=math.inf)
    return [trial for trial in tried if trial.value is not None and trial.value < least]


def lowest_raised(tried: Sequence[TrialRow], raised: Raised) -> TrialRow | None:
    """The finalist that did best, among those that were raised on the most seeds.

    Each counts with the worse of its loss in the search and at higher rates; runs that failed do
    not count. None where all diverged or none came to an end.
    """
    known = {number: measured(losses) for number, losses in raised.items()}
    most = max(map(len, known.values()), default=0)
    asked = [trial for trial in tried if len(known.get(trial.number, ())) == most > 0]
    lowest = min(asked, key=lambda trial: _worse(trial, known[trial.number]), default=None)
    lost = lowest is None or math.isinf(mean_loss(known[lowest.number]))
    return None if lost else lowest


def _worse(trial: TrialRow, raised: Sequence[float]) -> float:
    """The worse of a trial's loss in the search and at higher rates; infinite if all failed."""
    losses = measured(raised)
    return max(trial.value or 0.0, mean_loss(losses)) if losses else math.inf


def next_runs(tried: Sequence[TrialRow], raised: Raised) -> list[tuple[TrialRow, int]]:
    """Which finalists to raise next, each with the number of the fresh seed, from 0.

    Args:
        tried: All finalists, in order.
        raised: The losses of those that were raised.

    Returns:
        Empty at the end.
    """
    if len(tried) < 2:
        return []  # it has no rival
    first, more = tried[: len(raised)], tried[len(raised) :][:STEP]
    if more and not any(bears(trial, raised[trial.number][:1]) for trial in first):
        return [(trial, 0) for trial in more]
    lowest = sorted(first, key=lambda trial: _worse(trial, raised[trial.number][:1]))[:AGAIN]
    return [(trial, 1) for trial in lowest if len(raised[trial.number]) == 1]


def too_dear(table: StudyTable, runs: int) -> bool:
    """Whether so many runs at higher rates, and two at their own, are above :data:`SHARE`."""
    runs += 0 if best_recipe(table) is None else 2
    return runs * table.budget > SHARE * sum(trial.epochs for trial in table.trials)


def spared(table: StudyTable, raised: Raised) -> bool:
    """Whether a search that has its target of trials raised nobody, as that would be too dear.

    Args:
        table: The search.
        raised: What its finalists came to.
    """
    ended = len(table.having(*ENDED))
    target = table.config.get("trials")  # none of a loop of the user's own
    if raised or target is None or ended < target or table.config.get("robust") is not None:
        return False
    some = next_runs(contenders(table), {})
    return bool(some) and too_dear(table, len(some))


def read_raised(tried: Sequence[TrialRow], again: StudyTable | None) -> Raised:
    """The losses of finalists at higher rates, up to the last round in which all runs have ended.

    Args:
        tried: All finalists of a search, in order.
        again: Its confirmation; None before there is one.
    """
    if again is None:
        return {}
    found = {trial.number: raised_losses(again, f"#{trial.number}") for trial in tried}
    seeds = sorted(set().union(*found.values()))
    raised: dict[int, Sequence[float]] = {}
    while some := next_runs(tried, raised):
        runs = {trial.number: seeds[: nth + 1] for trial, nth in some}
        missing = any(
            not set(runs[trial.number]) <= found[trial.number].keys() for trial, _ in some
        )
        if missing or max(nth for _, nth in some) >= len(seeds):
            break
        raised |= {number: [found[number][seed] for seed in on] for number, on in runs.items()}
    return raised


def robust_trial(study: optuna.Study) -> int | None:
    """Number of the trial that runs on fresh seeds chose; None where there were none."""
    if confirmation_study(study) is None:
        return None
    found = robust(load(study), study)
    return found.trial.number if found is not None and found.decided else None


def _asked(table: StudyTable, numbers: Sequence[int]) -> list[TrialRow]:
    """The finalists that a run has planned to raise; empty unless the first is still the best."""
    complete = {trial.number: trial for trial in table.complete if trial.schedule}
    same = bool(numbers) and numbers[0] == next(iter(complete), None)
    return [complete[n] for n in numbers] if same and set(numbers) <= complete.keys() else []
