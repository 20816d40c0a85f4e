"""Samples of a user's own Dataset, read once where nothing about them is random."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

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
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
)

from lrsearch.errors import LrsearchError
from lrsearch.tasks.batch import like, parts_of
from lrsearch.tasks.check import check
from lrsearch.tasks.check_model import same
from lrsearch.tasks.data import row_numbers
from lrsearch.tasks.mistakes import CPU
from lrsearch.tasks.passes import begin, generators, host_seeded, host_states, inside
from lrsearch.tasks.task import Split, Task

KEPT_BYTES = 1 << 28
"""Samples of a part of the data, at most."""
READ_SECONDS = 10.0
"""Time in which a part is read twice; what takes longer is read anew in each epoch."""
READ_AT_ONCE = 64
"""Samples."""
_SAMPLERS = (RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler)


@dataclass(frozen=True)
class KeptSplit(Split):
    """Samples as tensors that come in the order, and in the batches, of a loader.

    Args:
        x: Inputs.
        y: Targets.
        loader: Gives batches of the numbers of samples.
    """

    loader: DataLoader[Any]

    def order(self, seed: int, epoch: int) -> Tensor:
        """The samples of an epoch by their numbers, (n,), without a last batch that is left out.

        Args:
            seed: Of the generators of the loader; if it has none it draws from torch's.
            epoch: Its number.
        """
        begin(self.loader, seed, epoch)
        return row_numbers([number for batch in self.loader for number in batch])


class Numbers(Dataset[int]):
    """Of each sample only its number."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> int:
        return i


class Samples(Dataset[Any]):
    """The samples of a Dataset as tensors (n, ...), from which a loader takes whole batches.

    Args:
        columns: A tensor, or tuples, lists and dicts of tensors, as ``default_collate`` gives them
            of all samples.
        count: n.
    """

    def __init__(self, columns: Any, count: int) -> None:
        self.columns = columns
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, index: Sequence[int]) -> Any:
        """The batch of the samples with these numbers: copies."""
        rows = row_numbers(index)
        return _each(self.columns, lambda column: column.index_select(0, rows))


def with_samples_kept(task: Task, device: torch.device = CPU) -> Task:
    """The task with the same batches from memory, where that is sure.

    Of a plain ``DataLoader`` each sample is read in every epoch of every trial, from its Dataset.
    Where that gave the same numbers twice, drew no random numbers and counted nothing, the samples
    are kept. What is random is read anew each time, and so is what is too large or takes too long.

    Args:
        task: One that has been checked.
        device: Where it will be trained.
    """
    task = replace(task, train=kept(task.train), validation=kept(task.validation))
    train, validation = _split(task.train), _split(task.validation)
    if task.transform is not None or task.augment is not None or not train or not validation:
        return task
    if type(validation.loader.sampler) is not SequentialSampler or validation.loader.drop_last:
        return task
    tensors = replace(
        task,
        train=train,
        validation=validation,
        batch_size=train.loader.batch_size or task.batch_size,
        drop_last=train.loader.drop_last,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they were shown when the loaders were checked
        try:
            check(tensors, device)
        except LrsearchError:  # of a loader a model may change the batches
            return task
    return tensors


def kept(data: Any) -> Any:
    """A loader that gives the same batches from memory; the data themselves where it cannot."""
    if not _plain(data):
        return data
    try:
        columns = _columns(data.dataset)
    except Exception:  # noqa: BLE001 - the user's code may raise anything, also later on
        return data
    return data if columns is None else _like(data, Samples(columns, len(data.dataset)))


def _split(data: Any) -> KeptSplit | None:
    """Kept samples as tensors, where inputs and targets are one each and every one comes once."""
    if not isinstance(data, DataLoader) or not isinstance(data.dataset, Samples):
        return None
    columns, count, sampler = parts_of(data.dataset.columns), len(data.dataset), data.sampler
    if isinstance(sampler, RandomSampler):
        if sampler.replacement or sampler.num_samples != count:
            return None
    elif not isinstance(sampler, SequentialSampler):
        return None
    if len(columns) != 2 or not all(isinstance(column, Tensor) for column in columns):
        return None
    x, y = columns
    return KeptSplit(x, y, _like(data, Numbers(count)))


def _like(loader: DataLoader[Any], dataset: Dataset[Any]) -> DataLoader[Any]:
    """A loader that draws the same numbers of samples, and has others."""
    return DataLoader(
        dataset,
        batch_size=loader.batch_size,
        sampler=loader.sampler,
        drop_last=loader.drop_last,
        generator=loader.generator,
        pin_memory=loader.pin_memory and isinstance(dataset, Samples),
        collate_fn=_as_it_is,
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def _plain(data: Any) -> bool:
    """Whether it is a loader that only reads samples by their numbers and stacks them."""
    return (
        type(data) is DataLoader
        and data.num_workers == 0  # a file that is opened here is none for processes of a loader
        and data.batch_size is not None
        and data.collate_fn is default_collate
        and type(data.batch_sampler) is BatchSampler
        and type(data.sampler) in _SAMPLERS
        and not isinstance(data.dataset, (IterableDataset, Samples))
        and all(map(_reads_by_number, inside(data.dataset)))
    )


def _reads_by_number(part: Any) -> bool:
    return not hasattr(part, "set_epoch") and (
        type(part) is Subset or not hasattr(part, "__getitems__")
    )


def _columns(dataset: Any) -> Any:
    """All samples as tensors; None where they may be others next time, or are too many."""
    parts, count, began = inside(dataset), len(dataset), time.monotonic()
    if generators(parts):
        return None
    numbers = _numbers(parts)
    chunks: list[Any] = []
    for index, batch in _read(dataset, range(count), 0):
        if batch is None or _too_slow(began, index[-1] + 1, count):
            return None
        chunks.append(batch)
        if _bytes(batch) * count > KEPT_BYTES * len(index):
            return None
    columns = _joined(chunks)
    found = Samples(columns, count)
    for index, batch in _read(dataset, range(count)[::-1], 1):
        if batch is None or _too_slow(began, 2 * count - index[-1], count):
            return None
        pairs = zip(_tensors(batch), _tensors(found.__getitems__(index)), strict=True)
        if not all(same(*pair) for pair in pairs):
            return None
    return columns if _numbers(parts) == numbers else None


def _too_slow(began: float, read: int, count: int) -> bool:
    """Whether two readings of so many samples take too long, by those of this second or more."""
    elapsed = time.monotonic() - began
    return elapsed > READ_SECONDS / 10 and elapsed * 2 * count > READ_SECONDS * read


def _read(dataset: Any, order: range, seed: int) -> Iterator[tuple[range, Any]]:
    """Numbers of samples, and their batch; None for one that drew random numbers."""
    for start in range(0, len(order), READ_AT_ONCE):
        index = order[start : start + READ_AT_ONCE]
        with host_seeded(seed):
            before = _drawn()
            batch = default_collate([dataset[i] for i in index])
            drew = _drawn() != before
        yield index, None if drew or not all(map(_plain_tensor, _tensors(batch))) else batch


def _drawn() -> tuple[Any, ...]:
    """What is another when random numbers were drawn on the CPU."""
    return *host_states(), torch.get_rng_state().numpy().tobytes()


def _numbers(parts: Sequence[Any]) -> list[dict[str, float]]:
    """What they count: the numbers that they have as attributes."""
    return [
        {k: v for k, v in getattr(part, "__dict__", {}).items() if isinstance(v, (int, float))}
        for part in parts
    ]


def _tensors(value: Any) -> list[Any]:
    """What is in tuples, lists and dicts, one after the other."""
    parts = parts_of(value)
    return [leaf for part in parts for leaf in _tensors(part)] if parts else [value]


def _plain_tensor(value: Any) -> bool:
    """Whether rows of it can be taken and are the same as before."""
    return (
        type(value) is Tensor
        and value.device.type == "cpu"
        and value.layout is torch.strided
        and not value.requires_grad
    )


def _bytes(batch: Any) -> int:
    return sum(tensor.nbytes for tensor in _tensors(batch))


def _each(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A tensor, or those in tuples, lists and dicts, changed."""
    parts = parts_of(value)
    return like(value, [_each(part, change) for part in parts]) if parts else change(value)


def _joined(chunks: Sequence[Any]) -> Any:
    """The rows of all, one behind the other."""
    columns = zip(*map(parts_of, chunks), strict=True)
    parts = [_joined(column) for column in columns]
    return like(chunks[0], parts) if parts else torch.cat(list(chunks))
