"""A process that is a program of ours: whether it is one, and how it ends without losing time."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

_ours: list[Callable[[], int]] = []


def is_ours() -> bool:
    """Whether this process is a program of ours, not a user's program that imports us."""
    return bool(_ours)


def has_told_all() -> None:
    """From now on Ctrl-C ends a program of ours at once: nothing is left that it could stop.

    It would print a traceback out of whatever closes at that moment.
    """
    if is_ours():
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_and_leave(main: Callable[[], int]) -> NoReturn:
    """Run ``main``; its result is the exit code of this process.

    As at any other end, threads are waited for, what libraries have registered with ``atexit`` is
    called, and output is flushed. Only one thing is left out: Python does not take its modules and
    objects apart. With torch that takes half a CPU second or more, and the memory goes back to the
    system anyway.
    """
    codes: list[int] = []
    _ours.append(main)
    atexit.register(_leave, codes)  # the first: whatever is registered later is called before it
    codes.append(main())
    has_told_all()
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
