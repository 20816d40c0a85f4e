"""The range test finds where training diverges, and is the same every time."""

from __future__ import annotations

import json
import math
import sys
import types
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lrsearch.measured import LrRange
from lrsearch.tasks.task import Split, Task
from lrsearch.training import lr_range as tested
from lrsearch.training.lr_range import diverged_from, lr_range, lr_range_test, smoothed


def least_squares(curvature: float = 1.0, n: int = 256) -> Task:
    """Linear regression; gradient descent diverges above lr = 2 / (largest eigenvalue)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 4, generator=generator) * math.sqrt(curvature)
    y = x @ torch.ones(4, 1) + 3.0 + torch.randn(n, 1, generator=generator)
    split = Split(x, y)
    return Task(
        name="squares", model_name="linear", model=lambda: nn.Linear(4, 1), train=split,
        validation=split, test=lambda: split, loss=F.mse_loss, metric=None, batch_size=n,
        epochs=10, lr=0.1, lr_range=(1e-3, 1.0),
    )  # fmt: skip


def run(task: Task) -> LrRange:
    return lr_range_test(
        task, optimizer="SGD", optimizer_args={}, seed=0, device=torch.device("cpu")
    )


@pytest.mark.parametrize("curvature", [1.0, 100.0])
def test_divergence_is_found_near_its_theory(
    curvature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tested, "LAST", 100.0)
    monkeypatch.setattr(tested, "STEPS", 320)
    task = least_squares(curvature)
    assert isinstance(task.train, Split)
    x = torch.cat([task.train.x, torch.ones(len(task.train), 1)], dim=1)
    limit = 2 / float(torch.linalg.eigvalsh(2 * x.T @ x / len(x)).max())
    found = run(task)
    assert found.diverges_at is not None
    assert limit < found.diverges_at < 4 * limit
    assert found.high == pytest.approx(found.diverges_at / 2, rel=0.01)
    assert found.low == pytest.approx(found.high / 500, rel=0.01)
    assert len(found.lrs) < 320


def test_the_test_is_the_same_every_time_and_leaves_torch_s_random_numbers_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = run(least_squares())
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    assert run(least_squares()) == first


def test_without_divergence_the_task_s_range_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tested, "LAST", 1e-3)
    found = run(least_squares())
    assert found.diverges_at is None
    assert (found.low, found.high) == (1e-3, 1.0)


def test_it_goes_through_json_even_when_a_loss_is_not_finite() -> None:
    found = lr_range(np.geomspace(1e-3, 1, 30), [1.0] * 29 + [math.inf], (0.1, 1.0))
    assert found.diverges_at == pytest.approx(1.0)
    assert LrRange(**json.loads(json.dumps(asdict(found), allow_nan=False))) == found


def test_noise_alone_is_no_divergence() -> None:
    losses = (2.3 + 0.3 * np.random.default_rng(0).standard_normal(300)).tolist()
    assert all(diverged_from(losses[: t + 1]) is None for t in range(300))


def test_falling_back_to_the_start_is_divergence() -> None:
    losses = [2.3] * 40 + np.linspace(2.3, 0.5, 60).tolist() + [2.3] * 40
    found = [t for t in range(len(losses)) if diverged_from(losses[: t + 1]) is not None]
    assert 100 <= found[0] < 115


def test_smoothing_starts_without_bias() -> None:
    np.testing.assert_allclose(smoothed([3.0, 3.0, 3.0]), 3.0)


def test_a_group_without_a_rate_has_the_tasks_beside_those_that_have_their_own() -> None:
    seen: list[list[float]] = []

    class Recording(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            seen.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    sys.modules["recording"] = types.SimpleNamespace(Recording=Recording)  # type: ignore[assignment]
    Recording.__module__ = "recording"
    task = replace(
        least_squares(),
        lr=0.1,
        param_groups=lambda model: [
            {"params": [model.weight]},
            {"params": [model.bias], "lr": 0.01},
        ],
    )
    try:
        lr_range_test(
            task, optimizer="recording:Recording", optimizer_args={}, seed=0,
            device=torch.device("cpu"),
        )  # fmt: skip
    finally:
        del sys.modules["recording"]
    assert seen
    assert all(bias == pytest.approx(0.1 * weight) for weight, bias in seen)
