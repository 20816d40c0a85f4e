"""Tells a tracker (``--log``) of ended trials, in a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread

import optuna
from optuna.trial import FrozenTrial

from lrsearch.errors import brief
from lrsearch.optuna_helpers import storage_of
from lrsearch.search.interrupt import Interrupt
from lrsearch.storage.urls import redact
from lrsearch.tracking import STOPPED

PATIENCE_SECONDS = 60.0  # without an answer, once there is nothing else to do
LEAVE_SECONDS = 2.0  # after Ctrl-C or an error


class TrackerThread:
    """Tells a tracker of ended trials; a server that is slow or gone does not hold training up.

    Args:
        tracker: An Optuna callback; None: nobody is told.
        study: Whose trials they are.
        note: Called with one line where the tracker fails; the study goes on without it.
    """

    def __init__(
        self,
        tracker: Callable[[optuna.Study, FrozenTrial], None] | None,
        study: optuna.Study,
        note: Callable[[str], None],
    ) -> None:
        self._tracker = tracker
        self._study = study
        self._note = note
        self._queue: SimpleQueue[int | None] = SimpleQueue()
        self._given = 0
        self._told = 0
        self._thread = Thread(target=self._run, name="lrsearch-tracker", daemon=True)

    def __enter__(self) -> TrackerThread:
        if self._tracker is not None:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(LEAVE_SECONDS)

    def add(self, trial_id: int) -> None:
        """Queue a trial to be told of."""
        self._given += 1
        self._queue.put(trial_id)

    def finish(self, interrupt: Interrupt) -> None:
        """Return when the tracker has been told of all trials, or has stopped or does not answer.

        Raises:
            Interrupted: On Ctrl-C or SIGTERM.
        """
        told, since = self._told, time.monotonic()
        while self._thread.is_alive() and self._told < self._given:
            interrupt.check()
            interrupt.sleep(0.02)
            if self._told > told:
                told, since = self._told, time.monotonic()
            elif time.monotonic() - since > PATIENCE_SECONDS:
                self._note(
                    f"{STOPPED}: no answer for {PATIENCE_SECONDS:.0f} seconds, "
                    f"{self._given - told} trials are not logged"
                )
                return

    def _run(self) -> None:
        while (trial_id := self._queue.get()) is not None:
            try:
                assert self._tracker is not None
                self._tracker(self._study, storage_of(self._study).get_trial(trial_id))
            except Exception as error:  # noqa: BLE001 - a server far away must not end the study
                self._note(redact(f"{STOPPED}: {brief(error)}"))
                return
            self._told += 1
