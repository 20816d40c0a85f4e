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


def raised_key(arm: str) -> str:
    """The key of an arm at higher rates, made from the arm's own key.

    Example:
        >>> raised_key("#12")
        '#12 x 1.7'
    """
    return f"{arm} x {RAISE:g}"


def raised_arm(arm: Mapping[str, Any]) -> dict[str, Any]:
    """The arm at :data:`RAISE` times its rates, or at the highest that a schedule may have."""
    schedule = Schedule.from_dict(arm["schedule"])
    lr, params = min(RAISE * schedule.lr, MAX_LR), dict(schedule.params)
    if schedule.family == "Points":
        params["points"] = [[epoch, lr / schedule.lr * own] for epoch, own in params["points"]]
    raised = dataclasses.replace(schedule, lr=lr, params=params)
    key = raised_key(arm["key"])
    return {"key": key, "of": arm["key"], "schedule": raised.to_dict(), "trial": arm["trial"]}


def own_key(arm: str) -> str:
    """The key of an arm at its own rates, in a run that is of the search and sees no test data.

    Example:
        >>> own_key("StepLR")
        'StepLR x 1'
    """
    return f"{arm} x 1"


def own_arm(arm: Mapping[str, Any]) -> dict[str, Any]:
    """The arm at its own rates, in a run that is of the search."""
    key, of = own_key(arm["key"]), arm["key"]
    return {"key": key, "of": of, "schedule": arm["schedule"], "trial": arm["trial"]}


def raised_losses(table: StudyTable, arm: str) -> dict[int, float]:
    """Seed -> the loss of an arm at higher rates, in the order of the seeds.

    Args:
        table: The study ``NAME-confirm``.
        arm: Its key.

    Returns:
        Infinite where it diverged; NaN where the run failed, for want of memory say, which tells
        nothing of the rates.
    """
    return _losses(table, raised_key(arm))


def own_losses(table: StudyTable, arm: str) -> dict[int, float]:
    """Seed -> the loss of an arm at its own rates, as :func:`raised_losses` has them."""
    return _losses(table, arm) | _losses(table, own_key(arm))


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
