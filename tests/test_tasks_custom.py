"""A user's own task: every way to give one, and every mistake by its name."""

from __future__ import annotations

import contextlib
import math
import random
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    default_collate,
)

from lrsearch import tasks
from lrsearch.cli import main
from lrsearch.config import make
from lrsearch.errors import LrsearchError, UsageError
from lrsearch.schedules import Schedule
from lrsearch.schedules.code import python_code
from lrsearch.search.beginning import header
from lrsearch.search.plan import make_plan
from lrsearch.tasks import Augment, Split, Task, all_tasks, load_task
from lrsearch.tasks.check import check
from lrsearch.tasks.custom import as_task
from lrsearch.tasks.data import as_data
from lrsearch.tasks.mistakes import here_or_there
from lrsearch.tasks.task import accuracy
from lrsearch.training.batches import training_batches
from lrsearch.training.ensemble import EnsembleRunner
from lrsearch.training.loop import SingleRunner

HEAD = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from lrsearch import Split, Task

generator = torch.Generator().manual_seed(0)
x = torch.randn(80, 4, generator=generator)
y = (x.sum(1) > 0).long()
"""

FORMS = {
    "task": "mine = Task('name', lambda: nn.Linear(4, 2), Split(x, y), Split(x, y))",
    "function of a task": """
def mine():
    return Task("name", lambda: nn.Linear(4, 2), (x, y), (x, y))
""",
    "function of a dict": """
def mine():
    return dict(name="name", model=lambda: nn.Linear(4, 2), train=(x, y), validation=(x, y))
""",
    "class with attributes": """
class mine:
    name = "name"
    train = x, y
    validation = x.numpy(), y.numpy()

    @staticmethod
    def model():
        return nn.Linear(4, 2)
""",
    "class with bare functions": """
class mine:
    name = "name"
    train = x, y
    validation = x, y
    optimizer = torch.optim.Adam

    def model():
        return nn.Linear(4, 2)
""",
    "class with properties": """
class mine:
    name = "name"

    def __init__(self):
        self.train = TensorDataset(x, y)
        self.validation = TensorDataset(x, y)

    def model(self):
        return nn.Linear(4, 2)
""",
    "namespace": """
from types import SimpleNamespace
mine = SimpleNamespace(name="name", model=lambda: nn.Linear(4, 2), train=DataLoader(
    TensorDataset(x, y), batch_size=64, shuffle=True, drop_last=True),
    validation=DataLoader(TensorDataset(x, y)))
""",
}


@pytest.fixture(autouse=True)
def clean_imports() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith(("lrsearch_task_", "my_")):
            del sys.modules[name]


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_a_task_is_the_same_task(in_tmp: Path, form: str) -> None:
    Path("my_file.py").write_text(HEAD + FORMS[form])
    task = load_task("my_file.py:mine")
    assert (task.name, task.batch_size, task.steps_per_epoch) == ("name", 64, 1)
    assert isinstance(task.train, Split)
    assert isinstance(task.validation, Split)
    assert task.metric is accuracy
    assert task.parameters == 10
    assert load_task("my_file:mine", batch_size=16).steps_per_epoch == 5
    assert len(load_task("my_file.py:mine", train_samples=20).train) == 20  # type: ignore[arg-type]


def test_a_file_is_found_in_a_folder_with_a_colon_in_its_name(in_tmp: Path) -> None:
    Path("10:20").mkdir()
    Path("10:20/my_file.py").write_text(HEAD + FORMS["task"])
    assert load_task("10:20/my_file.py:mine").name == "name"
    code = python_code(Schedule("ConstantLR", 0.1, 3), {"name": "10:20/my_file.py:Own"})
    assert "# optimizer = Own(model.parameters(), lr=0.1)" in code


def test_a_module_in_a_package_and_a_name_inside_a_class_are_found(in_tmp: Path) -> None:
    Path("my_package").mkdir()
    Path("my_package/__init__.py").write_text("")
    body = FORMS["task"].replace("mine", "    mine")
    Path("my_package/tasks.py").write_text(HEAD + "class Group:\n" + body)
    assert load_task("my_package.tasks:Group.mine").name == "name"


def test_an_entry_point_is_listed_and_loaded(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("my_file.py").write_text(HEAD + FORMS["task"])
    point = EntryPoint("segmentation", "my_file:mine", "lrsearch.tasks")
    monkeypatch.setattr(tasks, "entry_points", lambda group: [point])
    assert all_tasks()["segmentation"].summary == "from my_file"
    assert list(all_tasks())[: len(tasks.TASKS)] == list(tasks.TASKS)
    assert load_task("segmentation").name == "name"
    with pytest.raises(UsageError, match="did you mean segmentation"):
        load_task("segmentatio")


def test_a_regression_gets_squared_error_and_no_metric() -> None:
    x = torch.randn(20, 3)
    task = as_task({"model": lambda: nn.Linear(3, 1), "train": (x, x[:, :1]),
                    "validation": (x, x[:, :1])}, "r")  # fmt: skip
    check(task)
    assert task.loss is nn.functional.mse_loss
    assert (task.metric, task.name, task.model_name) == (None, "r", "model")


def loss(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Its name says nothing."""
    return (z - y).abs().mean()


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        ({}, "mse_loss"),  # also of targets of 0 and 1 for several labels
        ({"loss": nn.BCEWithLogitsLoss()}, "BCEWithLogitsLoss"),
        ({"loss": lambda z, y: (z - y).square().mean()}, "of its own"),
        ({"loss": nn.BCEWithLogitsLoss().__call__}, "BCEWithLogitsLoss"),
        ({"validation_loss": nn.functional.l1_loss}, "l1_loss"),
        ({"loss": loss}, "of its own"),
    ],
)
def test_a_run_says_by_which_loss_it_judges(losses: dict[str, Any], told: str) -> None:
    data = X, torch.ones(40, 2)
    task = {"model": lambda: nn.Linear(4, 2), "train": data, "validation": data, **losses}
    config = make({"task": "labels", "trials": 4, "epochs": 4, "fuse": "off"})
    assert f"loss {told}, optimizer SGD" in header(make_plan(config, task), config)[2]


def test_the_test_part_is_loaded_when_asked_for() -> None:
    x, y = torch.randn(20, 3), torch.zeros(20).long()
    calls = []

    def load() -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(1)
        return x, y

    parts = {"model": lambda: nn.Linear(3, 2), "train": (x, y), "validation": (x, y)}
    task = as_task({**parts, "test": load}, "t")
    assert calls == []
    assert task.test is not None
    assert isinstance(task.test(), Split)
    assert calls == [1]
    direct = as_task({**parts, "test": (x, y)}, "t")
    assert direct.test is not None
    assert isinstance(direct.test(), Split)


class Pairs(Dataset[tuple[torch.Tensor, int]]):
    def __init__(self, count: int = 50) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((4,), float(index)), index % 2


def test_datasets_become_loaders_and_loaders_stay() -> None:
    parts: dict[str, Any] = {"model": lambda: nn.Linear(4, 2), "validation": Pairs(10)}
    task = as_task({**parts, "train": Pairs(), "batch_size": 8}, "t")
    assert isinstance(task.train, DataLoader)
    assert task.steps_per_epoch == 6
    whole = as_task({**parts, "train": Pairs(), "batch_size": 8, "drop_last": False}, "t")
    assert whole.steps_per_epoch == 7
    check(task)
    loader = DataLoader(Pairs(), batch_size=5, shuffle=True)
    task = as_task({**parts, "train": loader}, "t")
    assert task.train is loader
    assert (task.batch_size, task.steps_per_epoch) == (5, 10)
    with pytest.raises(UsageError, match="--batch-size works on tensors"):
        tasks.tried(as_task({**parts, "train": loader}, "own"), batch_size=3)
    with pytest.raises(UsageError, match="--train-samples works on tensors"):
        tasks.tried(as_task({**parts, "train": loader}, "own"), train_samples=3)


class Doubled(TensorDataset):
    """Changes what it gives."""

    def __getitem__(self, index: Any) -> Any:
        x, y = super().__getitem__(index)
        return 2 * x, y


@pytest.mark.parametrize("kind", ["tuple", "dict"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_tuples_and_dicts_of_tensors_are_cut_alike(kind: str, shuffle: bool) -> None:
    number = torch.arange(40.0)
    several: Any = (number[:, None], -number.numpy())
    several = several if kind == "tuple" else dict(zip("ab", several, strict=True))
    for data in ((several, number), (number, several)):
        loader, size = as_data(data, "train", 16, shuffle=shuffle, drop_last=True)
        assert isinstance(loader, DataLoader)
        assert (len(loader), size) == (2, 16)
        seen = []
        for batch in loader:
            whole, parts = batch if data[0] is number else batch[::-1]
            a, b = parts.values() if kind == "dict" else parts
            assert a.shape == (16, 1)
            torch.testing.assert_close((a[:, 0], -b), (whole, whole))
            seen += whole.tolist()
        assert len({*seen}) == 32
        assert (seen != sorted(seen)) == shuffle


def test_two_batches_are_no_pair_of_tuples() -> None:
    batches = (X[:8], Y[:8]), (X[8:16], Y[8:16])
    assert as_task({**GOOD, "train": batches}, "t").train is batches


def test_a_model_of_two_inputs_takes_a_tuple_of_tensors() -> None:
    class Pair(nn.Linear):
        def forward(self, parts: Any) -> torch.Tensor:
            return super().forward(parts[0] - parts[1])

    data = dict.fromkeys(("train", "validation"), ((X, -X), Y))
    task = as_task({**GOOD, **data, "model": lambda: Pair(4, 2), "batch_size": 8}, "t")
    check(task)
    assert task.describe().endswith("40 train / 40 validation samples")


def test_parts_of_tensors_are_tensors_and_datasets_that_change_them_stay() -> None:
    given = {"model": lambda: nn.Linear(4, 2), "validation": (X, Y)}
    part = Subset(Subset(TensorDataset(X, Y), range(5, 25)), [3, 0, 7])
    for train in (part, DataLoader(part, 2, shuffle=True)):
        task = as_task({**given, "train": train}, "t")
        assert isinstance(task.train, Split)
        assert torch.equal(task.train.x, X[[8, 5, 12]])
        assert torch.equal(task.train.y, Y[[8, 5, 12]])
    assert task.steps_per_epoch == 2
    for dataset in (Doubled(X, Y), Subset(Doubled(X, Y), range(9))):
        assert isinstance(as_task({**given, "train": dataset}, "t").train, DataLoader)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("size", [32, 150, 256, 450, 500])
def test_a_loader_that_becomes_tensors_keeps_its_steps(size: int, drop_last: bool) -> None:
    data = TensorDataset(torch.randn(450, 4), torch.zeros(450).long())
    loader = DataLoader(data, size, shuffle=True, drop_last=drop_last)
    given = {"model": lambda: nn.Linear(4, 2), "train": loader, "validation": data}
    task = as_task({**given, "drop_last": not drop_last}, "t")
    assert isinstance(task.train, Split)
    assert task.steps_per_epoch == max(1, len(loader))
    batches = list(training_batches(task, 0, torch.device("cpu")).epoch(0))
    assert [len(y) for _, y in batches] == [len(y) for _, y in loader] or size == 500
    again = tasks.tried(as_task(task, "own"), batch_size=100)
    assert again.steps_per_epoch == (4 if drop_last else 5)
    assert (
        as_task({**given, "train": (data.tensors), "drop_last": False}, "t").steps_per_epoch == 8
    )


@pytest.mark.parametrize(
    "options",
    [
        {"shuffle": False},
        {"shuffle": True, "collate_fn": lambda rows: torch.utils.data.default_collate(rows)},
        {"sampler": torch.utils.data.RandomSampler(range(20), replacement=True, num_samples=20)},
        {"batch_size": None},
    ],
)
def test_a_loader_that_does_more_than_shuffle_is_kept(options: dict[str, Any]) -> None:
    data = TensorDataset(torch.randn(20, 4), torch.zeros(20).long())
    loader = DataLoader(data, **options)
    task = as_task({"model": lambda: nn.Linear(4, 2), "train": loader, "validation": data}, "t")
    assert task.train is loader


# mistakes

X, Y = torch.randn(40, 4), torch.arange(40) % 2
GOOD: dict[str, Any] = {
    "model": lambda: nn.Linear(4, 2),
    "train": Split(X, Y),
    "validation": Split(X, Y),
}


class Heated(nn.CrossEntropyLoss):
    """With a temperature that shall be learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.heat = nn.Parameter(torch.ones(()))

    def forward(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return super().forward(outputs / self.heat, y)


class Counting(nn.CrossEntropyLoss):
    """Counts its calls, as a weight that grows with the steps does."""

    calls = 0

    def forward(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().forward(outputs, y) * (1 + self.calls / 1000)


def traced() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still met
        module: nn.Module = torch.jit.trace(nn.Linear(4, 2), X[:4])
    return module


class Share:
    """Of hits among all samples so far, as metrics with a state count."""

    def __init__(self) -> None:
        self.hits = self.count = 0

    def __call__(self, outputs: torch.Tensor, y: torch.Tensor) -> float:
        self.hits += int((outputs.argmax(1) == y).sum())
        self.count += len(y)
        return self.hits / self.count


class ShareWithReset(Share):
    reset = Share.__init__


class Latecomer(nn.Linear):
    """Makes a parameter when it sees its first batch."""

    def __init__(self) -> None:
        super().__init__(4, 2)
        self.scale: nn.Parameter | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.scale is None:
            self.scale = nn.Parameter(torch.ones(2))
        return super().forward(x) * self.scale


LOADED = nn.Linear(4, 4)
NORM = nn.BatchNorm1d(4).requires_grad_(False)
DRAWS = np.random.default_rng(0)


class Calls(nn.Linear):
    """Counts for all models together."""

    calls = 0

    def __init__(self) -> None:
        super().__init__(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Calls.calls += 1
        return super().forward(x) * (1 + Calls.calls / 1000)


class Noise(nn.Linear):
    """Draws by a generator that is nobody's."""

    def __init__(self) -> None:
        super().__init__(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + DRAWS.normal()


class OwnNoise(nn.Linear):
    """Draws by a generator of its own that nobody has seeded."""

    def __init__(self) -> None:
        super().__init__(4, 2)
        self.draws = np.random.default_rng()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + self.draws.normal()


class Teacher(nn.Linear):
    """Has one that follows it in a list, so that no optimizer sees it."""

    def __init__(self, follows: bool = True) -> None:
        super().__init__(4, 2)
        self.hidden, self.follows = [nn.Linear(4, 2)], follows

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.follows:
            with torch.no_grad():
                self.hidden[0].weight.lerp_(self.weight, 0.1)
        return super().forward(x) + self.hidden[0](x).detach()


class Shifts(Pairs):
    """Changes what it holds."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.x = X.clone()

    def __getitem__(self, index: int) -> Any:
        row = self.x[index]
        row -= 0.01
        return row, Y[index]


class Harder:
    """Gives other samples in each epoch, which it counts itself."""

    epoch = 0

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Any]:
        self.epoch += 1
        return iter([(X * self.epoch, Y)])


def noisy(batch: Any) -> Any:
    x, y = default_collate(batch)
    return x + DRAWS.normal(), y


def drawn() -> nn.Module:
    layer = nn.Linear(4, 2)
    nn.init.constant_(layer.bias, DRAWS.normal())
    return layer


class NoLength:
    def __iter__(self) -> Iterator[Any]:
        return iter([(X, Y)])


class Stream(IterableDataset[Any]):
    def __init__(self, count: int = 40) -> None:
        self.count = count

    def __iter__(self) -> Iterator[Any]:
        return iter(list(zip(X, Y, strict=True))[: self.count])


class Raises(Dataset[Any]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        raise ValueError("cannot decode image 3")


class Ragged(Dataset[Any]):
    """Samples of one, two and more numbers."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return torch.zeros(1 + i), 0


class TwoInputs(nn.Linear):
    """Wants its inputs one by one."""

    def __init__(self) -> None:
        super().__init__(4, 2)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return super().forward(a + b)


class Slope(nn.Linear):
    """Gives the derivative by its inputs, as networks that solve an equation do."""

    def __init__(self) -> None:
        super().__init__(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(super().forward(x).sin().sum(), x, create_graph=True)
        return slope


class Fixed(nn.Linear):
    """Takes batches of so many samples."""

    def __init__(self, size: int) -> None:
        super().__init__(4, 2)
        self.size = size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.view(self.size, 4))


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "several metrics": (
        {"metric": {"accuracy": lambda outputs, y: 0.5, "f1": lambda outputs, y: 0.4}},
        r"metric must be one function of \(outputs, y\), got a dict of 2; choose one",
    ),
    "an optimizer's argument beside it": (
        {"optimizer": "AdamW", "weight_decay": 0.05},
        "'weight_decay' is an argument of the optimizer; give optimizer_args = .'weight_decay'",
    ),
    "no model": ({"model": None}, "task t has no model: a Task needs model"),
    "no data": ({"train": None, "validation": None}, "has no train and no validation"),
    "unknown key": ({"los": nn.functional.mse_loss}, "unknown key 'los' — did you mean loss"),
    "model already made": ({"model": nn.Linear(4, 2)}, "model is a Linear already made"),
    "model is no function": ({"model": 3}, "model must be a class or a function, got 3"),
    "model makes something else": ({"model": lambda: 3}, "must make a torch.nn.Module, got int"),
    "model raises": ({"model": lambda: nn.Linear(-1, 2)}, "making the model fails: RuntimeError"),
    "lazy modules": (
        {"model": lambda: nn.Sequential(nn.LazyLinear(2))},
        "Sequential has lazy modules, whose parameters are made by the first batch; write",
    ),
    "parameters that are made by the first batch": (
        {"model": Latecomer},
        r"the model Latecomer makes parameters when it runs \(scale\), which the optimizer does",
    ),
    "the same model for each trial": (
        {"model": lambda: nn.Sequential(LOADED, nn.Linear(4, 2))},
        r"two models of Sequential train the same parameters \(0.weight\), so each trial would go "
        r"on from .*; make them in the model function, or copy.deepcopy what is loaded",
    ),
    "the same statistics for each trial": (
        {"model": lambda: nn.Sequential(NORM, nn.Linear(4, 2))},
        r"two models of Sequential share a part that training changes \(0.running_mean\), so each",
    ),
    "initial weights from a generator of its own": (
        {"model": drawn},
        r"two models of Linear begin with other numbers \(bias\) under the same seed, and trials",
    ),
    "a module in a list that training changes": (
        {"model": Teacher},
        r"the model Teacher changes a module that torch does not see \(hidden.weight\), and that "
        "an interruption would lose; make it a plain attribute",
    ),
    "a model that counts for all": (
        {"model": Calls},
        "two models of Calls give other outputs for the same batch under the same seed, so trials",
    ),
    "a model that draws by a generator of nobody": (
        {"model": Noise},
        "two models of Noise give other outputs for the same batch under the same seed, so trials",
    ),
    "a Dataset that changes its samples": (
        {"train": Shifts(20)},
        "train gives other numbers when it is gone through again with the same seed, so trials "
        "would differ .*; change no stored sample in place",
    ),
    "batches of a generator of nobody": (
        {"validation": DataLoader(TensorDataset(X, Y), 8, collate_fn=noisy)},
        "validation gives other numbers when it is gone through again with the same seed, .*; "
        "draw with the functions of torch, numpy or random, or by a generator that is an attr",
    ),
    "data that count their epochs": (
        {"train": Harder()},
        "train gives other numbers when it is .*; and count epochs by set_epoch",
    ),
    "no parameters": ({"model": nn.ReLU}, "ReLU has no trainable parameters"),
    "wrong features": (
        {"model": lambda: nn.Linear(5, 2)},
        r"the model Linear on a train batch \(40, 4\) float32 fails: RuntimeError: .*mat1",
    ),
    "wrong dtype": (
        {"train": Split(X.double(), Y)},
        r"on a train batch \(40, 4\) float64 fails",
    ),
    "validation of another shape": (
        {"validation": Split(torch.randn(9, 7), torch.zeros(9).long())},
        r"on a validation batch \(9, 7\) float32 fails",
    ),
    **{
        f"a fixed number of samples, {size}": (
            {
                "model": lambda size=size: Fixed(size),
                "validation": Split(X[:20], Y[:20]),
                "batch_size": size,
            },
            rf"Fixed on a validation batch \({other}, 4\) float32, which may have any .* fails",
        )
        for size, other in ((1, 2), (2, 3), (3, 2), (10, 3))
    },
    "labels for a regression": (
        {"loss": nn.functional.mse_loss},
        r"loss of outputs \(40, 2\) float32 and targets \(40,\) int64 fails",
    ),
    "silent broadcast": (
        {"model": lambda: nn.Linear(4, 1), "train": Split(X, torch.randn(40))},
        r"targets \(40,\) float32 fails: UserWarning: Using a target size.*size; give the targets "
        r"the shape of the outputs, such as y\[:, None\]",
    ),
    "data of float64": (
        {"train": Split(X.double(), Y)},
        r"batch \(40, 4\) float64 fails: .*; convert the data with \.float\(\)",
    ),
    "images of bytes": (
        {
            "model": lambda: nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(2, 2)),
            "train": Split(torch.zeros(40, 1, 2, 2).byte(), Y),
        },
        r"batch \(40, 1, 2, 2\) uint8 fails: .*; convert the data with \.float\(\)",
    ),
    "labels of int32": (
        {"train": Split(X, Y.int())},
        r"targets \(40,\) int32 fails: .*; convert the targets with \.long\(\)",
    ),
    "sentences of several lengths": (
        {"train": Ragged()},
        "to be equal size.*; give a DataLoader whose collate_fn pads samples to one length",
    ),
    "a model of two inputs": (
        {"model": TwoInputs, "train": [((X, X), Y)]},
        r"'b'; the model is called with x of a batch as it is, also a tuple or dict: let forward "
        "take one argument, and unpack it there",
    ),
    "derivatives where validation has none": (
        {"model": Slope, "loss": lambda z, y: z.square().mean(), "metric": None},
        r"on a validation batch .* does not require grad.*; take derivatives by the inputs in the "
        r"model's forward, of x.detach\(\).requires_grad_\(\) inside torch.enable_grad\(\)",
    ),
    "arrays in batches": (
        {"train": [(X.numpy(), Y.numpy())]},
        r"not numpy.ndarray; give tensors in the batches, torch.as_tensor\(array\)",
    ),
    "flags for targets": (
        {"loss": nn.BCEWithLogitsLoss(), "train": (X, torch.ones(40, 2).bool())},
        r"two bool tensors .*; convert the targets with .float\(\)",
    ),
    "a dict for a model that takes a tensor": (
        {"train": [({"x": X}, Y)]},
        r"must be Tensor, not dict; the model is called with x of a batch as it is, also a tuple",
    ),
    "loss per sample": (
        {"loss": lambda z, y: nn.functional.cross_entropy(z, y, reduction="none")},
        r"loss must be a scalar, got shape \(40,\); take its mean",
    ),
    "loss is a class": (
        {"loss": nn.CrossEntropyLoss},
        r"loss is a class; give an object, CrossEntropyLoss\(\)",
    ),
    "loss is nothing": ({"loss": None}, "a function, got None; leave it out for the usual one"),
    "loss is a word": ({"loss": "mse"}, "loss must be a function, got 'mse'"),
    "loss is a number": (
        {"loss": lambda z, y: 1.0},
        "loss must give a scalar tensor, got a float",
    ),
    "loss is not finite": (
        {"train": Split(X / 0, Y)},
        "the first loss is nan; train x holds NaN or infinity: clean the data$",
    ),
    "loss is as large as a diverged one": (
        {"loss": lambda z, y: nn.functional.cross_entropy(z, y) + 3e30},
        r"the first loss is 3e\+30; from 1e\+30 on a loss counts as diverged: scale the targets",
    ),
    "lr is infinite": ({"lr": math.inf}, "lr must be a number above 0, got inf"),
    "optimizer_args is a number": ({"optimizer_args": 3}, "optimizer_args must be a dict such as"),
    "validation is not finite": (
        {"validation": Split(X * math.nan, Y)},
        "the first loss is nan; validation x holds NaN or infinity",
    ),
    "numbers for cross-entropy": (
        {
            "model": lambda: nn.Linear(4, 1),
            "train": DataLoader(TensorDataset(X, X.sum(1, keepdim=True)), batch_size=8),
        },
        r"targets \(8, 1\) float32 are numbers, and the loss is cross-entropy, for classes",
    ),
    "optimizer is a function": (
        {"optimizer": lambda p: torch.optim.SGD(p)},
        "optimizer must be a class such as torch.optim.AdamW, or its name, got <function",
    ),
    "optimizer is an object": (
        {"optimizer": torch.optim.SGD([torch.zeros(1)], lr=0.1)},
        "or its name, got SGD already made; its arguments go to optimizer_args",
    ),
    "groups that cannot be made": (
        {"param_groups": lambda model: model.head},
        "param_groups fails: AttributeError: 'Linear' object has no attribute 'head'",
    ),
    "a parameter in two groups": (
        {"param_groups": lambda model: [{"params": model.parameters()} for _ in range(2)]},
        "optimizer of param_groups fails: ValueError: some parameters appear in more than one",
    ),
    "groups without a rate": (
        {"param_groups": lambda model: [{"params": model.parameters(), "lr": 0.0}]},
        r"param_groups: the optimizer's learning rates must be finite and not all 0, got \[0.0\]",
    ),
    "groups of another model": (
        {"param_groups": lambda model: [{"params": nn.Linear(4, 2).parameters()}]},
        "param_groups gives none of the model's trainable parameters; take them from the model",
    ),
    "batch_size of a Dataset is a word": (
        {"train": Pairs(20), "batch_size": "8"},
        "batch_size must be a whole number, got '8'",
    ),
    "batch_size of a Dataset is nothing": (
        {"train": Pairs(20), "batch_size": 0},
        "batch_size must be at least 1, got 0",
    ),
    "epochs is a word": ({"epochs": "ten"}, "epochs must be a whole number, got 'ten'"),
    "lr is a word": ({"lr": "high"}, "lr must be a number above 0, got 'high'"),
    "lr_range is a number": ({"lr_range": 0.1}, r"lr_range must be \(low, high\), got 0.1"),
    "loss is detached": (
        {"loss": lambda z, y: nn.functional.cross_entropy(z, y).detach()},
        "does not depend on the model's parameters",
    ),
    "labels out of range": (
        {"train": Split(X, torch.arange(40))},
        "fails: IndexError: Target|labels go from 0 to 39, but the model gives 2 classes",
    ),
    "labels out of range later": (
        {"train": Split(X, torch.cat([Y[:-1], torch.tensor([2])])), "batch_size": 8},
        "train labels go from 0 to 2, but the model gives 2 classes",
    ),
    "metric per sample": (
        {"metric": lambda z, y: z.argmax(1) == y},
        r"metric must be a scalar, got shape \(40,\)$",
    ),
    "metric of too few": (
        {"metric": lambda z, y: math.nan},
        r"metric is nan; it is taken of the first batch of validation, \(40,\) int64, and is "
        r"averaged over batches; with validation_loss \(your loss will do\) it sees all samples",
    ),
    "metric raises": (
        {"metric": lambda z, y: z[:, 9]},
        "the metric of outputs .* fails: IndexError",
    ),
    "validation loss per sample": (
        {"validation_loss": lambda z, y: (z[:, 0] - y) ** 2},
        "validation_loss must be a scalar",
    ),
    "a validation loss of batches of several lengths": (
        {
            "model": lambda: nn.Conv1d(1, 1, 1),
            "loss": lambda z, y: z.mean(),
            "validation_loss": lambda z, y: z.mean(),
            "train": Split(torch.zeros(8, 1, 3), torch.zeros(8)),
            "validation": [(torch.zeros(4, 1, n), torch.zeros(4)) for n in (3, 5)],
        },
        r"task t: validation_loss sees .*, and outputs of shapes \(4, 1, 3\) and \(4, 1, 5\) can",
    ),
    "a validation loss of batches of objects": (
        {"validation_loss": lambda z, y: z.mean(), "validation": [(X, {"y": Y}), (X, {"y": 3})]},
        "task t: validation_loss sees .*, and targets of type int cannot be joined; give tensors",
    ),
    "a loss that changes its targets": (
        {
            "train": (X, Y + 1),
            "validation": (X, Y + 1),
            "loss": lambda z, y: nn.functional.cross_entropy(z, y.sub_(1)),
            "batch_size": 20,
        },
        r"the loss or the metric changes its targets in place, .* \(y - 1, not y -= 1\)",
    ),
    "a loss that counts its calls": (
        {"loss": Counting()},
        "the loss gives another value when it is called again with the same outputs: what it "
        r"keeps \(a counter, .*; keep it in the model, which each trial has anew",
    ),
    "a validation loss that counts its calls": (
        {"validation_loss": Counting()},
        "the validation_loss gives another value when it is called again",
    ),
    "a metric that begins with a whole number": (
        {"metric": lambda outputs, y, seen=[]: seen.append(0.5) or sum(seen[1:])},
        "the metric gives another value when it is called again with the same outputs",
    ),
    "a metric that counts on": (
        {"metric": Share()},
        "the metric gives another value when it is called again with the same outputs: what it "
        r"keeps .* from trial to trial; let it begin anew at each call \(where it has a method re",
    ),
    "samples that are no numbers": (
        {"train": [(Path("cat.png"), 0), (Path("dog.png"), 1)]},
        "default_collate: .*; let each sample be tensors, arrays or numbers .images by torch",
    ),
    "empty loader": (
        {"train": DataLoader(TensorDataset(X[:3], Y[:3]), batch_size=8, drop_last=True)},
        "train is empty: its DataLoader gives no batch; has it fewer samples than a batch",
    ),
    "a last batch that batch norm refuses": (
        {
            "model": lambda: nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)),
            "train": DataLoader(TensorDataset(X[:9], Y[:9]), batch_size=4),
        },
        "the last batch of train has one sample .give its DataLoader, or the task, drop_last=True",
    ),
    "a last batch of a loader without tensors": (
        {
            "model": lambda: nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)),
            "train": DataLoader(Pairs(9), batch_size=4),
        },
        "the last batch of train has one sample .give its DataLoader, or the task, drop_last=True",
    ),
    "empty dataset": ({"train": Pairs(0)}, "train is an empty Pairs"),
    "empty tensors": ({"train": (X[:0], Y[:0])}, "train: a split needs at least one sample"),
    "lengths differ": ({"train": (X, Y[:7])}, "one y for each x, got 40 x, 7 y"),
    "triples": (
        {"train": DataLoader(TensorDataset(X, Y, Y))},
        r"train must give batches \(x, y\), got a list of 3; make pairs of them in the Dataset or "
        r"its collate_fn, such as \(\(a, b\), y\), or keep your own loop",
    ),
    "generator": ({"train": iter([(X, Y)])}, "used up after one epoch"),
    "no length": ({"train": NoLength()}, "a NoLength, which has no length; give it __len__"),
    "loader of no length": (
        {"train": DataLoader(Stream(), batch_size=8)},
        r"a DataLoader of Stream, which has no length; give Stream __len__ .samples per ep",
    ),
    "loader of no length that does not batch": (
        {"train": DataLoader(Stream(), batch_size=None)},
        r"a DataLoader of Stream, which has no length; give Stream __len__ .batches per ep",
    ),
    "a stream without a loader": (
        {"train": Stream()},
        r"train is a Stream, an IterableDataset, which does not say whether it gives samples or "
        r"batches; give DataLoader\(..., batch_size=64\), or batch_size=None where they are",
    ),
    "no targets": (
        {"train": DataLoader(TensorDataset(X), 8)},
        r"got a list of 1; where the loss needs no targets, give the inputs for y, too",
    ),
    "None for targets": (
        {"train": (X, None)},
        r"got a Tensor of 40; where the loss needs no targets, give the inputs for y, too",
    ),
    "whole numbers for shares": (
        {"loss": nn.BCEWithLogitsLoss(), "metric": None, "train": (X, torch.ones(40, 2).long())},
        r"desired output type Long; convert the targets with .float\(\)",
    ),
    "outputs that cross-entropy does not know": (
        {"model": lambda: nn.LSTM(4, 2)},
        r"must be Tensor, not tuple; .* give it one, a function of \(outputs, y\)",
    ),
    "two optimizers": (
        {"optimizer": [torch.optim.SGD(nn.Linear(4, 2).parameters(), 0.1), "Adam"]},
        "got a list; one optimizer trains a task, several in a loop of your own .lrsearch.suggest",
    ),
    "a loss that learns": (
        {"loss": Heated()},
        "the loss Heated has parameters of its own, which no trial would train; make them part of",
    ),
    "a traced part": (
        {"model": lambda: nn.Sequential(traced(), nn.ReLU())},
        "the model Sequential is scripted or traced, .* give the plain one .--compile",
    ),
    "a label to ignore": (
        {"loss": nn.CrossEntropyLoss(), "train": (X, torch.full((40,), 255))},
        r"Target 255 is out of bounds; labels go from 0 .*nn.CrossEntropyLoss\(ignore_index=",
    ),
    "empty loader of no length": (
        {"validation": DataLoader(Stream(0), batch_size=8)},
        "validation is empty: its DataLoader gives no batch$",
    ),
    "texts for targets": (
        {"train": (X, np.array(["cat", "dog"] * 20))},
        r"train y holds texts or objects, and must hold numbers; .* numpy.unique\(y, return_inv",
    ),
    "a list of texts for targets": ({"validation": (X, ["cat"] * 40)}, "validation y holds texts"),
    "texts in a loader": (
        {"train": DataLoader([(row, "cat") for row in X], 8)},
        r"targets of type tuple fails: .*; give the numbers of the classes as a tensor",
    ),
    "arrays of objects": (
        {"train": (np.array([X.numpy(), None], dtype=object), Y[:2])},
        "train x holds texts or objects",
    ),
    "lists of several lengths": (
        {"train": ([[0.0], [0.0, 1.0]], [0, 1])},
        r"train x cannot become a tensor \(ValueError: ",
    ),
    "inputs of several lengths": (
        {"train": ((X, X[:30]), Y)},
        "train needs as many rows in each tensor, got x of 30, 40, and y of 40; a list of samples",
    ),
    "a list of rows and a tensor": (
        {"train": (list(X), Y)},
        "got x of 4, and y of 40; a list of samples is one tensor by torch.stack",
    ),
    "a list of targets that are tensors": (
        {"train": (X, [*Y])},
        "train y has no rows, got one number; a list of samples is one tensor by torch.stack",
    ),
    "one sample": (
        {"train": (torch.tensor(1.0), torch.tensor(2))},
        "train x has no rows, got one number",
    ),
    "a sparse tensor": (
        {"train": (X.to_sparse(), Y)},
        r"train x is a tensor of layout torch.sparse_coo; give it by .to_dense\(\)",
    ),
    "a function for data": (
        {"train": lambda: Split(X, Y)},
        "train is a function; call it, and give what it returns: tensors",
    ),
    "a file for data": ({"train": "data.csv"}, "a Dataset or a DataLoader, got 'data.csv'"),
    "loaders by name": ({"train": {"a": DataLoader(Pairs(8))}}, "or a DataLoader, got {'a': "),
    "several loaders": (
        {"train": [DataLoader(Pairs(8)), DataLoader(Pairs(8))]},
        "train is 2 loaders; give one, of torch.utils.data.ConcatDataset of their data sets",
    ),
    "three tensors": (
        {"train": (X, X, Y)},
        r"train is 3 tensors; give a pair \(x, y\), of which each may be several: \(\(a, b\), y\)",
    ),
    "a model that is made with arguments": (
        {"model": nn.Linear},
        "'out_features'; the model is made without arguments: give lambda: ",
    ),
    "classes as flags": (
        {"train": (X, nn.functional.one_hot(Y, 2))},
        r"got Long; give the numbers of the classes, y.argmax\(1\), or floats",
    ),
    "classes in a column": (
        {"train": (X, Y[:, None])},
        r"not supported; give the numbers of the classes in one dimension, y.squeeze\(1\)",
    ),
    "not data": ({"train": 3}, "must be tensors .x, y., a Dataset or a DataLoader, got 3"),
    "loading raises": (
        {"train": Raises()},
        "loading the first batch of train fails: ValueError: cannot decode image 3",
    ),
    "augment of no images": ({"augment": Augment()}, r"augment needs images \(n, C, H, W\)"),
    "transform in place": (
        {"transform": lambda x: x.sub_(1)},
        r"transform of \(40, 4\) float32 changes its inputs in place; let it make new ones",
    ),
    "transform draws random numbers": (
        {"transform": lambda x: x + torch.randn_like(x)},
        "transform gives something else when it is called again, .* belongs into augment or a Da",
    ),
    "model in place": (
        {"model": lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 2))},
        r"the model Sequential on a train batch \(40, 4\) float32 changes its inputs in place",
    ),
    "transform raises": ({"transform": lambda x: x[:, 9]}, "transform of .* fails: IndexError"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_named_in_one_line(mistake: str) -> None:
    change, message = MISTAKES[mistake]
    with pytest.raises(LrsearchError, match=message) as error:
        check(as_task({**GOOD, **change}, "t"))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("task t")


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (X.tolist(), Y.tolist()),
        (X, Y.tolist()),
        (np.ascontiguousarray(X.numpy()[::-1])[::-1], Y.numpy().astype("int64")),
    ],
    ids=["lists", "a list of targets", "an array that runs backwards"],
)
def test_lists_and_arrays_become_tensors(x: Any, y: Any) -> None:
    task = as_task({**GOOD, "train": (x, y)}, "t")
    assert isinstance(task.train, Split)
    torch.testing.assert_close((task.train.x, task.train.y), (X, Y))
    check(task)


def test_a_generator_that_a_model_keeps_needs_no_seed() -> None:
    check(as_task({**GOOD, "model": OwnNoise}, "t"))


def test_data_that_require_gradients_are_taken_without() -> None:
    task = as_task({**GOOD, "train": (X.clone().requires_grad_(), Y)}, "t")
    assert isinstance(task.train, Split)
    assert not task.train.x.requires_grad
    check(task)


@pytest.mark.parametrize(
    "samples",
    [
        list(zip(X, Y, strict=True)),
        tuple(zip(X.numpy(), Y.tolist(), strict=True)),
        [(row, row[:2].softmax(0)) for row in X],
    ],
    ids=["tensors", "an array and a number", "rows of two lengths"],
)
def test_a_list_of_samples_is_a_dataset_and_one_of_batches_stays(samples: Any) -> None:
    task = as_task({**GOOD, "train": samples, "validation": samples, "batch_size": 8}, "t")
    assert isinstance(task.train, DataLoader)
    assert task.steps_per_epoch == 5
    check(replace(task, metric=None))
    batches = [(X[:8], Y[:8]), (X[8:16], Y[8:16])]
    assert as_task({**GOOD, "train": batches}, "t").train is batches


def test_a_loss_may_have_parameters_that_are_fixed() -> None:
    check(as_task({**GOOD, "loss": Heated().requires_grad_(False)}, "t"))


def test_a_metric_that_keeps_a_state_is_reset_before_each_call() -> None:
    task = as_task({**GOOD, "metric": ShareWithReset()}, "t")
    check(task)
    settings: Any = {"optimizer": "SGD", "optimizer_args": {}, "seed": 0}
    for kind, slots in ((SingleRunner, {}), (EnsembleRunner, {"k": 1})):
        runner: Any = kind(task, device=torch.device("cpu"), **settings, **slots)
        runner.add(0, Schedule("ConstantLR", 0.1, 2))
        found = [runner.epoch()[0].val_metric for _ in range(2)][-1]
        model = task.model()
        model.load_state_dict(runner.weights(0))
        assert found == pytest.approx(float((model(X).argmax(1) == Y).float().mean()))


def test_a_batch_may_be_a_list_of_the_users_own() -> None:
    class Pair(list[Any]):
        def __init__(self, x: Any, y: Any) -> None:
            super().__init__([x, y])

    class Batches:
        def __len__(self) -> int:
            return 1

        def __iter__(self) -> Iterator[Any]:
            return iter([Pair(X, Y)])

    check(as_task({**GOOD, "train": Batches()}, "t"))


def test_trials_may_share_what_is_fixed() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.teacher, self.head = LOADED, nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                x = self.teacher(x)
            out: torch.Tensor = self.head(x)
            return out

    check(as_task({**GOOD, "model": Net}, "t"))
    check(as_task({**GOOD, "model": lambda: Teacher(follows=False)}, "t"))


def test_a_loss_may_draw_random_numbers() -> None:
    def loss(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        noise = float(np.random.normal()) + random.random()
        return nn.functional.cross_entropy(outputs + noise * torch.randn_like(outputs), y)

    check(as_task({**GOOD, "loss": loss}, "t"))


def test_data_may_come_from_inference_mode() -> None:
    with torch.inference_mode():
        x, y = X * 2, (X[:, :2] * 2).softmax(1)
    task = as_task({**GOOD, "train": (x, y), "validation": (x, y), "batch_size": 8}, "t")
    check(task)
    batches = training_batches(task, 0, torch.device("cpu"))
    for inputs, targets in batches.epoch(0):
        task.loss(task.model()(inputs), targets).backward()


def test_a_loss_may_change_outputs_in_place() -> None:
    def loss(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs.mul_(0.5), y)

    check(as_task({**GOOD, "loss": loss}, "t"))


def test_a_model_may_change_the_batches_of_a_loader_in_place() -> None:
    data = {part: DataLoader(Pairs(20), 10) for part in ("train", "validation")}
    model = {"model": lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 2))}
    check(as_task({**GOOD, **data, **model}, "t"))


class Batches:
    """Five batches of eight samples, and no DataLoader."""

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Iterator[Any]:
        return zip(X.split(8), Y.split(8), strict=True)


def test_the_number_of_own_batches_is_not_taken_for_that_of_samples() -> None:
    """A last batch of one sample would be refused; this has none."""
    norm = {"model": lambda: nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2))}
    check(as_task({**GOOD, **norm, "train": Batches(), "batch_size": 4, "drop_last": False}, "t"))


def test_outputs_of_float64_stay_so() -> None:
    def loss(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bi,bi->", outputs, y)  # takes one dtype only

    x = X.double()
    data = {"train": Split(x, x), "validation": Split(x, x), "loss": loss}
    check(as_task({**GOOD, **data, "model": lambda: nn.Linear(4, 4).double()}, "t"))


def test_a_metric_without_a_name_is_called_metric() -> None:
    task = as_task({**GOOD, "metric": lambda outputs, y: 0.5}, "t")
    assert task.metric_name == "metric"


def test_a_right_task_passes_and_leaves_no_trace() -> None:
    task = as_task(dict(GOOD), "t")
    before = torch.get_rng_state()
    check(task)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("target", "content", "message"),
    [
        ("nothing.py:task", None, "nothing.py does not exist, seen from /.*; run it where the f"),
        ("no_such_module:task", None, "module no_such_module cannot be found"),
        ("my_file.py:tusk", "task = 3", "has no 'tusk' — did you mean task"),
        ("my_file.py:task", "task = 3", "has no model and no train and no validation: a int"),
        ("my_file.py:task", "import nonsense_module", "No module named 'nonsense_module'"),
        ("my_file.py:task", "1 / 0", "raises when imported: ZeroDivisionError"),
        ("my_file.py:task", "def task(:", "raises when imported: SyntaxError"),
        ("my_file.py:task", "def task(): 1 / 0", "raises when called: ZeroDivisionError"),
        ("my_file.py:task", "def task(path): 1", "raises when called: TypeError: task.. missing"),
        (
            "my_file.py:task",
            "import argparse; argparse.ArgumentParser().parse_args(['--x'])",
            "my_file.py ends the program when it is imported",
        ),
        ("my_file.py:task", "task = {'val': 1}", "unknown key 'val' — did you mean validation"),
        (":task", None, "must be file.py:name or package.module:name"),
    ],
)
def test_what_cannot_be_imported_is_said(
    in_tmp: Path, target: str, content: str | None, message: str
) -> None:
    if content is not None:
        Path("my_file.py").write_text(content)
    with pytest.raises(LrsearchError, match=message) as error:
        load_task(target)
    assert "\n" not in str(error.value)


def test_a_model_name_is_refused_for_an_own_task(in_tmp: Path) -> None:
    Path("my_file.py").write_text(HEAD + FORMS["task"])
    with pytest.raises(UsageError, match="has one model; leave out --model big"):
        load_task("my_file.py:mine", model="big")


def test_an_object_with_attributes_is_a_task() -> None:
    task = as_task(SimpleNamespace(**GOOD, lr=0.5, epochs=3), "own")
    assert (task.name, task.lr, task.epochs) == ("own", 0.5, 3)
    assert isinstance(task, Task)


def test_an_optimizer_may_be_a_class() -> None:
    class Own(torch.optim.SGD):
        pass

    assert as_task({**GOOD, "optimizer": torch.optim.AdamW}, "t").optimizer == "AdamW"
    name = as_task({**GOOD, "optimizer": Own}, "t").optimizer
    assert name == f"{__name__}:{Own.__qualname__}"


def test_numbers_of_numpy_are_numbers() -> None:
    given: dict[str, Any] = {
        "batch_size": np.int64(8),
        "epochs": np.int32(3),
        "lr": np.float32(0.5),
    }
    given |= {"train": Pairs(20), "lr_range": (np.float64(0.25), 1)}
    task = as_task({**GOOD, **given}, "t")
    assert (task.batch_size, task.epochs, task.lr, task.lr_range) == (8, 3, 0.5, (0.25, 1))
    assert [type(value) for value in (task.batch_size, task.epochs, task.lr)] == [int, int, float]


def test_shares_of_classes_are_good_targets_for_cross_entropy() -> None:
    shares = nn.functional.one_hot(Y, 2).float()
    data = {"train": Split(X, shares), "validation": Split(X, shares)}
    task = as_task({**GOOD, **data, "loss": nn.functional.cross_entropy}, "t")
    check(task)
    assert task.metric is not None
    logits = torch.tensor([[0.0, 1.0]]).repeat(40, 1)
    assert float(task.metric(logits, shares)) == float(task.metric(logits, Y)) == 0.5


def test_an_attribute_that_is_nearly_a_field_is_a_mistake_in_an_object() -> None:
    with pytest.raises(LrsearchError, match="'epoch' means nothing here — did you mean epochs"):
        as_task(SimpleNamespace(**GOOD, epoch=3), "own")
    assert as_task(SimpleNamespace(**GOOD, epoch=3, epochs=4, _lrs=1), "own").epochs == 4


def test_an_optimizers_argument_beside_it_in_a_class_is_a_mistake() -> None:
    """It would not be used, and nothing would say so."""

    class Decayed(SimpleNamespace):
        weight_decay = 0.05

    with pytest.raises(LrsearchError, match="'weight_decay' is an argument of the optimizer"):
        as_task(Decayed(**GOOD, optimizer="AdamW"), "own")
    args = {"weight_decay": Decayed.weight_decay}
    assert as_task(Decayed(**GOOD, optimizer_args=args), "own").optimizer_args == args


@pytest.mark.parametrize(
    ("optimizer", "momentum", "taken"),
    [
        ("SGD", 0.9, True),
        (torch.optim.RMSprop, 0.9, True),
        (torch.optim.AdamW, 0.99, False),  # of a teacher's average: AdamW takes none
        ("SGD", torch.linspace(0.9, 1, 5), False),
        ("SGD", lambda step: 0.99, False),
    ],
)
def test_what_the_optimizer_does_not_take_is_something_else(
    optimizer: Any, momentum: Any, taken: bool
) -> None:
    class Taught(SimpleNamespace):
        pass

    Taught.momentum = momentum  # type: ignore[attr-defined]
    told = pytest.raises(LrsearchError, match="'momentum' is an argument of the optimizer")
    with told if taken else contextlib.nullcontext():
        as_task(Taught(**GOOD, optimizer=optimizer), "own")


def test_an_optimizers_argument_beside_no_optimizer_is_a_mistake() -> None:
    """One on the command line may take it, and would go without."""

    class Own(SimpleNamespace):
        betas = (0.9, 0.95)

    with pytest.raises(LrsearchError, match="'betas' is an argument of the optimizer"):
        as_task(Own(**GOOD), "own")
    assert as_task(Own(**GOOD, optimizer="SGD"), "own").optimizer == "SGD"


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("loss", "ValueError('no loss')", "'loss' raises when read: ValueError: no loss"),
        ("test", "AttributeError('none')", "'test' raises when read: AttributeError: none"),
        ("train", "OSError('no file')", "'train' raises when read: OSError: no file"),
        ("betas", "ValueError('no')", "'betas' raises when read: ValueError: no"),
    ],
)
def test_an_attribute_that_raises_when_read_is_named(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], name: str, error: str, told: str
) -> None:
    """It was an internal error; an AttributeError silently stood for the default."""
    Path("raising.py").write_text(
        "import torch\n"
        "class Base:\n"
        "    def model(self):\n"
        "        return torch.nn.Linear(4, 2)\n"
        "    train = validation = torch.zeros(8, 4), torch.zeros(8, dtype=torch.long)\n"
        "class Own(Base):\n"
        "    @property\n"
        f"    def {name}(self):\n"
        f"        raise {error}\n"
        "own = Own()\n"
    )
    leave = "" if name == "train" else f", or take '{name}' out"
    line = f"{told} (raising.py, line 9); mend that{leave}\n"
    for target in ("raising.py:Own", f"raising.py:own.{name}"):
        assert main(["run", "--task", target]) == 2
        assert capsys.readouterr().err == f"lrsearch: task {target}: {line}"


def test_an_optimizers_argument_that_parameter_groups_use_is_no_mistake() -> None:
    class Grouped(SimpleNamespace):
        weight_decay = 0.05

        def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
            return [{"params": list(model.parameters()), "weight_decay": self.weight_decay}]

    (group,) = as_task(Grouped(**GOOD, optimizer="AdamW"), "own").groups
    assert group["weight_decay"] == 0.05


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("import torch\n\ntorch.zeros(2) @ torch.zeros(3)", "my_file.py, line 3"),
        ("def task():\n    return {}['x']", "my_file.py, line 2"),
        ("from my_part import broken\n\nbroken()", "my_part.py, line 2"),
    ],
)
def test_an_error_of_the_users_code_tells_its_line(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, content: str, place: str
) -> None:
    monkeypatch.delitem(sys.modules, "my_part", raising=False)
    monkeypatch.syspath_prepend(in_tmp)
    Path("my_part.py").write_text("def broken():\n    raise ValueError('no')\n")
    Path("my_file.py").write_text(content)
    with pytest.raises(LrsearchError, match=rf"\({place}\)$"):
        load_task("my_file.py:task")


def test_an_error_in_a_model_tells_its_line_before_the_advice() -> None:
    class Net(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.double() @ self.weight.T

    line = Net.forward.__code__.co_firstlineno + 1
    said = rf"\(test_tasks_custom\.py, line {line}\); convert the data with"
    with pytest.raises(LrsearchError, match=said):
        check(as_task({**GOOD, "model": lambda: Net(4, 2)}, "t"))


def test_a_study_that_goes_on_from_another_folder_is_told_to_go_back(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.py").write_text(HEAD + FORMS["task"])
    words = ["--trials", "1", "--epochs", "1", "--device", "cpu", "--quiet"]
    assert main(["run", "--task", "mine.py:mine", *words]) == 0
    (in_tmp / "below").mkdir()
    monkeypatch.chdir(in_tmp / "below")
    words += ["--storage", f"sqlite:///{in_tmp}/lrsearch.db"]
    capsys.readouterr()
    assert main(["run", "--task", "../mine.py:mine", *words]) == 2
    said = capsys.readouterr().err
    assert "mine.py:mine (the same file? run it from the folder of the first run). Keep" in said
    assert main(["train", str(in_tmp / "lrsearch-results" / "mine" / "best.yaml")]) == 2
    assert f"seen from {in_tmp / 'below'}; run it where the file is" in capsys.readouterr().err


@pytest.mark.parametrize("has_some", [False, True])
def test_the_next_step_speaks_of_test_data_where_there_are_some(
    has_some: bool, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = ", test=lambda: Split(x, y))" if has_some else ")"
    Path("mine.py").write_text(HEAD + FORMS["task"].removesuffix(")") + test)
    words = ["--trials", "1", "--epochs", "1", "--device", "cpu", "--quiet"]
    assert main(["run", "--task", "mine.py:mine", *words]) == 0
    said = capsys.readouterr().out
    assert "is it really better? fresh seeds" in said
    assert ("fresh seeds, test data" in said) == has_some


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_task_that_goes_elsewhere_at_import_takes_neither_database_nor_results_with_it(
    workers: str, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor the workers, to whom its file is named as to us."""
    (in_tmp / "data").mkdir()
    go = "import os\nos.chdir(os.path.join(os.path.dirname(__file__), 'data'))\n"
    Path("goes.py").write_text(go + HEAD + FORMS["task"])
    words = "run --task goes.py:mine --trials 2 --epochs 1 --device cpu --confirm 2 --quiet"
    assert main([*words.split(), "--workers", workers, "--log", "tensorboard:runs"]) == 0
    assert (in_tmp / "runs" / "mine" / "trial-0").is_dir()
    assert Path.cwd() == in_tmp / "data"
    assert list(Path.cwd().iterdir()) == []
    results = in_tmp / "lrsearch-results" / "mine"
    assert (in_tmp / "lrsearch.db").is_file()
    assert (results / "best.yaml").is_file()
    said = capsys.readouterr().out
    assert f"lrsearch train {results}/confirmed.yaml" in said
    assert f"--storage sqlite:///{in_tmp}/lrsearch.db" in said


@pytest.mark.parametrize(
    ("here", "there", "said"),
    [
        ("two devices", "no scalar", "no scalar"),
        ("label 5 is out of bounds", "CUDA error: device-side assert triggered", "label 5"),
    ],
)
def test_what_fails_on_both_devices_is_told_by_the_one_that_knows(
    here: str, there: str, said: str
) -> None:
    def attempt(where: torch.device) -> None:
        raise LrsearchError(here if where.type == "cpu" else there)

    with pytest.raises(LrsearchError, match=said):
        here_or_there(attempt, torch.device("cuda:0"))
    with pytest.raises(LrsearchError, match=here):
        here_or_there(attempt, torch.device("cpu"))
