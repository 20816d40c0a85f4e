"""What stays the same from the start of a run to its end, whoever works for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lrsearch.search.interrupt import Interrupt

if TYPE_CHECKING:
    from lrsearch.search.child import LocalChild
    from lrsearch.search.forked import Forked
    from lrsearch.search.ray_launcher import Cluster, RayChild
    from lrsearch.storage.engine import Storage


@dataclass(frozen=True)
class Context:
    """A run of one process, as all that works for it sees it.

    Attributes:
        storage: The database of the search and of its confirmation.
        interrupt: Set by Ctrl-C and SIGTERM.
        note: Called with one line for the user.
        cluster: Where the workers run; None: here.
        task: The task, where it is a Python object.
        deadline: ``time.monotonic()`` after which no new trial starts, if any.
        spares: Processes that wait to be workers (:mod:`lrsearch.search.forked`).
        resting: Workers that have done an order and wait for another, each with its device.
    """

    storage: Storage
    interrupt: Interrupt
    note: Callable[[str], None]
    cluster: Cluster | None = None
    task: Any = None
    deadline: float | None = None
    spares: list[Forked] = field(default_factory=list)
    resting: list[tuple[str, LocalChild | RayChild]] = field(default_factory=list)

    def time_is_up(self) -> bool:
        """Whether no new trial may start."""
        return self.deadline is not None and time.monotonic() > self.deadline


def deadline_in(seconds: float | None) -> float | None:
    """The time of ``time.monotonic()`` in so many seconds; None for None."""
    return None if seconds is None else time.monotonic() + seconds
