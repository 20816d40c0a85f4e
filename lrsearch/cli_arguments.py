"""What the commands share: arguments, and how words become values."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lrsearch.errors import UsageError
from lrsearch.imports import uncollected
from lrsearch.settings import SETTINGS, default_storage

if TYPE_CHECKING:
    import optuna

    from lrsearch.storage import Storage

Call = Callable[[argparse.Namespace], int]


def out(text: str) -> None:
    """A line on stdout."""
    sys.stdout.write(text + "\n")


def out_json(value: Any) -> None:
    """A value on stdout, as JSON that every reader takes: null for a number that is not finite."""
    out(json.dumps(_finite(value), allow_nan=False))


def aside(args: argparse.Namespace) -> contextlib.AbstractContextManager[Any]:
    """Where the answer is JSON, what a user's own files print goes to stderr, as of a worker."""
    if not getattr(args, "json", False):
        return contextlib.nullcontext()
    return contextlib.redirect_stdout(sys.stderr)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, (list, tuple)) else value


def note(text: str) -> None:
    """A line on stderr, at once, if there is anyone who reads it."""
    with contextlib.suppress(OSError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def note_unless_quiet(args: argparse.Namespace) -> Callable[[str], None]:
    """:func:`note`; under ``--quiet`` and ``--json`` what says nothing."""
    return (lambda text: None) if args.quiet or args.json else note


def whole(text: str) -> int:
    """An argument that is a whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"needs a whole number, got {text!r}") from None


def place(text: str) -> str:
    """An argument that names a file or a folder; an empty one is an unset variable of a shell."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"needs the name of a file or folder, got {text!r}")
    return text


def study_argument(sub: argparse.ArgumentParser, nargs: str | None = None) -> None:
    """``STUDY``: its name."""
    told = "its name (lrsearch studies lists them)"
    sub.add_argument("study", metavar="STUDY", nargs=nargs, help=told)


def storage_argument(sub: argparse.ArgumentParser) -> None:
    """``--storage``: the database."""
    sub.add_argument(
        "--storage", metavar="URL", default=default_storage(), help=SETTINGS["storage"].help
    )


def named_study(args: argparse.Namespace) -> tuple[optuna.Study, Storage]:
    """The study that was named, and its database."""
    with uncollected():
        from lrsearch.search.study import load_study
        from lrsearch.storage import open_storage

    storage = open_storage(args.storage, create=False)
    return load_study(storage, args.study), storage


def json_argument(sub: argparse.ArgumentParser) -> None:
    """``--json``: for programs."""
    sub.add_argument("--json", action="store_true", help="one JSON object on stdout")


def import_argument(sub: argparse.ArgumentParser) -> None:
    """``--import``: code of the user's own that must be there first."""
    sub.add_argument(
        "--import",
        dest="imports",
        metavar="FILE.py",
        action="append",
        default=[],
        help="import this file or module first, for schedule families of your own",
    )


def pairs(texts: Sequence[str], what: str) -> dict[str, Any]:
    """``KEY=VALUE`` texts with YAML values; a comma makes a list."""
    from lrsearch.yamlfile import BROKEN, plain_value

    pairs: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"{what} needs KEY=VALUE, got {text!r}")
        listed = f"[{value}]" if "," in value and value[:1] != "[" else value
        try:
            pairs[key] = plain_value(listed)
        except BROKEN:
            raise UsageError(f"{what} {key}: {value!r} is no plain value") from None
    return pairs
