"""StudyConfig: the one description of a search, checked once at the door.

A configuration comes from a YAML file, from the command line, or from Python, always through
:func:`make`. Every setting is one row of :data:`lrsearch.settings.SETTINGS`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lrsearch import values
from lrsearch.errors import ConfigError, UsageError, suggestion
from lrsearch.settings import SETTINGS, default_storage
from lrsearch.yamlfile import read_yaml


@dataclass(frozen=True)
class StudyConfig:
    """Everything that decides what a search does. Field meanings and ranges: :data:`SETTINGS`.

    ``None`` means "the task's own default" (``epochs``, ``lr``, ...) and is resolved where the
    task is known.
    """

    task: str = "digits"
    model: str | None = None
    name: str | None = None
    trials: int = 200
    epochs: int | None = None
    schedules: Mapping[str, Mapping[str, Any]] | None = None
    lr: tuple[float, float] | str | None = None
    warmup: bool = True
    interval: Literal["auto", "epoch", "step"] = "auto"
    baselines: bool | Mapping[str, Mapping[str, Any]] = True
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int | None = None
    train_samples: int | None = None
    seed: int = 0
    sampler: str = "trace"
    pruner: str = "schedule"
    timeout: float | None = None
    robust: bool | None = None
    confirm: int = 0
    storage: str = field(default_factory=default_storage)
    data_dir: str | None = None
    out: str = "lrsearch-results"
    device: str = "auto"
    precision: str = "auto"
    fuse: str = "auto"
    workers: str = "auto"
    launcher: str = "local"
    gpus_per_worker: float | None = None
    compile: bool = False
    log: str | None = None

    @property
    def study_name(self) -> str:
        """The study's name: ``name``, else the task's.

        Of a user's own it is the last part, or the file's name where that is just ``task``.

        Example:
            >>> StudyConfig("mine.py:Rose").study_name, StudyConfig("mine.py:task").study_name
            ('Rose', 'mine')
        """
        if self.name is not None:
            return self.name
        return values.short_task_name(self.task)

    def identity(self) -> dict[str, Any]:
        """The settings that make it this study; changing one needs another study."""
        return {key: getattr(self, key) for key, s in SETTINGS.items() if s.identity}

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain JSON values."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


def make(
    raw_values: Mapping[str, Any],
    *,
    where: Callable[[str], str] = lambda path: f"{path}: ",
) -> StudyConfig:
    """Check raw values and make a :class:`StudyConfig`.

    Args:
        raw_values: Setting name -> raw value; settings that are None or left out keep their
            default.
        where: Prefix of a mistake for a path such as ``schedules.StepLR.gamma``.

    Raises:
        ConfigError: With all mistakes at once.

    Example:
        >>> make({"task": "digits", "trials": "50"}).trials
        50
    """
    mistakes: list[str] = []
    checked: dict[str, Any] = {}
    for key, raw in raw_values.items():
        setting = SETTINGS.get(key)
        if setting is None:
            question = suggestion(str(key), SETTINGS) or f" (known: {', '.join(SETTINGS)})"
            mistakes.append(f"{where(str(key))}unknown key{question}")
            continue
        if raw is None and key != "pruner":  # whose none is one of its values
            continue
        try:
            checked[key] = _parse(key, raw, raw_values.get("task"))
        except values.MistakesError as error:
            mistakes += [f"{where(f'{key}.{path}')}{text}" for path, text in error.rows]
        except ValueError as error:
            line = " ".join(map(str.strip, str(error).splitlines()))  # an object's may be many
            mistakes.append(f"{where(key)}{line}")
    if checked.get("gpus_per_worker") is not None and checked.get("launcher") != "ray":
        mistakes.append(f"{where('gpus_per_worker')}goes with launcher ray only")
    if mistakes:
        raise ConfigError(mistakes)
    return StudyConfig(**checked)


def _parse(key: str, raw: Any, task: Any) -> Any:
    """The checked value; the user's own task may bring schedule families of its own."""
    try:
        return SETTINGS[key].parse(raw)
    except values.MistakesError:
        own = key in ("schedules", "baselines") and isinstance(task, str) and ":" in task
        if not own:
            raise
        from lrsearch.tasks import FROM_PYTHON

        if task.startswith(FROM_PYTHON):
            raise
        from lrsearch.tasks.modules import import_place

        import_place(task)
        return SETTINGS[key].parse(raw)


def read_values(path: str | Path) -> tuple[dict[str, Any], Callable[[str], str]]:
    """The raw values of a study file and a function that names the line of each path.

    Raises:
        UsageError: If the file is missing, too large, not YAML or not a mapping.
    """
    path = Path(path)
    value, lines = read_yaml(path)
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise UsageError(
            f"{path}: a study file is a mapping such as 'task: digits', got {value!r:.60}"
        )

    def where(key: str) -> str:
        return f"line {lines[key]}  {key}: " if key in lines else f"{key}: "

    return {str(key): v for key, v in value.items()}, where


def load(path: str | Path | None, overrides: Mapping[str, Any]) -> StudyConfig:
    """A configuration from a study file (or none) with the command line's values over it."""
    given: dict[str, Any] = {}
    if path is not None:
        given, where = read_values(path)
        try:
            make(given, where=where)
        except ConfigError as error:
            raise ConfigError(error.mistakes, str(path)) from None
        optimizer = overrides.get("optimizer")
        if isinstance(optimizer, Mapping) and "name" not in optimizer:
            base = given.get("optimizer") or {}
            base = {"name": base} if isinstance(base, str) else dict(base)
            overrides = {**overrides, "optimizer": {**base, **optimizer}}
    return make({**given, **overrides}, where=lambda p: f"--{p.replace('_', '-')}: ")


def difference(stored: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """What an existing study and these settings disagree on, a line each."""
    now = json.loads(json.dumps(dict(settings)))
    return [
        f"{key} {_short(key, stored[key])}, now {_short(key, value)}"
        for key, value in now.items()
        if key in stored and stored[key] != value
    ]


def _short(key: str, value: Any) -> str:
    if value is None or (key == "optimizer" and not value):
        return f"left out ({'all families' if key == 'schedules' else 'the default of the task'})"
    if isinstance(value, Mapping):
        return (
            ", ".join(f"{name} {_inner(each)}".strip() for name, each in value.items()) or "none"
        )
    return str(value) if isinstance(value, (str, int, float)) else json.dumps(value)


def _inner(value: Any) -> str:
    """What stands beside a name in a mapping: a value, or a mapping in parentheses."""
    if isinstance(value, Mapping):
        return f"({', '.join(f'{k} {_inner(v)}' for k, v in value.items())})" if value else ""
    return "" if value is None else str(value)
