"""Where results lie, and writing files whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import uuid
from pathlib import Path

from lrsearch.errors import LrsearchError, UsageError

LONGEST_NAME = 100
"""Of a study whose folder is called as it is: file systems allow 255, with what stands beside."""


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically: a reader sees the old file or the new one.

    Its folder is made where it is missing.

    Raises:
        LrsearchError: If it cannot be written.
    """
    if os.path.isdir(path):  # also where the name is too long for a file
        raise LrsearchError(f"cannot write {path}: it is a folder; name a file in it")
    place = Path(os.path.realpath(path))  # a link goes on pointing there
    whole = place.with_name(f".{place.name[:60]}.{uuid.uuid4().hex[:8]}")
    try:
        if path.exists() and not path.is_file():  # such as /dev/stdout, which stays what it is
            path.write_text(text, encoding="utf-8")
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        with whole.open("xb") as file:  # for whom the umask of this user says, not for all
            file.write(text.encode())
        os.replace(whole, place)
    except OSError as error:
        with contextlib.suppress(OSError):
            whole.unlink()
        raise LrsearchError(f"cannot write {path} ({error.strerror or error})") from None


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where they are missing.

    Raises:
        LrsearchError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LrsearchError(f"cannot make {folder} ({error.strerror or error})") from None


def check_folder(folder: Path, option: str) -> None:
    """Make sure that files can be written to a folder, before hours of work; it is not made yet.

    Raises:
        UsageError: It, or a folder above it, is a file.
        LrsearchError: This user may not write there.
    """
    above = folder.absolute()
    while not os.path.lexists(above) and above != above.parent:
        above = above.parent
    if not above.is_dir():
        raise UsageError(f"{option} {folder}: {above} is no folder; choose another {option}")
    if not may_write(above):
        raise LrsearchError(
            f"{option} {folder}: {above} is read-only for this user; choose another {option}"
        )


def may_write(folder: Path) -> bool:
    """Whether this user may make files in a folder."""
    return may(folder, os.W_OK | os.X_OK)


def may(path: Path, mode: int) -> bool:
    """Whether this user has an access (``os.R_OK``, ...), by the rights that the process has."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def results_folder(out: str, name: str) -> Path:
    """``out/STUDY``, where STUDY cannot leave ``out`` whatever the study is called."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "study"
    if slug != name or len(name) > LONGEST_NAME:
        slug = f"{slug[:60]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return Path(os.path.expanduser(out)) / slug
