"""Workers made by fork right after the imports: no second process has to import torch again.

A worker that starts as a program of its own imports for 2 to 4 CPU seconds before it can train; a
copy of this process is there in hundredths of one. A fork copies one thread, and every lock and
open file as it is. So copies are made only where that is harmless: in a program of ours, while it
has a single thread, before a database, a GPU or anything of the user's task has been opened. They
wait for an order; where there is none, :class:`lrsearch.search.child.LocalChild` starts a program.
"""

from __future__ import annotations

import contextlib
import faulthandler
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import IO, NoReturn

from lrsearch import program
from lrsearch.config import StudyConfig

MOST = 8  # each takes some hundredths of a second, before it is known how many are needed
SIGNALS = (signal.SIGINT, signal.SIGTERM)
POLL_SECONDS = 0.01


class Forked:
    """A copy of this process that waits for the order of a worker; used as a ``Popen``.

    Args:
        others: Copies made before, whose pipes this one must not hold open.

    Attributes:
        stdin: Where it reads.
        stdout: What it says.
        log: What it writes to stderr.
    """

    def __init__(self, others: Sequence[Forked]) -> None:
        there, order = os.pipe()
        said, words = os.pipe()
        self.stdin: IO[str] = os.fdopen(order, "w", encoding="utf-8")
        self.stdout: IO[str] = os.fdopen(said, encoding="utf-8")
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as it runs
        self._code: int | None = None
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # or both would write it
        ends = [end for each in (*others, self) for end in (each.stdin, each.stdout)]
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self._pid = os.fork()
        except OSError:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            raise
        if not self._pid:
            _work(there, words, self.log, ends, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(there)
        os.close(words)

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        if self._code is None:
            try:
                pid, status = os.waitpid(self._pid, os.WNOHANG)
            except ChildProcessError:  # whoever started us has children ignored: as Popen does
                self._code = 0
            else:
                self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code when it has ended.

        Raises:
            subprocess.TimeoutExpired: It has not in time.
        """
        seconds = math.inf if timeout is None else timeout
        end = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("a worker", seconds)
            time.sleep(POLL_SECONDS)
        return code

    def kill(self) -> None:
        """End it at once."""
        if self.poll() is None:
            os.kill(self._pid, signal.SIGKILL)

    def dismiss(self) -> None:
        """It is not needed."""
        self.kill()
        self.wait()
        for stream in (self.stdin, self.stdout, self.log):
            stream.close()


def _work(
    order: int, words: int, log: IO[bytes], close: Sequence[IO[str]], signals: set[int]
) -> NoReturn:
    """Be a worker, in the copy; it leaves by SystemExit, through the frames it was made in."""
    try:
        os.setsid()  # Ctrl-C comes to whoever made us, and from there to us
        for stream in close:
            stream.close()
        for number, end in enumerate((order, words, log.fileno())):
            os.dup2(end, number)
        os.close(order)
        os.close(words)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stdout, sys.stderr = _written(1), _written(2)
        faulthandler.enable()
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        import numpy as np

        from lrsearch.search.worker_process import main

        np.random.seed()  # of its own, as in a program that starts anew
        program.run_and_leave(main)
    except SystemExit:
        raise
    except BaseException:  # noqa: BLE001 - the frames above are those of another program
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _written(number: int) -> IO[str]:
    return open(number, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)


@contextlib.contextmanager
def spares(config: StudyConfig) -> Iterator[list[Forked]]:
    """Copies of this process for the workers that a configuration may need; none where unsafe.

    Twice as many where the run is confirmed: those of the search have ended by then. Who takes one
    out of the list answers for it; the others end with the block.
    """
    ready: list[Forked] = []
    for _ in range(_wanted(config) * (2 if config.confirm else 1)):
        try:
            ready.append(Forked(ready))
        except OSError:  # no room for one more process: the others must do
            break
    try:
        yield ready
    finally:
        dismiss(ready)


def dismiss(ready: list[Forked]) -> None:
    """End copies that wait for an order."""
    for each in ready:
        each.kill()  # all, before the first is waited for
    while ready:
        ready.pop().dismiss()


def _wanted(config: StudyConfig) -> int:
    """How many copies to make."""
    if config.launcher != "local" or not _safe(config.device):
        return 0
    if config.workers != "auto":
        count = int(config.workers)
    else:
        from lrsearch.training.auto import usable_cores

        count = usable_cores()
    count = min(count, config.trials, MOST)
    return count if count > 1 else 0


def _safe(device: str) -> bool:
    """Whether a copy of this process is as good as a new one."""
    if sys.platform != "linux" or not program.is_ours():
        return False
    try:
        threads = len(os.listdir("/proc/self/task"))  # those of libraries, too
    except OSError:
        return False
    if threads > 1 or None in (sys.stdin, sys.stdout, sys.stderr):
        return False
    if device == "auto":
        import torch

        return not torch.cuda.device_count()
    return device == "cpu"
