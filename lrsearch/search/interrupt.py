"""Ctrl-C and SIGTERM: the first saves and leaves, the second leaves at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from lrsearch.errors import LrsearchError

GRACE_SECONDS = 2.0


class Interrupted(BaseException):
    """A signal asked to stop. ``exit_code`` is 130 (SIGINT) or 143 (SIGTERM)."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"interrupted ({exit_code})")
        self.exit_code = exit_code


class Interrupt:
    """Turns SIGINT and SIGTERM into :class:`Interrupted` at a safe place.

    A first signal lets the epoch under way end, for two seconds at most; then it is broken off
    inside :meth:`may_break`, and the trial goes on later from its last checkpoint. Database work
    is never broken off. A second signal ends the process at once.

    Args:
        leaves: Whether a second signal ends the process; else, in a notebook or another program
            that goes on, it is a KeyboardInterrupt wherever that program is.

    Attributes:
        broke: Whether training was broken off in the middle of an epoch.
        hurry: Called at the first signal, to cut short what may take long.
        at_once: Called at the second signal, the last one first, before the process ends.
    """

    def __init__(self, *, leaves: bool = True) -> None:
        self._leaves = leaves
        self.broke = False
        self.hurry: list[Callable[[], None]] = []
        self.at_once: list[Callable[[], None]] = []
        self._code: int | None = None
        self._breakable = False

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return self._code is not None

    def check(self) -> None:
        """Raise :class:`Interrupted` if a signal has come."""
        if self._code is not None:
            raise Interrupted(self._code)

    def sleep(self, seconds: float) -> None:
        """Sleep, but no longer than until a signal comes."""
        end = time.monotonic() + seconds
        while self._code is None and (left := end - time.monotonic()) > 0:
            time.sleep(min(0.05, left))

    @contextmanager
    def may_break(self) -> Iterator[None]:
        """A stretch that may be left in the middle."""
        self._breakable = True
        try:
            yield
        finally:
            self._breakable = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals while inside; only the main thread can.

        Raises:
            Interrupted: In the place of an error that came after a signal: it may be but the end
                of a wait that was cut short.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        names = [signal.SIGINT, signal.SIGTERM]
        before = {number: signal.signal(number, self._handle) for number in names}
        alarm = getattr(signal, "SIGALRM", None)
        if alarm is not None:
            before[alarm] = signal.signal(alarm, self._break_off)
        try:
            yield
        except LrsearchError:
            self.check()
            raise
        finally:
            if alarm is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._code is not None:
            for call in reversed(self.at_once):
                call()
            if not self._leaves:
                raise KeyboardInterrupt
            os._exit(self._code)
        self._code = 128 + number
        for call in self.hurry:
            call()
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS, 0.25)

    def _break_off(self, number: int, frame: FrameType | None) -> None:
        if self._breakable and self._code is not None:
            self._breakable = False
            self.broke = True
            raise Interrupted(self._code)
