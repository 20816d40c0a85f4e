"""Ways to import large packages faster: imports are a quarter of the time of a short study."""

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
"""Prefix of the module name of a user's file; the name of the file follows."""


@contextmanager
def uncollected(*, keep: bool = True) -> Iterator[None]:
    """No garbage collection during the imports inside, which takes a sixth of their time.

    Args:
        keep: Also keep all objects that exist afterwards out of later collections. Only for a
            program of ours, in which these objects stay to the end.
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
    """Do not import the module ``name`` during the imports inside, but when it is first used.

    What imports it inside gets stand-ins for its functions, which import the module when they are
    called. Nothing changes where the module is imported already.
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
    """Import single modules of the package ``name`` inside, without running its ``__init__``.

    These modules stay. Whoever imports the package afterwards gets the whole of it.
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
    """Takes the place of a module that is not imported yet."""

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
