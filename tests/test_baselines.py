"""The usual recipes run first, whatever is searched, and disturb nothing that reads the trials."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest

from lrsearch.config import make
from lrsearch.errors import ConfigError
from lrsearch.report.finalists import choose_arms
from lrsearch.report.importance import importance
from lrsearch.report.page import page
from lrsearch.report.report import make_report
from lrsearch.report.tables import families_table, load
from lrsearch.schedules.recipes import checked_recipe, make_recipe
from lrsearch.search import plan as plans
from lrsearch.search.ask import Draft, Searched
from lrsearch.search.methods import SAMPLERS, make_sampler
from lrsearch.search.outcome import Outcome
from lrsearch.search.run import run

RECIPES = ["ConstantLR", "StepLR", "CosineAnnealingLR", "OneCycleLR"]


def searched(trials: int, **more: Any) -> Outcome:
    small = {"epochs": 4, "train_samples": 100, "device": "cpu", "name": "s"}
    return run(make({**small, "trials": trials, **more}), quiet=True)


def names(outcome: Outcome) -> list[str | None]:
    return [t.user_attrs.get("baseline") for t in outcome.study.get_trials(deepcopy=False)]


def test_recipes_of_families_that_are_not_searched_run_first_too(in_tmp: Path) -> None:
    outcome = searched(8, schedules="CosineAnnealingLR,ExponentialLR")
    assert names(outcome) == [
        "CosineAnnealingLR", "ConstantLR", "StepLR", "OneCycleLR", *[None] * 4
    ]  # fmt: skip
    whole = searched(4, name="whole")
    schedules = {t.user_attrs["baseline"]: t.user_attrs["schedule"] for t in whole.study.trials}
    for trial in outcome.study.trials[:4]:
        assert trial.state == optuna.trial.TrialState.COMPLETE
        assert trial.user_attrs["schedule"] == schedules[trial.user_attrs["baseline"]]
    for trial in outcome.study.trials[4:]:
        assert trial.params["scheduler"] in ("CosineAnnealingLR", "ExponentialLR")
    assert set(outcome.progress.baselines) == set(RECIPES)


def test_none_run_where_they_are_switched_off(in_tmp: Path) -> None:
    assert names(searched(3, schedules="StepLR", baselines=False)) == [None] * 3


@pytest.mark.parametrize("name", ["StepLR", "OneCycleLR", "CosineAnnealingLR"])
def test_a_recipe_that_states_no_argument_of_its_family_is_the_usual_one(name: str) -> None:
    usual, _ = checked_recipe(name, None)
    found, mistakes = checked_recipe("mine", {"family": name, "lr": 0.4})
    assert not mistakes
    assert found == usual | {"lr": 0.4}
    made = make_recipe(found, epochs=30, lr=0.1)
    assert made.lr == 0.4
    assert made.params == make_recipe(usual, epochs=30, lr=0.4).params


def test_recipes_that_only_some_budgets_allow_can_be_stated() -> None:
    given = {
        "waves": {"family": "CyclicLR", "lr": 0.1, "base_lr": 0.01, "step_size_up": 2.5},
        "peak": {"family": "OneCycleLR", "total_steps": 10},
    }
    for name, recipe in given.items():
        found, mistakes = checked_recipe(name, recipe)
        assert mistakes == []
        assert make_recipe(found, epochs=10, lr=0.1).epochs == 10
    with pytest.raises(ConfigError, match="10 epochs end before the budget of 30"):
        make_recipe(given["peak"], epochs=30, lr=0.1)
    _, mistakes = checked_recipe("waves", given["waves"] | {"step_size_up": -1})
    assert mistakes == [("step_size_up", "must be above 0 and at most 1e+06, got -1")]


def test_a_recipe_that_does_not_fit_the_budget_is_left_out(in_tmp: Path) -> None:
    found = names(searched(4, schedules="ConstantLR", epochs=1))
    assert found == ["ConstantLR", "OneCycleLR", None, None]


@pytest.mark.parametrize("begun", [1, 3])
def test_a_study_begun_without_them_repeats_none_and_searches_on(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, begun: int
) -> None:
    """Recipes take slots: those that are left when it goes on."""
    with monkeypatch.context() as patch:
        patch.setattr(plans, "_usual", lambda plan: dict(plan.space.baselines(plan.task.lr)))
        searched(begun, schedules="StepLR")
    found = names(searched(6, schedules="StepLR"))
    assert found[:begun] == ["StepLR", None, None][:begun]
    assert found[begun:4] == ["StepLR", "ConstantLR", "CosineAnnealingLR", "OneCycleLR"][begun:]
    assert found[4:] == [None, None]


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_goes_on_as_if_they_were_not_there(in_tmp: Path, sampler: str) -> None:
    outcome = searched(
        16, schedules="StepLR", sampler=sampler, pruner="none", warmup=False, lr="0.01,0.2"
    )
    own = [t for t in outcome.study.trials if "baseline" not in t.user_attrs]
    assert len(own) == 12
    assert all(
        set(t.params) == {"scheduler", "lr", "StepLR.step_size", "StepLR.gamma"} for t in own
    )
    if sampler not in ("gp", "cmaes", "tpe"):
        return
    study, trial = outcome.study, own[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        made = make_sampler(sampler, 0, 16)
        assert set(made.infer_relative_search_space(Searched(study), trial)) >= {
            "lr", "StepLR.step_size", "StepLR.gamma"
        }  # fmt: skip
    assert len(study.trials) == 16


def test_only_samplers_that_see_curves_are_shown_them(in_tmp: Path) -> None:
    seen: list[int] = []

    class Noting(optuna.samplers.RandomSampler):
        def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            seen.append(len(study.get_trials(deepcopy=False)))

    study = searched(5, schedules="StepLR").study
    study.sampler = Noting()
    Draft(study, study.trials[-1])
    assert seen == [2]


def test_report_importance_and_confirm_cope_with_them(in_tmp: Path) -> None:
    outcome = searched(18, schedules="StepLR,ExponentialLR", pruner="none")
    table = load(outcome.study)
    assert {row.family for row in families_table(table)} == {*RECIPES, "ExponentialLR"}
    found = importance(table)
    assert found.trials == 15  # the three say nothing of what was searched
    assert found.overall is not None
    assert "ConstantLR" not in found.too_few
    arms = [arm["baseline"] for arm in choose_arms(table, top=1)]
    assert set(RECIPES) <= set(arms)
    html = page(make_report(outcome.study))
    assert "OneCycleLR" in html.partition('id="sure"')[2]
