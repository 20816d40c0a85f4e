"""Which space asks a trial at the moment: a sampler that knows it can answer for all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrsearch.schedules.space import Space


@dataclass
class Asking:
    """One call of :meth:`Space.suggest`.

    Attributes:
        space: What is asked for.
        proposal: A sampler's answer, value by name, kept for the rest of the call.
    """

    space: Space
    proposal: Mapping[str, Any] | None = None


_NOW: ContextVar[Asking | None] = ContextVar("asking", default=None)


def asking_now() -> Asking | None:
    """The call that this thread is in; None for a parameter beside the schedule."""
    return _NOW.get()


@contextmanager
def asking(space: Space) -> Iterator[None]:
    """Inside, ``space`` asks a trial."""
    before = _NOW.set(Asking(space))
    try:
        yield
    finally:
        _NOW.reset(before)
