"""The trials of claimed slots: made, asked for and finished, each in one transaction."""

from __future__ import annotations

import datetime
import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages._rdb.models import TrialValueModel
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import BindParameter, ClauseElement, Update, bindparam, select, update
from sqlalchemy.engine import Connection, Row

from lrsearch.errors import LrsearchError
from lrsearch.storage.engine import Storage
from lrsearch.storage.reading import empty_trial, read_trial
from lrsearch.storage.schema import (
    PARAMS,
    SLOTS,
    TRIAL_VALUES,
    TRIALS,
    USER_ATTRIBUTES,
    lock_study,
    upsert,
)

#: From so many deaths on a trial runs alone, or its innocent companions would be given up with it.
SUSPECT_ATTEMPTS = 2


_STUDY: BindParameter[Any] = bindparam("study")
_THIS_SLOT = (SLOTS.c.study_id == _STUDY, SLOTS.c.slot == bindparam("in_slot"))
_SLOT = select(SLOTS).where(SLOTS.c.study_id == _STUDY, SLOTS.c.slot == bindparam("slot"))
_SLOT_OF = select(SLOTS).where(SLOTS.c.trial_id == bindparam("trial")).with_for_update()
_NEWEST = (
    select(TRIALS.c.number)
    .where(TRIALS.c.study_id == _STUDY)
    .order_by(TRIALS.c.trial_id.desc())
    .limit(1)
)
_NEW = TRIALS.insert()
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
        epoch: Epochs of it that are recorded.
        attempts: Workers that died over it since its last finished epoch.
    """

    study_id: int
    slot: int
    owner: str
    trial_id: int | None = None
    epoch: int = 0
    attempts: int = 0

    @property
    def suspect(self) -> bool:
        """Whether the trial may be what kills its workers: it should run alone."""
        return self.attempts >= SUSPECT_ATTEMPTS


class LostTrialError(LrsearchError):
    """Another worker has taken this trial over; nothing was written."""


def create_trial(storage: Storage, claimed: Claim) -> int:
    """Make the RUNNING trial of a claimed slot, in one transaction with the slot.

    Args:
        storage: From `open_storage`.
        claimed: From `claim`. If its slot has a trial already, that one is returned.

    Returns:
        Optuna's number of the trial in the database.

    Raises:
        LostTrialError: If the slot was taken over by another worker.
    """

    return start_trial(storage, claimed)._trial_id


def start_trial(storage: Storage, claimed: Claim) -> FrozenTrial:
    """As `create_trial`; the trial itself, which is not read again where it is new."""

    def work(connection: Connection) -> FrozenTrial:
        row = _own_slot(connection, claimed)
        known = None if row.trial_id is None else read_trial(connection, row.trial_id)
        if known is not None:
            return known
        trial = _insert_trial(connection, claimed.study_id)
        update_slot(connection, row, trial_id=trial._trial_id)
        return trial

    return storage.transact(work)


def fill_trial(
    storage: Storage,
    trial_id: int,
    *,
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    user_attrs: Mapping[str, Any],
) -> None:
    """Set all parameters and attributes of a running trial in one transaction.

    Args:
        storage: From `open_storage`.
        trial_id: From `create_trial`.
        params: Parameter values, as Optuna shows them.
        distributions: One for each parameter.
        user_attrs: JSON values.
    """
    rows = [
        {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": distributions[name].to_internal_repr(value),
            "distribution_json": distribution_to_json(distributions[name]),
        }
        for name, value in params.items()
    ]

    def work(connection: Connection) -> None:
        upsert(connection, PARAMS, ("trial_id", "param_name"), rows)
        upsert(connection, USER_ATTRIBUTES, ("trial_id", "key"), _attr_rows(trial_id, user_attrs))

    storage.transact(work)


def _own_slot(connection: Connection, claimed: Claim) -> Row[Any]:
    """The row of a claimed slot; the study is locked."""
    lock_study(connection, claimed.study_id)
    where = {"study": claimed.study_id, "slot": claimed.slot}
    row = connection.execute(_SLOT, where).first()
    if row is None or row.owner != claimed.owner:
        raise LostTrialError(f"slot {claimed.slot} was taken over by another worker")
    return row


def _insert_trial(connection: Connection, study_id: int) -> FrozenTrial:
    """A new RUNNING trial with the next number; the study is locked."""
    # Optuna counts all earlier trials; the newest one knows as much, at any size of the study.
    newest = connection.execute(_NEWEST, {"study": study_id}).scalar()
    number, now = 0 if newest is None else newest + 1, _utc()
    result = connection.execute(
        _NEW,
        {
            "study_id": study_id,
            "number": number,
            "state": TrialState.RUNNING,
            "datetime_start": now,
        },
    )
    return empty_trial(
        int(result.inserted_primary_key[0]),  # type: ignore[index]
        number,
        TrialState.RUNNING,
        now,
    )


def adopt(storage: Storage, claimed: Claim, trial_id: int) -> bool:
    """Put a trial that a user queued (WAITING, in no slot) into a claimed slot and start it.

    Returns:
        False if the trial is no longer free: another worker has it, or it is in a slot already.

    Raises:
        LostTrialError: If the slot was taken over by another worker.
    """

    def work(connection: Connection) -> bool:
        row = _own_slot(connection, claimed)
        if row.trial_id is not None:
            return bool(row.trial_id == trial_id)
        held = connection.execute(select(SLOTS.c.slot).where(SLOTS.c.trial_id == trial_id)).first()
        if held is not None:
            return False
        started = connection.execute(
            update(TRIALS)
            .where(TRIALS.c.trial_id == trial_id, TRIALS.c.state == TrialState.WAITING)
            .values(state=TrialState.RUNNING, datetime_start=_utc())
        )
        if started.rowcount != 1:
            return False
        update_slot(connection, row, trial_id=trial_id)
        return True

    return storage.transact(work)


def finish(
    storage: Storage,
    trial_id: int,
    state: TrialState,
    value: float | None = None,
    user_attrs: Mapping[str, Any] | None = None,
    *,
    owner: str,
) -> bool:
    """End a trial: state, value, attributes and slot in one transaction.

    Args:
        storage: From `open_storage`.
        trial_id: Optuna's number of the trial in the database.
        state: COMPLETE, PRUNED or FAIL.
        value: Finite validation loss; needed for COMPLETE.
        user_attrs: JSON values to set with it.
        owner: Who ran it.

    Returns:
        True if it is finished by ``owner``, now or by an earlier call; False if it belongs to
        someone else now, and nothing was written.
    """
    if not state.is_finished():
        raise ValueError(f"a trial ends as COMPLETE, PRUNED or FAIL, got {state=}")
    if value is None and state == TrialState.COMPLETE:
        raise ValueError("a COMPLETE trial needs a value, got value=None")
    if value is not None and not math.isfinite(value):
        raise ValueError(f"the value of a trial must be finite, got {value=}")

    def work(connection: Connection) -> bool:
        row = connection.execute(_SLOT_OF, {"trial": trial_id}).first()
        if row is None or row.owner != owner:
            return False
        if not row.finished:
            end_trial(connection, row, state, value, user_attrs or {})
        return True

    return storage.transact(work)


def set_user_attrs(storage: Storage, trial_id: int, attrs: Mapping[str, Any]) -> None:
    """Set any number of a trial's user attributes in one transaction."""
    rows = _attr_rows(trial_id, attrs)
    storage.transact(lambda c: upsert(c, USER_ATTRIBUTES, ("trial_id", "key"), rows))


def end_trial(
    connection: Connection,
    row: Row[Any],
    state: TrialState,
    value: float | None,
    attrs: Mapping[str, Any],
) -> None:
    """Inside a transaction that locked ``row``, a slot: its trial, unless it has ended, and it."""
    done = connection.execute(_END, {"ended": row.trial_id, "new_state": state, "now": _utc()})
    if done.rowcount == 1:
        if value is not None:
            finite = TrialValueModel.TrialValueType.FINITE
            value_row = {
                "trial_id": row.trial_id,
                "objective": 0,
                "value": float(value),
                "value_type": finite,
            }
            upsert(connection, TRIAL_VALUES, ("trial_id", "objective"), [value_row])
        rows = _attr_rows(row.trial_id, attrs)
        upsert(connection, USER_ATTRIBUTES, ("trial_id", "key"), rows)
    update_slot(connection, row, finished=1)


def update_slot(connection: Connection, row: Row[Any], **values: Any) -> None:
    """Change columns of a slot."""
    expressions = {name for name, value in values.items() if isinstance(value, ClauseElement)}
    plain = {f"new_{name}": value for name, value in values.items() if name not in expressions}
    if expressions:
        statement = (
            update(SLOTS)
            .where(*_THIS_SLOT)
            .values(
                {name: values[name] for name in expressions}
                | {name: bindparam(f"new_{name}") for name in values if name not in expressions}
            )
        )
    else:
        statement = _slot_update(tuple(values))
    connection.execute(statement, {"study": row.study_id, "in_slot": row.slot, **plain})


@functools.cache
def _slot_update(names: tuple[str, ...]) -> Update:
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


def _attr_rows(trial_id: int, attrs: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
        for key, value in attrs.items()
    ]


def _utc() -> datetime.datetime:
    """Now, as Optuna stores it: UTC without a time zone."""
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
