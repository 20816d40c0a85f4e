"""A trial that trains in lock-step with others: its place in its schedule, what an epoch gave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lrsearch.measured import EpochResult
from lrsearch.schedules import Schedule
from lrsearch.schedules.trace import LazyTrace


@dataclass
class FusedTrial:
    """A trial that an ensemble trains; its weights are in the row of the same position.

    Args:
        key: The trial.
        schedule: Its schedule.
        trace: Rate and momentum (or beta1) of every step; None where the loss sets the rate.
        plateau: The torch scheduler that a loss drives, with its one-parameter optimizer.
        epoch: Epochs finished.
        last_lr: Rate of the last step.
        loss: Sum of the training losses of ``counted`` epochs since the last validation.
    """

    key: int
    schedule: Schedule
    trace: LazyTrace | None
    plateau: Any = None
    epoch: int = 0
    last_lr: float = 0.0
    loss: float = 0.0
    counted: int = 0

    @property
    def plateau_lr(self) -> float:
        """The rate where the loss sets it."""
        return float(self.plateau.optimizer.param_groups[0]["lr"])

    def result(self, numbers: Sequence[float], seconds: float) -> EpochResult:
        """What the epochs since the last validation gave.

        Args:
            numbers: Loss, averaged loss and, where there is one, metric and averaged metric.
            seconds: Wall seconds of these epochs.
        """
        val_loss, avg_val_loss, *metrics = numbers
        train_loss = self.loss / self.counted if self.counted else math.nan
        self.loss, self.counted = 0.0, 0
        if self.plateau is not None:
            self.plateau.step(val_loss)
        return EpochResult(
            epoch=self.epoch,
            lr=self.last_lr,
            train_loss=train_loss,
            val_loss=val_loss,
            val_metric=metrics[0] if metrics else None,
            avg_val_loss=avg_val_loss,
            avg_val_metric=metrics[1] if metrics else None,
            seconds=seconds,
        )
