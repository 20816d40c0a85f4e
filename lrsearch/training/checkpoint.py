"""A trial's state in a file: whole or not there."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import torch

from lrsearch.errors import LrsearchError

MAGIC = b"lrsearch trial 1\n"
"""How a file begins; then the SHA-256 of what follows, then what ``torch.save`` wrote."""


class CheckpointError(LrsearchError):
    """A checkpoint that cannot be read; the trial starts over."""


def save(path: str | Path, state: dict[str, Any]) -> None:
    """Write a state so that a crash leaves the old file or the new one, never half of one.

    It is written beside ``path``, flushed to the disk, and renamed.

    Args:
        path: The file; its folder is made.
        state: Tensors and plain values.

    Raises:
        OSError: The disk is full or cannot be written.

    Example:
        >>> save("trial.pt", {"epoch": 3})
        >>> load("trial.pt")
        {'epoch': 3}
    """
    path = Path(path)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            for part in (MAGIC, hashlib.sha256(content).digest(), content):
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the rename last, where folders can be flushed; some file systems refuse that."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def load(path: str | Path) -> dict[str, Any] | None:
    """The state that was saved, on the CPU; None if there is no file.

    Only tensors and plain values are read, never code.

    Raises:
        CheckpointError: The file is damaged, or from another version.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read ({error.strerror})") from error
    size = hashlib.sha256().digest_size
    content = memoryview(raw)[len(MAGIC) + size :]
    if not raw.startswith(MAGIC):
        raise CheckpointError(f"checkpoint {path} is not one of this version of lrsearch")
    if hashlib.sha256(content).digest() != raw[len(MAGIC) : len(MAGIC) + size]:
        raise CheckpointError(f"checkpoint {path} is damaged (its checksum differs)")
    try:
        state: dict[str, Any] = torch.load(
            io.BytesIO(content), map_location="cpu", weights_only=True
        )
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise CheckpointError(
            f"checkpoint {path} is damaged (it holds more than tensors and plain values)"
        ) from error
    return state
