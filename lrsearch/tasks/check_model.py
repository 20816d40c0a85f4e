"""What is wrong with the model that a task makes, and with what one model has of another."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from lrsearch.tasks.batch import as_float, like, parts_of
from lrsearch.tasks.check_loss import versions
from lrsearch.tasks.mistakes import call, wrong
from lrsearch.tasks.passes import generators, seeded, set_generators
from lrsearch.tasks.task import Task


def made(task: Task, device: torch.device) -> nn.Module:
    """A model as every trial begins with it, on the device, in training mode."""
    with seeded(0):
        model: Any = call(task, "making the model", task.model)
    if not isinstance(model, nn.Module):
        raise wrong(task, f"model must make a torch.nn.Module, got {type(model).__name__}")
    name = type(model).__name__
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise wrong(
            task,
            f"the model {name} is scripted or traced, and torch cannot copy such "
            "a module for training; give the plain one (--compile compiles it)",
        )
    if any(isinstance(p, UninitializedParameter) for p in model.parameters()):
        raise wrong(
            task,
            f"the model {name} has lazy modules, whose parameters are made by the "
            "first batch; write their sizes out, or run a batch through it in the model function",
        )
    if not any(p.requires_grad for p in model.parameters()):
        raise wrong(task, f"the model {name} has no trainable parameters")
    return model.to(device).train()


class Twin:
    """A second model of the task, by which one sees whether each trial has its own.

    Args:
        task: The task.
        model: The first one, before it has run.
        device: Where it is. The second is made there, too: what both have would move with it.

    Raises:
        LrsearchError: They begin with other weights.
    """

    def __init__(self, task: Task, model: nn.Module, device: torch.device) -> None:
        self._task, self._device = task, device
        self._kind = type(model).__name__
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._twin = made(task, device)
        weights = self._twin.state_dict()
        for name, value in model.state_dict().items():
            if isinstance(value, Tensor) and not same(value, weights.get(name)):
                raise wrong(
                    task,
                    f"two models of {self._kind} begin with other numbers ({name}) under the same "
                    "seed, and trials would differ by more than the schedule; draw them with the "
                    "functions of torch, numpy or random (a generator of your own goes on)",
                )
        self._before = {name: b.clone() for name, b in self._twin.named_buffers()}
        self._gradients = _gradients(self._twin)
        self._hidden = _hidden(model)

    def takes(self, x: Any) -> None:
        """Remember what the first model is given, which it may change; on the CPU alone.

        Elsewhere rounding may differ from run to run, and memory is scarce.
        """
        self._given = None
        if self._device.type == "cpu":
            with contextlib.suppress(Exception):  # the user's objects may raise anything
                self._given = copy.deepcopy(x)

    def sees(self, outputs: Any) -> None:
        """Remember what it gives, which a loss may change."""
        if self._given is not None:
            self._outputs = detached(outputs)

    def runs(self) -> None:
        """Run the second model on the same, under the same seed.

        Raises:
            LrsearchError: It gives something else.
        """
        if self._given is None:
            return
        with seeded(0):
            set_generators(generators(self._twin.modules()), 0)
            again = call(self._task, f"a second {self._kind}", self._twin, self._given)
        if not alike(self._outputs, as_float(again)):
            raise wrong(
                self._task,
                f"two models of {self._kind} give other outputs for the same batch under the same "
                "seed, so trials would differ by more than the schedule: what it counts, or draws "
                "by, is to be an attribute of the model, which each trial has anew",
            )

    def _check_hidden(self) -> None:
        for name, (tensor, before) in self._hidden.items():
            if versions(tensor) != before:
                raise wrong(
                    self._task,
                    f"the model {self._kind} changes a module that torch does not see ({name}), "
                    "and that an interruption would lose; make it a plain attribute, with "
                    "requires_grad_(False) where the optimizer is not to train it",
                )

    def after_step(self, model: nn.Module) -> None:
        """Look again when the first model has run in training, and its loss backward.

        Raises:
            LrsearchError: It has other parameters now, or trains those of the second one, too.
        """
        self._check_hidden()
        gradients = _gradients(self._twin)
        trained = {key for key, gradient in gradients.items() if gradient != self._gradients[key]}
        for name, parameter in model.named_parameters():
            if id(parameter) not in self._names and parameter.requires_grad:
                raise wrong(
                    self._task,
                    f"the model {self._kind} makes parameters when it runs ({name}), which the "
                    "optimizer does not know; make them in __init__",
                )
            if id(parameter) in trained:
                raise wrong(
                    self._task,
                    f"two models of {self._kind} train the same parameters ({name}), so each "
                    "trial would go on from where the last one has ended; make them in the model "
                    "function, or copy.deepcopy what is loaded outside of it",
                )
        for name, value in self._twin.named_buffers():
            if not same(value, self._before.get(name)):
                raise wrong(
                    self._task,
                    f"two models of {self._kind} share a part that training changes ({name}), so "
                    "each trial would go on from where the last one has ended; make it in the "
                    "model function, copy.deepcopy it, or keep it in evaluation mode",
                )


def _gradients(model: nn.Module) -> dict[int, tuple[int, int] | None]:
    """By parameter which gradient it has, and how often that was changed."""
    return {
        id(p): None if p.grad is None else (id(p.grad), p.grad._version)
        for p in model.parameters()
    }


def _hidden(model: nn.Module) -> dict[str, tuple[Any, list[int]]]:
    """Tensors of modules that ``named_modules`` does not find, as in lists, and their versions."""
    seen = {id(module) for module in model.modules()}
    found: dict[str, tuple[Any, list[int]]] = {}
    for path, module in model.named_modules():
        for key, value in vars(module).items():
            for part in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(part, nn.Module) and id(part) not in seen:
                    for name, tensor in part.state_dict(keep_vars=True).items():
                        full = ".".join(filter(None, (path, key, name)))
                        found[full] = tensor, versions(tensor)
    return found


def detached(value: Any) -> Any:
    """Copies of tensors, in tuples and dicts too; all else as it is."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    parts = parts_of(value)
    return like(value, [detached(part) for part in parts]) if parts else value


def alike(a: Any, b: Any) -> bool:
    """Whether tensors, arrays and numbers are equal, to rounding, in tuples and dicts too.

    What is of another kind is not looked at.
    """
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.dtype.kind in "fiub":
        a, b = torch.as_tensor(a.copy()), torch.as_tensor(b.copy())
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        near = a.layout is torch.strided and a.shape == b.shape
        near = near and (a.is_floating_point() or a.is_complex())
        return torch.allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True) if near else same(a, b)
    if isinstance(a, (str, int, float)):
        return bool(a == b or (a != a and b != b))
    parts = parts_of(a), parts_of(b)
    return type(a) is type(b) and len(parts[0]) == len(parts[1]) and all(map(alike, *parts))


def same(a: Any, b: Any) -> bool:
    """Whether tensors are equal, with NaN wherever the other has it; all else by its type."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor) or a.shape != b.shape:
        return type(a) is type(b)
    if a.layout is not torch.strided:
        a, b = a.to_dense(), b.to_dense()
    return bool(((a == b) | ((a != a) & (b != b))).all())
