"""Mistakes in schedules: refused with the rule, the value and the next step."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from lrsearch.errors import ConfigError, UsageError
from lrsearch.schedules import FAMILIES, RandomParams, Schedule, Space
from lrsearch.schedules.args import REQUIRED, Arg
from lrsearch.schedules.ranges import Choice, Range, applies
from lrsearch.schedules.searches import restart_length


def optimizer(lr: float = 0.1) -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=lr, momentum=0.9)


def bad(match: str, family: str, **params: Any) -> tuple[str, dict[str, Any], str]:
    return family, params, match


TRAPS = [
    bad(r"StepLR.step_size: must be at least 1.*got 0", "StepLR", step_size=0, gamma=0.1),
    bad(r"whole epochs, got 2.5; write 2 or 3", "StepLR", step_size=2.5, gamma=0.1),
    bad(r"StepLR.gamma: must be above 0 and at most 1, got 1.5", "StepLR", step_size=2, gamma=1.5),
    bad(r"StepLR.gamma: .*got 0$", "StepLR", step_size=2, gamma=0),
    bad(r"StepLR needs step_size", "StepLR", gamma=0.1),
    bad(r"no parameter 'gama' — did you mean gamma\?", "StepLR", step_size=2, gamma=1, gama=0.1),
    bad(r"expected a finite number, got True", "StepLR", step_size=True, gamma=0.1),
    bad(r"expected a finite number, got nan", "StepLR", step_size=2, gamma=math.nan),
    bad(r"expected a finite number, got inf", "StepLR", step_size=math.inf, gamma=0.5),
    bad(r"expected a finite number", "StepLR", step_size=10**400, gamma=0.5),
    bad(r"9 stands twice and would decay twice", "MultiStepLR", milestones=[9, 9], gamma=0.1),
    bad(r"whole epochs, got 2.5, which never", "MultiStepLR", milestones=[2.5], gamma=0.1),
    bad(r"from 1 to 1,000,000, got 0", "MultiStepLR", milestones=[0, 3], gamma=0.1),
    bad(r"a list of epochs such as \[10, 20\]", "MultiStepLR", milestones=5, gamma=0.1),
    bad(r"a list of epochs", "MultiStepLR", milestones=[], gamma=0.1),
    bad(r"total_iters: must be at least 1", "PolynomialLR", total_iters=0, power=1),
    bad(r"power: must be above 0", "PolynomialLR", power=-1),
    bad(r"eta_min: 0.5 is above lr 0.1", "CosineAnnealingLR", eta_min=0.5),
    bad(r"T_max: must be whole epochs, got 5.5; write 5 or 6", "CosineAnnealingLR", T_max=5.5),
    bad(r"T_max: must be at least 1", "CosineAnnealingLR", T_max=0),
    bad(r"T_0: must be whole epochs, got 2.5", "CosineAnnealingWarmRestarts", T_0=2.5),
    bad(
        r"T_mult: must be a whole number, got 1.5",
        "CosineAnnealingWarmRestarts",
        T_0=2,
        T_mult=1.5,
    ),
    bad(r"T_mult: must be at least 1", "CosineAnnealingWarmRestarts", T_0=2, T_mult=0),
    bad(r"pct_start: must be at least 0 and below 1, got 1", "OneCycleLR", pct_start=1),
    bad(r"total_steps: 5 epochs end before the budget of 20", "OneCycleLR", total_steps=5),
    bad(r"unknown choice 'cosine' — did you mean cos\?", "OneCycleLR", anneal_strategy="cosine"),
    bad(r"base_lr: 0.5 is above lr", "CyclicLR", base_lr=0.5, step_size_up=2),
    bad(r"make 10,000 cycles, and at most 1000", "CyclicLR", base_lr=0.01, step_size_up=1e-3),
    bad(r"step_size_up: must be above 0", "CyclicLR", base_lr=0.01, step_size_up=0),
    bad(r"gamma is only for mode exp_range", "CyclicLR", base_lr=0.01, step_size_up=2, gamma=0.9),
    bad(r"did you mean trapezoid\?", "LambdaLR", lr_lambda="trapez"),
    bad(r"LambdaLR needs timescale", "LambdaLR", lr_lambda="inverse_sqrt"),
    bad(r"decay: 30 epochs are more than the whole", "LambdaLR", lr_lambda="trapezoid", decay=30),
    bad(r"timescale is only for lr_lambda inverse", "LambdaLR", lr_lambda="rex", timescale=3),
    bad(r"factor: must be above 0 and below 1, got 1", "ReduceLROnPlateau", factor=1, patience=2),
    bad(
        r"hold: 20 epochs leave none of 20",
        "SequentialLR",
        hold=20,
        decay="LinearLR",
        end_factor=1,
    ),
    bad(
        r"end_factor: must be above 0", "SequentialLR", hold=2, decay="ExponentialLR", end_factor=0
    ),
    bad(r"unknown choice 'StepLR'", "SequentialLR", hold=2, decay="StepLR", end_factor=0.1),
    bad(
        r"total_iters: must be at least 1",
        "ChainedScheduler",
        factor=0.1,
        total_iters=0,
        gamma=0.9,
    ),
    bad(r"epochs must rise, got 3 after 5", "Points", points=[[5, 0.1], [3, 0.1]]),
    bad(r"lr 0.1 is not the highest of the points; write lr 0.2", "Points", points=[[0, 0.2]]),
    bad(r"every lr is 0", "Points", points=[[0, 0.0], [3, 0]]),
    bad(r"expected \[epoch, lr\] pairs", "Points", points=[[0, 0.1, 2]]),
]


@pytest.mark.parametrize(("family", "params", "match"), TRAPS)
def test_trap_is_refused_with_the_rule_and_the_value(
    family: str, params: dict[str, Any], match: str
) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        Schedule(family, 0.1, 20, params)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"lr": 0}, r"lr: must be a finite number above 0 .*got 0"),
        ({"lr": -1.0}, r"lr: must be a finite number above 0"),
        ({"lr": "fast"}, r"lr: .* got 'fast'"),
        ({"epochs": 0}, r"epochs: must be whole epochs from 1 to 1,000,000, got 0"),
        ({"epochs": 2.5}, r"epochs: .* got 2.5"),
        ({"epochs": 10**12}, r"epochs: must be whole epochs from 1 to 1,000,000"),
        ({"warmup": 20}, r"warmup: 20 epochs leave nothing of a budget of 20"),
        ({"warmup": 1.5}, r"warmup: must be whole epochs"),
        (
            {"warmup": 2, "warmup_start": 0},
            r"start_factor: must be at least 1e-09 .*torch refuses 0",
        ),
        ({"interval": "batch"}, r"interval: must be epoch, step or auto, got 'batch'"),
        ({"family": "OneCycleLR", "warmup": 1}, r"OneCycleLR cannot carry one"),
        ({"family": "CyclicLR", "warmup": 1}, r"CyclicLR cannot carry one"),
        ({"family": "ReduceLROnPlateau", "warmup": 1}, r"ReduceLROnPlateau cannot carry one"),
        ({"family": "ReduceLROnPlateau", "interval": "step"}, r"steps on a loss, once per epoch"),
        ({"params": 3}, r"params: expected names and values, got 3"),
    ],
)
def test_field_out_of_range_is_refused(change: dict[str, Any], match: str) -> None:
    good: dict[str, Any] = {"family": "ConstantLR", "lr": 0.1, "epochs": 20}
    with pytest.raises(ConfigError, match=match):
        Schedule(**(good | change))


def test_unknown_family_names_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"unknown schedule family 'StepLRR' — did you mean StepLR"
    ):
        Schedule("StepLRR", 0.1, 20)


def test_all_mistakes_are_raised_together() -> None:
    with pytest.raises(ConfigError) as caught:
        Schedule("StepLR", 0.1, 20, {"step_size": 0, "gamma": 2, "typo": 1})
    assert len(caught.value.mistakes) == 3
    with pytest.raises(ConfigError) as caught:
        Schedule("StepLR", -0.1, 0, {"step": 3})
    assert [text.partition(",")[0].partition(":")[0] for text in caught.value.mistakes] == [
        "lr",
        "epochs",
        "StepLR has no parameter 'step' — did you mean step_size? (valid",
        "StepLR needs step_size (at least 1 and at most 1e+06)",
        "StepLR needs gamma (above 0 and at most 1)",
    ]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (None, "expected keys and values"),
        ([], "expected keys and values"),
        ({}, "schedule.family: missing"),
        ({"family": "StepLR", "lr": 1, "epochs": 3, "parms": {}}, "did you mean params"),
        ({"family": ["StepLR"], "lr": 1, "epochs": 3}, "unknown schedule family"),
        ({"family": "ConstantLR", "lr": 1, "epochs": 3, "warmup": {"epoch": 1}}, "mean epochs"),
        ({"family": "ConstantLR", "lr": 1, "epochs": 3, "warmup": [1]}, "whole epochs"),
        ({"family": "ConstantLR", "lr": {}, "epochs": 3}, "lr: must be a finite number"),
        ({"family": "ConstantLR", "lr": 1, "epochs": 3, "interval": []}, "interval: must be"),
    ],
)
def test_file_with_a_mistake_is_refused_with_its_name(data: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        Schedule.from_dict(data, source="best.yaml")
    assert str(caught.value).startswith("best.yaml: ")


def test_number_that_yaml_reads_as_text_is_a_number() -> None:
    data = {"family": "ConstantLR", "lr": "1e-3", "epochs": 3, "warmup": 1}
    schedule = Schedule.from_dict(data)
    assert (schedule.lr, schedule.warmup) == (1e-3, 1)


EXAMPLES = 300
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=8,
)
names = sorted({name for family in FAMILIES.values() for name in family.args})
blocks = st.fixed_dictionaries(
    {"family": st.sampled_from([*FAMILIES, "Foo"]), "lr": scalars, "epochs": st.integers(-1, 40)},
    optional={
        "params": trees | st.dictionaries(st.sampled_from(names), trees, max_size=4),
        "warmup": trees | st.fixed_dictionaries({"epochs": scalars}),
        "interval": st.sampled_from(["epoch", "step"]) | scalars,
        "fractions": trees,
    },
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.one_of(trees, blocks))
def test_any_data_is_a_schedule_or_a_usage_error(data: Any) -> None:
    try:
        schedule = Schedule.from_dict(data)
    except UsageError:
        return
    assert Schedule.from_dict(schedule.to_dict()) == schedule
    schedule.rescaled(7)


def values_of(arg: Arg) -> st.SearchStrategy[Any]:
    """Values of an argument that a hand-written file may have; few are refused."""
    match arg.kind:
        case "choice":
            return st.sampled_from(arg.choices)
        case "milestones":
            return st.lists(st.integers(1, 30), unique=True, min_size=1, max_size=4)
        case "epochs" | "count":
            return st.integers(int(arg.low), 12)
        case "span":
            return st.floats(0.01, 30)
    most = 0.5 if arg.kind == "rate" else min(arg.high, 1e4)
    ends = [end for end in (arg.low, 1e-300, 1e-9, most) if arg.low <= end]
    return st.floats(arg.low, most) | st.sampled_from(ends)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "Points"])
@settings(max_examples=EXAMPLES // 10, deadline=None)
@given(data=st.data())
def test_any_accepted_schedule_builds_and_runs_without_error_or_warning(
    name: str, data: st.DataObject
) -> None:
    """Hand-written files, well outside of the search space: whatever is accepted must train."""
    family = FAMILIES[name]
    epochs = data.draw(st.integers(1, 24))
    params: dict[str, Any] = {}
    for key, arg in family.args.items():
        if applies(arg.when, params) and (arg.default is REQUIRED or data.draw(st.booleans())):
            params[key] = data.draw(values_of(arg))
    warmup = data.draw(st.integers(0, epochs - 1)) if family.carries_warmup else 0
    interval: Any = data.draw(st.sampled_from(["auto", "epoch", "step"]))
    try:
        schedule = Schedule(name, 0.5, epochs, params, warmup, interval=interval)
    except UsageError:
        reject()  # where that is most of them, hypothesis fails
    opt = optimizer()
    scheduler = schedule.build(opt, 2)
    for _ in range(schedule.epochs * (2 if schedule.interval == "step" else 1)):
        opt.step()
        # torch adds up the steps of LinearLR: at its end_factor of 0 it may be -5e-19
        assert -1e-15 <= opt.param_groups[0]["lr"] <= 0.5 * (1 + 1e-9)
        scheduler.step(*([1.0] if family.needs_metric else []))


@pytest.mark.parametrize(("epochs", "pct_start"), [(4, 0.25), (10, 0.1), (2, 0.5), (5, 0.2)])
def test_one_cycle_whose_rise_is_one_step_is_nudged(epochs: int, pct_start: float) -> None:
    with pytest.raises(ZeroDivisionError):
        torch.optim.lr_scheduler.OneCycleLR(
            optimizer(), 0.1, total_steps=epochs, pct_start=pct_start
        )
    schedule = Schedule("OneCycleLR", 0.1, epochs, {"pct_start": pct_start}, interval="epoch")
    lr = schedule.trace().lr
    assert lr[0] == pytest.approx(0.1 / 25)
    down = np.arange(1, epochs) / (epochs - 1)  # from the peak, reached right after step 0
    low = 0.1 / 25 / 1e4
    assert lr[1:] == pytest.approx(low + (0.1 - low) * (1 + np.cos(np.pi * down)) / 2, rel=1e-6)


def test_constant_family_is_no_schedule_at_all() -> None:
    assert set(Schedule("ConstantLR", 0.3, 12).trace(2).lr) == {0.3}


def test_whole_budget_durations_follow_budget_and_warmup() -> None:
    assert Schedule("CosineAnnealingLR", 0.1, 20, warmup=3).params["T_max"] == 17
    assert Schedule("PolynomialLR", 0.1, 20, {"power": 1}, 2).params["total_iters"] == 18
    assert Schedule("PolynomialLR", 0.1, 20, {"power": 1}).trace().lr[-1] > 0


def test_warmup_ends_exactly_on_the_peak_for_every_family() -> None:
    for name, family in FAMILIES.items():
        if not family.carries_warmup:
            continue
        space = Space([name], 20, (0.1, 0.1), overrides={"warmup": 4})
        for seed in range(5):
            lr = space.suggest(RandomParams(seed)).trace().lr
            assert lr[:5] == pytest.approx(0.1 * (0.1 + 0.9 * np.arange(5) / 4)), name


def test_cyclic_ends_in_a_trough_in_the_search_space() -> None:
    space = Space(["CyclicLR"], 20, (1.0, 1.0))
    for seed in range(20):
        trial = RandomParams(seed)
        lr = space.suggest(trial).trace(50).lr
        assert lr[-1] < trial.params["CyclicLR.base_lr_ratio"] + 0.02


def test_warm_restarts_never_restart_near_the_end() -> None:
    for epochs in range(4, 200):
        for cycles in (1, 2, 3, 4):
            for growth in (1, 2):
                length, done = restart_length(epochs, cycles, growth), 0
                while done + length < epochs:
                    done += length
                    length *= growth
                assert 3 * (epochs - done) >= 2 * length, (epochs, cycles, growth)
    assert restart_length(30, 2, 2) == 10
    assert restart_length(70, 3, 2) == 10


@pytest.mark.parametrize("family", ["LambdaLR", "MultiplicativeLR", "Points"])
def test_functions_are_kept_in_the_state(family: str) -> None:
    schedule = {
        "LambdaLR": lambda: Schedule("LambdaLR", 0.1, 9, {"lr_lambda": "trapezoid", "decay": 3}),
        "MultiplicativeLR": lambda: Schedule("MultiplicativeLR", 0.1, 9, {"factor": 0.5}),
        "Points": lambda: Schedule.from_points([(0, 0.1), (9, 0.0)], 9),
    }[family]()
    state = schedule.build(optimizer()).state_dict()
    assert state["lr_lambdas"][0]
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    assert torch.load(file, weights_only=True) == state


@pytest.mark.parametrize("steps", [0, -1, 2.5, "3"])
def test_steps_per_epoch_must_be_a_whole_number(steps: Any) -> None:
    with pytest.raises(UsageError, match="steps_per_epoch must be a whole number"):
        Schedule("ConstantLR", 0.1, 3).build(optimizer(), steps)


@pytest.mark.parametrize("steps", [np.int64(4), np.ceil(3.5), 4.0])
def test_steps_per_epoch_may_be_a_number_of_numpy(steps: Any) -> None:
    schedule = Schedule("ExponentialLR", 0.1, 3, {"gamma": 0.5}, interval="step")
    found, want = schedule.trace(steps), schedule.trace(4)
    assert found.lr.tolist() == want.lr.tolist()


def test_building_on_something_else_than_an_optimizer_says_so() -> None:
    with pytest.raises(UsageError, match="expected a torch optimizer, got Linear"):
        Schedule("ConstantLR", 0.1, 3).build(torch.nn.Linear(1, 1))  # type: ignore[arg-type]


def test_optimizer_with_all_rates_zero_is_refused() -> None:
    with pytest.raises(UsageError, match="not all 0"):
        Schedule("ConstantLR", 0.1, 3).build(optimizer(0.0))


def test_rescaling_to_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="epochs must be whole, from 1"):
        Schedule("ConstantLR", 0.1, 3).rescaled(0)


def test_points_are_joined_by_straight_lines_and_level_outside() -> None:
    schedule = Schedule.from_points([(2, 0.1), (4, 0.3), (6, 0.0)], epochs=8)
    want = [0.1, 0.1, 0.1, 0.2, 0.3, 0.15, 0.0, 0.0]
    assert schedule.trace().lr == pytest.approx(want)
    assert schedule.rescaled(16).trace().lr[::2] == pytest.approx(want)


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (Schedule("ConstantLR", 0.1, 9), "ConstantLR"),
        (Schedule("ConstantLR", 0.1, 9, warmup=1), "ConstantLR  warmup 1"),
        (
            Schedule("LambdaLR", 0.1, 20, {"lr_lambda": "trapezoid", "decay": 6}),
            "LambdaLR  trapezoid decay 6",
        ),
        (
            Schedule("MultiStepLR", 0.1, 20, {"milestones": [16, 9], "gamma": 0.14}, 1),
            "MultiStepLR  [9, 16] gamma 0.14  warmup 1",
        ),
        (
            Schedule("CosineAnnealingLR", 0.1, 20, {"eta_min": 4e-4}),
            "CosineAnnealingLR  T_max 20 eta_min 0.0004",
        ),
        (Schedule.from_points([(0, 1.0), (9, 0.1)], 9), "Points"),
        (Schedule("ExponentialLR", 0.1, 9, {"gamma": 0.99995}), "ExponentialLR  gamma 0.99995"),
        (Schedule("ExponentialLR", 0.1, 9, {"gamma": 1.0}), "ExponentialLR  gamma 1"),
    ],
)
def test_description_is_one_short_line(schedule: Schedule, text: str) -> None:
    assert schedule.describe() == text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Range(2, 1), "low at most high, got low 2, high 1"),
        (lambda: Range(math.nan, 1), "low at most high, got low nan, high 1"),
        (lambda: Range(0, 1, log=True), "log scale needs low above 0, got 0"),
        (lambda: Choice(()), r"at least one option, got \(\)"),
    ],
)
def test_ranges_and_choices_that_hold_nothing_are_refused(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        make()
