"""Schedules against torch itself: its own scheduler, stepped in a training loop, is the oracle."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.optim import lr_scheduler as torch_lr

from lrsearch.errors import UsageError
from lrsearch.schedules import FAMILIES, RandomParams, Schedule, Space
from lrsearch.schedules.build import steps_taken
from lrsearch.schedules.code import python_code
from lrsearch.schedules.trace import LazyTrace

BUDGETS = (1, 2, 3, 5, 8, 20, 30, 90)
SEARCHED = [name for name, family in FAMILIES.items() if family.searched]
TRACED = [name for name in SEARCHED if not FAMILIES[name].needs_metric]
# torch 2.8's own SequentialLR warns at each switch; what lrsearch builds must not
torch_28_warns = pytest.mark.filterwarnings("ignore:The epoch parameter in")
POINTS = Schedule.from_points([(0, 0.02), (3, 0.3), (6.5, 0.3), (8, 0.0)], epochs=8)


def draws(family: str, epochs: int, interval: str, count: int, seed: int = 0) -> list[Schedule]:
    """Random members of a family, and those at the edges of every range; [] if it does not fit."""
    if epochs < FAMILIES[family].shortest("epoch" if interval == "auto" else interval):
        return []
    warmup = (0, max(1, epochs // 3)) if FAMILIES[family].carries_warmup and epochs > 1 else 0
    space = Space([family], epochs, (1e-4, 3.0), interval, overrides={"warmup": warmup})
    rng = np.random.default_rng([seed, epochs])
    members = [space.suggest(RandomParams(rng)) for _ in range(count)]
    return [*members, space.suggest(Edge(0.0)), space.suggest(Edge(1.0))]


class Edge(RandomParams):
    """A trial at one end of every range."""

    def __init__(self, at: float) -> None:
        super().__init__(0)
        self.at = at

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return high if self.at else low

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return high if self.at else low

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return choices[-1] if self.at else choices[0]


def make_optimizer(lr: float, kind: str = "sgd", groups: int = 1) -> torch.optim.Optimizer:
    own = (1.0, 0.1, 0.37)[:groups]
    params = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": lr * r} for r in own]
    if kind == "adam":
        return torch.optim.AdamW(params, lr=lr, betas=(0.9, 0.99))
    return torch.optim.SGD(params, lr=lr, momentum=0.9 if kind == "sgd" else 0.0)


def train(
    schedule: Schedule,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    steps_per_epoch: int,
    start: int = 0,
    end: int | None = None,
) -> list[tuple[float, ...]]:
    """A training loop as people write it; what the optimizer used at each step."""
    used = []
    for epoch in range(start, schedule.epochs if end is None else end):
        for _ in range(steps_per_epoch):
            for group in optimizer.param_groups:
                for param in group["params"]:
                    param.grad = torch.zeros_like(param)
            row = [float(group["lr"]) for group in optimizer.param_groups]
            first = optimizer.param_groups[0]
            row.append(float(first["betas"][0] if "betas" in first else first["momentum"]))
            used.append(tuple(row))
            optimizer.step()
            if schedule.interval == "step":
                scheduler.step()
        if FAMILIES[schedule.family].needs_metric:
            scheduler.step(FAKE_LOSS[epoch % len(FAKE_LOSS)])
        elif schedule.interval == "epoch":
            scheduler.step()
    return used


FAKE_LOSS = [2.0, 1.0, 1.1, 1.2, math.nan, 1.3, 1.25, 0.9, 0.95, 0.96, 0.97, 0.98, 0.99]


def by_hand(schedule: Schedule, optimizer: torch.optim.Optimizer, spe: int) -> Any:
    """The scheduler as one writes it with torch alone; knows nothing of how lrsearch builds it."""
    k = spe if schedule.interval == "step" else 1
    p, lr = schedule.params, schedule.lr
    w, n = schedule.warmup * k, (schedule.epochs - schedule.warmup) * k
    rooted: Callable[[float], float] = lambda gamma: gamma ** (1 / k)  # noqa: E731
    cycle = bool(optimizer.param_groups[0].get("momentum") or "betas" in optimizer.defaults)

    def child() -> Any:
        match schedule.family:
            case "ConstantLR":
                return torch_lr.ConstantLR(optimizer, factor=1.0, total_iters=1)
            case "StepLR":
                return torch_lr.StepLR(optimizer, p["step_size"] * k, p["gamma"])
            case "MultiStepLR":
                return torch_lr.MultiStepLR(
                    optimizer, [m * k for m in p["milestones"]], p["gamma"]
                )
            case "ExponentialLR":
                return torch_lr.ExponentialLR(optimizer, rooted(p["gamma"]))
            case "LinearLR":
                return torch_lr.LinearLR(optimizer, 1.0, p["end_factor"], n)
            case "PolynomialLR":
                return torch_lr.PolynomialLR(optimizer, n, p["power"])
            case "CosineAnnealingLR":
                return torch_lr.CosineAnnealingLR(optimizer, p["T_max"] * k, p["eta_min"])
            case "CosineAnnealingWarmRestarts":
                return torch_lr.CosineAnnealingWarmRestarts(
                    optimizer, p["T_0"] * k, p["T_mult"], p["eta_min"]
                )
            case "OneCycleLR":
                return torch_lr.OneCycleLR(
                    optimizer,
                    lr,
                    total_steps=n,
                    pct_start=p["pct_start"],
                    div_factor=p["div_factor"],
                    final_div_factor=p["final_div_factor"],
                    cycle_momentum=cycle,
                )
            case "CyclicLR":
                return torch_lr.CyclicLR(
                    optimizer,
                    p["base_lr"],
                    lr,
                    step_size_up=p["step_size_up"] * k,
                    mode=p["mode"],
                    cycle_momentum=cycle,
                )
            case "LambdaLR":
                return torch_lr.LambdaLR(optimizer, named(p, k, n))
        raise AssertionError(schedule.family)

    def after_warmup(*legs: Any, at: list[int]) -> Any:
        return torch_lr.SequentialLR(optimizer, [*legs], milestones=at)

    if schedule.family == "ChainedScheduler":
        constant = torch_lr.ConstantLR(optimizer, p["factor"], p["total_iters"] * k)
        exponential = torch_lr.ExponentialLR(optimizer, rooted(p["gamma"]))
        return torch_lr.ChainedScheduler([constant, exponential])
    warmup = torch_lr.LinearLR(optimizer, schedule.warmup_start, 1.0, w) if w else None
    if schedule.family == "MultiplicativeLR":
        factor = rooted(p["factor"])
        times = torch_lr.MultiplicativeLR(optimizer, lambda t: factor if t > w else 1.0)
        return torch_lr.ChainedScheduler([warmup, times]) if warmup else times
    if schedule.family == "SequentialLR":
        hold, left = p["hold"] * k, max(1, n - p["hold"] * k)
        legs = [torch_lr.ConstantLR(optimizer, 1.0, hold)]
        if p["decay"] == "CosineAnnealingLR":
            legs.append(torch_lr.CosineAnnealingLR(optimizer, left, lr * p["end_factor"]))
        elif p["decay"] == "LinearLR":
            legs.append(torch_lr.LinearLR(optimizer, 1.0, p["end_factor"], left))
        else:
            legs.append(torch_lr.ExponentialLR(optimizer, p["end_factor"] ** (1 / left)))
        if warmup:
            return after_warmup(warmup, *legs, at=[w, w + hold])
        return after_warmup(*legs, at=[hold])
    return after_warmup(warmup, child(), at=[w]) if warmup else child()


def named(p: Any, k: int, n: int) -> Callable[[int], float]:
    """The named functions, from their definitions."""
    if p["lr_lambda"] == "inverse_sqrt":
        return lambda t: 1.0 / math.sqrt(1.0 + t / (p["timescale"] * k))
    if p["lr_lambda"] == "trapezoid":
        return lambda t: min(1.0, (n - t) / (p["decay"] * k)) if t < n else 0.0
    return lambda t: (1 - t / n) / (0.5 + 0.5 * (1 - t / n)) if t < n else 0.0


@torch_28_warns
@pytest.mark.parametrize("interval", ["auto", "epoch", "step"])
@pytest.mark.parametrize("family", TRACED)
def test_trace_equals_torch_stepped_in_a_training_loop(family: str, interval: str) -> None:
    seen = 0
    for epochs in BUDGETS:
        spe = 3 if epochs < 30 else 2
        for schedule in draws(family, epochs, interval, count=6 if epochs < 90 else 2):
            for kind in ("sgd", "adam"):
                optimizer = make_optimizer(schedule.lr, kind)
                used = train(schedule, optimizer, by_hand(schedule, optimizer, spe), spe)
                trace = schedule.trace(spe, kind=kind)  # type: ignore[arg-type]
                assert trace.momentum is not None
                assert trace.lr.tolist() == [row[0] for row in used], schedule
                assert trace.momentum.tolist() == [row[1] for row in used], schedule
                assert np.isfinite(trace.lr).all()
                assert (trace.lr >= 0).all()
                seen += 1
    assert seen >= 2 * 2 * 5


@pytest.mark.parametrize("family", SEARCHED)
def test_file_gives_back_the_same_schedule_and_the_same_curve(family: str) -> None:
    for epochs in BUDGETS:
        for schedule in draws(family, epochs, "auto", count=5, seed=1):
            block = schedule.to_dict()
            for copy in (json.loads(json.dumps(block)), yaml.safe_load(yaml.safe_dump(block))):
                again = Schedule.from_dict(copy)
                assert again == schedule
                assert again.to_dict() == block
            if family in TRACED and epochs <= 30:
                optimizer = make_optimizer(0.123)
                used = train(again, optimizer, again.build(optimizer, 2), 2)
                assert schedule.trace(2).lr.tolist() == [row[0] for row in used]


@pytest.mark.parametrize("kind", ["sgd", "adam"])
@pytest.mark.parametrize("interval", ["auto", "step"])
@pytest.mark.parametrize("family", [*SEARCHED, "Points"])
def test_resumed_run_equals_an_undisturbed_one(family: str, interval: str, kind: str) -> None:
    if family == "Points":
        schedules = [POINTS]
    elif FAMILIES[family].needs_metric:
        schedules = draws(family, 8, "auto", count=4)
    else:
        schedules = draws(family, 8, interval, count=4)
    for schedule in schedules:
        optimizer = make_optimizer(0.5, kind, groups=2)
        whole = train(schedule, optimizer, schedule.build(optimizer, 2), 2)
        for cut in (1, 3, schedule.epochs - 1):
            optimizer = make_optimizer(0.5, kind, groups=2)
            scheduler = schedule.build(optimizer, 2)
            first = train(schedule, optimizer, scheduler, 2, end=cut)
            file = io.BytesIO()
            torch.save([optimizer.state_dict(), scheduler.state_dict()], file)
            file.seek(0)
            saved, position = torch.load(file, weights_only=True)
            optimizer = make_optimizer(0.5, kind, groups=2)
            scheduler = schedule.build(optimizer, 2)
            optimizer.load_state_dict(saved)
            scheduler.load_state_dict(position)
            rest = train(schedule, optimizer, scheduler, 2, start=cut)
            assert first + rest == whole, (schedule, cut)


@pytest.mark.parametrize("keep_lr", [False, True])
@pytest.mark.parametrize("family", [*SEARCHED, "Points"])
def test_every_group_follows_the_curve_from_its_own_rate(family: str, keep_lr: bool) -> None:
    schedules = [POINTS] if family == "Points" else draws(family, 20, "auto", count=6, seed=2)
    for schedule in schedules:
        single = make_optimizer(0.7)
        alone = train(schedule, single, schedule.build(single, 2), 2)
        optimizer = make_optimizer(0.02, groups=3)
        used = train(schedule, optimizer, schedule.build(optimizer, 2, keep_lr=keep_lr), 2)
        top = 0.02 if keep_lr else schedule.lr
        for own, (a, b, c, momentum) in zip(alone, used, strict=True):
            assert a / top == pytest.approx(own[0] / schedule.lr, rel=1e-6, abs=1e-12)
            assert b == pytest.approx(0.1 * a, rel=1e-6, abs=1e-12)
            assert c == pytest.approx(0.37 * a, rel=1e-6, abs=1e-12)
            assert momentum == own[1]


def test_groups_of_one_rate_get_the_schedules_rate_and_keep_it_when_asked() -> None:
    schedule = Schedule("CosineAnnealingLR", 0.1, 10, {"eta_min": 0.01})
    optimizer = make_optimizer(0.5)
    scheduler = schedule.build(optimizer)
    assert type(scheduler) is torch_lr.CosineAnnealingLR
    assert optimizer.param_groups[0]["lr"] == 0.1
    kept = make_optimizer(0.5)
    scheduler = schedule.build(kept, keep_lr=True)
    assert kept.param_groups[0]["lr"] == 0.5
    assert scheduler.eta_min == pytest.approx(0.05)


@torch_28_warns
@pytest.mark.parametrize("family", SEARCHED)
def test_exported_python_needs_torch_alone_and_gives_the_same_trace(family: str) -> None:
    for interval in ("auto",) if FAMILIES[family].needs_metric else ("epoch", "step"):
        for schedule in draws(family, 8, interval, count=6, seed=3):
            source = python_code(schedule)
            assert "import lrsearch" not in source
            assert "from lrsearch" not in source
            scope: dict[str, Any] = {"__name__": "exported"}
            exec(compile(source, "exported.py", "exec", dont_inherit=True), scope)
            optimizer = make_optimizer(schedule.lr)
            steps = (2,) if interval == "step" else ()
            used = train(schedule, optimizer, scope["make_scheduler"](optimizer, *steps), 2)
            again = make_optimizer(0.123)
            assert used == train(schedule, again, schedule.build(again, 2), 2), source


def exported(
    schedule: Schedule, optimizer: torch.optim.Optimizer, *steps: int, groups: Any = ()
) -> Any:
    scope: dict[str, Any] = {"__name__": "exported"}
    source = python_code(schedule, groups=groups)
    exec(compile(source, "exported.py", "exec", dont_inherit=True), scope)
    return scope["make_scheduler"](optimizer, *steps)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("SGD", {}),
        ("RMSprop", {}),
        ("Adagrad", {}),
        ("Adam", {"betas": (0.0, 0.9)}),
        ("SGD", {"momentum": 0.5}),
        ("AdamW", {}),
    ],
)
def test_exported_python_moves_momentum_only_where_there_is_one(
    name: str, args: dict[str, Any]
) -> None:
    def momentum(optimizer: torch.optim.Optimizer) -> Any:
        group = optimizer.param_groups[0]
        return group["betas"] if "betas" in group else group.get("momentum")

    cyclic = Schedule("CyclicLR", 0.1, 8, {"base_lr": 0.01, "step_size_up": 2})
    for schedule in (Schedule("OneCycleLR", 0.1, 8), cyclic):
        ours, theirs = (
            getattr(torch.optim, name)([torch.zeros(1, requires_grad=True)], lr=0.1, **args)
            for _ in range(2)
        )
        scheduler, again = schedule.build(ours, 2), exported(schedule, theirs, 2)
        for _ in range(16):
            assert theirs.param_groups[0]["lr"] == ours.param_groups[0]["lr"]
            assert momentum(theirs) == momentum(ours)
            for each in (ours, theirs, scheduler, again):
                each.step()


@pytest.mark.parametrize("steps", [1, 2, 4, 5])
def test_exported_one_cycle_may_rise_in_one_step_of_an_epoch(steps: int) -> None:
    schedule = Schedule("OneCycleLR", 0.1, 5, {"pct_start": 0.05 if steps == 4 else 0.1})
    optimizer = make_optimizer(0.1)
    used = train(schedule, optimizer, exported(schedule, optimizer, steps), steps)
    assert [row[0] for row in used] == pytest.approx(schedule.trace(steps).lr.tolist(), rel=1e-6)


def test_exported_one_cycle_of_two_rates_may_rise_in_one_step() -> None:
    schedule = Schedule("OneCycleLR", 0.1, 5, {"pct_start": 0.2}, interval="epoch")
    groups = [{"lr": 0.1, "parameters": 2}, {"lr": 0.01, "parameters": 2}]
    ours, theirs = make_optimizer(0.1, groups=2), make_optimizer(0.1, groups=2)
    used = train(schedule, theirs, exported(schedule, theirs, groups=groups), 2)
    assert used == train(schedule, ours, schedule.build(ours), 2)


def test_exported_python_of_points_gives_the_same_trace() -> None:
    scope: dict[str, Any] = {"__name__": "exported"}
    exec(compile(python_code(POINTS), "exported.py", "exec", dont_inherit=True), scope)
    optimizer = make_optimizer(POINTS.lr)
    used = train(POINTS, optimizer, scope["make_scheduler"](optimizer), 1)
    assert POINTS.trace().lr.tolist() == [row[0] for row in used]


@pytest.mark.parametrize("family", TRACED)
def test_stepping_per_step_draws_the_same_curve_finer(family: str) -> None:
    for schedule in draws(family, 20, "epoch", count=8, seed=4):
        fine = Schedule.from_dict(schedule.to_dict() | {"interval": "step"})
        coarse_lr, fine_lr = schedule.trace(1).lr, fine.trace(16).lr
        if family == "OneCycleLR":  # torch ends phases one scheduler step early
            assert fine_lr.max() == pytest.approx(schedule.lr, rel=0.02)
        else:
            assert fine_lr[::16] == pytest.approx(coarse_lr, rel=1e-6, abs=1e-9 * schedule.lr)


@pytest.mark.parametrize("epochs", [1, 2, 7, 29, 90, 1000])
@pytest.mark.parametrize("family", SEARCHED)
def test_rescaled_schedule_keeps_its_curve(family: str, epochs: int) -> None:
    for schedule in draws(family, 30, "auto", count=8, seed=5):
        other = schedule.rescaled(epochs)
        assert other.epochs == epochs
        assert other.family == schedule.family
        if family not in TRACED:
            continue
        new = other.trace(2).lr
        assert np.isfinite(new).all()
        assert (new >= 0).all()
        if epochs == 90 and family != "OneCycleLR":  # torch ends its phases one step early
            assert other.trace().lr[::3] == pytest.approx(schedule.trace().lr, rel=1e-6, abs=1e-9)


def test_rescaled_there_and_back_is_the_same_schedule() -> None:
    schedule = Schedule("CosineAnnealingLR", 0.21, 20, {"eta_min": 4e-4}, warmup=1)
    far = schedule.rescaled(100)
    assert (far.warmup, far.params["T_max"]) == (5, 95)
    assert far.rescaled(20) == schedule


@pytest.mark.parametrize(
    ("old", "milestones", "new", "expected"),
    [
        (20, [18, 19], 10, [8, 9]),
        (20, [10, 11], 5, [3, 4]),
        (30, [28], 5, [4]),
        (30, [10, 200], 60, [20]),
        (30, [100], 10, [33]),
        (10, [1_000_000], 20, [1_000_000]),
        (30, [1, 2, 3], 3, [1, 2]),
        (30, [10, 20], 1, [1]),
    ],
)
def test_rescaled_milestones_lose_no_decay(
    old: int, milestones: list[int], new: int, expected: list[int]
) -> None:
    schedule = Schedule("MultiStepLR", 0.1, old, {"milestones": milestones, "gamma": 0.1})
    assert schedule.rescaled(new).params["milestones"] == expected


@pytest.mark.parametrize(
    ("old", "size", "new", "expected"),
    [(30, 10, 10, 4), (30, 10, 31, 11), (30, 10, 100, 34), (20, 6, 5, 1), (30, 10, 60, 20)],
)
def test_a_rescaled_step_size_adds_no_decay(old: int, size: int, new: int, expected: int) -> None:
    schedule = Schedule("StepLR", 0.1, old, {"step_size": size, "gamma": 0.1})
    assert schedule.rescaled(new).params["step_size"] == expected
    if new != 5:  # of five epochs none has three decays
        assert schedule.rescaled(new).trace().lr[-1] == pytest.approx(schedule.trace().lr[-1])


@pytest.mark.parametrize(("epochs", "first"), [(31, 11), (29, 10), (60, 20)])
def test_rescaled_cycles_do_not_begin_once_more_at_the_very_end(epochs: int, first: int) -> None:
    cycles = {"T_0": 10, "T_mult": 2, "eta_min": 0.0}
    other = Schedule("CosineAnnealingWarmRestarts", 0.1, 30, cycles).rescaled(epochs)
    assert other.params["T_0"] == first
    assert other.trace().lr[-1] < 0.01


def test_a_patience_rescaled_is_an_epoch_at_least_unless_it_was_none() -> None:
    for patience, expected in ((3, 1), (0, 0), (12, 2)):
        params = {"factor": 0.5, "patience": patience, "cooldown": 1}
        schedule = Schedule("ReduceLROnPlateau", 0.1, 30, params)
        short = schedule.rescaled(5).params
        assert (short["patience"], short["cooldown"]) == (expected, 1)


def test_a_span_rescaled_beyond_what_is_allowed_is_the_longest() -> None:
    slow = Schedule("LambdaLR", 0.1, 30, {"lr_lambda": "inverse_sqrt", "timescale": 3000})
    assert slow.rescaled(1_000_000).params["timescale"] == 1_000_000


def test_exponential_keeps_its_final_ratio_when_rescaled() -> None:
    schedule = Schedule("ExponentialLR", 0.1, 30, {"gamma": 0.01 ** (1 / 30)})
    assert schedule.rescaled(90).params["gamma"] ** 90 == pytest.approx(0.01)


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_a_trace_that_is_asked_for_in_parts_is_the_same(interval: Any) -> None:
    schedule = Schedule("OneCycleLR", 0.1, 6, warmup=0, interval=interval)
    lazy, whole = LazyTrace(schedule, 4, 0.9, "adam"), schedule.trace(4, kind="adam")
    assert whole.momentum is not None
    for first, last in ((0, 8), (8, 12), (4, 24), (12, 16)):
        lr, momentum = lazy.span(first, last)
        assert lr.tolist() == whole.lr[first:last].tolist()
        assert momentum.tolist() == whole.momentum[first:last].tolist()


def test_plateau_has_no_trace_and_says_so() -> None:
    schedule = Schedule("ReduceLROnPlateau", 0.1, 20, {"factor": 0.5, "patience": 2})
    with pytest.raises(UsageError, match="no trace: its rate depends on the loss"):
        schedule.trace()


def test_plateau_reduces_after_patience_even_on_nan() -> None:
    schedule = Schedule("ReduceLROnPlateau", 0.1, 20, {"factor": 0.5, "patience": 2})
    optimizer = make_optimizer(0.1)
    scheduler: Any = schedule.build(optimizer)
    for loss in (1.0, math.nan, math.nan, math.nan):
        optimizer.step()
        scheduler.step(loss)
    assert optimizer.param_groups[0]["lr"] == 0.05


@pytest.mark.parametrize("family", ["OneCycleLR", "CyclicLR"])
def test_momentum_moves_only_where_the_optimizer_has_one(family: str) -> None:
    params = {"base_lr": 0.01, "step_size_up": 2} if family == "CyclicLR" else {}
    schedule = Schedule(family, 0.1, 8, params)
    cycled = schedule.trace(4).momentum
    assert cycled is not None
    assert cycled.max() - cycled.min() > 0.05
    assert np.ptp(schedule.trace(4, kind="adam").momentum) > 0.05  # type: ignore[arg-type]
    assert schedule.trace(4, momentum=0.0).momentum is None
    assert not np.any(schedule.trace(4, momentum=0, kind="adam").momentum)
    plain = make_optimizer(0.1, "plain")
    train(schedule, plain, schedule.build(plain, 4), 4)
    assert plain.param_groups[0]["momentum"] == 0.0
    adagrad = torch.optim.Adagrad([torch.nn.Parameter(torch.ones(1))], lr=0.5)
    schedule.build(adagrad, 4)  # torch alone raises: Adagrad has no momentum to cycle


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("SGD", {"momentum": 0.9, "nesterov": True}),
        ("Adam", {}),
        ("AdamW", {}),
        ("RMSprop", {}),
        ("Adagrad", {}),
        ("NAdam", {}),
        ("Adadelta", {}),
        ("Adamax", {}),
        ("LBFGS", {}),
        ("Adafactor", {}),
    ],
)
def test_every_family_builds_on_every_optimizer(name: str, args: dict[str, Any]) -> None:
    for family in SEARCHED:
        for schedule in draws(family, 6, "auto", count=1):
            param = torch.nn.Parameter(torch.ones(2, 2))
            optimizer = getattr(torch.optim, name)([param], lr=0.1, **args)
            scheduler = schedule.build(optimizer, 2)
            param.grad = torch.zeros_like(param)
            if name == "LBFGS":
                optimizer.step(lambda: torch.zeros(()))
            else:
                optimizer.step()
            scheduler.step(*([1.0] if FAMILIES[family].needs_metric else []))
            assert math.isfinite(optimizer.param_groups[0]["lr"])


def test_rate_held_in_a_tensor_stays_a_tensor() -> None:
    param = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.Adam([param], lr=torch.tensor(0.5), foreach=False)
    scheduler = Schedule("StepLR", 0.1, 4, {"step_size": 2, "gamma": 0.5}).build(optimizer)
    optimizer.step()
    scheduler.step()
    scheduler.step()
    assert isinstance(optimizer.param_groups[0]["lr"], torch.Tensor)
    assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(0.05)


def test_second_schedule_on_one_optimizer_starts_from_its_own_rate() -> None:
    optimizer = make_optimizer(0.5, groups=2)
    first = Schedule("ExponentialLR", 0.5, 4, {"gamma": 0.1})
    train(first, optimizer, first.build(optimizer), 1)
    Schedule("ConstantLR", 0.2, 4).build(optimizer)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.2, 0.02])


def test_import_loads_neither_torch_nor_optuna() -> None:
    code = "import sys, lrsearch.schedules; print({'torch', 'optuna', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_thousand_epoch_traces_take_about_a_second() -> None:
    import time

    space = Space(TRACED, 30, (1e-3, 1.0), "epoch")
    trial = RandomParams(0)
    schedules = [space.suggest(trial) for _ in range(1000)]
    schedules[0].trace(20)
    start = time.process_time()
    for schedule in schedules:
        schedule.trace(20)
    assert time.process_time() - start < 4.0  # measured 0.5 s; slack for a busy machine


@pytest.mark.parametrize("family", SEARCHED)
def test_the_steps_of_every_familys_scheduler_are_counted(family: str) -> None:
    for schedule in draws(family, 8, "auto", 3):
        optimizer = make_optimizer(0.1)
        scheduler = schedule.build(optimizer, 4)
        assert steps_taken(schedule) == (0, 4 if schedule.interval == "step" else 1)
        train(schedule, optimizer, scheduler, 4, end=2)
        assert steps_taken(schedule) == ((8, 4) if schedule.interval == "step" else (2, 1))
