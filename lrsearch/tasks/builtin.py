"""The built-in tasks: data, model and a usual recipe for each."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lrsearch.errors import UsageError
from lrsearch.tasks import datasets, models
from lrsearch.tasks.images import Augment, Normalize
from lrsearch.tasks.splits import stratified_order
from lrsearch.tasks.task import Split, Task

MIN_VALIDATION = 1_000
"""A part of the training samples has a quarter as many to validate with, but at least so many.

To validate 5,000 images twice an epoch (raw and averaged weights) would cost as much as to train
on 3,000."""
SGD = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}


def digits(model: str, data_dir: Path, train_samples: int | None) -> Task:
    """scikit-learn's 1,797 images of digits, 8x8: 1,200 train, 300 validation, 297 test."""
    x, y = _load_digits()
    order = stratified_order(y)
    test, validation, train = order[:297], order[297:597], order[597:]
    train = train[: _part(train_samples, len(train))]
    return Task(
        name="digits",
        model_name=model,
        model=partial(models.mlp, [64, 64, 64, 10]),
        train=Split(x[train], y[train]),
        validation=Split(x[validation], y[validation]),
        test=lambda: Split(x[test], y[test]),
        batch_size=64,
        epochs=30,
        optimizer_args=SGD,
        lr=0.1,
        lr_range=(1e-3, 2.0),
        unit="images",
    )


def square(model: str, data_dir: Path, train_samples: int | None) -> Task:
    """Learn y = x² from ten points, one sample a step; the score is a sum over nine others."""
    if train_samples is not None:
        raise UsageError(f"task square has ten samples; leave out --train-samples {train_samples}")

    def points(first: float, count: int) -> Split:
        x = (first + 0.1 * torch.arange(count, dtype=torch.float64)).float().unsqueeze(1)
        return Split(x, x**2)

    return Task(
        name="square",
        model_name=model,
        model=models.square_net,
        train=points(0.1, 10),  # .1, .2, ..., 1
        validation=points(0.15, 9),  # .15, .25, ..., .95
        test=lambda: points(0.125, 9),  # .125, .225, ..., .925
        loss=nn.functional.mse_loss,
        validation_loss=partial(nn.functional.mse_loss, reduction="sum"),
        metric=None,
        metric_name="",
        batch_size=1,
        epochs=2000,
        validate_every=20,
        optimizer="Adam",
        lr=1e-3,
        lr_range=(1e-4, 1e-1),
        unit="points",
    )


def fashion_mnist(model: str, data_dir: Path, train_samples: int | None) -> Task:
    """Fashion-MNIST, 28x28 grey: 55,000 train, 5,000 validation, 10,000 test."""
    everything = datasets.fashion_mnist(data_dir, train=True)
    train, validation = _divide(everything, len(everything) // 12, train_samples)
    return Task(
        name="fashion-mnist",
        model_name=model,
        model=partial(models.mlp, [784, 128, 128, 10]),
        train=train,
        validation=validation,
        test=lambda: datasets.fashion_mnist(data_dir, train=False),
        batch_size=64,
        epochs=20,
        optimizer_args=SGD,
        lr=0.1,
        lr_range=(1e-3, 1.0),
        transform=Normalize((0.286,), (0.353,)),
        unit="images",
    )


CIFAR_MODELS: dict[str, Callable[[], nn.Module]] = {
    "convnet": models.convnet,
    "net": models.net,
    "resnet9": models.resnet9,
    "resnet20": models.resnet20,
    "resnet18": models.resnet18,
}


def cifar10(model: str, data_dir: Path, train_samples: int | None) -> Task:
    """CIFAR-10, 32x32 colour: 45,000 train, 5,000 validation, 10,000 test."""
    everything = datasets.cifar10(data_dir, train=True)
    train, validation = _divide(everything, len(everything) // 10, train_samples)
    published = model == "net"  # experiment 3: no augmentation, mean and sd .5, plain momentum
    return Task(
        name="cifar10",
        model_name=model,
        model=CIFAR_MODELS[model],
        train=_channels_last(train),
        validation=_channels_last(validation),
        test=lambda: _channels_last(datasets.cifar10(data_dir, train=False)),
        batch_size=64,
        epochs=20,
        optimizer_args={"momentum": 0.9, "nesterov": False} if published else SGD,
        lr=0.1,
        lr_range=(1e-3, 1.0),
        transform=Normalize((0.5,) * 3, (0.5,) * 3)
        if published
        else Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        augment=None if published else Augment(pad=4, flip=True),
        unit="images",
    )


def _divide(
    everything: Split, full_validation: int, train_samples: int | None
) -> tuple[Split, Split]:
    """Training and validation samples out of the training files."""
    order = stratified_order(everything.y)
    train = order[full_validation:]
    train = train[: _part(train_samples, len(train))].sort().values
    count = full_validation
    if train_samples is not None:
        count = min(count, max(MIN_VALIDATION, train_samples // 4))
    validation = order[:count].sort().values
    return (
        Split(everything.x.index_select(0, train), everything.y[train]),
        Split(everything.x.index_select(0, validation), everything.y[validation]),
    )


def _channels_last(images: Split) -> Split:
    """Images (n, C, H, W) as convolutions read them fastest."""
    return Split(images.x.contiguous(memory_format=torch.channels_last), images.y)


def _part(train_samples: int | None, available: int) -> int:
    """How many training samples to take."""
    if train_samples is None:
        return available
    if not 1 <= train_samples <= available:
        raise UsageError(f"--train-samples must be 1 to {available:,}, got {train_samples:,}")
    return train_samples


def _load_digits() -> tuple[Tensor, Tensor]:
    """Images (1797, 64) from 0 to 1 and labels (1797,).

    From scikit-learn's own file, without the second that importing scikit-learn takes.
    """
    spec = find_spec("sklearn")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            with gzip.open(path, "rt") as file:
                table = np.loadtxt(file, delimiter=",", dtype=np.float32)
            return torch.from_numpy(table[:, :64] / 16), torch.from_numpy(table[:, 64]).long()
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return torch.from_numpy(pixels).float() / 16, torch.from_numpy(labels).long()
