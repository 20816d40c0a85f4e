"""Which schedules of a search are worth training again: the best, a gentler one, the next best.

The lowest of hundreds of losses has been lucky. So a search ends with a few finalists, which are
trained again on fresh seeds (:mod:`lrsearch.report.robust`, :mod:`lrsearch.confirm`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lrsearch.errors import LrsearchError
from lrsearch.report.learning_curves import sampled
from lrsearch.report.tables import StudyTable, TrialRow

SAME = 0.2
"""Curves that differ by less than this part of their area count as one schedule.

Neighbours share the luck of the search's seed, so the next best is often the winner's twin.
Finalists that differ by a fifth were worth more than finalists that differ by a twentieth: the one
that five fresh seeds chose was 6 ± 3% better on further seeds (digits, 12 studies), and level on
Fashion-MNIST and CIFAR-10.
"""
LEAST_COMPLETE = 8
"""With fewer complete trials nothing says how much of a loss is luck."""
LEAST_SURE = 16
"""With fewer, luck is mostly what the Gaussian process takes it for before it has seen a loss.

That is half of the spread of the losses: a loss 29 times the best was called luck once. It does
for a finalist, which is trained again, but not for an answer. In each of 10 searches of digits and
square, 16 complete trials said more of the noise (Fisher information) than its prior did; 14 said
more in 7 of them, 8 in one.
"""
MOST_COMPLETE = 100
"""How many of the best complete trials may be the gentler one."""


def choose_arms(
    table: StudyTable, top: int, robust: TrialRow | None = None
) -> list[dict[str, Any]]:
    """What ``lrsearch confirm`` trains again: finalists of a search, then every baseline.

    Args:
        table: The search.
        top: How many finalists; 0 for the baselines only.
        robust: The schedule in ``robust.yaml``, which is one of them.

    Returns:
        An arm (:func:`arm_of`) for each schedule, the best of the search first.

    Raises:
        LrsearchError: No trial is complete, or no baseline where only they are asked for.
    """
    complete = [t for t in table.complete if t.schedule]
    if not complete:
        raise LrsearchError(
            f"study {table.name!r} has no completed trial to confirm; run it a little longer"
        )
    chosen = finalists(table, top, [robust, gentler(table)])
    rest = [t for t in complete if t.baseline is not None and t not in chosen]
    if not chosen and not rest:
        raise LrsearchError(f"study {table.name!r} has no completed baseline; write --top 1")
    return [arm_of(trial) for trial in (*chosen, *rest)]


def finalists(table: StudyTable, top: int, kept: Sequence[TrialRow | None] = ()) -> list[TrialRow]:
    """The winner of a search, then ``kept``, then the next best whose curves differ from these.

    Args:
        table: The search.
        top: How many at most. A baseline is only among them as the winner.
        kept: Trials that are taken right after the winner, even if their curves are much like
            it; None stands for no trial.
    """
    complete = [t for t in table.complete if t.schedule]
    chosen: list[TrialRow] = []
    curves: list[np.ndarray] = []
    always = [trial for trial in kept if trial is not None]
    in_order = {trial.number: trial for trial in (*complete[:1], *always, *complete)}
    for trial in in_order.values():
        if len(chosen) == top:
            break
        if trial.baseline is not None and chosen:
            continue
        curve = sampled(table, trial)
        if trial in always or all(difference(curve, other) > SAME for other in curves):
            chosen.append(trial)
            curves.append(curve)
    return chosen


def gentler(table: StudyTable) -> TrialRow | None:
    """Of the trials that may be behind the best by luck alone, the one with the lowest peak rate.

    The lowest of hundreds of losses has been lucky, and luck favours high rates, which may fail on
    another seed. This is the one-standard-error rule (Breiman, Friedman, Olshen and Stone,
    *Classification and Regression Trees*, 1984): of all that are as good within the error, take
    the simplest; here, the one with the lowest peak. The error is sigma (1 + sqrt(2 ln n)), where
    n is the number of trials, sqrt(2 ln n) about the luck of the luckiest of n equal trials, 1
    that of any other, and sigma the noise of a Gaussian process from the curves to the log losses.
    What the rule is worth is in ``studies/winners``.

    Returns:
        A complete trial that is no baseline. None where that is the best trial itself, where the
        best is a baseline, or where fewer than :data:`LEAST_COMPLETE` trials are complete.
    """
    complete = [t for t in table.complete if t.schedule and math.isfinite(t.value or 0.0)][
        :MOST_COMPLETE
    ]
    if len(complete) < LEAST_COMPLETE or complete[0].baseline is not None:
        return None
    from lrsearch.prediction.surrogate import cap, fit, trace_features  # scipy: half a CPU second

    best = complete[0]
    losses = np.array([t.value for t in complete], dtype=np.float64)
    losses = np.log(losses) if losses[0] > 0 else losses
    curves = np.array([sampled(table, t) for t in complete])
    sigma = fit(trace_features(curves), np.minimum(losses, cap(losses)), steps=30).noise
    tried = len(table.finished)
    alike = losses <= losses[0] + sigma * (1.0 + math.sqrt(2.0 * math.log(tried)))
    peaks = curves.max(axis=1)
    others = [
        i
        for i, t in enumerate(complete)
        if alike[i] and t.baseline is None and t.others == best.others
    ]
    found = complete[min(others, key=lambda i: (peaks[i], i))]
    return None if found is best else found


def arm_of(trial: TrialRow) -> dict[str, Any]:
    """A schedule that is trained again, as plain values for the study ``NAME-confirm``.

    ``key`` is the baseline's name, or ``#`` and the trial's number; ``schedule`` is that of the
    trial with number ``trial``; ``baseline`` is the recipe's name, or None.
    """
    return {
        "key": trial.baseline if trial.baseline is not None else f"#{trial.number}",
        "schedule": dict(trial.schedule),
        "trial": trial.number,
        "baseline": trial.baseline,
    }


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Area between two curves over the area under the higher one: 0 equal, 1 nothing in common.

    Example:
        >>> float(difference(np.array([0.1, 0.1]), np.array([0.1, 0.05])))
        0.25
    """
    return float(np.abs(a - b).sum() / max(float(np.maximum(a, b).sum()), 1e-300))
