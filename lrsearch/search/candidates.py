"""Schedules that the sampler may propose: their values, their rates, and what the process sees."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lrsearch.prediction.curves import COMPLETE, Curves, lr_per_epoch
from lrsearch.prediction.surrogate import Array, trace_features
from lrsearch.schedules import FAMILIES, RandomParams, Schedule
from lrsearch.schedules.trace import dummy

LONGEST_TRACE: Final = 100
"""Epochs of a candidate's trace; a longer schedule is shrunk to it, by its fractions."""


class Drawn(RandomParams):
    """Random values, all over the space or near known ones.

    Args:
        rng: numpy generator.
        near: Values to stay near to: each is kept or moved a little, seldom drawn anew.
    """

    def __init__(self, rng: np.random.Generator, near: Mapping[str, Any] | None = None) -> None:
        super().__init__(rng)
        self.near = dict(near or {})

    def _moves(self, name: str) -> bool:
        """Whether a value is near the known one (else it is random)."""
        return name in self.near and self.rng.random() > 0.1

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Uniform, or within about a tenth of the range of the known value."""
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
        if not self._moves(name):
            return super().suggest_int(name, low, high, log=log)
        value = int(self.near[name])
        if self.rng.random() < 0.6:
            value += round(max(1.0, 0.1 * (high - low)) * self.rng.standard_normal())
        self.params[name] = min(max(value, low), high)
        return int(self.params[name])

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of ``choices``, mostly the known one."""
        if not self._moves(name):
            return super().suggest_categorical(name, choices)
        self.params[name] = self.near[name]
        return self.params[name]


class Candidates:
    """Schedules that may be proposed, with what the process sees of them.

    ``ReduceLROnPlateau`` is stepped on the losses of the completed trial with the nearest peak
    rate: what it would have done there.

    Args:
        drawn: Their values.
        schedules: What these make.
        width: Trace features of a schedule.
    """

    def __init__(self, drawn: list[Drawn], schedules: list[Schedule], width: int) -> None:
        self.drawn = drawn
        self._features = np.zeros((len(drawn), width))
        follow = [FAMILIES[schedule.family].needs_metric for schedule in schedules]
        self._follow = {i: schedules[i] for i in np.flatnonzero(follow).tolist()}
        self._followed: dict[int, bytes] = {}
        known = np.flatnonzero(np.logical_not(follow))
        if len(known):
            lr = np.array([candidate_lr(schedules[i]) for i in known])
            self._features[known] = trace_features(lr)

    def features(self, chosen: NDArray[np.int64], curves: Curves) -> Array:
        """Those of some, (m, d): computed again only where the losses they follow are others."""
        follow = [i for i in chosen.tolist() if i in self._follow]
        nearest = nearest_losses([self._follow[i] for i in follow], curves)
        for i, losses in zip(follow, nearest, strict=True):
            if self._followed.get(i) != (followed := losses.tobytes()):
                self._followed[i] = followed
                self._features[i] = trace_features(driven_lr(self._follow[i], losses))[0]
        return self._features[chosen]


def candidate_lr(schedule: Schedule) -> Array:
    """Rates of a schedule that was not run, by epoch; of one that has a trace."""
    short = schedule.epochs > LONGEST_TRACE
    return lr_per_epoch(schedule.rescaled(LONGEST_TRACE) if short else schedule)


def driven_lr(schedule: Schedule, losses: Array) -> Array:
    """Rates of a schedule that these losses drive, by epoch: what it would have done there."""
    optimizer = dummy("sgd", 0.0)
    scheduler: Any = schedule.build(optimizer)
    lr = np.empty(len(losses))
    for epoch, loss in enumerate(losses):
        lr[epoch] = optimizer.param_groups[0]["lr"]
        scheduler.step(float(loss))
    return _shrunk(lr)


def nearest_losses(schedules: Sequence[Schedule], curves: Curves) -> Array:
    """For each schedule the losses of the completed trial with the nearest peak rate, (n, E)."""
    complete = np.flatnonzero(curves.state == COMPLETE)
    if not len(complete):  # they fall: the rate is held
        return np.tile(-np.arange(curves.epochs, dtype=np.float64), (len(schedules), 1))
    peaks = np.log(curves.lr[complete].max(axis=1))
    own = np.array([math.log(schedule.lr) for schedule in schedules])
    distance = np.abs(peaks - own[:, None])  # (n, completed)
    return np.asarray(curves.raw[complete[distance.argmin(axis=1)]])


def _shrunk(lr: Array) -> Array:
    """At most ``LONGEST_TRACE`` of the epochs, evenly."""
    n = len(lr)
    return lr[np.arange(LONGEST_TRACE) * n // LONGEST_TRACE] if n > LONGEST_TRACE else lr
