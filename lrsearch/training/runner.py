"""What the search knows of training: the protocol of a runner."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from lrsearch.measured import EpochResult
from lrsearch.schedules import Schedule


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
