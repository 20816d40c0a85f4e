"""The data of a user's own task: tensors where possible, loaders where not."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
)

from lrsearch.errors import LrsearchError, UsageError, brief
from lrsearch.tasks.batch import like, parts_of
from lrsearch.tasks.task import Data, Split


def as_data(
    data: Any, what: str, batch_size: int, *, shuffle: bool, drop_last: bool = False
) -> tuple[Data, int]:
    """A :class:`Split` where the samples are tensors, else a loader; and its batch size.

    Args:
        data: A Split; a pair (x, y) of tensors, arrays or lists of numbers, or of tuples or dicts
            of them; a Dataset, which may be a list of samples; a DataLoader; or any other iterable
            of (x, y) batches that can be gone through again and again.
        what: For messages.
        batch_size: Samples per batch, where ``data`` has none itself.
        shuffle: Whether a Dataset is shuffled.
        drop_last: Whether its last batch is left out where it is smaller, and not the only one.
    """
    if isinstance(data, Split):
        return data, batch_size
    if _is_pair(data):
        x, y = (_tensor(part, f"{what} {name}") for name, part in zip("xy", data, strict=True))
        try:
            return Split(x, y), batch_size
        except UsageError as error:
            raise LrsearchError(f"{what}: {error}") from error
    if _is_pair_of_columns(data):
        columns = Columns(data[0], data[1], what)
        order: Any = RandomSampler(columns) if shuffle else SequentialSampler(columns)
        drop = drop_last and len(columns) >= batch_size
        batches = BatchSampler(order, batch_size, drop)
        return DataLoader(columns, batch_size=None, sampler=batches), batch_size
    if (tensors := _tensors(data)) is not None:
        return as_data(tensors, what, batch_size, shuffle=shuffle)
    if isinstance(data, DataLoader):
        return _unpacked(data, shuffle) or (data, data.batch_size or batch_size)
    if isinstance(data, IterableDataset):
        raise LrsearchError(
            f"{what} is a {type(data).__name__}, an IterableDataset, which does not say whether "
            f"it gives samples or batches; give DataLoader(..., batch_size={batch_size}), or "
            "batch_size=None where they are batches"
        )
    if isinstance(data, Dataset) or _holds_samples(data):
        size = len(data)
        if size == 0:
            raise LrsearchError(f"{what} is an empty {type(data).__name__}")
        drop = drop_last and size >= batch_size
        return DataLoader(data, batch_size, shuffle=shuffle, drop_last=drop), batch_size
    if isinstance(data, (list, tuple)) and data and all(isinstance(d, DataLoader) for d in data):
        raise LrsearchError(
            f"{what} is {len(data)} loaders; give one, of torch.utils.data.ConcatDataset of their "
            "data sets"
        )
    if isinstance(data, (list, tuple)) and len(data) > 2 and all(map(_is_array, data)):
        raise LrsearchError(
            f"{what} is {len(data)} tensors; give a pair (x, y), of which each may be several: "
            "((a, b), y)"
        )
    if isinstance(data, Iterator):
        raise LrsearchError(
            f"{what} is a {type(data).__name__}, which is used up after one epoch; "
            "give a DataLoader, a Dataset or tensors (x, y)"
        )
    if isinstance(data, Iterable) and not isinstance(data, (str, Mapping)):
        return data, batch_size
    if callable(data):
        raise LrsearchError(
            f"{what} is a function; call it, and give what it returns: tensors (x, y), a Dataset "
            "or a DataLoader"
        )
    raise LrsearchError(
        f"{what} must be tensors (x, y), a Dataset or a DataLoader, got {data!r:.80}"
    )


def _is_array(part: Any) -> bool:
    return isinstance(part, Tensor) or hasattr(part, "__array__")


def _is_plain(part: Any) -> bool:
    """Whether it is a number or a text, or a list of them, or of such lists."""
    while isinstance(part, (list, tuple)) and part:
        part = part[0]
    return isinstance(part, (numbers.Number, str))


def _is_pair(data: Any) -> bool:
    """Whether it is x and y of all samples, as arrays or as lists."""
    return (
        isinstance(data, (tuple, list))
        and len(data) == 2
        and all(
            _is_array(part) or (isinstance(part, (list, tuple)) and _is_plain(part))
            for part in data
        )
    )


def _is_pair_of_columns(data: Any) -> bool:
    """Whether it is x and y of all samples, of which one or both have several parts.

    A pair of two tuples is none: it may be two batches.
    """
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        return False
    several = [isinstance(part, (tuple, list, dict)) for part in data]
    whole = [
        bool(part) and all(map(_is_array, parts_of(part))) if many else _is_array(part)
        for part, many in zip(data, several, strict=True)
    ]
    return any(several) and all(whole) and (not all(several) or isinstance(data[0], dict))


class Columns(Dataset[Any]):
    """Samples whose inputs or targets are several tensors, which are cut alike for a batch.

    Args:
        x: Inputs: an array, or a tuple, list or dict of arrays.
        y: Targets, likewise.
        what: For messages.

    Raises:
        LrsearchError: Not all have as many rows.
    """

    def __init__(self, x: Any, y: Any, what: str) -> None:
        self.x = _each(x, lambda part: _tensor(part, f"{what} x"))
        self.y = _each(y, lambda part: _tensor(part, f"{what} y"))
        rows = [[len(part) for part in _parts(columns)] for columns in (self.x, self.y)]
        if len({*rows[0], *rows[1]}) > 1:
            counts = ", and ".join(
                f"{name} of {', '.join(map(str, sorted(set(each))[:3]))}"
                for name, each in zip("xy", rows, strict=True)
            )
            raise LrsearchError(
                f"{what} needs as many rows in each tensor, got {counts}; a list of samples is "
                "one tensor by torch.stack"
            )

    def __len__(self) -> int:
        return len(_parts(self.x)[0])

    def __getitem__(self, index: Any) -> tuple[Any, Any]:
        """The samples of a batch by their numbers, or one by its number."""
        if isinstance(index, list):
            index = row_numbers(index)
        return _each(self.x, lambda part: part[index]), _each(self.y, lambda part: part[index])


def row_numbers(index: Sequence[int]) -> Tensor:
    """A list as a tensor, (n,): numpy reads it five times faster than torch."""
    return torch.from_numpy(np.array(index, dtype=np.int64))


def _parts(columns: Any) -> list[Any]:
    return parts_of(columns) if isinstance(columns, (tuple, list, dict)) else [columns]


def _each(columns: Any, change: Callable[[Any], Any]) -> Any:
    """A tensor, or each of several, changed."""
    if isinstance(columns, (tuple, list, dict)):
        return like(columns, [change(part) for part in parts_of(columns)])
    return change(columns)


def _holds_samples(data: Any) -> bool:
    """Whether it is a list of samples, which torch takes for a Dataset, and not of batches.

    The target of a sample is one number, or is not as long as its row of inputs.
    """
    first = data[0] if isinstance(data, (list, tuple)) and data else None
    if not isinstance(first, (list, tuple)) or len(first) != 2:
        return False
    x, y = first
    if isinstance(y, (numbers.Number, str)) or (_is_array(y) and y.ndim == 0):
        return True
    return _is_array(x) and _is_array(y) and x.ndim == y.ndim == 1 and len(x) != len(y)


def _tensor(part: Any, what: str) -> Tensor:
    """The tensor of an array, or of a list of numbers.

    Raises:
        LrsearchError: It holds something else, or has no rows.
    """
    if isinstance(part, Tensor):
        if part.dim() == 0:
            raise LrsearchError(
                f"{what} has no rows, got one number; a list of samples is one tensor by "
                "torch.stack"
            )
        if part.layout is not torch.strided:
            raise LrsearchError(
                f"{what} is a tensor of layout {part.layout}; give it by .to_dense()"
            )
        return part.clone() if part.is_inference() else part.detach()
    try:
        array = np.asarray(part)
        if array.dtype.kind in "OSU":
            raise LrsearchError(
                f"{what} holds texts or objects, and must hold numbers; those of classes are "
                "numpy.unique(y, return_inverse=True)[1]"
            )
        if _is_array(part):
            return torch.as_tensor(np.ascontiguousarray(array))
        return torch.as_tensor(part)  # floats become float32
    except (TypeError, ValueError) as error:
        raise LrsearchError(f"{what} cannot become a tensor ({brief(error)})") from error


def _unpacked(loader: DataLoader[Any], shuffle: bool) -> tuple[Split, int] | None:
    """The tensors behind a loader that only slices and shuffles them: many times faster."""
    sampler = loader.sampler
    random = type(sampler) is RandomSampler and not sampler.replacement
    plain = random or (type(sampler) is SequentialSampler and not shuffle)
    if not plain or loader.collate_fn is not default_collate or loader.batch_size is None:
        return None
    tensors = _tensors(loader.dataset)
    if tensors is None or len(tensors[0]) == 0:
        return None
    if random and getattr(sampler, "num_samples", None) != len(tensors[0]):
        return None
    return Split(*tensors), loader.batch_size


def _tensors(data: Any) -> tuple[Tensor, Tensor] | None:
    """x and y of a Dataset that only holds them, or is a part of one (``random_split``)."""
    if type(data) is TensorDataset and len(data.tensors) == 2:
        return data.tensors[0], data.tensors[1]
    whole = _tensors(data.dataset) if type(data) is Subset else None
    if whole is None:
        return None
    index = torch.as_tensor([*data.indices], dtype=torch.long)
    x, y = (part[index.to(part.device)] for part in whole)
    return x, y
