"""Optuna's trials, read with one plain statement per table instead of its object mapper.

The same `FrozenTrial` objects (a test compares them), several times faster: every ask, every
pruning decision and every display reads the trials under way, and a new worker reads them all.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages._rdb.models import TrialIntermediateValueModel, TrialValueModel
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import ColumnElement, Select, and_, bindparam, or_, select
from sqlalchemy.engine import Connection

from lrsearch.storage.schema import (
    INTERMEDIATE,
    PARAMS,
    SYSTEM_ATTRIBUTES,
    TRIAL_VALUES,
    TRIALS,
    USER_ATTRIBUTES,
)

_FINITE = TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
_FINITE_VALUE = TrialValueModel.TrialValueType.FINITE

_NONE: Mapping[int, FrozenTrial] = MappingProxyType({})
_FEW = 500  # more are found by a join, not by naming them
_PAIRS = 64  # so many trials are asked each for its own newest steps


def _trials(condition: ColumnElement[bool]) -> Select[Any]:
    return select(TRIALS).where(condition).order_by(TRIALS.c.trial_id)


_AMONG_OR_NEWER = and_(
    TRIALS.c.study_id == bindparam("study"),
    or_(
        TRIALS.c.trial_id.in_(bindparam("included", expanding=True)),
        TRIALS.c.trial_id > bindparam("newer"),
    ),
)
_OFTEN = _trials(_AMONG_OR_NEWER)
_STEPS = (
    INTERMEDIATE.c.trial_id,
    INTERMEDIATE.c.step,
    INTERMEDIATE.c.intermediate_value,
    INTERMEDIATE.c.intermediate_value_type,
)


def read_trial(connection: Connection, trial_id: int) -> FrozenTrial | None:
    """One trial, or None if there is none of that number."""
    found = _read(connection, TRIALS.c.trial_id == trial_id)
    return found[0] if found else None


def read_trials(
    connection: Connection,
    study_id: int,
    states: Collection[TrialState] | None,
    included: Collection[int],
    newer_than: int,
    known: Mapping[int, FrozenTrial] = _NONE,
) -> list[FrozenTrial]:
    """Trials of a study as Optuna's cache asks for them, in order of their number in the database.

    Args:
        connection: In a transaction.
        study_id: Optuna's number of the study.
        states: Only trials in these; None for all.
        included: Trials to read whatever their number, if ``newer_than`` is not -1.
        newer_than: All trials with a greater number are read.
        known: Trials whose parameters and user attributes stay while they run, as read before;
            their reported steps too, unless the last of them is no longer there: then another
            worker goes on with the trial from an earlier one.
    """
    if newer_than > -1 and states is None:
        given = {"study": study_id, "included": sorted(included), "newer": newer_than}
        return _read(connection, _AMONG_OR_NEWER, known, given)
    condition: ColumnElement[bool] = TRIALS.c.study_id == study_id
    if newer_than > -1:
        newer = TRIALS.c.trial_id > newer_than
        among = TRIALS.c.trial_id.in_(sorted(included))
        condition = and_(condition, or_(among, newer) if included else newer)
    if states is not None:
        condition = and_(condition, TRIALS.c.state.in_(list(states)))
    return _read(connection, condition, known)


def empty_trial(
    trial_id: int,
    number: int,
    state: TrialState,
    started: datetime | None,
    completed: datetime | None = None,
) -> FrozenTrial:
    """A trial of which only the row in the trials' table is known; times as they are stored."""
    return FrozenTrial(
        number=number,
        state=state,
        value=None,
        values=None,
        datetime_start=_local(started),
        datetime_complete=_local(completed),
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
        trial_id=trial_id,
    )


def _read(
    connection: Connection,
    condition: ColumnElement[bool],
    known: Mapping[int, FrozenTrial] = _NONE,
    given: Mapping[str, Any] | None = None,
) -> list[FrozenTrial]:
    """The trials of a condition; ``given``: the values of its parameters."""
    often = condition is _AMONG_OR_NEWER  # to build the statement anew takes longer than to run it
    statement = _OFTEN if often else _trials(condition)
    trials: dict[int, FrozenTrial] = {}
    new: dict[int, FrozenTrial] = {}
    for row in connection.execute(statement, given):
        old = known.get(row.trial_id)
        if old is None or row.state != old.state:
            new[row.trial_id] = trials[row.trial_id] = empty_trial(
                row.trial_id, row.number, row.state, row.datetime_start, row.datetime_complete
            )
        else:
            trials[row.trial_id] = trial = copy.copy(old)
            trial.intermediate_values, trial.system_attrs = dict(old.intermediate_values), {}

    def rows(among: dict[int, FrozenTrial], *columns: Any, order: Any = None) -> Any:
        if not among:
            return ()
        if len(among) <= _FEW:
            found = connection.execute(_of_some(*columns, order=order), {"ids": list(among)})
        else:
            statement: Select[Any] = select(*columns)
            statement = statement.join(TRIALS, TRIALS.c.trial_id == columns[0]).where(condition)
            statement = statement if order is None else statement.order_by(order)
            found = connection.execute(statement, given)
        return (row for row in found if row[0] in among)  # not of one made since we began

    p = PARAMS.c
    for key, name, value, text in rows(
        new, p.trial_id, p.param_name, p.param_value, p.distribution_json, order=p.param_id
    ):
        distribution = _distribution(text)
        trials[key].params[name] = distribution.to_external_repr(value)
        trials[key].distributions[name] = distribution
    v = TRIAL_VALUES.c
    for key, value, kind in rows(new, v.trial_id, v.value, v.value_type, order=v.objective):
        if kind is not _FINITE_VALUE:
            value = TrialValueModel.stored_repr_to_value(value, kind)
        trials[key].values = [*(trials[key].values or []), value]
    unread = trials
    if len(new) < len(trials) <= _PAIRS:
        last = {key: max(t.intermediate_values, default=-1) for key, t in trials.items()}
        unread = {key: t for key, t in trials.items() if t.intermediate_values}
        for key, step, value, kind in _steps_since(connection, last):
            loss, steps = _loss(value, kind), trials[key].intermediate_values
            before = steps.get(step, loss)
            if step == last[key] and (loss == before or (loss != loss and before != before)):
                del unread[key]  # its last step is there as it was: nobody has gone back
            steps[step] = loss
    for trial in unread.values():
        trial.intermediate_values = {}
    for key, step, value, kind in rows(unread, *_STEPS):
        trials[key].intermediate_values[step] = _loss(value, kind)
    u, y = USER_ATTRIBUTES.c, SYSTEM_ATTRIBUTES.c
    for key, name, text in rows(new, u.trial_id, u.key, u.value_json):
        trials[key].user_attrs[name] = json.loads(text)
    for key, name, text in rows(trials, y.trial_id, y.key, y.value_json):
        trials[key].system_attrs[name] = json.loads(text)
    return list(trials.values())


def _loss(value: Any, kind: Any) -> Any:
    if kind is _FINITE:
        return value
    return TrialIntermediateValueModel.stored_repr_to_intermediate_value(value, kind)


def _steps_since(connection: Connection, since: Mapping[int, int]) -> Sequence[Any]:
    """The reported steps of trials from the given one on."""
    last = list(since.items())
    places = next(n for n in (16, 32, _PAIRS) if n >= len(last))  # to build one takes long
    last += [last[0]] * (places - len(last))
    given = {f"trial_{n}": key for n, (key, _) in enumerate(last)}
    given |= {f"last_{n}": step for n, (_, step) in enumerate(last)}
    return connection.execute(_steps_from(places), given).all()


@functools.cache
def _steps_from(trials: int) -> Select[Any]:
    i = INTERMEDIATE.c
    pairs = [
        and_(i.trial_id == bindparam(f"trial_{n}"), i.step >= bindparam(f"last_{n}"))
        for n in range(trials)
    ]
    return select(*_STEPS).where(or_(*pairs))


@functools.cache
def _of_some(*columns: Any, order: Any) -> Select[Any]:
    """What reads columns of the trials ``ids``; building it anew takes longer than to run it."""
    statement = select(*columns).where(columns[0].in_(bindparam("ids", expanding=True)))
    return statement if order is None else statement.order_by(order)


@functools.lru_cache(maxsize=4096)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


def _local(stored: datetime | None) -> datetime | None:
    """Optuna stores UTC and shows local time, both without a time zone."""
    if stored is None:
        return None
    return stored.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
