"""From a URL to a `Storage`: what is checked, made and tuned before the first call."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import optuna
import sqlalchemy
from sqlalchemy.engine import URL

from lrsearch.errors import LrsearchError
from lrsearch.storage.engine import Storage, persist
from lrsearch.storage.schema import SchemaMismatch, create_schema, is_current, is_optunas
from lrsearch.storage.tuning import engine_kwargs, reading
from lrsearch.storage.urls import (
    check_sqlite_file,
    is_shared,
    is_writable,
    network_file_system,
    parse_storage_url,
    redact,
    sqlite_file,
)

LOCKED_SECONDS = 60.0  # how long opening waits for an SQLite file that is locked


def open_storage(
    url: str,
    *,
    create: bool = True,
    patience: float = 0.0,
    on_wait: Callable[[str], None] | None = None,
) -> Storage:
    """Open the database at ``url`` for Optuna and for our own tables.

    Any number of processes may open, and create, the same one at the same time. On SQLite the
    write-ahead log is on (not on a network file system, where it does not work); on servers,
    connections are checked before use. Later calls wait up to 15 minutes for a server that went
    away.

    Args:
        url: See `lrsearch.storage.urls.parse_storage_url`.
        create: Make the file and the tables where they are missing. With False a missing database
            is an error, one of a plain Optuna script is left as it is, without a write-ahead log
            too, and a read-only SQLite file can be read, while another user writes it as well.
        patience: Seconds to wait for a server that does not answer now; for an SQLite file that
            another process has locked, at least 60.
        on_wait: Called with one line if it, or a later call, waits for longer than a moment.

    Raises:
        UsageError: If the URL is wrong or its driver is not installed.
        LrsearchError: If the database cannot be reached, read or written, is no database, or was
            made by another version of Optuna. One line, without the password.

    Example:
        >>> storage = open_storage("sqlite:///lrsearch.db")  # doctest: +SKIP
    """
    parsed = parse_storage_url(url)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings, path = list[str](), sqlite_file(parsed)
    wal = create  # for every program that opens the file, and for good: not of one only read
    if path is not None:
        check_sqlite_file(path, create=create)
        kind = network_file_system(path)
        if kind is not None:
            wal = False
            warnings.append(
                f"{path} lies on a network file system ({kind}), where SQLite's locks are not "
                "safe: use one process, or a postgresql:// storage"
            )
        if not create and not is_writable(path):
            parsed, wal = _read_only_url(parsed, path), False
    full_url = parsed.render_as_string(hide_password=False)

    def construct() -> Storage:
        engine = sqlalchemy.create_engine(full_url, **engine_kwargs(parsed, wal=wal))
        try:
            with reading(True):
                current = is_current(engine)
            if not current and create:
                create_schema(engine)  # also beside the studies of a plain Optuna script
            elif not current and not is_optunas(engine):
                raise SchemaMismatch("holds no lrsearch study; lrsearch run makes one")
        finally:
            engine.dispose()
        with reading(True):
            storage = Storage(full_url, engine_kwargs(parsed, wal=wal), redact(url))
        storage.has_history = current or create
        return storage

    patience = patience if path is None else max(patience, LOCKED_SECONDS)
    try:
        storage, _ = persist(construct, full_url, patience=lambda: patience, on_wait=on_wait)
    except SchemaMismatch as error:
        raise LrsearchError(f"storage {redact(url)}: {error}") from None
    storage.warnings, storage.on_wait = warnings, on_wait
    return storage


def _read_only_url(url: URL, path: Path) -> URL:
    """The file as whoever writes it shows it; where nobody does, SQLite need not lock it.

    It cannot where a log was kept and this user may not make the files that go with it.
    """
    read = url.set(database=f"file:{quote(os.fsencode(path.resolve()))}").update_query_dict(
        {"mode": "ro", "uri": "true"}
    )
    return read if is_shared(path) else read.update_query_dict({"immutable": "1"})
