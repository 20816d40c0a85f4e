"""Optuna's trials, read with one plain statement per table instead of its object mapper.

The same `FrozenTrial` objects (a test compares them), several times faster: every ask, every
pruning decision and every display reads the trials under way, and a new worker reads them all.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection
from datetime import UTC, datetime
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

_FEW = 500  # more are found by a join, not by naming them


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
) -> list[FrozenTrial]:
    """Trials of a study as Optuna's cache asks for them, in order of their number in the database.

    Args:
        connection: In a transaction.
        study_id: Optuna's number of the study.
        states: Only trials in these; None for all.
        included: Trials to read whatever their number, if ``newer_than`` is not -1.
        newer_than: All trials with a greater number are read.
    """
    condition: ColumnElement[bool] = TRIALS.c.study_id == study_id
    if newer_than > -1:
        newer = TRIALS.c.trial_id > newer_than
        among = TRIALS.c.trial_id.in_(sorted(included))
        condition = and_(condition, or_(among, newer) if included else newer)
    if states is not None:
        condition = and_(condition, TRIALS.c.state.in_(list(states)))
    return _read(connection, condition)


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


def _read(connection: Connection, condition: ColumnElement[bool]) -> list[FrozenTrial]:
    trials: dict[int, FrozenTrial] = {}
    for row in connection.execute(select(TRIALS).where(condition).order_by(TRIALS.c.trial_id)):
        trials[row.trial_id] = empty_trial(
            row.trial_id, row.number, row.state, row.datetime_start, row.datetime_complete
        )
    if not trials:
        return []

    def rows(*columns: Any, order: Any = None) -> Any:
        if len(trials) <= _FEW:
            found = connection.execute(_of_some(*columns, order=order), {"ids": list(trials)})
        else:
            statement: Select[Any] = select(*columns)
            statement = statement.join(TRIALS, TRIALS.c.trial_id == columns[0]).where(condition)
            found = connection.execute(statement if order is None else statement.order_by(order))
        return (row for row in found if row[0] in trials)  # not of one made since we began

    p = PARAMS.c
    for key, name, value, text in rows(
        p.trial_id, p.param_name, p.param_value, p.distribution_json, order=p.param_id
    ):
        distribution = _distribution(text)
        trials[key].params[name] = distribution.to_external_repr(value)
        trials[key].distributions[name] = distribution
    v = TRIAL_VALUES.c
    for key, value, kind in rows(v.trial_id, v.value, v.value_type, order=v.objective):
        if kind is not _FINITE_VALUE:
            value = TrialValueModel.stored_repr_to_value(value, kind)
        trials[key].values = [*(trials[key].values or []), value]
    i = INTERMEDIATE.c
    for key, step, value, kind in rows(
        i.trial_id, i.step, i.intermediate_value, i.intermediate_value_type
    ):
        if kind is not _FINITE:
            value = TrialIntermediateValueModel.stored_repr_to_intermediate_value(value, kind)
        trials[key].intermediate_values[step] = value
    for table in (USER_ATTRIBUTES, SYSTEM_ATTRIBUTES):
        a = table.c
        for key, name, text in rows(a.trial_id, a.key, a.value_json):
            trial = trials[key]
            attrs = trial.user_attrs if table is USER_ATTRIBUTES else trial.system_attrs
            attrs[name] = json.loads(text)
    return list(trials.values())


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
