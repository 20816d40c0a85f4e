"""Who runs what: exactly as many trials as asked for, each run by one worker at a time.

A study with target N has N *slots*. A worker claims a slot, makes a trial in it or goes on with
the one that is there, and finishes both together (`lrsearch.storage.trials`). A slot whose worker
let go of it or died is claimed again, with its trial: same number, parameters and history. Trials
that nobody runs are WAITING, a state that Optuna's samplers skip. A failed trial has used
its slot.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import TrialState
from sqlalchemy import BindParameter, ColumnElement, and_, bindparam, func, select, update
from sqlalchemy.engine import Connection, Row

from lrsearch.errors import printable
from lrsearch.storage.engine import Storage
from lrsearch.storage.owners import STALE_SECONDS, is_dead
from lrsearch.storage.schema import SLOTS, TRIALS, USER_ATTRIBUTES, lock_study, server_now
from lrsearch.storage.slot_rows import (
    SUSPECT_ATTEMPTS,
    Claim,
    Ending,
    end_trials,
    set_trial_state,
    update_slot,
)

#: A trial is given up after so many workers died over it with no epoch finished in between.
MAX_ATTEMPTS = 5


_STUDY: BindParameter[Any] = bindparam("study")
_OPEN = (
    select(SLOTS, TRIALS.c.state, server_now().label("now"))
    .outerjoin(TRIALS, TRIALS.c.trial_id == SLOTS.c.trial_id)
    .where(SLOTS.c.study_id == _STUDY, SLOTS.c.finished == 0)
    .order_by(SLOTS.c.slot)
)
_ORPHANS = (
    select(SLOTS)
    .where(
        SLOTS.c.study_id == _STUDY,
        SLOTS.c.finished == 0,
        SLOTS.c.owner.is_(None),
        SLOTS.c.slot < bindparam("target"),
    )
    .order_by(SLOTS.c.attempts, SLOTS.c.slot)
    .limit(bindparam("most"))
)
_HIGHEST = select(func.max(SLOTS.c.slot)).where(SLOTS.c.study_id == _STUDY)
_MINE = select(SLOTS.c.slot).where(
    SLOTS.c.study_id == _STUDY, SLOTS.c.owner == bindparam("by"), SLOTS.c.finished == 0
)
_NEW = SLOTS.insert().values(
    study_id=bindparam("new_study"),
    slot=bindparam("new_slot"),
    owner=bindparam("new_owner"),
    beat=server_now(),
)


@dataclass(frozen=True)
class Begun:
    """A slot that a worker has claimed at least once.

    Attributes:
        finished: Whether its trial has ended.
        running: Whether a worker has it now.
        attrs: What was asked for of its trial's user attributes; empty before it has them.
    """

    finished: bool
    running: bool
    attrs: dict[str, Any]


def claim_some(
    storage: Storage,
    study_id: int,
    target: int,
    owner: str,
    most: int,
    *,
    suspects: bool = True,
    stale_seconds: float = STALE_SECONDS,
) -> list[Claim]:
    """Take the next things to do: slots whose workers are gone, then new ones, else a suspect.

    Workers of this machine are known to be gone at once, those of other machines when their heart
    has not beaten for ``stale_seconds`` by the database's clock.

    Args:
        storage: From `open_storage`.
        study_id: Optuna's number of the study.
        target: Trials the study is to have in the end; slots beyond are left alone.
        owner: From `new_owner`.
        most: So many at most, at least 1.
        suspects: Whether to take a trial over which several workers died (`Claim.suspect`), alone.
        stale_seconds: See above.

    Returns:
        Nothing if there is nothing to do now; others may still be running (`count_running`).
    """

    taken: list[Claim] = []

    def work(connection: Connection) -> list[Claim]:
        nonlocal taken
        lock_study(connection, study_id)
        if taken:  # this runs again: was it committed, and only the answer got lost?
            mine = set(connection.execute(_MINE, {"study": study_id, "by": owner}).scalars())
            if taken := [claim for claim in taken if claim.slot in mine]:
                return taken
        others = _sweep(storage, connection, study_id, stale_seconds, but=owner)
        where = {"study": study_id, "target": target, "most": most}
        orphans = connection.execute(_ORPHANS, where).all()
        fit = [o for o in orphans if o.attempts < SUSPECT_ATTEMPTS]
        taken = [_take(connection, orphan, owner, others) for orphan in fit]
        highest = connection.execute(_HIGHEST, {"study": study_id}).scalar()
        first = 0 if highest is None else highest + 1
        new = range(first, min(target, first + most - len(taken)))
        if new:
            rows = [{"new_study": study_id, "new_slot": slot, "new_owner": owner} for slot in new]
            connection.execute(_NEW, rows)
        taken += [Claim(study_id, slot, owner, others=others) for slot in new]
        if not taken and orphans and suspects:
            taken = [_take(connection, orphans[0], owner, others)]
        return taken

    return storage.transact(work)


def _take(connection: Connection, orphan: Row[Any], owner: str, others: bool) -> Claim:
    update_slot(connection, orphan, owner=owner, beat=server_now())
    if orphan.trial_id is not None:
        set_trial_state(connection, orphan.trial_id, TrialState.WAITING, TrialState.RUNNING)
    place = orphan.study_id, orphan.slot, owner
    return Claim(*place, orphan.trial_id, orphan.attempts, others)


def sweep(storage: Storage, study_id: int) -> None:
    """Free the slots of dead workers, as `claim_some` does, without claiming one."""

    def work(connection: Connection) -> None:
        lock_study(connection, study_id)
        _sweep(storage, connection, study_id, STALE_SECONDS)

    storage.transact(work)


def _sweep(
    storage: Storage,
    connection: Connection,
    study_id: int,
    stale_seconds: float,
    but: str | None = None,
) -> bool:
    """Free the slots of dead workers; whether there are slots of workers other than ``but``."""
    # After an outage all hearts look stale: give every worker time to find the database again.
    since = storage.recovered_at
    trust_beats = since is None or time.monotonic() - since > stale_seconds
    rows = connection.execute(_OPEN, {"study": study_id}).all()
    for row in rows:
        if row.state is not None and row.state.is_finished():  # told by another program
            update_slot(connection, row, finished=1)
            continue
        if row.owner is None or row.owner == but:  # who asks is alive
            continue
        if is_dead(row.owner):
            _free(connection, row, row.error or "its worker's process ended")
        elif trust_beats and row.now - row.beat > stale_seconds:
            silent = f"its worker was not heard of for {row.now - row.beat:.0f} s"
            _free(connection, row, row.error or silent, stale_seconds)
    return any(row.owner not in (None, but) for row in rows)


def _free(
    connection: Connection, row: Row[Any], reason: str, stale_seconds: float | None = None
) -> None:
    """Take a slot from a dead worker, unless it gave a sign of life since ``row`` was read."""
    attempts = row.attempts + 1
    statement = (
        update(SLOTS)
        .where(
            SLOTS.c.study_id == row.study_id,
            SLOTS.c.slot == row.slot,
            SLOTS.c.owner == row.owner,
            SLOTS.c.finished == 0,
        )
        .values(owner=None, attempts=attempts)
    )
    if stale_seconds is not None:
        statement = statement.where(SLOTS.c.beat < server_now() - stale_seconds)
    if connection.execute(statement).rowcount != 1 or row.trial_id is None:
        return
    if attempts < MAX_ATTEMPTS:
        set_trial_state(connection, row.trial_id, TrialState.RUNNING, TrialState.WAITING)
        return
    error = f"given up after {attempts} workers ended over it; the last: {reason}"
    attrs = {"error": error, "stopped": "failed"}
    end_trials(connection, [(row, Ending(row.trial_id, TrialState.FAIL, None, attrs))])


def release(storage: Storage, owner: str, *, error: str | None = None) -> None:
    """Hand back all that ``owner`` runs, for any worker to go on with.

    Args:
        storage: From `open_storage`.
        owner: Whose slots.
        error: Why it died, if it did: counts as a death over each of its trials.
    """
    why = None if error is None else printable(error)[:2000]  # PostgreSQL takes no NUL in a text

    def work(connection: Connection) -> None:
        mine = (SLOTS.c.owner == owner, SLOTS.c.finished == 0)
        rows = connection.execute(
            select(SLOTS).where(*mine).order_by(SLOTS.c.slot).with_for_update()
        ).all()
        for row in rows:
            if why is not None:
                update_slot(connection, row, error=why)
                _free(connection, row, why)
                continue
            update_slot(connection, row, owner=None)
            if row.trial_id is not None:
                set_trial_state(connection, row.trial_id, TrialState.RUNNING, TrialState.WAITING)

    storage.transact(work)


def reached(storage: Storage) -> dict[tuple[int, int], int]:
    """Epochs on record, by study and slot, of the trials that have begun and not ended."""
    return _epochs(storage, SLOTS.c.finished == 0)


def has_worked(storage: Storage, owner: str, before: Mapping[tuple[int, int], int]) -> bool:
    """Whether a trial that ``owner`` ran, or runs, has more epochs on record than ``before``.

    Args:
        storage: From `open_storage`.
        owner: Who.
        before: What was `reached` when it began: it may go on with what others have trained.
    """
    now = _epochs(storage, SLOTS.c.owner == owner)
    return any(epoch > before.get(place, 0) for place, epoch in now.items())


def _epochs(storage: Storage, where: ColumnElement[bool]) -> dict[tuple[int, int], int]:
    chosen = select(SLOTS.c.study_id, SLOTS.c.slot, SLOTS.c.epoch).where(where, SLOTS.c.epoch > 0)
    rows = storage.transact(lambda connection: connection.execute(chosen).all(), read=True)
    return {(row.study_id, row.slot): row.epoch for row in rows}


def count_running(storage: Storage, study_id: int, target: int | None = None) -> int:
    """How many slots of a study (or of those below ``target``) a worker has now."""
    counted = select(func.count()).where(
        SLOTS.c.study_id == study_id, SLOTS.c.finished == 0, SLOTS.c.owner.is_not(None)
    )
    if target is not None:
        counted = counted.where(SLOTS.c.slot < target)
    return storage.transact(lambda connection: connection.scalar(counted) or 0, read=True)


def begun(connection: Connection, study_id: int, keys: Sequence[str]) -> list[Begun]:
    """The slots of a study that have begun, in order, with some user attributes of their trials.

    Args:
        connection: Of a transaction of the storage.
        study_id: Optuna's number of the study.
        keys: Names of these attributes.
    """
    own = and_(USER_ATTRIBUTES.c.trial_id == SLOTS.c.trial_id, USER_ATTRIBUTES.c.key.in_(keys))
    rows = connection.execute(
        select(SLOTS, USER_ATTRIBUTES.c.key, USER_ATTRIBUTES.c.value_json)
        .outerjoin(USER_ATTRIBUTES, own)
        .where(SLOTS.c.study_id == study_id)
        .order_by(SLOTS.c.slot)
    )
    found: dict[int, Begun] = {}
    for row in rows:
        running = not row.finished and row.owner is not None
        of = found.setdefault(row.slot, Begun(bool(row.finished), running, {}))
        if row.key is not None:
            of.attrs[row.key] = json.loads(row.value_json)
    return list(found.values())
