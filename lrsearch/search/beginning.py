"""What a run says before it begins: what is searched, and what may not be as was meant."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import optuna
import torch

from lrsearch import __version__
from lrsearch.config import StudyConfig, difference
from lrsearch.report import words
from lrsearch.search.plan import Plan
from lrsearch.search.ray_launcher import Cluster
from lrsearch.search.study import stored_config
from lrsearch.search.workers import spread
from lrsearch.storage import redact
from lrsearch.training import device as devices


def announced(
    plan: Plan,
    config: StudyConfig,
    study: optuna.Study,
    cluster: Cluster | None,
    *,
    alone: bool,
    ranged: str,
    warnings: Sequence[str],
) -> list[str]:
    """All lines above the display.

    Args:
        plan: What will be run.
        config: What was asked for.
        study: The study, which may have been made otherwise.
        cluster: Where the workers run; None: here.
        alone: Whether no other process could train the task.
        ranged: What the lr range test has found, if there was one.
        warnings: Of the storage.
    """
    chosen = cluster is None and not alone and config.workers == "auto"
    said = [
        idle(config.device, plan.device, plan.choice.workers) if chosen else "",
        dropped(plan),
        uncompiled(plan) if cluster is None else "",
        ranged,
        clipped(plan),
        *warnings,
        *other_ways(study, config),
    ]
    return [*header(plan, config, cluster), *filter(None, said)]


def header(plan: Plan, config: StudyConfig, cluster: Cluster | None = None) -> list[str]:
    """The lines above the display: what is searched, on what, where it is kept."""
    others = min(len(spread(config.device, plan.device)), plan.choice.workers) - 1
    more = f" and {others} more" if others > 0 else ""
    return [
        f"lrsearch {__version__} · study {config.study_name} · {redact(config.storage)} "
        f"· seed {config.seed}",
        f"task {plan.task.name}: {plan.task.describe()}, "
        f"{words.count(plan.epochs, 'epoch')} a trial",
        f"loss {_loss(plan)}, {_optimizer(plan)}, "
        f"lr {plan.space.lr_dim.low:.3g} to {plan.space.lr_dim.high:.3g}, "
        f"{words.count(len(plan.space.names), 'schedule family', 'schedule families')}",
        f"device {devices.describe(plan.device)}{more}: {plan.choice.why}"
        if cluster is None
        else cluster.describe(),
    ]


def _loss(plan: Plan) -> str:
    """What the search judges by, in torch's or the user's words: a task may have a default one."""
    loss: Any = plan.task.validation_loss or plan.task.loss
    owner: Any = getattr(loss, "__self__", None)
    if inspect.ismethod(loss) and loss == owner.__call__:
        loss = owner
    name = str(getattr(loss, "__name__", type(loss).__name__))
    nameless = ("<lambda>", "partial", "loss", "validation_loss")
    return "of its own" if name in nameless else name


def _optimizer(plan: Plan) -> str:
    """``optimizer SGD (momentum 0.9, nesterov)``."""
    told = words.arguments({k: v for k, v in plan.optimizer_args.items() if v is not False})
    name = words.optimizer(plan.optimizer)
    return f"optimizer {name}" + (f" ({told})" if told else "")


def clipped(plan: Plan) -> str:
    """A line where the usual rate is not searched, so that the usual recipes have another."""
    usual, low, high = plan.task.lr, *plan.space.lr
    if plan.config.baselines is not True or low <= usual <= high:
        return ""
    edge = low if usual < low else high
    return f"baselines: lr {edge:.3g}, the end of the range; the usual {usual:.3g} lies outside"


def dropped(plan: Plan) -> str:
    """A line where arguments of the task's optimizer do not go to the one that was asked for.

    None of them does, even if it has one of that name: a weight decay of SGD is none for AdamW.
    """
    task = plan.task
    if plan.optimizer.lower() == task.optimizer.lower():
        return ""
    unused = {k: v for k, v in task.optimizer_args.items() if k not in plan.config.optimizer}
    if not unused:
        return ""
    return (
        f"the task's arguments are for {words.optimizer(task.optimizer)} and left out: "
        f"{words.arguments(unused)} (--optimizer-arg KEY=VALUE gives "
        f"{words.optimizer(plan.optimizer)} its own)"
    )


def uncompiled(plan: Plan) -> str:
    """A line where ``compile`` was asked for and changes nothing."""
    if not plan.config.compile or plan.choice.fuse == 1:
        return ""
    return "not compiled, as trials are fused: torch.compile needs --fuse off"


def idle(asked: str, device: torch.device, workers: int) -> str:
    """A line where this machine has more GPUs than workers, which nobody would notice."""
    count = len(spread(asked, device))
    if count <= workers:
        return ""
    return f"{workers} of {count} GPUs at work; --workers {count} takes them all"


def other_ways(study: optuna.Study, config: StudyConfig) -> list[str]:
    """A line where this process proposes or stops trials otherwise than the study's first did.

    They stay comparable, so that is no mistake; but who compares samplers should know.
    """
    first = stored_config(study)
    rows = difference(first, {"sampler": config.sampler, "pruner": config.pruner})
    if not rows:
        return []
    return [f"study {study.study_name!r} was made with {'; '.join(rows)}: its trials are of both"]
