"""A batch of whatever kind: moved, counted, as floats, joined; and its size in validation."""

from __future__ import annotations

import copy
import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from lrsearch.errors import LrsearchError

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
    if isinstance(value, (list, dict)):  # one of the user's own may be made of something else
        made = copy.copy(value)
        keys = value if isinstance(value, dict) else range(len(value))
        for key, part in zip(keys, parts, strict=True):
            made[key] = part
        return made
    if isinstance(value, tuple):
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


def count(y: Any, outputs: Any = None) -> int:
    """Samples of a batch: the rows of its targets.

    Of several targets, as targets of all samples in a row beside their lengths, the number that
    the outputs have, too, or else most targets have, or the first; a list of as many targets as
    the outputs have rows has one for each sample. Where there is no tensor with rows, as in an
    object of the user's own, the outputs count; 1 without any.

    Example:
        >>> count((torch.zeros(7), torch.tensor([3, 4])), torch.zeros(2, 5))
        2
    """
    of_outputs = _rows(outputs)
    if not isinstance(y, (tuple, list, Mapping)) or _of_samples(y):
        return next((n for n in (_rows(y), of_outputs) if n is not None), 1)
    parts = y.values() if isinstance(y, Mapping) else y
    rows = [n for part in parts if (n := _rows(part)) is not None]
    if of_outputs in rows or (parts is y and of_outputs == len(y)):
        return of_outputs or 1
    return statistics.mode(rows) if rows else of_outputs or 1


def scored(metric: Callable[[Any, Any], Any], outputs: Any, y: Any) -> Any:
    """What a metric gives; one that keeps a state, as those of torchmetrics, begins anew."""
    reset = getattr(metric, "reset", None)
    if callable(reset):
        reset()
    return metric(outputs, y)


def joined(batches: Sequence[Any], what: str) -> Any:
    """The outputs or targets of batches as those of one.

    Args:
        batches: Of each batch tensors, or tuples, lists, dicts or dataclasses of them, except
            objects that move by themselves, as graphs do. Lists of samples, such as texts, or of
            dicts for each image as in detection, are put one behind the other.
        what: ``outputs`` or ``targets``, for messages.

    Raises:
        LrsearchError: They have other shapes beside their samples, or are no tensors.
    """
    first = batches[0]
    if len(batches) == 1 or all(batch is None for batch in batches):
        return first
    if _in_a_row(batches):
        return type(first)(sample for batch in batches for sample in batch)
    if all(type(batch) is type(first) for batch in batches):
        if isinstance(first, dict):
            keys = [[*map(str, batch)] for batch in batches]
            if other := next((each for each in keys if {*each} != {*keys[0]}), None):
                raise _cannot(
                    f"{what} have keys {', '.join(keys[0])}, and later {', '.join(other)}; give "
                    "all batches the same"
                )
            return like(first, [joined([batch[key] for batch in batches], what) for key in first])
        if isinstance(first, (tuple, list)) or (fields_of(first) and not hasattr(first, "to")):
            columns = zip(*map(parts_of, batches), strict=True)
            return like(first, [joined(column, what) for column in columns])
    if not all(isinstance(batch, Tensor) for batch in batches):
        kind = next(type(batch) for batch in batches if not isinstance(batch, Tensor))
        raise _cannot(
            f"{what} of type {kind.__name__} cannot be joined; give tensors, or tuples, dicts or "
            "dataclasses of them"
        )
    if first.dim() == 0:
        raise _cannot(
            f"{what} that are one number for a whole batch cannot be joined; give a row for each "
            "sample, or leave it out in evaluation mode"
        )
    other = next((batch for batch in batches if batch.shape[1:] != first.shape[1:]), None)
    if other is not None:
        raise _cannot(
            f"{what} of shapes {tuple(first.shape)} and {tuple(other.shape)} cannot be joined: "
            "the first dimension must be the samples, and all others the same; pad all batches "
            "to one length, or give all samples in one batch"
        )
    return torch.cat(list(batches))


def _cannot(why: str) -> LrsearchError:
    return LrsearchError(f"validation_loss sees the samples of all batches at once, and {why}")


def _rows(value: Any) -> int | None:
    """Of the first tensor with rows in tuples, lists and dicts; None where they hold none.

    Of a list of dicts, one for each sample as in detection, its length.
    """
    if isinstance(value, Tensor):
        return len(value) if value.dim() else None
    if _of_samples(value):
        return len(value)
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if not isinstance(value, (tuple, list)):
        return None
    return next((n for part in value if (n := _rows(part)) is not None), None)


def _of_samples(value: Any) -> bool:
    """Whether it is a list of dicts with the same keys; with others they are parts of targets."""
    return (
        isinstance(value, (tuple, list))
        and bool(value)
        and all(isinstance(v, Mapping) and v.keys() == value[0].keys() for v in value)
    )


def _in_a_row(batches: Sequence[Any]) -> bool:
    """Whether they are lists of samples; else their parts, such as two views, are joined each."""
    if not all(isinstance(batch, (tuple, list)) for batch in batches):
        return False
    if len(set(map(len, batches))) > 1:
        return True
    plain = all(isinstance(part, (str, int, float)) for batch in batches for part in batch)
    return plain or (all(map(_of_samples, batches)) and any(map(_uneven, batches)))


def _uneven(dicts: Sequence[Mapping[Any, Any]]) -> bool:
    """Whether what has one key has not as many rows in each, such as boxes of images."""
    return any(len({_rows(each[key]) for each in dicts}) > 1 for key in dicts[0])
