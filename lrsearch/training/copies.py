"""Copies of models and states, with what ``copy`` and ``state_dict`` leave out."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Module = TypeVar("Module", bound=nn.Module)


def copied(model: Module) -> Module:
    """A copy of a model, also of one that keeps computed tensors, as ``nn.utils.prune`` does."""
    computed = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    return copy.deepcopy(model, computed)


def unsaved(model: nn.Module) -> dict[str, Tensor]:
    """The buffers that ``state_dict`` leaves out (``persistent=False``), by name."""
    saved = model.state_dict().keys()
    return {name: value for name, value in model.named_buffers() if name not in saved}


@torch.no_grad()
def set_unsaved(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Set them to what they were."""
    buffers = dict(model.named_buffers())
    for name, value in values.items():
        buffers[name].copy_(value)


def snapshot(value: Any) -> Any:
    """A copy on the CPU of tensors and plain values."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Counter):  # MultiStepLR's milestones; it asks for their elements
        return Counter(value)
    if isinstance(value, Mapping):
        return {key: snapshot(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(snapshot(part) for part in value)
    return value


def lay_out(optimizer: Optimizer) -> None:
    """Give each loaded tensor the memory format of its parameter.

    torch's fused optimizers read it in that order, whatever its strides: a state saved in another
    format (by fused trials, on another device) would be taken for a permuted one.
    """
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if name != "step" and isinstance(value, Tensor) and value.shape == parameter.shape:
                kept[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
