"""Imports the files and modules of a user: his task, and the schedule families that it brings."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from lrsearch.errors import LrsearchError, UsageError
from lrsearch.imports import MODULE_OF_A_FILE
from lrsearch.tasks import FROM_PYTHON
from lrsearch.tasks.mistakes import with_place

_GONE: dict[str, ModuleType] = {}
"""Files that went to another folder when they were imported, by the words that named them: from
there they are asked for again."""


def import_place(target: str) -> ModuleType:
    """Import the file or module of a task; what it registers is then there.

    Args:
        target: As for :func:`lrsearch.tasks.custom.import_task`.

    Raises:
        UsageError: There is no such file or module.
        LrsearchError: Its code raises.
    """
    if target.startswith(FROM_PYTHON):
        raise UsageError(
            f"task {target.removeprefix(FROM_PYTHON)} was given as a Python object, which no "
            "command finds: pass it again as task= of lrsearch.search or lrsearch.confirm, or put "
            "it in a file and search with --task file.py:name"
        )
    return import_module(target.rpartition(":")[0])


def import_module(place: str, what: str = "task") -> ModuleType:
    """Import ``path/file.py`` or ``package.module``; ``what`` it is, for the message.

    Raises:
        UsageError: There is no such file or module.
        LrsearchError: Its code raises.
    """
    is_file = place.endswith(".py")
    if not is_file and not all(part.isidentifier() for part in place.split(".")):
        raise UsageError(f"{what} {place} is neither a file.py nor a package.module")
    if is_file and not Path(place).is_file():
        known = _GONE.get(place)
        if known is not None and Path(str(known.__file__)).is_file():
            return known
        seen = f", seen from {Path.cwd()}; run it where the file is"
        seen = "" if Path(place).is_absolute() else seen
        raise UsageError(f"{what} file {place} does not exist{seen}")
    try:
        if not is_file:
            if "" not in sys.path and str(Path.cwd()) not in sys.path:
                sys.path.insert(0, str(Path.cwd()))
            return importlib.import_module(place)
        here, path = Path.cwd(), Path(place).resolve()
        name = f"{MODULE_OF_A_FILE}{path.stem}"
        known = sys.modules.get(name)
        if known is not None and getattr(known, "__file__", None) == str(path):
            return known
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # so that its classes can be pickled for loader processes
        if str(path.parent) not in sys.path:
            sys.path.insert(0, str(path.parent))
        try:
            _execute(spec.loader, module, path)
        except BaseException:
            del sys.modules[name]
            raise
        if Path.cwd() != here:
            _GONE[place] = module
        return module
    except ModuleNotFoundError as error:
        if (
            not is_file
            and error.name
            and (place == error.name or place.startswith(error.name + "."))
        ):
            form = "FILE.py" if what == "--import" else "file.py:name"
            raise UsageError(
                f"{what} module {place} cannot be found; run from its folder, or give {form}"
            ) from error
        raise LrsearchError(f"{what} {place}: {error}") from error
    except Exception as error:  # the user's file may raise anything
        raise LrsearchError(f"{what} {place} raises when imported: {with_place(error)}") from error


def _execute(loader: Any, module: ModuleType, path: Path) -> None:
    """Run a file as a module; a script that reads its command line must not see ours."""
    ours = sys.argv
    sys.argv = [str(path)]
    try:
        loader.exec_module(module)
    except SystemExit:
        raise LrsearchError(
            f"{path.name} ends the program when it is imported (does it parse arguments?); put "
            'what it does as a script under  if __name__ == "__main__":'
        ) from None
    finally:
        sys.argv = ours
