"""Which stacked form a task gets, and why some tasks have none."""

from __future__ import annotations

import pickle
import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import copy
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lrsearch.tasks.batch import as_float
from lrsearch.tasks.task import Split, Task, fresh_model, on_device
from lrsearch.training import device as devices
from lrsearch.training import stacked_optim
from lrsearch.training.copies import copied
from lrsearch.training.stacked_loss import gradient_of
from lrsearch.training.stacked_mlp import MLPStack, layers_of
from lrsearch.training.stacked_vmap import VmapStack

PROBE_SAMPLES = 4
"""Samples of the step that shows whether a module can be stacked."""
TOLERANCE = 0.05
"""How far that step may lie from a plain one, in float32, by their norms."""
ROUNDING = 1e-5
"""Gradients that differ by so little, for the whole gradient's norm, differ by rounding.

The gradient of a bias before a batch norm is nothing else: some 3e-7 of the whole.
"""


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
    dependent: bool
    """Whether in evaluation mode a sample's outputs depend on what is beside it."""

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
    if any(buffer.layout != torch.strided for buffer in model.buffers()):
        raise ValueError("its buffers are not all dense")
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        raise ValueError("its parameters are not all float32")
    if _hooks_gradients(model):
        raise ValueError("its gradients have hooks")
    layers = layers_of(model) if precision == "fp32" else None
    stack: Stack
    if layers and _flat_features(task, model) == layers[0].inputs:
        stack = MLPStack(layers, gradient_of(task.loss, y, layers[-1].outputs))
    else:
        autocast = partial(devices.autocast, _device(model), precision)
        stack = VmapStack(model, task.loss, y, autocast, task.batch_size)
    try:
        with devices.random_seed(_device(model), 0), devices.in_float32():
            distances = _probe(task, model, stack, y, precision)
    except Exception as error:  # the user's model may raise anything
        raise ValueError(_why(model, error)) from error
    if not all(distance <= TOLERANCE for distance in distances):
        raise ValueError(f"a stacked step of {type(model).__name__} differs from a plain one")
    return stack


def _hooks_gradients(model: nn.Module) -> bool:
    """Whether something of the user's sees or changes gradients, which would see all trials'."""
    return any(p._backward_hooks or p._post_accumulate_grad_hooks for p in model.parameters()) or (
        any(module._backward_hooks or module._backward_pre_hooks for module in model.modules())
    )


def why_not_fused(
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
        >>> why_not_fused(load_task("digits"), "LBFGS")
        'optimizer LBFGS has no stacked form (SGD, Adam and AdamW have)'
    """
    device = device or torch.device("cpu")
    task = on_device(task, device)
    arguments = task.optimizer_args if optimizer_args is None else optimizer_args
    if not isinstance(task.train, Split) or not isinstance(task.validation, Split):
        return "its data come from a loader, not as tensors"
    if task.param_groups is not None:
        return "its parameter groups have rates of their own"
    reason = stacked_optim.why_not(optimizer, arguments)
    if reason:
        return reason
    model = fresh_model(task).to(device)
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


def _sample(task: Task, model: nn.Module, count: int) -> Tensor:
    """Inputs of the model, where it is: a transform may be a module with tensors of its own."""
    assert isinstance(task.train, Split)
    x = task.train.x[:count].to(_device(model))
    return task.transform(x) if task.transform else x


def _flat_features(task: Task, model: nn.Module) -> int | None:
    """Features of a sample where the model sees them as one row."""
    x = _sample(task, model, 1)
    flattens = any(isinstance(module, nn.Flatten) for module in model.modules())
    return x.numel() if x.dim() == 2 or flattens else None


def _probe(task: Task, model: nn.Module, stack: Stack, y: Tensor, precision: str) -> list[float]:
    """How far losses, gradients and buffers of a stacked step lie from a plain one's, relatively.

    Also finds out whether the model draws random numbers. The step is compared with a plain one in
    float32: half precision alone moves the gradient of a deep net by a third, CUDA's TF32 by a
    tenth. On an accelerator dropout draws other numbers where it is stacked, so a model with
    random numbers is compared on the CPU.
    """
    plain = copied(model)  # before torch.func leaves its tensors in modules that keep some
    count = min(PROBE_SAMPLES, len(y))
    x, y = _sample(task, model, count), y[:count]
    try:
        _stacked_step(stack, model, x, y, shared=False)
    except Exception as error:
        if "random" not in str(error) or not isinstance(stack, VmapStack):
            raise
        stack.random = True
        _stacked_step(stack, model, x, y, shared=False)
    if isinstance(stack, VmapStack):
        stack.dependent = _depend(copied(plain), x)  # some keep a count of their calls
    stepped = _stacked_step(stack, model, x, y)
    apart = stack.random and _device(model).type != "cpu"
    if apart or precision != "fp32":
        assert isinstance(stack, VmapStack)
        if not all(bool(torch.isfinite(part).all()) for part in stepped[:2]):
            raise ValueError(f"its step in {precision} overflows")
        stack = copy(stack)
        stack.autocast = nullcontext
        if apart:
            plain, task = plain.cpu(), on_device(task, torch.device("cpu"))
            stack.model, stack.loss = copied(plain), task.loss
        stepped = _stacked_step(stack, stack.model, x, y)
    buffers = [value.clone() for value in plain.buffers()]
    expected = _plain_step(task, stack, plain, x, y)
    with torch.no_grad():
        for value, before in zip(plain.buffers(), buffers, strict=True):
            value.copy_(before)
    again = _plain_step(task, stack, plain, x, y)
    if not torch.allclose(again[0], expected[0], equal_nan=True):
        raise ValueError("its loss is another one when it is called again")
    if reason := _shared(task, stack, plain, x, y):
        raise ValueError(reason)
    last = len(expected) - len(buffers)
    whole = float(torch.cat([gradient.flatten() for gradient in expected[1:last]]).norm())
    return [
        _apart(one, stacked[1], max(1e-7, ROUNDING * whole) if 0 < i < last else 1e-7)
        for i, (one, stacked) in enumerate(zip(expected, stepped, strict=True))
    ]


@torch.no_grad()
def _depend(model: nn.Module, x: Tensor) -> bool:
    """Whether in evaluation mode outputs change with the samples that are beside a sample."""
    device = _device(model.eval())
    if len(x) < 2:
        return False
    with devices.random_numbers_kept(device):
        few, more = (as_float(model(part.to(device))) for part in (x[: len(x) // 2], x))
    return not torch.allclose(few, more[: len(few)], rtol=1e-3, atol=1e-5, equal_nan=True)


_READERS = {
    getattr(Tensor, name)
    for name in ("item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__")
}


class _Reads(TorchFunctionMode):
    """Sees whether the value of a tensor is read, to decide by it.

    A ``TorchDispatchMode`` would see it, too, and import torch's compiler: a CPU second.
    """

    any = False

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.any |= func in _READERS
        return func(*args, **(kwargs or {}))


def _shared(task: Task, stack: Stack, model: nn.Module, x: Tensor, y: Tensor) -> str | None:
    """What a step does in Python, where all stacked trials are one; None if nothing."""
    numbers = _numbers(model.train())
    drawn = _generators()
    with _Reads() as reads:
        _plain_step(task, stack, model, x, y)
    for (name, key), value in _numbers(model).items():
        if numbers.get((name, key)) != value:
            return f"it keeps a number from batch to batch ({name}.{key})".replace("(.", "(")
    if drawn != _generators():
        return "it draws random numbers of Python or numpy"
    if stack.random and reads.any:  # what it skips at one step has no gradient
        return "it decides by random numbers"
    return None


def _generators() -> tuple[Any, bytes]:
    """Where those of Python and numpy stand; numpy keeps every other normal number, too."""
    return random.getstate(), pickle.dumps(np.random.get_state())


def _numbers(model: nn.Module) -> dict[tuple[str, str], float]:
    """The numbers that modules keep as Python's own."""
    return {
        (name, key): value
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, (int, float))
    }


def _apart(one: Tensor, other: Tensor, rounding: float = 1e-7) -> float:
    """Relative distance, by norms: a ReLU that rounding turns over may move a number by much."""
    distance = float((other.float() - one.float()).norm())
    return 0.0 if distance <= rounding else distance / max(float(one.float().norm()), 1e-30)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _why(model: nn.Module, error: Exception) -> str:
    """The first sentence of the error: torch's next ones ask for an issue on GitHub."""
    first = (str(error).splitlines() or [type(error).__name__])[0]
    first = first.split(", please")[0].split(". ")[0].rstrip(".")
    return f"cannot stack {type(model).__name__}: {first[:160]}"


def _stacked_step(
    stack: Stack, model: nn.Module, x: Tensor, y: Tensor, shared: bool = True
) -> list[Tensor]:
    """Losses, gradients and buffers of two equal trials after a step.

    They share their inputs, as trials at one epoch do, or each has its own.
    """
    device = _device(model)
    x, y = stack.prepare(x.to(device)), y.to(device)
    values = dict(model.named_parameters())
    params = torch.empty(2, stack.width, device=device)
    grads = torch.empty_like(params)
    with torch.no_grad():
        for name, view in stack.views(params).items():
            view.copy_(values[name])
    buffers = {k: torch.stack([b.clone(), b.clone()]) for k, b in model.named_buffers()}
    with devices.random_numbers_kept(device):
        torch.manual_seed(0)
        trainer = stack.trainer(params, grads, buffers, len(x))
        with quiet():
            trainer.step(x.expand(1 if shared else 2, *x.shape), y.expand(2, *y.shape))
            if not shared:
                stack.outputs(params, buffers, x)  # in evaluation mode a model may do other things
    return [trainer.take_losses(1), *stack.views(grads).values(), *buffers.values()]


def _plain_step(task: Task, stack: Stack, model: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    """The same of one trial, without stacking."""
    device = _device(model.train())
    x, y = x.to(device), y.to(device)
    with devices.random_numbers_kept(device):
        torch.manual_seed(0)
        loss = task.loss(as_float(model(x)), y)
        values = dict(model.named_parameters())
        names = stack.views(torch.empty(1, stack.width, device="meta"))
        grads = torch.autograd.grad(loss, [values[name] for name in names])
    return [loss.detach(), *grads, *(b.clone() for _, b in model.named_buffers())]
