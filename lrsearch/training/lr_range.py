"""The learning-rate range test: where training starts to diverge, before any trial is spent on it.

One short run while the rate grows exponentially (Smith, 2015, "Cyclical Learning Rates for
Training Neural Networks", arXiv:1506.01186).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lrsearch.errors import LrsearchError
from lrsearch.measured import LrRange
from lrsearch.tasks.batch import as_float
from lrsearch.tasks.optimizers import build_optimizer
from lrsearch.tasks.task import Task, on_device
from lrsearch.training import device as devices
from lrsearch.training.batches import epoch_seed, seeded_model, training_batches

FIRST, LAST, STEPS = 1e-5, 10.0, 160
"""Rate of the first step, that of the last, and how many there are."""
SMOOTHING = 0.9
MARGIN = 2.0
"""The search ends this factor below divergence: a rate that grew slowly was borne longer."""
SPAN = 500.0
"""Highest over lowest rate searched."""


def lr_range_test(
    task: Task,
    *,
    optimizer: str,
    optimizer_args: Mapping[str, Any],
    seed: int,
    device: torch.device,
    precision: str = "fp32",
) -> LrRange:
    """Train one model while the rate of step t is ``FIRST (LAST / FIRST)^(t / (STEPS - 1))``.

    It ends at the first loss that is not finite, or where the smoothed loss has risen from its
    lowest by half of what it had fallen. The range searched ends a factor of 2 below that rate;
    where nothing diverges it is the task's own.

    Args:
        task: What is trained; its usual batches.
        optimizer: Class name in ``torch.optim``.
        optimizer_args: Its arguments without ``lr``.
        seed: Of initial weights and batch order: the same test every time.
        device: Where.
        precision: ``fp32``, ``bf16`` or ``fp16`` (run as fp32: a loss scale hides divergence).
    """
    devices.prepare(device)
    task = on_device(task, device)
    model = devices.place(task, seeded_model(task, seed), device)
    model.train()
    groups = None if task.param_groups is None else task.param_groups(model)
    built = build_optimizer(optimizer, dict(optimizer_args), model, lr=task.lr, groups=groups)
    shares = [
        group["lr"] / max(g["lr"] for g in built.param_groups) for group in built.param_groups
    ]
    lrs, losses = np.geomspace(FIRST, LAST, STEPS), []
    half = "bf16" if precision == "bf16" else "fp32"
    with devices.random_seed(device, epoch_seed(seed, 0)):
        for lr, (x, y) in zip(lrs, _endless(task, seed, device), strict=False):
            for group, share in zip(built.param_groups, shares, strict=True):
                group["lr"] = float(lr) * share
            built.zero_grad()
            with devices.autocast(device, half):
                outputs = model(x)
            loss = task.loss(as_float(outputs), y)
            torch.autograd.backward(loss)
            if task.clip_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), task.clip_grad_norm)
            built.step()
            losses.append(float(loss.detach()))
            if diverged_from(losses) is not None:
                break
    return lr_range(lrs[: len(losses)], losses, task.lr_range)


def _endless(task: Task, seed: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Training batches, epoch after epoch.

    Raises:
        LrsearchError: There are none in an epoch.
    """
    batches = training_batches(task, seed, device)
    for epoch in itertools.count():
        empty = True
        for batch in batches.epoch(epoch):
            empty = False
            yield batch
        if empty:
            raise LrsearchError(
                f"task {task.name}: train gave no batch in epoch {epoch + 1} of the lr range "
                "test; a loader has to give its batches anew each time it is gone through"
            )


def lr_range(
    lrs: NDArray[np.float64], losses: list[float], fallback: tuple[float, float]
) -> LrRange:
    """What the losses of a range test say.

    Args:
        lrs: Rate of each step, (steps,).
        losses: Its loss, (steps,), to the first that shows divergence.
        fallback: Range to search where nothing diverged.
    """
    index = diverged_from(losses)
    at = None if index is None else float(lrs[index])
    low, high = fallback
    if at is not None:
        high = float(f"{at / MARGIN:.3g}")
        low = float(f"{high / SPAN:.3g}")
    worst = max([1e6, *filter(math.isfinite, losses)])  # to draw what is not finite
    kept = [loss if math.isfinite(loss) else worst for loss in losses]
    smooth = [value if math.isfinite(value) else worst for value in smoothed(losses)]
    return LrRange([float(lr) for lr in lrs], kept, smooth, at, low, high)


def smoothed(losses: list[float]) -> NDArray[np.float64]:
    """Exponential average with ``SMOOTHING``, corrected for its start (as Adam's moments are)."""
    average, out = 0.0, np.empty(len(losses))
    for t, loss in enumerate(losses):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        out[t] = average / (1 - SMOOTHING ** (t + 1))
    return out


def diverged_from(losses: list[float]) -> int | None:
    """The step at which training has diverged by then, or None.

    A loss that is not finite; or the smoothed loss is above its lowest by half of what it had
    fallen from its start, or by the whole size of the start where it never fell.
    """
    if not math.isfinite(losses[-1]):
        return len(losses) - 1
    smooth = smoothed(losses)
    calm = min(20, len(losses))
    start = float(np.mean(losses[:calm]))
    noise = float(np.std(losses[:calm])) * math.sqrt((1 - SMOOTHING) / (1 + SMOOTHING))
    best = float(smooth[calm - 1 :].min())
    fallen = start - best
    learnt = fallen > max(4 * noise, 0.01 * abs(start))
    limit = best + 0.5 * fallen if learnt else start + max(abs(start), 10 * noise)
    return len(losses) - 1 if len(losses) > calm and smooth[-1] > limit else None
