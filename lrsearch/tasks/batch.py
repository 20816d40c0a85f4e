"""A batch of whatever kind: moved, counted, as floats; and how large one is that is validated."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

EVALUATION_ELEMENTS = 3 << 17
"""Input elements of a validation batch on a CPU (128 images of CIFAR-10: larger ones leave the
cache and are slower); 64 times as many on an accelerator."""
EVALUATION_BATCHES = 16
"""Training batches in a validation batch, at most."""
EVALUATION_OUTPUTS = 1 << 24
"""Output elements of a validation batch, at most: the logits of a language model are far larger
than its inputs, and 16 training batches of them may not fit where training does."""


def to_device(value: Any, device: torch.device) -> Any:
    """What can be moved, inside tuples, lists, dicts and dataclasses, too; all else as it is.

    Besides tensors these are packed sequences, graphs and all that has a ``to`` of its own.
    """
    if isinstance(value, Tensor):  # to the CPU it would be read before it has come
        return value.to(device, non_blocking=device.type != "cpu")
    if callable(move := getattr(value, "to", None)):
        return move(device)
    if isinstance(value, tuple):
        parts = (to_device(part, device) for part in value)
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [to_device(part, device) for part in value]
    if isinstance(value, Mapping):
        return {key: to_device(part, device) for key, part in value.items()}
    return like(value, [to_device(part, device) for part in parts_of(value)])


def elements(value: Any) -> int:
    """Of all tensors in tuples, lists, dicts and dataclasses together."""
    if isinstance(value, Tensor):
        return value.numel()
    return sum(map(elements, value.values() if isinstance(value, Mapping) else parts_of(value)))


def evaluation_size(batch: int, inputs: int, outputs: int, device: torch.device) -> int:
    """Samples of a validation batch: no fewer than of a training batch.

    Args:
        batch: Samples of a training batch.
        inputs: Elements of a sample.
        outputs: Elements of what all models that see a batch at once give for a sample.
        device: Where.
    """
    most = EVALUATION_ELEMENTS * (1 if device.type == "cpu" else 64)
    fit = most // max(1, inputs), EVALUATION_OUTPUTS // max(1, outputs)
    return max(batch, min(*fit, EVALUATION_BATCHES * batch))


def as_float(outputs: Any) -> Any:
    """Outputs of autocast as float32, in which losses are computed; in tuples and objects, too."""
    if isinstance(outputs, Tensor):
        return outputs.float() if _is_half(outputs) else outputs
    if parts := parts_of(outputs):
        return like(outputs, [as_float(part) for part in parts])
    held = getattr(outputs, "__dict__", {})
    if isinstance(outputs, Distribution) or any(map(_is_half, held.values())):
        outputs = copy.copy(outputs)
        vars(outputs).update({name: as_float(part) for name, part in held.items()})
    return outputs


def _is_half(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)


def parts_of(value: Any) -> list[Any]:
    """What a tuple, list, dict or dataclass holds; nothing of anything else."""
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, (tuple, list)):
        return list(value)
    return [getattr(value, name) for name in fields_of(value)]


def like(value: Any, parts: list[Any]) -> Any:
    """A tuple, list, dict or dataclass of the same kind with other parts; anything else itself."""
    if isinstance(value, dict):
        made = copy.copy(value)
        for key, part in zip(value, parts, strict=True):
            made[key] = part
        return made
    if isinstance(value, (tuple, list)):
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if not (names := fields_of(value)):
        return value
    made = copy.copy(value)
    for name, part in zip(names, parts, strict=True):
        object.__setattr__(made, name, part)  # some are frozen
    return made


def fields_of(value: Any) -> list[str]:
    """The names of a dataclass's fields; none of anything else."""
    is_object = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return [field.name for field in dataclasses.fields(value)] if is_object else []
