"""Large imports without the garbage collector."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected(*, keep: bool = True) -> Iterator[None]:
    """Import inside: it makes many objects and no garbage, and looking for some costs a sixth.

    Args:
        keep: What is there afterwards stays for good, and no later collection looks at it again;
            only for a program of ours, whose objects these are.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if keep:
            gc.freeze()
            atexit.register(gc.unfreeze)  # what libraries clean up at the end, they still do
        if enabled:
            gc.enable()
