"""The table of all settings: what each accepts, and how it is called.

The command line, the YAML reader and the JSON schema are all made from it, so they cannot drift
apart.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lrsearch import values
from lrsearch.tracking import parse_log

SAMPLERS = ("trace", "tpe", "random", "gp", "cmaes", "qmc")
PRUNERS = ("schedule", "median", "asha", "hyperband", "none")


def default_storage() -> str:
    """``$LRSEARCH_STORAGE``, else ``sqlite:///lrsearch.db`` in the folder one works in."""
    return os.environ.get("LRSEARCH_STORAGE") or "sqlite:///lrsearch.db"


@dataclass(frozen=True)
class Setting:
    """One row of the table of settings.

    Attributes:
        parse: Raw value (text, or a YAML value) to checked value; raises ValueError with the rule.
        help: One line for ``--help`` and the JSON schema.
        metavar: Shown in ``--help``.
        schema: JSON schema of its YAML form.
        identity: Whether an existing study refuses another value of it.
    """

    parse: Callable[[Any], Any]
    help: str
    metavar: str
    schema: Mapping[str, Any]
    identity: bool = False


_INT = {"type": "integer", "minimum": 1}
_STR = {"type": "string"}
_BOOL = {"type": "boolean"}


def _enum(*names: str) -> dict[str, Any]:
    return {"enum": list(names)}


SETTINGS: dict[str, Setting] = {
    "task": Setting(
        values.text,
        "what to train: a built-in task, or file.py:name of your own (default: digits)",
        "TASK",
        _STR,
        identity=True,
    ),
    "model": Setting(
        values.text,
        "a network of the task; lrsearch tasks lists them (default: the task's own)",
        "MODEL",
        _STR,
        identity=True,
    ),
    "name": Setting(values.short_name, "the study's name (default: the task's)", "STUDY", _STR),
    "trials": Setting(
        values.integer(1, 1_000_000),
        "trials the study is to have in all; the same command again completes it (default: 200)",
        "N",
        _INT,
    ),
    "epochs": Setting(
        values.integer(1, 1_000_000),
        "epochs of one full trial, the budget (default: the task's)",
        "N",
        _INT,
        identity=True,
    ),
    "schedules": Setting(
        values.families,
        "families to search; a study file can give their ranges (default: all)",
        "A,B,...",
        {
            "oneOf": [
                {"type": "array", "items": _STR},
                {"type": "object", "additionalProperties": {"type": ["object", "null"]}},
                _STR,
            ]
        },
        identity=True,
    ),
    "lr": Setting(
        values.lr_range,
        "range of the peak learning rate; auto: up to half of where a range test diverges "
        "(default: the task's)",
        "LOW,HIGH|auto",
        {
            "oneOf": [
                {"const": "auto"},
                {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
            ]
        },
        identity=True,
    ),
    "warmup": Setting(
        values.flag,
        "also search a linear warmup, which starts at a tenth of the rate (default: yes)",
        "BOOL",
        _BOOL,
        identity=True,
    ),
    "interval": Setting(
        values.one_of("auto", "epoch", "step"),
        "how often scheduler.step() is called (default: auto, as is usual for the family)",
        "auto|epoch|step",
        _enum("auto", "epoch", "step"),
        identity=True,
    ),
    "baselines": Setting(
        values.baselines,
        "run the usual recipes first, to compare with; a study file can name its own, as name: "
        "{family, lr, ...} (default: yes)",
        "BOOL",
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
        identity=True,
    ),
    "optimizer": Setting(
        values.optimizer,
        "any class of torch.optim, or file.py:Class of your own; its arguments: "
        "--optimizer-arg momentum=0.95 (default: the task's; another optimizer gets none of its "
        "arguments)",
        "NAME",
        {"oneOf": [_STR, {"type": "object", "properties": {"name": _STR}}]},
        identity=True,
    ),
    "batch_size": Setting(
        values.integer(1, 1_000_000),
        "samples in one step (default: the task's)",
        "N",
        _INT,
        identity=True,
    ),
    "train_samples": Setting(
        values.integer(1, 100_000_000),
        "train on so many samples only, with the classes in proportion (default: all)",
        "N",
        _INT,
        identity=True,
    ),
    "seed": Setting(
        values.integer(0, 2**31 - 1),
        "seed of initial weights, batch order and sampler (default: 0)",
        "N",
        {"type": "integer", "minimum": 0},
        identity=True,
    ),
    "sampler": Setting(
        values.one_of(*SAMPLERS),
        "what proposes the next trial (default: trace, which compares lr curves)",
        "|".join(SAMPLERS),
        _enum(*SAMPLERS),
    ),
    "pruner": Setting(
        values.one_of(*PRUNERS),
        "what stops bad trials early (default: schedule, which predicts their final loss)",
        "|".join(PRUNERS),
        _enum(*PRUNERS),
    ),
    "timeout": Setting(
        values.duration,
        "begin no new trials after this time: 90s, 15m, 2h",
        "TIME",
        {"type": ["number", "string"]},
    ),
    "robust": Setting(
        values.flag,
        "at the end train the finalists with their rates raised 1.7 times, and one of them beside "
        "the best recipe, to choose robust.yaml (default: where that costs at most a fifth of the "
        "search)",
        "BOOL",
        _BOOL,
    ),
    "confirm": Setting(
        values.seeds,
        "at the end train the best and the usual recipes on this many fresh seeds (default: 0)",
        "SEEDS",
        {"type": "integer", "minimum": 0, "not": {"const": 1}},
    ),
    "storage": Setting(
        values.text,
        "database URL (default: $LRSEARCH_STORAGE, else sqlite:///lrsearch.db)",
        "URL",
        _STR,
    ),
    "data_dir": Setting(
        values.text,
        "folder of the data sets (default: $LRSEARCH_DATA_DIR, else data/)",
        "DIR",
        _STR,
    ),
    "out": Setting(values.text, "folder for results (default: lrsearch-results)", "DIR", _STR),
    "device": Setting(
        values.text, "auto, cpu, cuda, cuda:N or mps (default: auto)", "DEVICE", _STR
    ),
    "precision": Setting(
        values.one_of("auto", "fp32", "bf16", "fp16"),
        "number format of forward and backward (default: auto)",
        "auto|fp32|bf16|fp16",
        _enum("auto", "fp32", "bf16", "fp16"),
    ),
    "fuse": Setting(
        values.count_or_auto("auto", "off"),
        "train K trials at a time as one stacked model (default: auto)",
        "auto|off|K",
        {"type": ["string", "integer"]},
    ),
    "workers": Setting(
        values.count_or_auto("auto"),
        "processes that train trials of the study (default: auto)",
        "auto|N",
        {"type": ["string", "integer"]},
    ),
    "launcher": Setting(
        values.one_of("local", "ray"),
        "where the workers run (default: local): local, on this machine; ray, on the nodes of the "
        "Ray cluster that RAY_ADDRESS names or that this machine is a node of (pip install "
        "'lrsearch[ray]'), which share a --storage on a server",
        "local|ray",
        _enum("local", "ray"),
    ),
    "gpus_per_worker": Setting(
        values.gpu_share,
        "with --launcher ray: GPUs of each worker, such as 0.25 (default: 1 where it has any)",
        "N",
        {"type": "number", "minimum": 0},
    ),
    "compile": Setting(
        values.flag, "use torch.compile, where trials are not fused (default: no)", "BOOL", _BOOL
    ),
    "log": Setting(
        parse_log,
        "also log finished trials: tensorboard:DIR, mlflow:URI or wandb:PROJECT",
        "KIND:WHERE",
        {"type": "string", "pattern": "^(tensorboard|mlflow|wandb):."},
    ),
}


def json_schema() -> dict[str, Any]:
    """The JSON schema of a study file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "lrsearch study",
        "type": "object",
        "additionalProperties": False,
        "properties": {key: {"description": s.help, **s.schema} for key, s in SETTINGS.items()},
    }
