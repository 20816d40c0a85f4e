"""``lrsearch train best.yaml``: train that configuration, on its own budget or another.

Writes the weights (safetensors) and the curve beside the file, and measures the test metrics:
with ``confirm`` this is the only place that looks at test data.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import scipy.special  # noqa: F401 - before torch: its BLAS waits for ever for memory

from lrsearch import __version__
from lrsearch.config import StudyConfig, make
from lrsearch.errors import LrsearchError, UsageError, suggestion
from lrsearch.files import check_folder, write_text
from lrsearch.measured import EpochResult
from lrsearch.report import words
from lrsearch.report.html import document, escape, figure
from lrsearch.report.learning_curves import LearningCurve, learning_curves_figure, trace_points
from lrsearch.report.tables import TrialRow
from lrsearch.saved import read_configuration
from lrsearch.schedules import FAMILIES, Schedule
from lrsearch.schedules.ranges import as_number
from lrsearch.search.plan import Plan, make_plan
from lrsearch.search.runners import make_runner
from lrsearch.search.test_data import TestData
from lrsearch.tasks.modules import import_place
from lrsearch.training import device as devices

SAY_SECONDS = 2.0
_BLOCKS = ("schedule", "also", "optimizer", "param_groups", "task", "result", "study", "made_by")
_TASK_KEYS = ("model", "train_samples", "batch_size")
Note = Callable[[str], None]


@dataclass(frozen=True)
class Trained:
    """What training leaves.

    Attributes:
        schedule: What was trained, on the budget that was asked for.
        epochs: One result per validation.
        test_loss, test_metric: On the test data; None for a task without.
        metric_name: What the metrics are.
        files: Weights and curve.
    """

    schedule: Schedule
    epochs: tuple[EpochResult, ...]
    test_loss: float | None
    test_metric: float | None
    metric_name: str
    files: tuple[Path, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for ``--json``; None where one is not finite."""
        last = self.epochs[-1]
        return {
            "schedule": self.schedule.to_dict(),
            "epochs": last.epoch,
            "val_loss": last.val_loss,
            "val_metric": as_number(last.val_metric),
            "test_loss": as_number(self.test_loss),
            "test_metric": as_number(self.test_metric),
            "metric_name": self.metric_name,
            "files": [str(path) for path in self.files],
        }


def train(
    path: str | Path,
    *,
    epochs: int | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    data_dir: str | None = None,
    note: Note = lambda line: None,
) -> Trained:
    """Train the configuration in a file that ``lrsearch export`` or ``lrsearch run`` wrote.

    Args:
        path: The YAML file.
        epochs: Budget; the schedule is rescaled by its fractions. None: its own.
        seed: Of weights and batch order; None: the study's.
        out: Folder for the files; None: the file's own.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        data_dir: Where data sets lie.
        note: Called with one line for the user.

    Returns:
        Validation of every epoch, the test metrics, the files.

    Raises:
        UsageError: The file is missing or damaged, or names no task.
        LrsearchError: Data or device are not there, or training diverged.
    """
    path = Path(path)
    content = read_configuration(path)
    check_folder(path.parent if out is None else Path(out), "--output")
    _import_family(content)
    schedule = Schedule.from_dict(content["schedule"], str(path))
    if epochs is not None:
        schedule = schedule.rescaled(epochs)
    config = _config(content, path, schedule.epochs, seed)
    here = {"device": device, "precision": precision, "data_dir": data_dir}
    plan = make_plan(make({**config, **here}))
    note(f"task {plan.task.name}: {plan.task.describe()}, {schedule.epochs} epochs")
    note(f"{schedule.describe()}, lr {schedule.lr:.4g}, on {devices.describe(plan.device)}")
    test = TestData(plan)
    runner = make_runner(plan, 1)
    runner.add(0, schedule)
    done = _train(plan, schedule, runner, note)
    weights = runner.weights(0)
    tested = test(runner, 0, plan.config.seed)
    loss, metric = tested.get("test_loss"), tested.get("test_metric")
    name = plan.task.metric_name if plan.task.metric else ""
    result = Trained(schedule, tuple(done), loss, metric, name, ())
    files = _write(result, weights, plan, path, Path(out) if out is not None else path.parent)
    return replace(result, files=files)


def _import_family(content: Mapping[str, Any]) -> None:
    """Import the file of a task of the user's own, where it brings the schedule's family."""
    task = content.get("task")
    name = task.get("name") if isinstance(task, Mapping) else None
    family = content["schedule"].get("family")
    unknown = isinstance(family, str) and family not in FAMILIES
    if unknown and isinstance(name, str) and ":" in name:
        import_place(name)


def _config(
    content: Mapping[str, Any], path: Path, epochs: int, seed: int | None
) -> dict[str, Any]:
    """The settings of a search that a configuration file fixes."""
    task = content.get("task")
    if not isinstance(task, Mapping) or task.get("name") is None:
        raise UsageError(
            f"{path}: has no 'task:' block with a name, so nothing says what to train; a schedule "
            "of your own loop is trained there, with lrsearch.load(FILE)"
        )
    _check_keys(content, _BLOCKS, f"{path}: ")
    _check_keys(task, ("name", *_TASK_KEYS), f"{path}: task.")
    study = content.get("study")
    stored = study.get("seed", 0) if isinstance(study, Mapping) else 0
    return {
        "task": task["name"],
        "epochs": epochs,
        "seed": stored if seed is None else seed,
        "trials": 1,
        "fuse": "off",
        "workers": 1,
        **{key: task.get(key) for key in _TASK_KEYS},
        "optimizer": content.get("optimizer"),
    }


def _check_keys(block: Mapping[Any, Any], valid: tuple[str, ...], where: str) -> None:
    """A misspelt key would train something else; one that is like none of ours is a remark."""
    for key in block:
        if key not in valid and (question := suggestion(str(key), valid)):
            raise UsageError(f"{where}{key}: unknown key{question}")


def _train(plan: Plan, schedule: Schedule, runner: Any, note: Note) -> list[EpochResult]:
    done: list[EpochResult] = []
    said = 0.0
    while not done or done[-1].epoch < schedule.epochs:
        result: EpochResult = runner.epoch()[0]
        done.append(result)
        if result.diverged or not math.isfinite(result.val_loss):
            raise LrsearchError(
                f"the loss was not finite after epoch {result.epoch} of {schedule.epochs}; "
                f"lower lr {schedule.lr:.4g}, or add a warmup"
            )
        last = result.epoch >= schedule.epochs
        if last or time.monotonic() - said > SAY_SECONDS:
            said = time.monotonic()
            metric, name = result.val_metric, plan.task.metric_name
            shown = "" if metric is None else f"  {name} {words.metric(metric, name)}"
            note(
                f"epoch {result.epoch:>4}/{schedule.epochs}  lr {result.lr:<9.3g} "
                f"train {words.loss(result.train_loss)}  val {words.loss(result.val_loss)}{shown}"
            )
    return done


def lines(result: Trained) -> list[str]:
    """The end of a training for a person."""
    last, name = result.epochs[-1], result.metric_name
    rows = [f"validation  loss {words.loss(last.val_loss)}"]
    if last.val_metric is not None:
        rows[0] += f"  {name} {words.metric(last.val_metric, name)}"
    if result.test_loss is not None:
        rows.append(f"test        loss {words.loss(result.test_loss)}")
        if result.test_metric is not None:
            rows[1] += f"  {name} {words.metric(result.test_metric, name)}"
    return [*rows, "Files       " + "  ".join(str(path) for path in result.files)]


def _write(
    result: Trained, weights: Mapping[str, Any], plan: Plan, path: Path, folder: Path
) -> tuple[Path, ...]:
    """The weights and the curve, named after the file and the budget."""
    from safetensors.torch import save_file

    stem = f"{path.stem}-{result.schedule.epochs}epochs"
    facts = {
        "lrsearch": __version__,
        "task": plan.config.task,
        "model": plan.task.model_name,
        "seed": str(plan.config.seed),
        "schedule": json.dumps(result.schedule.to_dict()),
        "val_loss": repr(result.epochs[-1].val_loss),
        "test_loss": repr(result.test_loss),
        "test_metric": repr(result.test_metric),
    }
    file, page = folder / f"{stem}.safetensors", folder / f"{stem}.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {k: v.contiguous().clone() for k, v in weights.items() if _is_dense(v)}
        save_file(tensors, file, metadata=facts)
    except OSError as error:
        raise LrsearchError(f"cannot write {file} ({error.strerror or error})") from None
    write_text(page, curve_page(result, plan.config, path.name))
    return file, page


def _is_dense(value: Any) -> bool:
    """Whether the file has room for it: a state_dict may hold objects and sparse tensors."""
    return hasattr(value, "clone") and not (value.is_sparse or value.is_sparse_csr)


def curve_page(result: Trained, config: StudyConfig, name: str) -> str:
    """Learning rate and loss over the epochs, as a page that needs no network."""
    schedule = result.schedule
    row = TrialRow(0, 0, "complete", schedule.family, schedule.lr, epochs=schedule.epochs)
    epochs = [r.epoch for r in result.epochs]
    rates: list[float | None] = [r.lr for r in result.epochs]
    x, lr, level = trace_points(schedule.to_dict(), epochs, rates)
    curve = LearningCurve(row, x, lr, level, epochs, [r.val_loss for r in result.epochs], rates)
    drawn = learning_curves_figure([curve])
    drawn.update_layout(showlegend=False)
    body = (
        f"<main><header><p class='kicker'>lrsearch train {escape(name)}</p>"
        f"<h1>{escape(schedule.describe())}, lr {schedule.lr:.4g}</h1>"
        + "".join(f"<p class='note'>{escape(line)}</p>" for line in lines(result)[:-1])
        + f"</header><section>{figure('curve', drawn, 'learning rate and loss')}</section></main>"
    )
    return document(f"{config.task} · {schedule.family}", body, kind="single")
