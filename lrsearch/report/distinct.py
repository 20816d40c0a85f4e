"""Which schedules of a study to train again: the best, the robust one, others that differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lrsearch.errors import LrsearchError
from lrsearch.report.courses import sampled
from lrsearch.report.gentler import gentler
from lrsearch.report.tables import StudyTable, TrialRow

SAME = 0.2
"""Curves that differ by less than this part of their area are one schedule.

Neighbours share the luck of the search's seed, so the next best is often but the winner's twin.
Of three that differ by a fifth, the best by five fresh seeds was 6 ± 3% better on others than of
three that differ by a twentieth (digits, 12 studies), and level on Fashion-MNIST and CIFAR-10.
"""


def choose_arms(
    table: StudyTable, top: int, robust: TrialRow | None = None
) -> list[dict[str, Any]]:
    """The schedules to train again: the winner, the robust one, a gentler one, others, recipes.

    Args:
        table: The search.
        top: Schedules that are no baseline, or the winner; 0 for the baselines only.
        robust: What is in ``robust.yaml``.

    Returns:
        Plain values: ``key``, ``schedule``, ``trial`` and ``baseline`` of each, the best of the
        search first.

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
    """The winner of a search, some that are kept, and the next best that differ as curves.

    Args:
        table: The search.
        top: So many at most. None is a baseline, unless the winner is one.
        kept: Those that come next, however little they differ; None for nothing.
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


def arm_of(trial: TrialRow) -> dict[str, Any]:
    """What is kept of a schedule that is trained again: ``key``, ``schedule``, its trial."""
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
