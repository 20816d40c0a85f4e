"""How near a schedule lies to the edge of what the task bears: what runs at higher rates tell.

A schedule near the edge fails on some seeds, and a few may miss it; with its rates raised it fails
on more of them (``studies/winners``). Such a run is a trial of the study ``NAME-confirm``.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lrsearch.errors import ConfigError
from lrsearch.schedules import Schedule
from lrsearch.schedules.args import MAX_LR

if TYPE_CHECKING:
    from lrsearch.report.tables import StudyTable

EDGE = 1.7
"""How many times its rates a schedule of the search is to bear."""
BEYOND = 3.0
"""A schedule is near the edge whose loss at higher rates is above so many times its own."""


def edge_key(arm: str) -> str:
    """What the run of an arm at higher rates is called.

    Example:
        >>> edge_key("#12")
        '#12 x 1.7'
    """
    return f"{arm} x {EDGE:g}"


def at_the_edge(arm: Mapping[str, Any]) -> dict[str, Any] | None:
    """An arm at :data:`EDGE` times its rates; None where a family of one's own refuses them."""
    schedule = Schedule.from_dict(arm["schedule"])
    lr, params = min(EDGE * schedule.lr, MAX_LR), dict(schedule.params)
    if schedule.family == "Points":
        params["points"] = [[epoch, lr / schedule.lr * own] for epoch, own in params["points"]]
    try:
        raised = dataclasses.replace(schedule, lr=lr, params=params)
    except ConfigError:
        return None
    key = edge_key(arm["key"])
    return {"key": key, "of": arm["key"], "schedule": raised.to_dict(), "trial": arm["trial"]}


def raised_losses(table: StudyTable, arm: str) -> list[float]:
    """What an arm came to at higher rates, seed by seed: infinite where it was lost.

    Args:
        table: The study ``NAME-confirm``.
        arm: Its key.
    """
    ended = table.having("complete", "diverged", "failed", "pruned")
    found = [trial for trial in ended if trial.attrs.get("arm") == edge_key(arm)]
    losses = {int(t.attrs["seed"]): math.inf if t.value is None else t.value for t in found}
    return [losses[seed] for seed in sorted(losses)]


def together(losses: Sequence[float]) -> float:
    """Several losses of one schedule as one: their geometric mean, the mean if some are negative.

    Example:
        >>> together([0.5, 0.5]), together([-1.0, 2.0])
        (0.5, 0.5)
    """
    if len(losses) == 1:
        return losses[0]
    return statistics.geometric_mean(losses) if min(losses) > 0 else statistics.fmean(losses)


def beyond(raised: float, loss: float) -> bool:
    """Whether a loss at higher rates says that a schedule lies near the edge.

    Args:
        raised: That loss.
        loss: The schedule's own.
    """
    return raised - loss > (BEYOND - 1) * abs(loss)
