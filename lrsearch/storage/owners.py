"""Names of workers, by which others on the machine can tell if they still live, and heartbeats."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import socket
import threading
import uuid
import zlib
from pathlib import Path

from lrsearch.errors import LrsearchError
from lrsearch.storage.engine import Storage
from lrsearch.storage.history import beat_in

#: A worker whose heart has not beaten for so long is taken for dead by other machines.
STALE_SECONDS = 60.0
BEAT_SECONDS = 10.0


def new_owner() -> str:
    """A name for this worker: ``host:machine:pid:start:random``, unique for all time.

    Example:
        >>> new_owner() != new_owner()
        True
    """
    pid = os.getpid()
    host = socket.gethostname().replace(":", "_")[:64]
    return f"{host}:{_machine()}:{pid}:{_process(pid) or 0}:{secrets.token_hex(4)}"


def is_dead(owner: str) -> bool:
    """True only if ``owner`` was a process of this machine and is gone: nobody need wait then."""
    fields = owner.split(":")
    if len(fields) != 5 or fields[1] != _machine() or not fields[2].isdigit():
        return False
    system = platform.system()
    if system == "Windows":  # there is no harmless way to ask
        return False
    pid = int(fields[2])
    if system == "Linux" and (start := _process(pid)) is not None:
        return fields[3] != "0" and start != fields[3]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's: /proc may be mounted so that it shows none of them
        return False
    return system == "Linux" and fields[3] != "0"  # a zombie, where there is a /proc


def _machine() -> str:
    """This boot of this machine and, in containers, its space of process numbers."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    except OSError:
        # Other machines may have this name: two new Macs of one owner do.
        parts += [platform.system(), f"{uuid.getnode():x}"]
    return f"{zlib.crc32('|'.join(parts).encode()):08x}"


def _process(pid: int) -> str | None:
    """When process ``pid`` started, in the kernel's ticks; None if it is gone (Linux)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


class Heartbeat:
    """Beats for ``owner`` in a thread, for epochs longer than `STALE_SECONDS`.

    Args:
        storage: From `open_storage`.
        owner: From `new_owner`.
        seconds: Between two beats.

    Example:
        >>> with Heartbeat(storage, owner):  # doctest: +SKIP
        ...     train()
    """

    def __init__(self, storage: Storage, owner: str, seconds: float = BEAT_SECONDS) -> None:
        self._storage = storage
        self._owner = owner
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lrsearch-heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(timeout=1.0)  # it may be waiting for the database; it is a daemon

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            # What is wrong the worker's own next call says, where a person sees it.
            with contextlib.suppress(LrsearchError):
                self._storage.transact(lambda connection: beat_in(connection, self._owner))
