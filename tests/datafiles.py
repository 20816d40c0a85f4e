"""Writes data sets in the layouts of CIFAR-10 and Fashion-MNIST, where there are no real ones."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

CIFAR_NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def write_cifar10(root: Path, per_batch: int = 40, seed: int = 0) -> Path:
    """``root/cifar-10-batches-py`` with images that show their class as a colour and a stripe."""
    rng = np.random.default_rng(seed)
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for i, name in enumerate(CIFAR_NAMES):
        labels = rng.permutation(np.arange(per_batch) % 10)
        images = rng.integers(0, 120, (per_batch, 3, 32, 32))
        for image, label in zip(images, labels, strict=True):
            image[label % 3] += 60
            image[:, 3 * label : 3 * label + 3] += 70
        entry = {
            "batch_label": f"batch {i}",
            "labels": [int(label) for label in labels],
            "data": images.astype(np.uint8).reshape(per_batch, -1),
            "filenames": [f"image_{k}.png" for k in range(per_batch)],
        }
        (folder / name).write_bytes(pickle.dumps(entry, protocol=2))
    return root


def write_idx(path: Path, array: np.ndarray) -> None:
    """An idx file of bytes."""
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    path.write_bytes(head + array.astype(np.uint8).tobytes())


def write_fashion_mnist(root: Path, train: int = 120, test: int = 20, seed: int = 0) -> Path:
    """``root/FashionMNIST/raw`` with images whose mean grows with their class."""
    rng = np.random.default_rng(seed)
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for part, count in (("train", train), ("t10k", test)):
        labels = np.arange(count) % 10
        images = rng.integers(0, 60, (count, 28, 28)) + 19 * labels[:, None, None]
        write_idx(folder / f"{part}-images-idx3-ubyte", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte", labels)
    return root
