"""Samples of a Dataset that are read once, and those that are not."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    Subset,
    WeightedRandomSampler,
)

from lrsearch.config import StudyConfig
from lrsearch.measured import EpochResult
from lrsearch.schedules import Schedule
from lrsearch.search.plan import make_plan
from lrsearch.tasks import Task
from lrsearch.tasks.kept import KeptSplit, SampleList, Samples, kept, with_samples_kept
from lrsearch.training.ensemble import EnsembleRunner
from lrsearch.training.loop import SingleRunner
from lrsearch.training.stacked import why_not_fused

X = torch.randn(90, 5, generator=torch.Generator().manual_seed(0))
OWN = np.random.default_rng()


class Rows(Dataset[Any]):
    """Rows and labels; counts how often one is read, in a dict, which is no number of its own."""

    def __init__(self, give: Callable[[int], Any] = lambda i: (X[i], i % 3)) -> None:
        self.give = give
        self.reads = {"count": 0}

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, i: int) -> Any:
        self.reads["count"] += 1
        return self.give(i)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))

    def forward(self, x: Any) -> Any:
        x = x["a"][0] if isinstance(x, dict) else x
        return self.body(x.float())


class Plain(nn.Linear):
    """Without random numbers, so that trials can be fused."""

    def __init__(self) -> None:
        super().__init__(5, 3)


class Changing(Model):
    """Changes what it is given, which is a copy where a loader gives it."""

    def forward(self, x: Any) -> Any:
        return super().forward(x.mul_(2))


SETTINGS: dict[str, Any] = {
    "optimizer": "SGD",
    "optimizer_args": {},
    "seed": 3,
    "device": torch.device("cpu"),
}


def history(task: Task, fuse: int = 1) -> list[EpochResult]:
    torch.manual_seed(0)
    runner: Any = SingleRunner(task, **SETTINGS)
    if fuse > 1:
        runner = EnsembleRunner(task, k=fuse, **SETTINGS)
    runner.add(0, Schedule("OneCycleLR", lr=0.1, epochs=3))
    return [dataclasses.replace(runner.epoch()[0], seconds=0) for _ in range(3)]


def assert_close(ours: list[EpochResult], theirs: list[EpochResult]) -> None:
    """Equal histories, to float tolerance."""
    for one, other in zip(ours, theirs, strict=True):
        for key, value in vars(other).items():
            assert vars(one)[key] == pytest.approx(value, rel=2e-4), key


LOADERS: dict[str, Callable[[Rows], Any]] = {
    "shuffled": lambda data: DataLoader(data, 16, shuffle=True),
    "whole batches": lambda data: DataLoader(data, 16, shuffle=True, drop_last=True),
    "in order": lambda data: DataLoader(data, 16),
    "own generator": lambda data: DataLoader(
        data, 16, shuffle=True, generator=torch.Generator().manual_seed(1)
    ),
    "weighted": lambda data: DataLoader(
        data, 16, sampler=WeightedRandomSampler([1.0, 2.0] * 45, 40)
    ),
    "part": lambda data: DataLoader(Subset(data, [5, 1, 70, 3]), 2, shuffle=True),
    "two": lambda data: DataLoader(ConcatDataset([data, data]), 16, shuffle=True),
}
SAMPLES: dict[str, Callable[[int], Any]] = {
    "tensor and number": lambda i: (X[i], i % 3),
    "arrays": lambda i: (X[i].numpy(), np.int64(i % 3)),
    "floats": lambda i: (X[i].double(), i % 3),
    "dict": lambda i: ({"a": (X[i], i), "b": float(i)}, torch.tensor(i % 3)),
}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("samples", SAMPLES)
def test_samples_without_chance_are_read_twice_and_train_alike(loader: str, samples: str) -> None:
    data = Rows(SAMPLES[samples])
    task = Task("t", Model, LOADERS[loader](data), DataLoader(Rows(SAMPLES[samples]), 32))
    mine = with_samples_kept(task)
    reads = data.reads["count"]
    assert reads <= 4 * len(X)
    found = history(mine)
    assert data.reads["count"] == reads
    assert found == history(task)


class Counting(Rows):
    """Gives something else only after long."""

    calls = 0

    def __getitem__(self, i: int) -> Any:
        self.calls += 1
        return super().__getitem__(i)


class Stepping(Rows):
    def set_epoch(self, epoch: int) -> None:
        pass


class Together(Rows):
    def __getitems__(self, index: list[int]) -> list[Any]:
        return [self[i] for i in index]


class Drawing(Rows):
    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(0)  # it might draw by it later


def raises(i: int) -> Any:
    raise RuntimeError("no such file")


CHANGING = itertools.count()
LEFT: dict[str, Any] = {
    "torch": Rows(lambda i: (X[i] + torch.rand(()), 0)),
    "numpy": Rows(lambda i: (X[i] + np.random.normal(), 0)),
    "Python": Rows(lambda i: (X[i] + random.random(), 0)),
    "drawn, and hardly ever used": Rows(lambda i: (X[i] if random.random() < 2 else -X[i], 0)),
    "a generator somewhere": Rows(lambda i: (X[i] + OWN.normal(), 0)),
    "a generator of its own": Drawing(),
    "other each time": Rows(lambda i: (X[i], next(CHANGING))),
    "counts": Counting(),
    "is told the epoch": Stepping(),
    "reads many at once": Together(),
    "object": Rows(lambda i: (SimpleNamespace(x=X[i]), 0)),
    "objects": Rows(lambda i: (np.array([{}]), 0)),
    "learns": Rows(lambda i: (X[i].clone().requires_grad_(), 0)),
    "raises": Rows(raises),
}


@pytest.mark.parametrize("kind", LEFT)
def test_what_may_be_another_next_time_is_read_anew(kind: str) -> None:
    loader = DataLoader(LEFT[kind], 16, shuffle=True)
    assert kept(loader) is loader


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(Rows(), 16, sampler=DistributedSampler(Rows(), num_replicas=1, rank=0)),
        DataLoader(Rows(), batch_size=None),
        DataLoader(Rows(), 16, num_workers=1),
        [(X, X)],
    ],
    ids=["sampler", "no batches", "workers", "no loader"],
)
def test_loaders_that_do_more_stay(loader: Any) -> None:
    assert kept(loader) is loader


def test_much_or_slow_data_are_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Rows()
    loader = DataLoader(data, 16)
    with monkeypatch.context() as patch:
        patch.setattr("lrsearch.tasks.reading.KEPT_BYTES", 90 * 5 * 4)  # with nothing beside them
        assert kept(loader) is loader
        assert data.reads["count"] == 64
    monkeypatch.setattr("lrsearch.tasks.reading.READ_SECONDS", 0.0)
    assert kept(loader) is loader


def test_what_is_drawn_around_the_reading_stays_as_it_was() -> None:
    torch.manual_seed(0)
    kept(DataLoader(Rows(), 16))
    drawn = torch.rand(2)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(2))


def padded(batch: list[Any]) -> tuple[Any, Any]:
    """Changes the samples, and draws random numbers."""
    for x, _ in batch:
        x.add_(torch.rand(()))
    xs = nn.utils.rnn.pad_sequence([x for x, _ in batch], batch_first=True)
    return nn.functional.pad(xs, (0, 5 - xs.shape[1])), torch.tensor(
        [y["label"] for _, y in batch]
    )


def popped(batch: list[Any]) -> tuple[Any, Any]:
    """Takes what it has used out of the samples."""
    y = torch.tensor([sample.pop("label") for sample in batch])
    return torch.stack([torch.from_numpy(sample["x"]) for sample in batch]), y


@pytest.mark.parametrize(
    ("give", "collate"),
    [
        (lambda i: (X[i, : 1 + i % 4].clone(), {"label": i % 3, "name": "a"}), padded),
        (lambda i: {"x": X[i].numpy(), "label": i % 3, "nan": float("nan")}, popped),
        (lambda i: (X[i], i % 3 if i % 2 else float(i % 3)), None),
    ],
    ids=["own collate", "a collate that takes out", "mixed types"],
)
def test_samples_that_are_put_together_otherwise_are_kept_one_by_one(
    give: Callable[[int], Any], collate: Any
) -> None:
    data = Rows(give)
    loader = DataLoader(data, 16, shuffle=True, collate_fn=collate)
    task = Task("t", Model, loader, loader, loss=squared)
    mine = with_samples_kept(task)
    assert isinstance(mine.train, DataLoader)
    assert isinstance(mine.train.dataset, SampleList)
    reads = data.reads["count"]
    found = history(mine)
    assert data.reads["count"] == reads
    assert found == history(task)


def squared(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return ((outputs.mean(1) - y) ** 2).mean()


def test_a_model_may_change_a_batch_of_kept_samples() -> None:
    mine = kept(DataLoader(Rows(), 16))
    first = next(iter(mine))[0]
    before = first.clone()
    first.zero_()
    assert torch.equal(next(iter(mine))[0], before)


PAIRS = ("shuffled", "whole batches", "in order", "own generator", "part")
"""Loaders that give every sample once."""


@pytest.mark.parametrize("loader", PAIRS)
def test_kept_pairs_of_tensors_are_fused_and_train_alike(loader: str) -> None:
    task = Task("t", Plain, LOADERS[loader](Rows()), DataLoader(Rows(), 32))
    mine = with_samples_kept(task)
    assert why_not_fused(mine, "SGD") is None
    expected = history(task)
    assert history(mine) == expected
    assert_close(history(mine, fuse=2), expected)


class Gaussian(nn.Module):
    """Adds normal noise in training, which is no dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x + 0.1 * torch.randn_like(x) if self.training else x)
        return out


@pytest.mark.parametrize("model", [Model, Gaussian])
def test_a_model_that_draws_from_the_random_numbers_of_its_loader_trains_fused_as_alone(
    model: Callable[[], nn.Module],
) -> None:
    task = Task("t", model, DataLoader(Rows(), 16, shuffle=True), DataLoader(Rows(), 16))
    mine = with_samples_kept(task)
    assert isinstance(mine.train, KeptSplit)
    assert why_not_fused(mine, "SGD") is None
    expected = history(task)
    assert history(mine) == expected
    assert_close(history(mine, fuse=2), expected)


@pytest.mark.parametrize(
    "given",
    [
        {"model": Changing},
        {"transform": lambda x: x - x.mean()},
        {"train": LOADERS["weighted"](Rows())},
        {"validation": DataLoader(Rows(), 16, drop_last=True)},
        {"validation": DataLoader(Rows(), 16, shuffle=True)},
    ],
    ids=["a model that changes it", "transform", "weighted", "a part", "validation shuffled"],
)
def test_kept_samples_stay_in_a_loader_where_tensors_would_train_otherwise(given: Any) -> None:
    loaders = {"train": DataLoader(Rows(), 16, shuffle=True), "validation": DataLoader(Rows(), 16)}
    task = Task("t", **{"model": Model, **loaders, **given})
    mine = with_samples_kept(task)
    assert isinstance(mine.train, DataLoader)
    assert isinstance(mine.train.dataset, Samples)
    assert history(mine) == history(task)


def test_a_plan_keeps_the_samples(tmp_path: Any) -> None:
    parts = {"train": DataLoader(Rows(), 16, shuffle=True), "validation": Rows()}
    config = StudyConfig(task="t", trials=8, epochs=4, storage=f"sqlite:///{tmp_path / 'a.db'}")
    task = make_plan(config, {"model": Model, **parts}).task
    assert isinstance(task.train, KeptSplit)
    assert isinstance(task.validation, KeptSplit)
    assert (task.steps_per_epoch, task.describe().split(", ")[1]) == (
        6,
        "90 train / 90 validation samples",
    )
