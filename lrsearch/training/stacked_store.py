"""Rows of the stacked tensors as the state_dicts of a model and its torch.optim optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lrsearch.training.copies import unsaved
from lrsearch.training.stacked import Stack
from lrsearch.training.stacked_optim import StackedOptimizer
from lrsearch.training.stacked_rows import Rows


@dataclass(frozen=True)
class Store:
    """Reads and writes rows.

    Args:
        model: A model on the device, a vessel for what is read and written.
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
