"""Trials with dropout that stand at different epochs train together, and each as alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrsearch.schedules import Schedule
from lrsearch.tasks.task import Split, Task
from lrsearch.training.ensemble import EnsembleRunner
from lrsearch.training.loop import SingleRunner
from lrsearch.training.stacked import why_not_fused
from lrsearch.training.stacked_dropout import StackedDropout, orders_seen
from tests.test_ensemble import (
    CPU,
    EPOCHS,
    Residual,
    assert_same,
    check,
    fused,
    images,
    mixed,
    vectors,
)

NORMAL = F._VF, F.scaled_dot_product_attention


class Function(nn.Module):
    """What a training step does between two layers."""

    def __init__(self, between: Callable[..., Tensor]) -> None:
        super().__init__()
        self.below, self.above = nn.Linear(6, 8), nn.Linear(8, 3)
        self.between = between

    def forward(self, x: Tensor) -> Any:
        return self.above(self.between(self.below(x), self.training))


class Images(nn.Module):
    """Drops whole channels."""

    def __init__(self, drop: nn.Module) -> None:
        super().__init__()
        self.stem, self.drop, self.head = nn.Conv2d(1, 4, 3), drop, nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.drop(self.stem(x)).mean((2, 3)))


class Attends(nn.Module):
    """Attention over the six numbers of a sample, with dropout of its own."""

    def __init__(self, **given: Any) -> None:
        super().__init__()
        self.stem, self.head, self.given = nn.Linear(1, 4), nn.Linear(4, 3), given

    def forward(self, x: Tensor) -> Any:
        h = self.stem(x[:, :, None])
        share = 0.3 if self.training else 0.0
        h = h + F.scaled_dot_product_attention(h, h, h, dropout_p=share, **self.given)
        return self.head(h.mean(1))


class Encoder(nn.Module):
    """Layers of a transformer, as torch has them."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.stem, self.head, self.first = nn.Linear(1, 8), nn.Linear(8, 3), batch_first
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.2, batch_first=batch_first)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Any:
        h = self.stem(x[:, :, None])
        if self.first:
            return self.head(self.body(h).mean(1))
        return self.head(self.body(h.transpose(0, 1)).mean(0))


def twice(h: Tensor, training: bool) -> Tensor:
    """Shares of their own, one of them none, and in place."""
    h = F.dropout(F.dropout(h, 0.2, training), 0.0, training)
    return F.dropout(h + 1, 0.5, training, inplace=True)


def transposed(h: Tensor, training: bool) -> Tensor:
    """torch draws in the order of memory, which is another than that of the dimensions."""
    return F.dropout(h.t().contiguous().t(), 0.3, training)


MODELS: dict[str, Callable[[], Task]] = {
    "module": lambda: vectors(
        lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.4), nn.Linear(8, 3))
    ),
    "twice": lambda: vectors(lambda: Function(twice)),
    "transposed": lambda: vectors(lambda: Function(transposed)),
    "everything": lambda: vectors(lambda: Function(lambda h, on: F.dropout(h, 1.0, on))),
    "inputs": lambda: vectors(lambda: nn.Sequential(nn.Dropout(0.2), nn.Linear(6, 3))),
    "channels": lambda: images(lambda: Images(nn.Dropout2d(0.3))),
    "channels in place": lambda: images(lambda: Images(nn.Dropout2d(0.3, inplace=True))),
    "residual": lambda: images(lambda: Residual(dropout=0.3)),
    "attention": lambda: vectors(Attends),
    "attention to what came before": lambda: vectors(lambda: Attends(is_causal=True)),
    "attention with a scale and a mask": lambda: vectors(
        lambda: Attends(scale=0.7, attn_mask=torch.ones(6, 6).tril(2).bool())
    ),
    "attention with a bias": lambda: vectors(
        lambda: Attends(attn_mask=torch.arange(36.0).view(6, 6) / 20)
    ),
    "encoder": lambda: vectors(lambda: Encoder(True)),
    "encoder, batch second": lambda: vectors(lambda: Encoder(False)),
}


@pytest.mark.parametrize("name", MODELS)
def test_trials_at_different_epochs_drop_what_they_would_drop_alone(name: str) -> None:
    task = MODELS[name]()
    assert why_not_fused(task, "SGD") is None
    runner = EnsembleRunner(task, k=2, optimizer="SGD", optimizer_args={}, seed=0, device=CPU)
    stack = runner._stack
    assert stack.dropout is not None or name == "everything"
    check(task, mixed())
    assert (F._VF, F.scaled_dot_product_attention) == NORMAL


def test_all_trials_take_a_step_together() -> None:
    """One forward pass for all, at however many epochs they stand."""
    task = MODELS["module"]()
    runner = EnsembleRunner(task, k=4, optimizer="SGD", optimizer_args={}, seed=0, device=CPU)
    for key in range(4):
        runner.add(key, Schedule("ConstantLR", 0.05, 9))
        runner.epoch()
    assert len({runner.state(key)["epoch"] for key in range(4)}) == 4
    passes: list[int] = []
    forward = runner._stack.forward  # type: ignore[union-attr]
    runner._stack.forward = lambda p, b, x: (passes.append(len(x)), forward(p, b, x))[1]  # type: ignore[union-attr,func-returns-value]
    runner.epoch()
    training = [n for n in passes if n == 4]
    assert len(training) == task.steps_per_epoch


class AlphaDropout(nn.Module):
    """Draws numbers that only trials of one epoch can share."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.AlphaDropout(0.2))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x))


class InEvaluation(nn.Module):
    """Drops in evaluation mode, too."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        return self.head(F.dropout(self.body(x), 0.2, True))


@pytest.mark.parametrize("model", [AlphaDropout, InEvaluation])
def test_other_random_numbers_are_those_of_trials_of_one_epoch(model: type[nn.Module]) -> None:
    task = vectors(model)
    runner = EnsembleRunner(task, k=2, optimizer="SGD", optimizer_args={}, seed=0, device=CPU)
    stack = runner._stack
    assert stack.random
    assert stack.dropout is None
    assert runner.draws
    if model is AlphaDropout:
        check(task, mixed())


def test_half_precision_drops_the_same() -> None:
    """Other masks move these losses by 0.5 to 4%."""
    task, schedule = MODELS["module"](), Schedule("ConstantLR", 0.05, EPOCHS)
    how: dict[str, Any] = {"optimizer": "SGD", "optimizer_args": {}, "seed": 0, "device": CPU}
    stacked = EnsembleRunner(task, k=2, precision="bf16", **how)
    alone = SingleRunner(task, precision="bf16", **how)
    for key in range(2):  # one is an epoch ahead
        stacked.add(key, schedule)
        stacked.epoch()
    alone.add(0, schedule)
    theirs = [alone.epoch()[0] for _ in range(EPOCHS)]
    for theirs_ahead in theirs[2:]:
        ours = stacked.epoch()[0]
        assert ours.train_loss == pytest.approx(theirs_ahead.train_loss, rel=2e-3)
        assert ours.val_loss == pytest.approx(theirs_ahead.val_loss, rel=2e-3)


def test_torchs_functions_come_back_after_an_error() -> None:
    with pytest.raises(ValueError, match="broken"), orders_seen():
        raise ValueError("broken")
    with pytest.raises(IndexError), StackedDropout({2: []}).drawing((2, 2)):
        F.dropout(torch.ones(2, 2), 0.5)
    assert (F._VF, F.scaled_dot_product_attention) == NORMAL


def test_who_sees_nothing_attends_to_nothing() -> None:
    """There torch's attention gives zeros, a softmax NaN; the first samples see all."""

    class Padded(Attends):
        def forward(self, x: Tensor) -> Any:
            h = self.stem(x[:, :, None])
            seen = (x[:, :1] < 1.0)[:, :, None].expand(-1, 6, 6)
            share = 0.3 if self.training else 0.0
            h = h + F.scaled_dot_product_attention(h, h, h, attn_mask=seen, dropout_p=share)
            return self.head(h.mean(1))

    task = vectors(Padded)
    assert isinstance(task.train, Split)
    order = task.train.x[:, 0].argsort()
    task = replace(task, train=Split(task.train.x[order], task.train.y[order]))
    check(task, mixed())


class Often(nn.Module):
    """Drops once more in a whole batch than in a few samples."""

    def __init__(self) -> None:
        super().__init__()
        self.below, self.above = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        h = F.dropout(self.below(x), 0.2, self.training)
        return self.above(F.dropout(h, 0.3, self.training) if len(h) > 8 else h)


def conv() -> nn.Module:
    parts = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Dropout(0.3), nn.Conv2d(4, 4, 3)
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(16, 3))


@pytest.mark.parametrize(
    "task",
    [vectors(Often), vectors(Often, drop_last=False), images(conv)],
    ids=["more", "smaller last batch", "conv"],
)
def test_trials_drop_what_the_runner_of_one_trial_drops(task: Task) -> None:
    """It may have a model in another memory format, in whose order torch draws."""
    how: dict[str, Any] = {"optimizer": "SGD", "optimizer_args": {}, "seed": 0, "device": CPU}
    histories = fused(task, mixed(), "SGD", {}, 3)
    for key, schedule in mixed().items():
        runner = SingleRunner(task, **how)
        runner.add(0, schedule)
        theirs = [runner.epoch()[0] for _ in range(len(histories[key]))]
        assert_same(histories[key], theirs, 2e-4)
