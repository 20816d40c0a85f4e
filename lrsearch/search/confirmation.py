"""The study ``NAME-confirm``: which schedules of a search are trained again, on which seeds.

Every (schedule, seed) is a slot, so that it is resumed, shared and shown like any other trial.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import ExperimentalWarning

from lrsearch.attributes import ATTR as STUDY_ATTR
from lrsearch.errors import UsageError
from lrsearch.report.command import typed
from lrsearch.report.confirmed import ATTR, SUFFIX
from lrsearch.search.plan import Plan
from lrsearch.search.study import METRIC, kept_config, versions
from lrsearch.storage import slots
from lrsearch.storage.cache import Cache
from lrsearch.storage.studies import set_once

if TYPE_CHECKING:
    from lrsearch.storage.engine import Storage

FIRST_SEED = 1001
"""The first fresh seed is that of the search and so much more."""


def open_confirmation(
    study: optuna.Study,
    storage: Storage,
    plan: Plan,
    edges: Sequence[tuple[Mapping[str, Any], int]],
    arms: Sequence[Mapping[str, Any]] = (),
    seeds: Sequence[int] = (),
    top: int = 0,
) -> optuna.Study:
    """The study ``NAME-confirm``, with a slot for every arm and seed, and one for every edge.

    What has begun stays.

    Args:
        study: The search.
        storage: Its database.
        plan: What its trials are trained with.
        edges: Arms at higher rates (:func:`lrsearch.report.edges.at_the_edge`), with the seed of
            each.
        arms: Schedules to compare; none leaves the comparison that was planned before.
        seeds: Those of the comparison.
        top: How many schedules were asked for beside the recipes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        again = optuna.create_study(
            study_name=study.study_name + SUFFIX,
            storage=Cache(storage),
            direction="minimize",
            sampler=optuna.samplers.RandomSampler(),
            pruner=optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        trials = again.get_trials(deepcopy=False)  # before its attributes, which come first
        attrs = again.user_attrs
        if trials and ATTR not in attrs:
            raise UsageError(
                f"study {again.study_name!r} exists and is no confirmation; give the search "
                f"another --name, or {typed('delete', again.study_name, storage.label)}"
            )
        info = attrs.get(STUDY_ATTR)
        if info is None:
            again.set_metric_names([METRIC])
            made = {
                "config": kept_config(plan.config, storage.label, plan.imports),
                "plan": plan.to_dict(),
                "versions": versions(),
                "uid": uuid.uuid4().hex[:12],
            }
            info = set_once(storage, again._study_id, STUDY_ATTR, made)
    stored = again.user_attrs.get(ATTR) or {}
    order = [list(slot) for slot in stored.get("slots", [])]
    slots.sweep(storage, again._study_id)
    there = slots.progress(storage, again._study_id)
    if not there.running:  # what was planned and never begun is not asked for any more
        order = order[: there.finished + there.waiting]
    have = {tuple(slot) for slot in order}
    wanted = [(arm["key"], seed) for seed in seeds for arm in arms]
    wanted[len(arms) : len(arms)] = [(edge["key"], seed) for edge, seed in edges]
    order += [list(slot) for slot in wanted if slot not in have]
    raised = [edge for edge, _ in edges]
    known = {arm["key"]: arm for arm in [*stored.get("all_arms", []), *arms, *raised]}
    compared = {"arms": list(arms), "seeds": list(seeds), "top": top}
    if not arms:
        compared = {key: stored.get(key, value) for key, value in compared.items()}
    if info["config"]["trials"] != len(order):
        config = {**info["config"], "trials": len(order)}
        again.set_user_attr(STUDY_ATTR, {**info, "config": config})
    again.set_user_attr(
        ATTR,
        {
            "of": study.study_name,
            **compared,
            "slots": order,
            "all_arms": list(known.values()),
        },
    )
    return again
