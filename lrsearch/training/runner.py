"""What training hands to the search: one result per validation, and the protocol of a runner."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from lrsearch.schedules import Schedule


@dataclass(frozen=True)
class EpochResult:
    """One trial after one validation.

    Args:
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


def next_validation(epoch: int, every: int, budget: int) -> int:
    """The epoch after which a trial that has run ``epoch`` of them is validated next.

    Example:
        >>> [next_validation(epoch, 4, 10) for epoch in (0, 3, 4, 8)]
        [4, 4, 8, 10]
    """
    return min(epoch // every * every + every, budget)


class Runner(Protocol):
    """Trains up to ``capacity`` trials of one task; the search only knows this protocol.

    A trial is added with its schedule (and its state, to resume it), advances by one validation
    period with every call of ``epoch``, and stays until it is removed.
    """

    capacity: int

    def add(self, key: int, schedule: Schedule, state: dict[str, Any] | None = None) -> None:
        """Let trial ``key`` in, from the beginning or from a ``state`` saved earlier."""

    def epoch(self) -> dict[int, EpochResult]:
        """Advance every resident trial to its next validation (``validate_every`` epochs)."""

    def state(self, key: int) -> dict[str, Any]:
        """All of the trial, in tensors and plain values (``torch.load(weights_only=True)``)."""

    def weights(self, key: int) -> dict[str, Tensor]:
        """The raw (not averaged) state_dict of the trial's model."""

    def unsaved(self, key: int) -> dict[str, Any]:
        """What a state_dict leaves out: buffers (``persistent=False``), counters."""

    def remove(self, key: int) -> None:
        """Let the trial go and free its memory."""
