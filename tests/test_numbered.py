"""Inputs of several tensors train as those of a loader do, and fused as alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lrsearch.tasks import Task
from lrsearch.tasks import numbered as module
from lrsearch.tasks.custom import as_task
from lrsearch.tasks.kept import KeptSplit, with_samples_kept
from lrsearch.training.stacked import why_not_fused
from tests.test_kept import Rows, X, assert_close, history

KINDS = torch.arange(90) % 4
Y = (X[:, 0] > KINDS / 4).long()


class Mixed(nn.Module):
    """Numbers and a kind, from a dict, a tuple or a list."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.kinds = nn.Embedding(4, 3)
        self.top = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 2))

    def forward(self, given: Any) -> Any:
        if isinstance(given, dict):
            given = given["numbers"], given["more"]["kind"]
        numbers, kind = given
        return self.top(torch.cat([numbers, self.kinds(kind)], 1))


class Changing(Mixed):
    """Changes what a loader gives it, which are copies."""

    def forward(self, given: Any) -> Any:
        given[0].mul_(2)
        return super().forward(given)


class Calling(Mixed):
    """Calls itself with one of its inputs."""

    def forward(self, given: Any) -> Any:
        if isinstance(given, Tensor):
            return F.one_hot(given, 4)[:, :2].float()
        return super().forward(given) + self(given[1])


class Wrapping(Mixed):
    """Takes one tensor for a pair of which one is missing, before ``forward`` sees it."""

    def __call__(self, given: Any) -> Any:
        return super().__call__((given, None) if isinstance(given, Tensor) else given)

    def forward(self, given: Any) -> Any:
        numbers, kind = given
        if kind is None:
            numbers, kind = X[numbers], KINDS[numbers] * 0
        return super().forward((numbers, kind))


class Pair(NamedTuple):
    numbers: Tensor
    kind: Tensor


def dicts(i: int) -> Any:
    return {"numbers": X[i], "more": {"kind": KINDS[i]}}, int(Y[i])


def pairs(i: int) -> Any:
    return (X[i], KINDS[i]), int(Y[i])


def loaded(give: Callable[[int], Any], **order: Any) -> dict[str, Any]:
    order = order or {"shuffle": True}
    return {
        "train": DataLoader(Rows(give), 16, **order),
        "validation": DataLoader(Rows(give), 32),
    }


def columns(x: Any, **more: Any) -> dict[str, Any]:
    return {"train": (x, Y), "validation": (x, Y), "batch_size": 16, **more}


DATA: dict[str, Callable[[], dict[str, Any]]] = {
    "samples of dicts": lambda: loaded(dicts),
    "samples of pairs": lambda: loaded(pairs),
    "in order": lambda: loaded(pairs, shuffle=False),
    "whole batches": lambda: loaded(pairs, shuffle=True, drop_last=True),
    "own generator": lambda: loaded(
        dicts, shuffle=True, generator=torch.Generator().manual_seed(1)
    ),
    "a dict of tensors": lambda: columns({"numbers": X, "more": KINDS}, model=Flat),
    "a tuple of tensors": lambda: columns((X, KINDS)),
    "a named tuple": lambda: columns(Pair(X, KINDS)),
    "whole batches of tensors": lambda: columns((X, KINDS), drop_last=True),
}


class Flat(Mixed):
    def forward(self, given: Any) -> Any:
        return super().forward((given["numbers"], given["more"]))


def task_of(data: dict[str, Any], **more: Any) -> Task:
    return as_task({"model": Mixed, **data, **more}, "t")


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("data", DATA)
def test_inputs_of_several_tensors_train_as_from_a_loader_and_fused(
    data: str, dropout: float
) -> None:
    given = DATA[data]()
    model = given.get("model", Mixed)
    task = task_of({**given, "model": lambda: model(dropout)})
    assert isinstance(task.train, DataLoader)
    mine = with_samples_kept(task)
    assert isinstance(mine.train, KeptSplit)
    assert mine.steps_per_epoch == task.steps_per_epoch
    expected = history(task)
    assert history(mine) == expected
    assert why_not_fused(mine, "SGD") is None
    assert_close(history(mine, fuse=2), expected)


@pytest.mark.parametrize("model", [Changing, Calling])
def test_a_model_may_change_its_inputs_and_call_itself(model: type[nn.Module]) -> None:
    task = task_of(columns((X, KINDS)), model=model)
    mine = with_samples_kept(task)
    assert isinstance(mine.train, KeptSplit)
    for _ in range(2):
        assert history(mine) == history(task)


def hooked() -> nn.Module:
    model = Mixed()
    model.register_forward_pre_hook(lambda m, x: None)
    return model


def other_kind() -> dict[str, Any]:
    given = columns((X, KINDS))
    return {**given, "validation": ((X, KINDS.int()), Y)}


@pytest.mark.parametrize(
    "given",
    [
        {**columns((X, KINDS)), "model": hooked},
        {**columns((X, KINDS)), "model": Wrapping},
        {**columns((X, KINDS)), "transform": lambda x: x},
        other_kind(),
    ],
    ids=[
        "hooks see the inputs",
        "takes a tensor, too",
        "a transform",
        "another type in validation",
    ],
)
def test_a_loader_stays_where_a_model_would_see_something_else(given: dict[str, Any]) -> None:
    task = task_of(given)
    mine = with_samples_kept(task)
    assert isinstance(mine.train, DataLoader)
    assert history(mine) == history(task)


def test_a_loader_stays_where_all_batches_may_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", X.nbytes)
    assert isinstance(with_samples_kept(task_of(columns((X, KINDS)))).train, DataLoader)


def test_weights_have_their_names_and_copies_share_the_samples() -> None:
    mine = with_samples_kept(task_of(columns((X, KINDS))))
    model = mine.model()
    assert type(model) is Mixed
    assert model.state_dict().keys() == Mixed().state_dict().keys()
    numbers = torch.tensor([3, 1])
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.top[3].bias += 1
    assert torch.allclose(other(numbers), model(numbers) + 1)
    assert torch.equal(model(numbers), model((X[numbers], KINDS[numbers])))
    assert other.forward.func.__self__ is model.forward.func.__self__  # type: ignore[attr-defined]


def test_a_lone_tensor_of_test_data_is_no_number_of_a_sample() -> None:
    class Either(Mixed):
        def forward(self, given: Any) -> Any:
            return super().forward(
                given if isinstance(given, tuple) else (given[:, 1:], given[:, 0])
            )

    mine = with_samples_kept(task_of(columns((X, KINDS)), model=Either))
    assert isinstance(mine.train, KeptSplit)
    model = mine.model()
    lone = torch.cat([KINDS[:, None], torch.ones(90, 5, dtype=torch.int64)], 1)
    given = (torch.ones(90, 5, dtype=torch.int64), KINDS)
    model.top.double()
    model.kinds.double()
    assert torch.equal(model(lone), model(given))


def test_images_are_looked_up_from_one_place() -> None:
    images = torch.randn(6, 3, 4, 4).to(memory_format=torch.channels_last)
    found = module.numbered((images, torch.arange(6)), (images, torch.arange(6)))
    assert found is not None
    inputs, first, second = found
    for numbers in (first, second):
        assert torch.equal(inputs(numbers)[0], images)
    assert all(column.is_contiguous() for column in inputs._columns)
