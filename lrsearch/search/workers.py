"""Several worker processes, watched: who dies is replaced, and its trials go on.

Every worker runs the ordinary loop (:mod:`lrsearch.search.loop`) on the same study; the database
is all they share. The process here only has them started, on this machine or on a Ray cluster
(:mod:`lrsearch.search.ray_launcher`), and passes on what they say. Who is done rests until the run
has more to do, the runs of its finalists say, or ends: to start and import anew takes seconds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from lrsearch.errors import LrsearchError
from lrsearch.search.child import LocalChild, Order
from lrsearch.search.context import Context
from lrsearch.search.forked import Forked
from lrsearch.search.plan import Plan
from lrsearch.storage import slots

if TYPE_CHECKING:
    from lrsearch.search.ray_launcher import Cluster, RayChild

MAX_DEATHS = 5  # in a row, with neither an epoch recorded nor a minute of life in between
SETTLED_SECONDS = 60.0
STOP_SECONDS = 15.0  # for saving and handing back; then the process is ended
POLL_SECONDS = 0.02


class LocalLauncher:
    """Starts workers on this machine.

    Args:
        plan: What they run.
        spares: Processes that wait for an order; they are taken first.

    Attributes:
        devices: What the workers take turns on.
    """

    def __init__(self, plan: Plan, spares: list[Forked]) -> None:
        self._spares = spares
        self.devices = spread(plan.config.device, plan.device)

    def start(self, order: Order) -> LocalChild:
        """Start one."""
        return LocalChild(order, self._spares.pop() if self._spares else None)


@dataclass
class Seat:
    """A place for one worker process, and who sits there now.

    Attributes:
        index: From 0.
        device: What it trains on.
        child: The worker; None when it is done, or given up.
        owner: Its name in the database, once it has said so.
        error: What it gave up for, in words for the user.
        since: When it got its order, by ``time.monotonic()``.
        before: The epochs of unfinished trials that were on record then.
        deaths: Deaths in a row.
    """

    index: int
    device: str
    child: LocalChild | RayChild | None = None
    owner: str | None = None
    error: str | None = None
    since: float = 0.0
    before: dict[tuple[int, int], int] = field(default_factory=dict)
    deaths: int = 0


@dataclass
class Crew:
    """The workers of one run.

    Args:
        plan: What they run; its choice says how many, and how many threads each.
        context: The run that they work for.
        launcher: Starts them.
        confirms: Name of the confirmation that they train, in place of searching.
    """

    plan: Plan
    context: Context
    launcher: LocalLauncher | Cluster
    confirms: str | None = None
    seats: list[Seat] = field(default_factory=list)
    last_death: str = ""
    last_note: str = ""

    def run(self) -> None:
        """Give the workers their orders and return when all are done.

        Raises:
            Interrupted: On Ctrl-C or SIGTERM, after the workers saved and handed back.
            LrsearchError: If a worker says that the study cannot go on, or all keep dying.
        """
        devices = self.launcher.devices
        self.seats = [Seat(i, devices[i % len(devices)]) for i in range(self.plan.choice.workers)]
        with self._ended_at_last():
            for seat in self.seats:
                self._start(seat)
            interrupt = self.context.interrupt
            while any(seat.child for seat in self.seats):
                interrupt.check()
                for seat in self.seats:
                    self._listen(seat)
                    if seat.child is not None and (code := seat.child.poll()) is not None:
                        self._ended(seat, seat.child, code)
                interrupt.sleep(POLL_SECONDS)
        if all(seat.deaths for seat in self.seats):
            raise LrsearchError(
                f"every worker died {MAX_DEATHS} times in a row; the last one {self.last_death}. "
                "What is finished is kept: mend the cause, then run the same command again"
            )

    @contextlib.contextmanager
    def _ended_at_last(self) -> Iterator[None]:
        """Nobody is left behind, however we leave."""
        at_once = self.context.interrupt.at_once
        at_once.append(self._kill)
        try:
            yield
        except BaseException:
            self._stop()
            raise
        finally:
            at_once.remove(self._kill)

    def _start(self, seat: Seat) -> None:
        config, choice, end = self.plan.config, self.plan.choice, self.context.deadline
        if seat.device.partition(":")[0] == self.plan.device.type:  # chosen for such a device
            fuse = "off" if choice.fuse == 1 else str(choice.fuse)
            config = dataclasses.replace(config, fuse=fuse, precision=choice.precision)
        config = dataclasses.replace(
            config,
            launcher="local",
            gpus_per_worker=None,
            workers="1",
            device=seat.device,
            out=os.path.expanduser(config.out),
            timeout=None if end is None else max(0.1, end - time.monotonic()),
        )
        order = {
            "config": config.to_dict(),
            "threads": choice.threads,
            "cwd": str(self.plan.cwd),
            "confirms": self.confirms,
            "families": self.plan.homes,
        }
        seat.before = slots.reached(self.context.storage)
        seat.owner, seat.error, seat.since = None, None, time.monotonic()
        seat.child = self._rested(seat.device)
        if seat.child is None:
            seat.child = self.launcher.start(order)
        else:
            seat.child.tell(order)

    def _rested(self, device: str) -> LocalChild | RayChild | None:
        """A worker that waits for an order, and has trained on that device before."""
        resting = self.context.resting
        for place, (its, child) in enumerate(resting):
            if its == device and child.poll() is None:
                del resting[place]
                return child
        return None

    def _listen(self, seat: Seat) -> None:
        for words in [] if seat.child is None else seat.child.words():
            seat.owner = words.get("owner", seat.owner)
            seat.error = words.get("error", seat.error)
            if words.get("note", self.last_note) != self.last_note:  # many may say the same
                self.last_note = str(words["note"])
                self.context.note(self.last_note)
            if "done" in words and seat.child is not None:
                self.context.resting.append((seat.device, seat.child))
                self._done(seat)

    def _done(self, seat: Seat) -> None:
        """A worker found nothing more to do."""
        seat.child, seat.deaths = None, 0
        self._call_off()

    def _ended(self, seat: Seat, child: LocalChild | RayChild, code: int) -> None:
        """A worker is done, gives up, or died."""
        self._listen(seat)  # its last words
        if seat.child is None:
            return  # it was done before
        child.leave()
        seat.child = None
        if code == 0:
            self._done(seat)
            return
        if seat.error is not None:
            raise LrsearchError(seat.error)
        reason = child.death(code)
        self.last_death = reason
        settled = time.monotonic() - seat.since > SETTLED_SECONDS
        if seat.owner is not None:
            settled = settled or slots.has_worked(self.context.storage, seat.owner, seat.before)
            slots.release(self.context.storage, seat.owner, error=reason)
        seat.deaths = 1 if settled else seat.deaths + 1
        if seat.deaths >= MAX_DEATHS:
            self.context.note(
                f"worker {seat.index + 1} is given up after {seat.deaths} deaths in a row; "
                f"the last time it {reason}"
            )
            return
        self.context.note(f"worker {seat.index + 1} {reason}; it is replaced and its trials go on")
        self._start(seat)

    def _call_off(self) -> None:
        """Those that wait for a place are not needed."""
        for seat in self.seats:
            if seat.child is not None and not seat.child.placed:
                seat.child.kill()
                seat.child = None

    def _stop(self) -> None:
        """Let all workers save and hand back; end those that do not in time."""
        running = [(seat, seat.child) for seat in self.seats if seat.child is not None]
        for _, child in running:
            child.leave()
        deadline = time.monotonic() + STOP_SECONDS
        for seat, child in running:
            child.wait(deadline - time.monotonic())
            self._listen(seat)
            seat.child = None
        with contextlib.suppress(LrsearchError):  # the database is away: others find them later
            for seat, _ in running:
                if seat.owner is not None:
                    slots.release(self.context.storage, seat.owner)

    def _kill(self) -> None:
        """The second Ctrl-C."""
        for seat in self.seats:
            if seat.child is not None:
                seat.child.kill()


@contextlib.contextmanager
def resting(context: Context) -> Iterator[None]:
    """Keep workers for the next order of a run; at its end they leave."""
    try:
        yield
    finally:
        for _, child in context.resting:
            child.leave()
        deadline = time.monotonic() + STOP_SECONDS
        for _, child in context.resting:
            child.wait(deadline - time.monotonic())
        context.resting.clear()


def spread(asked: str, device: torch.device) -> list[str]:
    """Devices for the workers to take turns on: all GPUs, unless one was asked for.

    Example:
        >>> spread("cpu", torch.device("cpu"))
        ['cpu']
    """
    if device.type == "cuda" and asked in ("auto", "cuda"):
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return [str(device)]
