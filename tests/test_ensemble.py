"""A fused trial has the history of the same trial alone, whatever runs beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrsearch.errors import LrsearchError, UsageError
from lrsearch.measured import EpochResult
from lrsearch.schedules import FAMILIES, RandomParams, Schedule, Space
from lrsearch.tasks.images import Augment
from lrsearch.tasks.task import Split, Task, accuracy
from lrsearch.training.batches import epoch_plan, epoch_seed
from lrsearch.training.device import place
from lrsearch.training.ensemble import EnsembleRunner
from lrsearch.training.stacked import why_not_fused
from lrsearch.training.stacked_mlp import layers_of

CPU = torch.device("cpu")
EPOCHS = 6

OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {}),
    "sgd weight decay": ("SGD", {"weight_decay": 1e-2}),
    "sgd momentum": ("SGD", {"momentum": 0.9, "weight_decay": 5e-4}),
    "sgd nesterov": ("SGD", {"momentum": 0.8, "nesterov": True, "weight_decay": 1e-3}),
    "adam": ("Adam", {}),
    "adam decay": ("Adam", {"betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 1e-2}),
    "adamw": ("AdamW", {}),
    "adamw decay": ("AdamW", {"betas": (0.85, 0.95), "weight_decay": 0.1}),
}


class Residual(nn.Module):
    """What only torch.func can stack: a forward of its own, batch norm, dropout in the middle."""

    def __init__(self, dropout: float = 0.0, channels: int = 1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm(self.stem(x)))
        h = h + F.dropout(self.conv(h), self.dropout, self.training)
        out: Tensor = self.head(h.mean((2, 3)))
        return out


def mlp(*widths: int, activation: type[nn.Module] = nn.ReLU, last: bool = False) -> nn.Sequential:
    """Linear layers with an activation between them."""
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), activation()]
    return nn.Sequential(*(layers if last else layers[:-1]))


def vectors(model: Callable[[], nn.Module], **changes: Any) -> Task:
    """A task of 3 classes on 70 vectors of 6 numbers."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(100, 6, generator=generator)
    y = (x[:, 0] > 0.2).long() + (x[:, 1] * x[:, 2] > 0).long()
    task = Task("vectors", model, Split(x[:70], y[:70]), Split(x[70:], y[70:]), batch_size=16)
    return replace(task, **changes)


def images(model: Callable[[], nn.Module], **changes: Any) -> Task:
    """The same samples, as images of 6 x 6."""
    task = vectors(model)
    splits = [
        Split(s.x[:, None, :, None] * s.x[:, None, None, :], s.y)
        for s in (task.train, task.validation)
        if isinstance(s, Split)
    ]
    return replace(task, train=splits[0], validation=splits[1], **changes)


def regression(**changes: Any) -> Task:
    """Learn y = x², one sample a step, scored by a sum over all validation samples."""
    x = torch.arange(1, 11)[:, None] / 10
    v = x[:-1] + 0.05
    task = Task(
        "square",
        lambda: mlp(1, 3, 5, 1, activation=nn.Sigmoid, last=True),
        Split(x, x * x),
        Split(v, v * v),
        loss=F.mse_loss,
        validation_loss=lambda out, y: (out - y).square().sum(),
        metric=None,
        batch_size=1,
        validate_every=2,
    )
    return replace(task, **changes)


def batches(task: Task, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of an epoch by the plan that all trials share, image by image."""
    assert isinstance(task.train, Split)
    plan = epoch_plan(0, epoch, len(task.train), task.augment)
    for first in range(0, task.steps_per_epoch * task.batch_size, task.batch_size):
        images = []
        for i in range(first, min(first + task.batch_size, len(task.train))):
            x = task.train.x[plan.perm[i]]
            if task.augment and plan.dx is not None and plan.dy is not None:
                left, top = int(plan.dx[i]), int(plan.dy[i])
                framed = F.pad(x, (task.augment.pad,) * 4)
                x = framed[:, top : top + x.shape[1], left : left + x.shape[2]]
            images.append(x.flip(2) if plan.flip is not None and plan.flip[i] else x)
        x = torch.stack(images)
        index = plan.perm[first : first + task.batch_size]
        yield (task.transform(x) if task.transform else x), task.train.y[index]


def alone(
    task: Task, schedule: Schedule, optimizer: str, arguments: Mapping[str, Any]
) -> Iterator[EpochResult]:
    """The oracle: one trial with plain torch.optim and its real scheduler."""
    assert isinstance(task.train, Split)
    assert isinstance(task.validation, Split)
    torch.manual_seed(0)
    model, average = (place(task, task.model(), CPU) for _ in range(2))  # where dropout draws
    average.load_state_dict(model.state_dict())
    rule = getattr(torch.optim, optimizer)(model.parameters(), lr=1.0, **arguments)
    steps = task.steps_per_epoch
    scheduler: Any = schedule.build(rule, steps)
    by_loss = FAMILIES[schedule.family].needs_metric
    elapsed, total, counted = 0, 0.0, 0
    for epoch in range(schedule.epochs):
        torch.manual_seed(epoch_seed(0, epoch))
        model.train()
        for x, y in batches(task, epoch):
            rule.zero_grad()
            loss = task.loss(model(x), y)
            loss.backward()
            if task.clip_grad_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), task.clip_grad_norm)
            lr = rule.param_groups[0]["lr"]
            rule.step()
            total, counted = total + loss.item() * len(y), counted + len(y)
            elapsed += 1
            horizon = min(max(0.2 * elapsed, 1.0), 2.0 * steps)
            with torch.no_grad():
                pairs = zip(average.parameters(), model.parameters(), strict=True)
                buffers = zip(average.buffers(), model.buffers(), strict=True)
                for mean, now in (*pairs, *buffers):
                    if now.is_floating_point():
                        mean += (now - mean) / horizon
                    else:
                        mean.copy_(now)
            if schedule.interval == "step" and elapsed < steps * schedule.epochs:
                scheduler.step()
        judged = (epoch + 1) % task.validate_every == 0 or epoch + 1 == schedule.epochs
        values: list[tuple[float, float | None]] = []
        for net in (model, average):
            net.eval()
            with torch.no_grad():
                x = task.validation.x
                out = net(task.transform(x) if task.transform else x)
                score = (task.validation_loss or task.loss)(out, task.validation.y).item()
                metric = task.metric(out, task.validation.y).item() if task.metric else None
            values.append((score, metric))
        if by_loss and judged:
            scheduler.step(values[0][0])
        elif schedule.interval == "epoch" and not by_loss:
            scheduler.step()
        if judged:
            yield EpochResult(epoch + 1, lr, total / counted, *values[0], *values[1], 0.0)
            total, counted = 0.0, 0


def fused(
    task: Task,
    schedules: Mapping[int, Schedule],
    optimizer: str,
    arguments: Mapping[str, Any],
    k: int,
) -> dict[int, list[EpochResult]]:
    """Histories of trials that go through k slots as in a search: one leaves, the next comes."""
    runner = EnsembleRunner(
        task, k=k, optimizer=optimizer, optimizer_args=arguments, seed=0, device=CPU
    )
    waiting = dict(schedules)
    histories: dict[int, list[EpochResult]] = {key: [] for key in schedules}
    inside: set[int] = set()
    while waiting or inside:
        while waiting and len(inside) < k:
            key = next(iter(waiting))
            runner.add(key, waiting.pop(key))
            inside.add(key)
        for key, result in runner.epoch().items():
            histories[key].append(result)
            if result.epoch >= schedules[key].epochs or result.diverged:
                runner.remove(key)
                inside.remove(key)
    return histories


def assert_same(ours: list[EpochResult], theirs: list[EpochResult], tolerance: float) -> None:
    """Equal histories, to float tolerance."""
    assert [r.epoch for r in ours] == [r.epoch for r in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.lr == pytest.approx(other.lr, rel=1e-6)
        for name in ("train_loss", "val_loss", "avg_val_loss"):
            expected = getattr(other, name)
            assert getattr(one, name) == pytest.approx(expected, rel=tolerance, abs=tolerance), (
                name
            )
        for name in ("val_metric", "avg_val_metric"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), abs=0.05), name
        assert one.diverged == other.diverged


def check(
    task: Task,
    schedules: Mapping[int, Schedule],
    optimizer: str = "SGD",
    arguments: Mapping[str, Any] | None = None,
    k: int = 3,
    tolerance: float = 2e-4,
) -> None:
    """Fused trials against each of them alone."""
    arguments = {"momentum": 0.9} if arguments is None else arguments
    histories = fused(task, schedules, optimizer, arguments, k)
    for key, schedule in schedules.items():
        theirs = alone(task, schedule, optimizer, arguments)
        assert_same(histories[key], list(theirs), tolerance)


def mixed(epochs: int = EPOCHS, lr: float = 0.05) -> dict[int, Schedule]:
    """Five schedules of different kinds, lengths of stay and rates."""
    return {
        7: Schedule("ConstantLR", lr, epochs, {}),
        8: Schedule("StepLR", lr / 2, max(2, epochs - 3), {"step_size": 2, "gamma": 0.5}),
        3: Schedule("OneCycleLR", lr * 2, epochs, {"pct_start": 0.3}),
        1: Schedule("CosineAnnealingLR", lr / 3, epochs, {}, warmup=1),
        5: Schedule("CyclicLR", lr, epochs, {"base_lr": lr / 5, "step_size_up": 1.5}),
    }


@pytest.mark.parametrize("family", sorted(f for f in FAMILIES if FAMILIES[f].searched))
def test_each_family_trains_as_alone(family: str) -> None:
    space = Space([family], epochs=12, lr=(1e-2, 1e-1))
    schedules = {i: space.suggest(RandomParams(i)) for i in range(3)}
    check(vectors(lambda: mlp(6, 8, 3)), schedules, k=2)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_each_optimizer_updates_as_alone(name: str, kind: str) -> None:
    optimizer, arguments = OPTIMIZERS[name]
    task = vectors(lambda: mlp(6, 8, 8, 3)) if kind == "mlp" else images(Residual)
    check(task, mixed(lr=0.05 if optimizer == "SGD" else 0.01), optimizer, arguments)


@pytest.mark.parametrize(
    "model",
    [
        lambda: mlp(6, 8, 3, activation=nn.Tanh),
        lambda: mlp(6, 8, 3, activation=nn.Sigmoid),
        lambda: nn.Linear(6, 3),
        lambda: nn.Sequential(
            nn.Flatten(), nn.Sequential(nn.Linear(6, 5), nn.ReLU()), nn.Linear(5, 3)
        ),
    ],
)
def test_linear_nets_of_every_shape_train_as_alone(model: Callable[[], nn.Module]) -> None:
    assert layers_of(model()) is not None
    check(vectors(model), mixed())


@pytest.mark.parametrize(
    "model",
    [
        lambda: mlp(6, 8, 3, activation=nn.GELU),
        lambda: nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.Linear(8, 3)),
        lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.SiLU(), nn.Linear(8, 3)),
    ],
)
def test_other_nets_train_as_alone(model: Callable[[], nn.Module]) -> None:
    assert layers_of(model()) is None
    check(vectors(model), mixed())


@pytest.mark.parametrize(
    "task",
    [
        vectors(lambda: mlp(6, 8, 3)),
        vectors(
            lambda: mlp(6, 8, 3), loss=lambda z, y: F.cross_entropy(z, y, label_smoothing=0.1)
        ),
        vectors(lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))),
        images(lambda: Residual(dropout=0.3), augment=Augment(1)),
        regression(batch_size=4),
    ],
    ids=["mlp", "any loss", "batch norm", "dropout and augmentation", "every second epoch"],
)
def test_a_smaller_last_batch_trains_as_alone(task: Task) -> None:
    task = replace(task, drop_last=False)
    assert isinstance(task.train, Split)
    assert task.steps_per_epoch == len(task.train) // task.batch_size + 1
    check(task, mixed())


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU])
def test_a_loss_that_torch_stacks_by_a_loop_trains_as_alone_without_a_warning(
    activation: type[nn.Module],
) -> None:
    check(vectors(lambda: mlp(6, 8, 3, activation=activation), loss=F.multi_margin_loss), mixed())


def test_dropout_draws_the_numbers_that_each_trial_draws_alone() -> None:
    check(
        vectors(lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.4), nn.Linear(8, 3))), mixed()
    )
    check(images(lambda: Residual(dropout=0.3)), mixed())


def test_trials_with_dropout_that_are_an_epoch_apart_are_validated_after_each() -> None:
    task = vectors(lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.4), nn.Linear(8, 3)))
    runner = EnsembleRunner(task, k=3, optimizer="SGD", optimizer_args={}, seed=0, device=CPU)
    schedule = Schedule("ConstantLR", 0.05, EPOCHS, {})
    histories: dict[int, list[EpochResult]] = {}
    for key in range(3):
        runner.add(key, schedule)
        for trial, result in runner.epoch().items():
            histories.setdefault(trial, []).append(result)
    theirs = list(alone(task, schedule, "SGD", {}))
    for key, history in histories.items():
        assert_same(history, theirs[: 3 - key], 2e-4)


def test_augmented_images_train_as_alone() -> None:
    task = images(Residual, augment=Augment(pad=1))
    check(task, mixed())
    check(replace(task, transform=lambda x: 2 * x - 1), mixed())
    check(images(Residual, augment=Augment(pad=0, flip=True)), mixed())


def test_one_sample_a_step_and_a_validation_every_second_epoch() -> None:
    check(regression(), mixed(epochs=7, lr=0.02), "Adam", {})


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(label_smoothing=0.1),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5])),
        lambda out, y: F.nll_loss(F.log_softmax(out, 1), y),
        lambda out, y: F.mse_loss(out, F.one_hot(y, 3).float()),
    ],
)
def test_losses_of_any_kind(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    check(vectors(lambda: mlp(6, 8, 3), loss=loss), mixed())
    check(vectors(lambda: mlp(6, 8, 3, activation=nn.GELU), loss=loss), mixed())


def test_losses_and_metrics_see_outputs_in_their_usual_order() -> None:
    """Such as a reshape needs."""

    def flat(out: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(out.view(-1), F.one_hot(y, 3).float().view(-1))

    for whole in (None, flat):
        task = vectors(lambda: mlp(6, 8, 3), loss=flat, validation_loss=whole)
        check(replace(task, metric=flat), mixed())


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_diverged_neighbour_does_not_leak(kind: str) -> None:
    task = vectors(lambda: mlp(6, 8, 3)) if kind == "mlp" else images(Residual)
    schedules = {
        0: Schedule("ConstantLR", 0.05, EPOCHS, {}),
        1: Schedule("ConstantLR", 1e6, EPOCHS, {}),
    }
    runner = EnsembleRunner(task, k=2, optimizer="SGD", optimizer_args={}, seed=0, device=CPU)
    for key, schedule in schedules.items():
        runner.add(key, schedule)
    results = [runner.epoch() for _ in range(EPOCHS)]
    assert all(r[1].diverged for r in results)
    theirs = alone(task, schedules[0], "SGD", {})
    assert_same([r[0] for r in results], list(theirs), 2e-4)


def test_the_same_trial_has_one_history_whatever_its_neighbours() -> None:
    task = vectors(lambda: mlp(6, 8, 3))
    one = {0: Schedule("CosineAnnealingLR", 0.1, EPOCHS, {})}
    single = fused(task, one, "SGD", {"momentum": 0.9}, 1)
    crowd = fused(task, mixed() | one, "SGD", {"momentum": 0.9}, 4)
    assert_same(crowd[0], single[0], 1e-5)


def test_a_freed_slot_costs_nothing_and_the_rest_stay_dense() -> None:
    task = vectors(lambda: mlp(6, 8, 3))
    runner = EnsembleRunner(task, k=4, optimizer="SGD", optimizer_args={}, seed=0, device=CPU)
    for key in range(4):
        runner.add(key, Schedule("ConstantLR", 0.01 * (key + 1), EPOCHS, {}))
    runner.epoch()
    before = {key: runner.weights(key) for key in (1, 3)}
    runner.remove(0)
    runner.remove(2)
    assert list(runner._trainers) == [4]
    for key, weights in before.items():
        assert all(torch.equal(weights[name], t) for name, t in runner.weights(key).items())
    assert set(runner.epoch()) == {1, 3}
    assert list(runner._trainers) == [2]


def test_weights_load_into_the_model() -> None:
    task = images(Residual)
    runner = EnsembleRunner(task, k=2, optimizer="SGD", optimizer_args={}, seed=0, device=CPU)
    runner.add(4, Schedule("ConstantLR", 0.05, EPOCHS, {}))
    result = runner.epoch()[4]
    model = task.model()
    model.load_state_dict(runner.weights(4))
    assert isinstance(task.validation, Split)
    out = model.eval()(task.validation.x)
    assert task.loss(out, task.validation.y).item() == pytest.approx(result.val_loss, rel=1e-5)
    assert accuracy(out, task.validation.y).item() == pytest.approx(result.val_metric)


def test_initial_weights_come_from_the_seed() -> None:
    task = vectors(lambda: mlp(6, 8, 3))
    runner = EnsembleRunner(task, k=1, optimizer="SGD", optimizer_args={}, seed=5, device=CPU)
    runner.add(0, Schedule("ConstantLR", 0.05, EPOCHS, {}))
    torch.manual_seed(5)
    expected = task.model().state_dict()
    assert all(torch.equal(expected[name], t) for name, t in runner.weights(0).items())


def test_more_trials_than_slots_are_refused() -> None:
    task = vectors(lambda: mlp(6, 8, 3))
    runner = EnsembleRunner(task, k=1, optimizer="SGD", optimizer_args={}, seed=0, device=CPU)
    runner.add(0, Schedule("ConstantLR", 0.05, EPOCHS, {}))
    with pytest.raises(UsageError, match="all 1 slots are taken"):
        runner.add(1, Schedule("ConstantLR", 0.05, EPOCHS, {}))


class Odd(nn.Module):
    """Decides by its values, which no stacked model can."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        return out if out.sum() > 0 else 2 * out


class Counting(nn.Module):
    """Replaces a buffer instead of changing it, which torch.func loses."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.seen + 1
        out: Tensor = self.linear(x)
        return out


class Unused(nn.Module):
    """Has a parameter without a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.spare = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        return out


@pytest.mark.parametrize(
    ("model", "reason"),
    [(Odd, "cannot stack Odd"), (Counting, "Counting differs"), (Unused, "cannot stack Unused")],
)
def test_what_cannot_be_stacked_is_told(model: type[nn.Module], reason: str) -> None:
    task = vectors(model)
    assert reason in str(why_not_fused(task, "SGD", {}))
    with pytest.raises(LrsearchError, match=f"cannot be fused: .*{reason}"):
        EnsembleRunner(task, k=2, optimizer="SGD", optimizer_args={}, seed=0, device=CPU)


def test_a_gradient_that_is_rounding_alone_is_no_reason_against_fusing() -> None:
    task = vectors(lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)))
    for seed in range(20):  # the bias before a batch norm has such a one
        EnsembleRunner(task, k=2, optimizer="SGD", optimizer_args={}, seed=seed, device=CPU)


@pytest.mark.parametrize(
    ("optimizer", "arguments", "reason"),
    [
        ("LBFGS", {}, "optimizer LBFGS has no stacked form"),
        ("SGD", {"dampening": 0.1}, "dampening=0.1"),
        ("Adam", {"amsgrad": True}, "amsgrad=True"),
        ("SGD", {"momentum": 0.9, "foreach": True}, None),
        ("sgd", {"momentum": 0.9, "dampening": 0}, None),
    ],
)
def test_optimizers_that_have_no_stacked_form(
    optimizer: str, arguments: dict[str, Any], reason: str | None
) -> None:
    found = why_not_fused(vectors(lambda: mlp(6, 8, 3)), optimizer, arguments)
    assert found is None if reason is None else reason in str(found)


def test_loaders_and_parameter_groups_are_not_fused() -> None:
    task = vectors(lambda: mlp(6, 8, 3))
    assert "loader" in str(
        why_not_fused(replace(task, train=[(torch.zeros(2, 6), torch.zeros(2))]), "SGD")
    )
    grouped = replace(task, param_groups=lambda model: [{"params": model.parameters()}])
    assert "groups" in str(why_not_fused(grouped, "SGD"))


def test_frozen_parameters_stay() -> None:
    def model() -> nn.Module:
        net = mlp(6, 8, 3)
        net[0].weight.requires_grad_(False)
        return net

    task = vectors(model)
    runner = EnsembleRunner(
        task, k=2, optimizer="SGD", optimizer_args={"weight_decay": 0.1}, seed=0, device=CPU
    )
    runner.add(0, Schedule("ConstantLR", 0.05, EPOCHS, {}))
    before = runner.weights(0)
    runner.epoch()
    after = runner.weights(0)
    assert torch.equal(before["0.weight"], after["0.weight"])
    assert not torch.equal(before["2.weight"], after["2.weight"])
