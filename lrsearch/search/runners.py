"""From a plan to the runner that trains it; ``lrsearch train`` needs no more of a search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lrsearch.errors import LrsearchError, brief
from lrsearch.report import words
from lrsearch.search.plan import Plan
from lrsearch.training import device as devices
from lrsearch.training.ensemble import EnsembleRunner
from lrsearch.training.loop import SingleRunner
from lrsearch.training.runner import Runner


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
