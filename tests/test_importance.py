"""Importance on planted problems: the truth is known, ours finds it, Optuna's default does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from lrsearch.prediction.beliefs import foretold
from lrsearch.report.fanova import Fanova, encode
from lrsearch.report.importance import importance, shares, worth
from lrsearch.report.importance_shown import importance_sentences
from lrsearch.report.light_study import frozen, study_of
from lrsearch.report.tables import load
from tests.synthetic import Fake, make_study

SEEDS = (0, 1)
EPOCHS = 10
Loss = Callable[[str, float, int], float]


def planted(
    final: Loss,
    families: tuple[str, ...],
    *,
    trials: int = 160,
    seed: int = 0,
    hopeless: Callable[[str, float, int], bool] = lambda family, lr, warmup: False,
    diverges: Callable[[str, float, int], bool] = lambda family, lr, warmup: False,
) -> optuna.Study:
    """A study whose final losses follow a known formula; the hopeless are pruned at epoch 2."""
    rng = np.random.default_rng(seed)
    distributions: dict[str, BaseDistribution] = {
        "scheduler": CategoricalDistribution(families),
        "lr": FloatDistribution(1e-3, 1.0, log=True),
        "warmup": IntDistribution(0, 3),
    }
    made = []
    for _ in range(trials):
        family = families[int(rng.integers(len(families)))]
        lr, warmup = float(10 ** rng.uniform(-3, 0)), int(rng.integers(4))
        value = final(family, lr, warmup) + rng.normal(0, 0.01)
        losses = value + np.linspace(1, 0, EPOCHS)
        fake = Fake(
            {"scheduler": family, "lr": lr, "warmup": warmup},
            dict(distributions),
            {"family": family, "lr": lr, "warmup": {"epochs": warmup}, "epochs": EPOCHS},
            np.full(EPOCHS, lr),
            losses,
        )
        if diverges(family, lr, warmup):
            fake.losses = np.array([losses[0], np.inf])
            fake.state, fake.stopped = TrialState.PRUNED, "diverged"
        elif hopeless(family, lr, warmup):
            fake.losses = losses[:2]
            fake.state, fake.stopped = TrialState.PRUNED, "pruned"
        made.append(fake)
    return make_study(seed=seed, epochs=EPOCHS, made=made)


def ours(study: optuna.Study) -> list[str]:
    found = importance(load(study)).overall
    assert found is not None
    return list(found.share)


def optunas(study: optuna.Study) -> list[str]:
    return list(optuna.importance.get_param_importances(study))


@pytest.mark.parametrize("seed", SEEDS)
def test_schedulers_whose_trials_are_all_pruned_matter_to_us_and_not_to_optuna(seed: int) -> None:
    """Truth: two of four families are useless; among the others lr matters a little."""
    bad = ("ExponentialLR", "ConstantLR")

    def final(family: str, lr: float, warmup: int) -> float:
        return 0.4 + 1.0 * (family in bad) + 0.05 * abs(math.log10(lr) + 1.5)

    study = planted(
        final,
        ("StepLR", "CosineAnnealingLR", *bad),
        seed=seed,
        hopeless=lambda family, lr, warmup: family in bad,
    )
    assert ours(study)[0] == "scheduler"
    assert optunas(study)[0] == "lr"
    theirs = optuna.importance.get_param_importances(study)
    assert theirs["scheduler"] < 0.2
    found = importance(load(study)).overall
    assert found is not None
    assert found.share["scheduler"] > 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_rates_that_diverge_matter_to_us_and_not_to_optuna(seed: int) -> None:
    """Truth: any rate above 0.03 diverges, below it none matters; warmup matters a little."""

    def final(family: str, lr: float, warmup: int) -> float:
        return 0.4 - 0.03 * warmup

    study = planted(
        final,
        ("StepLR", "CosineAnnealingLR"),
        seed=seed,
        diverges=lambda family, lr, warmup: lr > 0.03,
    )
    assert ours(study)[0] == "lr"
    assert optunas(study)[0] == "warmup"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_categorical_of_two_values_is_not_understated(seed: int) -> None:
    """Truth: the family explains 80% of the variance, lr 20%; all trials are complete."""

    def final(family: str, lr: float, warmup: int) -> float:
        u = (math.log10(lr) + 1.5) / 0.866  # variance 1
        return 2.0 + 0.8**0.5 * (1 if family == "StepLR" else -1) + 0.2**0.5 * u

    study = planted(final, ("StepLR", "CosineAnnealingLR"), seed=seed)
    assert ours(study)[0] == "scheduler"
    assert optunas(study)[0] == "lr"


@pytest.mark.parametrize(
    ("family_part", "lr_part", "warmup_part"), [(0.6, 0.3, 0.1), (0.1, 0.8, 0.1), (0.0, 0.9, 0.1)]
)
def test_known_shares_are_found_within_seven_points(
    family_part: float, lr_part: float, warmup_part: float
) -> None:
    families = ("StepLR", "CosineAnnealingLR", "LinearLR", "ExponentialLR", "ConstantLR")

    def final(family: Any, log_lr: Any, warmup: Any) -> Any:
        u = ((log_lr + 1) ** 2 - 1.0) / 1.183
        parts = (family_part, (family - 2) / 2**0.5), (warmup_part, (warmup - 1.5) / 1.118)
        return 5 + lr_part**0.5 * u + sum(part**0.5 * each for part, each in parts)

    def of_study(family: str, lr: float, warmup: int) -> float:
        return float(final(families.index(family), math.log10(lr), warmup))

    found = importance(load(planted(of_study, families, trials=300, seed=4))).overall
    assert found is not None
    log_lr = np.linspace(-3, 0, 500)
    losses = final(*np.meshgrid(np.arange(5), log_lr, np.arange(4), indexing="ij"))
    places = losses.ravel().argsort().argsort().reshape(losses.shape)
    for axis, name in enumerate(("scheduler", "lr", "warmup")):
        others = tuple({0, 1, 2} - {axis})
        true = places.mean(axis=others).var() / places.var()
        assert found.share[name] == pytest.approx(true, abs=0.07)


def test_where_nothing_matters_nothing_is_said_to() -> None:
    rng = np.random.default_rng(0)
    columns = {
        "scheduler": [str(v) for v in rng.integers(0, 10, 200)],
        "lr": list(10 ** rng.uniform(-3, 0, 200)),
    }
    spaces: dict[str, BaseDistribution] = {
        "scheduler": CategoricalDistribution(tuple(map(str, range(10)))),
        "lr": FloatDistribution(1e-3, 1, log=True),
    }
    found = shares(columns, spaces, rng.random(200))
    assert max(found.share.values()) < 0.15  # a plain forest gives lr 0.3 to 0.5 here


def test_within_a_family_its_own_parameter_is_found() -> None:
    rng = np.random.default_rng(5)
    made = []
    for _ in range(120):
        lr, gamma = float(10 ** rng.uniform(-3, 0)), float(10 ** rng.uniform(-1.3, -0.1))
        step = int(rng.integers(1, 6))
        value = 1 + 0.2 * abs(math.log10(lr) + 1) + 0.9 * abs(math.log10(gamma) + 0.7)
        params = {"scheduler": "StepLR", "lr": lr, "StepLR.gamma": gamma, "StepLR.step_size": step}
        spaces: dict[str, BaseDistribution] = {
            "scheduler": CategoricalDistribution(("StepLR", "ConstantLR")),
            "lr": FloatDistribution(1e-3, 1, log=True),
            "StepLR.gamma": FloatDistribution(0.05, 0.8, log=True),
            "StepLR.step_size": IntDistribution(1, 5),
        }
        made.append(
            Fake(
                params,
                spaces,
                {"family": "StepLR", "lr": lr, "epochs": EPOCHS},
                np.full(EPOCHS, lr),
                np.linspace(value + 1, value, EPOCHS),
            )
        )
    found = importance(load(make_study(made=made, epochs=EPOCHS)))
    share = found.within["StepLR"].share
    assert share["step_size"] < 0.1 * share["gamma"]
    assert next(iter(share)) == "gamma"
    assert (
        "combinations of them, in the families' own parameters and in"
        in importance_sentences(found)[0]
    )


def _table(courses: dict[str, list[float]]) -> dict[str, float]:
    """Worth by name for hand-written loss courses; "inf" ends a diverged one."""
    full = max(map(len, courses.values()))
    made = []
    for losses in courses.values():
        values = np.array(losses, dtype=float)
        fake = Fake(
            {"scheduler": "StepLR", "lr": 0.1},
            {
                "scheduler": CategoricalDistribution(("StepLR",)),
                "lr": FloatDistribution(0.01, 1.0),
            },
            {"family": "StepLR", "lr": 0.1, "epochs": full},
            np.full(full, 0.1),
            values,
        )
        if not np.isfinite(values[-1]):
            fake.state, fake.stopped = TrialState.PRUNED, "diverged"
        elif len(values) < full:
            fake.state, fake.stopped = TrialState.PRUNED, "pruned"
        made.append(fake)
    places = worth(load(make_study(made=made, epochs=full)))
    return {name: places[i] for i, name in enumerate(courses)}


def test_a_pruned_trial_keeps_its_place_among_those_that_went_on() -> None:
    inf = float("inf")
    place = _table(
        {
            "winner": [9, 8, 1.0],
            "second": [5, 4, 2.0],
            "third": [6, 5, 3.0],
            "stopped third": [5.5],  # two were better at epoch 1: "second", "stopped later"
            "stopped last": [9.5],
            "stopped later": [1.0, 6.0],  # two were better at epoch 2: "second", "third"
            "diverged": [2.0, inf],
            "diverged too": [inf],
        }
    )
    assert sorted(place, key=lambda name: place[name])[:6] == [
        "winner",
        "second",
        "stopped third",
        "stopped later",
        "third",
        "stopped last",
    ]
    assert place["diverged"] == place["diverged too"] > place["stopped last"]


def test_a_pruned_trial_has_the_place_of_its_predicted_loss_where_there_is_one() -> None:
    study = optuna.create_study()
    for losses in ([3, 1.0], [3, 2.0], [9], [2], [2.5]):
        ended = TrialState.COMPLETE if len(losses) == 2 else TrialState.PRUNED
        steps = dict(enumerate(map(float, losses), 1))
        study.add_trial(
            optuna.create_trial(state=ended, value=losses[-1], intermediate_values=steps)
        )
    table = load(study)
    places = worth(table, {2: 1.5, 3: 1.2})
    assert sorted(places, key=lambda n: places[n]) == [0, 4, 3, 2, 1]  # 4: one was better
    assert worth(table, {}) == worth(table)


def test_pruned_trials_with_a_schedule_are_foretold() -> None:
    study = make_study(60)
    table = load(study)
    losses = foretold(study)
    assert losses
    assert losses.keys() < {t.number for t in table.having("pruned")}  # some have no torch form
    assert table.best is not None
    assert table.best.value is not None
    assert min(losses.values()) >= table.best.value
    assert worth(table, losses) != worth(table)


def test_nothing_is_foretold_while_few_are_complete_or_without_schedules() -> None:
    few = make_study(60)
    kept = [t for t in few.trials if t.state.name == "COMPLETE"][:3]
    pruned = [t for t in few.trials if t.state.name == "PRUNED"]
    for trials in ([], kept + pruned):
        study = optuna.create_study()
        study.add_trials(trials)
        assert foretold(study) == {}
    without = optuna.create_study()
    for trial in few.trials:
        trial.user_attrs.pop("schedule", None)
        without.add_trial(trial)
    assert foretold(without) == {}


def test_all_differences_are_those_over_the_ranges_not_those_between_the_trials() -> None:
    """Truth: 0.83 is the rate's, over its range; nine of ten trials are in a tenth of it."""
    told = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        rate = np.where(rng.random(300) < 0.9, rng.uniform(0.45, 0.55, 300), rng.random(300))
        far = np.abs(rate - 0.5) > 0.05
        values = np.where(far, 0.9 + 0.2 * np.abs(rate - 0.5), 0.0) + np.where(far, 0.02, 0.4) * (
            rng.normal(size=300)
        )
        columns = {"lr": rate.tolist(), "warmup": rng.integers(0, 4, 300).tolist()}
        spaces: dict[str, BaseDistribution] = {
            "lr": FloatDistribution(0, 1),
            "warmup": IntDistribution(0, 3),
        }
        told.append(shares(columns, spaces, values, seed).share["lr"])
    assert np.mean(told) == pytest.approx(0.83, abs=0.07)


def test_a_loss_that_is_missing_on_the_way_puts_no_other_trial_elsewhere() -> None:
    """Sorted among the others it hid which of them were better."""
    study = optuna.create_study()
    for losses in ([9, math.nan, 1.0], [9, 2.0, 2.0], [9, 1.5, 3.0], [9, 1.7]):
        ended = TrialState.COMPLETE if len(losses) == 3 else TrialState.PRUNED
        steps = dict(enumerate(losses, 1))
        study.add_trial(
            optuna.create_trial(state=ended, value=losses[-1], intermediate_values=steps)
        )
    places = worth(load(study))
    assert sorted(places, key=lambda number: places[number]) == [0, 3, 1, 2]  # one was better


def test_a_log_parameter_enters_as_its_logarithm_and_a_category_by_its_mean() -> None:
    cells, spaces = encode(
        {"lr": [0.01, 1.0], "scheduler": ["b", "a"]},
        {
            "lr": FloatDistribution(0.01, 1.0, log=True),
            "scheduler": CategoricalDistribution(("a", "b")),
        },
        np.array([0.1, 0.9]),
    )
    assert cells["lr"] == pytest.approx([math.log(0.01), 0.0])
    assert cells["scheduler"] == [0, 1]
    assert spaces["scheduler"] == FloatDistribution(-0.5, 1.5)


def test_each_whole_number_and_each_category_is_as_wide_as_the_others() -> None:
    """The first and the last had half the width and weighed half: 0.43 was told of this 0.5."""
    rng = np.random.default_rng(0)
    family, rate = rng.integers(0, 5, 2000), rng.random(2000)
    columns = {"scheduler": list(map(str, family)), "lr": rate.tolist()}
    spaces: dict[str, BaseDistribution] = {
        "scheduler": CategoricalDistribution(tuple("01234")),
        "lr": FloatDistribution(0, 1),
    }
    found = shares(columns, spaces, family / 2**0.5 + rate * 12**0.5)
    assert found.share == pytest.approx({"scheduler": 0.5, "lr": 0.5}, abs=0.03)
    _, spaces = encode(
        {"steps": [2, 8], "rate": [0.1, 0.9]},
        {"steps": IntDistribution(2, 8, log=True), "rate": FloatDistribution(0, 1)},
        np.zeros(2),
    )
    ends = FloatDistribution(math.log(1.5), math.log(8.5))
    assert spaces == {"steps": ends, "rate": FloatDistribution(0, 1)}


def test_chance_is_among_the_differences_that_a_share_is_a_part_of() -> None:
    """Truth: the rate explains 0.25 of the places, the rest is chance; 0.51 was told of it."""
    told = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        lr = 10 ** rng.uniform(-3, 0, 400)
        u = ((np.log10(lr) + 1) ** 2 - 1.0) / 1.183
        losses = 0.3**0.5 * u + 0.7**0.5 * rng.normal(size=400)
        columns = {"lr": lr.tolist(), "warmup": rng.integers(0, 4, 400).tolist()}
        spaces: dict[str, BaseDistribution] = {
            "lr": FloatDistribution(1e-3, 1, log=True),
            "warmup": IntDistribution(0, 3),
        }
        places = losses.argsort().argsort() / 400
        told.append(shares(columns, spaces, places, seed).share["lr"])
    assert np.mean(told) == pytest.approx(0.25, abs=0.1)


def test_it_is_built_on_optunas_evaluator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 3: built on Optuna's evaluators, not beside them; no forest of our own."""
    asked = []
    real = optuna.importance.FanovaImportanceEvaluator.evaluate

    def evaluate(self: object, study: optuna.Study, **options: object) -> dict[str, float]:
        asked.append(study)
        return real(self, study, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(optuna.importance.FanovaImportanceEvaluator, "evaluate", evaluate)
    assert importance(load(make_study(60))).overall is not None
    assert asked


@pytest.mark.parametrize("seed", range(4))
def test_shares_are_those_of_optunas_evaluator(seed: int) -> None:
    """Numbers of any kind: a few values or many, a parameter that matters and some that do not."""
    rng = np.random.default_rng(seed)
    spaces: dict[str, BaseDistribution] = {
        "few": IntDistribution(0, 3),
        "many": FloatDistribution(-1.0, 2.0),
        **{f"none {i}": FloatDistribution(0, 1) for i in range(3 * seed)},
    }
    trials = []
    for number in range(20 + 40 * seed):
        params = {"few": int(rng.integers(4)), "many": float(rng.uniform(-1, 2))}
        params |= {name: float(rng.random()) for name in spaces if name not in params}
        value = params["few"] % 2 + params["many"] ** 2 + rng.normal()
        trials.append(frozen(number, value, params, spaces))
    study, names = study_of(trials), list(spaces)
    theirs = optuna.importance.FanovaImportanceEvaluator(n_trees=5, max_depth=6, seed=seed)
    found = Fanova(n_trees=5, max_depth=6, seed=seed).evaluate(study, params=names)
    assert found == pytest.approx(theirs.evaluate(study, params=names), rel=1e-9, abs=1e-12)
    ours = Fanova(n_trees=5, max_depth=6, seed=seed)
    ours.evaluate(study, params=names)
    parts, trees = theirs._evaluator._variances, theirs._evaluator._trees
    assert parts is not None
    assert trees is not None
    between = np.array([tree.variance for tree in trees])
    for i, fractions in enumerate(ours.fractions()):
        assert (fractions <= parts[i] / between + 1e-12).all()
        assert fractions == pytest.approx(parts[i] / (between + _within(trees)), rel=1e-9)


def _within(trees: Any) -> np.ndarray:
    """What is left within the leaves of each of Optuna's trees, by their volumes."""
    found = []
    for tree in trees:
        leaves = [i for i in range(tree._n_nodes) if tree._is_node_leaf(i)]
        boxes = np.array([tree._statistics[i, 1] for i in leaves])
        found.append(boxes @ tree._tree.impurity[leaves] / boxes.sum())
    return np.array(found)


def test_the_spread_of_a_share_narrows_with_more_trials() -> None:
    few, many = (importance(load(make_study(n, prune=False)), brief=True) for n in (16, 400))
    assert few.overall is not None
    assert many.overall is not None
    assert 0 < many.overall.spread["lr"] < few.overall.spread["lr"] < 1
    assert set(few.overall.spread) == set(few.overall.share)


def test_too_few_trials_give_no_answer_instead_of_a_wrong_one() -> None:
    found = importance(load(make_study(8)))
    assert found.overall is None
    assert found.within == {}
    assert found.too_few


@pytest.mark.parametrize("seed", range(3))
def test_a_parameter_that_hardly_any_trial_has_may_be_missing_from_the_sample(seed: int) -> None:
    """Of more than 200 trials of a family 200 are looked at."""
    rng = np.random.default_rng(seed)
    spaces: dict[str, BaseDistribution] = {
        "lr": FloatDistribution(1e-3, 1, log=True),
        "LambdaLR.decay": FloatDistribution(0, 1),
    }
    made = []
    for number in range(600):
        params = {"lr": float(10 ** rng.uniform(-3, 0))}
        params |= {"LambdaLR.decay": 0.5} if number == 300 else {}
        schedule = {"family": "LambdaLR", "lr": params["lr"], "epochs": 1}
        losses = np.array([params["lr"]])
        made.append(
            Fake(params, {k: spaces[k] for k in params}, schedule, np.array([0.1]), losses)
        )
    found = importance(load(make_study(made=made, epochs=1)), seed=seed, brief=True)
    assert found.within["LambdaLR"].trials == 200
    assert found.within["LambdaLR"].share["lr"] > 0.9


def test_pruned_trials_that_told_no_loss_come_last() -> None:
    study = optuna.create_study()
    for value in (2.0, 1.0):
        study.add_trial(optuna.create_trial(value=value))
    for _ in range(2):
        study.add_trial(optuna.create_trial(state=TrialState.PRUNED))
    assert worth(load(study)) == {1: 0.125, 0: 0.375, 2: 0.625, 3: 0.875}
