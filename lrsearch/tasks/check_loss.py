"""What is wrong with the functions of a task, and with targets that its loss does not take."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrsearch.tasks.batch import parts_of
from lrsearch.tasks.mistakes import call, shape, wrong
from lrsearch.tasks.task import Split, Task


def called(task: Task, name: str, function: Callable[..., Any], outputs: Any, y: Any) -> Any:
    """What a function of outputs and targets gives; it must give it again.

    One that keeps something would keep it from trial to trial, and a loss through validation.
    """
    what = f"the {name} of outputs {shape(outputs)} and targets {shape(y)}"
    drawn = torch.get_rng_state(), random.getstate(), np.random.get_state()
    before = versions((outputs, y))
    value = call(task, what, function, outputs, y)
    here = isinstance(value, Tensor) and value.device.type == "cpu"
    if not (here or isinstance(value, (int, float))):
        return value
    if versions((outputs, y)) != before:  # it is called with something else now
        return value
    is_loss = "loss" in name
    if not is_loss and isinstance(outputs, Tensor) and isinstance(y, Tensor):
        with suppress(Exception):  # some are not defined for one sample
            function(outputs[:1], y[:1])  # what is a share of all samples so far changes by it
    torch.set_rng_state(drawn[0])
    random.setstate(drawn[1])
    np.random.set_state(drawn[2])
    again = call(task, what, function, outputs, y)
    new, old = (torch.as_tensor(found, dtype=torch.float64) for found in (again, value))
    if not torch.allclose(new, old, rtol=0, atol=0, equal_nan=True):
        after = (
            ", and through validation; keep it in the model, which each trial has anew"
            if is_loss
            else "; let it begin anew at each call (where it has a method reset, that is called)"
        )
        raise wrong(
            task,
            f"the {name} gives another value when it is called again with the same outputs: what "
            f"it keeps (a counter, a running mean, a generator) would go on from trial to trial"
            f"{after}",
        )
    return value


def versions(value: Any) -> list[int]:
    """How often each tensor was changed in place; those of inference mode do not tell."""
    if isinstance(value, Tensor):
        return [0 if value.is_inference() else value._version]
    return [version for part in parts_of(value) for version in versions(part)]


def check_functions(task: Task) -> None:
    """Loss, metric and transform are functions, and the loss has nothing of its own to learn."""
    for name in ("loss", "validation_loss", "metric", "transform"):
        given = getattr(task, name)
        if isinstance(given, type):
            raise wrong(task, f"{name} is a class; give an object, {given.__name__}()")
        if not callable(given) and (given is not None or name == "loss"):
            if isinstance(given, (Mapping, list, tuple)):
                raise wrong(
                    task,
                    f"{name} must be one function of (outputs, y), got a {type(given).__name__} "
                    f"of {len(given)}; choose one (the search goes by the validation loss)",
                )
            hint = "; leave it out for the usual one" if given is None else ""
            raise wrong(task, f"{name} must be a function, got {given!r:.60}{hint}")
    learns = isinstance(task.loss, nn.Module) and any(
        parameter.requires_grad for parameter in task.loss.parameters()
    )
    if learns:
        raise wrong(
            task,
            f"the loss {type(task.loss).__name__} has parameters of its own, which no trial would "
            "train; make them part of the model, or fix them with requires_grad_(False)",
        )


def check_targets(task: Task, y: Any) -> None:
    """Cross-entropy takes floats for probabilities, and would learn numbers as nonsense."""
    if task.loss is not F.cross_entropy or not is_float(y):
        return
    shares = y.dim() > 1 and y.shape[1] > 1 and bool((y >= 0).all())
    if not shares or not torch.allclose(y.sum(1), y.new_ones(()), atol=1e-3):
        raise wrong(
            task,
            f"targets {shape(y)} are numbers, and the loss is cross-entropy, for classes; give "
            "loss = torch.nn.functional.mse_loss, or whole numbers as targets",
        )


def check_labels(task: Task, outputs: Any) -> None:
    """All classes are among the logits (a CUDA device would only say "assert triggered")."""
    if task.loss is not F.cross_entropy or not isinstance(outputs, Tensor) or outputs.dim() < 2:
        return
    for part, data in (("train", task.train), ("validation", task.validation)):
        if isinstance(data, Split) and not data.y.is_floating_point():
            labels = data.y[data.y != -100]  # what cross_entropy ignores
            if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < outputs.shape[1]:
                raise wrong(
                    task,
                    f"{part} labels go from {int(labels.min())} to {int(labels.max())}, "
                    f"but the model gives {outputs.shape[1]} classes",
                )


def is_float(value: Any) -> bool:
    """Whether it is a tensor of floats."""
    return isinstance(value, Tensor) and value.is_floating_point()
