"""The numbers of up to k trials, one row of a matrix each; and a row as plain state_dicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lrsearch.training.copies import ATTRIBUTE, unsaved
from lrsearch.training.stacked import Stack
from lrsearch.training.stacked_optim import StackedOptimizer


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


@dataclass(frozen=True)
class RowStates:
    """Rows as the state_dicts of a model and its torch.optim optimizer.

    Args:
        model: A model on the device, which holds what is read and written for a moment.
        stack: Its stacked form.
        rule: The stacked optimizer.
        rows: The rows.
    """

    model: nn.Module
    stack: Stack
    rule: StackedOptimizer
    rows: Rows

    def _half(self, averaged: bool) -> tuple[Tensor, dict[str, Tensor]]:
        rows = self.rows
        if averaged:
            return rows.average, rows.average_buffers
        return rows.params, rows.buffers

    @torch.no_grad()
    def read(self, row: int, *, averaged: bool = False) -> dict[str, Tensor]:
        """The model's state_dict of a row, or that of its running average."""
        flat, buffers = self._half(averaged)
        parameters = dict(self.model.named_parameters())
        for name, view in self.stack.views(flat[row : row + 1]).items():
            parameters[name].copy_(view[0])
        for name, value in self.model.named_buffers():
            value.copy_(buffers[name][row])
        return {name: t.detach().clone() for name, t in self.model.state_dict().items()}

    @torch.no_grad()
    def write(self, row: int, raw: Mapping[str, Tensor], average: Mapping[str, Tensor]) -> None:
        """Set a row to a model and an average, with a fresh optimizer.

        Raises:
            RuntimeError: They are not of this model.
        """
        for values, averaged in ((raw, False), (average, True)):
            flat, buffers = self._half(averaged)
            self.model.load_state_dict(dict(values))
            parameters = dict(self.model.named_parameters())
            for name, view in self.stack.views(flat[row : row + 1]).items():
                view[0].copy_(parameters[name])
            for name, value in self.model.named_buffers():
                buffers[name][row].copy_(value)
        for tensor in self.rows.optim:
            tensor[row].zero_()

    def read_unsaved(self, row: int) -> list[dict[str, Tensor]]:
        """The buffers of a row and of its average that a state_dict leaves out."""
        return [
            {name: buffers[name][row].clone() for name in unsaved(self.model)}
            for buffers in (self.rows.buffers, self.rows.average_buffers)
        ]

    def write_unsaved(self, row: int, values: Sequence[Mapping[str, Tensor]]) -> None:
        """Set them; nothing where a state has none."""
        pair = self.rows.buffers, self.rows.average_buffers
        for buffers, given in zip(pair, values, strict=False):
            for name, value in given.items():
                if not name.endswith(ATTRIBUTE):
                    buffers[name][row].copy_(value)

    def read_optimizer(self, row: int, step: int) -> dict[int, dict[str, Any]]:
        """The ``state`` of torch.optim's state_dict after ``step`` steps, on the CPU."""
        if not step:
            return {}
        views = [self.stack.views(tensor[row : row + 1]) for tensor in self.rows.optim]
        found: dict[int, dict[str, Any]] = {}
        for i, parameter in enumerate(views[0]):
            # torch's fused kernels read a buffer as its parameter lies in memory, strides or not
            tensors = [view[parameter][0].contiguous().to("cpu", copy=True) for view in views]
            named = dict(zip(self.rule.states, tensors, strict=True))
            found[i] = self.rule.with_step(step, named)
        return found

    def write_optimizer(self, row: int, state: Mapping[int, Mapping[str, Any]]) -> None:
        """Set a row's optimizer to the ``state`` of torch.optim's state_dict."""
        for name, tensor in zip(self.rule.states, self.rows.optim, strict=True):
            for i, view in enumerate(self.stack.views(tensor[row : row + 1]).values()):
                value = state.get(i, {}).get(name)
                if value is not None:
                    view[0].copy_(value)
