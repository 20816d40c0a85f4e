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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsearch.errors import LrsearchError, UsageError, suggestion
from lrsearch.files import check_folder, results_folder
from lrsearch.optuna_helpers import storage_of

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    Tracker = Callable[[optuna.Study, FrozenTrial], None]

METRIC = "validation loss"
STOPPED = "tracking stopped"
"""How the line begins that says so: under ``--quiet`` it is the only one."""
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
        raise ValueError(f"{raw!r}{suggestion(kind, NEEDS)} — one of {usual}")
    if not where.strip():
        raise ValueError(f"needs {kind}:{WHERE[kind]}, got {raw!r}")
    return str(raw)


def check_log(log: str | None) -> None:
    """Make sure that a tracker can be told of trials, before any trial runs.

    Weights & Biases may ask for a key here, where there is a terminal.

    Raises:
        UsageError: Names what to install, or the folder that is a file.
        LrsearchError: This user may not write to the folder, or the tracker refuses.
    """
    if log is None:
        return
    _check_here(log)
    kind, _, where = log.partition(":")
    try:
        if kind == "mlflow":
            with _defaults(MLFLOW_HTTP_REQUEST_MAX_RETRIES="1", MLFLOW_HTTP_REQUEST_TIMEOUT="10"):
                client = import_module("mlflow").MlflowClient(tracking_uri=where)
                client.search_experiments(max_results=1)
        elif kind == "wandb" and os.environ.get("WANDB_MODE") not in ("offline", "disabled"):
            import_module("wandb").login(force=True)
    except Exception as error:  # a package or a server may raise anything
        from lrsearch.storage.urls import redact

        text = " ".join(str(error).split())
        raise LrsearchError(redact(f"--log {log}: {text}")) from error


def _check_here(log: str) -> None:
    kind, _, where = log.partition(":")
    missing = [name for name in NEEDS[kind] if not _installed(name)]
    if missing:
        packages = " ".join(name.replace("_", "-") for name in missing)
        raise UsageError(f"--log {log} needs more packages: pip install {packages}")
    if kind == "tensorboard":
        check_folder(Path(os.path.expanduser(where)), "--log")


@contextmanager
def _defaults(**words: str) -> Iterator[None]:
    """Environment variables that are set only inside, and only where the user has not."""
    ours = {name: value for name, value in words.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


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
    _check_here(log)
    if kind == "tensorboard":
        return TensorBoard(Path(where))
    with warnings.catch_warnings():  # they move to another package one day
        warnings.simplefilter("ignore")
        if kind == "mlflow":
            # Two lines a trial, in the middle of the answer.
            os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
            module = import_module("optuna_integration.mlflow")
            made: Tracker = module.MLflowCallback(tracking_uri=where, metric_name=METRIC)
        else:
            module = import_module("optuna_integration.wandb")
            made = module.WeightsAndBiasesCallback(
                metric_name=METRIC,
                wandb_kwargs={"project": where, "settings": {"silent": True, "console": "off"}},
                as_multirun=True,
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

    inner = storage_of(study)
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
        for epoch, value in zip(rows.epoch, rows.columns[column], strict=True)
        if math.isfinite(value)
    ]
