"""Reads the file of a schedule, which ``lrsearch export`` or ``lrsearch run`` wrote.

Apart from :mod:`lrsearch.export`: a script that trains with a schedule needs neither Optuna nor a
database, which take half a second to import.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lrsearch.errors import UsageError
from lrsearch.schedules import Schedule
from lrsearch.yamlfile import read_yaml


def read_configuration(path: str | Path) -> dict[str, Any]:
    """The content of an exported file; it may come from a stranger.

    Raises:
        UsageError: If it cannot be read or is no such file.
    """
    value, _ = read_yaml(Path(path))
    if not isinstance(value, Mapping) or not isinstance(value.get("schedule"), Mapping):
        raise UsageError(f"{path}: has no 'schedule:' block; lrsearch export STUDY writes one")
    return dict(value)


def load(path: str | Path) -> Schedule:
    """The schedule in a file that ``lrsearch export`` or ``lrsearch run`` wrote.

    Args:
        path: The YAML file.

    Returns:
        The schedule; ``.build(optimizer, steps_per_epoch=...)`` gives the torch scheduler, and
        ``.interval`` says when to step it.

    Raises:
        UsageError: If the file is missing, damaged, or holds an impossible schedule.

    Example:
        >>> schedule = load("best.yaml")  # doctest: +SKIP
        >>> scheduler = schedule.build(optimizer, steps_per_epoch=len(loader))  # doctest: +SKIP
    """
    try:
        return Schedule.from_dict(read_configuration(path)["schedule"])
    except UsageError as error:
        text = str(error)
        raise UsageError(text if text.startswith(str(path)) else f"{path}: {text}") from None
