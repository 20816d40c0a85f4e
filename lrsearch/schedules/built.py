"""Which torch scheduler was built from a schedule: so that a forgotten ``step()`` is noticed."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler

    from lrsearch.schedules.schedule import Schedule

_BUILT: dict[int, tuple[weakref.ref[Any], weakref.ref[LRScheduler], int]] = {}


def remember(schedule: Schedule, scheduler: LRScheduler, per_epoch: int) -> None:
    """Keep, while both live, that ``scheduler`` is stepped ``per_epoch`` times an epoch."""
    key = id(schedule)
    alive = weakref.ref(schedule, lambda _: _BUILT.pop(key, None))
    _BUILT[key] = alive, weakref.ref(scheduler), per_epoch


def steps_taken(schedule: Schedule) -> tuple[int, int] | None:
    """Steps of the scheduler built last from this very object, and its steps an epoch.

    None where there is none, or where it does not count them.
    """
    entry = _BUILT.get(id(schedule))
    scheduler: Any = entry[1]() if entry is not None else None
    if entry is None or scheduler is None:
        return None
    members = getattr(scheduler, "_schedulers", None)  # ChainedScheduler has no count of its own
    count = getattr(scheduler, "last_epoch", None)
    if count is None and members:
        count = getattr(members[0], "last_epoch", None)
    return (int(count), entry[2]) if count is not None else None
