"""Batches on the device: a pure function of seed and epoch, without a Python loop over samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrsearch.errors import LrsearchError
from lrsearch.tasks.batch import elements, evaluation_size, to_device
from lrsearch.tasks.images import Augment, rows
from lrsearch.tasks.kept import KeptSplit
from lrsearch.tasks.passes import begin
from lrsearch.tasks.task import Data, Split, Task, TransformFn, batches_per_epoch
from lrsearch.training.device import random_numbers_kept, random_seed

CHUNK_ELEMENTS = 1 << 19
"""Input elements gathered at once on a CPU: a few small batches, or one large one."""
DEVICE_CHUNK_ELEMENTS = 1 << 25
"""The same on an accelerator, where one launch for many batches counts more than a cache."""
READY_ELEMENTS = 1 << 24
"""Inputs of at most this size are transformed once and kept as floats, not at every step."""


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of all that is random in an epoch (counted from 0) of a study with ``seed``."""
    return (seed * 1_000_003 + epoch) % (1 << 63)


@dataclass(frozen=True)
class EpochPlan:
    """What an epoch does to the training samples; the same for all trials of a study.

    Args:
        perm: Order of the samples, (n,).
        dx: Shift of each image of that order, 0 to 2 pad (pad = none), (n,); None = no shift.
        dy: The same downwards.
        flip: Whether each image is mirrored, (n,) bool; None = never.
    """

    perm: Tensor
    dx: Tensor | None = None
    dy: Tensor | None = None
    flip: Tensor | None = None


def epoch_plan(seed: int, epoch: int, n: int, augment: Augment | None = None) -> EpochPlan:
    """The plan of an epoch: a pure function, so a resumed trial needs no random state.

    Args:
        seed: Of the study.
        epoch: From 0.
        n: Training samples.
        augment: What is random about each image.

    Returns:
        Tensors on the CPU, the same on every machine.

    Example:
        >>> torch.equal(epoch_plan(0, 3, 10).perm, epoch_plan(0, 3, 10).perm)
        True
    """
    generator = torch.Generator().manual_seed(epoch_seed(seed, epoch))
    perm = torch.randperm(n, generator=generator, device="cpu")
    if augment is None:
        return EpochPlan(perm)
    dx = dy = flip = None
    if augment.pad:
        places = 2 * augment.pad + 1
        dx, dy = torch.randint(places, (2, n), generator=generator, device="cpu").unbind(0)
    if augment.flip:
        flip = torch.rand(n, generator=generator, device="cpu") < 0.5
    return EpochPlan(perm, dx, dy, flip)


def plan_of(data: Split, seed: int, epoch: int, augment: Augment | None = None) -> EpochPlan:
    """The plan of an epoch; a loader that gives the order may draw it from torch's numbers."""
    if isinstance(data, KeptSplit):
        return EpochPlan(data.order(epoch_seed(seed, epoch), epoch))
    return epoch_plan(seed, epoch, len(data), augment)


def batch_sizes(samples: int, batch_size: int, drop_last: bool) -> dict[int, int]:
    """Samples of a batch -> how many of these in an epoch: full ones, and perhaps a smaller last.

    Example:
        >>> batch_sizes(450, 256, False), batch_sizes(90, 256, True)
        ({256: 1, 194: 1}, {90: 1})
    """
    size = min(batch_size, samples)
    full = samples // size
    rest = batches_per_epoch(samples, batch_size, drop_last) > full
    return {size: full} | ({samples - full * size: 1} if rest else {})


def crop_and_flip(
    x: Tensor, dx: Tensor | None, dy: Tensor | None, flip: Tensor | None, pad: int
) -> Tensor:
    """Each image framed in ``pad`` pixels of 0, cropped back at its place, and mirrored.

    Args:
        x: Images (B, C, H, W); the result keeps their memory format.
        dx: Column of the crop in the framed image, 0 to 2 pad, (B,), on the device of ``x``.
        dy: Row of it, (B,).
        flip: Which images are mirrored, (B,) bool, on the CPU: there it can be counted without
            waiting for the device.
        pad: Width of the frame in pixels.
    """
    last = x.is_contiguous(memory_format=torch.channels_last) and x.shape[1] > 1
    images = x.permute(0, 2, 3, 1) if last else x
    rows, columns = (1, 2) if last else (2, 3)
    if dx is not None and dy is not None:
        _, _, height, width = x.shape
        frame = (0, 0, pad, pad, pad, pad) if last else (pad, pad, pad, pad)
        framed = F.pad(images, frame)
        windows = framed.unfold(rows, height, 1).unfold(columns, width, 1)
        each = torch.arange(len(x), device=x.device)
        if last:  # (B, 2 pad + 1, 2 pad + 1, C, H, W) -> (B, ..., H, W, C), as it lies in memory
            images = windows.permute(0, 1, 2, 4, 5, 3)[each, dy, dx]
        else:  # (B, C, 2 pad + 1, 2 pad + 1, H, W)
            images = windows.permute(0, 2, 3, 1, 4, 5)[each, dy, dx]
    if flip is not None:
        if dx is None:
            images = images.clone()
        mirrored = flip.nonzero().squeeze(1).to(x.device, non_blocking=True)
        images.index_copy_(0, mirrored, images.index_select(0, mirrored).flip(columns))
    return images.permute(0, 3, 1, 2) if last else images


class SplitBatches:
    """Training batches of a :class:`Split` that lives on the device.

    Args:
        data: Training samples.
        batch_size: Samples per step.
        seed: Of order and augmentation.
        device: Where.
        transform: Inputs as stored -> floats.
        augment: Random shift and mirror image, before ``transform``.
        drop_last: Whether the last batch of an epoch, where it is smaller, is left out.
    """

    def __init__(
        self,
        data: Split,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        transform: TransformFn | None = None,
        augment: Augment | None = None,
        drop_last: bool = True,
    ) -> None:
        self.data = data
        self.batch_size = min(batch_size, len(data))
        self.steps = batches_per_epoch(len(data), batch_size, drop_last)
        self.seed = seed
        self.transform = transform
        self.augment = augment
        self.x, self.y = to_device((data.x, data.y), device)
        if augment is None and transform is not None and self.x.numel() <= READY_ELEMENTS:
            self.x, self.transform = transform(self.x), None
        size = self.batch_size * max(1, self.x[0].numel())
        most = CHUNK_ELEMENTS if device.type == "cpu" else DEVICE_CHUNK_ELEMENTS
        self.steps_per_chunk = max(1, most // size)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches (x, y) of an epoch, counted from 0."""
        plan = plan_of(self.data, self.seed, epoch, self.augment)
        device = self.y.device
        used = min(self.steps * self.batch_size, len(self.y))
        perm = plan.perm[:used].to(device, non_blocking=True)
        dx, dy = (
            None if part is None else part[:used].to(device, non_blocking=True)
            for part in (plan.dx, plan.dy)
        )
        chunk = self.steps_per_chunk * self.batch_size
        for start in range(0, used, chunk):
            part = slice(start, start + chunk)
            x, y = rows(self.x, perm[part]), self.y[perm[part]]
            if self.augment is not None:
                moves = [None if t is None else t[:used][part] for t in (dx, dy, plan.flip)]
                x = crop_and_flip(x, moves[0], moves[1], moves[2], self.augment.pad)
            if self.transform is not None:
                x = self.transform(x)
            size = self.batch_size
            yield from zip(torch.split(x, size), torch.split(y, size), strict=True)


@dataclass
class LoaderBatches:
    """Training batches of a user's own loader, moved to the device.

    Its order comes from torch's random numbers, which are set for each epoch; so are generators
    that it, its samplers or its data set have of their own.
    """

    data: Any
    steps: int
    seed: int
    device: torch.device
    transform: TransformFn | None

    def epoch(self, epoch: int) -> Iterator[tuple[Any, Any]]:
        """The batches (x, y) of an epoch, counted from 0.

        Raises:
            LrsearchError: There are many more than the loader's length says, or no end of them.
        """
        begin(self.data, epoch_seed(self.seed, epoch), epoch)
        workers, hint = getattr(self.data, "num_workers", 0), ""
        most = 2 * self.steps + workers  # each may end with a part
        if 1 < workers < self.steps:  # then parts come to less than twice
            most = 2 * self.steps - 1
            hint = " (does each worker give all of it, not its part by get_worker_info?)"
        for given, (x, y) in enumerate(self.data):
            if given == most:
                raise LrsearchError(
                    f"train gives more than {most} batches, and has a length of {self.steps}; let "
                    f"a pass through it end there, or give its __len__ the right number{hint}"
                )
            x, y = to_device((x, y), self.device)
            yield (self.transform(x) if self.transform else x), y


def training_batches(task: Task, seed: int, device: torch.device) -> SplitBatches | LoaderBatches:
    """The training batches of a task on a device."""
    if isinstance(task.train, Split):
        return SplitBatches(
            task.train,
            batch_size=task.batch_size,
            seed=seed,
            device=device,
            transform=task.transform,
            augment=task.augment,
            drop_last=task.drop_last,
        )
    return LoaderBatches(
        task.train,
        steps=task.steps_per_epoch,
        seed=seed,
        device=device,
        transform=task.transform,
    )


def evaluation_batches(
    task: Task, data: Data, device: torch.device, trials: int = 1
) -> Callable[[], Iterator[tuple[Any, Any]]]:
    """A function that goes through all of ``data`` in order, in large batches or its loader's.

    Args:
        task: For its transform and batch size.
        data: A Split (moved to the device once) or a loader.
        device: Where.
        trials: Models that see a batch at once.
    """
    transform = task.transform
    if not isinstance(data, Split):

        def from_loader() -> Iterator[tuple[Any, Any]]:
            begin(data, 0, 0)
            for x, y in data:
                x, y = to_device((x, y), device)
                yield (transform(x) if transform else x), y

        return from_loader
    x, y = to_device((data.x, data.y), device)
    if transform is not None and x.numel() <= READY_ELEMENTS:
        x, transform = transform(x), None
    outputs = trials * _outputs(task, data, device)
    size = evaluation_size(task.batch_size, x[0].numel(), outputs, device)
    if isinstance(data, KeptSplit):
        size = data.loader.batch_size or size
    parts = list(zip(torch.split(x, size), torch.split(y, size), strict=True))

    def from_parts() -> Iterator[tuple[Any, Any]]:
        for x, y in parts:
            yield (transform(x) if transform else x), y

    return from_parts


@torch.no_grad()
def _outputs(task: Task, data: Split, device: torch.device) -> int:
    """Elements of what the model gives for a sample, from those of a training batch."""
    x = data.x[: task.batch_size].to(device)
    with random_numbers_kept(device):
        model = task.model().to(device).eval()
        return elements(model(task.transform(x) if task.transform else x)) // len(x)


def seeded_model(task: Task, seed: int) -> nn.Module:
    """The task's model on the CPU with the initial weights that all trials of a seed share."""
    with random_seed(torch.device("cpu"), seed):
        torch.manual_seed(seed)  # for what is made on a device as well
        return task.model()
