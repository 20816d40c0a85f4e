"""The end of a process of ours: quick, and nothing of what others have asked for is left out."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from typing import NoReturn

_ours: list[Callable[[], int]] = []


def is_ours() -> bool:
    """Whether this process is a program of ours, and not one that uses us."""
    return bool(_ours)


def run_and_leave(main: Callable[[], int]) -> NoReturn:
    """Run a program; its result is the exit code of this process.

    Threads are waited for, what libraries registered for the end is called, output is flushed: all
    as ever. Only taking every module and object apart is left out. With torch that is half a CPU
    second and more, and the memory goes back to the system anyway.
    """
    codes: list[int] = []
    _ours.append(main)
    atexit.register(_leave, codes)  # the first: whatever is registered later is called before it
    codes.append(main())
    sys.exit(codes[0])


def _leave(codes: list[int]) -> None:
    if not codes:
        return  # an exception: Python shows it, and ends in its own way
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            return  # nobody reads, or the disk is full: Python says so, and exits with 120
    os._exit(codes[0])
