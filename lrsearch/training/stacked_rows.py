"""The numbers of up to k trials: one row of a matrix each, the live ones first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """State of n trials.

    Args:
        params: Weights, (n, P).
        average: Running average of the weights, (n, P).
        optim: What the optimizer keeps, each (n, P).
        buffers: The model's buffers (statistics of batch norm), each (n, ...).
        average_buffers: Running average of those, each (n, ...).
    """

    params: Tensor
    average: Tensor
    optim: tuple[Tensor, ...]
    buffers: dict[str, Tensor]
    average_buffers: dict[str, Tensor]

    @classmethod
    def allocate(
        cls, k: int, width: int, states: int, buffers: Mapping[str, Tensor], device: torch.device
    ) -> Rows:
        """Room for k trials; rows that are never used cost no memory on a CPU."""

        def matrix() -> Tensor:
            return torch.empty(k, width, device=device)

        def stack() -> dict[str, Tensor]:
            return {name: b.new_empty((k, *b.shape)) for name, b in buffers.items()}

        optim = tuple(matrix() for _ in range(states))
        return cls(matrix(), matrix(), optim, stack(), stack())

    def _tensors(self) -> Iterator[Tensor]:
        yield from (self.params, self.average, *self.optim)
        yield from self.buffers.values()
        yield from self.average_buffers.values()

    def _rebuild(self, tensors: Sequence[Tensor]) -> Rows:
        """The same structure around other tensors, in the order of ``_tensors``."""
        found = iter(tensors)
        return Rows(
            next(found),
            next(found),
            tuple(next(found) for _ in self.optim),
            {name: next(found) for name in self.buffers},
            {name: next(found) for name in self.average_buffers},
        )

    def head(self, n: int) -> Rows:
        """Views of the first n rows."""
        return self._rebuild([t[:n] for t in self._tensors()])

    def take(self, index: Sequence[int]) -> Rows:
        """Copies of some rows."""
        rows = torch.tensor(index, device=self.params.device)
        return self._rebuild([t.index_select(0, rows) for t in self._tensors()])

    def put(self, index: Sequence[int], rows: Rows) -> None:
        """Write rows back to where :meth:`take` found them."""
        where = torch.tensor(index, device=self.params.device)
        for mine, theirs in zip(self._tensors(), rows._tensors(), strict=True):
            mine.index_copy_(0, where, theirs)

    def move(self, source: int, target: int) -> None:
        """Overwrite one row by another."""
        for t in self._tensors():
            t[target].copy_(t[source])
