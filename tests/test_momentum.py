"""SGD's momentum that schedules cycle to 0 or raise from 0, fused and after a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from lrsearch.schedules import FAMILIES, Family, Schedule, register
from lrsearch.training.ensemble import EnsembleRunner
from tests.test_ensemble import CPU, alone, assert_same, check, mixed, vectors

OFF_AND_ON = (0.9, 0.9, 0.0, 0.0, 0.8, 0.0)
"""Momentum of the six epochs of the family of these tests."""


class Momentum(LambdaLR):
    """A fixed rate; each epoch's momentum is that of the list."""

    def __init__(self, optimizer: torch.optim.Optimizer, values: list[float]) -> None:
        self.values = values
        super().__init__(optimizer, lambda epoch: 1.0)

    def step(self, epoch: int | None = None) -> None:
        """Also the momentum."""
        super().step()
        for group in self.optimizer.param_groups:
            group["momentum"] = self.values[min(self.last_epoch, len(self.values) - 1)]


@pytest.fixture(autouse=True)
def families() -> Iterator[None]:
    """``OffAndOn`` begins with momentum and loses it for a while, ``Late`` the other way round."""
    for name, values in {"OffAndOn": OFF_AND_ON, "Late": (0.0, 0.0, *OFF_AND_ON[:4])}.items():
        register(
            Family(
                name,
                "for a test",
                args={},
                search=lambda epochs: {},
                build=lambda optimizer, args, job, values=values: Momentum(optimizer, [*values]),  # type: ignore[misc]
            )
        )
    yield
    for name in ("OffAndOn", "Late"):
        FAMILIES.pop(name, None)


def schedules() -> dict[int, Schedule]:
    """Two of six epochs, and a cycle whose peak, with no momentum, falls on a step."""
    peak = {"base_lr": 0.01, "step_size_up": 1.5, "base_momentum": 0.0, "max_momentum": 0.9}
    return {
        20: Schedule("OffAndOn", 0.05, 6, {}),
        21: Schedule("Late", 0.05, 6, {}),
        22: Schedule("CyclicLR", 0.05, 6, peak),
    }


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.9, False), (0.9, True), (0.0, False)])
def test_momentum_that_comes_and_goes_is_torchs(momentum: float, nesterov: bool) -> None:
    arguments: dict[str, Any] = {"momentum": momentum, "nesterov": nesterov, "weight_decay": 1e-3}
    task = vectors(lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)))
    if momentum:  # else it is not cycled
        momenta = schedules()[22].trace(task.steps_per_epoch, momentum).momentum
        assert momenta is not None
        assert momenta.min() == 0
        assert momenta.max() == pytest.approx(0.9)
    for k in (1, 3):
        check(task, schedules() | mixed(), "SGD", arguments, k=k, tolerance=1e-5)


@pytest.mark.parametrize(("key", "momentum"), [(20, 0.9), (21, 0.0)])
@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_a_checkpoint_keeps_the_buffer_that_a_schedule_fills(
    key: int, momentum: float, stop: int
) -> None:
    task = vectors(lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)))
    schedule, arguments = schedules()[key], {"momentum": momentum}

    def runner() -> EnsembleRunner:
        return EnsembleRunner(
            task, k=1, optimizer="SGD", optimizer_args=arguments, seed=0, device=CPU
        )

    first, second = runner(), runner()
    first.add(key, schedule)
    history = [first.epoch()[key] for _ in range(stop)]
    second.add(key, schedule, first.state(key))
    history += [second.epoch()[key] for _ in range(stop, 6)]
    assert_same(history, list(alone(task, schedule, "SGD", arguments)), 1e-5)
