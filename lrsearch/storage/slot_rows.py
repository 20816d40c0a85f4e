"""A slot and its trial as rows of the database: what those who claim, fill and end them share."""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.storages._rdb.models import TrialValueModel
from optuna.trial import TrialState
from sqlalchemy import ClauseElement, Update, bindparam, update
from sqlalchemy.engine import Connection, Row

from lrsearch.storage.schema import SLOTS, TRIAL_VALUES, TRIALS, USER_ATTRIBUTES, upsert

#: From so many deaths on a trial runs alone, or its innocent companions would be given up with it.
SUSPECT_ATTEMPTS = 2

_THIS_SLOT = (SLOTS.c.study_id == bindparam("study"), SLOTS.c.slot == bindparam("in_slot"))
_END = (
    update(TRIALS)
    .where(
        TRIALS.c.trial_id == bindparam("ended"),
        TRIALS.c.state.in_([TrialState.RUNNING, TrialState.WAITING]),
    )
    .values(state=bindparam("new_state"), datetime_complete=bindparam("now"))
)


@dataclass(frozen=True)
class Claim:
    """A slot that is ours.

    Attributes:
        study_id: Optuna's number of the study.
        slot: Its number, from 0 to the target - 1.
        owner: Whose it is.
        trial_id: The trial to go on with; None: make a new one.
        attempts: Workers that died over it since its last finished epoch.
        others: Whether other workers had slots of the study when it was claimed.
    """

    study_id: int
    slot: int
    owner: str
    trial_id: int | None = None
    attempts: int = 0
    others: bool = field(default=False, compare=False)

    @property
    def suspect(self) -> bool:
        """Whether the trial may be what kills its workers: it should run alone."""
        return self.attempts >= SUSPECT_ATTEMPTS


@dataclass(frozen=True)
class Ending:
    """How a trial ended.

    Attributes:
        trial_id: Optuna's number of the trial in the database.
        state: COMPLETE, PRUNED or FAIL.
        value: Finite validation loss; needed for COMPLETE.
        attrs: JSON values, user attributes that are set with it.
        at: When, as Optuna stores it.
    """

    trial_id: int
    state: TrialState
    value: float | None
    attrs: Mapping[str, Any] = field(default_factory=dict)
    at: datetime.datetime = field(default_factory=lambda: utc_now())


def end_trials(connection: Connection, ends: Sequence[tuple[Row[Any], Ending]]) -> None:
    """Inside a transaction that locked the slots: end them, and their trials where they run."""
    told = [
        end
        for _, end in ends
        if connection.execute(
            _END, {"ended": end.trial_id, "new_state": end.state, "now": end.at}
        ).rowcount
    ]
    values = [
        {
            "trial_id": end.trial_id,
            "objective": 0,
            "value": float(end.value),
            "value_type": TrialValueModel.TrialValueType.FINITE,
        }
        for end in told
        if end.value is not None
    ]
    upsert(connection, TRIAL_VALUES, ("trial_id", "objective"), values)
    attrs = [row for end in told for row in attr_rows(end.trial_id, end.attrs)]
    upsert(connection, USER_ATTRIBUTES, ("trial_id", "key"), attrs)
    if ends:
        done = [slot_values(row, finished=1) for row, _ in ends]
        connection.execute(slot_update(("finished",)), done)


def update_slot(connection: Connection, row: Row[Any], **values: Any) -> None:
    """Change columns of a slot."""
    expressions = {name for name, value in values.items() if isinstance(value, ClauseElement)}
    plain = {name: value for name, value in values.items() if name not in expressions}
    if expressions:
        statement = (
            update(SLOTS)
            .where(*_THIS_SLOT)
            .values(
                {name: values[name] for name in expressions}
                | {name: bindparam(f"new_{name}") for name in plain}
            )
        )
    else:
        statement = slot_update(tuple(values))
    connection.execute(statement, slot_values(row, **plain))


def slot_values(row: Row[Any], **values: Any) -> dict[str, Any]:
    """The parameters of `slot_update` for one slot."""
    new = {f"new_{name}": value for name, value in values.items()}
    return {"study": row.study_id, "in_slot": row.slot, **new}


@functools.cache
def slot_update(names: tuple[str, ...]) -> Update:
    return (
        update(SLOTS).where(*_THIS_SLOT).values({name: bindparam(f"new_{name}") for name in names})
    )


def set_trial_state(
    connection: Connection, trial_id: int, old: TrialState, new: TrialState
) -> None:
    """Change a trial's state, if it is ``old`` now."""
    connection.execute(
        update(TRIALS)
        .where(TRIALS.c.trial_id == trial_id, TRIALS.c.state == old)
        .values(state=new)
    )


def attr_rows(trial_id: int, attrs: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
        for key, value in attrs.items()
    ]


def utc_now() -> datetime.datetime:
    """Now, as Optuna stores it: UTC without a time zone."""
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
