"""Samples of a user's own Dataset, kept in memory where nothing about them is random."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
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
from lrsearch.tasks.data import row_numbers
from lrsearch.tasks.mistakes import CPU
from lrsearch.tasks.passes import begin, inside
from lrsearch.tasks.reading import copied, form, leaves, read_twice
from lrsearch.tasks.task import Split, Task

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


class SampleList(Dataset[Any]):
    """The samples of a Dataset, one by one: copies of them, which a ``collate_fn`` may change."""

    def __init__(self, samples: Sequence[Any]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> Any:
        return copied(self.samples[i])


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
        samples = read_twice(data.dataset)
    except Exception:  # noqa: BLE001 - the user's code may raise anything, also later on
        return data
    if not samples:
        return data
    if data.collate_fn is default_collate and len(set(map(form, samples))) == 1:
        columns = default_collate(samples)
        if all(isinstance(part, Tensor) for part in leaves(columns)):  # and no texts
            return _like(data, Samples(columns, len(samples)), _as_it_is)
    return _like(data, SampleList(samples), data.collate_fn)


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
    return KeptSplit(x, y, _like(data, Numbers(count), _as_it_is))


def _like(
    loader: DataLoader[Any], dataset: Dataset[Any], collate: Callable[[Any], Any]
) -> DataLoader[Any]:
    """A loader that draws the same numbers of samples, and has others."""
    return DataLoader(
        dataset,
        batch_size=loader.batch_size,
        sampler=loader.sampler,
        drop_last=loader.drop_last,
        generator=loader.generator,
        pin_memory=loader.pin_memory and not isinstance(dataset, Numbers),
        collate_fn=collate,
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def _plain(data: Any) -> bool:
    """Whether it is a loader that only reads samples by their numbers, and puts them together."""
    return (
        type(data) is DataLoader
        and data.num_workers == 0  # a file that is opened here is none for processes of a loader
        and data.batch_size is not None
        and type(data.batch_sampler) is BatchSampler
        and type(data.sampler) in _SAMPLERS
        and not isinstance(data.dataset, (IterableDataset, Samples, SampleList))
        and all(map(_reads_by_number, inside(data.dataset)))
    )


def _reads_by_number(part: Any) -> bool:
    return not hasattr(part, "set_epoch") and (
        type(part) is Subset or not hasattr(part, "__getitems__")
    )


def _each(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A tensor, or those in tuples, lists and dicts, changed."""
    parts = parts_of(value)
    return like(value, [_each(part, change) for part in parts]) if parts else change(value)
