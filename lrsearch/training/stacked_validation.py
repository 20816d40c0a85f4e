"""Validation of the weights, and of their running averages, of n trials at once."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from lrsearch.tasks.task import Split, Task
from lrsearch.training.batches import evaluation_batches
from lrsearch.training.device import random_seed
from lrsearch.training.stacked import Stack
from lrsearch.training.stacked_loss import losses_of, metrics_of
from lrsearch.training.stacked_rows import Rows
from lrsearch.training.stacked_vmap import at_once


class StackedValidation:
    """Losses and metrics on the validation samples, batched as for a trial alone.

    Args:
        task: Its validation split must be tensors.
        stack: The stacked model.
        device: Where.
        trials: n, at most.
    """

    def __init__(self, task: Task, stack: Stack, device: torch.device, trials: int) -> None:
        assert isinstance(task.validation, Split)
        self.stack = stack
        self.device = device
        seeing = 1 if stack.dependent else trials  # whole batches must be those of a trial alone
        self.batches = evaluation_batches(task, task.validation, device, seeing)
        self.whole = task.validation_loss is not None
        loss = task.validation_loss or task.loss
        self.losses = losses_of(loss, task.validation.y)
        self.metrics = metrics_of(task.metric, task.validation.y) if task.metric else None

    def __call__(self, rows: Rows) -> list[list[float]]:
        """Per trial: loss, averaged loss and, where there is one, metric and averaged metric."""
        models = ((rows.params, rows.buffers), (rows.average, rows.average_buffers))
        table: list[list[Tensor]] = []  # for each batch, columns (n,)
        sizes: list[int] = []
        outputs: list[list[Tensor]] = []
        targets: list[Tensor] = []
        for i, (x, y) in enumerate(self.batches()):
            x = self.stack.prepare(x)
            found = [self._outputs(flat, buffers, x, i) for flat, buffers in models]
            sizes.append(len(y))
            if self.whole:
                outputs.append(found)
                targets.append(y)
            else:
                table.append(self._numbers(found, y))
        if self.whole:
            joined = [torch.cat(parts, 1) for parts in zip(*outputs, strict=True)]
            sizes, table = [sum(sizes)], [self._numbers(joined, torch.cat(targets))]
        columns = _mean_over_batches(table, sizes)
        numbers: list[list[float]] = torch.stack([t.float() for t in columns], 1).tolist()
        return numbers

    def _numbers(self, found: list[Tensor], y: Tensor) -> list[Tensor]:
        """Losses, then metrics, (n,) of the outputs of both models."""
        losses = [self.losses(z, y) for z in found]
        return losses + ([self.metrics(z, y) for z in found] if self.metrics else [])

    def _outputs(self, flat: Tensor, buffers: dict[str, Tensor], x: Tensor, i: int) -> Tensor:
        """Of batch ``i``; what a model draws at random is what it would draw alone."""
        most = at_once(x) if self.stack.dependent else len(flat)
        parts = []
        for start in range(0, len(flat), most):
            of = slice(start, start + most)
            mine = {name: value[of] for name, value in buffers.items()}
            with random_seed(self.device, i) if self.stack.random else nullcontext():
                parts.append(self.stack.outputs(flat[of], mine, x))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _mean_over_batches(table: list[list[Tensor]], sizes: list[int]) -> list[Tensor]:
    """Mean over samples of means over batches: one (n,) for each column of the table."""
    if len(table) == 1:
        return table[0]
    weights = [size / sum(sizes) for size in sizes]
    return [
        torch.stack([value * w for value, w in zip(column, weights, strict=True)]).sum(0)
        for column in zip(*table, strict=True)
    ]
