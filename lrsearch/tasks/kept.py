"""Samples of a user's own Dataset, kept in memory where nothing about them is random."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from lrsearch.tasks.batch import parts_of
from lrsearch.tasks.check import check
from lrsearch.tasks.data import Columns, row_numbers
from lrsearch.tasks.mistakes import CPU
from lrsearch.tasks.numbered import numbered
from lrsearch.tasks.passes import begin, inside
from lrsearch.tasks.reading import copied, form, leaves, mapped, read_twice
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
        return mapped(self.columns, lambda column: column.index_select(0, rows))


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they were shown when the loaders were checked
        tensors = _as_tensors(task, device)
        if tensors is None:
            return task
        try:
            check(tensors, device)
        except LrsearchError:  # of a loader a model may change the batches
            return task
    return tensors


def _as_tensors(task: Task, device: torch.device) -> Task | None:
    """The task with inputs and targets of one tensor each, in the order of its loaders."""
    train, validation = _pairs(task.train), _pairs(task.validation)
    if task.transform is not None or task.augment is not None or not train or not validation:
        return None
    (x, y, loader), (x_after, y_after, loader_after) = train, validation
    if type(loader_after.sampler) is not SequentialSampler or loader_after.drop_last:
        return None
    model = task.model
    if not isinstance(x, Tensor) or not isinstance(x_after, Tensor):
        found = numbered(x, x_after)
        if found is None:
            return None
        inputs, x, x_after = found
        try:
            serves = inputs.serve(task.model, device)
        except Exception:  # noqa: BLE001 - the user's model may raise anything
            return None
        if not serves:
            return None
        model = partial(inputs.read_by, task.model)
    return replace(
        task,
        model=model,
        train=KeptSplit(x, y, loader),
        validation=KeptSplit(x_after, y_after, loader_after),
        batch_size=loader.batch_size or task.batch_size,
        drop_last=loader.drop_last,
    )


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


def _pairs(data: Any) -> tuple[Any, Tensor, DataLoader[Any]] | None:
    """Inputs, targets, and a loader of their numbers, where every sample comes once an epoch."""
    if not isinstance(data, DataLoader):
        return None
    dataset: Any = data.dataset
    batches: DataLoader[Any] | BatchSampler = data
    if isinstance(dataset, Samples):
        parts = parts_of(dataset.columns)
    elif type(dataset) is Columns and type(data.sampler) is BatchSampler:
        parts, batches = [dataset.x, dataset.y], data.sampler
    else:
        return None
    count, sampler = len(dataset), batches.sampler
    if isinstance(sampler, RandomSampler):
        if sampler.replacement or sampler.num_samples != count:
            return None
    elif not isinstance(sampler, SequentialSampler):
        return None
    if len(parts) != 2 or not isinstance(parts[1], Tensor):
        return None
    numbers = DataLoader(
        Numbers(count),
        batch_size=batches.batch_size,
        sampler=sampler,
        drop_last=batches.drop_last,
        generator=data.generator,
        collate_fn=_as_it_is,
    )
    return parts[0], parts[1], numbers


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
        pin_memory=loader.pin_memory,
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
