"""The schedule of a search that is the safest to train with: ``robust.yaml``.

The lowest of hundreds of losses has been lucky, and luck favours high rates, which may fail on
another seed. So the finalists of a search are *raised*: trained at 1.7 times their rates, on fresh
seeds. A schedule near the edge fails there.

1. The winner, a gentler schedule and a third one are raised on one seed.
2. If none of them bears it (:func:`bears`), three more are.
3. The three lowest of all are raised on a second seed.

Each finalist counts with the worse of two losses: that of the search, and that at higher rates,
which alone would favour rates that are too low. The one with the lowest of these is the robust
one. What this is worth is in ``studies/winners``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import optuna

from lrsearch.attributes import CONFIRM_ATTR, confirmation_study
from lrsearch.report.finalists import LEAST_SURE, finalists, gentler
from lrsearch.report.raised import is_near_edge, mean_loss, measured, raised_losses
from lrsearch.report.tables import StudyTable, TrialRow, load

STEP = 3
"""How many finalists are raised together; if none of them bears it, as many more are."""
MOST = 6
"""How many finalists are raised at most."""
AGAIN = 3
"""How many are raised on a second seed: those with the lowest losses."""
SHARE = 1 / 8
"""Of the epochs of a search, how many this may cost at most, where it was not asked for."""

Raised = Mapping[int, Sequence[float]]
"""Trial number of a finalist -> its losses at :data:`~lrsearch.report.raised.RAISE` times its
rates, one for each seed; infinite where it diverged, NaN where the run failed. In the order in
which they were raised."""


@dataclass(frozen=True)
class Robust:
    """The schedule of a search that is the safest to train with.

    Attributes:
        trial: The finalist that did best at higher rates. Where none was raised, the gentler one;
            where all failed, the gentler one or the best.
        raised: The losses of the finalists at higher rates; empty where none was raised.
    """

    trial: TrialRow
    raised: Raised = field(default_factory=dict)

    @property
    def bears(self) -> bool:
        """Whether it was raised and bore that."""
        losses = self.raised.get(self.trial.number)
        return losses is not None and bears(self.trial, losses)

    @property
    def did_best(self) -> bool:
        """Whether it did best at higher rates, and so is what to train with."""
        losses = measured(self.raised.get(self.trial.number, ()))
        return bool(losses) and math.isfinite(mean_loss(losses))

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
    """The finalist of a search that did best at higher rates.

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
    tried = _asked(table, study) or contenders(table)
    if not tried:
        return None
    raised = read_raised(tried, study)
    lowest = lowest_raised(tried, raised)
    if lowest is not None:
        return Robust(lowest, raised)
    if not raised and len(table.complete) < LEAST_SURE:
        return None
    milder = gentler(table)
    if milder is None or milder not in tried:
        return Robust(tried[0], raised) if raised else None
    return Robust(milder, raised)


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
    """Whether so many runs at higher rates cost more than :data:`SHARE` of a search."""
    return runs * table.budget > SHARE * sum(trial.epochs for trial in table.trials)


def spared(table: StudyTable, raised: Raised) -> bool:
    """Whether a search that has its target of trials raised nobody, as that would be too dear.

    Args:
        table: The search.
        raised: What its finalists came to.
    """
    ended = len(table.having("complete", "pruned", "diverged", "failed"))
    target = table.config.get("trials")  # none of a loop of the user's own
    if raised or target is None or ended < target or table.config.get("robust") is not None:
        return False
    some = next_runs(contenders(table), {})
    return bool(some) and too_dear(table, len(some))


def read_raised(tried: Sequence[TrialRow], study: optuna.Study) -> Raised:
    """The losses of finalists at higher rates, up to the last round in which all runs have ended.

    Args:
        tried: All finalists of a search, in order.
        study: The search.
    """
    again = confirmation_study(study)
    table = None if again is None else load(again)
    raised: dict[int, Sequence[float]] = {}
    while table is not None and (some := next_runs(tried, raised)):
        found = {trial.number: raised_losses(table, f"#{trial.number}") for trial, _ in some}
        if any(len(found[trial.number]) <= nth for trial, nth in some):
            break
        raised |= {trial.number: found[trial.number][: nth + 1] for trial, nth in some}
    return raised


def robust_trial(study: optuna.Study) -> int | None:
    """Number of the trial that did best at higher rates; None where none was raised."""
    if confirmation_study(study) is None:
        return None
    found = robust(load(study), study)
    return found.trial.number if found is not None and found.did_best else None


def _asked(table: StudyTable, study: optuna.Study) -> list[TrialRow]:
    """The finalists that a run has planned to raise; empty unless the first is still the best."""
    again = confirmation_study(study)
    numbers = [] if again is None else again.user_attrs[CONFIRM_ATTR].get("finalists", [])
    complete = {trial.number: trial for trial in table.complete if trial.schedule}
    same = bool(numbers) and numbers[0] == next(iter(complete), None)
    return [complete[n] for n in numbers] if same and set(numbers) <= complete.keys() else []
