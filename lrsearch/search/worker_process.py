"""One worker process: told what to do on stdin, it runs the loop and says on stdout what happens.

First line in: a JSON object with the configuration. End of stdin: save, hand back and leave; so a
worker never outlives the process that started it, even if that one was killed. Lines out: JSON
objects with ``owner``, ``note`` or ``error``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lrsearch.config import make
from lrsearch.errors import LrsearchError
from lrsearch.imports import uncollected
from lrsearch.program import run_and_leave
from lrsearch.search.interrupt import Interrupt, Interrupted

Say = Callable[..., None]
"""Tells the process that started us something, by name."""


def main() -> int:
    """Run one worker; returns its exit code."""
    words = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what the user's model prints is none of ours

    def say(**message: str) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more
            words.write(json.dumps(message) + "\n")

    interrupt = Interrupt()
    try:
        with interrupt.listening():
            line = sys.stdin.readline()
            if not line:
                return 0  # whoever made us has no work for us
            order = json.loads(line)
            end = os.dup(sys.stdin.fileno())
            threading.Thread(target=_leave_with, args=(end,), daemon=True).start()
            _work(order, interrupt, say)
    except Interrupted as stop:
        return stop.exit_code
    except LrsearchError as error:
        say(error=str(error))
        return 1
    return 0


def _work(order: dict[str, Any], interrupt: Interrupt, say: Say) -> None:
    with uncollected():
        from lrsearch.search.context import Context, deadline_in
        from lrsearch.search.make import make_worker
        from lrsearch.search.methods import PRUNERS
        from lrsearch.search.plan import make_plan, ordered, with_lr_range
        from lrsearch.search.study import load_study, open_study
        from lrsearch.storage import open_storage
        from lrsearch.storage.engine import PATIENCE_SECONDS

    def note(line: str) -> None:
        say(note=line)

    out = str(Path(order["config"]["out"]).resolve())  # the task may go elsewhere
    # What is missing here must not be made anew: then this is not the machine where it lies.
    url = order["config"]["storage"]
    storage = open_storage(url, create=False, patience=PATIENCE_SECONDS, on_wait=note)
    storage.on_wait = None  # whoever started us waits for the same database, and says so
    interrupt.hurry.append(storage.hurry)
    _import_families(order["families"], order["config"]["task"])
    config = make({**order["config"], "out": out})
    plan = make_plan(config)
    plan = dataclasses.replace(
        plan, choice=dataclasses.replace(plan.choice, threads=order["threads"])
    )
    context = Context(storage, interrupt, note, deadline=deadline_in(config.timeout))
    if order["confirms"]:
        from lrsearch.search.confirm_worker import make_confirm_worker

        study = load_study(storage, order["confirms"])
        worker = make_confirm_worker(plan, study, context)
    else:
        study = open_study(storage, config, plan.to_dict())
        plan, _ = with_lr_range(ordered(plan, study), study, storage)
        study.pruner = PRUNERS[config.pruner](plan.epochs)
        worker = make_worker(plan, study, context)
    say(owner=worker.owner)
    worker.run()


def _import_families(homes: Mapping[str, str], task: str) -> None:
    """Have the schedule families of the user's own; the task may bring them."""
    from lrsearch.schedules import FAMILIES
    from lrsearch.tasks.modules import import_module, import_place

    if homes and ":" in task:
        import_place(task)
    for name, file in homes.items():
        if name not in FAMILIES:
            import_module(file, "schedule family")


def _leave_with(end: int) -> None:
    """When whoever started us is gone, or closes the pipe, be as if SIGTERM had come.

    Reads the file itself: to wait in ``sys.stdin.read`` would hold that object's lock, for which a
    process forked meanwhile (of a DataLoader) waits for ever when it closes its ``sys.stdin``.
    """
    while os.read(end, 1024):
        pass
    if sys.platform == "win32":  # where os.kill ends the process without a handler
        signal.raise_signal(signal.SIGTERM)
    else:  # wakes the main thread where it waits
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    run_and_leave(main)
