"""Loss and metric of weights on a part of the data."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lrsearch.tasks.batch import as_float, count, joined, parts_of, scored
from lrsearch.tasks.check_model import detached
from lrsearch.tasks.passes import generators, set_generators
from lrsearch.tasks.task import Data, LossFn, Split, Task, on_device
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
    numbers = measure(task, [model], batches, device, precision)
    loss, *metric = torch.stack(numbers).tolist()
    return loss, metric[0] if metric else None


@torch.no_grad()
def measure(
    task: Task,
    models: Sequence[nn.Module],
    batches: Batches,
    device: torch.device,
    precision: str,
) -> list[Tensor]:
    """Loss and, where there is one, metric of each model, without waiting for the device.

    What is drawn at random, by a model or by a loader, is the same each time and for each model.

    ``task.loss`` and ``task.metric`` are averaged over the samples; ``task.validation_loss``, and
    beside it the metric, see all outputs at once.

    Args:
        task: The task.
        models: Where there are several, the batches are those of ``task.validation``. They see
            each batch in turn: a loader need not be gone through for each.
        batches: Of the data.
        device: Where.
        precision: ``fp32``, ``bf16`` or ``fp16``.

    Returns:
        Scalars on the device, the loss of a model before its metric.
    """
    if len(models) == 1 or task.validation_loss is None:  # which keeps all outputs of a model
        found = _together(task, models, batches, device, precision)
        if found is not None:
            return found
    each = (measure(task, [model], batches, device, precision) for model in models)
    return [number for numbers in each for number in numbers]


def _together(
    task: Task, models: Sequence[nn.Module], batches: Batches, device: torch.device, precision: str
) -> list[Tensor] | None:
    """As :func:`measure`; None where several models cannot be given the same batch."""
    training = [model.training for model in models]
    own = [generators(model.modules()) for model in models]
    found = [_Found(task, device) for _ in models]
    parts = iter(batches())
    try:
        for model in models:
            model.eval()
        with devices.random_seed(device, 0):
            for i in itertools.count():
                devices.set_seed(device, i)
                if (part := next(parts, None)) is None:
                    break
                given = [part, *_copies(task, part, len(models) - 1)]
                if len(given) < len(models):
                    return None
                for model, (x, y), drawn_by, seen in zip(models, given, own, found, strict=True):
                    devices.set_seed(device, i)
                    set_generators(drawn_by, i)
                    with devices.autocast(device, precision):
                        out = model(x)
                    seen.add(as_float(out), y)
    finally:
        for model, before in zip(models, training, strict=True):
            model.train(before)
    return [number for seen in found for number in seen.numbers()]


def _copies(task: Task, part: tuple[Any, Any], count: int) -> list[Any]:
    """The batch for more models; none where it cannot be copied, and a model may change it."""
    if isinstance(task.validation, Split):  # the check has seen that nothing changes it
        return [part] * count
    return [detached(part) for _ in range(count)] if _of_tensors(part) else []


def _of_tensors(value: Any) -> bool:
    """Whether it is a tensor or a number, or tuples, lists and dicts of them."""
    if value is None or isinstance(value, (Tensor, str, int, float)):
        return True
    return isinstance(value, (tuple, list, dict)) and all(map(_of_tensors, parts_of(value)))


class _Found:
    """What one model gave for the batches so far."""

    def __init__(self, task: Task, device: torch.device) -> None:
        self.task, self.device = task, device
        self.losses: list[Tensor] = []
        self.metrics: list[Tensor] = []
        self.sizes: list[int] = []
        self.outputs: list[Any] = []
        self.targets: list[Any] = []

    def add(self, out: Any, y: Any) -> None:
        """A batch."""
        self.sizes.append(count(y, out))
        if self.task.validation_loss is None:
            self._score(self.task.loss, out, y)
        else:
            self.outputs.append(out)
            self.targets.append(y)

    def numbers(self) -> list[Tensor]:
        """Loss and, where there is one, metric of all batches."""
        if self.task.validation_loss is not None:
            self.sizes = [1]
            out, y = joined(self.outputs, "outputs"), joined(self.targets, "targets")
            self._score(self.task.validation_loss, out, y)
        found = [self.losses] if self.task.metric is None else [self.losses, self.metrics]
        means = [_mean(values, self.sizes) for values in found]
        return [mean.detach().float().reshape(()) for mean in means]

    def _score(self, loss: LossFn, out: Any, y: Any) -> None:
        self.losses.append(loss(out, y))
        if self.task.metric is not None:
            self.metrics.append(scalar(scored(self.task.metric, out, y), self.device))


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
