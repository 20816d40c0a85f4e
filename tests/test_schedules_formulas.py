"""The formulas of the rates against the real torch schedulers."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

from lrsearch.schedules import FAMILIES, RandomParams, Schedule, Space
from lrsearch.schedules.formulas import rates

TRACED = [n for n, f in FAMILIES.items() if f.searched and not f.needs_metric]


def _close(schedule: Schedule, per_epoch: int) -> None:
    found = rates(schedule, per_epoch)
    assert found is not None
    wanted = schedule.trace(per_epoch).lr
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12 * schedule.lr)


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("name", TRACED)
def test_formula_gives_the_rates_of_torch(name: str, interval: Literal["epoch", "step"]) -> None:
    for epochs in (5, 30, 77):
        space = Space([name], epochs, (1e-3, 1.0), interval=interval)
        rng = np.random.default_rng(epochs)
        for k in (1, 1, 1, 1, 1, 1, 3, 3):
            _close(space.suggest(RandomParams(rng)), k)


@pytest.mark.parametrize(
    ("family", "params"),
    [
        ("ConstantLR", {"factor": 0.5, "total_iters": 4}),
        ("LinearLR", {"start_factor": 0.3, "end_factor": 1.0, "total_iters": 5}),
        ("PolynomialLR", {"total_iters": 4, "power": 0.5}),
        ("CosineAnnealingLR", {"T_max": 3, "eta_min": 0.01}),
        ("CosineAnnealingWarmRestarts", {"T_0": 2, "T_mult": 3, "eta_min": 0.01}),
        ("OneCycleLR", {"total_steps": 12, "anneal_strategy": "linear"}),
        ("OneCycleLR", {"total_steps": 12, "pct_start": 1 / 12}),
        ("CyclicLR", {"base_lr": 0.01, "step_size_up": 2, "step_size_down": 3.5}),
        ("CyclicLR", {"base_lr": 0.01, "step_size_up": 3, "mode": "exp_range", "gamma": 0.9}),
        ("SequentialLR", {"hold": 3, "decay": "ExponentialLR", "end_factor": 1.0}),
    ],
)
def test_formula_of_what_is_not_searched(family: str, params: dict[str, Any]) -> None:
    for per_epoch in (1, 4):
        _close(Schedule(family, 0.1, 12, params), per_epoch)


@pytest.mark.parametrize("decay", ["CosineAnnealingLR", "LinearLR", "ExponentialLR"])
def test_a_hold_of_the_whole_of_one_epoch_has_a_formula(decay: str) -> None:
    _close(Schedule("SequentialLR", 0.1, 1, {"hold": 1, "decay": decay, "end_factor": 0.1}), 1)


def test_no_formula_is_none() -> None:
    plateau = Schedule("ReduceLROnPlateau", 0.1, 12, {"factor": 0.5, "patience": 2})
    assert rates(plateau, 1) is None
    assert rates(Schedule("Points", 0.1, 12, {"points": [[0, 0.1], [12, 0.0]]}), 1) is None
