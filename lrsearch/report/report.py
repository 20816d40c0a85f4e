"""What a report shows of a study: its tables, its figures and the configuration to use.

:mod:`lrsearch.report.page` writes it as HTML, :mod:`lrsearch.report.pictures` as PNG,
:mod:`lrsearch.report.csv_files` as CSV.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lrsearch.errors import LrsearchError
from lrsearch.prediction.beliefs import foretold
from lrsearch.report import figures, importance_shown, optuna_figures, overview
from lrsearch.report.answer import trial_shown, trial_to_use
from lrsearch.report.confirmed import Confirmed
from lrsearch.report.confirmed_study import read_confirmed
from lrsearch.report.importance import Importance, importance
from lrsearch.report.learning_curves import (
    LearningCurve,
    best_curves,
    learning_curves_figure,
    paths_figure,
    thinned_curves,
    winner_figure,
)
from lrsearch.report.lr_range import lr_range_figure, lr_range_table
from lrsearch.report.robust import robust
from lrsearch.report.tables import Answer, PruningTable, StudyTable, answer, load, pruning

if TYPE_CHECKING:
    import optuna
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class Report:
    """Everything a report shows, before it becomes HTML, PNG or CSV.

    Attributes:
        best_curves: Family -> the curve of its best trial.
        figures: Name -> a figure, and what it shows in words.
        file: Which file of a run has the answer, such as ``robust.yaml``; its content as ``yaml``
            and as torch code, ``python``. Empty before there is an answer.
    """

    table: StudyTable
    found: Answer | None
    confirmed: Confirmed | None
    mattered: Importance
    stopped: PruningTable
    best_curves: dict[str, LearningCurve]
    figures: dict[str, tuple[Figure, str]]
    file: str
    yaml: str
    python: str


def make_report(study: optuna.Study) -> Report:
    """Read a study once and make all tables and figures of its report."""
    table = load(study)
    found = answer(table, robust(table, study))
    confirmed = read_confirmed(study)
    mattered = importance(table, foretold(study))
    stopped = pruning(table)
    best = best_curves(table, 16)
    drawn = _figures(table, found, confirmed, mattered, stopped, best)
    if (test := lr_range_table(study)) is not None:
        drawn["range"] = (lr_range_figure(test), "loss against the rate of the lr range test")
    file = yaml = python = ""
    if found is not None:  # of this very trial: others may have ended since
        number, file = trial_to_use(found.best.number, found.chosen.number, confirmed)
        yaml, python = _exports(study, number, file)
    of_family = {c.trial.family: c for c in best}
    return Report(table, found, confirmed, mattered, stopped, of_family, drawn, file, yaml, python)


def _figures(
    table: StudyTable,
    found: Answer | None,
    confirmed: Confirmed | None,
    mattered: Importance,
    stopped: PruningTable,
    best: Sequence[LearningCurve],
) -> dict[str, tuple[Figure, str]]:
    """The figures that this study has something for, by name, each with a description."""
    drawn: dict[str, tuple[Figure, str]] = {}
    if found is not None and found.best.family:
        shown = trial_shown(table, found, confirmed)
        rows = thinned_curves(table, [shown])
        strongest = found.strongest
        if strongest is not None and strongest is not found.best and strongest is not shown:
            rows += thinned_curves(table, [strongest])
        drawn["winner"] = (winner_figure(rows), "learning rate of the best schedule")
    if any(math.isfinite(t.lr) for t in table.finished):
        drawn["scatter"] = (
            figures.lr_vs_val_loss_figure(figures.lr_vs_val_loss_table(table)),
            "peak learning rate against validation loss, a mark per trial",
        )
    if mattered.overall is not None:
        drawn["importance"] = (importance_shown.importance_figure(mattered), "importance")
    if mattered.within:
        drawn["within"] = (
            importance_shown.within_figure(mattered),
            "importance within each family",
        )
    if best:
        drawn["curves"] = (learning_curves_figure(best[:8]), "rate and loss over epochs")
        if any(rate is not None for curve in best for rate in curve.epoch_lr):
            drawn["paths"] = (paths_figure(best[:6]), "loss against rate, epoch by epoch")
        drawn["history"] = (optuna_figures.history_figure(table), "best loss over the trials")
        sliced = optuna_figures.slice_figure(table, best[0].trial.family)
        if sliced is not None:
            drawn["slices"] = (sliced, "loss against each parameter of the winning family")
    if stopped.counts["pruned"] or stopped.counts["diverged"]:
        drawn["stops"] = (figures.pruning_figure(stopped), "trials stopped after each epoch")
    if stopped.counts["pruned"]:
        drawn["lines"] = (optuna_figures.epochs_figure(table), "validation loss over epochs")
    if table.finished:
        everything = overview.overview_figure(overview.overview_table(table))
        drawn["overview"] = (everything, "rate and loss of all trials over the epochs")
    timeline = optuna_figures.timeline_figure(table)
    if timeline is not None:
        drawn["timeline"] = (timeline, "when each trial ran")
    return drawn


def _exports(study: optuna.Study, trial: int, name: str) -> tuple[str, str]:
    """The configuration of a trial as YAML and as Python; empty where it has no schedule."""
    from lrsearch.export import export_text

    texts = []
    for python in (False, True):
        try:
            texts.append(export_text(study, trial=trial, python=python, name=name))
        except LrsearchError:
            texts.append("")
    return texts[0], texts[1]
