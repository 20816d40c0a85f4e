"""A small disk that fills up, which nothing is left of however a test ends.

It is mounted in a namespace of its own: only processes started with `SmallDisk.enter` see it, and
it is gone when the process that keeps it ends, at the latest with this one.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class SmallDisk:
    """A mounted disk.

    Attributes:
        path: Where processes that entered see it.
        outside: Where this process sees it.
        enter: Begins a command that sees it.
    """

    path: Path
    outside: Path
    enter: tuple[str, ...]


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[SmallDisk]:
    """An empty disk of that size; skips the test where mounting is not allowed."""
    path.mkdir()
    script = f"mount -t tmpfs -o size={megabytes}m tmpfs {path} && echo mounted && exec cat"
    keeper = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert keeper.stdout is not None
    try:
        if keeper.stdout.readline() != "mounted\n":
            pytest.skip("mounting a small disk is not allowed here")
        enter = ("nsenter", "-t", str(keeper.pid), "-m", "env", "-C", os.getcwd())
        yield SmallDisk(path, Path(f"/proc/{keeper.pid}/root{path}"), enter)
        assert not os.path.ismount(path), "nobody else sees it"
    finally:
        keeper.communicate()
