"""Predicts the final loss of a trial: three predictors at one epoch, and their weights.

Each is a Gaussian process on the trace features (:mod:`lrsearch.prediction.surrogate`). They
predict the final loss from the trace alone, from the trace and the averaged loss so far, or as
the averaged loss now and what will be added to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import stdtr

from lrsearch.prediction.surrogate import Array, GaussianProcess

LEADERS: Final = (0.15, 0.6)
"""Share of the trials, the best by averaged loss at the same epoch, that lead and are stopped
later: the larger where the averaged loss ranked the best finished trials as well as the predictors
did."""
_Inputs = Callable[[Array], tuple[Array, Array]]


def _nothing(avg: Array) -> tuple[Array, Array]:
    return np.zeros((len(avg), 0)), np.zeros(len(avg))


def _averaged(avg: Array) -> tuple[Array, Array]:
    return avg[:, None], np.zeros(len(avg))


def _from_averaged(avg: Array) -> tuple[Array, Array]:
    return np.zeros((len(avg), 0)), avg


PREDICTORS: Final[dict[str, _Inputs]] = {
    "trace": _nothing,
    "trace and averaged loss": _averaged,
    "what is left from the averaged loss": _from_averaged,
}
"""Name -> (losses that are inputs, offset of the target), from the averaged losses at a rung."""


@dataclass(frozen=True)
class Rung:
    """The predictors of the final loss at one epoch, fitted, with their weights."""

    caps: tuple[float, float]  # of averaged and final loss
    processes: tuple[GaussianProcess, ...]
    weights: Array  # (predictors,)
    freedom: float  # degrees of freedom of the predictive t distribution
    leaders: float = LEADERS[0]  # share of the trials, best by averaged loss, that lead
    thetas: Sequence[Array] = ()  # hyperparameters to keep, one for each predictor

    def predict(self, features: Array, avg: Array) -> tuple[Array, Array]:
        """Means and sds of the final (log) loss by each predictor: two of (predictors, m)."""
        avg = np.minimum(avg, self.caps[0])
        means, sds = [], []
        for inputs, process in zip(PREDICTORS.values(), self.processes, strict=True):
            linear, offset = inputs(avg)
            mean, sd = process.predict(np.concatenate([features, linear], axis=1), linear)
            means.append(mean + offset)
            sds.append(sd)
        return np.array(means), np.array(sds)

    def moments(self, features: Array, avg: Array) -> tuple[Array, Array]:
        """Mean and sd of the weighted mixture: two of (m,)."""
        means, sds = self.predict(features, avg)
        mean = self.weights @ means
        return mean, np.sqrt(np.maximum(self.weights @ (sds**2 + means**2) - mean**2, 0.0))

    def chance(self, features: Array, avg: Array, best: float | Array) -> Array:
        """Chance that the final loss is below ``best``, one for all or (m,): (m,)."""
        means, sds = self.predict(features, avg)
        return np.asarray(self.weights @ stdtr(self.freedom, (best - means) / sds))
