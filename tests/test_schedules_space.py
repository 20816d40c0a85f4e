"""The search space: what it offers, what a user may change, and what Optuna sees of it."""

from __future__ import annotations

import doctest
import importlib
import math
import pickle
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
import torch

from lrsearch.errors import ConfigError, UsageError
from lrsearch.schedules import (
    FAMILIES,
    Arg,
    Choice,
    Family,
    FixedParams,
    RandomParams,
    Range,
    Schedule,
    Space,
    epochs_arg,
    epochs_range,
    register,
    schedules_table,
)
from lrsearch.schedules.ranges import as_number
from lrsearch.schedules.recipes import checked_recipe, make_recipe
from lrsearch.schedules.searches import FINAL_RATIO

TORCH = {
    "ConstantLR", "StepLR", "MultiStepLR", "ExponentialLR", "LinearLR", "PolynomialLR",
    "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "OneCycleLR", "CyclicLR", "LambdaLR",
    "MultiplicativeLR", "ReduceLROnPlateau", "SequentialLR", "ChainedScheduler",
}  # fmt: skip


def test_families_are_the_schedulers_of_torch_and_points() -> None:
    of_torch = set(torch.optim.lr_scheduler.__all__) - {"LRScheduler"}
    assert of_torch == TORCH
    assert set(FAMILIES) == TORCH | {"Points"}
    assert not FAMILIES["Points"].searched
    assert all(family.trap and family.summary for family in FAMILIES.values())


def test_optuna_sees_the_same_distribution_for_a_name_whatever_the_other_values() -> None:
    space = Space(None, 20, (1e-3, 1.0))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen: dict[str, Any] = {}
    for _ in range(400):
        trial = study.ask()
        schedule = space.suggest(trial)
        assert space.suggest(FixedParams(trial.params)) == schedule
        for name, distribution in trial.distributions.items():
            assert seen.setdefault(name, distribution) == distribution
        assert schedule.family == trial.params["scheduler"]
        assert schedule.lr == trial.params["lr"]
        assert ("warmup" in trial.params) == FAMILIES[schedule.family].carries_warmup
        prefixes = {name.partition(".")[0] for name in trial.params if "." in name}
        assert prefixes <= {schedule.family}
    assert seen["lr"] == optuna.distributions.FloatDistribution(1e-3, 1.0, log=True)
    assert seen["warmup"] == optuna.distributions.IntDistribution(0, 2)
    assert set(seen["scheduler"].choices) == TORCH


def test_tpe_with_groups_searches_the_space_and_takes_the_baselines() -> None:
    space = Space(None, 20, (1e-3, 1.0), overrides={"StepLR.gamma": 0.5})
    sampler = optuna.samplers.TPESampler(seed=0, multivariate=True, group=True, n_startup_trials=5)
    study = optuna.create_study(sampler=sampler)
    baselines = space.baselines(0.1)
    for params in baselines.values():
        study.enqueue_trial(params)
    for number in range(40):
        trial = study.ask()
        schedule = space.suggest(trial)
        if number < len(baselines):
            assert trial.params == list(baselines.values())[number]
        study.tell(trial, abs(schedule.lr - 0.1))
    assert study.best_value < 0.05


@pytest.fixture(autouse=True)
def _no_warnings(quiet_optuna: None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        import warnings

        patch.setattr(warnings, "filters", list(warnings.filters))
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        yield


def test_baselines_are_the_usual_recipes_at_the_usual_rate() -> None:
    space = Space(None, 30, (1e-3, 1.0))
    built = {
        name: space.suggest(FixedParams(params)) for name, params in space.baselines(0.1).items()
    }
    assert {name: schedule.lr for name, schedule in built.items()} == dict.fromkeys(built, 0.1)
    assert list(built) == ["ConstantLR", "StepLR", "CosineAnnealingLR", "OneCycleLR"]
    assert built["StepLR"].params == {"step_size": 10, "gamma": 0.1}
    assert built["CosineAnnealingLR"].params == {"T_max": 30, "eta_min": 0.0}
    assert built["OneCycleLR"].params["pct_start"] == 0.3
    assert all(schedule.warmup == 0 for schedule in built.values())


def test_a_recipe_with_nothing_given_is_the_usual_one() -> None:
    space = Space(None, 30, (1e-3, 1.0))
    for name, params in space.baselines(0.1).items():
        recipe, mistakes = checked_recipe(name, None)
        assert mistakes == []
        assert make_recipe(recipe, epochs=30, lr=0.1) == space.suggest(FixedParams(params))


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (
            {"family": "StepLR", "step_size": 0.5, "gamma": 0.1, "warmup": 0.1},
            Schedule("StepLR", 0.1, 20, {"step_size": 9, "gamma": 0.1}, warmup=2),
        ),
        (
            {"family": "MultiStepLR", "lr": "2e-3", "milestones": [0.5, 15], "gamma": 0.3},
            Schedule("MultiStepLR", 2e-3, 20, {"milestones": [10, 15], "gamma": 0.3}),
        ),
        (
            {"family": "MultiStepLR", "milestones": [0.5, 0.51, 0.9], "gamma": 0.3},
            Schedule("MultiStepLR", 0.1, 20, {"milestones": [10, 18], "gamma": 0.3}),
        ),
        (
            {"family": "CosineAnnealingLR", "T_max": 3, "interval": "step"},
            Schedule("CosineAnnealingLR", 0.1, 20, {"T_max": 3}, interval="step"),
        ),
        (
            {"family": "Points", "points": [[0, 0.2], [9, 0.01]]},
            Schedule("Points", 0.2, 20, {"points": [[0, 0.2], [9, 0.01]]}),
        ),
    ],
)
def test_a_recipe_says_epochs_or_shares_of_the_budget(recipe: dict, expected: Schedule) -> None:
    assert make_recipe(recipe, epochs=20, lr=0.1) == expected


def test_a_recipe_that_does_not_fit_the_budget_says_so() -> None:
    recipe = {"family": "CosineAnnealingLR", "warmup": 5}
    with pytest.raises(ConfigError, match="warmup: 5 epochs leave nothing of a budget of 3"):
        make_recipe(recipe, epochs=3, lr=0.1)


def test_baselines_stay_inside_the_ranges_of_the_study() -> None:
    space = Space(["StepLR", "LinearLR"], 30, (1e-3, 0.05), overrides={"StepLR.gamma": (0.3, 0.5)})
    params = space.baselines(0.1)["StepLR"]
    assert set(space.baselines()) == {"StepLR"}
    assert (params["lr"], params["StepLR.gamma"]) == (0.05, 0.3)


def test_budget_too_short_is_left_out_silently_or_refused_by_name() -> None:
    space = Space(None, 2, (1e-3, 1.0))
    assert "SequentialLR" not in space.names
    assert space.left_out["SequentialLR"] == "needs at least 3 epochs, the budget is 2"
    with pytest.raises(ConfigError, match="SequentialLR needs at least 3 epochs, the budget is 2"):
        Space(["SequentialLR"], 2, (1e-3, 1.0))


def test_one_epoch_leaves_what_steps_within_it() -> None:
    assert set(Space(None, 1, (1e-3, 1.0)).names) == {"ConstantLR", "OneCycleLR", "CyclicLR"}
    assert "CosineAnnealingLR" in Space(None, 1, (1e-3, 1.0), "step").names


@pytest.mark.parametrize("family", ["ExponentialLR", "MultiplicativeLR"])
def test_factor_per_epoch_is_searched_through_the_final_ratio(family: str) -> None:
    for epochs in (5, 30, 200):
        dim = next(iter(Space([family], epochs, (1, 1)).dims[family].values()))
        assert isinstance(dim, Range)
        assert dim.log
        assert (dim.low**epochs, dim.high**epochs) == pytest.approx(FINAL_RATIO)


def test_interval_of_the_study_rules_all_families_but_the_plateau() -> None:
    auto, step = Space(None, 20, (1, 1)), Space(None, 20, (1, 1), "step")
    for name in TORCH:
        at = {"scheduler": name}
        auto_interval = suggest(auto, at).interval
        assert auto_interval == ("step" if name in ("OneCycleLR", "CyclicLR") else "epoch")
        assert suggest(step, at).interval == ("epoch" if name == "ReduceLROnPlateau" else "step")


def suggest(space: Space, at: dict[str, Any]) -> Schedule:
    class Held(RandomParams):
        def suggest_categorical(self, name: str, choices: Any) -> Any:
            return at[name] if name in at else super().suggest_categorical(name, choices)

    return space.suggest(Held(0))


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ((0.1, 0.5), "0.1 to 0.5, log"),
        ([0.1, 0.5], "0.1 to 0.5, log"),
        ({"low": 0.1, "high": 0.5}, "0.1 to 0.5, log"),
        ({"low": 0.1, "high": 0.5, "log": False}, "0.1 to 0.5"),
        ({"high": 0.5}, "0.05 to 0.5, log"),
        (0.5, "0.5"),
        ("5e-1", "0.5"),
        ([0.1, 0.2, 0.5], "0.1, 0.2, 0.5"),
        ({"choices": [0.1, 0.5]}, "0.1, 0.5"),
    ],
)
def test_override_replaces_the_range(given: Any, shown: str) -> None:
    space = Space(["StepLR"], 30, (1e-3, 1.0), overrides={"StepLR.gamma": given})
    assert str(space.dims["StepLR"]["StepLR.gamma"]) == shown
    trial = RandomParams(0)
    schedule = space.suggest(trial)
    assert schedule.params["gamma"] == trial.params["StepLR.gamma"]
    assert 0.05 <= schedule.params["gamma"] <= 0.5


def test_override_of_words_and_of_arguments_that_are_not_searched() -> None:
    space = Space(
        ["LambdaLR", "OneCycleLR", "CosineAnnealingLR"],
        30,
        (1e-3, 1.0),
        overrides={
            "LambdaLR.lr_lambda": ["rex", "trapezoid"],
            "LambdaLR.decay": 5,
            "OneCycleLR.anneal_strategy": "linear",
            "CosineAnnealingLR.eta_min_ratio": 0,
            "lr": 0.2,
            "warmup": [1, 2],
        },
    )
    assert space.dims["LambdaLR"]["LambdaLR.lr_lambda"] == Choice(("rex", "trapezoid"))
    for seed in range(30):
        schedule = space.suggest(RandomParams(seed))
        assert schedule.lr == 0.2
        if schedule.family == "OneCycleLR":
            assert schedule.params["anneal_strategy"] == "linear"
        else:
            assert schedule.warmup in (1, 2)
        if schedule.family == "CosineAnnealingLR":
            assert schedule.params["eta_min"] == 0.0
        assert schedule.params.get("decay", 5) == 5


def test_floor_below_its_range_means_zero() -> None:
    params = {
        "scheduler": "CosineAnnealingLR",
        "lr": 0.1,
        "warmup": 0,
        "CosineAnnealingLR.T_max": 9,
    }
    space = Space(["CosineAnnealingLR"], 9, (0.1, 0.1))
    none = space.suggest(FixedParams(params | {"CosineAnnealingLR.eta_min_ratio": 5e-6}))
    some = space.suggest(FixedParams(params | {"CosineAnnealingLR.eta_min_ratio": 0.01}))
    assert (none.params["eta_min"], some.params["eta_min"]) == (0.0, pytest.approx(0.001))
    assert Space(None, 9, (1, 1), overrides={"CosineAnnealingLR.eta_min_ratio": (0, 0.1)})


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        ({"StepLRR.gamma": 0.5}, r"unknown schedule family 'StepLRR' — did you mean StepLR\?"),
        ({"StepLR.gama": 0.5}, r"StepLR.gama: unknown parameter — did you mean gamma\?"),
        ({"CosineAnnealingLR.eta_min": 0}, r"did you mean eta_min_ratio\?"),
        ({"gamma": 0.5}, r"gamma: expected Family.parameter, lr or warmup"),
        ({"StepLR.gamma": (0.9, 0.1)}, r"StepLR.gamma: low 0.9 is above high 0.1"),
        ({"StepLR.gamma": (0, 0.5)}, r"StepLR.gamma: must be above 0 and at most 1, got 0"),
        ({"StepLR.gamma": 1.5}, r"must be above 0 and at most 1, got 1.5"),
        ({"StepLR.gamma": "big"}, r"expected a finite number, got 'big'"),
        ({"StepLR.gamma": []}, r"list of choices is empty"),
        ({"StepLR.gamma": {"min": 1}}, r"expected a number, \[low, high\] or"),
        ({"StepLR.gamma": {"low": 0.1, "hig": 0.5}}, r"expected a number, \[low, high\] or"),
        (
            {"StepLR.gamma": {"high": 0.5, "log": "no"}},
            r"gamma: log must be true or false, got 'no'",
        ),
        ({"StepLR.step_size": {"low": 2, "log": True}}, r"log must be false for whole numbers"),
        ({"StepLR.gamma": None}, r"expected a number, \[low, high\] or"),
        ({"StepLR.step_size": 2.5}, r"StepLR.step_size: whole epochs only, got 2.5"),
        ({"StepLR.step_size": (5, 100)}, r"at least 1 and at most 30 epochs, got 100"),
        ({"CyclicLR.step_size_down": 0}, r"step_size_down: must be at least 0.0001 and .*, got 0"),
        ({"OneCycleLR.max_momentum": (0.9, 1)}, r"max_momentum: .* at most 0.9999, got 1"),
        ({"ReduceLROnPlateau.threshold": 1}, r"threshold: .* at most 0.9999, got 1"),
        ({"LambdaLR.lr_lambda": "rexx"}, r"unknown choice 'rexx' — did you mean rex\?"),
        ({"Points.points": 1}, r"Points is not searched"),
        ({"lr": (0.5, 0.1)}, r"lr: low 0.5 is above high 0.1"),
        ({"lr": (-1, 1)}, r"lr: must be above 0"),
        ({"warmup": 30}, r"warmup: must be at least 0 and at most 29 epochs, got 30"),
    ],
)
def test_impossible_override_is_refused(overrides: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Space(None, 30, (1e-3, 1.0), overrides=overrides)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (1e20, 1e20),
        (2**63 - 1, 2**63 - 1),
        (2**63, None),  # no database takes it
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (" 1e-3 ", 1e-3),  # YAML 1.1 reads it as a word
        ("1_000", None),
        ("nan", None),
        (math.inf, None),
        (np.float64("nan"), None),
        (True, None),
        (np.bool_(True), None),
        (None, None),
    ],
)
def test_what_counts_as_a_number(given: Any, expected: Any) -> None:
    found = as_number(given)
    assert (found, type(found)) == (expected, type(expected))


def test_all_mistakes_in_a_space_are_raised_together() -> None:
    with pytest.raises(ConfigError) as caught:
        Space(["StepLR", "Foo"], 30, (1.0, 0.1), overrides={"StepLR.gamma": 7, "LinearLR.x": 1})
    assert len(caught.value.mistakes) == 4


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (([], 30, (1, 1)), "the list is empty"),
        ((None, 0, (1, 1)), "epochs: must be whole"),
        ((None, 30, (1, 1), "often"), "interval: must be auto, epoch or step"),
        ((None, 30, (0.0, 1.0)), "lr: must be above 0"),
        ((None, 30, (0.1, 1.0), "auto", 3), "warmup: must be true or false, got 3"),
        ((None, 30, (0.1, 0.2, 0.3)), r"lr: needs the lowest and the highest rate, got \(0.1, 0"),
        ((None, 30, "0.1,1"), "lr: expected a finite number, got '0.1,1'"),
        ((["Points"], 30, (1, 1)), "Points has no parameters to search"),
    ],
)
def test_space_with_a_bad_argument_is_refused(arguments: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Space(*arguments)


def test_stored_parameters_that_are_damaged_are_refused() -> None:
    space = Space(["StepLR"], 30, (1e-3, 1.0))
    good = space.baselines()["StepLR"]
    for change, match in (
        ({"scheduler": "Foo"}, "unknown schedule family in this study"),
        ({"lr": "x"}, "'lr' must be a number"),
        ({"StepLR.step_size": 2.5}, "must be whole"),
    ):
        with pytest.raises(UsageError, match=match):
            space.suggest(FixedParams(good | change))
    del good["StepLR.gamma"]
    with pytest.raises(UsageError, match=r"'StepLR.gamma' is missing"):
        space.suggest(FixedParams(good))


def test_space_travels_to_other_processes() -> None:
    space = Space(None, 30, (1e-3, 1.0), overrides={"StepLR.gamma": 0.5})
    again = pickle.loads(pickle.dumps(space))
    assert again == space
    for seed in range(20):
        assert again.suggest(RandomParams(seed)) == space.suggest(RandomParams(seed))


def test_table_names_every_family_with_its_ranges_for_the_budget() -> None:
    rows = {row.family: row for row in schedules_table(30)}
    assert set(rows) == TORCH
    assert rows["StepLR"].parameters == ["step_size 5 to 15 epochs", "gamma 0.05 to 0.8, log"]
    assert rows["StepLR"].warmup == "0 to 3 epochs"
    assert rows["OneCycleLR"].warmup == "none"
    assert rows["OneCycleLR"].interval == "step"
    short = {row.family: row.note for row in schedules_table(2)}
    assert short["ChainedScheduler"] == "needs at least 3 epochs, the budget is 2"
    assert set(short) == TORCH
    assert [row.family for row in schedules_table(30, ["OneCycleLR"])] == ["OneCycleLR"]


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("ConstantLR", ""),
        ("StepLR", "step_size 17 to 50 epochs; gamma 0.05 to 0.8, log"),
        (
            "MultiStepLR",
            "count 1 to 3; first 20 to 95 epochs; gap_2 5 to 40 epochs; gap_3 5 to 40 epochs; "
            "gamma 0.05 to 0.5, log",
        ),
        ("ExponentialLR", "gamma 0.912 to 0.9931 per epoch, log"),
        ("LinearLR", "end_factor 0 to 0.1 of lr"),
        ("PolynomialLR", "power 0.5 to 4, log"),
        (
            "CosineAnnealingLR",
            "T_max 50 to 100 epochs; eta_min_ratio 0 or 1e-05 to 0.1 of lr, log",
        ),
        (
            "CosineAnnealingWarmRestarts",
            "cycles 1 to 4; T_mult 1 to 2; eta_min_ratio 0 or 1e-05 to 0.1 of lr, log",
        ),
        (
            "OneCycleLR",
            "pct_start 0.1 to 0.45; div_factor 5 to 50, log; final_div_factor 100 to 1e+04, log",
        ),
        (
            "CyclicLR",
            "cycles 1 to 4; base_lr_ratio 0.1 to 0.3333 of lr, log; mode triangular, triangular2",
        ),
        (
            "LambdaLR",
            "lr_lambda inverse_sqrt, trapezoid, rex; timescale 1 to 33.33 epochs, log; "
            "decay 10 to 60 epochs",
        ),
        ("MultiplicativeLR", "factor 0.912 to 0.9931 per epoch, log"),
        (
            "ReduceLROnPlateau",
            "factor 0.1 to 0.5, log; patience 3 to 15 epochs; "
            "min_lr_ratio 0 or 1e-05 to 0.01 of lr, log",
        ),
        (
            "SequentialLR",
            "hold 10 to 70 epochs; decay CosineAnnealingLR, LinearLR, ExponentialLR; "
            "end_factor 0.0001 to 0.1 of lr, log",
        ),
        (
            "ChainedScheduler",
            "factor 0.05 to 0.5, log; total_iters 1 to 10 epochs; "
            "gamma 0.912 to 0.9931 per epoch, log",
        ),
    ],
)
def test_what_is_searched_of_each_family_in_a_hundred_epochs(family: str, expected: str) -> None:
    """A study that goes on with other ranges is another study."""
    (row,) = schedules_table(100, [family])
    assert "; ".join(row.parameters) == expected


LIMITED = Arg("epochs", low=1, high=30)


def test_what_a_user_adds_to_cyclic_reaches_the_schedule() -> None:
    more = {
        "CyclicLR.base_momentum": 0.7,
        "CyclicLR.max_momentum": (0.8, 0.95),
        "CyclicLR.step_size_down": 2.0,
        "CyclicLR.cycles": 2,
    }
    space = Space(["CyclicLR"], 20, (1e-3, 1.0), overrides=more)
    params = space.suggest(RandomParams(0)).params
    assert params["base_momentum"] == 0.7
    assert 0.8 <= params["max_momentum"] <= 0.95
    assert (params["step_size_up"], params["step_size_down"]) == (8.0, 2.0)


def test_a_way_down_that_is_longer_than_a_cycle_leaves_a_tenth_for_the_way_up() -> None:
    longer = {"CyclicLR.step_size_down": 30.0, "CyclicLR.cycles": 2}
    space = Space(["CyclicLR"], 20, (1e-3, 1.0), overrides=longer)
    params = space.suggest(RandomParams(0)).params
    assert (params["step_size_up"], params["step_size_down"]) == (1.0, 9.0)


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        ({"name": "a,b"}, "its name must be a Python name"),
        ({"warmup": "none"}, "warmup must be one of before, own, no, got 'none'"),
        ({"interval": "steps"}, "interval must be one of epoch, step, got 'steps'"),
        ({"search": {}}, r"search must be a function, got \{\}"),
        ({"args": {"keep": 3}}, "argument keep must be an Arg, got 3"),
        ({"args": {"keep": Arg("float")}}, "keep: kind must be one of epochs, .* got 'float'"),  # type: ignore[arg-type]
    ],
)
def test_mistakes_in_a_family_of_ones_own_are_told_when_it_is_registered(
    own_family: Family, change: dict[str, Any], mistake: str
) -> None:
    with pytest.raises(UsageError, match=mistake):
        register(replace(own_family, **{"name": "Other", **change}))
    assert "Other" not in FAMILIES


def test_an_argument_called_hold_is_rescaled_as_what_it_is(own_family: Family) -> None:
    args = {"hold": Arg("number", high=1.0)}
    held = register(replace(own_family, name="Held", args=args))
    try:
        assert Schedule(held.name, 0.1, 10, {"hold": 0.3}).rescaled(20).params == {"hold": 0.3}
    finally:
        del FAMILIES["Held"]


@pytest.fixture
def own_family() -> Iterator[Family]:
    def build(optimizer: Any, args: dict[str, Any], job: Any) -> Any:
        return torch.optim.lr_scheduler.StepLR(optimizer, args["period"], args["keep"])

    yield register(
        Family(
            "Stairs",
            "my own",
            {"period": epochs_arg(), "keep": Arg(low=0.1, high=1)},
            search=lambda n: {"period": epochs_range(n, 0.1, 0.5), "keep": Range(0.2, 0.9)},
            build=build,
        )
    )
    del FAMILIES["Stairs"]


def test_registered_family_is_searched_written_and_rescaled_like_the_others(
    own_family: Family,
) -> None:
    space = Space(None, 20, (0.1, 0.1), overrides={"Stairs.keep": 0.5, "warmup": 0})
    assert "Stairs" in space.names
    schedule = suggest(space, {"scheduler": "Stairs"})
    period = schedule.params["period"]
    assert schedule.trace().lr == pytest.approx([0.1 * 0.5 ** (t // period) for t in range(20)])
    assert Schedule.from_dict(schedule.to_dict()) == schedule
    assert schedule.rescaled(40).params["period"] == 2 * period
    short = replace(own_family, name="Short", args={**own_family.args, "period": LIMITED})
    register(short)
    try:
        limited = Schedule("Short", 0.1, 20, schedule.params)
        assert limited.rescaled(1000).params["period"] == 30
        assert limited.rescaled(1).params["period"] == 1
    finally:
        del FAMILIES["Short"]
    with pytest.raises(UsageError, match="is there already"):
        register(own_family)
    with pytest.raises(ConfigError, match=r"Stairs.period: must be at least 1"):
        Schedule("Stairs", 0.1, 9, {"period": 0, "keep": 0.5})


@pytest.mark.parametrize(
    "module",
    ["ranges", "family", "schedule", "searches", "shapes", "space", "curves"],
)
def test_examples_in_the_docstrings_are_true(module: str) -> None:
    name = "lrsearch.report.curves" if "curves" in module else f"lrsearch.schedules.{module}"
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
    assert result.attempted > 0
