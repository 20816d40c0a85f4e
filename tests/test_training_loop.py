"""SingleRunner against a plain loop, against itself after a stop, and at its edges."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from lrsearch.errors import LrsearchError, UsageError
from lrsearch.measured import EpochResult
from lrsearch.schedules import FAMILIES, RandomParams, Schedule, Space
from lrsearch.tasks import Split, Task, load_task
from lrsearch.tasks.models import convnet
from lrsearch.tasks.optimizers import resolve_optimizer
from lrsearch.training import checkpoint
from lrsearch.training.batches import epoch_plan
from lrsearch.training.evaluation import evaluate
from lrsearch.training.loop import SingleRunner
from lrsearch.training.runner import Runner
from tests.datafiles import write_cifar10

CPU = torch.device("cpu")
SEARCHED = sorted(set(FAMILIES) - {"Points"})


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_task("digits", train_samples=200, batch_size=40)  # 5 steps an epoch


def runner_of(task: Task, seed: int = 0, **changes: Any) -> SingleRunner:
    name, args = resolve_optimizer(
        changes.pop("optimizer", task.optimizer), changes.pop("args", task.optimizer_args)
    )
    return SingleRunner(
        task, optimizer=name, optimizer_args=args, seed=seed, device=CPU, **changes
    )


def history(runner: Runner, key: int, epochs: int) -> list[EpochResult]:
    """Results to the end, without their times."""
    results = []
    while not results or results[-1].epoch < epochs:
        results.append(replace(runner.epoch()[key], seconds=0.0))
    return results


def train(task: Task, schedule: Schedule, **changes: Any) -> list[EpochResult]:
    runner = runner_of(task, **changes)
    runner.add(1, schedule)
    return history(runner, 1, schedule.epochs)


# the same as a plain loop


def plain_loop(
    task: Task, schedule: Schedule, make: Callable[[Any], torch.optim.Optimizer]
) -> tuple[list[tuple[float, float, float]], dict[str, Tensor]]:
    """What a person would write: (lr, train loss, validation loss) of each epoch; weights."""
    torch.manual_seed(0)
    model = task.model()
    optimizer = make(model.parameters())
    x, y, steps = task.train.x, task.train.y, task.steps_per_epoch  # type: ignore[union-attr]
    scheduler = schedule.build(optimizer, steps)
    plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
    rows = []
    for epoch in range(schedule.epochs):
        losses = []
        for index in epoch_plan(0, epoch, len(y)).perm.split(task.batch_size)[:steps]:
            inputs = task.transform(x[index]) if task.transform else x[index]
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), y[index])
            loss.backward()
            optimizer.step()
            lr = optimizer.param_groups[0]["lr"]
            losses.append(loss.item())
            if schedule.interval == "step":
                scheduler.step()
        model.eval()
        with torch.no_grad():
            inputs = task.validation.x  # type: ignore[union-attr]
            inputs = task.transform(inputs) if task.transform else inputs
            val_loss = F.cross_entropy(model(inputs), task.validation.y).item()  # type: ignore[union-attr]
        model.train()
        if plateau:
            scheduler.step(val_loss)  # type: ignore[call-arg]
        elif schedule.interval == "epoch":
            scheduler.step()
        rows.append((lr, sum(losses) / len(losses), val_loss))
    return rows, model.state_dict()


SCHEDULES = {
    "cosine, warmup": Schedule("CosineAnnealingLR", lr=0.1, epochs=4, warmup=1),
    "one-cycle, per step": Schedule("OneCycleLR", lr=0.05, epochs=4, params={"pct_start": 0.3}),
    "plateau": Schedule(
        "ReduceLROnPlateau", lr=0.3, epochs=8, params={"factor": 0.5, "patience": 0}
    ),
    "polynomial, per step": Schedule(
        "PolynomialLR", lr=0.02, epochs=4, params={"power": 2.0}, interval="step"
    ),
}
OPTIMIZERS: dict[str, tuple[str, dict[str, Any], Callable[[Any], torch.optim.Optimizer]]] = {
    "sgd": (
        "SGD",
        {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
    ),
    "adam": ("Adam", {}, lambda p: torch.optim.Adam(p)),
    "adamw": ("AdamW", {"weight_decay": 0.1}, lambda p: torch.optim.AdamW(p, weight_decay=0.1)),
    "rmsprop": ("RMSprop", {"alpha": 0.9}, lambda p: torch.optim.RMSprop(p, alpha=0.9)),
}


@pytest.mark.parametrize("shape", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_trial_is_what_a_plain_loop_gives(digits: Task, shape: str, optimizer: str) -> None:
    schedule = SCHEDULES[shape]
    if optimizer != "sgd":
        schedule = replace(schedule, lr=schedule.lr / 20)
    name, args, make = OPTIMIZERS[optimizer]
    runner = runner_of(digits, optimizer=name, args=args)
    runner.add(1, schedule)
    got = history(runner, 1, schedule.epochs)
    rows, weights = plain_loop(digits, schedule, make)
    for result, (lr, train_loss, val_loss) in zip(got, rows, strict=True):
        assert result.lr == lr
        assert result.train_loss == pytest.approx(train_loss, rel=1e-3)
        assert result.val_loss == pytest.approx(val_loss, rel=1e-3)
    for key, tensor in runner.weights(1).items():
        assert torch.allclose(tensor, weights[key], rtol=1e-3, atol=1e-4), key


def test_a_convnet_in_channels_last_is_what_a_plain_loop_gives(tmp_path: Path) -> None:
    task = load_task("cifar10", data_dir=write_cifar10(tmp_path), batch_size=32)
    task = replace(task, augment=None)
    schedule = Schedule("CosineAnnealingLR", lr=0.02, epochs=2)
    args = {"momentum": 0.9, "nesterov": False}
    runner = runner_of(task, args=args)
    runner.add(1, schedule)
    got = history(runner, 1, 2)
    rows, weights = plain_loop(task, schedule, lambda p: torch.optim.SGD(p, 0.1, momentum=0.9))
    for result, (_, train_loss, val_loss) in zip(got, rows, strict=True):
        assert result.train_loss == pytest.approx(train_loss, rel=1e-3)
        assert result.val_loss == pytest.approx(val_loss, rel=1e-2)
    for key, tensor in runner.weights(1).items():
        assert torch.allclose(tensor, weights[key], rtol=1e-2, atol=1e-3), key


def test_augmented_training_in_bf16_learns_the_written_images(tmp_path: Path) -> None:
    task = load_task("cifar10", data_dir=write_cifar10(tmp_path, per_batch=80), batch_size=32)
    results = train(task, Schedule("OneCycleLR", lr=0.1, epochs=6), precision="bf16")
    assert results[-1].train_loss < 0.6 * results[0].train_loss
    assert results[-1].val_metric is not None
    assert results[-1].val_metric > 0.3  # ten classes


# common random numbers


def test_all_trials_of_a_seed_start_alike_and_repeat_bit_for_bit(digits: Task) -> None:
    runner = runner_of(digits)
    schedule = Schedule("ConstantLR", lr=0.1, epochs=3)
    runner.add(1, schedule)
    start = runner.weights(1)
    first = history(runner, 1, 3)
    runner.remove(1)
    runner.add(2, schedule)
    assert all(torch.equal(start[name], t) for name, t in runner.weights(2).items())
    assert history(runner, 2, 3) == first
    torch.manual_seed(99)  # somebody else's random numbers change nothing
    assert train(digits, schedule) == first
    assert train(digits, schedule, seed=1) != first


def test_training_leaves_the_random_numbers_of_the_program_alone(digits: Task) -> None:
    before = torch.get_rng_state()
    train(digits, Schedule("ConstantLR", lr=0.1, epochs=1))
    assert torch.equal(before, torch.get_rng_state())


# stop and go on


def interrupted(
    task: Task, schedule: Schedule, at: int, path: Path, **changes: Any
) -> list[EpochResult]:
    """The history of a trial that is saved after ``at`` validations and goes on elsewhere."""
    runner = runner_of(task, **changes)
    runner.add(1, schedule)
    results = [replace(runner.epoch()[1], seconds=0.0) for _ in range(at)]
    checkpoint.save(path, runner.state(1))
    state = checkpoint.load(path)
    runner.epoch()  # what happens after the save does not count
    other = runner_of(task, **changes)
    other.add(7, schedule, state)
    return results + history(other, 7, schedule.epochs)


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("family", SEARCHED)
def test_a_resumed_trial_is_the_undisturbed_one_bit_for_bit(
    digits: Task, tmp_path: Path, family: str, interval: str
) -> None:
    if interval == "step" and FAMILIES[family].needs_metric:
        pytest.skip("steps once per epoch")
    space = Space(families=(family,), epochs=8, lr=(0.01, 0.3), interval=interval)
    for seed in range(2):
        schedule = space.suggest(RandomParams(seed))
        whole = train(digits, schedule)
        for at in (1, 5):
            assert interrupted(digits, schedule, at, tmp_path / "1.pt") == whole, schedule


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "Adagrad", "RMSprop", "NAdam", "RAdam"])
def test_every_optimizer_resumes_bit_for_bit(digits: Task, tmp_path: Path, optimizer: str) -> None:
    schedule = Schedule("OneCycleLR", lr=0.01, epochs=4)
    changes = {"optimizer": optimizer, "args": {}}
    whole = train(digits, schedule, **changes)
    assert interrupted(digits, schedule, 2, tmp_path / "1.pt", **changes) == whole


def test_batch_norm_dropout_augmentation_and_bf16_resume_bit_for_bit(tmp_path: Path) -> None:
    task = load_task("cifar10", data_dir=write_cifar10(tmp_path), batch_size=32)
    task = replace(task, model=lambda: nn.Sequential(nn.Dropout(0.1), convnet()))
    schedule = Schedule("CosineAnnealingLR", lr=0.05, epochs=4)
    for precision in ("fp32", "bf16"):
        whole = train(task, schedule, precision=precision)
        again = interrupted(task, schedule, 2, tmp_path / "1.pt", precision=precision)
        assert again == whole
        assert whole[0].train_loss != whole[1].train_loss


def test_a_saved_state_stays_as_it_was(digits: Task) -> None:
    runner = runner_of(digits)
    schedule = Schedule("ConstantLR", lr=0.1, epochs=4)
    runner.add(1, schedule)
    runner.epoch()
    state = runner.state(1)
    kept = {name: t.clone() for name, t in state["model"].items()}
    momentum = state["optimizer"]["state"][0]["momentum_buffer"].clone()
    runner.epoch()
    other = runner_of(digits)
    other.add(2, schedule, state)
    other.epoch()
    assert all(torch.equal(kept[name], t) for name, t in state["model"].items())
    assert torch.equal(momentum, state["optimizer"]["state"][0]["momentum_buffer"])


def test_a_state_of_another_model_is_refused(digits: Task) -> None:
    runner = runner_of(digits)
    schedule = Schedule("ConstantLR", lr=0.1, epochs=2)
    runner.add(1, schedule)
    runner.epoch()
    state = runner.state(1)
    other = runner_of(replace(digits, model=lambda: nn.Linear(64, 10)))
    with pytest.raises(LrsearchError, match="a saved state does not fit the task"):
        other.add(1, schedule, state)
    del state["optimizer"]
    with pytest.raises(LrsearchError, match="KeyError: 'optimizer'"):
        runner_of(digits).add(1, schedule, state)


# what a result says


def test_losses_are_those_of_the_weights_and_of_their_average(digits: Task) -> None:
    runner = runner_of(digits)
    runner.add(1, Schedule("ConstantLR", lr=0.2, epochs=3))
    for _ in range(3):
        result = runner.epoch()[1]
    raw = evaluate(digits, runner.weights(1), digits.validation, device=CPU)
    averaged = evaluate(digits, runner.state(1)["average"], digits.validation, device=CPU)
    assert raw == (result.val_loss, result.val_metric)
    assert averaged == (result.avg_val_loss, result.avg_val_metric)
    assert raw != averaged
    assert result.seconds > 0
    assert not result.diverged


def test_evaluation_does_not_depend_on_the_size_of_its_batches(
    digits: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = runner_of(digits)
    runner.add(1, Schedule("ConstantLR", lr=0.2, epochs=1))
    weights = runner.weights(1)
    outputs = digits.model().eval()
    outputs.load_state_dict(weights)
    x, y = digits.validation.x, digits.validation.y  # type: ignore[union-attr]
    want = F.cross_entropy(outputs(x), y).item()
    whole = evaluate(digits, weights, digits.validation, device=CPU)
    monkeypatch.setattr("lrsearch.tasks.batch.EVALUATION_ELEMENTS", 64 * 41)
    parts = evaluate(digits, weights, digits.validation, device=CPU)
    assert whole[0] == pytest.approx(want, rel=1e-5)
    assert parts == pytest.approx(whole, rel=1e-5)
    summed = replace(digits, validation_loss=lambda z, t: F.cross_entropy(z, t, reduction="sum"))
    total = evaluate(summed, weights, digits.validation, device=CPU)[0]
    assert total == pytest.approx(300 * want, rel=1e-5)


def test_a_rate_that_explodes_is_reported_as_diverged(digits: Task) -> None:
    runner = runner_of(digits)
    runner.add(1, Schedule("ConstantLR", lr=1e6, epochs=30))
    results = [runner.epoch()[1] for _ in range(4)]
    assert results[-1].diverged
    assert not math.isfinite(results[-1].val_loss) or not math.isfinite(results[-1].train_loss)


def test_square_validates_every_twenty_epochs_by_the_sum_and_has_no_metric() -> None:
    task = load_task("square")
    runner = runner_of(task)
    runner.add(1, Schedule("ExponentialLR", lr=5e-4, epochs=50, params={"gamma": 0.99}))
    results = [runner.epoch()[1] for _ in range(3)]
    assert [result.epoch for result in results] == [20, 40, 50]
    assert results[0].val_metric is None
    assert results[0].avg_val_metric is None
    assert results[0].lr == pytest.approx(5e-4 * 0.99**19)
    model = task.model()
    model.load_state_dict(runner.weights(1))
    x, y = task.validation.x, task.validation.y  # type: ignore[union-attr]
    assert results[2].val_loss == pytest.approx(((model(x) - y) ** 2).sum().item())


@pytest.mark.parametrize(("every", "falls"), [(1, [4, 7, 10]), (3, [6, 9])])
def test_patience_counts_epochs_however_rare_validations_are(
    digits: Task, every: int, falls: list[int]
) -> None:
    """The loss never falls; patience 2 bad epochs, or 0 bad validations of three epochs each."""
    constant = lambda z, y: (z * 0).sum() + 1  # noqa: E731
    task = replace(digits, validate_every=every, validation_loss=constant)
    schedule = Schedule(
        "ReduceLROnPlateau", lr=0.1, epochs=12, params={"factor": 0.5, "patience": 2}
    )
    runner = runner_of(task)
    runner.add(1, schedule)
    rates = {result.epoch: result.lr for result in history(runner, 1, 12)}
    want = {epoch: 0.1 * 0.5 ** sum(epoch > fall for fall in falls) for epoch in rates}
    assert rates == pytest.approx(want)


# other kinds of task


class Pairs(Dataset[Any]):
    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], Tensor]:
        return {"a": torch.full((3,), index / 30) + torch.randn(3) / 9}, torch.tensor(index % 2)


class TakesDict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.linear(inputs["a"])


def test_a_loader_task_with_structured_inputs_trains_and_resumes(tmp_path: Path) -> None:
    loader = DataLoader(Pairs(), batch_size=8, shuffle=True)
    fixed = [(x, y) for x, y in DataLoader(Pairs(), batch_size=8)]
    task = Task("own", TakesDict, loader, fixed)
    schedule = Schedule("OneCycleLR", lr=0.1, epochs=4)  # 4 steps an epoch, the last of 6 samples
    whole = train(task, schedule)
    assert interrupted(task, schedule, 2, tmp_path / "1.pt") == whole
    assert whole[-1].lr == pytest.approx(schedule.trace(steps_per_epoch=4).lr[-1], rel=1e-6)


def test_a_loader_that_runs_dry_is_an_error(digits: Task) -> None:
    task = Task("own", digits.model, [], digits.validation)
    task = replace(task, train=type("Empty", (list,), {"__len__": lambda self: 3})())
    runner = runner_of(task)
    runner.add(1, Schedule("ConstantLR", lr=0.1, epochs=2))
    with pytest.raises(LrsearchError, match="train gave no batch in this epoch"):
        runner.epoch()


def test_each_parameter_group_follows_the_shape_from_its_own_rate(digits: Task) -> None:
    def groups(model: nn.Module) -> list[dict[str, Any]]:
        layers = [layer for layer in model if isinstance(layer, nn.Linear)]  # type: ignore[attr-defined]
        return [
            {"params": layers[0].parameters(), "lr": 1e-2},
            {"params": [p for layer in layers[1:] for p in layer.parameters()], "lr": 1e-3},
        ]

    runner = runner_of(replace(digits, param_groups=groups))
    schedule = Schedule("ExponentialLR", lr=0.2, epochs=3, params={"gamma": 0.5})
    runner.add(1, schedule)
    results = history(runner, 1, 3)
    assert [result.lr for result in results] == pytest.approx([0.2, 0.1, 0.05])
    rates = [group["lr"] for group in runner.state(1)["optimizer"]["param_groups"]]
    assert rates == pytest.approx([0.025, 0.0025])


def test_the_history_shows_the_fastest_group_also_where_a_cycle_begins_at_zero(
    digits: Task,
) -> None:
    def groups(model: nn.Module) -> list[dict[str, Any]]:
        first, *rest = (layer for layer in model if isinstance(layer, nn.Linear))  # type: ignore[attr-defined]
        slow = {"params": first.parameters(), "lr": 0.01}
        return [slow, {"params": [p for layer in rest for p in layer.parameters()], "lr": 0.1}]

    runner = runner_of(replace(digits, param_groups=groups))
    args = {"base_lr": 0.0, "step_size_up": 2}
    schedule = Schedule("CyclicLR", lr=0.2, epochs=4, params=args, interval="epoch")
    runner.add(1, schedule)
    assert [result.lr for result in history(runner, 1, 4)] == pytest.approx([0, 0.1, 0.2, 0.1])


def test_frozen_parameters_stay(digits: Task) -> None:
    def model() -> nn.Module:
        made = digits.model()
        made[1].requires_grad_(False)  # type: ignore[index]
        return made

    runner = runner_of(replace(digits, model=model))
    runner.add(1, Schedule("ConstantLR", lr=0.1, epochs=1))
    before = runner.weights(1)
    runner.epoch()
    after = runner.weights(1)
    assert torch.equal(before["1.weight"], after["1.weight"])
    assert not torch.equal(before["3.weight"], after["3.weight"])


def test_a_compiled_model_is_made_once_and_starts_afresh_for_each_trial(
    digits: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
        made.append(model)
        return lambda x: model(x)

    monkeypatch.setattr(torch, "compile", compiled)
    schedule = Schedule("ConstantLR", lr=0.1, epochs=2)
    runner = runner_of(digits, compile=True)
    runner.add(1, schedule)
    first = history(runner, 1, 2)
    runner.remove(1)
    runner.add(2, schedule)
    assert history(runner, 2, 2) == first == train(digits, schedule)
    assert len(made) == 1


def test_a_runner_holds_one_trial(digits: Task) -> None:
    runner = runner_of(digits)
    schedule = Schedule("ConstantLR", lr=0.1, epochs=2)
    assert runner.epoch() == {}
    runner.add(1, schedule)
    with pytest.raises(UsageError, match="holds 1 trial; remove one first"):
        runner.add(2, schedule)
    runner.remove(1)
    runner.add(2, schedule)
    assert list(runner.epoch()) == [2]


def test_a_split_smaller_than_a_batch_trains_in_one_step() -> None:
    split = Split(torch.randn(5, 64), torch.arange(5))
    task = replace(load_task("digits"), train=split)
    results = train(task, Schedule("ConstantLR", lr=0.1, epochs=2))
    assert [result.epoch for result in results] == [1, 2]
