"""Losses of a task before any training, by which a study knows that its task is the same."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from lrsearch.tasks.task import Split, Task, on_device

SAMPLES = 32
"""Of each part, spread evenly over it."""
REPEATS = 1e-5
"""Relative difference of two losses that are the same but for rounding."""


def fingerprint(task: Task) -> dict[str, Any]:
    """The losses of a few samples before any training, and the rates of dropout.

    From seeded initial weights, in float32 on the CPU, and in evaluation mode, since the random
    numbers of dropout differ from one kind of CPU to another. Only what is the same on every run
    and machine: of samples that are tensors, from weights that torch's seed decides.

    Returns:
        ``initial_loss`` of ``train`` and ``validation``, and ``dropout``; less, where there is
        less to be sure of.
    """
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.no_grad():
        warnings.simplefilter("ignore")  # the dry batch has shown them
        try:
            (first, dropout), (again, _) = _losses(task), _losses(task)
        except Exception:  # noqa: BLE001 - a model that runs on GPUs alone: check has tried it
            return {}
    sure = {
        part: loss
        for part, loss in first.items()
        if math.isfinite(loss) and math.isclose(loss, again[part], rel_tol=REPEATS)
    }
    return {"initial_loss": sure, "dropout": dropout}


def _losses(task: Task) -> tuple[dict[str, float], list[float]]:
    """The losses by part, and the rates of dropout."""
    torch.manual_seed(0)
    task = on_device(task, torch.device("cpu"))
    model = task.model().to("cpu").eval()
    rates = _dropout(model)
    tensors = [*model.parameters(), *model.buffers()]
    if any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in tensors):
        return {}, rates  # the rounding of these is no small one
    parts = {"train": task.train, "validation": task.validation}
    losses = {"train": task.loss, "validation": task.validation_loss or task.loss}
    return {
        part: float(losses[part](*_outputs(task, model, data)))
        for part, data in parts.items()
        if isinstance(data, Split)
    }, rates


def _outputs(task: Task, model: nn.Module, data: Split) -> tuple[Any, Tensor]:
    count = min(SAMPLES, len(data))
    index = torch.arange(count) * (len(data) - 1) // max(1, count - 1)
    x, y = (part[index.to(part.device)].cpu() for part in (data.x, data.y))
    outputs = model(task.transform(x) if task.transform else x)
    is_float = isinstance(outputs, Tensor) and outputs.is_floating_point()
    return outputs.float() if is_float else outputs, y


def _dropout(model: nn.Module) -> list[float]:
    """In the order of the modules; of those too that keep the rate as a number."""
    modules = model.modules()
    rates = [m.p if isinstance(m, _DropoutNd) else vars(m).get("dropout") for m in modules]
    return [float(rate) for rate in rates if isinstance(rate, (int, float))]
