"""Training on the first CUDA device: ``python -m tests.on_gpu`` prints what it gave as JSON.

It has a process of its own, since the tests around it are to find no GPU.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from lrsearch.schedules import Schedule
from lrsearch.tasks.models import convnet, net, resnet9, resnet20
from lrsearch.tasks.task import Task
from lrsearch.training.ensemble import EnsembleRunner
from lrsearch.training.loop import SingleRunner
from lrsearch.training.runner import Runner
from lrsearch.training.stacked import why_not_fused
from tests.test_ensemble import Residual, images, mlp, vectors
from tests.test_ensemble_single import small_cifar

EPOCHS = 3


@dataclass(frozen=True)
class Case:
    """What is trained; and whether stacked models see the same random numbers as one alone."""

    task: Callable[[], Task]
    precision: str = "fp32"
    same: bool = True


def dropout() -> nn.Module:
    return Residual(dropout=0.3)


CASES = {
    "mlp": Case(lambda: vectors(lambda: mlp(6, 8, 3))),
    "residual": Case(lambda: images(Residual)),
    "dropout": Case(lambda: images(dropout), same=False),
    "dropout, bf16": Case(lambda: images(dropout), "bf16", same=False),
    **{
        f"{model.__name__}, {precision}": Case(lambda model=model: small_cifar(model), precision)
        for model in (convnet, net, resnet9, resnet20)
        for precision in ("fp32", "bf16")
    },
}


def histories(case: Case) -> dict[str, Any]:
    """Why the task cannot be fused (None), and the losses of a trial alone and beside another."""
    device = torch.device("cuda:0")
    task = replace(case.task(), optimizer_args={"momentum": 0.9})
    reason = why_not_fused(task, "SGD", None, case.precision, device)
    if reason is not None:
        return {"reason": reason}
    how: dict[str, Any] = {
        "optimizer": "SGD",
        "optimizer_args": task.optimizer_args,
        "seed": 3,
        "device": device,
        "precision": case.precision,
    }
    schedule = Schedule("OneCycleLR", 0.02, EPOCHS, {"pct_start": 0.3})
    other = Schedule("ConstantLR", 0.01, EPOCHS, {})
    return {
        "reason": None,
        "alone": losses(SingleRunner(task, **how), schedule),
        "one": losses(EnsembleRunner(task, k=1, **how), schedule),
        "two": losses(EnsembleRunner(task, k=2, **how), schedule, other),
    }


def losses(runner: Runner, *schedules: Schedule) -> list[list[float]]:
    """Of the first trial, epoch by epoch."""
    for key, schedule in enumerate(schedules):
        runner.add(key, schedule)
    results = [asdict(runner.epoch()[0]) for _ in range(EPOCHS)]
    return [[r["train_loss"], r["val_loss"], r["avg_val_loss"]] for r in results]


if __name__ == "__main__":
    there = torch.cuda.is_available()
    torch.backends.cudnn.allow_tf32 = False  # kernels round differently: it is not what is asked
    json.dump({k: histories(case) for k, case in CASES.items()} if there else None, sys.stdout)
