"""One worker process, seen from the process that started it. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrsearch.search.forked import Forked

Order = dict[str, Any]
"""What a worker is told: ``config``, ``threads``; ``cwd``, where it starts;
``confirms``, the confirmation that it trains, if any; and ``families``, the file of each schedule
family of the user's own. Later orders differ from the first in ``confirms`` and the time left."""
Words = dict[str, Any]
"""What a worker says: ``owner``, ``note``, ``error``, or that an order is ``done``."""
NEWS_SECONDS = 0.5


class LocalChild:
    """A worker process of this machine.

    It never outlives this process: the pipe to it closes when we go, however we go, and then it
    saves and leaves. While we are here it is told by an empty line: the processes of a loader that
    were forked from this one hold the pipe open.

    Args:
        order: What it is told first.
        spare: A process that waits for it; None starts one.
    """

    placed = True

    def __init__(self, order: Order, spare: Forked | None = None) -> None:
        self._said: queue.SimpleQueue[Words] = queue.SimpleQueue()
        self._wrote = ""
        self._process: Forked | subprocess.Popen[str]
        if spare is not None:
            self._log, self._process = spare.log, spare
        else:
            self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
            self._process = _start(self._log, order["threads"], order["cwd"])
        assert self._process.stdout is not None
        self.tell(order)
        self._reader = threading.Thread(
            target=self._read, args=(self._process.stdout,), daemon=True
        )
        self._reader.start()

    def tell(self, order: Order) -> None:
        """Give it an order: the first, or another one when it is done."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: its exit code tells
            # Not as an argument: the storage URL may hold a password.
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                with contextlib.suppress(ValueError):
                    self._said.put(json.loads(line))

    def words(self, seconds: float = 0.0) -> list[Words]:
        """What it said since the last call; waits up to ``seconds`` for the first word."""
        said = []
        with contextlib.suppress(queue.Empty):
            said.append(self._said.get(timeout=seconds) if seconds else self._said.get_nowait())
            while True:
                said.append(self._said.get_nowait())
        return said

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        code = self._process.poll()
        if code is not None:
            self._ended()
        return code

    def death(self, code: int) -> str:
        """How it ended, in words: its signal or exit code, and the last it wrote."""
        self._ended()
        return death(code, self._wrote)

    def _ended(self) -> None:
        """Hear its last words, and keep what it wrote instead of the file."""
        if self._log.closed:
            return
        self._reader.join(0.2)  # a process of its own may keep the pipe open
        self._log.seek(0)
        self._wrote = self._log.read().decode(errors="replace")
        self._log.close()

    def leave(self) -> None:
        """Ask it to save, hand back and leave."""
        assert self._process.stdin is not None
        if self._process.stdin.closed:
            return
        with contextlib.suppress(OSError):
            self._process.stdin.write("\n")
            self._process.stdin.close()

    def wait(self, seconds: float) -> None:
        """Return when it has ended; end it if it has not in time."""
        try:
            self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        self._ended()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()


def _start(log: IO[bytes], threads: int, cwd: str) -> subprocess.Popen[str]:
    """A worker process that imports all it needs itself."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), root]))
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-m", "lrsearch.search.worker_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        cwd=cwd if Path(cwd).is_dir() else None,  # on another node: else where Ray has put us
        text=True,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": path},
        start_new_session=True,  # Ctrl-C comes to us, and from us to them
    )


class Host:
    """A worker process on another node: what a Ray actor is made of.

    Args:
        order: What the worker is told, and ``environment``, as where the run was started.
    """

    def __init__(self, order: Order) -> None:
        os.environ.update(order["environment"])
        self._child = LocalChild(order)

    def news(self) -> tuple[list[Words], int | None, str]:
        """What it said since the last call, its exit code, how it died; waits a moment for it."""
        words = self._child.words(NEWS_SECONDS)
        code = self._child.poll()
        if code is None:
            return words, None, ""
        return words + self._child.words(), code, self._child.death(code)

    def tell(self, order: Order) -> None:
        """Give it another order."""
        self._child.tell(order)

    def leave(self) -> None:
        """Ask it to save, hand back and leave."""
        self._child.leave()


def death(code: int, log: str) -> str:
    """How a worker ended, in words: its signal or exit code, and the last line of its log."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        words = f"was killed by {name}"
        if name == "SIGKILL":
            words += " (out of memory?)"
    else:
        words = f"ended with exit code {code}"
    lines = log.splitlines()
    # A traceback ends with the error, a fault of the interpreter begins with it.
    faults = [line for line in lines if line.startswith("Fatal Python error")]
    last = faults[-1:] or [line.strip() for line in lines if line.strip()][-1:]
    return f"{words}: {last[0][:300]}" if last else words
