"""What training measures: the search judges by it, storage keeps it, reports draw it."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class EpochResult:
    """One trial after one validation.

    Attributes:
        epoch: Epochs finished, from 1 to the budget.
        lr: Learning rate of the last optimizer step (of the group with the largest rate).
        train_loss: Mean loss over the training samples since the last validation.
        val_loss: Loss of the weights on the validation split.
        val_metric: The task's metric there, None when it has none.
        avg_val_loss: The same loss for the running average of the weights.
        avg_val_metric: The same metric for the running average.
        seconds: Wall seconds since the last validation, this validation included.
    """

    epoch: int
    lr: float
    train_loss: float
    val_loss: float
    val_metric: float | None
    avg_val_loss: float
    avg_val_metric: float | None
    seconds: float

    @property
    def diverged(self) -> bool:
        """Whether a loss is not finite; the trial is over then."""
        return not (math.isfinite(self.train_loss) and math.isfinite(self.val_loss))


@dataclass(frozen=True)
class LrRange:
    """A range test, as it is plotted and stored.

    Attributes:
        lrs: Rate of each step.
        losses: Training loss of each step's batch, before the step; one that is not finite as
            the largest, or a million.
        smoothed: Exponential average of the losses.
        diverges_at: Rate at which half of what was learnt was lost again; None if at none.
        low: Lowest rate to search.
        high: Highest rate to search.
    """

    lrs: list[float]
    losses: list[float]
    smoothed: list[float]
    diverges_at: float | None
    low: float
    high: float
