"""Loss and metric of weights on a part of the data."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lrsearch.errors import LrsearchError
from lrsearch.tasks.batch import as_float, like, parts_of
from lrsearch.tasks.task import Data, Task, fresh_model, on_device
from lrsearch.training import device as devices
from lrsearch.training.batches import evaluation_batches
from lrsearch.training.copies import load_state

Batches = Callable[[], Iterator[tuple[Any, Any]]]


def evaluate(
    task: Task,
    weights: Mapping[str, Tensor],
    data: Data,
    *,
    device: torch.device,
    precision: str = "fp32",
    unsaved: Mapping[str, Tensor] | None = None,
) -> tuple[float, float | None]:
    """Loss and metric of a model on a part of the data, such as ``task.test()``.

    Args:
        task: The task.
        weights: State_dict of its model, as ``Runner.weights`` gives it.
        data: Split or loader.
        device: Where.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        unsaved: Its buffers that the state_dict leaves out, as ``Runner.unsaved`` gives them.

    Returns:
        The loss (``task.validation_loss`` where there is one), and the metric or None.
    """
    devices.prepare(device)
    task = on_device(task, device)
    model = fresh_model(task)
    load_state(model, weights, unsaved or {})
    model = devices.place(model, device)
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
    parts = iter(batches())
    for i in itertools.count():
        with devices.random_seed(device, i):
            part = next(parts, None)
            if part is None:
                break
            x, y = part
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
            metrics.append(scalar(task.metric(out, y), device))
    if task.validation_loss is not None:
        sizes, out, y = [1], _joined(outputs), _joined(targets)
        losses = [loss(out, y)]
        metrics = [scalar(task.metric(out, y), device)] if task.metric is not None else []
    model.train(training)
    found = [losses] if task.metric is None else [losses, metrics]
    numbers = [_mean(values, sizes) for values in found]
    return [number.detach().float().reshape(()) for number in numbers]


def scalar(value: Any, device: torch.device) -> Tensor:
    """What a metric gave, a number or a tensor of one, as float32 on the device: ()."""
    if isinstance(value, Tensor):
        return value.detach().to(device, torch.float32).reshape(())
    return torch.tensor(float(value), device=device)


def count(y: Any, outputs: Any = None) -> int:
    """Samples of a batch, by the first tensor of its targets; where there is none, as in an object
    of the user's own, by the first of the model's outputs; 1 without any."""
    return next((n for part in (y, outputs) if (n := _rows(part)) is not None), 1)


def _rows(value: Any) -> int | None:
    """Of the first tensor in tuples, lists and dicts; None where they hold none.

    Of a list of dicts, one for each sample as in detection, its length.
    """
    if isinstance(value, Tensor):
        return len(value) if value.dim() else 1
    if _of_samples(value):
        return len(value)
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if not isinstance(value, (tuple, list)):
        return None
    return next((n for part in value if (n := _rows(part)) is not None), None)


def _of_samples(value: Any) -> bool:
    """Whether it is a list of dicts with the same keys; with others they are parts of targets."""
    return (
        isinstance(value, (tuple, list))
        and bool(value)
        and all(isinstance(v, Mapping) and v.keys() == value[0].keys() for v in value)
    )


def _mean(values: list[Tensor], sizes: list[int]) -> Tensor:
    """Mean over samples of means over batches."""
    if len(values) == 1:
        return values[0]
    total = sum(
        value.detach().reshape(()) * size for value, size in zip(values, sizes, strict=True)
    )
    return torch.as_tensor(total) / sum(sizes)


def _joined(batches: list[Any]) -> Any:
    """The outputs or targets of batches as those of one.

    Raises:
        LrsearchError: There is something among them that is no tensor.
    """
    first = batches[0]
    if len(batches) == 1:
        return first
    if all(map(_of_samples, batches)) and (
        len(set(map(len, batches))) > 1 or any(map(_uneven, batches))
    ):  # else they are parts, such as two views, of which each is joined
        return type(first)(sample for batch in batches for sample in batch)
    if isinstance(first, (tuple, list, dict)):
        columns = zip(*map(parts_of, batches), strict=True)
        return like(first, [_joined(list(column)) for column in columns])
    if not isinstance(first, Tensor):
        raise LrsearchError(
            "validation_loss sees the samples of all batches at once, and those of type "
            f"{type(first).__name__} cannot be joined; give tensors, or tuples or dicts of them"
        )
    return torch.cat(batches)


def _uneven(dicts: Sequence[Mapping[Any, Any]]) -> bool:
    """Whether what has one key has not as many rows in each, such as boxes of images."""
    return any(len({_rows(each[key]) for each in dicts}) > 1 for key in dicts[0])
