"""Loss and metric of weights on a part of the data."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lrsearch.tasks.batch import as_float, count, joined, scored
from lrsearch.tasks.passes import generators, set_generators
from lrsearch.tasks.task import Data, Task, on_device
from lrsearch.training import device as devices
from lrsearch.training.batches import evaluation_batches, seeded_model
from lrsearch.training.copies import load_state

Batches = Callable[[], Iterator[tuple[Any, Any]]]


def evaluate(
    task: Task,
    weights: Mapping[str, Tensor],
    data: Data,
    *,
    device: torch.device,
    precision: str = "fp32",
    unsaved: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> tuple[float, float | None]:
    """Loss and metric of a model on a part of the data, such as ``task.test()``.

    Args:
        task: The task.
        weights: State_dict of its model, as ``Runner.weights`` gives it.
        data: Split or loader.
        device: Where.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        unsaved: What the state_dict leaves out, as ``Runner.unsaved`` gives it.
        seed: Of the training: what is drawn for a model and is in neither, is drawn again.

    Returns:
        The loss (``task.validation_loss`` where there is one), and the metric or None.
    """
    devices.prepare(device)
    task = on_device(task, device)
    model = seeded_model(task, seed)
    load_state(model, weights, unsaved or {})
    model = devices.place(task, model, device)
    batches = evaluation_batches(task, data, device)
    numbers = measure(task, model, batches, device, precision)
    loss, *metric = torch.stack(numbers).tolist()
    return loss, metric[0] if metric else None


@torch.no_grad()
def measure(
    task: Task, model: nn.Module, batches: Batches, device: torch.device, precision: str
) -> list[Tensor]:
    """Loss and, where there is one, metric as scalars on the device, without waiting for it.

    What is drawn at random, by the model or by a loader, is the same each time.

    ``task.loss`` and ``task.metric`` are averaged over the samples; ``task.validation_loss``, and
    beside it the metric, see all outputs at once.
    """
    training = model.training
    loss = task.validation_loss or task.loss
    model.eval()
    losses, metrics, sizes = [], [], []
    outputs, targets = [], []
    parts, own = iter(batches()), generators(model.modules())
    with devices.random_seed(device, 0):
        for i in itertools.count():
            devices.set_seed(device, i)
            part = next(parts, None)
            if part is None:
                break
            x, y = part
            set_generators(own, i)
            with devices.autocast(device, precision):
                out = model(x)
            out = as_float(out)
            sizes.append(count(y, out))
            if task.validation_loss is not None:
                outputs.append(out)
                targets.append(y)
                continue
            losses.append(loss(out, y))
            if task.metric is not None:
                metrics.append(scalar(scored(task.metric, out, y), device))
    if task.validation_loss is not None:
        sizes, out, y = [1], joined(outputs, "outputs"), joined(targets, "targets")
        losses = [loss(out, y)]
        metrics = [scalar(scored(task.metric, out, y), device)] if task.metric is not None else []
    model.train(training)
    found = [losses] if task.metric is None else [losses, metrics]
    numbers = [_mean(values, sizes) for values in found]
    return [number.detach().float().reshape(()) for number in numbers]


def scalar(value: Any, device: torch.device) -> Tensor:
    """What a metric gave, a number or a tensor of one, as float32 on the device: ()."""
    if isinstance(value, Tensor):
        return value.detach().to(device, torch.float32).reshape(())
    return torch.tensor(float(value), device=device)


def _mean(values: list[Tensor], sizes: list[int]) -> Tensor:
    """Mean over samples of means over batches."""
    if len(values) == 1:
        return values[0]
    total = sum(
        value.detach().reshape(()) * size for value, size in zip(values, sizes, strict=True)
    )
    return torch.as_tensor(total) / sum(sizes)
