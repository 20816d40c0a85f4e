"""A runner whose losses are known, and a study in a folder with workers on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
from torch import Tensor

from lrsearch.config import make
from lrsearch.measured import EpochResult
from lrsearch.schedules import Schedule, Space
from lrsearch.search.checkpoints import Checkpoints
from lrsearch.search.context import Context
from lrsearch.search.interrupt import Interrupt
from lrsearch.search.loop import Worker
from lrsearch.search.methods import PRUNERS
from lrsearch.search.study import open_study
from lrsearch.storage import open_storage
from lrsearch.training.runner import Runner

EPOCHS = 6


def known_loss(schedule: Schedule, epoch: int) -> float:
    """Best at lr 0.1, worse away from it, falling over the epochs."""
    return 0.1 + math.log10(schedule.lr / 0.1) ** 2 + 1 / epoch


@dataclass
class FakeRunner:
    """A runner that trains nothing; ``hook`` may raise or change a loss."""

    capacity: int = 1
    hook: Callable[[int, Schedule, int], float | None] = lambda key, schedule, epoch: None
    trials: dict[int, tuple[Schedule, int]] = field(default_factory=dict)
    started: list[tuple[int, int]] = field(default_factory=list)

    def add(self, key: int, schedule: Schedule, state: dict[str, Any] | None = None) -> None:
        epoch = int(state["epoch"]) if state else 0
        self.started.append((key, epoch))
        self.trials[key] = (schedule, epoch)

    def epoch(self) -> dict[int, EpochResult]:
        results = {}
        for key, (schedule, before) in self.trials.items():
            epoch = before + 1
            changed = self.hook(key, schedule, epoch)
            loss = known_loss(schedule, epoch) if changed is None else changed
            results[key] = EpochResult(epoch, schedule.lr, loss, loss, 0.5, loss, 0.5, 0.0)
        for key, result in results.items():
            self.trials[key] = (self.trials[key][0], result.epoch)
        return results

    def state(self, key: int) -> dict[str, Any]:
        return {"epoch": self.trials[key][1]}

    def weights(self, key: int) -> dict[str, Tensor]:
        return {}

    def unsaved(self, key: int) -> dict[str, Tensor]:
        return {}

    def remove(self, key: int) -> None:
        self.trials.pop(key, None)


@dataclass
class Bench:
    """A study in a folder, and workers on it."""

    folder: Path
    notes: list[str] = field(default_factory=list)
    pruner: str = "none"
    sampler: str = "random"

    def __post_init__(self) -> None:
        self.space = Space(families=None, epochs=EPOCHS, lr=(1e-3, 10.0))
        self.storage = open_storage(f"sqlite:///{self.folder / 'test.db'}")
        self.config = make({"epochs": EPOCHS, "sampler": self.sampler})
        self.study = open_study(self.storage, self.config, {})
        self.study.pruner = PRUNERS[self.pruner](EPOCHS)

    def worker(
        self,
        target: int,
        runner: Runner | None = None,
        *,
        baselines: bool = True,
        interrupt: Interrupt | None = None,
        deadline: float | None = None,
    ) -> Worker:
        """A worker on the study."""
        plan: Any = SimpleNamespace(space=self.space, epochs=EPOCHS, config=self.config)
        return Worker(
            study=self.study,
            plan=plan,
            context=Context(
                self.storage, interrupt or Interrupt(), self.notes.append, deadline=deadline
            ),
            runner=runner or FakeRunner(),
            fallback=FakeRunner,
            target=target,
            baselines=self.space.baselines(0.1) if baselines else {},
            checkpoints=Checkpoints(self.folder / "checkpoints", self.notes.append),
            device="cpu",
        )

    def work(self, target: int, runner: Runner | None = None, *, baselines: bool = True) -> None:
        """Run a worker to its end."""
        self.worker(target, runner, baselines=baselines).run()

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        return self.study.get_trials()
