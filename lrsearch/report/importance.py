"""What mattered: importance over all trials, the stopped ones at what they are worth.

Optuna's evaluators look at COMPLETE trials only. A scheduler so bad that each of its trials is
pruned is then unknown to them, and a rate so high that each trial diverges too; and the default,
PED-ANOVA, understates a categorical with few values. Here every finished trial counts:

1. *Worth* (:func:`worth`): all finished trials in one order. Complete trials by their final loss;
   a pruned trial by the one that the pruner predicts for it (:mod:`lrsearch.prediction`), or at
   the place it had in mid-run where nothing is predicted; the diverged share the last place.
2. A light study in memory, in which all these trials are COMPLETE with their place as value, goes
   to Optuna's :class:`~optuna.importance.FanovaImportanceEvaluator` (Hutter et al. 2014).
   Log-scaled parameters enter as logarithms and categories in the order of their mean worth,
   because Optuna's encoding of either distorts the measure.
3. A forest also fits noise: what it finds in a shuffled copy of a parameter is taken off, and the
   rest told as a part of all differences, chance included (:func:`shares`).

Level one asks this of family, lr and warmup over all trials, and of what an objective of the
user's own asks for beside the schedule; level two, within each family, of its
own parameters beside lr and warmup. Both are asked again of the better half of the trials, where
nobody is ruined by a bad rate and the finer choices show.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from lrsearch.attributes import SHARED
from lrsearch.report.tables import StudyTable, TrialRow

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

EMPTY: Mapping[int, float] = MappingProxyType({})
LEAST_TRIALS = 12
MOST_TRIALS = 500
_TREES = 12
_DEPTH = 6


@dataclass(frozen=True)
class Shares:
    """Parts of the differences in worth that one parameter alone explains.

    They are parts of all differences, chance included. fANOVA's own are of what the forest finds,
    which is neither all differences nor those without chance: of a rate that explains 0.25 beside
    chance it told 0.23, 0.36 and 0.51 (30, 100 and 400 simulated trials, 40 studies each); these
    are 0.22, 0.30 and 0.30. Few trials show less than there is: of 0.50 for the rate and 0.36 for
    the family 0.22 and 0.16 with 12 trials, 0.38 and 0.24 with 30, 0.50 and 0.28 with 100, 0.49
    and 0.33 with 400.

    So do pruned ones, whose losses are predicted. In 8 searches of digits, with some 182 of 200
    trials pruned, the rate has 0.49 on average, by their places in mid-run 0.39, and 0.58 when all
    of these trials are trained to the end (studies/importance).

    Attributes:
        share: Parameter -> part, 0 to 1, largest first.
        spread: Parameter -> standard deviation of what single trees, each of a bootstrap sample,
            say; about one and a half times what the shares of studies with other seeds differ by.
            Of 960 shares of simulated studies (30 to 400 trials) 75% were no further from the
            truth than this, and 95% no further than twice this.
            (Forests of half samples said less than that, and something else each time.)
        trials: Trials it was computed from.
    """

    share: Mapping[str, float]
    spread: Mapping[str, float]
    trials: int

    @property
    def rest(self) -> float:
        """What none of them explains: combinations, what is not among them, and chance."""
        return max(0.0, 1 - sum(self.share.values()))

    def clear(self, names: Collection[str] | None = None) -> list[str]:
        """The parameters that stand out, largest first: what may be told as a fact.

        As many as can be of which each explains a tenth of the differences, more than its own
        spread, and more than any other that is not among them by more than the spread of both.

        Simulated, 12 to 400 trials: where nothing matters, something stood out in 4 of 300
        studies; where rate and family explain 45% each, both in 75 of 75 from 100 trials on;
        where the rate alone matters, the family in 0 of 250. Of 48 searches on five tasks pruned
        trials were trained to the end: by the true losses 39 parameters stood out, 30 of them also
        by predicted losses, and 9 others (27 and 6 by the places in mid-run).

        Args:
            names: Compare only these.
        """
        rows = [k for k in self.share if names is None or k in names]
        rows.sort(key=lambda k: -self.share[k])

        def sure(name: str, rest: Sequence[str]) -> bool:
            own, spread = self.share[name], self.spread.get(name, 0.0)
            others = ((own - self.share[k], self.spread.get(k, 0.0)) for k in rest)
            ahead = all(by > math.hypot(spread, its) for by, its in others)
            return own >= 0.1 and own > spread and ahead

        counts = range(len(rows), -1, -1)
        return next(rows[:n] for n in counts if all(sure(k, rows[n:]) for k in rows[:n]))


@dataclass(frozen=True)
class Importance:
    """Importance at two levels.

    Attributes:
        overall: Of family ("scheduler"), lr, warmup and what else an objective of the user's own
            asks for, over all finished trials; None with fewer than 12 of them.
        better: The same over the better half of them.
        within: Family -> of its own parameters (without prefix), lr and warmup.
        within_better: The same over the better half of each family's trials.
        too_few: Families with parameters but fewer than 12 finished trials.
        trials: Finished trials of the families searched.
    """

    overall: Shares | None
    better: Shares | None
    within: Mapping[str, Shares]
    within_better: Mapping[str, Shares]
    too_few: Sequence[str]
    trials: int


def worth(table: StudyTable, foretold: Mapping[int, float] = EMPTY) -> dict[int, float]:
    """Place of each finished trial, from 0 (best) to 1 (worst), ties sharing their mean place.

    Diverged trials come last. Pruned ones of which nothing is foretold are put among the others,
    going back from the last epoch: those stopped at epoch e behind as many of the trials that went
    on as had a better loss at e.

    Args:
        table: The study.
        foretold: Final losses of pruned trials, by number
            (:func:`lrsearch.prediction.beliefs.foretold`).

    Returns:
        Trial number -> place.
    """
    losses = {t.number: _by_epoch(table, t) for t in table.trials}
    pruned = table.having("pruned")
    finals = {t.number: t.value or 0.0 for t in table.complete}
    finals |= {t.number: foretold[t.number] for t in pruned if t.number in foretold}
    best_first = sorted(finals, key=lambda n: (finals[n], n))
    order = best_first
    stopped: dict[int, list[tuple[float, int]]] = {}
    for trial in pruned:
        if trial.number in finals:
            continue
        last = trial.last_loss if trial.last_loss is not None else math.inf
        stopped.setdefault(trial.epochs, []).append((last, trial.number))
    for epoch in sorted(stopped, reverse=True):
        going_on = sorted(losses[n][epoch] for n in order if epoch in losses[n])
        behind: dict[int, list[int]] = {}
        for loss, number in sorted(stopped[epoch]):
            place = bisect.bisect_left(going_on, loss) if going_on else len(order)
            behind.setdefault(min(place, len(order)), []).append(number)
        merged: list[int] = []
        for place in range(len(order) + 1):
            merged += behind.get(place, [])
            merged += order[place : place + 1]
        order = merged
    lost = [t.number for t in table.having("diverged")]
    n = len(order) + len(lost)
    places = {number: (i + 0.5) / n for i, number in enumerate(order)}
    for _, equal in groupby(best_first, key=lambda n: finals[n]):
        numbers = list(equal)
        places |= dict.fromkeys(numbers, sum(places[k] for k in numbers) / len(numbers))
    return places | dict.fromkeys(lost, (len(order) + n) / 2 / n if n else 0.0)


def _by_epoch(table: StudyTable, trial: TrialRow) -> dict[int, float]:
    """A trial's validation losses; not those of epochs at which it has none."""
    columns = (table.history.of(trial.trial_id, name).tolist() for name in ("epoch", "val_loss"))
    losses = zip(*columns, strict=True)
    return {epoch: loss for epoch, loss in losses if not math.isnan(loss)}


def importance(
    table: StudyTable,
    foretold: Mapping[int, float] = EMPTY,
    seed: int = 0,
    *,
    brief: bool = False,
) -> Importance:
    """What mattered in a study; see the module's text.

    Args:
        table: The study.
        foretold: As for :func:`worth`.
        seed: Of the forests, the shuffles and, above 500 trials (200 in a family), the sample
            that is used.
        brief: Without the better half of each family.
    """
    places = worth(table, foretold)
    done = [
        t
        for t in table.trials
        if t.number in places
        and (t.baseline is None or "scheduler" in t.params)  # else of a family not searched
    ]
    if len({places[t.number] for t in done}) < 2:  # all diverged, or came to the same loss
        return Importance(None, None, {}, {}, [], len(done))
    within: dict[str, Shares] = {}
    within_better: dict[str, Shares] = {}
    too_few = []
    for family in table.families:
        mine = [t for t in done if t.family == family]
        own = sorted({k for t in mine for k in t.params if k.startswith(f"{family}.")})
        if not own:
            continue
        names = [*SHARED[1:], *own]
        found = _of_trials(mine, places, names, seed, of_family=True)
        if found is None:
            too_few.append(family)
            continue
        within[family] = found
        if brief:
            continue
        top = _of_trials(_better_half(mine, places), places, names, seed, of_family=True)
        if top is not None:
            within_better[family] = top
    names = [*SHARED, *sorted({k for t in done for k in t.others})]
    return Importance(
        overall=_of_trials(done, places, names, seed),
        better=_of_trials(_better_half(done, places), places, names, seed),
        within=within,
        within_better=within_better,
        too_few=too_few,
        trials=len(done),
    )


def _better_half(trials: Sequence[TrialRow], places: Mapping[int, float]) -> list[TrialRow]:
    """The better half, without the diverged."""
    ordered = sorted(trials, key=lambda t: (places[t.number], t.number))
    return [t for t in ordered[: (len(ordered) + 1) // 2] if t.status != "diverged"]


def _of_trials(
    trials: Sequence[TrialRow],
    places: Mapping[int, float],
    names: Sequence[str],
    seed: int,
    of_family: bool = False,
) -> Shares | None:
    """Shares of the parameters with these names; None where there are too few trials.

    Where all trials are of one family, its prefix is taken off the names of its own.
    """
    rows = [t for t in trials if any(n in t.params for n in names)]
    if len(rows) > (most := 200 if of_family else MOST_TRIALS):
        keep = np.random.default_rng(seed).choice(len(rows), most, replace=False)
        rows = [rows[i] for i in sorted(keep)]
    used = [n for n in names if len({repr(t.params.get(n)) for t in rows}) > 1]
    if len(rows) < LEAST_TRIALS or not used:
        return None
    distributions = {n: next(t for t in rows if n in t.params).distributions[n] for n in used}
    columns = {n: [t.params.get(n, _absent(n, distributions[n])) for t in rows] for n in used}
    values = np.array([places[t.number] for t in rows])
    draws = 2 if of_family else 3
    found = shares(columns, distributions, values, seed, draws)
    share = dict(found.share) | {
        n: 0.0 for n in names if n not in used and any(n in t.params for t in rows)
    }
    short = {n: n.rpartition(".")[2] if of_family else n for n in share}
    return Shares(
        {short[n]: v for n, v in share.items()},
        {short[n]: found.spread.get(n, 0.0) for n in share},
        len(rows),
    )


def _absent(name: str, distribution: Any) -> Any:
    """What stands for a parameter that a trial does not have: no warmup, else a middling value."""
    if name == "warmup":
        return 0
    if hasattr(distribution, "choices"):
        return distribution.choices[0]
    low, high = distribution.low, distribution.high
    middle = math.sqrt(low * high) if distribution.log else (low + high) / 2
    return round(middle) if isinstance(low, int) else middle


def shares(
    columns: Mapping[str, Sequence[Any]],
    distributions: Mapping[str, BaseDistribution],
    values: np.ndarray,
    seed: int = 0,
    draws: int = 3,
) -> Shares:
    """Part of the variance of ``values`` that each parameter alone explains, chance taken off.

    Each parameter is given to the forest together with a shuffled copy of itself (a shadow, as in
    Kursa and Rudnicki 2010). With Vᵢ the fANOVA variance of parameter i, Sᵢ that of its shadow and
    V that of all values over the ranges, the share is ``max(0, (Vᵢ - Sᵢ) / V)``, the mean over
    several shuffles. V is the variance of the tree and what is left within its leaves; that of the
    trials alone is not, as a search has most of them where it is good.

    Args:
        columns: Parameter -> its value in each trial.
        distributions: Parameter -> what it was drawn from.
        values: The worth of each trial, (trials,).
        seed: Of forests and shuffles.
        draws: Shuffles, each with a forest; more are steadier.
    """
    rng = np.random.default_rng(seed)
    if np.ptp(values) == 0:
        zero = dict.fromkeys(columns, 0.0)
        return Shares(zero, zero, len(values))
    full = [_above_chance(columns, distributions, values, rng) for _ in range(draws)]
    share = {k: max(0.0, float(np.mean([f[k].mean() for f in full]))) for k in columns}
    total = max(1.0, sum(share.values()))
    spread = {k: float(np.concatenate([f[k] for f in full]).std(ddof=1)) / total for k in columns}
    ordered = sorted(share.items(), key=lambda item: -item[1])
    return Shares({k: v / total for k, v in ordered}, spread, len(values))


def _above_chance(
    columns: Mapping[str, Sequence[Any]],
    distributions: Mapping[str, BaseDistribution],
    values: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Share of each parameter less that of its shadow in each tree of Optuna's evaluator."""
    from lrsearch.report.fanova import Fanova, encode  # scikit-learn is a large import
    from lrsearch.report.light_study import frozen, study_of

    order = rng.permutation(len(values))
    both = {**columns, **{f"{k} shuffled": [v[i] for i in order] for k, v in columns.items()}}
    spaces = {**distributions, **{f"{k} shuffled": d for k, d in distributions.items()}}
    cells, spaces = encode(both, spaces, values)
    study = study_of(
        frozen(i, float(v), {k: cells[k][i] for k in cells}, spaces) for i, v in enumerate(values)
    )
    seed = int(rng.integers(2**31))
    fanova = Fanova(n_trees=_TREES, max_depth=_DEPTH, seed=seed)
    fanova.evaluate(study, params=list(cells))
    names = sorted(k for k in cells if not spaces[k].single())
    found = dict(zip(names, fanova.fractions(), strict=True))
    nothing = np.zeros(_TREES)
    return {k: found.get(k, nothing) - found.get(f"{k} shuffled", nothing) for k in columns}
