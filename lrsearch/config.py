"""StudyConfig: the one description of a search, checked once at the door.

A configuration comes from a YAML file, from the command line, or from Python, always through
:func:`make`. Every setting is one row of :data:`SETTINGS`; the command line, the YAML reader and
the JSON schema are all made from that table, so they cannot drift apart.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lrsearch import values
from lrsearch.errors import ConfigError, UsageError, did_you_mean
from lrsearch.tracking import parse_log
from lrsearch.yamlfile import read_yaml

SAMPLERS = ("trace", "tpe", "random", "gp", "cmaes", "qmc")
PRUNERS = ("schedule", "median", "asha", "hyperband", "none")


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
    storage: str = "sqlite:///lrsearch.db"
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


@dataclass(frozen=True)
class Setting:
    """One row of the table of settings.

    Attributes:
        parse: Raw value (text, or a YAML value) to checked value; raises ValueError with the rule.
        help: One line for ``--help`` and the JSON schema.
        metavar: Shown in ``--help``.
        identity: Whether an existing study refuses another value of it.
        schema: JSON schema of its YAML form.
    """

    parse: Callable[[Any], Any]
    help: str
    metavar: str
    identity: bool = False
    schema: Mapping[str, Any] = field(default_factory=dict)


_INT = {"type": "integer", "minimum": 1}
_STR = {"type": "string"}
_BOOL = {"type": "boolean"}


def _enum(*names: str) -> dict[str, Any]:
    return {"enum": list(names)}


SETTINGS: dict[str, Setting] = {
    "task": Setting(
        values.text,
        "what to train: a built-in task, or file.py:name of your own",
        "TASK",
        True,
        _STR,
    ),
    "model": Setting(
        values.text, "the task's network (lrsearch tasks lists them)", "MODEL", True, _STR
    ),
    "name": Setting(
        values.short_name, "the study's name (default: the task's)", "STUDY", False, _STR
    ),
    "trials": Setting(
        values.integer(1, 1_000_000),
        "finished trials the study shall have in all",
        "N",
        False,
        _INT,
    ),
    "epochs": Setting(
        values.integer(1, 1_000_000), "budget: epochs of one full trial", "N", True, _INT
    ),
    "schedules": Setting(
        values.families,
        "families to search, with ranges in a file (default: all)",
        "A,B,...",
        True,
        {
            "oneOf": [
                {"type": "array", "items": _STR},
                {"type": "object", "additionalProperties": {"type": ["object", "null"]}},
                _STR,
            ]
        },
    ),
    "lr": Setting(
        values.lr_range,
        "range of the peak learning rate, or auto: below divergence in an lr range test",
        "LOW,HIGH|auto",
        True,
        {
            "oneOf": [
                {"const": "auto"},
                {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
            ]
        },
    ),
    "warmup": Setting(values.flag, "also search a linear warmup", "BOOL", True, _BOOL),
    "interval": Setting(
        values.one_of("auto", "epoch", "step"),
        "when scheduler.step() is called (auto: as the family is commonly used)",
        "auto|epoch|step",
        True,
        _enum("auto", "epoch", "step"),
    ),
    "baselines": Setting(
        values.baselines,
        "run the usual recipes first; in a file also your own, as name: {family, lr, ...}",
        "BOOL",
        True,
        {
            "oneOf": [
                _BOOL,
                {
                    "type": "object",
                    "minProperties": 1,
                    "additionalProperties": {
                        "type": ["object", "null"],
                        "properties": {
                            "family": {"type": "string"},
                            "lr": {"type": ["number", "string"]},
                            "warmup": {"type": "number", "minimum": 0},
                            "interval": _enum("auto", "epoch", "step"),
                        },
                    },
                },
            ]
        },
    ),
    "optimizer": Setting(
        values.optimizer,
        "any class of torch.optim; its arguments: --optimizer-arg momentum=0.95",
        "NAME",
        True,
        {"oneOf": [_STR, {"type": "object", "required": ["name"]}]},
    ),
    "batch_size": Setting(values.integer(1, 1_000_000), "samples a step", "N", True, _INT),
    "train_samples": Setting(
        values.integer(1, 100_000_000),
        "train on a stratified part of the training set",
        "N",
        True,
        _INT,
    ),
    "seed": Setting(
        values.integer(0, 2**31 - 1),
        "of initial weights, batch order and the sampler",
        "N",
        True,
        {"type": "integer", "minimum": 0},
    ),
    "sampler": Setting(
        values.one_of(*SAMPLERS),
        "how trials are proposed",
        "|".join(SAMPLERS),
        False,
        _enum(*SAMPLERS),
    ),
    "pruner": Setting(
        values.one_of(*PRUNERS),
        "how trials are stopped",
        "|".join(PRUNERS),
        False,
        _enum(*PRUNERS),
    ),
    "timeout": Setting(
        values.duration,
        "stop asking for new trials after so long: 90s, 15m, 2h",
        "TIME",
        False,
        {"type": ["number", "string"]},
    ),
    "storage": Setting(values.text, "database URL", "URL", False, _STR),
    "data_dir": Setting(
        values.text,
        "where data sets lie (default: $LRSEARCH_DATA_DIR, else data/)",
        "DIR",
        False,
        _STR,
    ),
    "out": Setting(values.text, "folder for results", "DIR", False, _STR),
    "device": Setting(values.text, "auto, cpu, cuda, cuda:N or mps", "DEVICE", False, _STR),
    "precision": Setting(
        values.one_of("auto", "fp32", "bf16", "fp16"),
        "number format of forward and backward",
        "auto|fp32|bf16|fp16",
        False,
        _enum("auto", "fp32", "bf16", "fp16"),
    ),
    "fuse": Setting(
        values.count_or_auto("auto", "off"),
        "train so many trials as one stacked model",
        "auto|off|K",
        False,
        {"type": ["string", "integer"]},
    ),
    "workers": Setting(
        values.count_or_auto("auto"),
        "processes that train, each on the same study",
        "auto|N",
        False,
        {"type": ["string", "integer"]},
    ),
    "launcher": Setting(
        values.one_of("local", "ray"),
        "where the workers run: local, on this machine; ray, on the nodes of the Ray cluster that "
        "RAY_ADDRESS names or that this machine is a node of (pip install 'lrsearch[ray]'), which "
        "share a --storage on a server",
        "local|ray",
        False,
        _enum("local", "ray"),
    ),
    "gpus_per_worker": Setting(
        values.gpu_share,
        "with --launcher ray: GPUs of each worker, such as 0.25 (default: 1 where it has any)",
        "N",
        False,
        {"type": "number", "minimum": 0},
    ),
    "compile": Setting(values.flag, "use torch.compile", "BOOL", False, _BOOL),
    "log": Setting(
        parse_log,
        "also log finished trials: tensorboard:DIR, mlflow:URI or wandb:PROJECT",
        "KIND:WHERE",
        False,
        {"type": "string", "pattern": "^(tensorboard|mlflow|wandb):."},
    ),
}


def make(
    raw_values: Mapping[str, Any],
    *,
    source: str | None = None,
    where: Callable[[str], str] = lambda path: f"{path}: ",
) -> StudyConfig:
    """Check raw values and make a :class:`StudyConfig`.

    Args:
        raw_values: Setting name -> raw value; settings left out keep their default.
        source: The file they came from, for the message.
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
            near = did_you_mean(str(key), SETTINGS)
            question = f" — did you mean {near}?" if near else f" (known: {', '.join(SETTINGS)})"
            mistakes.append(f"{where(str(key))}unknown key{question}")
            continue
        if raw is None and key not in ("pruner",):
            continue
        try:
            checked[key] = _parse(key, raw, raw_values.get("task"))
        except values.MistakesError as error:
            mistakes += [f"{where(f'{key}.{path}')}{text}" for path, text in error.rows]
        except ValueError as error:
            mistakes.append(f"{where(key)}{error}")
    if checked.get("gpus_per_worker") is not None and checked.get("launcher") != "ray":
        mistakes.append(f"{where('gpus_per_worker')}goes with launcher ray only")
    if mistakes:
        raise ConfigError(mistakes, source)
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
        from lrsearch.tasks.custom import import_place

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
    mistakes: list[str] = []
    if path is not None:
        given, where = read_values(path)
        try:
            make(given, where=where)
        except ConfigError as error:
            mistakes = error.mistakes
        if mistakes:
            raise ConfigError(mistakes, str(path))
        optimizer = overrides.get("optimizer")
        if isinstance(optimizer, Mapping) and "name" not in optimizer:
            base = given.get("optimizer", {})
            base = {"name": base} if isinstance(base, str) else dict(base)
            overrides = {**overrides, "optimizer": {**base, **optimizer}}
    return make({**given, **overrides}, where=lambda p: f"--{p.replace('_', '-')}: ")


def difference(stored: Mapping[str, Any], config: StudyConfig) -> list[str]:
    """What an existing study and this configuration disagree on, a line each."""
    now = json.loads(json.dumps(config.identity()))
    rows: Iterable[tuple[str, Any, Any]] = (
        (key, stored[key], value) for key, value in now.items() if key in stored
    )
    return [f"{key} {_short(old)}, now {_short(new)}" for key, old, new in rows if old != new]


def _short(value: Any) -> str:
    if value is None:
        return "the task's default"
    return str(value) if isinstance(value, (str, int, float)) else json.dumps(value)


def json_schema() -> dict[str, Any]:
    """The JSON schema of a study file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "lrsearch study",
        "type": "object",
        "additionalProperties": False,
        "properties": {key: {"description": s.help, **s.schema} for key, s in SETTINGS.items()},
    }
