"""From a plan to what trains it: a runner, the worker of this process, or a crew of processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
import torch

from lrsearch.errors import LrsearchError, UsageError, brief
from lrsearch.report import words
from lrsearch.schedules.family import is_builtin
from lrsearch.search.checkpoints import Checkpoints
from lrsearch.search.context import Context
from lrsearch.search.forked import Forked
from lrsearch.search.loop import Worker
from lrsearch.search.plan import Plan, baselines_of
from lrsearch.search.workers import Crew, LocalLauncher
from lrsearch.tracking import make_tracker
from lrsearch.training import device as devices
from lrsearch.training.ensemble import EnsembleRunner
from lrsearch.training.loop import SingleRunner
from lrsearch.training.runner import Runner


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


def make_crew(
    plan: Plan,
    context: Context,
    *,
    spares: list[Forked] | None = None,
    confirms: str | None = None,
) -> Crew | None:
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
    launcher = LocalLauncher(plan, spares or []) if cluster is None else cluster
    return Crew(plan, context, launcher, confirms)


def _unshared(plan: Plan, task: Any) -> str | None:
    """What only this process has, and others cannot import."""
    if task is not None:
        return f"the task {plan.task.name}"
    for family in plan.families:
        if not is_builtin(family) and family.name not in plan.homes:
            return f"the schedule family {family.name}"
    return None


def make_runner(
    plan: Plan, fuse: int | None = None, note: Callable[[str], None] = lambda line: None
) -> Runner:
    """What trains ``fuse`` trials at once, with plain torch.optim where it is one.

    Args:
        plan: What is trained, and how.
        fuse: Trials at once; None = as many as the plan chose. Half of them, and so on, where so
            many do not fit into memory; one where they cannot be fused with the weights of this
            seed.
        note: Called with one line for the user.

    Raises:
        LrsearchError: Model and data do not fit into the memory of the device.
    """
    fuse = plan.choice.fuse if fuse is None else fuse
    settings: dict[str, Any] = {
        "optimizer": plan.optimizer,
        "optimizer_args": plan.optimizer_args,
        "seed": plan.config.seed,
        "device": plan.device,
        "precision": plan.choice.precision,
    }
    try:
        if fuse == 1:
            return SingleRunner(plan.task, compile=plan.config.compile, **settings)
        return EnsembleRunner(plan.task, k=fuse, **settings)
    except torch.OutOfMemoryError as error:
        lacks = f"do not fit into the memory of {devices.describe(plan.device)} ({brief(error)})"
        why, fewer = f"{fuse} fused trials {lacks}", fuse // 2
    except LrsearchError as error:  # with the weights of this seed: others could be fused
        if fuse == 1:
            raise
        why, fewer = str(error), 1
    if not fewer:
        raise LrsearchError(
            f"model and data {lacks}; take a part of the data (--train-samples), or give a "
            "DataLoader"
        )
    # Out here the error is gone, and what its traceback kept.
    note(f"{why}; going on with {words.count(fewer, 'trial')} at a time")
    return make_runner(plan, fewer, note)
