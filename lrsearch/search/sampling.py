"""The sampler: it learns from the rates of schedules, whatever family they are of.

So what a cosine has shown counts for a polynomial of the same curve, too. A Gaussian process
(:mod:`lrsearch.surrogate`) predicts the final loss from features of the trace. The next trial is
the candidate with the largest expected improvement; candidates are schedules drawn from the whole
space, and neighbours of the best so far. A running trial counts with its predicted loss, a
stopped one with what the pruner's predictors say, or where it stood if it had learnt nothing, a
diverged one as the worst. Where many trials run at once, many are asked for before a few are
complete: until then, early losses are used.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial
from scipy.special import ndtr

from lrsearch.divergence import status_of
from lrsearch.objective import check_direction
from lrsearch.schedules import Space
from lrsearch.search.candidates import Candidates, Drawn
from lrsearch.search.curves import (
    COMPLETE,
    DECIDING,
    DIVERGED,
    RUNNING,
    CurveReader,
    Curves,
    by_end,
    stack,
)
from lrsearch.search.predictors import STARTUP, Judge, Memory
from lrsearch.surrogate import Array, GaussianProcess, cap, fit, spread

LEAST_KNOWN: Final = 8
"""Trials something is known of before the process is asked; others are drawn at random."""
EARLY: Final = 0.1
"""Share of the budget after which losses are looked at until a few trials are complete."""
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

    block: int
    near: dict[_Parent | None, Candidates] = field(default_factory=dict)


class TraceSampler(BaseSampler):
    """Proposes the schedule whose curve promises most, whatever its family is called.

    A proposal follows from the study, the seed and the trial's number alone, also of parameters
    beside the schedule, which are drawn at random. Trials need
    ``user_attrs["schedule"]`` (:meth:`Schedule.to_dict`). Keep one sampler for many trials: it
    remembers the curves of finished ones.

    Args:
        space: What is searched; the objective calls ``space.suggest(trial)``.
        seed: Of the draws.

    Example:
        >>> sampler = TraceSampler(Space(["ConstantLR"], 30, (1e-3, 1.0)), seed=0)
        >>> sorted(sampler.propose(optuna.create_study(), 0))
        ['lr', 'scheduler', 'warmup']
    """

    def __init__(self, space: Space, seed: int = 0) -> None:
        self._space = space
        self._seed = seed
        self._reader = CurveReader()
        self._memory = Memory()
        self._asked: dict[tuple[str, int], Drawn] = {}
        self._pool: _Pool | None = None
        self._learnt: dict[bytes, Array] = {}

    def share(self, reader: CurveReader, memory: Memory) -> None:
        """Use what the pruner of this study reads and learns (:meth:`SchedulePruner.learnt`)."""
        self._reader, self._memory = reader, memory

    def propose(self, study: optuna.Study, number: int) -> dict[str, Any]:
        """Full Optuna parameters for trial ``number``; ``space.suggest`` makes the schedule.

        Args:
            study: All its trials count but the one of this number.
            number: Of the trial they are for.
        """
        with DECIDING:
            return dict(self._draw(study, number).params)

    def _draw(self, study: optuna.Study, number: int) -> Drawn:
        check_direction(study)
        trials = [t for t in study.get_trials(deepcopy=False) if t.number != number]
        trials = by_end([t for t in trials if "schedule" in t.user_attrs])
        if len(trials) < LEAST_KNOWN:
            return self._random(number)
        epochs, read = self._space.epochs, self._reader.rows(study, trials)
        rows = {number: row for number, row in read.items() if len(row.lr) == epochs}
        curves = stack([rows[t.number] for t in trials if t.number in rows], epochs)
        target, variance = believed(curves, self._memory)
        if (~np.isnan(target)).sum() < LEAST_KNOWN or not np.isfinite(target).any():
            return self._random(number)
        # The same curve under another name is the same schedule, and its value is known.
        known = {row.tobytes() for row in curves.features}
        candidates = self._candidates(number, trials, rows, curves.features.shape[1])
        features = np.concatenate([each.features(chosen, curves) for each, chosen in candidates])
        new = np.array([row.tobytes() not in known for row in features], dtype=np.bool_)
        if not new.any():  # a space of a few schedules, all of which were tried
            return self._random(number)
        gain = promise(curves.features, target, variance, features, self._learnt)
        drawn: list[Drawn] = [each.drawn[i] for each, chosen in candidates for i in chosen]
        return drawn[int(np.argmax(np.where(new, gain, -np.inf)))]

    def _random(self, number: int) -> Drawn:
        drawn = Drawn(np.random.default_rng([self._seed % 2**32, number]))
        self._space.suggest(drawn)
        return drawn

    def _candidates(
        self, number: int, trials: list[FrozenTrial], known: Collection[int], width: int
    ) -> list[tuple[Candidates, NDArray[np.int64]]]:
        """From all over the space, and near the best completed ones; none proposed before.

        Those to look at are named by their places, (m,).
        """
        block = number // SHARED_BY
        if self._pool is None or self._pool.block != block:
            self._pool = _Pool(block)
        pool = self._pool.near
        complete = [t for t in trials if t.number in known and status_of(t) == "complete"]
        best = sorted(complete, key=lambda t: (t.value, t.number))[:PARENTS]
        keys: list[_Parent | None] = [None, *((t.number, t.datetime_start) for t in best)]
        for key, parent in zip(keys, (None, *best), strict=True):
            if key not in pool:
                place = 0 if parent is None else parent.number + 1
                rng = np.random.default_rng([self._seed % 2**32, block, place])
                near, count = (None, CANDIDATES) if parent is None else (parent.params, NEIGHBOURS)
                drawn = [Drawn(rng, near) for _ in range(count)]
                schedules = [self._space.suggest(each) for each in drawn]
                pool[key] = Candidates(drawn, schedules, width)
        rng = np.random.default_rng([self._seed % 2**32, number])
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
        """The distributions of the parameters of this proposal."""
        with DECIDING:
            drawn = self._draw(study, trial.number)
        self._asked[study.study_name, trial.number] = drawn
        return dict(drawn.distributions)

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Of the proposal, the parameters of ``search_space``: another may fix the rest."""
        drawn = self._asked.pop((study.study_name, trial.number))
        return {name: value for name, value in drawn.params.items() if name in search_space}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A parameter that is not of the proposal: random, by its name and the trial's number."""
        draw = [self._seed % 2**32, trial.number, *param_name.encode()]
        random = RandomSampler(seed=int(np.random.default_rng(draw).integers(2**32)))
        return random.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Nothing to do: draws follow from the trial's number."""


def believed(curves: Curves, memory: Memory | None = None) -> tuple[Array, Array]:
    """What each trial is taken to have come to, (n,), and the variance of that, (n,).

    The (log) final loss of completed trials; the predicted one of stopped trials, no better than
    the best completed; +inf for diverged ones; NaN for those that run. A stopped trial that looked
    worse than any completed one ever did has, most likely, learnt nothing: it counts as one that
    ended where it stood. While few are complete: the (log) averaged loss early in the budget, of
    all that came so far; NaN for the others.
    """
    if (curves.state == COMPLETE).sum() < STARTUP:
        return _early(curves), np.zeros(len(curves))
    settled = curves.state != RUNNING
    judge = Judge(curves.take(settled), memory)
    (mean, variance), stood = judge.beliefs(), judge.stood()
    target, variances = np.full(len(curves), np.nan), np.zeros(len(curves))
    target[settled] = np.maximum(np.where(np.isnan(stood), mean, stood), judge.best)
    variances[settled] = np.where(np.isnan(stood), variance, 0.0)
    return target, variances


def _early(curves: Curves) -> Array:
    """(Log) averaged losses after a tenth of the budget, (n,): NaN unknown, +inf diverged."""
    at = math.ceil(EARLY * curves.epochs) - 1
    losses = np.where(curves.reached > at, curves.avg[:, at], np.nan)
    losses[curves.state == DIVERGED] = np.inf
    return np.log(losses) if np.nanmin(losses, initial=np.inf) > 0 else losses


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
