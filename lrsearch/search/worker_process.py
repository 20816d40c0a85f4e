"""One worker process: told what to do on stdin, it runs the loop and says on stdout what happens.

Lines in: orders, JSON objects with the configuration, one at a time. Who is done waits for the
next. An empty line or the end of stdin: save, hand back and leave; so a worker never outlives the
process that started it, even if that one was killed. Lines out: JSON objects with ``owner``,
``note``, ``error`` or ``done``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsearch.config import make
from lrsearch.errors import LrsearchError
from lrsearch.imports import uncollected
from lrsearch.program import run_and_leave
from lrsearch.search.child import Order
from lrsearch.search.interrupt import Interrupt, Interrupted

if TYPE_CHECKING:
    from lrsearch.search.plan import Plan
    from lrsearch.storage.engine import Storage

POLL_SECONDS = 0.2
Say = Callable[..., None]
"""Tells the process that started us something, by name."""


class Orders:
    """The orders on stdin. Its end, or an empty line, is as SIGTERM while one is carried out.

    Reads the file itself: to wait in ``sys.stdin.read`` would hold that object's lock, for which a
    process forked meanwhile (of a DataLoader) waits for ever when it closes its ``sys.stdin``.

    Args:
        end: Number of the open file.
        interrupt: Takes the signals. Where one has come, a second would end the process at once.
    """

    def __init__(self, end: int, interrupt: Interrupt) -> None:
        self._interrupt = interrupt
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._working = False
        self._thread = threading.Thread(target=self._hear, args=(end,), daemon=True)
        self._thread.start()

    def _hear(self, end: int) -> None:
        for line in _lines(end):
            if not line:
                break
            self._working = True
            self._lines.put(line)
        self._lines.put("")
        if not self._working or self._interrupt.asked:
            return
        if sys.platform == "win32":  # where os.kill ends the process without a handler
            signal.raise_signal(signal.SIGTERM)
        else:  # wakes the main thread where it waits
            os.kill(os.getpid(), signal.SIGTERM)

    def next(self) -> Order | None:
        """The next order; None when whoever started us is gone, or has no more.

        Raises:
            Interrupted: On SIGINT or SIGTERM.
        """
        while True:
            self._interrupt.check()
            with contextlib.suppress(queue.Empty):
                line = self._lines.get(timeout=POLL_SECONDS)
                return dict(json.loads(line)) if line else None

    def done(self) -> None:
        """The last one is carried out."""
        self._working = False


def _lines(end: int) -> Iterator[str]:
    left = b""
    while some := os.read(end, 1 << 16):
        *whole, left = (left + some).split(b"\n")
        yield from (line.decode().strip() for line in whole)  # Windows ends them with CR LF


@dataclass(frozen=True)
class Ready:
    """What was made for the first order and serves the next ones.

    Attributes:
        plan: What is trained, and how.
        storage: The database.
    """

    plan: Plan
    storage: Storage


def main() -> int:
    """Run one worker; returns its exit code."""
    words = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what the user's model prints is none of ours

    def say(**message: Any) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more
            words.write(json.dumps(message) + "\n")

    interrupt = Interrupt()
    ready = None
    try:
        with interrupt.listening():
            orders = Orders(os.dup(0), interrupt)
            while (order := orders.next()) is not None:
                ready = _work(order, interrupt, say, ready)
                orders.done()
                say(done=True)
    except Interrupted as stop:
        return stop.exit_code
    except LrsearchError as error:
        say(error=str(error))
        return 1
    return 0


def _work(order: Order, interrupt: Interrupt, say: Say, ready: Ready | None) -> Ready:
    """Carry out an order."""
    with uncollected() if ready is None else contextlib.nullcontext():
        from lrsearch.search.context import Context, deadline_in
        from lrsearch.search.make import make_worker
        from lrsearch.search.methods import PRUNERS
        from lrsearch.search.plan import ordered, with_lr_range
        from lrsearch.search.study import load_study, open_study
        from lrsearch.training.device import give_back

    def note(line: str) -> None:
        say(note=line)

    if ready is None:
        ready = _made_ready(order, interrupt, note)
    plan, storage = ready.plan, ready.storage
    context = Context(storage, interrupt, note, deadline=deadline_in(order["config"]["timeout"]))
    if order["confirms"]:
        from lrsearch.search.confirm_worker import make_confirm_worker

        study = load_study(storage, order["confirms"])
        worker = make_confirm_worker(plan, study, context)
    else:
        study = open_study(storage, plan.config, plan.to_dict())
        plan, _ = with_lr_range(ordered(plan, study), study, storage)
        study.pruner = PRUNERS[plan.config.pruner](plan.epochs)
        worker = make_worker(plan, study, context)
    say(owner=worker.owner)
    worker.run()
    del worker
    give_back(plan.device)
    return ready


def _made_ready(order: Order, interrupt: Interrupt, note: Callable[[str], None]) -> Ready:
    """Open the database, load the task and plan the training."""
    from lrsearch.search.plan import make_plan
    from lrsearch.storage import open_storage
    from lrsearch.storage.engine import PATIENCE_SECONDS

    told = order["config"]
    out = str(Path(told["out"]).resolve())  # the task may go elsewhere
    # What is missing here must not be made anew: then this is not the machine where it lies.
    storage = open_storage(told["storage"], create=False, patience=PATIENCE_SECONDS, on_wait=note)
    storage.on_wait = None  # whoever started us waits for the same database, and says so
    interrupt.hurry.append(storage.hurry)
    _import_families(order["families"], told["task"])
    plan = make_plan(make({**told, "out": out}))
    choice = dataclasses.replace(plan.choice, threads=order["threads"])
    return Ready(dataclasses.replace(plan, choice=choice), storage)


def _import_families(homes: Mapping[str, str], task: str) -> None:
    """Have the schedule families of the user's own; the task may bring them."""
    from lrsearch.schedules import FAMILIES
    from lrsearch.tasks.modules import import_module, import_place

    if homes and ":" in task:
        import_place(task)
    for name, file in homes.items():
        if name not in FAMILIES:
            import_module(file, "schedule family")


if __name__ == "__main__":
    run_and_leave(main)
