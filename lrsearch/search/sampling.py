"""The sampler in trace space: what a cosine has shown speaks for a polynomial of the same curve.

A Gaussian process (:mod:`lrsearch.search.surrogate`) from trace features to the final loss, and
expected improvement over candidates: schedules drawn from the whole space, and neighbours of the
best so far. Trials that run are believed at their predicted value, stopped ones at what the
pruner's predictors say of them, diverged ones are as bad as it gets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial
from scipy.special import ndtr

from lrsearch.errors import UsageError
from lrsearch.schedules import FAMILIES, RandomParams, Schedule, Space
from lrsearch.search.curves import COMPLETE, RUNNING, Curves, Reader, load_curves, lr_per_epoch
from lrsearch.search.pruning import Judge, Memory, cap, spread
from lrsearch.search.surrogate import Array, fit, trace_features

STARTUP: Final = 10
"""Trials drawn at random before the process is asked."""
CANDIDATES: Final = 160
"""Schedules drawn from the whole space for one proposal."""
NEIGHBOURS: Final = 16
"""Neighbours tried of each of the best ``PARENTS`` trials."""
PARENTS: Final = 4
KEPT: Final = 16
"""Trials that share the candidates from the whole space: their traces take most of the time."""
LARGEST_FIT: Final = 300
"""Trials the process knows, at most: the best two thirds of them, and some of the others."""
LEARNT: Final = 100
"""Of these, those that its hyperparameters are learnt from, at most."""
LONGEST_TRACE: Final = 100
"""Epochs of a candidate's trace; a longer schedule is shrunk to it, by its fractions."""


class Drawn(RandomParams):
    """Random values that are also recorded with their Optuna distributions.

    Args:
        rng: numpy generator.
        near: Values to stay near to: each is kept or moved a little, seldom drawn anew.
    """

    def __init__(self, rng: np.random.Generator, near: Mapping[str, Any] | None = None) -> None:
        super().__init__(rng)
        self.near = dict(near or {})
        self.distributions: dict[str, BaseDistribution] = {}

    def _moves(self, name: str) -> bool:
        """Whether a value is near the known one (else it is random)."""
        return name in self.near and self.rng.random() > 0.1

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Uniform, or within about a tenth of the range of the known value."""
        self.distributions[name] = FloatDistribution(low, high, log=log)
        if not self._moves(name):
            return super().suggest_float(name, low, high, log=log)
        value = float(self.near[name])
        if self.rng.random() < 0.6:
            a, b, v = (math.log(x) for x in (low, high, value)) if log else (low, high, value)
            v += 0.1 * (b - a) * self.rng.standard_normal()
            value = math.exp(v) if log else v
        self.params[name] = min(max(value, low), high)
        return float(self.params[name])

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Uniform, or within about a tenth of the range of the known value."""
        self.distributions[name] = IntDistribution(low, high, log=log)
        if not self._moves(name):
            return super().suggest_int(name, low, high, log=log)
        value = int(self.near[name])
        if self.rng.random() < 0.6:
            value += round(max(1.0, 0.1 * (high - low)) * self.rng.standard_normal())
        self.params[name] = min(max(value, low), high)
        return int(self.params[name])

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of ``choices``, mostly the known one."""
        self.distributions[name] = CategoricalDistribution(choices)
        if not self._moves(name):
            return super().suggest_categorical(name, choices)
        self.params[name] = self.near[name]
        return self.params[name]


class TraceSampler(BaseSampler):
    """Proposes the schedule whose curve promises most, whatever its family is called.

    A proposal follows from the study, the seed and the trial's number alone. Trials need
    ``user_attrs["schedule"]`` (:meth:`Schedule.to_dict`). Keep one sampler for many trials: it
    remembers the curves of finished ones.

    Args:
        space: What is searched; the objective calls ``space.suggest(trial)``.
        seed: Of the draws.

    Example:
        >>> sampler = TraceSampler(Space(None, 30, (1e-3, 1.0)), seed=0)
        >>> sorted(sampler.propose(optuna.create_study(), 0))[:2]  # doctest: +SKIP
        ['CosineAnnealingLR.T_max', 'CosineAnnealingLR.eta_min']
    """

    def __init__(self, space: Space, seed: int = 0) -> None:
        self._space = space
        self._seed = seed
        self._reader = Reader()
        self._memory = Memory()
        self._latest: tuple[tuple[str, int], Drawn] | None = None
        self._pool: tuple[int, list[tuple[Drawn, Schedule, Array | None]]] | None = None
        self._independent = RandomSampler(seed=seed)

    def propose(self, study: optuna.Study, number: int) -> dict[str, Any]:
        """Full Optuna parameters for trial ``number``; ``space.suggest`` makes the schedule.

        Args:
            study: All its trials count but the one of this number.
            number: Of the trial they are for.
        """
        return dict(self._draw(study, number).params)

    def _draw(self, study: optuna.Study, number: int) -> Drawn:
        rng = np.random.default_rng([self._seed % 2**32, number])
        trials = [t for t in study.get_trials(deepcopy=False) if t.number != number]
        trials = [t for t in trials if "schedule" in t.user_attrs]
        ended = sum(t.state.is_finished() for t in trials)
        curves = load_curves(study, trials, self._reader)
        if ended < STARTUP or not (curves.state == COMPLETE).any():
            first = Drawn(rng)
            self._space.suggest(first)
            return first
        drawn, lr = self._candidates(rng, number, trials, curves)
        target, variance = believed(curves, self._memory)
        features = trace_features(lr)
        gain = promise(curves.features, target, variance, curves.state == RUNNING, features)
        return drawn[int(np.argmax(gain))]

    def _candidates(
        self,
        rng: np.random.Generator,
        number: int,
        trials: list[FrozenTrial],
        curves: Curves,
    ) -> tuple[list[Drawn], Array]:
        """From all over the space, and near the best completed trials; with their rates."""
        block = number // KEPT
        if self._pool is None or self._pool[0] != block:
            common = np.random.default_rng([self._seed % 2**32, block, 1])
            self._pool = block, self._with_schedules([Drawn(common) for _ in range(CANDIDATES)])
        complete = [t for t in trials if t.state.name == "COMPLETE" and t.value is not None]
        best = sorted(complete, key=lambda t: (t.value, t.number))[:PARENTS]
        near = [Drawn(rng, t.params) for t in best for _ in range(NEIGHBOURS)]
        all_of_them = self._pool[1] + self._with_schedules(near)
        rates = [
            candidate_lr(schedule, curves) if lr is None else lr for _, schedule, lr in all_of_them
        ]
        return [drawn for drawn, _, _ in all_of_them], np.stack(rates)

    def _with_schedules(self, drawn: list[Drawn]) -> list[tuple[Drawn, Schedule, Array | None]]:
        """With the schedule of each, and its rates where they do not depend on the loss."""
        out = []
        for values in drawn:
            schedule = self._space.suggest(values)
            known = not FAMILIES[schedule.family].needs_metric
            out.append((values, schedule, candidate_lr(schedule) if known else None))
        return out

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The distributions of the parameters of this proposal."""
        key = (study.study_name, trial.number)
        if self._latest is None or self._latest[0] != key:
            self._latest = key, self._draw(study, trial.number)
        return dict(self._latest[1].distributions)

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """The proposal, all parameters at once."""
        self.infer_relative_search_space(study, trial)
        assert self._latest is not None
        return dict(self._latest[1].params)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A parameter that is not of the schedule: random."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Nothing to do: draws follow from the trial's number."""


def candidate_lr(schedule: Schedule, curves: Curves | None = None) -> Array:
    """Rates of a schedule that was not run, by epoch.

    ``ReduceLROnPlateau`` is stepped on the losses of the completed trial with the nearest peak
    rate: what it would have done there.
    """
    if not FAMILIES[schedule.family].needs_metric:
        short = schedule.epochs > LONGEST_TRACE
        return lr_per_epoch(schedule.rescaled(LONGEST_TRACE) if short else schedule)
    if curves is None:
        raise UsageError(f"{schedule.family} has no trace: give the curves of other trials")
    complete = np.flatnonzero(curves.state == COMPLETE)
    peak = curves.features[complete, 0]
    losses = curves.raw[complete[np.argmin(np.abs(peak - math.log(schedule.lr)))]]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=schedule.lr)
    scheduler: Any = schedule.build(optimizer)
    lr = np.empty(len(losses))
    for epoch, loss in enumerate(losses):
        lr[epoch] = optimizer.param_groups[0]["lr"]
        scheduler.step(float(loss))
    return _shrunk(lr)


def _shrunk(lr: Array) -> Array:
    """At most ``LONGEST_TRACE`` of the epochs, evenly."""
    n = len(lr)
    return lr[np.arange(LONGEST_TRACE) * n // LONGEST_TRACE] if n > LONGEST_TRACE else lr


def believed(curves: Curves, memory: Memory | None = None) -> tuple[Array, Array]:
    """What each trial is taken to have come to, (n,), and the variance of that, (n,).

    The (log) final loss of completed trials; the predicted one of stopped trials, no better than
    the best completed; +inf for diverged ones; NaN for those that run.
    """
    settled = curves.state != RUNNING
    judge = Judge(curves.take(settled), memory)
    mean, variance = judge.beliefs()
    target, spread = np.full(len(curves), np.nan), np.zeros(len(curves))
    target[settled], spread[settled] = np.maximum(mean, judge.best), variance
    return target, spread


def promise(
    features: Array,
    target: Array,
    variance: Array,
    running: NDArray[np.bool_],
    candidates: Array,
) -> Array:
    """Expected improvement of candidates over what the process holds the best for, (m,).

    Args:
        features: Of the trials, (n, d).
        target: As :func:`believed` gives it, (n,).
        variance: Of the targets, (n,).
        running: Which trials run: they are believed at their predicted value, (n,) bool.
        candidates: Their features, (m, d).
    """
    known = np.flatnonzero(~running)
    y = np.minimum(target, cap(target[known]))
    known = known[spread(y[known], LARGEST_FIT)]
    sure = known[variance[known] == 0.0][:LEARNT]
    theta = fit(features[sure], y[sure], steps=20).theta
    process = fit(features[known], y[known], variance=variance[known], theta=theta)
    if running.any():
        busy = np.flatnonzero(running)
        y[busy] = process.predict(features[busy])[0]
        known = np.concatenate([known, busy])
        process = fit(features[known], y[known], variance=variance[known], theta=theta)
    best = process.predict(features[known])[0].min()
    mean, sd = process.predict(candidates)
    sd = np.sqrt(np.maximum(sd**2 - process.noise**2, 1e-12 * process.noise**2))
    z = (best - mean) / sd
    return np.asarray(sd * (z * ndtr(z) + np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)))
