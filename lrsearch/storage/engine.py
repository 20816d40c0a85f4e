"""Optuna's relational storage, opened so that many processes share it and outages cost only time.

`open_storage` gives an `optuna.storages.RDBStorage` whose engine is tuned per database and whose
methods wait for a server that went away. `Storage.transact` runs our own statements the same way.
"""

from __future__ import annotations

import atexit
import functools
import os
import random
import time
import weakref
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from lrsearch.errors import LrsearchError
from lrsearch.storage.failures import driver_text, explain, is_transient
from lrsearch.storage.links import Links
from lrsearch.storage.reading import read_trial, read_trials
from lrsearch.storage.schema import delete_study_rows
from lrsearch.storage.tuning import reading
from lrsearch.storage.urls import redact, redact_text, sqlite_file

T = TypeVar("T")

PATIENCE_SECONDS = 900.0  # how long a call waits for a database that went away in mid-run
HURRY_SECONDS, NOTICED_SECONDS = 2.0, 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
_LEAP_SECONDS = 5.0  # by which a clock does not differ, but for one that was set


def persist(
    call: Callable[[], T],
    url: str,
    *,
    patience: Callable[[], float],
    on_wait: Callable[[str], None] | None = None,
) -> tuple[T, bool]:
    """Repeat ``call``, a whole transaction, until the database answers.

    Args:
        call: Must be safe to run again: an answer may get lost after the commit.
        url: For the error text, which holds no password.
        patience: Seconds after the first failure in which it is tried again; may change meanwhile.
        on_wait: Called once with one line when the wait becomes noticeable.

    Returns:
        What ``call`` returned, and whether it had to wait.

    Raises:
        LrsearchError: If waiting does not cure it, or did not within ``patience``.
    """
    since: float | None = None
    pause, noticed = _FIRST_PAUSE, time.monotonic() + NOTICED_SECONDS
    while True:
        try:
            return call(), since is not None
        except (SQLAlchemyError, StorageInternalError) as error:
            since = time.monotonic() if since is None else since
            if not is_transient(error) or time.monotonic() - since >= patience():
                raise explain(error, url) from None
            if on_wait is not None and (pause > 0.5 or time.monotonic() > noticed):
                on_wait(f"waiting for {redact(url)}: {redact_text(driver_text(error), url)}")
                on_wait = None
        resume = time.monotonic() + random.uniform(0.5, 1.0) * pause
        while (now := time.monotonic()) < min(resume, since + patience()):
            time.sleep(min(0.1, resume - now))
        pause = min(2 * pause, _LONGEST_PAUSE)


def _ahead() -> float:
    """How far the wall clock is ahead of the one that stands still while the machine sleeps."""
    return time.time() - time.monotonic()


def _check_there(file: Path) -> None:
    """Make sure that an SQLite file in use is where it was."""
    try:
        there = file.exists()
    except OSError as error:  # no permission for its folder any more, or that is gone
        raise LrsearchError(
            f"storage {file} cannot be reached any more ({error.strerror}); what was committed is "
            "kept: mend that, then run the same command again"
        ) from None
    if not there:
        raise LrsearchError(
            f"storage {file} was deleted while it was in use, and what it held is lost; the same "
            "command begins anew"
        )


def _close(engine: Engine, pid: int) -> None:
    if os.getpid() == pid:  # connections that a fork inherited belong to its parent
        engine.dispose()


class Storage(RDBStorage):
    """`RDBStorage` with a tuned engine, retries, and transactions of our own.

    Attributes:
        label: The URL without its password, for the screen.
        warnings: Lines a person should see once, such as "on a network file system".
        on_wait: Called with one line when the database went away and the call waits for it.
        patience: Seconds that a call, one under way too, waits for a database that went away.
        has_history: False where our own tables may be missing, as a plain Optuna script leaves it.
        recovered_at: ``time.monotonic()`` when this process last came back from such a wait, or
            from the sleep of its machine, or when the clock was set.
        close: Call it to close the connections; the end of the object or the process does it too.
    """

    def __init__(self, url: str, engine_kwargs: dict[str, Any], label: str) -> None:
        self.label = label
        self.warnings: list[str] = []
        self.on_wait: Callable[[str], None] | None = None
        self.patience = PATIENCE_SECONDS
        self.has_history = True
        self.recovered_at: float | None = None
        self._ahead = _ahead()
        # Optuna formats the URL as a template: {SCHEMA_VERSION}.
        template = url.replace("{", "{{").replace("}", "}}")
        super().__init__(
            template, engine_kwargs, skip_compatibility_check=True, skip_table_creation=True
        )
        self._links = Links(self.engine)
        self._file = (file := sqlite_file(self.engine.url)) and file.resolve()
        self.close = weakref.finalize(self, _close, self.engine, os.getpid())
        atexit.register(self.close)  # weakref's own place at the end may be behind `run_and_leave`

    def hurry(self) -> None:
        """Wait no longer than a moment for a database that is away: somebody wants to leave."""
        self.patience = HURRY_SECONDS
        self._links.leave()

    def attempt(self, call: Callable[[], T], *, read: bool = False) -> T:
        """`persist` with this storage's patience; ``read``: takes no write lock on SQLite."""

        def once() -> T:
            if self._file is not None:
                _check_there(self._file)  # a connection would make one
            with reading(read), self._links.asking():
                return call()

        ahead = _ahead()
        if ahead - self._ahead > _LEAP_SECONDS:
            self.recovered_at = time.monotonic()
        self._ahead = ahead  # not before: the heartbeat's thread comes here, too
        result, waited = persist(
            once, self.url, patience=lambda: self.patience, on_wait=self.on_wait
        )
        if waited:
            self.recovered_at = time.monotonic()
        return result

    def transact(self, work: Callable[[Connection], T], *, read: bool = False) -> T:
        """Run ``work(connection)`` in one transaction and return its result after the commit.

        Args:
            work: Gets the connection; it must be safe to run again.
            read: True if it only reads: then it never waits for a writer.
        """

        def once() -> T:
            with self.engine.begin() as connection:
                return work(connection)

        return self.attempt(once, read=read)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """One trial, read by `lrsearch.storage.reading`."""
        trial = self.transact(lambda c: read_trial(c, trial_id), read=True)
        if trial is None:
            raise KeyError(models.NOT_FOUND_MSG)
        return trial

    def delete_study(self, study_id: int) -> None:
        """A study with its trials and their history."""
        self.transact(lambda c: delete_study_rows(c, study_id))

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
        known: Mapping[int, FrozenTrial] | None = None,
    ) -> list[FrozenTrial]:
        wanted = None if states is None else [s for s in TrialState if s in states]
        return self.transact(
            lambda c: read_trials(
                c, study_id, wanted, included_trial_ids, trial_id_greater_than, known or {}
            ),
            read=True,
        )


def _waiting(name: str, *, read: bool) -> Callable[..., Any]:
    """Optuna's method ``name``, repeated while the database is away."""
    original = getattr(RDBStorage, name)

    @functools.wraps(original)
    def method(self: Storage, *args: Any, **kwargs: Any) -> Any:
        return self.attempt(lambda: original(self, *args, **kwargs), read=read)

    return method


#: Methods of Optuna that open one transaction each. A test fails if Optuna adds one.
READS = (
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "get_trial_user_attrs",
    "get_trial_system_attrs",
    "get_all_studies",
    "get_trial_param",
    "get_trial_id_from_study_id_trial_number",
    "_get_best_trial_id",
    "_get_stale_trial_ids",
)
WRITES = (
    "create_new_study",
    "set_study_user_attr",
    "set_study_system_attr",
    "_create_new_trial",
    "_set_trial_param",
    "set_trial_state_values",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "record_heartbeat",
)
for _name in READS:
    setattr(Storage, _name, _waiting(_name, read=True))
for _name in WRITES:
    setattr(Storage, _name, _waiting(_name, read=False))
