"""``lrsearch.search(...)``: packages of ours that are also functions of the Python API."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """A module that, called, calls the function of its own name in :mod:`lrsearch.api`.

    Once ``lrsearch.search`` is imported as a package, Python binds that name to the package; the
    function that users call has to be the same object.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _function(self.__name__)(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(_function(self.__name__))


def _function(module: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(import_module("lrsearch.api"), module.rpartition(".")[2])
    return found


def make_callable(name: str) -> None:
    """Make the module ``name`` a :class:`CallableModule`."""
    sys.modules[name].__class__ = CallableModule
