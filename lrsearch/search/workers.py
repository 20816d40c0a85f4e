"""Several worker processes on this machine, watched: who dies is replaced, and its trials go on.

Every worker runs the ordinary loop (:mod:`lrsearch.search.loop`) on the same study; the database
is all they share. The process here only starts them, and passes on what they say.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch

from lrsearch.errors import LrsearchError
from lrsearch.search.interrupt import Interrupt
from lrsearch.search.plan import Plan
from lrsearch.storage import Storage, slots

MAX_DEATHS = 5  # in a row, with neither an epoch recorded nor a minute of life in between
SETTLED_SECONDS = 60.0
STOP_SECONDS = 15.0  # for saving and handing back; then the process is ended
POLL_SECONDS = 0.05


@dataclass
class Seat:
    """A place for one worker process, and who sits there now.

    Attributes:
        index: From 0.
        device: What it trains on.
        log: File with what it and its predecessors wrote to stderr.
        process: The worker; None when the seat is empty for good.
        owner: Its name in the database, once it has said so.
        error: What it gave up for, in words for the user.
        since: When it started, by ``time.monotonic()``.
        deaths: Deaths in a row.
    """

    index: int
    device: str
    log: Path
    process: subprocess.Popen[str] | None = None
    owner: str | None = None
    error: str | None = None
    since: float = 0.0
    deaths: int = 0


@dataclass
class Crew:
    """The workers of one run.

    Args:
        plan: What they run; its choice says how many, and how many threads each.
        storage: The study's database.
        folder: The study's folder for results.
        interrupt: Set by Ctrl-C and SIGTERM.
        note: Called with one line for the user.
        deadline: ``time.monotonic()`` after which no new trial starts.
    """

    plan: Plan
    storage: Storage
    folder: Path
    interrupt: Interrupt
    note: Callable[[str], None]
    deadline: float | None = None
    seats: list[Seat] = field(default_factory=list)
    last_death: str = ""
    said: queue.SimpleQueue[tuple[Seat, subprocess.Popen[str], dict[str, Any]]] = field(
        default_factory=queue.SimpleQueue
    )

    def run(self) -> None:
        """Start the workers and return when all have ended.

        Raises:
            Interrupted: On Ctrl-C or SIGTERM, after the workers saved and handed back.
            LrsearchError: If a worker says that the study cannot go on, or all keep dying.
        """
        with tempfile.TemporaryDirectory(prefix="lrsearch-", ignore_cleanup_errors=True) as logs:
            devices = spread(self.plan.config.device, self.plan.device)
            self.seats = [
                Seat(i, devices[i % len(devices)], Path(logs) / f"{i}.log")
                for i in range(self.plan.choice.workers)
            ]
            with self._ended_at_last():
                for seat in self.seats:
                    self._start(seat)
                while any(seat.process for seat in self.seats):
                    self.interrupt.check()
                    self._listen()
                    for seat in self.seats:
                        if seat.process is not None and seat.process.poll() is not None:
                            self._ended(seat, seat.process.returncode)
                    self.interrupt.sleep(POLL_SECONDS)
        if all(seat.deaths for seat in self.seats):
            raise LrsearchError(
                f"every worker died {MAX_DEATHS} times in a row; the last one {self.last_death}. "
                "What is finished is kept: mend the cause, then run the same command again"
            )

    @contextlib.contextmanager
    def _ended_at_last(self) -> Iterator[None]:
        """Nobody is left behind, however we leave."""
        self.interrupt.at_once.append(self._kill)
        try:
            yield
        except BaseException:
            self._stop()
            raise
        finally:
            self.interrupt.at_once.remove(self._kill)

    def _start(self, seat: Seat) -> None:
        choice = self.plan.choice
        config = dataclasses.replace(
            self.plan.config,
            workers="1",
            device=seat.device,
            fuse="off" if choice.fuse == 1 else str(choice.fuse),
            precision=choice.precision,
            timeout=None if self.deadline is None else max(0.1, self.deadline - time.monotonic()),
        )
        order = {
            "config": config.to_dict(),
            "threads": choice.threads,
            "folder": str(self.folder.resolve()),
        }
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), root]))
        threads = {"OMP_NUM_THREADS": str(choice.threads), "PYTHONPATH": path}
        with seat.log.open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-m", "lrsearch.search.worker_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                env={**os.environ, **threads},
                start_new_session=True,  # Ctrl-C comes to us, and from us to them
            )
        seat.process, seat.owner, seat.error, seat.since = process, None, None, time.monotonic()
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            # Not as an argument: the storage URL may hold a password. The pipe stays open, and
            # closes when we go, however we go: then the worker saves and leaves.
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
        reader = threading.Thread(
            target=self._read, args=(seat, process, process.stdout), daemon=True
        )
        reader.start()

    def _read(self, seat: Seat, process: subprocess.Popen[str], stream: IO[str]) -> None:
        with stream:
            for line in stream:
                with contextlib.suppress(ValueError):
                    self.said.put((seat, process, json.loads(line)))

    def _listen(self) -> None:
        while not self.said.empty():
            seat, process, words = self.said.get()
            if process is not seat.process:
                continue  # a late word of one who is gone
            seat.owner = words.get("owner", seat.owner)
            seat.error = words.get("error", seat.error)
            if "note" in words:
                self.note(str(words["note"]))

    def _ended(self, seat: Seat, code: int) -> None:
        """A worker is done, gives up, or died."""
        time.sleep(POLL_SECONDS)  # for its last words
        self._listen()
        self._close(seat)
        if code == 0:
            seat.deaths = 0
            return
        if seat.error is not None:
            raise LrsearchError(seat.error)
        reason = death(code, seat.log)
        self.last_death = reason
        settled = time.monotonic() - seat.since > SETTLED_SECONDS
        if seat.owner is not None:
            settled = settled or slots.has_worked(self.storage, seat.owner)
            slots.release(self.storage, seat.owner, error=reason)
        seat.deaths = 1 if settled else seat.deaths + 1
        if seat.deaths >= MAX_DEATHS:
            self.note(
                f"worker {seat.index + 1} is given up after {seat.deaths} deaths in a row; "
                f"the last time it {reason}"
            )
            return
        self.note(f"worker {seat.index + 1} {reason}; it is replaced and its trials go on")
        self._start(seat)

    def _close(self, seat: Seat) -> None:
        assert seat.process is not None
        assert seat.process.stdin is not None
        with contextlib.suppress(OSError):
            seat.process.stdin.close()
        seat.process = None

    def _stop(self) -> None:
        """Let all workers save and hand back; end those that do not in time."""
        running = [seat for seat in self.seats if seat.process is not None]
        for seat in running:
            assert seat.process is not None
            assert seat.process.stdin is not None
            with contextlib.suppress(OSError):
                seat.process.stdin.close()
        deadline = time.monotonic() + STOP_SECONDS
        for seat in running:
            assert seat.process is not None
            try:
                seat.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                seat.process.kill()
                seat.process.wait()
        self._listen()
        for seat in running:
            seat.process = None
            if seat.owner is not None:
                with contextlib.suppress(LrsearchError):
                    slots.release(self.storage, seat.owner)

    def _kill(self) -> None:
        """The second Ctrl-C."""
        for seat in self.seats:
            if seat.process is not None:
                seat.process.kill()


def spread(asked: str, device: torch.device) -> list[str]:
    """Devices for the workers to take turns on: all GPUs, unless one was asked for.

    Example:
        >>> spread("cpu", torch.device("cpu"))
        ['cpu']
    """
    if device.type == "cuda" and asked in ("auto", "cuda"):
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return [str(device)]


def death(code: int, log: Path) -> str:
    """How a worker ended, in words: its signal or exit code, and the last it wrote."""
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
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    # A traceback ends with the error, a fault of the interpreter begins with it.
    faults = [line for line in lines if line.startswith("Fatal Python error")]
    last = faults[-1:] or [line.strip() for line in lines if line.strip()][-1:]
    return f"{words}: {last[0][:300]}" if last else words
