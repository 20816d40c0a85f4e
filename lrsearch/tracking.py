"""``--log tensorboard:DIR``, ``mlflow:URI``, ``wandb:PROJECT``: finished trials, for a tracker.

Nothing is tracked unless it is asked for. A tracker is an Optuna callback, so it also goes into
``study.optimize(objective, callbacks=[make_tracker("tensorboard:runs")])``. MLflow and Weights &
Biases go through Optuna's own callbacks; Optuna's TensorBoard callback would need TensorFlow, so
ours writes with torch, and each epoch too.
"""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsearch.backend import backend
from lrsearch.errors import UsageError, did_you_mean
from lrsearch.files import check_folder, results_folder

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    Tracker = Callable[[optuna.Study, FrozenTrial], None]

METRIC = "validation loss"
NEEDS = {
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "optuna_integration"),
    "wandb": ("wandb", "optuna_integration"),
}
"""Kind -> modules that it needs; all of them are packages of the same name."""
WHERE = {"tensorboard": "DIR", "mlflow": "URI", "wandb": "PROJECT"}


def parse_log(raw: Any) -> str:
    """``KIND:WHERE``, checked.

    Raises:
        ValueError: With the rule.

    Example:
        >>> parse_log("tensorboard:runs")
        'tensorboard:runs'
    """
    kind, _, where = str(raw).partition(":")
    usual = ", ".join(f"{name}:{what}" for name, what in WHERE.items())
    if kind not in NEEDS:
        near = did_you_mean(kind, NEEDS)
        question = f" — did you mean {near}?" if near else ""
        raise ValueError(f"{raw!r}{question} — one of {usual}")
    if not where.strip():
        raise ValueError(f"needs {kind}:{WHERE[kind]}, got {raw!r}")
    return str(raw)


def check_log(log: str | None) -> None:
    """Make sure that what a tracker needs is there, before any trial runs.

    Raises:
        UsageError: Names what to install, or the folder that is a file.
        LrsearchError: This user may not write to the folder.
    """
    if log is None:
        return
    kind, _, where = log.partition(":")
    missing = [name for name in NEEDS[kind] if not _installed(name)]
    if missing:
        packages = " ".join(name.replace("_", "-") for name in missing)
        raise UsageError(f"--log {log} needs more packages: pip install {packages}")
    if kind == "tensorboard":
        check_folder(Path(os.path.expanduser(where)), "--log")


def _installed(name: str) -> bool:
    # optuna_integration puts a module without a spec in its own place
    return name in sys.modules or find_spec(name) is not None


def make_tracker(log: str) -> Tracker:
    """The Optuna callback of a tracker.

    Args:
        log: ``tensorboard:DIR``, ``mlflow:URI`` or ``wandb:PROJECT``.

    Raises:
        UsageError: It is none of these, or a package is missing.

    Example:
        >>> tracker = make_tracker("tensorboard:runs")
        >>> study.optimize(objective, callbacks=[tracker])  # doctest: +SKIP
    """
    try:
        kind, _, where = parse_log(log).partition(":")
    except ValueError as error:
        raise UsageError(f"log: {error}") from None
    check_log(log)
    if kind == "tensorboard":
        return TensorBoard(Path(where))
    with warnings.catch_warnings():  # they move to another package one day
        warnings.simplefilter("ignore")
        if kind == "mlflow":
            module = import_module("optuna_integration.mlflow")
            made: Tracker = module.MLflowCallback(tracking_uri=where, metric_name=METRIC)
        else:
            module = import_module("optuna_integration.wandb")
            made = module.WeightsAndBiasesCallback(
                metric_name=METRIC, wandb_kwargs={"project": where}, as_multirun=True
            )
    return made


class TensorBoard:
    """Writes every finished trial for TensorBoard: its epochs as curves, its parameters.

    Args:
        folder: ``tensorboard --logdir`` takes it; a folder in it for each study and trial.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Write one trial."""
        from torch.utils.tensorboard import SummaryWriter

        folder = results_folder(str(self.folder), study.study_name) / f"trial-{trial.number}"
        with SummaryWriter(str(folder)) as writer:
            for name, epoch, value in _points(study, trial):
                writer.add_scalar(name, value, epoch)
            if trial.value is not None:
                plain = (bool, int, float, str)
                params = {k: v for k, v in trial.params.items() if isinstance(v, plain)}
                writer.add_hparams(params, {f"final/{METRIC}": trial.value}, run_name=".")


def _points(study: optuna.Study, trial: FrozenTrial) -> Iterable[tuple[str, int, float]]:
    """(name, epoch, value) of all that is known of a trial's epochs."""
    from lrsearch.storage import Storage
    from lrsearch.storage.history import load_history

    inner = backend(study._storage)
    rows = None
    if isinstance(inner, Storage):
        rows = load_history(inner, study._study_id, trial_ids=[trial._trial_id])
    if not rows:
        return [(METRIC, step, value) for step, value in sorted(trial.intermediate_values.items())]
    names = {"lr": "learning rate", "val_loss": METRIC, "train_loss": "training loss"}
    names |= {"avg_val_loss": "validation loss, averaged weights", "val_metric": "metric"}
    return [
        (shown, int(epoch), float(value))
        for column, shown in names.items()
        for epoch, value in zip(rows.epoch, getattr(rows, column), strict=True)
        if math.isfinite(value)
    ]
