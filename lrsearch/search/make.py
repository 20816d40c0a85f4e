"""From a plan to who works on it: the worker of this process, or a crew of processes."""

from __future__ import annotations

from typing import Any

import optuna
import torch

from lrsearch.errors import UsageError
from lrsearch.schedules.family import is_builtin
from lrsearch.search.checkpoints import Checkpoints
from lrsearch.search.context import Context
from lrsearch.search.loop import Worker
from lrsearch.search.plan import Plan, baselines_of
from lrsearch.search.runners import make_runner
from lrsearch.search.workers import Crew, LocalLauncher
from lrsearch.tracking import make_tracker
from lrsearch.training import device as devices


def make_worker(plan: Plan, study: optuna.Study, context: Context) -> Worker:
    """The worker of this process."""
    config, note = plan.config, context.note
    torch.set_num_threads(plan.choice.threads)
    return Worker(
        study=study,
        plan=plan,
        context=context,
        runner=make_runner(plan, note=note),
        fallback=lambda count: make_runner(plan, count, note),
        target=config.trials,
        baselines=baselines_of(plan),
        checkpoints=Checkpoints.of_study(study, config.out, note),
        device=devices.describe(plan.device, plan.choice.precision),
        tracker=None if config.log is None else make_tracker(config.log),
    )


def make_crew(plan: Plan, context: Context, *, confirms: str | None = None) -> Crew | None:
    """The worker processes, here or on a cluster; None if one here is enough: this process.

    With ``confirms`` they train the confirmation of that name in place of searching.

    Raises:
        UsageError: If several are asked for, and the task is an object of this process.
    """
    config, cluster = plan.config, context.cluster
    if plan.choice.workers == 1 and cluster is None:
        return None
    if unshared := _unshared(plan, context.task):
        if config.workers == "auto" and cluster is None:
            return None
        raise UsageError(
            f"workers in other processes cannot share {unshared}, which is an object of this one; "
            "put it into a file of its own, or take one worker"
        )
    devices.give_back(plan.device)  # of the dry batch and what was timed: it is the workers' now
    launcher = LocalLauncher(plan, context.spares) if cluster is None else cluster
    return Crew(plan, context, launcher, confirms)


def _unshared(plan: Plan, task: Any) -> str | None:
    """What only this process has, and others cannot import."""
    if task is not None:
        return f"the task {plan.task.name}"
    for family in plan.families:
        if not is_builtin(family) and family.name not in plan.homes:
            return f"the schedule family {family.name}"
    return None
