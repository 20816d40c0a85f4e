"""A task for crash tests: tiny, the same every time, slow enough to be interrupted, saved often.

``LRSEARCH_TEST_CRASH`` may hold the number of the validation at which the process ends itself.
"""

from __future__ import annotations

import os
import signal
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrsearch.search import checkpoints, workers
from lrsearch.tasks import Split, Task

checkpoints.PAUSE_SECONDS, checkpoints.SHARE = 0.0, float("inf")
PAUSE = float(os.environ.get("LRSEARCH_TEST_PAUSE", "0.04"))
if "LRSEARCH_TEST_CRASH" in os.environ:
    workers.MAX_DEATHS = 2
_validations = -3
"""Of the trials, plus one: four only try the task."""


def _split(count: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, generator=generator)
    y = (x.sum(dim=1) > 0).long()
    return Split(x, y)


def _model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 2))


def _validation_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    global _validations
    _validations += 1
    if _validations > 1:
        time.sleep(PAUSE)
    if _validations == int(os.environ.get("LRSEARCH_TEST_CRASH", "-9")):
        os.kill(os.getpid(), signal.SIGSEGV)
    return F.cross_entropy(outputs, targets)


def task() -> Task:
    """The task."""
    return Task(
        name="crash",
        model_name="tiny",
        model=_model,
        train=_split(128, 0),
        validation=_split(64, 1),
        test=lambda: _split(64, 2),
        validation_loss=_validation_loss,
        epochs=6,
        batch_size=32,
        lr=0.1,
        lr_range=(0.01, 1.0),
    )
