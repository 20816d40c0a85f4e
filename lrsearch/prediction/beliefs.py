"""What the trials of a study are taken to have come to: sampler and report go by it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from lrsearch.divergence import status_of
from lrsearch.prediction.curves import (
    COMPLETE,
    DIVERGED,
    RUNNING,
    STOPPED,
    CurveReader,
    Curves,
    by_end,
    stack,
)
from lrsearch.prediction.judge import STARTUP, Judge, Memory
from lrsearch.prediction.surrogate import Array

EARLY: Final = 0.1
"""Share of the budget after which losses are looked at until a few trials are complete."""


@dataclass(frozen=True)
class Settled:
    """The trials that run no more: what is known of them serves until another ends.

    Attributes:
        trials: Those with a schedule.
        curves: Of those of this budget, in the order they ended.
        best: The completed ones of this budget, best first.
        believed: As :func:`believed`; None while few are complete.
    """

    trials: list[FrozenTrial]
    curves: Curves
    best: list[FrozenTrial]
    believed: tuple[Array, Array] | None


def settle(
    study: optuna.Study,
    trials: list[FrozenTrial],
    epochs: int,
    reader: CurveReader,
    memory: Memory,
) -> Settled:
    """Read trials that run no more, of this budget, and say what each has come to."""
    rows = reader.rows(study, by_end(trials))
    rows = {number: row for number, row in rows.items() if len(row.lr) == epochs}
    curves = stack([*rows.values()], epochs)
    complete = [t for t in trials if t.number in rows and status_of(t) == "complete"]
    best = sorted(complete, key=lambda t: (t.value, t.number))
    enough = (curves.state == COMPLETE).sum() >= STARTUP
    return Settled(trials, curves, best, believed(curves, memory) if enough else None)


def believed(curves: Curves, memory: Memory | None = None) -> tuple[Array, Array]:
    """What each trial is taken to have come to, (n,), and the variance of that, (n,).

    In logarithms, where all losses are positive: :meth:`Judge.worth`, and NaN for those that run.
    While few are complete: the averaged loss early in the budget, of all that came so far; NaN for
    the others.
    """
    if (curves.state == COMPLETE).sum() < STARTUP:
        return _early(curves), np.zeros(len(curves))
    settled = curves.state != RUNNING
    target, variances = np.full(len(curves), np.nan), np.zeros(len(curves))
    target[settled], variances[settled] = Judge(curves.take(settled), memory).worth()
    return target, variances


def foretold(study: optuna.Study) -> dict[int, float]:
    """Losses that the stopped trials of a study would have ended with, as the pruner predicts.

    Returns:
        Trial number -> loss, of the budget of the last trial to end; nothing of trials without a
        schedule, and nothing at all while few are complete.
    """
    ended = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
    rows = CurveReader().rows(study, by_end(ended))
    if not rows:
        return {}
    epochs = len([*rows.values()][-1].lr)
    numbers = [number for number, row in rows.items() if len(row.lr) == epochs]
    curves = stack([rows[number] for number in numbers], epochs)
    judge = Judge(curves)
    if judge.finished < STARTUP:
        return {}
    losses = judge.losses(judge.worth()[0])
    return {numbers[i]: float(losses[i]) for i in np.flatnonzero(curves.state == STOPPED)}


def _early(curves: Curves) -> Array:
    """(Log) averaged losses after a tenth of the budget, (n,): NaN unknown, +inf diverged."""
    at = math.ceil(EARLY * curves.epochs) - 1
    losses = np.where(curves.reached > at, curves.avg[:, at], np.nan)
    losses[curves.state == DIVERGED] = np.inf
    return np.log(losses) if np.nanmin(losses, initial=np.inf) > 0 else losses
