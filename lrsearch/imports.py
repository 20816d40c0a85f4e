"""Large imports without what they need not do: they are a quarter of a short study."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

MODULE_OF_A_FILE = "lrsearch_task_"
"""How the module of a file of the user's is called, before the file's own name."""


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


@contextmanager
def postponed(name: str) -> Iterator[None]:
    """Import inside what imports the module ``name`` only for functions that it may call one day.

    It gets stand-ins, which import the module when they are used. Where the module is there
    already, nothing is different.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = stand_in = _Postponed(name)
    package, _, last = name.rpartition(".")
    attributes = vars(sys.modules[package]) if package in sys.modules else {}
    attributes.setdefault(last, stand_in)  # some packages import by themselves what is missing
    try:
        yield
    finally:
        del sys.modules[name]
        if attributes[last] is stand_in:
            del attributes[last]


@contextmanager
def hollow(name: str) -> Iterator[None]:
    """Import inside single modules of the package ``name``, without all that it imports itself.

    Those modules stay, and the package is imported as ever by whoever wants it afterwards.
    """
    spec = None if name in sys.modules else find_spec(name)
    if spec is None:
        yield
        return
    sys.modules[name] = module_from_spec(spec)
    try:
        yield
    finally:
        del sys.modules[name]


class _Postponed(ModuleType):
    """In the place of a module that is not imported yet."""

    def __getattr__(self, attribute: str) -> _Later:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return _Later(self.__name__, attribute)


class _Later:
    """Stands for a function or object of a module that is not imported yet."""

    def __init__(self, module: str, name: str) -> None:
        self._place = module, name

    def _real(self) -> Any:
        module, name = self._place
        return getattr(import_module(module), name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._real()(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)
