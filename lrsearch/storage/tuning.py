"""How each database is connected to: SQLite for many processes, servers for long runs."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.dialects import plugins
from sqlalchemy.engine import URL, Connection, CreateEnginePlugin, Engine

#: How long one SQLite statement waits for another writer. No signal is heard meanwhile, so the
#: longer waits are `lrsearch.storage.engine.persist`'s.
BUSY_SECONDS = 1.0
#: Which part of an SQLite file must be free for `shrink` to write the rest anew.
MUCH = 0.25


class _Mode(threading.local):
    reading = False


_mode = _Mode()


@contextmanager
def reading(active: bool) -> Iterator[None]:
    """Transactions begun inside only read if ``active``: on SQLite they take no write lock."""
    before = _mode.reading
    _mode.reading = active
    try:
        yield
    finally:
        _mode.reading = before


class TuningPlugin(CreateEnginePlugin):
    """SQLAlchemy's hook that tunes an SQLite engine before its first connection is made.

    Writers say ``BEGIN IMMEDIATE``: they queue for the write lock at the start instead of failing
    in the middle, and what Optuna reads before it writes is still true when it writes. Readers say
    ``BEGIN`` and see one snapshot, without waiting for anyone, thanks to the write-ahead log.
    """

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        self.wal = bool(kwargs.pop("lrsearch_wal"))

    def update_url(self, url: URL) -> URL:
        return url

    def engine_created(self, engine: Engine) -> None:
        if engine.dialect.name != "sqlite":
            return
        event.listen(engine, "connect", self._on_connect)
        event.listen(engine, "begin", self._on_begin)

    def _on_connect(self, connection: Any, record: Any) -> None:
        connection.isolation_level = None  # transactions begin where _on_begin says, nowhere else
        cursor = connection.cursor()
        try:
            cursor.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
            cursor.execute("PRAGMA foreign_keys = ON")
            wal = cursor.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
            if self.wal and not wal:
                _switch_to_wal(cursor)
            cursor.execute(f"PRAGMA synchronous = {'NORMAL' if self.wal or wal else 'FULL'}")
        finally:
            cursor.close()

    @staticmethod
    def _on_begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if _mode.reading else "BEGIN IMMEDIATE")


plugins.register("lrsearch", __name__, "TuningPlugin")


def _switch_to_wal(cursor: sqlite3.Cursor) -> None:
    """Needs the file for itself for a moment, and does not use the busy timeout: try again."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.005, 0.05))


def shrink(engine: Engine) -> None:
    """Give the disk back what an SQLite file no longer uses, where that is much of it.

    The file is written anew, in one transaction. It stays as it is where trials of another study
    run, where another process holds it, or where the disk has no room for the copy: what comes
    next fills it again.
    """
    if engine.dialect.name != "sqlite":
        return
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        sizes = []
        for name in ("freelist_count", "page_count"):
            cursor.execute(f"PRAGMA {name}")
            sizes += [int(size) for (size,) in cursor.fetchall()]
        cursor.execute("SELECT EXISTS (SELECT 1 FROM trials WHERE state = 'RUNNING')")
        ((running,),) = cursor.fetchall()
        if sizes[0] > MUCH * sizes[1] and not running:
            cursor.execute("VACUUM")
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # it is in the log until then
    except sqlite3.OperationalError:
        return
    finally:
        connection.close()


def engine_kwargs(url: URL, *, wal: bool) -> dict[str, Any]:
    """Arguments of ``sqlalchemy.create_engine`` for ``url``; ``wal``: switch on SQLite's log."""
    kwargs: dict[str, Any] = {"plugins": ["lrsearch"], "lrsearch_wal": wal}
    if url.drivername.startswith("sqlite"):
        kwargs["connect_args"] = {"timeout": BUSY_SECONDS}
        return kwargs
    kwargs |= {"pool_pre_ping": True, "pool_recycle": 1800, "pool_size": 4}
    # What is read under a lock is the latest then, whatever the server's default, and MySQL locks
    # no gaps.
    kwargs["isolation_level"] = "READ COMMITTED"
    if url.drivername.startswith("postgresql"):
        kwargs["connect_args"] = {
            "connect_timeout": 10,
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,  # ms; else 15 minutes where a network is gone silently
            "application_name": "lrsearch",
            # Behind a pooler (PgBouncer) each transaction may have another session.
            "prepare_threshold": None,
        }
    else:
        kwargs["connect_args"] = {"connect_timeout": 10, "charset": "utf8mb4"}
    # What the URL says itself comes first.
    kwargs["connect_args"] = {
        k: v for k, v in kwargs["connect_args"].items() if k not in url.query
    }
    return kwargs
