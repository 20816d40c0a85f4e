"""What ``auto`` chooses for a machine and a task, and what it says about it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lrsearch.config import make
from lrsearch.errors import UsageError
from lrsearch.search.plan import make_plan
from lrsearch.tasks import load_task
from lrsearch.tasks.task import Task
from lrsearch.training import auto
from lrsearch.training.auto import Choice, choose, usable_cores
from lrsearch.training.ensemble import EnsembleRunner
from lrsearch.training.stacked import why_not_fused
from tests.test_ensemble import CPU, Odd, Residual, images, mlp, vectors


def on_two_cores(task: Task, trials: int = 200, **asked: Any) -> Choice:
    """The choice for two CPU cores."""
    return choose(task, CPU, task.optimizer, trials, cores=2, **asked)


def test_small_linear_nets_are_fused_in_one_worker() -> None:
    choice = on_two_cores(load_task("digits"))
    assert (choice.fuse, choice.workers, choice.threads, choice.precision) == (16, 1, 1, "fp32")
    assert choice.why == "16 trials fused (small Linear net), 1 worker of 1 thread, fp32"


def test_many_trials_of_a_small_net_get_a_second_worker() -> None:
    assert on_two_cores(load_task("digits"), trials=5000).workers == 2


def test_workers_are_as_many_as_the_budget_asked_for_repays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(auto, "usable_cores", lambda: 2)
    asked: list[dict[str, Any]] = [{}, {"epochs": 3000}, {"trials": 5000, "epochs": 1}]
    assert [make_plan(make(each)).choice.workers for each in asked] == [1, 2, 1]


@pytest.mark.parametrize(("trials", "fuse"), [(1, 1), (3, 3), (30, 8), (200, 25), (1000, 64)])
def test_few_trials_leave_the_sampler_something_to_learn_from(trials: int, fuse: int) -> None:
    assert on_two_cores(load_task("square"), trials=trials).fuse == fuse


def test_convolutions_on_a_cpu_get_workers_instead_of_slots() -> None:
    choice = on_two_cores(images(Residual))
    assert (choice.fuse, choice.workers, choice.threads) == (1, 2, 1)
    assert choice.why.startswith("not fused: convolutions lose from it on a CPU, 2 workers of 1")


def test_large_linear_nets_are_not_fused() -> None:
    choice = on_two_cores(vectors(lambda: mlp(6, 500, 500, 3)))
    assert choice.fuse == 1
    assert "large enough" in choice.why


def test_a_worker_has_one_thread_whatever_the_cores() -> None:
    assert on_two_cores(images(Residual), workers=1).threads == 1


class Recurrent(nn.Module):
    """What torch.func has no rule for."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lstm(x[:, None])[0][:, 0]
        return out


def test_what_was_asked_for_is_taken() -> None:
    choice = on_two_cores(load_task("digits"), fuse=5, workers="3", precision="bf16")
    assert (choice.fuse, choice.workers, choice.precision) == (5, 3, "bf16")
    assert choice.why == "5 trials fused (as asked), 3 workers of 1 thread, bf16"
    assert on_two_cores(load_task("digits"), fuse="off").why.startswith("not fused, as asked")
    assert on_two_cores(images(Residual), fuse="7").fuse == 7


def test_what_cannot_be_fused_is_trained_alone_and_the_reason_told() -> None:
    choice = on_two_cores(vectors(Odd), fuse=8)
    assert choice.fuse == 1
    assert "cannot stack Odd" in choice.why
    choice = on_two_cores(vectors(Recurrent), fuse=8)
    assert "not implemented for aten::lstm.input, 2 workers" in choice.why
    choice = choose(load_task("digits"), CPU, "LBFGS", 100, cores=2)
    assert choice.fuse == 1
    assert "LBFGS has no stacked form" in choice.why


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown precision 'fp8'"):
        on_two_cores(load_task("digits"), precision="fp8")


@pytest.mark.parametrize(("gain", "fuse"), [(1.1, 1), (3.0, 16)])
def test_other_nets_are_fused_where_that_measures_faster(
    gain: float, fuse: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = vectors(lambda: nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3)))
    monkeypatch.setattr(
        auto, "_seconds", lambda runner, count, task: count / 100 / (gain if count > 1 else 1)
    )
    choice = on_two_cores(task)
    assert choice.fuse == fuse
    assert f"measured {gain} times the speed" in choice.why


def test_what_keeps_a_core_busy_is_not_fused_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    task = vectors(lambda: nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3)))
    asked: list[int] = []
    monkeypatch.setattr(auto, "_seconds", lambda runner, count, task: asked.append(count) or 1.0)
    choice = on_two_cores(task)
    assert choice.fuse == 1
    assert "not fused: its steps keep a core busy" in choice.why
    assert asked == [1]


def test_a_real_measurement_tells_how_much_faster() -> None:
    task = vectors(lambda: nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3)))
    before = torch.get_rng_state()
    choice = on_two_cores(replace(task, batch_size=4))
    assert "times the speed" in choice.why
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("dropout", "epochs"), [(0.0, 1), (0.3, 4)])
def test_trials_that_draw_random_numbers_are_timed_at_as_many_epochs_as_in_a_search(
    dropout: float, epochs: int
) -> None:
    task = images(lambda: Residual(dropout))
    runner = EnsembleRunner(task, k=8, optimizer="SGD", optimizer_args={}, seed=0, device=CPU)
    assert runner.draws == (dropout > 0)
    assert auto._seconds(runner, 8, task) > 0
    assert len({runner.state(key)["epoch"] for key in range(8)}) == epochs


def test_usable_cores_heed_the_quota_of_a_container(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    def limited(text: str) -> Callable[[str], Any]:
        path = tmp_path / "cpu.max"
        path.write_text(text)
        return lambda name: path

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    for text, cores in (("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("x", 8)):
        monkeypatch.setattr(auto, "Path", limited(text))
        assert usable_cores() == cores


class Extra(nn.Linear):
    """Has state that is no tensor."""

    def get_extra_state(self) -> dict[str, int]:
        return {"seen": 3}


class Mixes(nn.Linear):
    """Mixes its inputs by a sparse matrix, as graph networks do."""

    mix: torch.Tensor

    def __init__(self) -> None:
        super().__init__(6, 3)
        self.register_buffer("mix", torch.eye(6).to_sparse())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward((self.mix @ x.T).T)


class Fails(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (
            lambda: nn.Linear(6, 3, dtype=torch.float64),
            "not fused: its parameters are not all float32",
        ),
        (lambda: Extra(6, 3), "not fused: its state_dict holds more than tensors"),
        (Mixes, "not fused: its buffers are not all dense"),
        (lambda: nn.Sequential(Fails(6, 3), nn.GELU()), "cannot stack Sequential: ZeroDivisionE"),
    ],
)
def test_what_fails_when_it_is_stacked_is_trained_alone(model: Any, why: str) -> None:
    choice = on_two_cores(vectors(model))
    assert choice.fuse == 1
    assert why in choice.why


def test_fp16_is_trained_alone() -> None:
    assert why_not_fused(load_task("digits"), "SGD", precision="fp16") == (
        "fp16 would need a loss scale per trial"
    )


def test_a_measurement_that_fails_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(runner: Any, count: int, task: Task) -> float:
        raise AssertionError

    monkeypatch.setattr(auto, "_seconds", fail)
    task = vectors(lambda: nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3)))
    choice = on_two_cores(task)
    assert choice.fuse == 1
    assert "not fused: trying it failed (AssertionError)" in choice.why


class Timed:
    """A runner that is not run."""

    def __init__(self, task: Task, *, k: int = 1, **settings: Any) -> None:
        self.k = k


@pytest.mark.parametrize(
    ("kind", "most", "seconds", "fuse", "why"),
    [
        ("cpu", 64, {1: 0.01, 16: 0.04}, 16, "measured 4.0 times the speed"),
        ("cuda", 64, {1: 1.0, 4: 1.0, 16: 1.1, 64: 2.0}, 64, "measured 32.0 times the speed"),
        ("cuda", 10, {1: 1.0, 4: 1.0, 10: 5.0}, 4, "measured 4.0 times the speed"),
        ("cuda", 64, {1: 1.0, 4: 2.0, 16: torch.OutOfMemoryError()}, 4, "measured 2.0 times"),
        ("cuda", 64, {1: 1.0, 4: 2.0, 16: RuntimeError("no engine")}, 4, "measured 2.0 times"),
        ("cuda", 64, {1: 1.0, 4: torch.OutOfMemoryError("full")}, 1, "trying it failed"),
        ("cuda", 64, {1: 1.0, 4: ValueError("odd")}, 1, "not fused: trying it failed (Value"),
        ("cuda", 3, {1: 1.0, 3: 2.9}, 1, "not fused: 3 at once measured 1.0 times the speed"),
    ],
)
def test_what_measures_fastest_is_fused(
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    most: int,
    seconds: dict[int, float | Exception],
    fuse: int,
    why: str,
) -> None:
    def timed(runner: Timed, count: int, task: Task) -> float:
        assert runner.k == count
        if isinstance(found := seconds[count], Exception):
            raise found
        return found

    monkeypatch.setattr("lrsearch.training.ensemble.EnsembleRunner", Timed)
    monkeypatch.setattr("lrsearch.training.loop.SingleRunner", Timed)
    monkeypatch.setattr(auto, "_seconds", timed)
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: nullcontext())
    count, reason = auto._fuse_measured(
        images(Residual), torch.device(kind), "SGD", None, "fp32", most
    )
    assert count == fuse
    assert why in reason
