"""The end of a search: its finalists at higher rates, and a recipe, for ``robust.yaml``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from lrsearch.report import words
from lrsearch.report.command import typed
from lrsearch.report.finalists import arm_of
from lrsearch.report.raised import RAISE, arm_at, measured
from lrsearch.report.robust import (
    Raised,
    contenders,
    have_run,
    next_runs,
    read_raised,
    rivals_of,
    too_dear,
)
from lrsearch.report.robust_words import failed_line, spared_line
from lrsearch.report.tables import StudyTable, load_confirmation
from lrsearch.search.confirm_study import FIRST_SEED, open_confirmation
from lrsearch.search.confirm_worker import train_confirmation
from lrsearch.search.context import Context
from lrsearch.search.plan import Plan

TIME_UP = "time was up before all runs of the finalists had ended; the same command goes on"
UNFINISHED = "not all runs of the finalists have ended; the same command goes on"


def raise_finalists(plan: Plan, study: optuna.Study, table: StudyTable, context: Context) -> str:
    """Train the finalists of a search at 1.7 times their rates, on fresh seeds.

    The one that does best, and the best recipe, are then trained at their own rates. Which they
    are is said in :mod:`lrsearch.report.robust`. They are trials of the study
    ``NAME-confirm``, which ``lrsearch confirm`` uses, too. The same call goes on with what is
    missing. Nothing is done where the winner is a baseline, and nothing more where that is too
    dear (:func:`lrsearch.report.robust.too_dear`) and was not asked for, or once the time of the
    search is up.

    Args:
        plan: What was searched.
        study: The search.
        table: Its trials, all ended.
        context: The run that searched it.

    Returns:
        What was left out, and how to have it, in a line for the user; "" where nothing was.

    Raises:
        Interrupted: On Ctrl-C or SIGTERM; running trials were handed back.
    """
    tried = contenders(table)
    numbers = [trial.number for trial in tried]
    fresh = plan.config.seed + FIRST_SEED
    raised = read_raised(tried, _confirmation(study))
    while some := next_runs(tried, raised):
        dear = too_dear(table, sum(map(len, raised.values())) + len(some))
        if dear and not plan.config.robust:
            if not raised:
                return spared_line(from_search=context.task is not None)
            break
        if context.time_is_up():
            return TIME_UP
        runs = [(arm_at(arm_of(trial), RAISE), fresh + nth) for trial, nth in some]
        context.note(_announced(len(some), raised, again=some[0][1] > 0))
        again = _train(plan, study, runs, numbers, context)
        before, raised = raised, read_raised(tried, _confirmation(study))
        if raised == before:  # some of it could not be run
            return TIME_UP if context.time_is_up() else UNFINISHED
        if not any(map(measured, raised.values())):  # more of them would hardly do better
            return failed_line(typed("show", again.study_name, context.storage.label))
    rivals = rivals_of(table, tried, raised)
    if rivals is None or have_run(rivals, _confirmation(study)):
        return ""
    if not raised and too_dear(table, 0) and not plan.config.robust:
        return ""
    if context.time_is_up():
        return TIME_UP
    recipe = words.baselines([str(rivals[1].baseline)])
    context.note(f"#{rivals[0].number} and {recipe} at their own rates, on a fresh seed")
    _train(plan, study, [(arm_at(arm_of(t), 1), fresh) for t in rivals], numbers, context)
    if have_run(rivals, _confirmation(study)):
        return ""
    return TIME_UP if context.time_is_up() else UNFINISHED


def _confirmation(study: optuna.Study) -> StudyTable | None:
    """The runs that have been made so far."""
    return load_confirmation(study)[0]


def _train(
    plan: Plan,
    study: optuna.Study,
    runs: Sequence[tuple[Mapping[str, Any], int]],
    finalists: Sequence[int],
    context: Context,
) -> optuna.Study:
    """Train some arms on seeds; the study ``NAME-confirm``, which has them."""
    choice = dataclasses.replace(plan.choice, workers=min(plan.choice.workers, len(runs)))
    config = dataclasses.replace(plan.config, timeout=None)
    plan = dataclasses.replace(plan, choice=choice, config=config)
    again = open_confirmation(study, context.storage, plan, runs, finalists=finalists)
    train_confirmation(plan, again, context)
    return again


def _announced(count: int, raised: Raised, *, again: bool) -> str:
    """What is trained now, for a person."""
    where = f"at {RAISE:g} times their rates, from other initial weights"
    if again:
        return f"{'the lowest' if count < len(raised) else 'they'} once more {where}"
    return f"{words.count(count, 'more finalist' if raised else 'finalist')} {where}"
