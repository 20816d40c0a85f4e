"""Which stacked form a task gets, and why some tasks have none."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lrsearch.errors import first_line
from lrsearch.tasks.task import Split, Task, fresh_model, on_device
from lrsearch.training import device as devices
from lrsearch.training import stacked_optim
from lrsearch.training.stacked_loss import gradient_of
from lrsearch.training.stacked_mlp import MLPStack, MLPTrainer, layers_of
from lrsearch.training.stacked_probe import TOLERANCE, probe, sample_inputs
from lrsearch.training.stacked_vmap import VmapStack, VmapTrainer

Stack = MLPStack | VmapStack
"""n copies of a model whose parameters are the rows of a matrix (n, width)."""
Trainer = MLPTrainer | VmapTrainer
"""Forward and backward of n trials, bound to their rows."""


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
        autocast = partial(devices.autocast, devices.device_of(model), precision)
        stack = VmapStack(model, task.loss, y, autocast, task.batch_size)
    try:
        with devices.random_seed(devices.device_of(model), 0), devices.in_float32():
            distances = probe(task, model, stack, y, precision)
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


def _flat_features(task: Task, model: nn.Module) -> int | None:
    """Features of a sample where the model sees them as one row."""
    x = sample_inputs(task, model, 1)
    flattens = any(isinstance(module, nn.Flatten) for module in model.modules())
    return x.numel() if x.dim() == 2 or flattens else None


def _why(model: nn.Module, error: Exception) -> str:
    """The first sentence of the error: torch's next ones ask for an issue on GitHub."""
    first = first_line(error).split(", please")[0].split(". ")[0].rstrip(".")
    return f"cannot stack {type(model).__name__}: {first[:160]}"
