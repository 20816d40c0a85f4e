"""The sampler: it learns from the rates of schedules, whatever family they are of.

So what a cosine has shown counts for a polynomial of the same curve, too. A Gaussian process
(:mod:`lrsearch.prediction.surrogate`) predicts the final loss from features of the trace. The
next trial is the candidate with the largest expected improvement; candidates are schedules drawn
from the whole space, and neighbours of the best so far. A running trial counts with its predicted
loss, a stopped one with what the pruner's predictors say, or where it stood if it had learnt
nothing, a diverged one as the worst. Where many trials run at once, many are asked for before a
few are complete: until then, early losses are used.
"""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from scipy.special import ndtr

from lrsearch.errors import UsageError
from lrsearch.optuna_helpers import check_direction
from lrsearch.prediction.beliefs import Settled, believed, settle
from lrsearch.prediction.curves import DECIDING, CurveReader, same, stack
from lrsearch.prediction.judge import Memory
from lrsearch.prediction.surrogate import Array, GaussianProcess, cap, fit, spread
from lrsearch.schedules import Space
from lrsearch.schedules.asking import asking_now
from lrsearch.search.candidates import Candidates, Drawn
from lrsearch.search.pruning import SchedulePruner

LEAST_KNOWN: Final = 8
"""Trials something is known of before the process is asked; others are drawn at random."""
CANDIDATES: Final = 160
"""Schedules drawn from the whole space."""
NEIGHBOURS: Final = 24
"""Neighbours tried of each of the best ``PARENTS`` trials."""
PARENTS: Final = 4
SHARED_BY: Final = 16
"""Trials in a row that share their candidates: the traces would take most of the time."""
SEEN: Final = 2 / 3
"""Share of them that one trial considers, so that two that are asked for at once differ."""
LARGEST_FIT: Final = 300
"""Trials the process knows, at most: the best two thirds of them, and some of the others."""
LEARNT: Final = 100
"""Of these, those that its hyperparameters are learnt from, at most."""
ROUGH: Final = 0.3
"""Distance over which a trial's luck stays the same, in standard deviations over the space."""


_Parent = tuple[int, datetime | None]  # number, and when it began: a sampler may see two studies


@dataclass
class _Pool:
    """Candidates that a block of trials shares: from the whole space (None), near a trial."""

    space: Space
    block: int
    near: dict[_Parent | None, Candidates] = field(default_factory=dict)


class TraceSampler(BaseSampler):
    """Proposes the schedule whose curve promises most, whatever its family is called.

    What is searched it takes from :func:`lrsearch.suggest`, which the objective calls. The first
    trials are random. Then it learns from all trials of the study with a schedule of this budget,
    in any storage: complete, running, pruned and diverged ones. Parameters that the objective asks
    for itself are left to Optuna's TPE, one by one; where they matter as much as the schedule,
    Optuna's TPE may do as well for all.

    A proposal follows from the study, the seed and the trial's number alone, so a study that was
    interrupted goes on as it would have done. Keep one sampler for many trials: it remembers the
    curves of finished ones, and shares what the study's :class:`SchedulePruner` has learnt. To ask
    for a schedule then takes some tens of milliseconds in a study of 1,000 trials.

    Args:
        seed: Of the draws. Where several processes share a study, give each its own: it is then
            rare that two which ask in the same moment are given the same schedule.

    Raises:
        UsageError: If ``seed`` is no whole number.

    Example:
        >>> import lrsearch
        >>> def objective(trial):
        ...     schedule = lrsearch.suggest(trial, epochs=30, lr=(0.01, 1.0))
        ...     return abs(schedule.lr - 0.1)  # in place of a training
        >>> study = optuna.create_study(sampler=lrsearch.TraceSampler())
        >>> study.optimize(objective, n_trials=20)
        >>> study.best_value < 0.01
        True
    """

    def __init__(self, seed: int = 0) -> None:
        try:
            self._seed = operator.index(seed) % 2**32
        except TypeError:
            raise UsageError(
                f"seed must be a whole number, got {seed!r:.60}; what is searched, TraceSampler "
                "takes from lrsearch.suggest"
            ) from None
        self._reader = CurveReader()
        self._memory = Memory()
        self._pool: _Pool | None = None
        self._learnt: dict[bytes, Array] = {}
        self._settled: Settled | None = None

    def _draw(self, study: optuna.Study, number: int, space: Space) -> Mapping[str, Any]:
        """Full Optuna parameters for trial ``number``; all other trials of the study count."""
        check_direction(study)
        if isinstance(study.pruner, SchedulePruner):
            self._reader, self._memory = study.pruner.learnt(study)
        trials = [t for t in study.get_trials(deepcopy=False) if t.number != number]
        trials = [t for t in trials if "schedule" in t.user_attrs]
        if len(trials) < LEAST_KNOWN:
            return self._random(number, space)
        settled = self._settled_of(study, [t for t in trials if t.state.is_finished()], space)
        running = [t for t in trials if not t.state.is_finished()]
        others = self._reader.rows(study, running, losses=settled.believed is None)
        rows = [row for row in others.values() if len(row.lr) == space.epochs]
        curves = settled.curves.joined(stack(rows, space.epochs))
        if settled.believed is None:
            target, variance = believed(curves)
        else:
            pairs = zip(settled.believed, (np.nan, 0.0), strict=True)
            target, variance = (np.append(each, np.full(len(rows), it)) for each, it in pairs)
        if (~np.isnan(target)).sum() < LEAST_KNOWN or not np.isfinite(target).any():
            return self._random(number, space)
        # The same curve under another name is the same schedule, and its value is known.
        known = {row.tobytes() for row in curves.features}
        width = curves.features.shape[1]
        candidates = self._candidates(number, space, trials, settled.best, width)
        features = np.concatenate(
            [each.features(chosen, settled.curves) for each, chosen in candidates]
        )
        new = np.array([row.tobytes() not in known for row in features], dtype=np.bool_)
        if not new.any():  # a space of a few schedules, all of which were tried
            return self._random(number, space)
        gain = promise(curves.features, target, variance, features, self._learnt)
        drawn: list[Drawn] = [each.drawn[i] for each, chosen in candidates for i in chosen]
        return drawn[int(np.argmax(np.where(new, gain, -np.inf)))].params

    def _settled_of(self, study: optuna.Study, trials: list[FrozenTrial], space: Space) -> Settled:
        """What is known of the trials that run no more."""
        seen, epochs = self._settled, space.epochs
        if seen is None or seen.curves.epochs != epochs or not same(seen.trials, trials):
            self._settled = seen = settle(study, trials, epochs, self._reader, self._memory)
        return seen

    def _random(self, number: int, space: Space) -> Mapping[str, Any]:
        drawn = Drawn(np.random.default_rng([self._seed, number]))
        space.suggest(drawn)
        return drawn.params

    def _candidates(
        self,
        number: int,
        space: Space,
        trials: list[FrozenTrial],
        best: list[FrozenTrial],
        width: int,
    ) -> list[tuple[Candidates, NDArray[np.int64]]]:
        """From all over the space, and near the best ones; none of those proposed before.

        Those to look at are named by their places, (m,).
        """
        block = number // SHARED_BY
        if self._pool is None or (self._pool.block, self._pool.space) != (block, space):
            self._pool = _Pool(space, block)
        pool = self._pool.near
        best = best[:PARENTS]
        keys: list[_Parent | None] = [None, *((t.number, t.datetime_start) for t in best)]
        for key, parent in zip(keys, (None, *best), strict=True):
            if key not in pool:
                place = 0 if parent is None else parent.number + 1
                rng = np.random.default_rng([self._seed, block, place])
                near, count = (None, CANDIDATES) if parent is None else (parent.params, NEIGHBOURS)
                drawn = [Drawn(rng, near) for _ in range(count)]
                schedules = [space.suggest(each) for each in drawn]
                pool[key] = Candidates(drawn, schedules, width)
        rng = np.random.default_rng([self._seed, number])
        taken = [t.params for t in trials]
        rates = {params.get("lr") for params in taken}
        found = []
        for group in (pool[key] for key in keys):
            seen = np.flatnonzero(rng.random(len(group.drawn)) < SEEN).tolist()
            own = ((i, group.drawn[i].params) for i in seen)
            new = [i for i, params in own if params["lr"] not in rates or params not in taken]
            found.append((group, np.array(new, dtype=np.int64)))
        return found

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Nothing: what is searched is known only when the trial is asked."""
        return {}

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Nothing, likewise."""
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A value of the proposed schedule; TPE's for a parameter that is not of it."""
        asking = asking_now()
        if asking is not None:
            if asking.proposal is None:
                with DECIDING:
                    asking.proposal = self._draw(study, trial.number, asking.space)
            if param_name in asking.proposal:
                return asking.proposal[param_name]
        draw = [self._seed, trial.number, *param_name.encode()]
        seed = int(np.random.default_rng(draw).integers(2**32))
        tpe = TPESampler(seed=seed, multivariate=False)
        return tpe.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Warns of a trial without a schedule, from which nothing is learnt."""
        if state != TrialState.FAIL and "schedule" not in trial.user_attrs:
            warnings.warn(
                "TraceSampler learns nothing from a trial without a schedule: ask for it by "
                "lrsearch.suggest(trial, epochs=...)",
                stacklevel=2,
            )

    def reseed_rng(self) -> None:
        """Nothing to do: draws follow from the trial's number."""


def promise(
    features: Array,
    target: Array,
    variance: Array,
    candidates: Array,
    learnt: dict[bytes, Array] | None = None,
) -> Array:
    """Expected improvement of candidates over the best trial, (m,).

    What the process takes for noise is roughness: the same schedule again would come to the same
    value, another one nearby may be luckier. So it counts as a chance to improve, but not where
    nearly the same curve was run already.

    Args:
        features: Of the trials, (n, d).
        target: As :func:`believed` gives it, (n,); NaN is believed at its predicted value.
        variance: Of the targets, (n,). What has one was foretold by those who know only what was
            good enough to end: it is believed to come to no less than the certain ones say.
        candidates: Their features, (m, d).
        learnt: Keeps the hyperparameters; they are learnt anew when the trials that ended first
            have become an eighth more.
    """
    running = np.isnan(target)
    known = np.flatnonzero(~running)
    limit = max(cap(target[known]), cap(target[known[:LEAST_KNOWN]]))
    y = np.minimum(target, limit)
    known = known[spread(y[known], LARGEST_FIT)]
    best = y[known].min()
    sure = np.flatnonzero(~running & (variance == 0.0))
    step = max(1, len(sure) // 8)
    sure = sure[: len(sure) // step * step]
    sure = sure[spread(y[sure], LEARNT)]
    learnt = {} if learnt is None else learnt
    if (key := y[sure].tobytes()) not in learnt:
        learnt.clear()
        learnt[key] = fit(features[sure], y[sure], steps=20).theta
    theta, rough = learnt[key], ROUGH * np.maximum(candidates.std(axis=0), 1e-9)

    def fitted(rows: NDArray[np.int64]) -> GaussianProcess:
        return fit(features[rows], y[rows], variance=variance[rows], theta=theta, rough=rough)

    process = fitted(known[variance[known] == 0.0])
    unsure = known[variance[known] > 0.0]
    if len(unsure):
        y[unsure] = np.maximum(y[unsure], process.predict(features[unsure])[0])
        process = fitted(known)
    if running.any():
        busy = np.flatnonzero(running)
        y[busy] = process.predict(features[busy])[0]
        process = fitted(np.concatenate([known, busy]))
    mean, sd = process.predict(candidates)
    z = (best - mean) / sd
    return np.asarray(sd * (z * ndtr(z) + np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)))
