"""The user's own task: found by name, completed with defaults, tried on one batch."""

from __future__ import annotations

import difflib
import functools
import inspect
import numbers
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lrsearch.errors import LrsearchError, UsageError, suggestion
from lrsearch.tasks.data import as_data
from lrsearch.tasks.mistakes import with_place
from lrsearch.tasks.modules import import_place
from lrsearch.tasks.optimizers import takes
from lrsearch.tasks.plain import whole_number
from lrsearch.tasks.splits import stratified_order
from lrsearch.tasks.task import Data, Split, Task
from lrsearch.values import short_task_name

_FIELDS = {field.name: field for field in fields(Task)}
_ABSENT = object()
"""Stands for an attribute that is not there."""
_NEEDED = ("model", "train", "validation")
_OF_OPTIMIZERS = ("weight_decay", "momentum", "nesterov", "betas", "amsgrad")
"""What is written beside ``optimizer`` in good faith, and belongs into ``optimizer_args``."""


def import_task(target: str) -> Task:
    """The task that ``target`` names.

    Args:
        target: ``path/file.py:name`` or ``package.module:name``. The object is a :class:`Task`; a
            function or class that gives one when called without arguments; or an object or class
            with attributes (or a function that gives a dict with keys) named as the fields of
            :class:`Task`. ``model``, ``train`` and ``validation`` are needed.

    Raises:
        UsageError: There is no such file, module or name.
        LrsearchError: The code raises, or what it gives is no task.
    """
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise UsageError(f"task {target!r} must be file.py:name or package.module:name")
    module = import_place(target)
    found: Any = module
    for part in name.split("."):
        inner = _read(found, part, target)
        if inner is _ABSENT:
            public = [each for each in vars(module) if not each.startswith("_")]
            question = suggestion(part, public)
            listed = question or f" (it has {', '.join(public[-12:])})" if public else question
            raise UsageError(f"task {target}: {place} has no {part!r}{listed}")
        found = inner
    return as_task(found, short_task_name(target), target)


def as_task(found: Any, name: str, target: str | None = None) -> Task:
    """A :class:`Task` from what a user wrote; see :func:`import_task`.

    Args:
        found: The object.
        name: Name of the task, where it has none itself.
        target: How the user named it, for messages.
    """
    target = target or name
    if callable(found) and not isinstance(found, (Task, nn.Module)):
        try:
            made = found()
        except Exception as error:  # the user's code may raise anything
            why = with_place(error)
            raise LrsearchError(f"task {target} raises when called: {why}") from error
        found = made
    if isinstance(found, Task):
        return _task({key: getattr(found, key) for key in _FIELDS})
    if isinstance(found, Mapping):
        given = dict(found)
        _check_optimizer_args(target, given, given)
        strange = [str(key) for key in given if key not in _FIELDS]
        if strange:
            hint = suggestion(strange[0], _FIELDS) or f" — valid: {', '.join(_FIELDS)}"
            raise LrsearchError(f"task {target}: unknown key {strange[0]!r}{hint}")
    else:
        read = {key: _attribute(found, key, target) for key in _FIELDS}
        given = {key: value for key, value in read.items() if value is not _ABSENT}
        names = [key for key in dir(found) if not key.startswith("_")]
        beside = {key: _read(found, key, target) for key in _OF_OPTIMIZERS if key in names}
        _check_optimizer_args(target, given, beside)
        for own in names:
            meant = difflib.get_close_matches(own, _FIELDS, n=1, cutoff=0.85)
            if own not in _FIELDS and meant and meant[0] not in given:
                raise LrsearchError(
                    f"task {target}: {own!r} means nothing here — did you mean {meant[0]}? "
                    f"(what is your own can be called _{own})"
                )
    missing = [key for key in _NEEDED if given.get(key) is None]
    if missing:
        kind = "a Task" if isinstance(found, Mapping) else f"a {type(found).__name__}"
        raise LrsearchError(
            f"task {target} has no {' and no '.join(missing)}: {kind} needs "
            "model (a function or class that makes the network), train and validation"
        )
    given.setdefault("name", name)
    given.setdefault("model_name", _model_name(given["model"]))
    return _task(given)


def _check_optimizer_args(
    target: str, given: Mapping[str, Any], beside: Mapping[str, Any]
) -> None:
    """An optimizer's argument that stands in the wrong place would silently not be used.

    Such a one is plain, and the optimizer takes it: that of the task, or any where the task names
    none, as ``--optimizer`` may. A task with ``param_groups`` may use it there.

    Args:
        target: How the user named the task.
        given: Its fields.
        beside: What has the name of an optimizer's argument, and perhaps more.
    """
    if given.get("param_groups") is not None:
        return
    optimizer = given.get("optimizer")
    there = given.get("optimizer_args")
    there = there if isinstance(there, Mapping) else {}
    for name in _OF_OPTIMIZERS:
        plain = name in beside and _is_plain(beside[name])
        if plain and name not in there and (optimizer is None or takes(optimizer, name)):
            raise LrsearchError(
                f"task {target}: {name!r} is an argument of the optimizer; give "
                f"optimizer_args = {{{name!r}: ...}} (is it something else? name it _{name})"
            )


def _is_plain(value: Any) -> bool:
    """Whether it is a number, a flag, or several of them."""
    several = value if isinstance(value, (list, tuple)) else [value]
    return all(isinstance(each, numbers.Real) for each in several)


def _attribute(found: Any, key: str, target: str) -> Any:
    """A field; a function in a class that does not take ``self`` is meant as it stands."""
    plain = inspect.getattr_static(found, key, None)
    if inspect.isfunction(plain) and next(iter(inspect.signature(plain).parameters), "") != "self":
        return plain
    return _read(found, key, target)


def _read(found: Any, key: str, target: str) -> Any:
    """An attribute of what the user wrote, or :data:`_ABSENT`.

    Raises:
        UsageError: It is there, and raises when it is read.
    """
    try:
        return getattr(found, key)
    except Exception as error:  # the user's code may raise anything
        made = (property, functools.cached_property)
        own = isinstance(inspect.getattr_static(found, key, None), made)
        if isinstance(error, AttributeError) and not own:
            return _ABSENT
        leave = "" if key in _NEEDED else f", or take {key!r} out"
        raise UsageError(
            f"task {target}: {key!r} raises when read: {with_place(error)}; mend that{leave}"
        ) from error


def _task(given: dict[str, Any]) -> Task:
    """A task from its fields, with data in the forms that training knows."""
    name = given["name"]
    size = whole_number(f"task {name}: batch_size", given.get("batch_size", Task.batch_size))
    drop = given.get("drop_last", Task.drop_last)
    train, size = as_data(
        given["train"], f"task {name}: train", size, shuffle=True, drop_last=drop
    )
    if isinstance(given["train"], DataLoader):
        given["drop_last"] = given["train"].drop_last
    validation, _ = as_data(given["validation"], f"task {name}: validation", size, shuffle=False)
    test = given.get("test")
    if test is not None:
        given["test"] = _test_loader(test, f"task {name}: test", size)
    model = _factory(name, given["model"])
    return Task(
        **given | {"model": model, "train": train, "validation": validation, "batch_size": size}
    )


def _test_loader(test: Any, what: str, batch_size: int) -> Callable[[], Data]:
    """A function that loads the test part, from such a function or from the data themselves."""
    is_function = callable(test) and not isinstance(test, (Dataset, DataLoader))

    def load() -> Data:
        data = test() if is_function else test
        return as_data(data, what, batch_size, shuffle=False)[0]

    return load


def _factory(name: str, model: Any) -> Callable[[], nn.Module]:
    """A function that makes a fresh model."""
    if isinstance(model, nn.Module):
        raise LrsearchError(
            f"task {name}: model is a {type(model).__name__} already made; give what makes it "
            f"(a class, a function, or lambda: {type(model).__name__}(...)), "
            "since every trial starts with a fresh one"
        )
    if not callable(model):
        raise LrsearchError(f"task {name}: model must be a class or a function, got {model!r:.80}")
    made: Callable[[], nn.Module] = model
    return made


def _model_name(model: Any) -> str:
    while isinstance(model, functools.partial):
        model = model.func
    name = str(getattr(model, "__name__", type(model).__name__))
    return "model" if name == "<lambda>" else name


def take_samples(task: Task, count: int) -> Task:
    """The task with ``count`` of its training samples, in the shares of their classes.

    Raises:
        UsageError: The data come from a loader, or there are not as many.
    """
    if not isinstance(task.train, Split):
        raise UsageError(
            f"--train-samples works on tensors, and task {task.name} trains from a "
            f"{type(task.train).__name__}; take a part in the task itself"
        )
    x, y = task.train.x, task.train.y
    if not 1 <= count <= len(y):
        raise UsageError(f"--train-samples must be 1 to {len(y):,}, got {count:,}")
    labels = y if y.dim() == 1 and not y.is_floating_point() else torch.zeros(len(y))
    index = stratified_order(labels)[:count].sort().values
    return replace(task, train=Split(x[index], y[index]))


def with_batch_size(task: Task, batch_size: int) -> Task:
    """The task with another batch size.

    Raises:
        UsageError: The data come from a loader, which has its own.
    """
    if not isinstance(task.train, Split):
        raise UsageError(
            f"--batch-size works on tensors, and task {task.name} trains from a "
            f"{type(task.train).__name__}, which has its own; change it in the task itself"
        )
    return replace(task, batch_size=batch_size)
