"""What every trial did in every epoch: written once per lock-step epoch, read as columns."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.storages._rdb.models import TrialIntermediateValueModel
from sqlalchemy import Select, bindparam, delete, inspect, select, update
from sqlalchemy.engine import Connection

from lrsearch.divergence import DIVERGED_LOSS
from lrsearch.measured import EpochResult
from lrsearch.storage.engine import Storage
from lrsearch.storage.schema import HISTORY, INTERMEDIATE, SLOTS, TRIALS, server_now, upsert

_VALUES = (
    "lr", "train_loss", "val_loss", "val_metric", "avg_val_loss", "avg_val_metric", "seconds",
)  # fmt: skip
_CHUNK = 500  # numbers in one IN (...): SQLite once allowed 999
_ROWS = 2000  # held as Python's objects at a time: a row is ten times larger then

_MINE = (SLOTS.c.owner == bindparam("by"), SLOTS.c.finished == 0)
_BEAT = update(SLOTS).where(*_MINE).values(beat=server_now())
_OWNED = select(SLOTS.c.trial_id).where(*_MINE)
_REACHED = (
    update(SLOTS)
    .where(SLOTS.c.trial_id == bindparam("b_trial"), SLOTS.c.epoch < bindparam("b_epoch"))
    .values(epoch=bindparam("b_epoch"), attempts=0)
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class History:
    """What trials did in every epoch, as columns sorted by trial and epoch.

    Attributes:
        epoch: Epochs finished, from 1, (rows,).
        columns: ``lr`` of the epoch's last optimizer step, ``train_loss``, ``val_loss`` of the
            weights, ``avg_val_loss`` of their running average, ... each (rows,); what is missing,
            and a loss that is not finite, is NaN.
        spans: Number of a trial in the database -> (first row, one past the last row).
    """

    epoch: Ints
    columns: Mapping[str, Floats]
    spans: Mapping[int, tuple[int, int]]

    def __len__(self) -> int:
        return len(self.epoch)

    def of(self, trial_id: int, column: str) -> npt.NDArray[Any]:
        """One column of one trial; ``epoch`` too. Empty for a trial without history."""
        start, stop = self.spans.get(trial_id, (0, 0))
        values: npt.NDArray[Any] = self.epoch if column == "epoch" else self.columns[column]
        return values[start:stop]


def make_history(trial_id: Ints, epoch: Ints, columns: Mapping[str, Floats]) -> History:
    """The history of rows in any order, (rows,) each."""
    order = np.lexsort((epoch, trial_id))
    ids, starts = np.unique(trial_id[order], return_index=True)
    stops = [*starts[1:].tolist(), len(order)]
    spans = dict(zip(ids.tolist(), zip(starts.tolist(), stops, strict=False), strict=True))
    return History(epoch[order], {name: v[order] for name, v in columns.items()}, spans)


def record_epochs(
    storage: Storage, rows: Sequence[tuple[int, EpochResult]], *, owner: str
) -> set[int]:
    """Write one lock-step epoch of any number of trials in one transaction.

    History, Optuna's intermediate values (step = epoch, value = validation loss, `DIVERGED_LOSS`
    if that is not finite) and the heartbeat of all slots of ``owner``. An epoch recorded again,
    by a resumed trial, replaces the old row. Trials that ``owner`` no longer owns are not written.

    Args:
        storage: From `open_storage`.
        rows: (trial_id, result) pairs, one per trial.
        owner: Who runs them (see `lrsearch.storage.slots`).

    Returns:
        Those trial ids that now belong to someone else: stop training them.

    Example:
        >>> lost = record_epochs(storage, [(7, result)], owner=me)  # doctest: +SKIP
    """

    def work(connection: Connection) -> set[int]:
        owned = beat_in(connection, owner)
        kept = [row for row in rows if row[0] in owned]
        if kept:
            upsert(connection, HISTORY, ("trial_id", "epoch"), [_history_row(*r) for r in kept])
            upsert(connection, INTERMEDIATE, ("trial_id", "step"), [_optuna_row(*r) for r in kept])
            connection.execute(
                _REACHED,
                [{"b_trial": trial_id, "b_epoch": result.epoch} for trial_id, result in kept],
            )
        return {trial_id for trial_id, _ in rows} - owned

    return storage.transact(work)


def beat_in(connection: Connection, owner: str) -> set[int]:
    """Inside a transaction: heartbeat of all open slots of ``owner``; the trials it owns.

    The rows stay locked until the transaction ends, so nobody can take them over meanwhile.
    """
    connection.execute(_BEAT, {"by": owner})
    found = connection.execute(_OWNED, {"by": owner}).scalars()
    return {trial_id for trial_id in found if trial_id is not None}


def forget_epochs(storage: Storage, trial_id: int, after: int) -> None:
    """Delete what was recorded of a trial after epoch ``after``: it goes on from there again."""

    def work(connection: Connection) -> None:
        connection.execute(
            delete(HISTORY).where(HISTORY.c.trial_id == trial_id, HISTORY.c.epoch > after)
        )
        connection.execute(
            delete(INTERMEDIATE).where(
                INTERMEDIATE.c.trial_id == trial_id, INTERMEDIATE.c.step > after
            )
        )

    storage.transact(work)


def load_history(
    storage: Storage,
    study_id: int,
    *,
    trial_ids: Collection[int] | None = None,
    columns: Collection[str] = _VALUES,
) -> History:
    """Read the history of a study, or of some of its trials, in one snapshot.

    Args:
        storage: From `open_storage`.
        study_id: Optuna's number of the study.
        trial_ids: Only these trials; finished ones never change, so a caller may keep them.
        columns: Only these values are read.

    Returns:
        Columns; 10,000 trials of 30 epochs take about a second.
    """
    wanted = [name for name in _VALUES if name in columns]
    everything, some = _reading(tuple(wanted))
    kinds = [np.int64] * 2 + [np.float64] * len(wanted)

    def work(connection: Connection) -> list[list[npt.NDArray[Any]]]:
        parts = [[np.zeros(0, dtype=kind) for kind in kinds]]
        if not storage.has_history and not inspect(connection).has_table(HISTORY.name):
            return parts
        ids = sorted(trial_ids or ())
        asked = [{"ids": ids[start : start + _CHUNK]} for start in range(0, len(ids), _CHUNK)]
        for given in [{}] if trial_ids is None else asked:
            result = connection.execute(
                some if given else everything, {"study": study_id, **given}
            )
            for rows in result.partitions(_ROWS):
                cells = zip(zip(*rows, strict=True), kinds, strict=True)
                parts.append([np.array(column, dtype=kind) for column, kind in cells])
        return parts

    found = [np.concatenate(c) for c in zip(*storage.transact(work, read=True), strict=True)]
    trial_id, epoch, *values = found
    return make_history(trial_id, epoch, dict(zip(wanted, values, strict=True)))


@functools.cache
def _reading(columns: tuple[str, ...]) -> tuple[Select[Any], Select[Any]]:
    """What reads some columns of a whole study, and of some of its trials."""
    statement: Select[Any] = (
        select(HISTORY.c.trial_id, HISTORY.c.epoch, *(HISTORY.c[n] for n in columns))
        .join(TRIALS, TRIALS.c.trial_id == HISTORY.c.trial_id)
        .where(TRIALS.c.study_id == bindparam("study"))
    )
    return statement, statement.where(HISTORY.c.trial_id.in_(bindparam("ids", expanding=True)))


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _history_row(trial_id: int, result: EpochResult) -> dict[str, Any]:
    values = {name: _finite(getattr(result, name)) for name in _VALUES}
    return {"trial_id": trial_id, "epoch": result.epoch, **values}


def _optuna_row(trial_id: int, result: EpochResult) -> dict[str, Any]:
    value = DIVERGED_LOSS if result.diverged else min(float(result.val_loss), DIVERGED_LOSS)
    return {
        "trial_id": trial_id,
        "step": result.epoch,
        "intermediate_value": value,
        "intermediate_value_type": TrialIntermediateValueModel.TrialIntermediateValueType.FINITE,
    }
