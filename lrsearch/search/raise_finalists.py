"""The end of a search: its finalists at higher rates, and a recipe, for ``robust.yaml``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import optuna

from lrsearch.report import words
from lrsearch.report.command import typed
from lrsearch.report.finalists import arm_of
from lrsearch.report.raised import RAISE, arm_at, measured
from lrsearch.report.robust import (
    Raised,
    best_recipe,
    contenders,
    have_run,
    next_runs,
    read_raised,
    rivals_of,
    too_dear,
)
from lrsearch.report.robust_words import failed_line, spared_line
from lrsearch.report.tables import StudyTable, TrialRow, load_confirmation
from lrsearch.search.confirm_study import FIRST_SEED, open_confirmation
from lrsearch.search.confirm_worker import train_confirmation
from lrsearch.search.context import Context
from lrsearch.search.plan import Plan

Run = tuple[TrialRow, float, int]
"""A trial, by what its rates are multiplied, and the number of the fresh seed, from 0."""
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
    raised = read_raised(tried, _confirmation(study))
    while some := next_runs(tried, raised):
        dear = too_dear(table, sum(map(len, raised.values())) + len(some))
        if dear and not plan.config.robust:
            if not raised:
                return spared_line(from_search=context.task is not None)
            break
        context.interrupt.check()
        if context.time_is_up():
            return TIME_UP
        runs = [(trial, RAISE, nth) for trial, nth in some]
        ahead = _ahead(plan, table, raised, runs, _confirmation(study))
        context.note(_announced(len(some), raised, again=some[0][1] > 0, ahead=len(ahead)))
        again = _train(plan, study, [*runs, *ahead], numbers, context)
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
    context.note(_announced_own([t for t in rivals if not have_run([t], _confirmation(study))]))
    _train(plan, study, [(trial, 1.0, 0) for trial in rivals], numbers, context)
    if have_run(rivals, _confirmation(study)):
        return ""
    return TIME_UP if context.time_is_up() else UNFINISHED


def _ahead(
    plan: Plan, table: StudyTable, raised: Raised, runs: Sequence[Run], again: StudyTable | None
) -> list[Run]:
    """Runs that will probably come next, for workers that would wait for ``runs``.

    Only the time depends on it: who is chosen is the same without (:func:`read_raised`).
    """
    workers, last = plan.choice.workers, runs[0][2]
    recipe = best_recipe(table)
    likely: list[Run] = [] if recipe is None or have_run([recipe], again) else [(recipe, 1.0, 0)]
    if last == 0 and not raised:
        likely += [(trial, RAISE, 1) for trial, _, _ in runs]
    elif last and recipe is not None:  # the lowest on one seed is mostly the lowest on two
        likely.append((runs[0][0], 1.0, 0))
    # Fused runs of one seed go together, and leave the other workers idle.
    room = -len(runs) % workers if plan.choice.fuse == 1 else len(likely) * (workers > 1)
    count = sum(map(len, raised.values())) + len(runs)
    while room and not plan.config.robust:
        more = sum(trial is not recipe for trial, _, _ in likely[:room])
        if not too_dear(table, count + more):
            break
        room -= 1
    return likely[:room]


def _confirmation(study: optuna.Study) -> StudyTable | None:
    """The runs that have been made so far."""
    return load_confirmation(study)[0]


def _train(
    plan: Plan,
    study: optuna.Study,
    runs: Sequence[Run],
    finalists: Sequence[int],
    context: Context,
) -> optuna.Study:
    """Train some trials again; the study ``NAME-confirm``, which has these runs."""
    fresh = plan.config.seed + FIRST_SEED
    arms = [(arm_at(arm_of(trial), times), fresh + nth) for trial, times, nth in runs]
    choice = dataclasses.replace(plan.choice, workers=min(plan.choice.workers, len(runs)))
    config = dataclasses.replace(plan.config, timeout=None)
    plan = dataclasses.replace(plan, choice=choice, config=config)
    again = open_confirmation(study, context.storage, plan, arms, finalists=finalists)
    train_confirmation(plan, again, context)
    return again


def _announced(count: int, raised: Raised, *, again: bool, ahead: int) -> str:
    """What is trained now, for a person."""
    where = f"at {RAISE:g} times their rates, from other initial weights"
    if ahead:
        where += f"; beside them {words.count(ahead, 'run')} of the next round"
    if again:
        return f"{'the lowest' if count < len(raised) else 'they'} once more {where}"
    return f"{words.count(count, 'more finalist' if raised else 'finalist')} {where}"


def _announced_own(trials: Sequence[TrialRow]) -> str:
    """The same of those that are trained at their own rates."""
    names = [
        f"#{trial.number}" if trial.baseline is None else words.baselines([str(trial.baseline)])
        for trial in trials
    ]
    rates = "its own rates" if len(names) == 1 else "their own rates"
    return f"{' and '.join(names)} at {rates}, on a fresh seed"
