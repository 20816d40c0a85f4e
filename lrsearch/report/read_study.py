"""Reads a study into a `StudyTable`: Optuna's trials as rows, our history of epochs as columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from lrsearch.attributes import averaged_losses, budget_of, info_of, other_params, schedule_of
from lrsearch.divergence import blown_up, last_loss, status_of
from lrsearch.optuna_helpers import label_of, storage_of
from lrsearch.report.tables import StudyTable, TrialRow
from lrsearch.storage.engine import Storage
from lrsearch.storage.history import History, load_history, make_history

HISTORY = ("lr", "train_loss", "val_loss", "val_metric", "avg_val_loss", "avg_val_metric")


def read(study: optuna.Study) -> StudyTable:
    """Everything a report needs to know of a study; see :func:`lrsearch.report.tables.load`."""
    storage = storage_of(study)
    info = info_of(study.user_attrs)
    plan = info.get("plan") or {}
    frozen = [t for t in study.get_trials(deepcopy=False) if not info or _counts(t)]
    ceiling = blown_up(last_loss(t) for t in frozen if t.state.is_finished())
    trials = [row_of(t, ceiling, {} if info else other_params(t)) for t in frozen]
    history = None
    if isinstance(storage, Storage):
        history = load_history(storage, study._study_id, columns=HISTORY)
    history = history or _history_of_steps(frozen, ceiling)
    losses = history.columns["val_loss"]
    losses[losses >= ceiling] = np.inf
    budget = plan.get("epochs") or (info.get("config") or {}).get("epochs")
    if not budget:
        budget = max((max(t.budget, t.epochs) for t in trials), default=0)
    filled = _with_losses(
        [t if t.budget else replace(t, budget=int(budget)) for t in trials], history
    )
    metric = str(plan.get("metric_name") or "metric")
    return StudyTable(study.study_name, filled, history, info, metric, label_of(study))


def _counts(trial: FrozenTrial) -> bool:
    """Whether a trial of a study that ``lrsearch run`` made is one of its own.

    Those that another program added without a schedule are left out, as in ``export``.
    """
    ended = trial.state.name in ("COMPLETE", "PRUNED")
    return not ended or bool(schedule_of(trial))


def row_of(trial: FrozenTrial, ceiling: float, others: Mapping[str, Any]) -> TrialRow:
    """A trial as a row, without what only its history tells.

    Args:
        trial: Of any study.
        ceiling: :func:`lrsearch.divergence.blown_up` of its study.
        others: Parameters beside its schedule.
    """
    attrs, params = trial.user_attrs, trial.params
    schedule = schedule_of(trial)
    warmup = schedule.get("warmup") or 0
    stopped = str(attrs.get("stopped", ""))
    status = status_of(trial, ceiling)
    baseline = attrs.get("baseline")
    return TrialRow(
        number=trial.number,
        trial_id=trial._trial_id,
        status=status,
        family=str(schedule.get("family") or params.get("scheduler") or ""),
        lr=_number(schedule.get("lr") or params.get("lr")) or math.nan,
        warmup=_count(warmup.get("epochs") if isinstance(warmup, Mapping) else warmup),
        params=params,
        distributions=trial.distributions,
        value=last_loss(trial) if status == "complete" else None,
        metric=_number(attrs.get("val_metric")),
        epochs=_count(attrs.get("epochs")),
        budget=_count(schedule.get("epochs")),
        seconds=_number(attrs.get("seconds")) or 0.0,
        baseline=None if baseline is None else str(baseline),
        schedule=schedule,
        stopped=str(attrs.get("error") or stopped) if status == "failed" else stopped,
        device=str(attrs.get("device", "")),
        started=trial.datetime_start,
        finished=trial.datetime_complete,
        attrs=attrs,
        others=others,
    )


def _count(value: Any) -> int:
    """A number of epochs; 0 where something else stands there."""
    return max(0, int(_number(value) or 0))


def _number(value: Any) -> float | None:
    usable = isinstance(value, (int, float)) and math.isfinite(value)
    return float(value) if usable else None


def _history_of_steps(trials: Sequence[FrozenTrial], ceiling: float) -> History:
    """Optuna's intermediate values, in the place of our table, and what `PruningCallback` kept.

    A loop that numbers its epochs from 0 has the loss after the first of them there. Where steps
    go beyond the budget they are no epochs (batches, say): a full trial's are spread over it.
    """
    steps = {step for trial in trials for step in trial.intermediate_values}
    budget = max((budget_of(trial) or 0 for trial in trials), default=0)
    longest = max(steps, default=0)
    first = int(0 in steps and longest < budget)
    per_epoch = longest / budget if 0 < budget < longest else 1
    rows = []
    for trial in trials:
        averaged = averaged_losses(trial)
        each = {math.ceil(step / per_epoch): step for step in sorted(trial.intermediate_values)}
        for epoch, step in each.items():
            average = averaged.get(step, math.nan)
            average = math.nan if average >= ceiling else average
            rows.append((trial._trial_id, epoch + first, trial.intermediate_values[step], average))
    ids, epochs, losses, averages = zip(*rows, strict=True) if rows else ([], [], [], [])
    kept = {name: np.full(len(rows), np.nan) for name in HISTORY}
    kept |= {"val_loss": np.array(losses, float), "avg_val_loss": np.array(averages, float)}
    return make_history(np.array(ids, np.int64), np.array(epochs, np.int64), kept)


def _with_losses(trials: Sequence[TrialRow], history: History) -> tuple[TrialRow, ...]:
    """The trials with first and last loss and, where missing, ``epochs`` taken from history.

    One that is complete and has told no epoch of its own has run them all.
    """
    losses = history.columns["val_loss"]
    filled = []
    for trial in trials:
        start, stop = history.spans.get(trial.trial_id, (0, 0))
        if stop > start:
            first, last = float(losses[start]), float(losses[stop - 1])
            epochs = trial.epochs or int(history.epoch[stop - 1])
            trial = replace(trial, first_loss=first, last_loss=last, epochs=epochs)
        elif trial.status == "complete" and not trial.epochs:
            trial = replace(trial, epochs=trial.budget)
        filled.append(trial)
    return tuple(filled)
