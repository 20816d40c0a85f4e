"""Cuts the connections to a database server that does not answer, so that Ctrl-C can end a run."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

ANSWER_SECONDS = 4.0  # for which a call may wait for an answer then
_CONNECT_SECONDS = 2  # the least that libpq knows
_POLL_SECONDS = 0.2


class Links:
    """The network connections of an engine; SQLite has none.

    A server that is down refuses, and that is an error at once. One that is frozen, or behind a
    network that is gone, says nothing: then a call waits for its answer, and no signal ends that.
    """

    def __init__(self, engine: Engine) -> None:
        self._open: weakref.WeakSet[Any] = weakref.WeakSet()
        self._asked: dict[object, float] = {}
        self._leaving = engine.dialect.name == "sqlite"
        # What a connection raises that has ended, each driver in its own way.
        self._gone = (OSError, ValueError, AttributeError, engine.dialect.loaded_dbapi.Error)
        if not self._leaving:
            engine.dispose()  # Optuna has connected already
            event.listen(engine, "connect", lambda connection, _: self._open.add(connection))
            event.listen(engine, "do_connect", self._connecting)

    def _connecting(self, dialect: Any, record: Any, args: Any, how: dict[str, Any]) -> None:
        if self._leaving:
            how["connect_timeout"] = _CONNECT_SECONDS

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Around what waits for the server."""
        call = object()
        self._asked[call] = time.monotonic()
        try:
            yield
        finally:
            del self._asked[call]

    def leave(self) -> None:
        """From now on cut all connections when a call waits for too long."""
        if not self._leaving:
            self._leaving = True
            threading.Thread(target=self._watch, name="lrsearch-links", daemon=True).start()

    def _watch(self) -> None:
        leaving = time.monotonic()
        while True:
            time.sleep(_POLL_SECONDS)
            oldest = min(self._asked.copy().values(), default=None)
            if oldest is None or time.monotonic() - max(oldest, leaving) < ANSWER_SECONDS:
                continue
            leaving = time.monotonic()
            for connection in self._open.copy():
                with contextlib.suppress(*self._gone):
                    _cut(connection)


def _cut(connection: Any) -> None:
    """Whoever waits for an answer on it gets an error now, as if the server had gone."""
    file = connection if hasattr(connection, "fileno") else connection._sock  # PyMySQL's
    link = socket.socket(fileno=file.fileno())
    try:
        link.shutdown(socket.SHUT_RDWR)
    finally:
        link.detach()
