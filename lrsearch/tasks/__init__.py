"""What is trained: the built-in tasks, and the loader for a user's own.

The registry is plain text, so that the command line can list tasks without importing torch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsearch.errors import UsageError, unknown

if TYPE_CHECKING:
    import torch

    from lrsearch.tasks.images import Augment as Augment
    from lrsearch.tasks.images import Normalize as Normalize
    from lrsearch.tasks.task import Split as Split
    from lrsearch.tasks.task import Task as Task

FROM_PYTHON = "python:"
"""Begins the name, in a study's configuration, of a task that was given as a Python object."""

ENTRY_POINTS = "lrsearch.tasks"
"""Entry point group in which packages offer tasks of their own."""

__all__ = ["TASKS", "Augment", "Normalize", "Split", "Task", "TaskSpec", "all_tasks", "load_task"]


@dataclass(frozen=True)
class TaskSpec:
    """An entry of the list of tasks.

    Args:
        name: What ``--task`` takes.
        summary: One line for the list.
        models: What ``--model`` takes.
        default_model: The model without ``--model``.
        needs_download: Whether data must be fetched, or found in ``--data-dir``.
        builder: Function in :mod:`lrsearch.tasks.builtin`, or ``module:name`` of a user's own.
    """

    name: str
    summary: str
    models: tuple[str, ...]
    default_model: str
    needs_download: bool
    builder: str


TASKS: dict[str, TaskSpec] = {
    spec.name: spec
    for spec in (
        TaskSpec("digits", "8x8 images of digits, 30 epochs", ("mlp",), "mlp", False, "digits"),
        TaskSpec(
            "square",
            "learn y = x² from ten points, 2,000 epochs",
            ("mlp",),
            "mlp",
            False,
            "square",
        ),
        TaskSpec(
            "fashion-mnist",
            "28x28 images of clothes, 20 epochs",
            ("mlp",),
            "mlp",
            True,
            "fashion_mnist",
        ),
        TaskSpec(
            "cifar10",
            "32x32 colour images, 20 epochs",
            ("convnet", "net", "resnet9", "resnet20", "resnet18"),
            "convnet",
            True,
            "cifar10",
        ),
    )
}
"""The built-in tasks by name."""


def all_tasks() -> dict[str, TaskSpec]:
    """The built-in tasks and those that installed packages offer (entry points, not imported)."""
    found = dict(TASKS)
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        package = point.dist.name if point.dist else point.module
        spec = TaskSpec(point.name, f"from {package}", (), "", False, point.value)
        found.setdefault(point.name, spec)
    return found


def data_folder(given: str | Path | None = None) -> Path:
    """Where data sets lie: what is given, else ``$LRSEARCH_DATA_DIR``, else ``data``."""
    return Path(os.path.expanduser(given or os.environ.get("LRSEARCH_DATA_DIR") or "data"))


def load_task(
    name: str,
    *,
    model: str | None = None,
    data_dir: str | Path | None = None,
    train_samples: int | None = None,
    batch_size: int | None = None,
    device: torch.device | None = None,
) -> Task:
    """A task, ready to train: a built-in one, an installed one, or the user's own.

    Args:
        name: A name from :func:`all_tasks`, ``path/file.py:name`` or ``package.module:name``.
        model: A model of a built-in task; None = its default.
        data_dir: Where data sets lie or are downloaded to; None = ``$LRSEARCH_DATA_DIR``, else
            ``data``.
        train_samples: Take a stratified part of the training samples. The validation part of
            fashion-mnist and cifar10 shrinks to a quarter of it, but not below 1,000; that of any
            other task stays.
        batch_size: Samples per step; None = the task's own.
        device: Where it will be trained; a task of the user's own is tried there, too.

    Raises:
        UsageError: An unknown task or model, or a number out of range.
        LrsearchError: Data that are missing, damaged or cannot be downloaded; a task of the
            user's own that does not work.

    Example:
        >>> load_task("digits").describe()
        'mlp 9.0 k parameters, 1,200 train / 300 validation images'
    """
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"--batch-size must be at least 1, got {batch_size}")
    spec = TASKS.get(name)
    if spec is None:
        return tried(_own_task(name, model), train_samples, batch_size, device)
    if model is not None and model not in spec.models:
        raise unknown(f"model of task {name}", model, spec.models)
    build = getattr(import_module("lrsearch.tasks.builtin"), spec.builder)
    task: Task = build(model or spec.default_model, data_folder(data_dir), train_samples)
    return task if batch_size is None else replace(task, batch_size=batch_size)


def _own_task(name: str, model: str | None) -> Task:
    from lrsearch.tasks import custom

    target = name
    if ":" not in name:
        spec = all_tasks().get(name)
        if spec is None:
            hint = f"{', '.join(all_tasks())}, or your own as file.py:name or package.module:name"
            raise unknown("task", name, all_tasks(), f"valid: {hint}")
        target = spec.builder
    task = custom.import_task(target)
    if model not in (None, task.model_name):
        raise UsageError(f"task {name} has one model; leave out --model {model}")
    return task


def tried(
    task: Task,
    train_samples: int | None = None,
    batch_size: int | None = None,
    device: torch.device | None = None,
) -> Task:
    """A user's own task, changed as :func:`load_task` says, and tried on one batch.

    Raises:
        LrsearchError: It cannot be changed so, or does not work.
    """
    from lrsearch.tasks import custom
    from lrsearch.tasks.check import check
    from lrsearch.tasks.mistakes import CPU, here_or_there

    device = device or CPU
    if train_samples is not None:
        task = custom.take_samples(task, train_samples)
    if batch_size is not None:
        task = custom.with_batch_size(task, batch_size)
    here_or_there(partial(check, task), device)
    if device.type != "cpu":
        check(task, device)
    return task


def __getattr__(name: str) -> Any:
    if name in ("Split", "Task"):
        return getattr(import_module("lrsearch.tasks.task"), name)
    if name in ("Augment", "Normalize"):
        return getattr(import_module("lrsearch.tasks.images"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
