"""The samples of a user's own Dataset, read twice to see whether they are the same each time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrsearch.tasks.batch import like, parts_of
from lrsearch.tasks.check_model import same
from lrsearch.tasks.passes import generators, host_seeded, host_states, inside

KEPT_BYTES = 1 << 28
"""Samples of a part of the data, at most."""
OBJECT_BYTES = 500
"""Of a tensor or a number, besides what is in it."""
READ_SECONDS = 10.0
"""Time in which a part is read twice; what takes longer is read anew in each epoch."""
READ_AT_ONCE = 64
"""Samples."""
_PLAIN = (str, bytes, int, float, np.number, np.bool_, type(None))


def read_twice(dataset: Any) -> list[Any] | None:
    """Copies of all samples; None where they may be others next time, or are too many.

    Args:
        dataset: Gives samples by their numbers: tensors, arrays, numbers or texts, or tuples,
            lists and dicts of them.

    Raises:
        TypeError: A sample holds something else.
    """
    parts, count, began = inside(dataset), len(dataset), time.monotonic()
    if generators(parts):
        return None
    numbers = _numbers(parts)
    samples: list[Any] = []
    for some in _read(dataset, range(count), 0):
        samples += map(copied, some or ())
        if not some or _too_slow(began, len(samples), count):
            return None
        if sum(map(_bytes, some)) * count > KEPT_BYTES * len(some):
            return None
    again = 0
    for some in _read(dataset, range(count)[::-1], 1):  # an order may be chance, too
        if not some or _too_slow(began, count + again, count):
            return None
        again += len(some)
        before = samples[count - again : count - again + len(some)]
        if not all(map(_equal, some[::-1], before)):
            return None
    return samples if _numbers(parts) == numbers else None


def _too_slow(began: float, read: int, count: int) -> bool:
    """Whether two readings of so many samples take too long, by those of this second or more."""
    elapsed = time.monotonic() - began
    return elapsed > READ_SECONDS / 10 and elapsed * 2 * count > READ_SECONDS * read


def _read(dataset: Any, order: range, seed: int) -> Iterator[list[Any] | None]:
    """Some samples after the other; None where random numbers were drawn for them."""
    for start in range(0, len(order), READ_AT_ONCE):
        with host_seeded(seed):
            before = _drawn()
            some = [dataset[i] for i in order[start : start + READ_AT_ONCE]]
            drew = _drawn() != before
        yield None if drew else some


def _drawn() -> tuple[Any, ...]:
    """What is another when random numbers were drawn on the CPU."""
    return *host_states(), torch.get_rng_state().numpy().tobytes()


def _numbers(parts: Sequence[Any]) -> list[dict[str, float]]:
    """What they count: the numbers that they have as attributes."""
    return [
        {k: v for k, v in getattr(part, "__dict__", {}).items() if isinstance(v, (int, float))}
        for part in parts
    ]


def copied(sample: Any) -> Any:
    """A sample with tensors, arrays, tuples, lists and dicts of its own.

    Raises:
        TypeError: It holds something else, or a tensor that is not in the CPU's memory or learns.
    """
    kind = type(sample)
    if kind is Tensor and sample.device.type == "cpu" and not sample.requires_grad:
        if sample.layout is torch.strided:
            return sample.clone()
    elif kind is np.ndarray and not sample.dtype.hasobject:
        return sample.copy()
    elif kind is tuple or kind is list:
        return kind(map(copied, sample))
    elif kind is dict:
        return {key: copied(part) for key, part in sample.items()}
    elif isinstance(sample, _PLAIN):
        return sample
    raise TypeError(f"a sample holds a {kind.__name__}")


def leaves(value: Any) -> list[Any]:
    """What is in tuples, lists and dicts, one after the other."""
    if not isinstance(value, (tuple, list, dict)):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return [leaf for part in parts for leaf in leaves(part)]


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """The same tuples, lists and dicts with each of their leaves changed, in that order."""
    if not isinstance(value, (tuple, list, dict)):
        return change(value)
    return like(value, [mapped(part, change) for part in parts_of(value)])


def form(sample: Any) -> Any:
    """What samples have in common that stack to one tensor each: kinds, keys, types and shapes."""
    kind = type(sample)
    if kind is tuple or kind is list:
        return kind, tuple(map(form, sample))
    if kind is dict:
        return kind, tuple((key, form(part)) for key, part in sample.items())
    return kind, getattr(sample, "dtype", None), tuple(getattr(sample, "shape", ()))


def _equal(a: Any, b: Any) -> bool:
    """Whether two samples are the same, with NaN wherever the other has it."""
    kind = type(a)
    if kind is not type(b):
        return False
    if kind is Tensor:
        return a.dtype == b.dtype and (torch.equal(a, b) or same(a, b))
    if kind is np.ndarray:
        nan = a.dtype.kind in "fc"
        return a.dtype == b.dtype and bool(np.array_equal(a, b, equal_nan=nan))
    if kind is tuple or kind is list:
        return len(a) == len(b) and all(map(_equal, a, b))
    if kind is dict:
        return list(a) == list(b) and all(map(_equal, a.values(), b.values()))
    real = isinstance(a, (float, np.floating))
    return bool(a == b) or (real and math.isnan(a) and math.isnan(b))


def _bytes(sample: Any) -> int:
    found = leaves(sample)
    return sum(getattr(leaf, "nbytes", 0) for leaf in found) + OBJECT_BYTES * len(found)
