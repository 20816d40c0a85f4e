"""CIFAR-10 and Fashion-MNIST from the files that torchvision.datasets also reads.

Read here with numpy: importing torchvision takes longer than reading the files. torchvision is
asked only when they must be downloaded.
"""

from __future__ import annotations

import contextlib
import pickle
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lrsearch.errors import LrsearchError, first_line
from lrsearch.tasks.task import Split

CIFAR_FOLDER = "cifar-10-batches-py"
CIFAR_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
CIFAR_TEST = ("test_batch",)
FASHION_FOLDER = "FashionMNIST/raw"
FASHION_FILES = {
    True: ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    False: ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
CIFAR = (CIFAR_FOLDER, CIFAR_TRAIN + CIFAR_TEST)
FASHION = (FASHION_FOLDER, FASHION_FILES[True] + FASHION_FILES[False])
CLASSES = 10
TIMEOUT_SECONDS = 30.0

Bytes = npt.NDArray[np.uint8]


def cifar10(data_dir: Path, *, train: bool) -> Split:
    """CIFAR-10: uint8 images (n, 3, 32, 32) and labels (n,).

    Downloads it if the folder ``cifar-10-batches-py`` is not in ``data_dir``.

    Raises:
        LrsearchError: Files are missing, damaged, or cannot be downloaded.
    """
    folder = _folder(data_dir, *CIFAR, _download_cifar)
    pixels: list[Bytes] = []
    labels: list[npt.NDArray[np.int64]] = []
    for name in CIFAR_TRAIN if train else CIFAR_TEST:
        path = folder / name
        try:
            with path.open("rb") as file:
                batch = _Unpickler(file, encoding="latin1").load()
            data, targets = batch["data"], np.asarray(batch["labels"], dtype=np.int64)
            found = data.shape, data.dtype, targets.shape
        except (*_UNPICKLING_ERRORS, OSError) as error:
            raise _damaged(path, first_line(error)[:120]) from error
        if found != ((len(targets), 3 * 32 * 32), np.uint8, (len(data),)):
            raise _damaged(path, f"data is {found[0]} {found[1]} with {found[2]} labels")
        _check_labels(path, targets)
        pixels.append(data)
        labels.append(targets)
    x = torch.from_numpy(np.concatenate(pixels)).view(-1, 3, 32, 32)
    y = torch.from_numpy(np.concatenate(labels))
    return Split(x, y)


def fashion_mnist(data_dir: Path, *, train: bool) -> Split:
    """Fashion-MNIST: uint8 images (n, 1, 28, 28) and labels (n,).

    Downloads it if the folder ``FashionMNIST/raw`` is not in ``data_dir``.

    Raises:
        LrsearchError: Files are missing, damaged, or cannot be downloaded.
    """
    folder = _folder(data_dir, *FASHION, _download_fashion)
    images, labels = FASHION_FILES[train]
    x = torch.from_numpy(_read_idx(folder / images, dimensions=3)).unsqueeze(1)
    y = _read_idx(folder / labels, dimensions=1)
    if len(x) != len(y):
        raise _damaged(folder / labels, f"{len(y)} labels for {len(x)} images")
    _check_labels(folder / labels, y)
    return Split(x, torch.from_numpy(y).long())


def _read_idx(path: Path, dimensions: int) -> Bytes:
    """An idx file of bytes: 0 0 8 dimensions, each length as four bytes (big first), the data."""
    try:
        raw = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise _damaged(path, first_line(error)[:120]) from error
    head = 4 + 4 * dimensions
    if len(raw) < head or raw[:4].tolist() != [0, 0, 8, dimensions]:
        raise _damaged(path, "it does not begin as an idx file of bytes does")
    shape = raw[4:head].view(">u4").tolist()
    if len(raw) - head != np.prod(shape, dtype=np.int64):
        raise _damaged(path, f"{len(raw) - head:,} bytes of data for shape {tuple(shape)}")
    return raw[head:].reshape(shape)


class _Unpickler(pickle.Unpickler):
    """Makes numpy arrays and nothing else: a data file shall not run code."""

    allowed = frozenset({"_reconstruct", "ndarray", "dtype", "scalar", "_frombuffer", "encode"})

    def find_class(self, module: str, name: str) -> Any:
        if name in self.allowed and module.split(".")[0] in ("numpy", "_codecs"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


_UNPICKLING_ERRORS = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    ImportError,
    MemoryError,
)


def _damaged(path: Path, why: str) -> LrsearchError:
    return LrsearchError(
        f"{path} is damaged ({why}). Delete {path.parent} to have it downloaded again, "
        "or pass another --data-dir"
    )


def _check_labels(path: Path, y: npt.NDArray[Any]) -> None:
    if len(y) and not (y.min() >= 0 and y.max() < CLASSES):
        raise _damaged(path, f"labels from {y.min()} to {y.max()}")


def located(data_dir: Path, name: str, files: Sequence[str]) -> Path | None:
    """The folder ``name`` of a data set; ``data_dir`` where it is that itself; None for none."""
    folder = data_dir / name
    if not folder.is_dir() and all((data_dir / file).is_file() for file in files):
        return data_dir
    return folder if folder.is_dir() else None


def _folder(
    data_dir: Path, name: str, files: Sequence[str], download: Callable[[Path], None]
) -> Path:
    """The folder with all ``files``, downloaded where there is none."""
    folder = located(data_dir, name, files)
    if folder is None:
        folder = data_dir / name
        _fetch(data_dir, name, download)
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise LrsearchError(
            f"{folder} lacks {', '.join(missing)}. Delete the folder to have it downloaded again, "
            "or pass another --data-dir"
        )
    return folder


def _fetch(data_dir: Path, name: str, download: Callable[[Path], None]) -> None:
    """Download into a folder beside the goal and rename it: never half a data set."""
    title = "CIFAR-10" if name == CIFAR_FOLDER else "Fashion-MNIST"
    layout = f"{CIFAR_FOLDER}/" if name == CIFAR_FOLDER else f"{FASHION_FOLDER}/*-ubyte"
    goal = data_dir / name
    new = [folder for folder in goal.parents if not folder.exists()]
    try:
        goal.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=goal.parent) as temporary:
            with _patient(), contextlib.redirect_stdout(sys.stderr):
                download(Path(temporary))
            _move(Path(temporary) / name, goal)
    except (OSError, RuntimeError, ValueError, HTTPException) as error:  # URLError is an OSError
        for folder in new:
            with contextlib.suppress(OSError):  # another process downloads there
                folder.rmdir()
        said = str(getattr(error, "reason", None) or error or type(error).__name__)
        reason = said.splitlines()[-1].removeprefix("<urlopen error ").removesuffix(">")
        raise LrsearchError(
            f"{title} is not in {data_dir}/ and could not be downloaded ({reason}). Put {layout} "
            "into a folder and pass --data-dir, or try --task digits, which needs no download"
        ) from error


def _move(folder: Path, goal: Path) -> None:
    """Rename a folder, where another process has not been faster."""
    try:
        folder.rename(goal)
    except OSError:
        if not goal.is_dir():
            raise


@contextlib.contextmanager
def _patient() -> Iterator[None]:
    """Sockets without an answer give up after a while."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _download_cifar(folder: Path) -> None:
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import download_and_extract_archive

    download_and_extract_archive(
        CIFAR10.url, str(folder), filename=CIFAR10.filename, md5=CIFAR10.tgz_md5
    )


def _download_fashion(folder: Path) -> None:
    from torchvision.datasets import FashionMNIST

    FashionMNIST(str(folder), download=True)
