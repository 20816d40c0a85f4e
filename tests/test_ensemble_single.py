"""Fused trials against SingleRunner: built-in models, and states that go from one to the other."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lrsearch.errors import LrsearchError
from lrsearch.measured import EpochResult
from lrsearch.schedules import FAMILIES, RandomParams, Schedule, Space
from lrsearch.tasks import load_task
from lrsearch.tasks.images import Augment, Normalize
from lrsearch.tasks.models import convnet, net, resnet9, resnet18, resnet20
from lrsearch.tasks.models import mlp as built_in_mlp
from lrsearch.tasks.task import Split, Task
from lrsearch.training.ensemble import EnsembleRunner
from lrsearch.training.loop import SingleRunner
from lrsearch.training.runner import Runner
from lrsearch.training.stacked import why_not_fused
from lrsearch.training.stacked_vmap import CHUNK_BATCHES, VmapStack, norms_in_float
from tests.test_ensemble import CPU, OPTIMIZERS, Residual, assert_same, images, mlp, vectors

EPOCHS = 6


def settings(task: Task) -> dict[str, Any]:
    """Arguments of a runner, as the task says."""
    return {
        "optimizer": task.optimizer,
        "optimizer_args": task.optimizer_args,
        "seed": 3,
        "device": CPU,
    }


def alone(task: Task, schedule: Schedule, epochs: int | None = None) -> list[EpochResult]:
    """The history of one trial in SingleRunner."""
    runner = SingleRunner(task, **settings(task))
    runner.add(0, schedule)
    return run(runner, 0, epochs or schedule.epochs)


def run(runner: Runner, key: int, epochs: int) -> list[EpochResult]:
    """The history of a trial until an epoch."""
    history: list[EpochResult] = []
    while not history or history[-1].epoch < epochs:
        history.append(runner.epoch()[key])
    return history


def fused(task: Task, schedules: list[Schedule], epochs: int) -> list[list[EpochResult]]:
    """Histories of trials side by side."""
    runner = EnsembleRunner(task, k=len(schedules), **settings(task))
    for key, schedule in enumerate(schedules):
        runner.add(key, schedule)
    rounds: list[dict[int, EpochResult]] = []
    while not rounds or rounds[-1][0].epoch < epochs:
        rounds.append(runner.epoch())
    return [[results[key] for results in rounds] for key in range(len(schedules))]


def small_cifar(model: Callable[[], nn.Module], samples: int = 24) -> Task:
    """Images of CIFAR-10's shape as the real task has them: bytes, cropped and flipped."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(samples) % 10
    noise = torch.randint(0, 60, (samples, 3, 32, 32), generator=generator)
    x = (noise + 18 * y[:, None, None, None]).to(torch.uint8)
    cifar = load_task("digits")
    return replace(
        cifar,
        model=model,
        train=Split(x[: samples // 3 * 2], y[: samples // 3 * 2]),
        validation=Split(x[samples // 3 * 2 :], y[samples // 3 * 2 :]),
        batch_size=8,
        transform=lambda x: (x.float() - 100) / 60,
        augment=Augment(pad=4, flip=True),
    )


def test_digits_trial_is_the_same_fused_and_alone() -> None:
    task = load_task("digits")
    schedules = [
        Schedule("CosineAnnealingLR", 0.1, EPOCHS, {}, warmup=1),
        Schedule("OneCycleLR", 0.4, EPOCHS, {"pct_start": 0.3}),
        Schedule("ConstantLR", 0.02, EPOCHS, {}),
    ]
    for schedule, history in zip(schedules, fused(task, schedules, EPOCHS), strict=True):
        assert_same(history, alone(task, schedule), 2e-3)


def test_square_trial_is_the_same_fused_and_alone() -> None:
    task = load_task("square")
    schedules = [
        Schedule("ExponentialLR", 2e-3, 60, {"gamma": 0.99}),
        Schedule("CyclicLR", 1e-2, 60, {"base_lr": 1e-3, "step_size_up": 7}),
    ]
    for schedule, history in zip(schedules, fused(task, schedules, 60), strict=True):
        assert_same(history, alone(task, schedule), 2e-3)


def test_the_net_of_fashion_mnist_is_the_same_fused_and_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(48) % 10
    noise = torch.randint(0, 60, (48, 1, 28, 28), generator=generator)
    x = (noise + 18 * y[:, None, None, None]).to(torch.uint8)
    task = replace(
        load_task("digits"),
        model=lambda: built_in_mlp([784, 128, 128, 10]),
        train=Split(x[:32], y[:32]),
        validation=Split(x[32:], y[32:]),
        batch_size=8,
        transform=Normalize((0.286,), (0.353,)),
    )
    schedules = [Schedule("ExponentialLR", lr, EPOCHS, {"gamma": 0.8}) for lr in (0.05, 0.01)]
    for schedule, history in zip(schedules, fused(task, schedules, EPOCHS), strict=True):
        assert_same(history, alone(task, schedule), 2e-3)


@pytest.mark.parametrize(
    ("model", "lr"),
    [(convnet, 0.01), (net, 0.01), (resnet9, 0.01), (resnet20, 0.01), (resnet18, 1e-4)],
)
def test_image_nets_are_the_same_fused_and_alone(
    model: Callable[[], nn.Module], lr: float
) -> None:
    # The rate of the deep net is small: one ReLU that rounding turns moves 0.4% of its gradient.
    task = small_cifar(model)
    epochs = 1 if model in (resnet9, resnet18) else 2
    schedules = [Schedule("ExponentialLR", x, epochs, {"gamma": 0.3}) for x in (lr, lr / 3)]
    for schedule, history in zip(schedules, fused(task, schedules, epochs), strict=True):
        assert_same(history, alone(task, schedule), 5e-3)


def test_trials_at_bf16_follow_those_alone() -> None:
    task = images(Residual)
    schedule = Schedule("ConstantLR", 0.05, EPOCHS, {})
    runner = EnsembleRunner(task, k=2, **settings(task), precision="bf16")
    runner.add(0, schedule)
    runner.add(1, Schedule("ConstantLR", 0.5, EPOCHS, {}))
    single = SingleRunner(task, **settings(task), precision="bf16")
    single.add(0, schedule)
    assert_same(run(runner, 0, EPOCHS), run(single, 0, EPOCHS), 2e-2)


@pytest.mark.parametrize("model", [convnet, resnet18])
def test_half_precision_is_no_reason_against_fusing(model: Callable[[], nn.Module]) -> None:
    """It moves the gradient of resnet18 by 31%, stacked or not."""
    assert why_not_fused(small_cifar(model), "SGD", {"momentum": 0.9}, "bf16") is None


def test_a_stacked_step_is_compared_without_the_rounding_of_tf32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CUDA's default moves the gradient of resnet20 by up to 23%, and differs between kernels."""
    cudnn: Any = torch.backends.cudnn
    seen: list[tuple[object, bool]] = []

    def now() -> tuple[object, bool]:
        new = hasattr(cudnn, "conv")  # from torch 2.9 on
        return cudnn.conv.fp32_precision if new else cudnn.allow_tf32, cudnn.benchmark

    class Seen(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(now())
            return super().forward(x)

    monkeypatch.setattr(cudnn, "benchmark", True)
    before = now()
    assert why_not_fused(vectors(lambda: nn.Sequential(Seen(6, 3), nn.GELU())), "SGD") is None
    assert set(seen) <= {("ieee", False), (False, False)}
    assert seen
    assert now() == before != seen[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_that_cuda_can_stack_give_what_others_do(dtype: torch.dtype) -> None:
    seen: list[Tensor] = []

    class Norm(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return super().forward(x)

    torch.manual_seed(0)
    plain, given = nn.BatchNorm2d(3), nn.Sequential(Norm(3))
    norms_in_float(given)
    x = torch.randn(8, 3, 4, 4).to(memory_format=torch.channels_last)
    out = given(x.to(dtype))
    assert out.dtype == dtype
    assert seen[0].dtype == torch.float32
    assert seen[0].is_contiguous()
    assert torch.allclose(out.float(), plain(x.to(dtype).float()), atol=1e-2)
    (norm,) = given
    assert torch.allclose(norm.running_mean, plain.running_mean)


def test_outputs_are_made_a_few_training_batches_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A sample of two numbers may have outputs of millions."""
    sizes: list[int] = []
    forward = VmapStack.forward

    def counted(self: VmapStack, params: Any, buffers: Any, x: Tensor) -> Tensor:
        sizes.append(x.shape[1])
        return forward(self, params, buffers, x)

    monkeypatch.setattr(VmapStack, "forward", counted)
    task = images(Residual, batch_size=4)
    runner = EnsembleRunner(task, k=2, **settings(task))
    runner.add(0, Schedule("ConstantLR", 0.05, 1, {}))
    runner.epoch()
    assert max(sizes) == 4 * CHUNK_BATCHES < len(task.validation)


KINDS: dict[str, Schedule] = {
    "trace": Schedule("CosineAnnealingLR", 0.05, 8, {}, warmup=2),
    "step": Schedule("OneCycleLR", 0.1, 8, {"pct_start": 0.4}),
    "cyclic": Schedule("CyclicLR", 0.1, 8, {"base_lr": 0.01, "step_size_up": 1.5}),
    "recursive": Schedule("MultiplicativeLR", 0.1, 8, {"factor": 0.8}),
    "loss": Schedule(
        "ReduceLROnPlateau", 0.3, 8, {"patience": 0, "factor": 0.3, "threshold": 0.05}
    ),
}


@pytest.mark.parametrize("optimizer", ["sgd", "sgd nesterov", "adamw decay"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["fused to fused", "fused to single", "single to fused"])
def test_resumed_trial_equals_an_undisturbed_one(optimizer: str, kind: str, way: str) -> None:
    name, arguments = OPTIMIZERS[optimizer]
    task = vectors(
        lambda: nn.Sequential(
            nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 3)
        ),
        optimizer=name,
        optimizer_args=arguments,
    )
    schedule = KINDS[kind]
    if optimizer == "adamw decay":
        smaller = {"base_lr": 0.002} if kind == "cyclic" else {}
        schedule = replace(schedule, lr=schedule.lr / 5, params={**schedule.params, **smaller})
    source, target = way.split(" to ")
    first = make(source, task)
    first.add(5, schedule)
    beginning = run(first, 5, 3)
    state = through_a_file(first.state(5))
    second = make(target, task)
    second.add(9, schedule, state)
    if second.capacity > 1:
        second.add(1, Schedule("ConstantLR", 0.03, 8, {}))
    assert_same(beginning + run(second, 9, 8), alone(task, schedule), 5e-4)


def make(kind: str, task: Task) -> Runner:
    """A runner that trains another trial as well, if it can."""
    if kind == "single":
        return SingleRunner(task, **settings(task))
    runner = EnsembleRunner(task, k=3, **settings(task))
    runner.add(0, Schedule("ConstantLR", 0.01, 8, {}))
    return runner


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """As a checkpoint does it."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@pytest.mark.parametrize("family", sorted(f for f in FAMILIES if FAMILIES[f].searched))
def test_each_family_resumes_alone_from_a_fused_state(family: str) -> None:
    task = vectors(lambda: mlp(6, 8, 3), optimizer_args={"momentum": 0.9})
    schedule = Space([family], epochs=10, lr=(1e-2, 1e-1)).suggest(RandomParams(1))
    ensemble = EnsembleRunner(task, k=1, **settings(task))
    ensemble.add(0, schedule)
    beginning = run(ensemble, 0, 4)
    single = SingleRunner(task, **settings(task))
    single.add(0, schedule, ensemble.state(0))
    assert_same(beginning + run(single, 0, 10), alone(task, schedule), 5e-4)


@pytest.mark.parametrize("optimizer", ["sgd nesterov", "adam"])
def test_state_of_a_convolution_resumes_in_another_memory_format(optimizer: str) -> None:
    name, arguments = OPTIMIZERS[optimizer]
    task = images(lambda: Residual(channels=2), optimizer=name, optimizer_args=arguments)
    task = replace(task, **{part: two_channels(getattr(task, part)) for part in PARTS})
    schedule = Schedule("ConstantLR", 0.01, 6, {})
    ensemble = EnsembleRunner(task, k=1, **settings(task))
    ensemble.add(0, schedule)
    beginning = run(ensemble, 0, 3)
    single = SingleRunner(task, **settings(task))
    single.add(0, schedule, ensemble.state(0))
    assert_same(beginning + run(single, 0, 6), alone(task, schedule), 2e-4)


PARTS = ("train", "validation")


def two_channels(split: Split) -> Split:
    """Images and their squares."""
    return Split(torch.cat([split.x, split.x**2], 1), split.y)


def test_state_before_the_first_step_resumes() -> None:
    task = vectors(lambda: mlp(6, 8, 3))
    schedule = Schedule("ConstantLR", 0.05, 3, {})
    ensemble = EnsembleRunner(task, k=1, **settings(task))
    ensemble.add(0, schedule)
    for target in ("single", "fused"):
        runner = make(target, task)
        runner.add(4, schedule, ensemble.state(0))
        assert_same(run(runner, 4, 3), alone(task, schedule), 2e-4)


@pytest.mark.parametrize("change", ["model", "optimizer", "step"])
def test_state_of_another_task_is_refused(change: str) -> None:
    task = vectors(lambda: mlp(6, 8, 3))
    ensemble = EnsembleRunner(task, k=2, **settings(task))
    ensemble.add(0, Schedule("ConstantLR", 0.05, 3, {}))
    ensemble.epoch()
    state = ensemble.state(0)
    if change == "step":
        state["step"] += 1
    else:
        del state[change]
    with pytest.raises(LrsearchError, match="does not fit the task"):
        ensemble.add(1, Schedule("ConstantLR", 0.05, 3, {}), state)
    assert set(ensemble.epoch()) == {0}


def test_real_images_train_the_same(real_data: Path) -> None:
    task = load_task("cifar10", data_dir=real_data, train_samples=256)
    task = replace(task, validation=Split(task.validation.x[:64], task.validation.y[:64]))  # type: ignore[union-attr]
    schedules = [Schedule("ConstantLR", lr, 1, {}) for lr in (0.05, 0.01)]
    for schedule, history in zip(schedules, fused(task, schedules, 1), strict=True):
        assert_same(history, alone(task, schedule), 5e-3)
