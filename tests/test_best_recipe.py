"""The end of a search: the finalist beside the best recipe, both at their own rates."""

from __future__ import annotations

import json
import math
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState

import lrsearch
from lrsearch.attributes import CONFIRM_ATTR
from lrsearch.cli import main
from lrsearch.report.robust import Beside, Robust, best_recipe, robust, too_dear
from lrsearch.report.robust_words import robust_line, robust_sentence
from lrsearch.report.tables import load
from lrsearch.storage import Storage, open_storage
from tests.test_confirm import constant, found, search_of
from tests.test_robust import FILE, RUN, TRIED

Run = tuple[str, float, float, int]
"""(arm, its rate, what it came to, seed)."""
RAISED: list[Run] = [
    (f"#{n} x 1.7", 1.7 * lr, loss, seed)
    for seed in (1001, 1002)
    for n, lr, loss in ((0, 0.3, 2.3), (1, 0.1, 0.21), (2, 0.03, 0.3))
]
"""Of three finalists at higher rates: the second does best."""
DIVERGED: Any = {"state": TrialState.PRUNED, "stopped": "diverged"}


@pytest.fixture
def storage(tmp_path: Path, in_tmp: Path) -> Storage:
    return open_storage(f"sqlite:///{tmp_path}/lrsearch.db")


def searched(storage: Storage, *runs: Run) -> optuna.Study:
    """A search of three schedules and two recipes, and runs of its confirmation."""
    made = [found(constant(lr), loss) for lr, loss in ((0.3, 0.2), (0.1, 0.21), (0.03, 0.22))]
    recipes = [
        found(constant(lr), loss, baseline=name)
        for lr, loss, name in ((0.5, 0.4, "high"), (0.05, 0.25, "low"))
    ]
    study = search_of(storage, *made, *recipes)
    ran = [
        replace(
            found(constant(lr), loss if math.isfinite(loss) else 1e3),
            attrs={"arm": arm, "seed": seed},
            **({} if math.isfinite(loss) else DIVERGED),
        )
        for arm, lr, loss, seed in runs
    ]
    again = search_of(storage, *ran, name="digits-confirm")
    again.set_user_attr(CONFIRM_ATTR, {"of": "digits", "arms": [], "seeds": [], "slots": []})
    return study


def both(finalist: float, recipe: float, seed: int = 1001) -> list[Run]:
    return [("#1 x 1", 0.1, finalist, seed), ("low x 1", 0.05, recipe, seed)]


def test_a_run_trains_the_finalist_and_the_best_recipe_at_their_own_rates(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(RUN) == 0
    said = capsys.readouterr()
    result = lrsearch.report("digits")
    again = lrsearch.report("digits-confirm").study
    own = {t.user_attrs["arm"]: t for t in again.trials if t.user_attrs["arm"].endswith(" x 1")}
    assert result.tables.found is not None
    chosen, recipe = result.tables.found.robust, best_recipe(result.tables.table)
    assert chosen is not None
    assert recipe is not None
    finalist = chosen.finalist
    assert own.keys() == {f"#{finalist.number} x 1", f"{recipe.baseline} x 1"}
    assert [t.user_attrs["seed"] for t in own.values()] == [1001, 1001]
    assert not any("test" in key for t in own.values() for key in t.user_attrs)
    means = [
        ((trial.value or 0.0) + (own[f"{key} x 1"].value or 0.0)) / 2
        for trial, key in ((finalist, f"#{finalist.number}"), (recipe, recipe.baseline))
    ]
    beside = chosen.beside
    assert beside is not None
    assert (beside.seeds, beside.recipe) == (2, recipe)
    assert [beside.finalist, beside.loss] == pytest.approx(means)
    assert chosen.trial is (recipe if means[1] < means[0] else finalist)
    numbers = [finalist.number, recipe.number]
    assert yaml.safe_load(FILE.read_text())["robust"]["own_rates"] == {
        "seeds": 2,
        "mean_val_loss": pytest.approx(dict(zip(numbers, means, strict=True))),
    }
    told = f"#{finalist.number} and the baseline {recipe.baseline} at their own rates, on a fr"
    assert told in said.err
    beat = f" {recipe.baseline} over 2 seeds, one of them the search's ("
    assert beat in said.out or "a usual recipe: over 2" in said.out
    assert main([*RUN, "--quiet"]) == 0
    assert len(lrsearch.report("digits-confirm").study.trials) == len(again.trials)


def test_a_recipe_that_is_better_on_a_fresh_seed_is_what_a_run_says_to_train_with(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*RUN, "--quiet"]) == 0
    recipe = best_recipe(lrsearch.report("digits").tables.table)
    assert recipe is not None
    again = lrsearch.report("digits-confirm").study
    (run,) = (t for t in again.trials if t.user_attrs["arm"] == f"{recipe.baseline} x 1")
    with sqlite3.connect("lrsearch.db") as database:
        where = (-0.3, run._trial_id)
        database.execute("UPDATE trial_values SET value = ? WHERE trial_id = ?", where)
    capsys.readouterr()
    assert main([*RUN, "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert f"Train with     {recipe.family}, lr {recipe.lr:.4g}" in shown
    assert f"val loss {recipe.value:.4f}, a usual recipe: over 2 seeds, " in shown
    assert "train lrsearch-results/digits/robust.yaml" in shown
    assert yaml.safe_load(FILE.read_text())["study"]["trial"] == recipe.number
    assert main([*RUN, "--json"]) == 0
    chosen = json.loads(capsys.readouterr().out)["robust"]
    assert chosen["trial"] == recipe.number
    assert chosen["own_rates"]["seeds"] == 2
    result = lrsearch.report("digits")
    assert result.tables.found is not None
    assert result.tables.found.robust is not None
    finalist = result.tables.found.robust.finalist.number
    confirmed = lrsearch.confirm("digits", top=2, seeds=2, quiet=True)
    assert {f"#{finalist}", recipe.baseline} <= {arm.key for arm in confirmed.arms}


def test_it_is_the_answer_everywhere(storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    searched(storage, *RAISED, *both(0.41, 0.25))
    result = lrsearch.report("digits")
    assert result.schedule == result.robust == constant(0.05)
    assert result.best == constant(0.3)
    assert result.tables.found is not None
    chosen = result.tables.found.robust
    assert chosen is not None
    assert chosen.finalist.lr == 0.1
    assert chosen.beside is not None
    assert (chosen.beside.loss, chosen.beside.finalist) == pytest.approx((0.25, 0.31))
    result.write("r.html")
    page = Path("r.html").read_text()
    assert "Learning rate of trial 4, a usual recipe<" in page
    assert "That is the usual recipe, low, with a validation loss of <strong>0.2500" in page
    assert "the baseline <strong>low</strong> came to 0.2500 and that one to 0.3100." in page
    assert "it is the usual recipe low, and the finalist beside it was no better" in page
    assert main(["show", "digits"]) == 0
    why = "a usual recipe, better than the finalist beside it (robust.yaml)"
    assert f"robust  #4 ConstantLR  lr 0.05, val loss 0.2500, {why}" in capsys.readouterr().out
    assert main(["export", "digits"]) == 0
    said = capsys.readouterr()
    assert "lr: 0.05" in said.out
    assert "This is trial 4, also in robust.yaml: it is the usual recipe low" in said.err


def test_both_count_over_all_seeds_that_both_ran_on(storage: Storage) -> None:
    more: list[Run] = [("#1", 0.1, 0.2, 1002), ("low", 0.05, 0.23, 1002), ("low", 0.05, 9, 1003)]
    study = searched(storage, *RAISED, *both(0.41, 0.25), *more)
    chosen = robust(load(study), study)
    assert chosen is not None
    assert chosen.beside is not None
    assert chosen.beside.seeds == 3
    means = [(0.25 + 0.25 + 0.23) / 3, (0.21 + 0.41 + 0.2) / 3]
    assert [chosen.beside.loss, chosen.beside.finalist] == pytest.approx(means)


def test_before_both_have_run_the_finalist_is_the_answer(storage: Storage) -> None:
    study = searched(storage, *RAISED, ("low x 1", 0.05, 0.01, 1001), ("#1 x 1", 0.1, 0.9, 1002))
    chosen = robust(load(study), study)
    assert chosen is not None
    assert chosen.beside is None
    assert chosen.trial.lr == 0.1


def test_where_both_diverged_on_the_fresh_seed_neither_is_said_to_beat_the_other(
    storage: Storage,
) -> None:
    study = searched(storage, *RAISED, *both(math.inf, math.inf))
    chosen = robust(load(study), study)
    assert chosen is not None
    assert chosen.beside is None
    assert chosen.trial.lr == 0.1


def test_a_recipe_that_diverged_on_the_fresh_seed_is_beaten(storage: Storage) -> None:
    study = searched(storage, *RAISED, *both(0.3, math.inf))
    chosen = robust(load(study), study)
    assert chosen is not None
    assert chosen.beside is not None
    assert (chosen.beside.loss, chosen.beside.better) == (math.inf, False)


def test_while_a_confirmation_has_not_decided_the_page_names_the_recipe(
    storage: Storage,
) -> None:
    made = [found(constant(1e-4), 0.2), found(constant(0.1), 0.21, baseline="ConstantLR")]
    search_of(storage, *made)
    lrsearch.confirm("digits", seeds=2, quiet=True)
    result = lrsearch.report("digits")
    assert result.confirmed is not None
    assert not result.confirmed.decision.decided
    assert result.schedule == constant(0.1)
    result.write("r.html")
    page = Path("r.html").read_text()
    assert "Until more seeds decide, train with <strong>ConstantLR</strong> at a peak" in page
    assert "it is a usual recipe, and the finalist was no better in the mean." in page


def test_it_counts_as_two_runs_where_there_is_a_recipe(storage: Storage) -> None:
    study = search_of(storage, *(found(constant(0.1), 0.2) for _ in range(24)))
    table = load(study)
    assert best_recipe(table) is None
    assert [too_dear(table, runs) for runs in (4, 5)] == [False, True]
    recipe = replace(table.trials[0], baseline="ConstantLR")
    table = replace(table, trials=(recipe, *table.trials[1:]))
    assert [too_dear(table, runs) for runs in (2, 3)] == [False, True]


def test_words() -> None:
    recipe = replace(TRIED[5], baseline="StepLR")
    bore, raised = {0: [2.3], 1: [0.14], 2: [0.2]}, "with its rates raised 1.7 times"
    export = "lrsearch export digits"
    better = Robust(TRIED[1], bore, Beside(recipe, 0.17, 0.15, 2))
    assert better.trial is TRIED[1]
    over = "over 2 seeds, one of them the search's"  # where each finalist is lower by choice
    beat = f"beat the baseline StepLR {over}"
    assert robust_line(better, 0) == f"did best of 3 finalists {raised}, and {beat} (robust.yaml)"
    told = f"it {beat}, 0.1500 for 0.1700."
    assert f" And {told} Luck" in robust_sentence(better, TRIED[0], export)
    worse = replace(better, beside=Beside(recipe, 0.17, math.inf, 2))
    assert worse.trial is recipe
    assert robust_line(worse, 0) == (
        f"a usual recipe: {over}, it beat the best of 3 finalists, StepLR, lr 0.5 (robust.yaml)"
    )
    said = robust_sentence(worse, TRIED[0], export)
    assert f"did best {raised}, on one fresh seed. But {over}, at their own rates, " in said
    assert said.endswith(f"divergence. `{export} --trial 1` writes it.")
    alone = Robust(TRIED[0], beside=Beside(recipe, 0.17, 0.15, 2))
    assert not alone.decided
    assert robust_line(alone, 0) == f"it {beat} (robust.yaml)"
    assert robust_sentence(alone, TRIED[0], export) == f"I{told[1:]}"
    lost = Robust(TRIED[0], beside=Beside(recipe, 0.15, 0.17, 2))
    assert lost.decided
    assert robust_line(lost, 0) == (
        f"a usual recipe: {over}, it beat StepLR, lr 0.5 (robust.yaml)"
    )
    assert f"But {over}" in robust_sentence(lost, TRIED[0], export)
