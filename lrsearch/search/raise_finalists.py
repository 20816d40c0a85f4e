"""The end of a search: its finalists are trained at higher rates, for ``robust.yaml``."""

from __future__ import annotations

import dataclasses
import time

import optuna

from lrsearch.report import words
from lrsearch.report.command import typed
from lrsearch.report.finalists import arm_of
from lrsearch.report.raised import RAISE, measured, raised_arm
from lrsearch.report.robust import Raised, contenders, next_runs, read_raised, too_dear
from lrsearch.report.robust_words import failed_line, spared_line
from lrsearch.report.tables import StudyTable
from lrsearch.search.confirm_study import FIRST_SEED, open_confirmation
from lrsearch.search.confirm_worker import train_confirmation
from lrsearch.search.context import Context
from lrsearch.search.plan import Plan

TIME_UP = f"time was up before all finalists had run with their rates raised {RAISE:g} times; "
TIME_UP += "the same command goes on"
UNFINISHED = f"not all finalists have run with their rates raised {RAISE:g} times; "
UNFINISHED += "the same command goes on"


def raise_finalists(plan: Plan, study: optuna.Study, table: StudyTable, context: Context) -> str:
    """Train the finalists of a search at 1.7 times their rates, on fresh seeds.

    Which they are is said in :mod:`lrsearch.report.robust`. They are trials of the study
    ``NAME-confirm``, which ``lrsearch confirm`` uses, too. The same call goes on with what is
    missing. Nothing is done where the winner is a baseline or has no rival, and nothing more where
    that is too dear (:func:`lrsearch.report.robust.too_dear`) and was not asked for, or once the
    time of the search is up.

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
    tried, storage, deadline = contenders(table), context.storage, context.deadline
    plan = dataclasses.replace(plan, config=dataclasses.replace(plan.config, timeout=None))
    fresh = plan.config.seed + FIRST_SEED
    raised = read_raised(tried, study)
    while some := next_runs(tried, raised):
        runs = [(raised_arm(arm_of(trial)), fresh + nth) for trial, nth in some]
        dear = too_dear(table, sum(map(len, raised.values())) + len(some))
        if dear and not plan.config.robust:
            return "" if raised else spared_line(from_search=context.task is not None)
        if deadline is not None and time.monotonic() >= deadline:
            return TIME_UP
        workers = min(plan.choice.workers, len(some))
        choice = dataclasses.replace(plan.choice, workers=workers)
        plan = dataclasses.replace(plan, choice=choice)
        numbers = [trial.number for trial in tried]
        again = open_confirmation(study, storage, plan, runs, finalists=numbers)
        context.note(_announced(len(some), raised, again=some[0][1] > 0))
        train_confirmation(plan, again, context)
        before, raised = raised, read_raised(tried, study)
        if raised == before:  # some of it could not be run
            return UNFINISHED if deadline is None or time.monotonic() < deadline else TIME_UP
        if not any(map(measured, raised.values())):  # more of them would hardly do better
            return failed_line(typed("show", again.study_name, storage.label))
    return ""


def _announced(count: int, raised: Raised, *, again: bool) -> str:
    """What is trained now, for a person."""
    where = f"at {RAISE:g} times their rates, from other initial weights"
    if again:
        return f"{'the lowest' if count < len(raised) else 'they'} once more {where}"
    return f"{words.count(count, 'more finalist' if raised else 'finalist')} {where}"
