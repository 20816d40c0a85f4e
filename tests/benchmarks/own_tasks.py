"""Tasks as users write them, and the plain Optuna script for them: part ``own`` of ``speed``.

    python -m tests.benchmarks.speed own --trials 30 --tasks rows texts

Each task is a function that gives what ``--task file.py:name`` takes. The plain script trains the
same model on the same data by ``DataLoader`` and ``torch.optim``, with the schedulers of
:mod:`tests.benchmarks.plain_optuna`. Both have the same number of trials and epochs, and train on
one core.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tests.benchmarks.arms import read_study
from tests.benchmarks.measure import Cost, spawn

EPOCHS = 10
ADAMW = {"optimizer": "AdamW", "optimizer_args": {"weight_decay": 0.01}}
SGD = {"optimizer": "SGD", "optimizer_args": {"momentum": 0.9}}
ADAM = {"optimizer": "Adam"}
RANGES = {"SGD": (1e-3, 1.0), "Adam": (1e-5, 1e-1), "AdamW": (1e-5, 1e-1)}
"""Peak rates of the plain script, which are those of lrsearch for these optimizers."""


class Samples(Dataset[Any]):
    """What ``give`` makes of each number."""

    def __init__(self, count: int, give: Callable[[int], Any]) -> None:
        self.count, self.give = count, give

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Any:
        return self.give(i)


def dense(*sizes: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    pairs = itertools.pairwise(sizes)
    layers: list[nn.Module] = [part for a, b in pairs for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def table(n: int, features: int = 20) -> tuple[Any, Any]:
    """Rows of numbers in three classes."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, features)).astype(np.float32)
    hidden = np.tanh(x @ rng.normal(size=(features, 24)) / 3)
    noise = 0.5 * rng.normal(size=(n, 3))
    return x, (hidden @ rng.normal(size=(24, 3)) + noise).argmax(1)


def halves(x: Any, y: Any, train: int, **more: Any) -> dict[str, Any]:
    """A task of tensors: the first ``train`` samples, and the others."""
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    parts = {"train": (x[:train], y[:train]), "validation": (x[train:], y[train:])}
    return {**parts, "epochs": EPOCHS, "batch_size": 64, **more}


def loaded(
    give: Callable[[int], Any], train: int, validation: int, also: Any = None, **more: Any
) -> dict[str, Any]:
    """A task of loaders over Datasets; ``also`` gives the training samples, where they differ."""
    collate = more.pop("collate", None)
    parts = {
        "train": DataLoader(Samples(train, also or give), 64, shuffle=True, collate_fn=collate),
        "validation": DataLoader(
            Samples(validation, lambda i: give(train + i)), 64, collate_fn=collate
        ),
    }
    return {**parts, "epochs": EPOCHS, **more}


def tensors() -> dict[str, Any]:
    """A table as tensors."""
    return halves(*table(4000), 3200, model=lambda: dense(20, 64, 64, 3), **ADAMW)


def rows() -> dict[str, Any]:
    """The same table, read row by row."""
    x, y = table(4000)
    give = lambda i: (torch.tensor(x[i]), torch.tensor(y[i]))  # noqa: E731
    return loaded(give, 3200, 800, model=lambda: dense(20, 64, 64, 3), **ADAMW)


def dropout() -> dict[str, Any]:
    """The table, a net with batch norm and dropout."""

    def model() -> nn.Module:
        parts: list[nn.Module] = []
        for width in (20, 64):
            parts += [nn.Linear(width, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2)]
        return nn.Sequential(*parts, nn.Linear(64, 3))

    return halves(*table(4000), 3200, model=model, **SGD)


class Mixed(nn.Module):
    """Numbers and a category, as a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds = nn.Embedding(12, 8)
        self.top = dense(28, 64, 32, 3)

    def forward(self, given: dict[str, Tensor]) -> Any:
        return self.top(torch.cat([given["numbers"], self.kinds(given["kind"])], 1))


def dicts() -> dict[str, Any]:
    """A Dataset of dicts."""
    x, y = map(torch.as_tensor, table(3000))
    kinds = torch.randint(0, 12, (3000,), generator=torch.Generator().manual_seed(0))
    give = lambda i: ({"numbers": x[i], "kind": kinds[i]}, y[i])  # noqa: E731
    return loaded(give, 2400, 600, model=Mixed, **ADAMW)


class Recommender(nn.Module):
    """What a user thinks of an item."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(300, 16), nn.Embedding(200, 16)
        self.top = dense(32, 32, 1)

    def forward(self, given: Sequence[Tensor]) -> Any:
        users, items = given
        return self.top(torch.cat([self.users(users), self.items(items)], 1)).squeeze(1)


def ratings() -> dict[str, Any]:
    """Users and items, two tensors of inputs."""
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 300, 6000), rng.integers(0, 200, 6000)
    tastes, kinds = rng.normal(size=(300, 4)), rng.normal(size=(200, 4))
    y = (tastes[users] * kinds[items]).sum(1) + 0.3 * rng.normal(size=6000)
    u, i, r = torch.as_tensor(users), torch.as_tensor(items), torch.as_tensor(y).float()
    parts = {"train": ((u[:5000], i[:5000]), r[:5000])}
    parts["validation"] = ((u[5000:], i[5000:]), r[5000:])
    more = {"epochs": EPOCHS, "batch_size": 128, "loss": F.mse_loss, **ADAM}
    return {**parts, "model": Recommender, **more}


def quantile(outputs: Tensor, y: Tensor) -> Tensor:
    """The pinball loss of 0.7."""
    over = y - outputs
    return torch.maximum(0.7 * over, -0.3 * over).mean()


def minus_error(outputs: Tensor, y: Tensor) -> Tensor:
    """Larger is better."""
    return -(outputs - y).abs().mean()


def own_loss() -> dict[str, Any]:
    """Regression with a loss and a metric of one's own."""
    x, _ = table(3000, 12)
    noise = 0.2 * np.random.default_rng(1).normal(size=(3000, 1))
    y = (x[:, :1] * x[:, 1:2] + np.sin(2 * x[:, 2:3]) + noise).astype(np.float32)
    more = {"loss": quantile, "metric": minus_error, **ADAMW}
    return halves(x, y, 2400, model=lambda: dense(12, 64, 64, 1), **more)


class Encoder(nn.Module):
    """A small transformer on token ids."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(200, 64), nn.Embedding(24, 64)
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.1, batch_first=True)
        self.body, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(64, 2)

    def forward(self, x: Tensor) -> Any:
        hidden = self.tokens(x) + self.places(torch.arange(x.shape[1], device=x.device))
        return self.head(self.body(hidden).mean(1))


def transformer() -> dict[str, Any]:
    """Sequences of tokens of one length."""
    x = torch.randint(0, 200, (1500, 24), generator=torch.Generator().manual_seed(0))
    y = ((x < 20).sum(1) > 2).long()
    return halves(x, y, 1200, model=Encoder, **{**ADAMW, "batch_size": 32})


class Recurrent(nn.Module):
    """A GRU on series of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.GRU(8, 48, batch_first=True), nn.Linear(48, 2)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x)[0][:, -1])


def series() -> dict[str, Any]:
    """Series of numbers."""
    x = np.random.default_rng(0).normal(size=(2000, 30, 8)).astype(np.float32).cumsum(1) / 5
    y = (x[:, -8:, :3].mean((1, 2)) > 0).astype(np.int64)
    return halves(x, y, 1600, model=Recurrent, **ADAM)


class Texts(nn.Module):
    """An LSTM on padded tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(200, 32, padding_idx=0)
        self.body, self.head = nn.LSTM(32, 32, batch_first=True), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(self.tokens(x))[0].mean(1))


def pad(batch: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Texts of one length."""
    x, y = zip(*batch, strict=True)
    return nn.utils.rnn.pad_sequence(list(x), batch_first=True), torch.stack(y)


def texts() -> dict[str, Any]:
    """Texts of several lengths, padded by a ``collate_fn``."""
    rng = np.random.default_rng(0)
    xs = [rng.integers(1, 200, int(n)).tolist() for n in rng.integers(5, 25, 1500)]
    ys = [int(sum(token < 30 for token in x) > 2) for x in xs]
    give = lambda i: (torch.tensor(xs[i]), torch.tensor(ys[i]))  # noqa: E731
    return loaded(give, 1200, 300, model=Texts, collate=pad, **ADAM)


def signals() -> dict[str, Any]:
    """A 1-d convnet."""
    rng = np.random.default_rng(0)
    y, time_ = rng.integers(0, 4, 2000), np.arange(128) / 128
    waves = np.sin(2 * np.pi * (3 + 2 * y[:, None]) * time_ + rng.uniform(0, 6, (2000, 1)))
    x = (waves + 1.5 * rng.normal(size=waves.shape)).astype(np.float32)[:, None]

    def model() -> nn.Module:
        parts: list[nn.Module] = []
        for inputs, outputs, width in ((1, 16, 7), (16, 32, 5)):
            parts += [nn.Conv1d(inputs, outputs, width, 2, width // 2), nn.BatchNorm1d(outputs)]
            parts += [nn.ReLU()]
        return nn.Sequential(*parts, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 4))

    return halves(x, y, 1600, model=model, **ADAM)


def pictures(augmented: bool) -> dict[str, Any]:
    """PIL images through torchvision's transforms."""
    from PIL import Image  # here, since the other tasks do without these
    from torchvision import transforms

    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 256, (10, 7, 7)).repeat(4, 1).repeat(4, 2)
    y = rng.integers(0, 10, 1500)
    noisy = (kinds[y] + rng.normal(size=(1500, 28, 28)) * 250).clip(0, 255).astype(np.uint8)
    x = [Image.fromarray(image) for image in noisy]
    plain: list[Any] = [transforms.ToTensor(), transforms.Normalize((0.5,), (0.3,))]
    moved = [transforms.RandomCrop(28, padding=2), transforms.RandomHorizontalFlip()]
    as_tensor = transforms.Compose(plain)
    change = transforms.Compose([*moved, *plain]) if augmented else as_tensor

    def model() -> nn.Module:
        parts: list[nn.Module] = []
        for inputs, outputs in ((1, 16), (16, 32)):
            parts += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        return nn.Sequential(*parts, nn.Flatten(), nn.Linear(32 * 49, 10))

    give = lambda i: (as_tensor(x[i]), int(y[i]))  # noqa: E731
    also = lambda i: (change(x[i]), int(y[i]))  # noqa: E731
    return loaded(give, 1200, 300, also, model=model, **SGD)


images = functools.partial(pictures, False)
augmented = functools.partial(pictures, True)
TASKS: dict[str, Callable[[], dict[str, Any]]] = {
    "tensors": tensors,
    "rows": rows,
    "dropout": dropout,
    "dicts": dicts,
    "ratings": ratings,
    "own_loss": own_loss,
    "transformer": transformer,
    "series": series,
    "texts": texts,
    "signals": signals,
    "images": images,
    "augmented": augmented,
}


def loaders(task: dict[str, Any]) -> list[DataLoader[Any]]:
    """Training and validation batches of a plain script."""
    made = []
    for part in ("train", "validation"):
        data = task[part]
        if not isinstance(data, DataLoader):
            x, y = data
            several = Samples(len(y), lambda i, x=x, y=y: (tuple(each[i] for each in x), y[i]))  # type: ignore[misc]
            found = several if isinstance(x, tuple) else TensorDataset(x, y)
            first = part == "train"
            data = DataLoader(found, task["batch_size"], shuffle=first, drop_last=first)
        made.append(data)
    return made


def objective(trial: optuna.Trial, task: dict[str, Any], data: list[DataLoader[Any]]) -> float:
    """Train one model with one schedule."""
    from tests.benchmarks.plain_optuna import suggest_scheduler

    (train, valid), loss_of = data, task.get("loss", F.cross_entropy)
    model, name = task["model"](), task["optimizer"]
    lr = trial.suggest_float("lr", *RANGES[name], log=True)
    arguments = task.get("optimizer_args", {})
    optimizer = getattr(optim, name)(model.parameters(), lr=lr, **arguments)
    scheduler, interval = suggest_scheduler(trial, optimizer, lr, EPOCHS, len(train))
    value = float("nan")
    for epoch in range(EPOCHS):
        model.train()
        for x, y in train:
            optimizer.zero_grad()
            loss_of(model(x), y).backward()
            optimizer.step()
            if interval == "step":
                scheduler.step()
        if interval == "epoch":
            scheduler.step()
        model.eval()
        total, count = 0.0, 0
        with torch.no_grad():
            for x, y in valid:
                total, count = total + loss_of(model(x), y).item() * len(y), count + len(y)
        value = total / count
        if interval == "loss":
            scheduler.step(value)
        trial.report(value, epoch + 1)
        if trial.should_prune():
            raise optuna.TrialPruned
    return value


def plain(name: str, trials: int, seed: int, storage: str) -> None:
    """The plain script."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    task = TASKS[name]()
    data = loaders(task)
    study = optuna.create_study(
        storage=storage,
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(),
    )
    study.optimize(lambda trial: objective(trial, task, data), n_trials=trials)


def measured(arm: str, name: str, trials: int, seed: int) -> Cost:
    """The cost of one study.

    Args:
        arm: ``lrsearch`` or ``plain``.
        name: Of the task.
        trials: Finished trials.
        seed: Of the study.
    """
    with tempfile.TemporaryDirectory() as place:
        folder, storage = Path(place), f"sqlite:///{place}/a.db"
        command = [sys.executable, "-m", __name__, name]
        if arm == "lrsearch":
            command = [sys.executable, "-m", "lrsearch", "run", "--json"]
            command += ["--task", f"{__name__}:{name}", "--workers", "1", "--out", place]
        more = ["--trials", str(trials), "--seed", str(seed), "--storage", storage]
        began = time.time()
        cost, _ = spawn([*command, *more], folder)
        read_study(storage, began, cost)
    return cost


def main() -> None:
    """One study of the plain script."""
    parser = argparse.ArgumentParser(description="A plain Optuna script on a task of one's own.")
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--storage", default="sqlite:///plain.db")
    args = parser.parse_args()
    plain(args.task, args.trials, args.seed, args.storage)


if __name__ == "__main__":
    main()
