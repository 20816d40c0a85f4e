"""Learning curves of random schedules on sixteen small tasks: more than two to judge by.

    python -m tests.benchmarks.tasks curves          # a file for each task, three minutes
    python -m tests.benchmarks.replay curves/*.npz --orders 16 --csv scores.json
    python -m tests.benchmarks.across scores.json --write studies/pruning

The tasks need no data but scikit-learn's. They differ in what makes pruning hard: noise,
overfitting, slow starts, optimizers, budgets from 10 to 150 epochs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from sklearn import datasets
from torch import nn

from lrsearch.prediction.curves import lr_per_epoch
from lrsearch.prediction.surrogate import Array
from lrsearch.schedules import RandomParams, Space
from lrsearch.tasks import builtin, models
from lrsearch.tasks.task import Split, Task
from lrsearch.training.ensemble import EnsembleRunner

TOGETHER = 16
MOMENTUM = {"momentum": 0.9}
LOW = (1e-4, 0.1)
"""Peak rates of Adam."""


def table(x: Any, y: Any, *, train: int, hidden: Sequence[int], **settings: Any) -> Task:
    """A dense net on rows of numbers, in random order: classes if ``y`` is of integers."""
    order = np.random.default_rng(0).permutation(len(x))
    x, y = np.asarray(x, dtype=np.float32)[order], np.asarray(y)[order]
    x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6)
    if y.dtype.kind == "f":
        y = ((y - y.mean()) / y.std()).astype(np.float32)[:, None]
    else:
        y = np.unique(y, return_inverse=True)[1]
    rows, targets = torch.from_numpy(x), torch.from_numpy(y)
    outputs = 1 if y.dtype.kind == "f" else int(y.max()) + 1
    model = partial(models.mlp, [x.shape[1], *hidden, outputs])
    parts = Split(rows[:train], targets[:train]), Split(rows[train:], targets[train:])
    return Task("table", model, *parts, **settings)


def sklearns(name: str, **settings: Any) -> Task:
    """A data set that scikit-learn brings."""
    return table(*getattr(datasets, f"load_{name}")(return_X_y=True), **settings)


def made(name: str, arguments: Mapping[str, Any], **settings: Any) -> Task:
    """A data set that scikit-learn draws."""
    return table(*getattr(datasets, f"make_{name}")(**arguments, random_state=0), **settings)


def digits(wrong: float, samples: int, **settings: Any) -> Task:
    """The built-in task with a share of wrong training labels, and fewer images."""
    task = builtin.digits("mlp", Path(), samples)
    assert isinstance(task.train, Split)
    generator = torch.Generator().manual_seed(0)
    y = task.train.y.clone()
    changed = torch.rand(len(y), generator=generator) < wrong
    y[changed] = torch.randint(10, (int(changed.sum()),), generator=generator)
    return replace(task, train=Split(task.train.x, y), **settings)


def teacher(noise: float, samples: int, **settings: Any) -> Task:
    """Classes that a random net gives to random inputs, with noise on its logits."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(samples, 16))
    hidden = np.tanh(x @ rng.normal(size=(16, 24)) / 4)
    logits = 2 * hidden @ rng.normal(size=(24, 5)) + noise * rng.normal(size=(samples, 5))
    return table(x, logits.argmax(axis=1), train=2 * samples // 3, **settings)


def parity(**settings: Any) -> Task:
    """The parity of three of ten bits, a tenth wrong: long nothing is learnt, then all at once."""
    rng = np.random.default_rng(0)
    bits, wrong = rng.integers(0, 2, size=(1500, 10)), rng.random(1500) < 0.1
    return table(bits, (bits[:, :3].sum(axis=1) + wrong) % 2, train=1000, **settings)


def valley(**settings: Any) -> Task:
    """Linear regression on inputs of very different size: high rates diverge, low ones creep."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(600, 20)) * np.logspace(0, -2, 20)).astype(np.float32)
    y = (x @ (rng.normal(size=20) * np.logspace(0, 2, 20)) + rng.normal(size=600))[:, None]
    rows, targets = torch.from_numpy(x), torch.from_numpy(y.astype(np.float32))
    parts = Split(rows[:400], targets[:400]), Split(rows[400:], targets[400:])
    return Task("valley", lambda: nn.Linear(20, 1), *parts, **settings)


def convolutions() -> nn.Sequential:
    """A small convolutional net with batch norm; images 1x8x8 -> 10 logits."""
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3, 2, 1)]
    layers += [nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)]
    return nn.Sequential(*layers)


def images(**settings: Any) -> Task:
    """The built-in digits as images."""
    task = builtin.digits("mlp", Path(), 600)
    return replace(task, model=convolutions, **settings)


TASKS: dict[str, Callable[[], Task]] = {
    "cancer": partial(
        sklearns,
        "breast_cancer",
        train=380,
        hidden=[32],
        epochs=20,
        optimizer="AdamW",
        lr_range=LOW,
    ),
    "wine": partial(
        sklearns, "wine", train=110, hidden=[16], epochs=40, batch_size=16, lr_range=(1e-3, 1.0)
    ),
    "diabetes": partial(
        sklearns,
        "diabetes",
        train=300,
        hidden=[32, 32],
        epochs=25,
        batch_size=30,
        optimizer_args=MOMENTUM,
        lr_range=(1e-4, 0.5),
    ),
    "few digits": partial(digits, 0.0, 300, epochs=50, optimizer_args=MOMENTUM),
    "clean digits": partial(
        digits, 0.0, 1200, epochs=10, optimizer="Adam", optimizer_args={}, lr_range=LOW
    ),
    "wrong digits": partial(digits, 0.3, 1200, epochs=30, optimizer_args=MOMENTUM),
    "images": partial(images, epochs=15, optimizer_args=MOMENTUM),
    "moons": partial(
        made,
        "moons",
        {"n_samples": 900, "noise": 0.3},
        train=300,
        hidden=[32, 32],
        epochs=60,
        optimizer="Adam",
        lr_range=(1e-4, 0.3),
    ),
    "hastie": partial(
        made,
        "hastie_10_2",
        {"n_samples": 3000},
        train=2000,
        hidden=[32],
        epochs=20,
        lr_range=(1e-2, 3.0),
    ),
    "quantiles": partial(
        made,
        "gaussian_quantiles",
        {"n_samples": 1800, "n_features": 8, "n_classes": 4},
        train=1200,
        hidden=[32, 32],
        epochs=25,
        optimizer_args={**MOMENTUM, "nesterov": True},
    ),
    "friedman": partial(
        made,
        "friedman1",
        {"n_samples": 900, "noise": 1.0},
        train=500,
        hidden=[64],
        epochs=30,
        optimizer="Adam",
        lr_range=(1e-4, 0.3),
    ),
    "long friedman": partial(
        made,
        "friedman1",
        {"n_samples": 900, "noise": 1.0},
        train=500,
        hidden=[32, 32],
        epochs=100,
        optimizer_args={**MOMENTUM, "weight_decay": 1e-3},
        lr_range=(1e-4, 0.5),
    ),
    "teacher": partial(
        teacher, 0.5, 1500, hidden=[48, 48], epochs=12, optimizer="AdamW", lr_range=LOW
    ),
    "long teacher": partial(
        teacher, 0.5, 900, hidden=[32], epochs=150, optimizer_args=MOMENTUM, lr_range=(1e-3, 1.0)
    ),
    "parity": partial(parity, hidden=[32, 32], epochs=40, optimizer="Adam", lr_range=(1e-4, 0.1)),
    "valley": partial(valley, epochs=30, optimizer_args=MOMENTUM, lr_range=(1e-3, 1.0)),
}


@dataclass
class Curves:
    """What is kept of a task: arrays (schedules, epochs), as the replay reads them."""

    config: list[dict[str, Any]]
    lr: Array
    val_loss: Array
    avg_val_loss: Array


def curves(task: Task, count: int) -> Curves:
    """Train random schedules in full; what a diverged trial did not come to is not a number."""
    space, draw = Space(None, task.epochs, task.lr_range), np.random.default_rng(0)
    schedules = [space.suggest(RandomParams(draw)) for _ in range(count)]
    shape = (count, task.epochs)
    empty = (np.full(shape, np.nan) for _ in range(3))
    found = Curves([schedule.to_dict() for schedule in schedules], *empty)
    runner = EnsembleRunner(
        task,
        k=TOGETHER,
        optimizer=task.optimizer,
        optimizer_args=task.optimizer_args,
        seed=0,
        device=torch.device("cpu"),
    )
    waiting, running = list(enumerate(schedules))[::-1], set[int]()
    while waiting or running:
        while waiting and len(running) < TOGETHER:
            key, schedule = waiting.pop()
            runner.add(key, schedule)
            running.add(key)
        for key, result in runner.epoch().items():
            at = key, result.epoch - 1
            found.lr[at] = result.lr
            found.val_loss[at], found.avg_val_loss[at] = result.val_loss, result.avg_val_loss
            if result.diverged or result.epoch == task.epochs:
                runner.remove(key)
                running.discard(key)
    for key, schedule in enumerate(schedules):
        found.lr[key] = lr_per_epoch(schedule, found.lr[key])
    return found


def train(folder: Path, names: Sequence[str], count: int) -> None:
    """A curve file for each task that has none."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in names:
        path = folder / f"{name.replace(' ', '-')}.npz"
        if path.exists():
            continue
        found = curves(TASKS[name](), count)
        final = found.val_loss[:, -1]
        arrays = {key: getattr(found, key) for key in ("lr", "val_loss", "avg_val_loss")}
        np.savez_compressed(path, **arrays, config=json.dumps(found.config))
        quartiles = np.nanquantile(final, (0, 0.1, 0.5))
        print(f"{path}  best, best tenth, half: {quartiles.round(4)}", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.tasks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=TASKS)
    parser.add_argument("--schedules", type=int, default=400)
    args = parser.parse_args(argv)
    train(args.folder, args.tasks, args.schedules)


if __name__ == "__main__":
    main(sys.argv[1:])
