"""A schedule over a number of optimizer steps, as frameworks count."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from lrsearch.schedules import Schedule


def build_for_steps(schedule: Schedule, optimizer: Optimizer, steps: int) -> LRScheduler:
    """The torch scheduler of a schedule that is over after exactly ``steps`` steps.

    Args:
        schedule: Rescaled from its own budget.
        optimizer: As for ``Schedule.build``.
        steps: Optimizer steps of the whole training, at least 1.
    """
    schedule = dataclasses.replace(schedule, interval="step")
    per_epoch, rest = divmod(steps, schedule.epochs)
    if rest or not per_epoch:  # its epochs are no whole number of steps: durations are in steps
        return schedule.rescaled(steps).build(optimizer, steps_per_epoch=1)
    return schedule.build(optimizer, steps_per_epoch=per_epoch)
