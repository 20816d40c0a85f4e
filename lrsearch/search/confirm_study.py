"""The study ``NAME-confirm``: which schedules of a search are trained again, on which seeds.

Every (schedule, seed) is a slot, so that it is resumed, shared and shown like any other trial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from sqlalchemy.engine import Connection

from lrsearch.attributes import CONFIRM_ATTR, CONFIRM_SUFFIX, STUDY_ATTR
from lrsearch.errors import UsageError
from lrsearch.optuna_helpers import experiments_allowed
from lrsearch.report.command import typed
from lrsearch.search.plan import Plan
from lrsearch.search.study import study_info
from lrsearch.storage import slots
from lrsearch.storage.cache import Cache
from lrsearch.storage.engine import Storage
from lrsearch.storage.slots import Begun
from lrsearch.storage.study_attributes import change, set_once
from lrsearch.tracking import METRIC

FIRST_SEED = 1001
"""The first fresh seed is the seed of the search plus this."""


def open_confirmation(
    study: optuna.Study,
    storage: Storage,
    plan: Plan,
    of_search: Sequence[tuple[Mapping[str, Any], int]],
    arms: Sequence[Mapping[str, Any]] = (),
    seeds: Sequence[int] = (),
    top: int = 0,
    finalists: Sequence[int] = (),
) -> optuna.Study:
    """Make or extend the study ``NAME-confirm``: a slot for each run that there should be.

    These are each arm on each seed, and the runs of the search. Slots that have begun stay.

    Args:
        study: The search.
        storage: Its database.
        plan: What its trials are trained with.
        of_search: Arms that see no test data, each with its seed: at higher rates, or at their
            own (:func:`lrsearch.report.raised.arm_at`).
        arms: Schedules to compare (:func:`lrsearch.report.finalists.choose_arms`); without any,
            the comparison that was planned before stays.
        seeds: The seeds that they are compared on.
        top: How many schedules were asked for beside the baselines.
        finalists: Trial numbers of the finalists that may be raised, in order. They are kept with
            the study: a reader on another machine may round, and so choose, otherwise.

    Raises:
        UsageError: A study of that name is no confirmation.
    """
    with experiments_allowed():
        again = optuna.create_study(
            study_name=study.study_name + CONFIRM_SUFFIX,
            storage=Cache(storage),
            direction="minimize",
            sampler=optuna.samplers.RandomSampler(),
            pruner=optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        trials = again.get_trials(deepcopy=False)  # before its attributes, which come first
        attrs = again.user_attrs
        if trials and CONFIRM_ATTR not in attrs:
            raise UsageError(
                f"study {again.study_name!r} exists and is no confirmation; give the search "
                f"another --name, or {typed('delete', again.study_name, storage.label)}"
            )
        info = attrs.get(STUDY_ATTR)
        if info is None:
            again.set_metric_names([METRIC])
            made = study_info(plan.config, storage.label, plan.to_dict(), plan.imports)
            info = set_once(storage, again._study_id, STUDY_ATTR, made)
    slots.sweep(storage, again._study_id)
    wanted = [(arm["key"], seed) for seed in seeds for arm in arms]
    wanted[len(arms) : len(arms)] = [(arm["key"], seed) for arm, seed in of_search]

    def planned(connection: Connection, stored: dict[str, Any] | None) -> dict[str, Any]:
        before: dict[str, Any] = {"arms": [], "seeds": [], "top": 0, "all_arms": []}
        before |= {"finalists": []} | (stored or {})
        order = _order(before, slots.begun(connection, again._study_id, ("arm", "seed")), wanted)
        new = [*arms, *(arm for arm, _ in of_search)]
        known = {arm["key"]: arm for arm in [*before["all_arms"], *new]}
        compared = {"arms": list(arms), "seeds": list(seeds), "top": top} if arms else {}
        named = {"finalists": list(finalists)} if finalists else {}
        whole = {"slots": order, "all_arms": list(known.values())}
        return {"of": study.study_name, **before, **compared, **named, **whole}

    order = change(storage, again._study_id, CONFIRM_ATTR, planned)["slots"]
    if info["config"]["trials"] != len(order):
        config = {**info["config"], "trials": len(order)}
        again.set_user_attr(STUDY_ATTR, {**info, "config": config})
    return again


def _order(
    stored: Mapping[str, Any], begun: Sequence[Begun], wanted: Sequence[tuple[str, int]]
) -> list[list[Any]]:
    """(arm, seed) of each slot: those that have begun, those planned before, then new ones.

    A slot that has begun is what its trial says, not what was planned: another process may have
    changed the plan after the slot was claimed.

    Args:
        stored: What was planned before.
        begun: The slots that a worker has claimed, in order.
        wanted: All runs that there should be.
    """
    planned: list[tuple[str, int]] = [(arm, seed) for arm, seed in stored.get("slots", [])]
    # Without a worker nobody waits for runs that were planned before and are not wanted now.
    later = planned[len(begun) :] if any(slot.running for slot in begun) else []
    first, have = [], set(later)
    for place, slot in enumerate(begun):
        known = len(slot.attrs) == 2
        run = planned[place] if place < len(planned) else wanted[0]
        run = (slot.attrs["arm"], slot.attrs["seed"]) if known else run
        first.append(run)
        if known or not slot.finished:  # else it was given up before its trial was anything
            have.add(run)
    new = [run for run in wanted if run not in have]
    return [list(run) for run in (*first, *later, *new)]
