"""A schedule over a number of optimizer steps, as frameworks count."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from lrsearch.schedules.args import MAX_EPOCHS

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from lrsearch.schedules import Schedule


def build_for_steps(schedule: Schedule, optimizer: Optimizer, steps: int) -> LRScheduler:
    """The torch scheduler of a schedule that is over after exactly ``steps`` steps.

    Where these are more than a budget may have, and no multiple of the schedule's epochs, it is
    over up to one step in a million later.

    Args:
        schedule: Rescaled from its own budget.
        optimizer: As for ``Schedule.build``.
        steps: Optimizer steps of the whole training.

    Raises:
        UsageError: There are none.
    """
    schedule = dataclasses.replace(schedule, interval="step")
    per_epoch, rest = divmod(steps, schedule.epochs)
    if rest or not per_epoch:  # its epochs are no whole number of steps: durations are in steps
        per_epoch = max(1, -(-steps // MAX_EPOCHS))
        schedule = schedule.rescaled(-(-steps // per_epoch))
    return schedule.build(optimizer, steps_per_epoch=per_epoch)
