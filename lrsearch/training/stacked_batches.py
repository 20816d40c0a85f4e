"""Training batches for trials that stand at different epochs of the same data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lrsearch.tasks.images import Augment, rows
from lrsearch.tasks.passes import host_seeded
from lrsearch.tasks.task import Split, TransformFn
from lrsearch.training.batches import (
    CHUNK_ELEMENTS,
    DEVICE_CHUNK_ELEMENTS,
    READY_ELEMENTS,
    EpochPlan,
    batch_sizes,
    crop_and_flip,
    epoch_seed,
    plan_of,
)

KEPT_SAMPLES = 1 << 22
"""Sample numbers of past epochs that are kept for the trials that come later."""


class StackedBatches:
    """Training samples on the device, in the form the stacked model wants.

    Args:
        train: Training samples.
        batch_size: Samples per step and trial.
        drop_last: Whether the last batch of an epoch, where it is smaller, is left out.
        seed: Of the batch order and the augmentation.
        transform: Inputs as stored -> floats.
        augment: Random shift and mirror image, before ``transform``.
        prepare: Floats -> what the stacked model takes.
        device: Where.

    Attributes:
        steps: Batches of an epoch.
        sizes: Samples of a batch -> how many of these in an epoch, in their order: full ones, and
            perhaps a smaller last one.
    """

    def __init__(
        self,
        train: Split,
        *,
        batch_size: int,
        drop_last: bool,
        seed: int,
        transform: TransformFn | None,
        augment: Augment | None,
        prepare: Callable[[Tensor], Tensor],
        device: torch.device,
    ) -> None:
        self.data = train
        self.seed = seed
        self.sizes = batch_sizes(len(train), batch_size, drop_last)
        self.steps = sum(self.sizes.values())
        self.transform = transform
        self.augment = augment
        self.prepare = prepare
        self.x, self.y = train.x.to(device), train.y.to(device)
        self.ready = augment is None and self.x.numel() <= READY_ELEMENTS
        if self.ready:
            self.x = self._ready(self.x)
        self._most = CHUNK_ELEMENTS if device.type == "cpu" else DEVICE_CHUNK_ELEMENTS
        self._kept: dict[int, tuple[list[EpochPlan], Tensor]] = {}

    def _ready(self, x: Tensor) -> Tensor:
        return self.prepare(self.transform(x) if self.transform else x)

    def plans(self, epoch: int) -> list[EpochPlan]:
        """The plan of an epoch by ``sizes``; kept, since every trial comes through it.

        Each part is (steps of that size, size).
        """
        return self._planned(epoch)[0]

    def drawn(self, epoch: int) -> Tensor:
        """The state of torch's random numbers on the CPU as a model finds them in an epoch.

        A loader that gives the order may have drawn it from them.
        """
        return self._planned(epoch)[1]

    def _planned(self, epoch: int) -> tuple[list[EpochPlan], Tensor]:
        if epoch not in self._kept:
            with host_seeded(epoch_seed(self.seed, epoch)):
                whole = plan_of(self.data, self.seed, epoch, self.augment)
                drawn = torch.get_rng_state()
            parts = [getattr(whole, part) for part in _PARTS]
            found, start = [], 0
            for size, steps in self.sizes.items():
                cut = slice(start, start + size * steps)
                views: Any = [None if p is None else p[cut].view(steps, size) for p in parts]
                found.append(EpochPlan(*views))
                start = cut.stop
            if len(self._kept) * start > KEPT_SAMPLES:
                self._kept.clear()
            self._kept[epoch] = found, drawn
        return self._kept[epoch]

    def __call__(self, epochs: Sequence[int], count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of the next ``count`` epochs of n trials: x (n or 1, B, ...), y (n, B, ...).

        Trials at the same epoch share their batches; where all do, x has one row.

        Args:
            epochs: How many epochs each trial has behind it.
            count: Epochs to go.
        """
        if len(self.sizes) == 1:
            yield from self._of_size(0, epochs, count)
            return
        for i in range(count):
            for size in range(len(self.sizes)):
                yield from self._of_size(size, [epoch + i for epoch in epochs], 1)

    def _of_size(
        self, size: int, epochs: Sequence[int], count: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one of the ``sizes``, by its position."""
        firsts = sorted(set(epochs))
        which = torch.tensor([firsts.index(epoch) for epoch in epochs], device=self.x.device)
        perm, dx, dy, flip = (self._stacked(part, size, firsts, count) for part in _PARTS)
        assert perm is not None
        y = rows(self.y, perm.flatten()).view(*perm.shape, *self.y.shape[1:])
        several = len(firsts) > 1
        y = y.index_select(1, which) if several else y.expand(-1, len(epochs), *y.shape[2:])
        if self.ready:
            yield from self._gathered(perm.index_select(1, which) if several else perm, y)
            return
        chunk = max(1, self._most // (perm[0].numel() * self.x[0].numel()))
        for start in range(0, len(perm), chunk):
            part = slice(start, start + chunk)
            index = perm[part]
            x = rows(self.x, index.flatten())
            if self.augment is not None:
                right, down, mirror = (
                    None if moves is None else moves[part].flatten() for moves in (dx, dy, flip)
                )
                x = crop_and_flip(x, right, down, mirror, self.augment.pad)
            x = self._ready(x)
            x = x.reshape(*index.shape, *x.shape[1:])
            for inputs, targets in zip(x.unbind(0), y[part].unbind(0), strict=True):
                yield inputs.index_select(0, which) if several else inputs, targets

    def _stacked(self, part: str, size: int, firsts: Sequence[int], count: int) -> Tensor | None:
        """A part of the plans (count * steps, distinct epochs, B)."""
        plans = [[self.plans(first + i)[size] for i in range(count)] for first in firsts]
        if getattr(plans[0][0], part) is None:
            return None
        each = [torch.cat([getattr(plan, part) for plan in run]) for run in plans]
        stacked = torch.stack(each, 1)
        return (
            stacked if part == "flip" else stacked.to(self.x.device)
        )  # flips: counted on the CPU

    def _gathered(self, index: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of inputs that need no more than to be fetched, into one place."""
        width = index[0].numel()
        chunk = min(len(index), max(1, self._most // (width * self.x[0].numel())))
        space = self.x.new_empty(chunk * width, *self.x.shape[1:])
        fetch = partial(torch.index_select, self.x, 0)
        for start in range(0, len(index), chunk):
            part = index[start : start + chunk]
            x = fetch(part.flatten(), out=space[: part.numel()])
            x = x.view(*part.shape, *x.shape[1:])
            yield from zip(x.unbind(0), y[start : start + chunk].unbind(0), strict=True)


_PARTS = ("perm", "dx", "dy", "flip")
