"""Reads YAML that anybody may have written: safe loader, size limit, no aliases, lines of keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from lrsearch.errors import UsageError, first_line

MAX_FILE_BYTES = 256 * 1024
BROKEN = (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError)
"""What the safe loader raises; the last two are for ``!!bool 3`` and ``!!timestamp x``."""


class _Loader(yaml.SafeLoader):
    """Leaves as text what YAML 1.1 takes for another number than people mean, or for a date.

    ``010`` is eight there, ``1:30`` ninety, ``0x10`` sixteen. A text is read as a shell's word is.
    """


_INT, _TIME = "tag:yaml.org,2002:int", "tag:yaml.org,2002:timestamp"
_Loader.yaml_implicit_resolvers = {
    first: [row for row in rows if row[0] not in (_INT, _TIME)]
    for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_INT, re.compile(r"[-+]?(0|[1-9][0-9_]*)$"), list("-+0123456789"))


def plain_value(text: str | bytes) -> Any:
    """The value that a text of YAML has.

    Raises:
        One of ``BROKEN``.

    Example:
        >>> plain_value("[10, 010, 0.1, 2026-01-01, off]")
        [10, '010', 0.1, '2026-01-01', False]
    """
    return yaml.load(text, Loader=_Loader)


def read_yaml(path: Path) -> tuple[Any, dict[str, int]]:
    """Plain values of a YAML file (safe loader, size limit) and the line of each dotted key."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from None
    if len(data) > MAX_FILE_BYTES:
        raise UsageError(f"{path}: larger than {MAX_FILE_BYTES // 1024} KiB, not a file of ours")
    if b"&" in data and b"*" in data and _has_alias(data):
        raise UsageError(f"{path}: YAML aliases (*name) are not supported; write the value out")
    try:
        node = yaml.compose(data, Loader=_Loader)
        value = plain_value(data)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"line {mark.line + 1}  " if mark else ""
        raise UsageError(f"{path}: {line}not valid YAML: {error.problem}") from None
    except BROKEN as error:
        raise UsageError(f"{path}: not valid YAML: {first_line(error)}") from None
    lines: dict[str, int] = {}
    _collect_lines(node, "", lines, path)
    return value, lines


def _has_alias(data: bytes) -> bool:
    """Whether the YAML uses an alias; those can blow a small file up to any size."""
    try:
        return any(isinstance(t, yaml.AliasToken) for t in yaml.scan(data, yaml.SafeLoader))
    except yaml.YAMLError:
        return False  # the parser proper will say what is wrong
    except RecursionError:
        return True


def _collect_lines(node: yaml.Node | None, prefix: str, lines: dict[str, int], file: Path) -> None:
    """The line of each dotted key; one that stands twice would silently be the last of them."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path, line = f"{prefix}{key.value}", key.start_mark.line + 1
            if path in lines:
                raise UsageError(
                    f"{file}: line {line}  {path} stands in line {lines[path]} too; keep one"
                )
            lines[path] = line
            _collect_lines(value, f"{path}.", lines, file)
