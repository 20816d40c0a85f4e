"""Runs of a schedule at 1.7 times its rates: how near it lies to the edge of what the task bears.

A schedule near that edge fails on some seeds, and a few seeds may not show it. With its rates
raised it fails on more of them (``studies/winners``). Each such run is a trial of the study
``NAME-confirm``; so is a run at its own rates that belongs to the search.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lrsearch.report.tables import ENDED, StudyTable, TrialRow
from lrsearch.schedules import Schedule
from lrsearch.schedules.args import MAX_LR

RAISE = 1.7
"""By what a schedule's rates are multiplied in such a run."""
EDGE_FACTOR = 3.0
"""A schedule is near the edge if its loss at higher rates is above so many times its own.

Of a loss that is not above 0 no multiple says anything. There it is near the edge if it ends at
higher rates above its own loss, and no lower than it was after its first epoch."""


def key_at(arm: str, times: float) -> str:
    """The key of an arm at so many times its rates, in a run that is of the search.

    Such a run sees no test data, also at its own rates.

    Example:
        >>> key_at("#12", RAISE), key_at("StepLR", 1)
        ('#12 x 1.7', 'StepLR x 1')
    """
    return f"{arm} x {times:g}"


def arm_at(arm: Mapping[str, Any], times: float) -> dict[str, Any]:
    """The arm in such a run: at so many times its rates, or the highest a schedule may have."""
    schedule = Schedule.from_dict(arm["schedule"])
    lr, params = min(times * schedule.lr, MAX_LR), dict(schedule.params)
    if schedule.family == "Points":
        params["points"] = [[epoch, lr / schedule.lr * own] for epoch, own in params["points"]]
    there = dataclasses.replace(schedule, lr=lr, params=params)
    key = key_at(arm["key"], times)
    return {"key": key, "of": arm["key"], "schedule": there.to_dict(), "trial": arm["trial"]}


def raised_losses(table: StudyTable, arm: str) -> dict[int, float]:
    """Seed -> the loss of an arm at :data:`RAISE` times its rates, in the order of the seeds.

    Args:
        table: The study ``NAME-confirm``.
        arm: Its key.

    Returns:
        Infinite where it diverged; NaN where the run failed, for want of memory say, which tells
        nothing of the rates.
    """
    return _losses(table, key_at(arm, RAISE))


def own_losses(table: StudyTable, arm: str) -> dict[int, float]:
    """Seed -> the loss of an arm at its own rates, as :func:`raised_losses` has them."""
    return _losses(table, arm) | _losses(table, key_at(arm, 1))


def _losses(table: StudyTable, key: str) -> dict[int, float]:
    found = [trial for trial in table.having(*ENDED) if trial.attrs.get("arm") == key]
    losses = {int(trial.attrs["seed"]): _final_loss(trial) for trial in found}
    return dict(sorted(losses.items()))


def _final_loss(trial: TrialRow) -> float:
    if trial.value is not None:
        return trial.value
    return math.nan if trial.status == "failed" else math.inf


def measured(losses: Sequence[float]) -> list[float]:
    """The losses without those of runs that failed.

    Example:
        >>> measured([0.5, float("nan"), float("inf")])
        [0.5, inf]
    """
    return [loss for loss in losses if not math.isnan(loss)]


def plain_loss(loss: float) -> float | str:
    """A loss as a file has it, or how the run ended that has none.

    Example:
        >>> [plain_loss(loss) for loss in (0.5, float("inf"), float("nan"))]
        [0.5, 'diverged', 'failed']
    """
    if math.isfinite(loss):
        return loss
    return "failed" if math.isnan(loss) else "diverged"


def mean_loss(losses: Sequence[float]) -> float:
    """The geometric mean of some losses; the plain mean if one of them is not above 0.

    Example:
        >>> mean_loss([0.5, 0.5]), mean_loss([-1.0, 2.0])
        (0.5, 0.5)
    """
    if len(losses) == 1:
        return losses[0]
    return statistics.geometric_mean(losses) if min(losses) > 0 else statistics.fmean(losses)


def mean_first_loss(runs: Iterable[TrialRow]) -> float | None:
    """The mean loss of some runs after their first epoch; None where that is not known."""
    losses = [trial.first_loss for trial in runs if trial.first_loss is not None]
    return statistics.fmean(losses) if losses else None


def is_near_edge(raised: float, loss: float, first: float | None) -> bool:
    """Whether a schedule lies near the edge (:data:`EDGE_FACTOR`).

    Args:
        raised: Its loss at higher rates.
        loss: Its loss at its own rates.
        first: That loss after its first epoch; None where it is not known.

    Example:
        >>> is_near_edge(0.5, 0.1, first=1.0), is_near_edge(-1.5, -2.0, first=0.3)
        (True, False)
        >>> is_near_edge(0.0, 0.0, first=0.0)
        False
    """
    if loss > 0:
        return raised > EDGE_FACTOR * loss
    return raised > loss and raised >= (math.inf if first is None else first)
