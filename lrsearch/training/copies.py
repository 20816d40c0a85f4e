"""Copies of models and states, with what ``copy`` and ``state_dict`` leave out."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lrsearch.tasks.batch import parts_of, to_device

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


def tensors_of(model: nn.Module) -> list[Tensor]:
    """All parameters and buffers."""
    return [*model.parameters(), *model.buffers()]


def unsaved(model: nn.Module) -> dict[str, Tensor]:
    """The buffers that ``state_dict`` leaves out (``persistent=False``), by name."""
    saved = model.state_dict().keys()
    return {name: value for name, value in model.named_buffers() if name not in saved}


ATTRIBUTE = ":attribute"
"""Ends the name of what is no buffer, in what a state_dict leaves out."""
MOST_COUNTED = 4096
"""A plain tensor of more numbers is a constant, such as a mask, until a step has changed it."""


def attributes(module: nn.Module, held: Collection[int] = ()) -> dict[str, Any]:
    """Numbers and tensors that a module of the user's own keeps as they are, or in tuples, lists
    and dicts: counters, and what a recurrent layer remembers.

    Args:
        module: The module.
        held: Where its model's parameters and buffers are (:func:`places`): a view of one, such as
            ``weight.data``, goes with it.
    """
    if type(module).__module__.startswith("torch."):
        return {}
    return {
        key: value
        for key, value in vars(module).items()
        if key not in _TORCH and _is_kept(value, held)
    }


_TORCH = vars(nn.Module()).keys()
"""Attributes of every module, such as ``training``."""


def _is_kept(value: Any, held: Collection[int]) -> bool:
    """Whether it is a number, a plain tensor, or some of nothing else; a vocabulary is none."""
    if type(value) in (tuple, list, dict):
        named = type(value) is not dict or all(type(key) in (str, int) for key in value)
        counts = named and 0 < len(value) <= MOST_COUNTED
        return counts and all(_is_kept(part, held) for part in parts_of(value))
    if type(value) is not Tensor:
        return type(value) in (bool, int, float)
    return value.is_leaf and not value.requires_grad and _place(value) not in held


def _put(module: nn.Module, key: str, value: Any) -> None:
    """Set an attribute; a list or dict stays the one that others may know."""
    own = vars(module).get(key)
    if type(own) is type(value) is list:
        own[:] = value
    elif type(own) is type(value) is dict:
        new = dict(value)
        own.clear()
        own.update(new)
    else:
        setattr(module, key, value)


def places(model: nn.Module) -> set[int]:
    """Where in memory parameters and buffers are."""
    return set(map(_place, tensors_of(model)))


def _place(value: Tensor) -> int:
    """Where it is in memory; a number of its own for what has no memory that one may ask for."""
    try:
        return value.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # sparse ones, and some subclasses of Tensor
        return id(value)


def constants(*models: nn.Module) -> dict[int, tuple[Tensor, int]]:
    """The large plain tensors of models, and how often each was changed, by their ids."""
    return {
        id(value): (value, _changes(value))
        for model in models
        for module in model.modules()
        for value in attributes(module).values()
        if isinstance(value, Tensor) and value.numel() > MOST_COUNTED
    }


def _changes(value: Tensor) -> int:
    return 0 if value.is_inference() else value._version


def _is_fixed(value: Any, fixed: Mapping[int, tuple[Tensor, int]]) -> bool:
    known = fixed.get(id(value))
    return known is not None and known[1] == _changes(value)


def left_out(
    model: nn.Module, fixed: Mapping[int, tuple[Tensor, int]] = MappingProxyType({})
) -> dict[str, Any]:
    """All that ``state_dict`` leaves out: buffers, and the attributes of each module.

    Args:
        model: The model.
        fixed: Its :func:`constants` when it was made, left out until a step has changed them.
    """
    held = places(model)
    kept = {
        f"{path}.{key}{ATTRIBUTE}": value
        for path, module in model.named_modules()
        for key, value in attributes(module, held).items()
        if not _is_fixed(value, fixed)
    }
    return {**unsaved(model), **kept}


@torch.no_grad()
def load_state(model: nn.Module, state: Mapping[str, Any], left_out: Mapping[str, Any]) -> None:
    """Load a state_dict, and the buffers and attributes that it leaves out.

    Buffers that a model makes, or makes larger, only when it runs are made here.
    """
    modules, device = dict(model.named_modules()), next(model.parameters()).device
    shared: dict[int, Tensor] = {}  # by the tensor that several modules have as one
    for name in [name for name in left_out if name.endswith(ATTRIBUTE)]:
        path, _, key = name.removesuffix(ATTRIBUTE).rpartition(".")
        value = left_out[name]
        if path in modules:
            own = vars(modules[path]).get(key)
            value = to_device(value, device)
            if isinstance(own, Tensor) and isinstance(value, Tensor):
                value = shared.setdefault(id(own), value)
            _put(modules[path], key, value)
    left_out = {n: value for n, value in left_out.items() if not n.endswith(ATTRIBUTE)}
    for name, value in {**state, **left_out}.items():
        path, _, key = name.rpartition(".")
        buffers = modules[path]._buffers if path in modules else {}
        if name in left_out or key in buffers:
            own = buffers.get(key)
            if own is None or own.shape != value.shape:
                fresh = torch.empty_like(value, device=device)
                modules[path].register_buffer(key, fresh, persistent=name not in left_out)
    model.load_state_dict(dict(state))
    found = dict(model.named_buffers())
    for name, value in left_out.items():
        found[name].copy_(value)


def match_buffers(model: nn.Module, other: nn.Module) -> None:
    """Give a model those buffers, in that size, which another of its kind has."""
    for mine, theirs in zip(model.modules(), other.modules(), strict=True):
        for name in mine._buffers.keys() - theirs._buffers.keys():
            delattr(mine, name)
        for name, value in theirs._buffers.items():
            own = mine._buffers.get(name)
            if value is None or own is None or own.shape != value.shape:
                fresh = None if value is None else value.detach().clone()
                persistent = name not in theirs._non_persistent_buffers_set
                mine.register_buffer(name, fresh, persistent=persistent)


def made_alike(model: nn.Module, other: nn.Module) -> None:
    """Give a model the buffers and attributes of another of its kind, and its weights."""
    match_buffers(model, other)
    with torch.no_grad():
        for mine, theirs in zip(tensors_of(model), tensors_of(other), strict=True):
            mine.copy_(theirs)
    held = places(model) | places(other)
    for own, given in zip(model.modules(), other.modules(), strict=True):
        for key in attributes(own, held).keys() | attributes(given, held).keys():
            if key in vars(given):
                _put(own, key, vars(given)[key])
            else:
                delattr(own, key)


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
