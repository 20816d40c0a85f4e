"""The trials of claimed slots: made, filled and finished, any number in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import BindParameter, bindparam, select, update
from sqlalchemy.engine import Connection

from lrsearch.storage.engine import Storage
from lrsearch.storage.reading import empty_trial, read_trial
from lrsearch.storage.schema import PARAMS, SLOTS, TRIALS, USER_ATTRIBUTES, lock_study, upsert
from lrsearch.storage.slot_rows import (
    Claim,
    Ending,
    attr_rows,
    end_trials,
    slot_update,
    slot_values,
    utc_now,
)

_STUDY: BindParameter[Any] = bindparam("study")
_SOME_SLOTS = select(SLOTS).where(
    SLOTS.c.study_id == _STUDY, SLOTS.c.slot.in_(bindparam("slots", expanding=True))
)
_SLOTS_OF = (
    select(SLOTS)
    .where(SLOTS.c.trial_id.in_(bindparam("trials", expanding=True)))
    .order_by(SLOTS.c.trial_id)
    .with_for_update()
)
_NEWEST = (
    select(TRIALS.c.number)
    .where(TRIALS.c.study_id == _STUDY)
    .order_by(TRIALS.c.trial_id.desc())
    .limit(1)
)
_NEW = TRIALS.insert()


def start_trials(
    storage: Storage, claims: Sequence[Claim], queued: Sequence[int] = (), reserved: int = 0
) -> dict[int, FrozenTrial]:
    """The RUNNING trials of claimed slots, all in one transaction with the slots.

    A slot keeps the trial that it has, else it takes one that a user queued, else a new one.

    Args:
        storage: From `open_storage`.
        claims: From `claim_some`, of one study.
        queued: Numbers in the database of trials that a user queued (WAITING, in no slot).
        reserved: Slots below this one take none of them.

    Returns:
        The trials by slot, as they are in the database; those of slots that were taken over by
        another worker are missing.
    """

    def work(connection: Connection) -> dict[int, FrozenTrial]:
        lock_study(connection, claims[0].study_id)
        where = {"study": claims[0].study_id, "slots": [claim.slot for claim in claims]}
        rows = {row.slot: row for row in connection.execute(_SOME_SLOTS, where)}
        waiting = list(queued)
        started: dict[int, FrozenTrial] = {}
        placed: list[dict[str, Any]] = []
        for claim in claims:
            row = rows.get(claim.slot)
            if row is None or row.owner != claim.owner:
                continue
            trial = None if row.trial_id is None else read_trial(connection, row.trial_id)
            if trial is None:
                adopted = claim.slot >= reserved and _adopted(connection, waiting)
                trial = adopted or _insert_trial(connection, claim.study_id)
                placed.append(slot_values(row, trial_id=trial._trial_id))
            started[claim.slot] = trial
        if placed:
            connection.execute(slot_update(("trial_id",)), placed)
        return started

    return storage.transact(work) if claims else {}


def _insert_trial(connection: Connection, study_id: int) -> FrozenTrial:
    """A new RUNNING trial with the next number; the study is locked."""
    # Optuna counts all earlier trials; the newest one knows as much, at any size of the study.
    newest = connection.execute(_NEWEST, {"study": study_id}).scalar()
    number, now = 0 if newest is None else newest + 1, utc_now()
    result = connection.execute(
        _NEW,
        {
            "study_id": study_id,
            "number": number,
            "state": TrialState.RUNNING,
            "datetime_start": now,
        },
    )
    trial_id = int(result.inserted_primary_key[0])  # type: ignore[index]
    return empty_trial(trial_id, number, TrialState.RUNNING, now)


def _adopted(connection: Connection, waiting: list[int]) -> FrozenTrial | None:
    """The first trial of a list that is still free, now RUNNING; what was looked at leaves it."""
    while waiting:
        trial_id = waiting.pop(0)
        held = connection.execute(select(SLOTS.c.slot).where(SLOTS.c.trial_id == trial_id)).first()
        if held is not None:
            continue
        started = connection.execute(
            update(TRIALS)
            .where(TRIALS.c.trial_id == trial_id, TRIALS.c.state == TrialState.WAITING)
            .values(state=TrialState.RUNNING, datetime_start=utc_now())
        )
        if started.rowcount == 1:
            return read_trial(connection, trial_id)
    return None


def fill_trials(storage: Storage, filled: Sequence[FrozenTrial]) -> None:
    """Store parameters and user attributes of running trials, all in one transaction.

    Args:
        storage: From `open_storage`.
        filled: From `start_trials`, with their ``params``, ``distributions`` and ``user_attrs``.
    """
    params = [
        {
            "trial_id": trial._trial_id,
            "param_name": name,
            "param_value": trial.distributions[name].to_internal_repr(value),
            "distribution_json": distribution_to_json(trial.distributions[name]),
        }
        for trial in filled
        for name, value in trial.params.items()
    ]
    attrs = [row for trial in filled for row in attr_rows(trial._trial_id, trial.user_attrs)]

    def work(connection: Connection) -> None:
        upsert(connection, PARAMS, ("trial_id", "param_name"), params)
        upsert(connection, USER_ATTRIBUTES, ("trial_id", "key"), attrs)

    if filled:
        storage.transact(work)


def finish_all(storage: Storage, endings: Sequence[Ending], owner: str) -> set[int]:
    """End trials: state, value, attributes and slots in one transaction.

    Args:
        storage: From `open_storage`.
        endings: One of each trial.
        owner: Who ran them.

    Returns:
        Those that are finished by ``owner``, now or by an earlier call; the others belong to
        someone else now, and nothing was written of them.
    """

    def work(connection: Connection) -> set[int]:
        rows = connection.execute(_SLOTS_OF, {"trials": [each.trial_id for each in endings]})
        mine = {row.trial_id: row for row in rows if row.owner == owner}
        left = [each for each in endings if each.trial_id in mine]
        end_trials(
            connection,
            [(mine[each.trial_id], each) for each in left if not mine[each.trial_id].finished],
        )
        return set(mine)

    return storage.transact(work) if endings else set()


def set_user_attrs(storage: Storage, trial_id: int, attrs: Mapping[str, Any]) -> None:
    """Set any number of a trial's user attributes in one transaction."""
    rows = attr_rows(trial_id, attrs)
    storage.transact(lambda c: upsert(c, USER_ATTRIBUTES, ("trial_id", "key"), rows))
