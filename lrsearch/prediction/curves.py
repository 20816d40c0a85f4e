"""What the trials of a study did so far, as arrays: the input of pruner, sampler and replay."""

from __future__ import annotations

import operator
import threading
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from lrsearch.attributes import averaged_losses
from lrsearch.divergence import DIVERGED_LOSS, blown_up, status_of
from lrsearch.errors import LrsearchError
from lrsearch.optuna_helpers import storage_of
from lrsearch.prediction.surrogate import Array, trace_features
from lrsearch.schedules import FAMILIES, Schedule
from lrsearch.schedules.formulas import rates
from lrsearch.storage import history
from lrsearch.storage.engine import Storage

RUNNING, COMPLETE, STOPPED, DIVERGED = 0, 1, 2, 3
STATES = {"complete": COMPLETE, "pruned": STOPPED, "diverged": DIVERGED}
DECIDING = threading.RLock()  # threads (``n_jobs``) share a study's sampler and pruner
STEPS = 60  # in which a schedule that steps within the epoch is looked at


@dataclass(frozen=True)
class Curves:
    """Trials of one study; epoch ``e`` is column ``e - 1``.

    Attributes:
        lr: Rate of each epoch of the whole budget, known ahead; (n, E).
        raw: Validation loss after each epoch, NaN beyond ``reached``; (n, E). Epochs without a
            validation hold the one before, also those beyond ``reached`` of a complete trial.
        avg: The same of the running average of the weights; (n, E).
        reached: Epochs told of; (n,). A complete trial that told of none has only its last loss.
        state: ``RUNNING``, ``COMPLETE``, ``STOPPED`` or ``DIVERGED``; (n,).
        features: :func:`trace_features` of ``lr``; (n, d).
    """

    lr: Array
    raw: Array
    avg: Array
    reached: NDArray[np.int64]
    state: NDArray[np.int64]
    features: Array

    @property
    def epochs(self) -> int:
        """The budget E."""
        return int(self.lr.shape[1])

    def __len__(self) -> int:
        return len(self.lr)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Curves:
        """Some of the trials, by index or mask."""
        return Curves(*(getattr(self, f.name)[rows] for f in fields(self)))

    def joined(self, others: Curves) -> Curves:
        """These trials, and then others of the same budget."""
        if not len(self) or not len(others):
            return self if len(self) else others
        pairs = ((getattr(self, f.name), getattr(others, f.name)) for f in fields(self))
        return Curves(*map(np.concatenate, pairs))


def lr_per_epoch(schedule: Schedule, seen: Array | None = None) -> Array:
    """Rates of all epochs, (E,): the trace, and for ``ReduceLROnPlateau`` what is known of it.

    Args:
        schedule: Of the trial.
        seen: Rates of the epochs run so far; a family without a trace is taken to hold the last.
    """
    if not FAMILIES[schedule.family].needs_metric:
        per_epoch = -(-STEPS // schedule.epochs) if schedule.interval == "step" else 1
        lr = rates(schedule, per_epoch)
        if lr is None:
            lr = schedule.trace(per_epoch).lr
        return np.asarray(lr.reshape(schedule.epochs, per_epoch).mean(axis=1), dtype=np.float64)
    seen = np.zeros(0) if seen is None else seen[~np.isnan(seen)]
    out = np.full(schedule.epochs, seen[-1] if len(seen) else schedule.lr)
    out[: len(seen)] = seen
    return out


@dataclass(frozen=True)
class TrialCurve:
    """One trial of :class:`Curves`."""

    lr: Array
    features: Array
    raw: Array
    avg: Array
    reached: int
    state: int
    traced: bool = True


class CurveReader:
    """Reads the curves of a study; keeps what never changes: finished trials, known rates.

    A trial that runs is read anew where its schedule is another than at the last look.
    """

    def __init__(self) -> None:
        self._rows: dict[_Key, _Read] = {}

    def rows(
        self, study: optuna.Study, trials: list[FrozenTrial], *, losses: bool = True
    ) -> dict[int, TrialCurve]:
        """The rows of ``trials`` that have a schedule, by trial number.

        Raw losses are Optuna's intermediate values. Averaged losses are in the history table of
        our own storage, or else in ``user_attrs["avg_val_losses"]`` (a list, one each report).

        Args:
            study: Theirs.
            trials: Some of its trials.
            losses: False where the rates are enough, and losses may be those of an earlier look.
        """
        found: dict[int, TrialCurve | None] = {}
        new: list[tuple[FrozenTrial, TrialCurve | None]] = []
        for trial in trials:
            number, key = trial.number, (study.study_name, trial.number, trial.datetime_start)
            read, schedule, row = self._rows.get(key, _UNREAD)
            if read is not None and schedule != trial.user_attrs.get("schedule"):
                read, row = -1, None  # a worker asks again where another stored the same
            found[number] = row
            if read == (stage := _stage(trial)):
                continue
            if not losses and row is not None and row.traced:
                continue
            known = (
                read == len(trial.intermediate_values) and "avg_val_losses" not in trial.user_attrs
            )
            if stage is None and row is not None and known:
                # All its epochs were read while it ran: only its state is another.
                failed = trial.state == TrialState.FAIL
                ended = replace(row, state=_state(trial))
                found[number] = None if failed else _whole(ended, trial)
                self._rows[key] = None, schedule, found[number]
            else:
                new.append((trial, row))
        begun = [t for t, _ in new if "schedule" in t.user_attrs and t.intermediate_values]
        averages = _averages(study, begun)
        for trial, row in new:
            made = found[trial.number] = _row(trial, averages.get(trial.number), row)
            if made is not None or trial.state.is_finished():  # else its schedule is to come
                key = study.study_name, trial.number, trial.datetime_start
                self._rows[key] = _stage(trial), trial.user_attrs.get("schedule"), made
        return {number: row for number, row in found.items() if row is not None}


_Key = tuple[str, int, datetime | None]  # two studies of one name differ in when trials began
_Read = tuple[int | None, Any, TrialCurve | None]  # its stage, and its schedule as it was kept
_UNREAD: _Read = (-1, None, None)


def _stage(trial: FrozenTrial) -> int | None:
    """What changes when there is more to read of a trial: its epochs, and at last its end."""
    return None if trial.state.is_finished() else len(trial.intermediate_values)


def load_curves(
    study: optuna.Study,
    trials: list[FrozenTrial] | None = None,
    reader: CurveReader | None = None,
    epochs: int | None = None,
) -> Curves:
    """The trials of a study as arrays, in the order of ``trials``.

    Trials without a schedule in ``user_attrs["schedule"]``, failed ones, and those of another
    budget are left out.

    Args:
        study: Any Optuna study whose trials have ``user_attrs["schedule"]``
            (:meth:`Schedule.to_dict`), on any storage.
        trials: Some of its trials; None for all, in the order of their numbers.
        reader: Keeps what it read of finished trials from call to call.
        epochs: The budget; None for that of the last of them.
    """
    if trials is None:
        trials = study.get_trials(deepcopy=False)
    rows = (reader or CurveReader()).rows(study, trials)
    return stack([rows[t.number] for t in trials if t.number in rows], epochs)


def same(one: list[FrozenTrial], other: list[FrozenTrial]) -> bool:
    """Whether two lists hold the very same trials, as they were read."""
    return len(one) == len(other) and all(map(operator.is_, one, other))


def by_end(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Finished trials in the order they ended, then the others.

    What is learnt from the first n of them stays when more trials end.
    """
    return sorted(trials, key=lambda t: (t.datetime_complete or datetime.max, t.number))


def stack(rows: list[TrialCurve], epochs: int | None = None) -> Curves:
    """Rows as arrays; those of another budget (by default, than the last one's) are left out."""
    if epochs is None:
        epochs = len(rows[-1].lr) if rows else 0
    rows = [row for row in rows if len(row.lr) == epochs]
    lr = np.array([row.lr for row in rows]).reshape(len(rows), epochs)
    raw = np.array([row.raw for row in rows]).reshape(lr.shape)
    avg = np.array([row.avg for row in rows]).reshape(lr.shape)
    reached = np.array([row.reached for row in rows], dtype=np.int64)
    state = np.array([row.state for row in rows], dtype=np.int64)
    last = np.array([row.raw[row.reached - 1] for row in rows])
    ended = (state == COMPLETE) | (state == STOPPED)
    ceiling = blown_up(last[ended].tolist())
    state[ended & (last >= ceiling)] = DIVERGED  # also a complete one: no model fits it
    return Curves(
        lr,
        np.where(raw >= DIVERGED_LOSS, ceiling, raw),
        np.where(avg >= DIVERGED_LOSS, ceiling, avg),
        reached,
        state,
        np.array([row.features for row in rows]) if rows else np.zeros((0, 0)),
    )


def _averages(study: optuna.Study, trials: list[FrozenTrial]) -> dict[int, dict[str, Any]]:
    """By trial number: epochs, averaged losses and rates from our own storage."""
    storage = storage_of(study)
    if not isinstance(storage, Storage) or not trials:
        return {}
    found = history.load_history(
        storage,
        study._study_id,
        trial_ids=[t._trial_id for t in trials],
        columns=("avg_val_loss", "lr"),
    )
    return {
        t.number: {name: found.of(t._trial_id, name) for name in ("epoch", "avg_val_loss", "lr")}
        for t in trials
        if t._trial_id in found.spans
    }


def _row(
    trial: FrozenTrial, stored: dict[str, Any] | None, before: TrialCurve | None
) -> TrialCurve | None:
    """A trial's row; ``before``: the one of the trial when less of it was known."""
    if "schedule" not in trial.user_attrs or trial.state == TrialState.FAIL:
        return None
    if before is None or not before.traced:
        try:
            schedule = Schedule.from_dict(trial.user_attrs["schedule"])
        except LrsearchError:  # another program keeps something else by that name
            return None
        before = _unstarted(schedule, stored)
    budget = len(before.lr)
    losses = {k: v for k, v in sorted(trial.intermediate_values.items()) if k >= 1}
    if max(losses, default=0) > budget:  # these steps are no epochs
        losses = {}
    raw, steps = _filled(budget, losses, losses.values()), list(losses)
    if stored is not None:
        avg = _filled(budget, stored["epoch"], stored["avg_val_loss"])
    else:
        kept = averaged_losses(trial)
        avg = _filled(budget, steps, [kept.get(step, np.nan) for step in steps])
    avg = np.where(np.isnan(avg), raw, avg)
    reached = steps[-1] if steps else 0
    row = replace(before, raw=raw, avg=avg, reached=reached, state=_state(trial))
    return _whole(row, trial)


def _whole(row: TrialCurve, trial: FrozenTrial) -> TrialCurve:
    """A complete trial that did not report its last epoch ended at its last report, or value."""
    if row.state != COMPLETE or row.reached == len(row.lr):
        return row
    raw, avg, at = row.raw.copy(), row.avg.copy(), row.reached
    raw[at:], avg[at:] = raw[at - 1], avg[at - 1]
    if not at:
        raw[-1] = avg[-1] = trial.value
    return replace(row, raw=raw, avg=avg)


def _unstarted(schedule: Schedule, stored: dict[str, Any] | None) -> TrialCurve:
    """What is known of a trial from its schedule, and from the rates of the epochs run so far."""
    seen = None if stored is None else _filled(schedule.epochs, stored["epoch"], stored["lr"])
    lr = lr_per_epoch(schedule, seen)
    traced = not FAMILIES[schedule.family].needs_metric
    unknown = np.full(len(lr), np.nan)
    return TrialCurve(lr, trace_features(lr)[0], unknown, unknown, 0, RUNNING, traced)


def _filled(budget: int, epochs: Any, values: Any) -> Array:
    """Values at some epochs as (E,): between two, the earlier one's; NaN after the last."""
    out = np.full(budget, np.nan)
    epochs, values = np.array([*epochs], dtype=np.int64), [*values]
    if len(epochs):
        before = np.arange(epochs[-1]) + 1
        out[: epochs[-1]] = np.array(values, dtype=np.float64)[
            np.maximum(np.searchsorted(epochs, before, side="right") - 1, 0)
        ]
    return out


def _state(trial: FrozenTrial) -> int:
    return STATES.get(status_of(trial), RUNNING)
