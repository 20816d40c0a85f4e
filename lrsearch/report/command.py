"""A study's configuration as the command line that makes it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from lrsearch.config import StudyConfig
from lrsearch.settings import SETTINGS, default_storage
from lrsearch.storage.urls import redact


def command_line(name: str, config: Mapping[str, Any]) -> str:
    """``lrsearch run`` with every setting that differs from its default.

    Recipes of the study's own, and ranges of its families, fit in a file only: it is then
    ``--study-file study.yaml``. Of a task that is a Python object it is a call.

    Args:
        name: The study's name.
        config: Its stored configuration.

    Example:
        >>> command_line("digits", {"task": "digits", "trials": 50})
        'lrsearch run --task digits --trials 50'
        >>> command_line("net", {"task": "python:net", "trials": 50})
        "lrsearch.search(task, name='net', trials=50)"
    """
    defaults = StudyConfig(storage=redact(default_storage())).to_dict()
    if from_python(config):
        return _call(name, config, defaults)
    needs_file = False
    words = ["lrsearch", "run", "--task", str(config.get("task", "digits"))]
    for key in SETTINGS:
        value = config.get(key, defaults[key])
        if (
            isinstance(value, Mapping)
            and key in ("baselines", "schedules")
            and any(value.values())
        ):
            needs_file = True
            continue
        if key in ("task", "data_dir") or value == defaults[key] or value is None:
            continue
        flag = f"--{key.replace('_', '-')}"
        if key == "optimizer" and isinstance(value, Mapping):
            rest = {k: v for k, v in value.items() if k != "name"}
            words += [flag, str(value["name"])] if "name" in value else []
            for argument, given in rest.items():
                words += ["--optimizer-arg", f"{argument}={json.dumps(given)}"]
        elif isinstance(value, bool):
            words.append(flag if value else f"--no-{key.replace('_', '-')}")
        elif key == "schedules" and isinstance(value, Mapping):
            words += [flag, ",".join(value)]
        elif isinstance(value, (list, tuple)):
            words += [flag, ",".join(map(_exact, value))]
        else:
            shown = redact(str(value))  # of --log, too, which names a server
            words += [flag, "URL" if key == "storage" and "***" in shown else shown]
    usual = StudyConfig(task=str(config.get("task", ""))).study_name
    if "--name" not in words and name != usual:
        words += ["--name", name]
    if needs_file:
        words[2:2] = ["--study-file", "study.yaml"]
    return shlex.join(words) + import_options(config.get("imports") or ())


def _call(name: str, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """``lrsearch.search`` with every setting that differs from its default."""
    given = ["task", f"name={name!r}"]
    for key in SETTINGS:
        value = config.get(key, defaults[key])
        if key not in ("task", "name", "data_dir") and value not in (defaults[key], None):
            shown = redact(value) if isinstance(value, str) else value
            url = key == "storage" and "***" in shown
            given.append(f"{key}={'URL' if url else repr(shown)}")
    return f"lrsearch.search({', '.join(given)})"


def typed(command: str, name: str, storage: str = "") -> str:
    """A command about a study as it is typed: with its database, where that is not the default.

    Args:
        command: What stands before the name: ``confirm``.
        name: Of the study.
        storage: Its database, :attr:`Storage.label`; "" where it is not known.

    Example:
        >>> typed("confirm", "my study"), typed("show", "a", "sqlite:///runs.db")
        ("lrsearch confirm 'my study'", 'lrsearch show a --storage sqlite:///runs.db')
    """
    where = storage_option(storage) if storage else ""
    return f"lrsearch {command} {shlex.quote(name)}{where}"


def confirming(config: Mapping[str, Any], name: str, storage: str = "", **numbers: int) -> str:
    """How a study is confirmed: the command, or the call where its task is a Python object.

    Args:
        config: The study's stored configuration.
        name: Of the study.
        storage: As for :func:`typed`.
        **numbers: ``top`` and ``seeds``, where they are told.

    Example:
        >>> confirming({"task": "digits"}, "digits", seeds=10)
        'lrsearch confirm digits --seeds 10'
        >>> confirming({"task": "python:net"}, "digits", seeds=10)
        "lrsearch.confirm('digits', task=task, seeds=10)"
    """
    if not from_python(config):
        given = "".join(f" --{key} {value}" for key, value in numbers.items())
        bring = import_options(config.get("imports") or ())
        return typed("confirm", name, storage) + given + bring
    given = "".join(f", {key}={value}" for key, value in numbers.items())
    if storage and storage_option(storage):
        given += f", storage={'URL' if '***' in storage else repr(storage)}"
    return f"lrsearch.confirm({name!r}, task=task{given})"


def from_python(config: Mapping[str, Any]) -> bool:
    """Whether a study's task was a Python object, which no command can find again."""
    from lrsearch.tasks import FROM_PYTHON

    return str(config.get("task", "")).startswith(FROM_PYTHON)


def storage_option(url: str) -> str:
    """``" --storage URL"`` as it is typed; "" for the default, and no password is ever told.

    Not even that there is one: what :func:`redact` made of it can not be typed.

    Example:
        >>> storage_option("sqlite:///my runs.db"), storage_option("mysql://me:secret@db/runs")
        (" --storage 'sqlite:///my runs.db'", ' --storage URL')
    """
    shown = redact(url)
    if shown == redact(default_storage()):
        return ""
    return f" --storage {'URL' if '***' in shown else shlex.quote(url)}"


def import_options(places: Sequence[str]) -> str:
    """``" --import FILE.py"`` for each; "" for none.

    Example:
        >>> import_options(["my family.py"])
        " --import 'my family.py'"
    """
    return "".join(f" --import {shlex.quote(place)}" for place in places)


def data_option(folder: str | None) -> str:
    """``" --data-dir DIR"``; "" where none was given.

    Example:
        >>> data_option("/data sets")
        " --data-dir '/data sets'"
    """
    return "" if folder is None else f" --data-dir {shlex.quote(folder)}"


def _exact(value: Any) -> str:
    """A number in the fewest digits that give it back: ``1``, ``0.00123456789``."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
