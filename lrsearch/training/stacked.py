"""Which stacked form a task gets, and why some tasks have none."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import copy, deepcopy
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lrsearch.tasks.task import Split, Task
from lrsearch.training import device as devices
from lrsearch.training import stacked_optim
from lrsearch.training.stacked_loss import gradient_of
from lrsearch.training.stacked_mlp import MLPStack, layers_of
from lrsearch.training.stacked_vmap import VmapStack

PROBE_SAMPLES = 4
"""Samples of the step that shows whether a module can be stacked."""
TOLERANCE = 0.05
"""How far that step may lie from a plain one, in float32, by their norms."""


class Trainer(Protocol):
    """Forward and backward of n trials, bound to their rows."""

    def step(self, x: Tensor, y: Tensor) -> None:
        """Write the gradients for one batch: x (n or 1, B, ...), y (n, B, ...)."""

    def take_losses(self, steps: int) -> Tensor:
        """Mean loss (n,) of the last ``steps`` steps; starts a new sum."""


class Stack(Protocol):
    """n copies of a model whose parameters are the rows of a matrix (n, width)."""

    width: int
    random: bool
    """Whether the forward pass draws random numbers (dropout)."""

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """The parameters by name, (n, *shape), as views of (n, width)."""

    def prepare(self, x: Tensor) -> Tensor:
        """Float inputs (N, ...) as the model wants them."""

    def trainer(
        self, params: Tensor, grads: Tensor, buffers: dict[str, Tensor], batch: int
    ) -> Trainer:
        """A step function bound to rows of parameters and gradients (n, width)."""

    def outputs(self, params: Tensor, buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        """Outputs (n, N, ...) of all rows for the same prepared inputs (N, ...)."""


def build_stack(task: Task, model: nn.Module, y: Tensor, precision: str) -> Stack:
    """The fastest stacked form of a model.

    Args:
        task: For its loss and data.
        model: On the device; kept by the stack.
        y: All training targets.
        precision: ``fp32``, or ``bf16`` for autocast.

    Raises:
        ValueError: The model cannot be stacked; the message says why.
    """
    if precision == "fp16":
        raise ValueError("fp16 would need a loss scale per trial")
    state = model.state_dict().values()
    if not all(isinstance(value, Tensor) for value in state):
        raise ValueError("its state_dict holds more than tensors")
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        raise ValueError("its parameters are not all float32")
    layers = layers_of(model) if precision == "fp32" else None
    if layers and _flat_features(task, model) == layers[0].inputs:
        return MLPStack(layers, gradient_of(task.loss, y, layers[-1].outputs))
    autocast = partial(devices.autocast, _device(model), precision)
    stack = VmapStack(model, task.loss, y, autocast, task.batch_size)
    _probe(task, stack, y, precision)
    return stack


def fusable(
    task: Task,
    optimizer: str,
    optimizer_args: Mapping[str, Any] | None = None,
    precision: str = "fp32",
    device: torch.device | None = None,
) -> str | None:
    """Why trials of a task cannot be fused; None if they can.

    Tries one stacked step of two trials and compares it with a plain one.

    Args:
        task: The task.
        optimizer: Class name in torch.optim.
        optimizer_args: Its arguments, without ``lr``; None = the task's own.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        device: Where it shall run; None = CPU.

    Example:
        >>> fusable(load_task("digits"), "LBFGS")
        'optimizer LBFGS has no stacked form (SGD, Adam and AdamW have)'
    """
    arguments = task.optimizer_args if optimizer_args is None else optimizer_args
    if not isinstance(task.train, Split) or not isinstance(task.validation, Split):
        return "its data come from a loader, not as tensors"
    if task.param_groups is not None:
        return "its parameter groups have rates of their own"
    reason = stacked_optim.why_not(optimizer, arguments)
    if reason:
        return reason
    with torch.random.fork_rng(devices=[]):
        model = task.model().to(device or torch.device("cpu"))
    try:
        build_stack(task, model, task.train.y, precision)
    except ValueError as error:
        return str(error)
    return None


@contextmanager
def quiet() -> Iterator[None]:
    """torch warns of an operator that it stacks by a loop, and asks for an issue on GitHub."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        yield


def _sample(task: Task, count: int) -> Tensor:
    assert isinstance(task.train, Split)
    x = task.train.x[:count]
    return task.transform(x) if task.transform else x


def _flat_features(task: Task, model: nn.Module) -> int | None:
    """Features of a sample where the model sees them as one row."""
    x = _sample(task, 1)
    flattens = any(isinstance(module, nn.Flatten) for module in model.modules())
    return x.numel() if x.dim() == 2 or flattens else None


def _probe(task: Task, stack: VmapStack, y: Tensor, precision: str) -> None:
    """Find out whether the model draws random numbers, and that its stacked step is right.

    It is compared with a plain one in float32: half precision alone moves the gradient of a deep
    net by a third. On an accelerator dropout draws other numbers where it is stacked, so a model
    with random numbers is compared on the CPU.
    """
    model = stack.model
    count = min(PROBE_SAMPLES, len(y))
    x, y = _sample(task, count), y[:count]
    try:
        stepped = _stacked_step(stack, x, y)
    except Exception as error:  # the user's model may raise anything
        if "random" not in str(error):
            raise ValueError(_why(model, error)) from error
        stack.random = True
        try:
            stepped = _stacked_step(stack, x, y)
        except Exception as second:
            raise ValueError(_why(model, second)) from second
    apart = stack.random and _device(model).type != "cpu"
    if apart or precision != "fp32":
        if not all(bool(torch.isfinite(part).all()) for part in stepped[:2]):
            raise ValueError(f"a stacked step of {type(model).__name__} in {precision} overflows")
        stack = copy(stack)
        stack.autocast = nullcontext
        if apart:
            stack.model = deepcopy(model).cpu()
        stepped = _stacked_step(stack, x, y)
    for one, stacked in zip(_plain_step(task, stack, x, y), stepped, strict=True):
        # by their norms: one ReLU that rounding turns over may move single numbers by any amount
        distance = float((stacked[1].float() - one.float()).norm())
        if not distance <= TOLERANCE * float(one.float().norm()) + 1e-7:
            raise ValueError(f"a stacked step of {type(model).__name__} differs from a plain one")


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _why(model: nn.Module, error: Exception) -> str:
    first = (str(error).splitlines() or [type(error).__name__])[0][:160].rstrip(". ")
    return f"torch.func cannot stack {type(model).__name__}: {first}"


def _stacked_step(stack: VmapStack, x: Tensor, y: Tensor) -> list[Tensor]:
    """Losses, gradients and buffers of two equal trials after a step."""
    model, device = stack.model, _device(stack.model)
    x, y = x.to(device), y.to(device)
    values = dict(model.named_parameters())
    params = torch.cat([values[name].detach().flatten() for name in stack.shapes]).expand(2, -1)
    buffers = {k: torch.stack([b.clone(), b.clone()]) for k, b in model.named_buffers()}
    grads = torch.empty_like(params, memory_format=torch.contiguous_format)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        trainer = stack.trainer(params.contiguous(), grads, buffers, len(x))
        with quiet():
            trainer.step(x.expand(1, *x.shape), y.expand(2, *y.shape))
    return [trainer.take_losses(1), grads, *buffers.values()]


def _plain_step(task: Task, stack: VmapStack, x: Tensor, y: Tensor) -> list[Tensor]:
    """The same of one trial, without stacking."""
    model, device = deepcopy(stack.model).train(), _device(stack.model)
    x, y = x.to(device), y.to(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        with stack.autocast():
            outputs = model(x)
        loss = task.loss(outputs.float(), y)
        values = dict(model.named_parameters())
        grads = torch.autograd.grad(loss, [values[name] for name in stack.shapes])
    flat = torch.cat([gradient.flatten() for gradient in grads])
    return [loss.detach(), flat, *(b for _, b in model.named_buffers())]
