"""The sampler in trace space: what it proposes, and that it is right with any trial's state."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from scipy.stats import norm

from lrsearch.prediction.beliefs import EARLY, believed
from lrsearch.prediction.curves import (
    COMPLETE,
    DIVERGED,
    RUNNING,
    STOPPED,
    CurveReader,
    Curves,
    load_curves,
    lr_per_epoch,
)
from lrsearch.prediction.surrogate import fit, trace_features
from lrsearch.schedules import FixedParams, Schedule, Space
from lrsearch.search import candidates
from lrsearch.search.ask import Draft
from lrsearch.search.candidates import Candidates, Drawn, candidate_lr
from lrsearch.search.pruning import SchedulePruner
from lrsearch.search.sampling import (
    LEAST_KNOWN,
    PARENTS,
    ROUGH,
    SHARED_BY,
    TraceSampler,
    promise,
)

EPOCHS = 12
SPACE = Space(None, EPOCHS, (1e-3, 1.0))


def loss(lr: np.ndarray) -> np.ndarray:
    """(E,): best where the integral is near 1 and the last rates are small."""
    return 1.0 + np.abs(np.log(lr.sum())) + 3 * lr


def propose(
    sampler: TraceSampler, study: optuna.Study, number: int, space: Space = SPACE
) -> dict[str, Any]:
    return dict(sampler._draw(study, number, space))


def distributions(params: dict[str, Any], space: Space = SPACE) -> dict[str, BaseDistribution]:
    """Those that the space asks Optuna for."""
    trial = optuna.trial.FixedTrial(params)
    space.suggest(trial)
    return trial.distributions


def add(
    study: optuna.Study,
    sampler: TraceSampler,
    state: TrialState,
    epochs: int = EPOCHS,
    space: Space = SPACE,
) -> Schedule:
    number = len(study.trials)
    params = propose(sampler, study, number, space)
    schedule = space.suggest(FixedParams(params))
    lr = (
        np.full(EPOCHS, schedule.lr)
        if schedule.family == "ReduceLROnPlateau"
        else np.repeat(schedule.trace().lr, 1)
    )
    values = {e + 1: float(v) for e, v in enumerate(loss(lr)[:epochs])}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trial = create_trial(
            state=state,
            value=values[epochs] if state == TrialState.COMPLETE else None,
            params=params,
            distributions=distributions(params, space),
            intermediate_values=values,
            user_attrs={"schedule": schedule.to_dict()},
        )
    study.add_trial(trial)
    return schedule


def test_it_finds_better_schedules_than_random_draws() -> None:
    study, sampler = optuna.create_study(), TraceSampler(seed=3)
    for _ in range(28):
        add(study, sampler, TrialState.COMPLETE)
    values = [t.value for t in study.trials]
    assert np.median(values[LEAST_KNOWN:]) < np.median(values[:LEAST_KNOWN]) - 0.3
    assert np.argmin(values) >= LEAST_KNOWN


def test_before_any_trial_is_complete_it_learns_from_losses_early_in_the_budget() -> None:
    study, sampler = optuna.create_study(), TraceSampler(seed=3)
    early = math.ceil(EARLY * EPOCHS)
    for _ in range(30):
        add(study, sampler, TrialState.PRUNED, early)
    values = [t.intermediate_values[early] for t in study.trials]
    assert np.median(values[LEAST_KNOWN:]) < np.median(values[:LEAST_KNOWN]) - 0.1


def test_a_proposal_follows_from_study_seed_and_number_alone() -> None:
    study, sampler = optuna.create_study(), TraceSampler(seed=3)
    for _ in range(14):
        add(study, sampler, TrialState.COMPLETE)
    again = TraceSampler(seed=3)
    assert propose(sampler, study, 14) == propose(again, study, 14) == propose(sampler, study, 14)
    assert propose(TraceSampler(seed=4), study, 14) != propose(again, study, 14)
    asked_at_once = [propose(sampler, study, number) for number in range(14, 20)]
    assert len({str(sorted(params.items())) for params in asked_at_once}) > 1


def test_what_was_tried_long_ago_is_no_candidate() -> None:
    study, sampler = optuna.create_study(), TraceSampler(seed=3)
    for _ in range(LEAST_KNOWN):
        add(study, sampler, TrialState.COMPLETE)
    width, number = load_curves(study).features.shape[1], 10 * SHARED_BY

    def candidates() -> list[Drawn]:
        trials = study.get_trials(deepcopy=False)
        groups = sampler._candidates(number, SPACE, trials, trials[:PARENTS], width)
        return [group.drawn[i] for group, chosen in groups for i in chosen]

    # What curve this family will follow depends on the losses: it is known by its parameters.
    driven = next(d for d in candidates() if d.params["scheduler"] == "ReduceLROnPlateau")
    study.add_trial(
        create_trial(value=9.0, params=driven.params, distributions=distributions(driven.params))
    )
    assert driven.params not in [each.params for each in candidates()]


def test_in_a_space_of_three_schedules_trials_go_on_after_the_third() -> None:
    fixed = {"StepLR.gamma": 0.1, "StepLR.step_size": (2, 4)}
    space = Space(["StepLR"], EPOCHS, (0.1, 0.1), warmup=False, overrides=fixed)
    study, sampler = optuna.create_study(), TraceSampler(seed=0)
    found = [add(study, sampler, TrialState.COMPLETE, space=space) for _ in range(40)]
    assert {schedule.params["step_size"] for schedule in found} == {2, 3, 4}


def test_the_same_curve_under_another_name_counts_as_tried() -> None:
    names = ["StepLR", "MultiStepLR"]
    fixed = {"StepLR.gamma": 0.1, "StepLR.step_size": 8, "MultiStepLR.gamma": 0.1}
    space = Space(names, EPOCHS, (0.1, 0.1), warmup=False, overrides=fixed)
    study, sampler = optuna.create_study(), TraceSampler(seed=0)
    for _ in range(30):
        add(study, sampler, TrialState.COMPLETE, space=space)
    rates = [Schedule.from_dict(t.user_attrs["schedule"]).trace().lr for t in study.trials]
    proposed = [lr.tobytes() for lr in rates[LEAST_KNOWN:]]
    assert len(set(proposed)) == len(proposed)


def test_an_objective_gets_the_proposed_parameters() -> None:
    seen: list[dict[str, Any]] = []

    def objective(trial: optuna.Trial) -> float:
        schedule = SPACE.suggest(trial)
        trial.set_user_attr("schedule", schedule.to_dict())
        trial.suggest_float("something_else", 0, 1)
        seen.append(dict(trial.params))
        return float(schedule.lr)

    study = optuna.create_study(sampler=TraceSampler(seed=1))
    study.optimize(objective, n_trials=13)
    expected = propose(TraceSampler(seed=1), optuna.create_study(), 0)
    assert {k: v for k, v in seen[0].items() if k != "something_else"} == expected


def test_pruned_diverged_running_and_failed_trials_are_no_obstacle() -> None:
    study, sampler = optuna.create_study(), TraceSampler(seed=0)
    for k in range(36):
        state = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.FAIL][
            k % 4
        ]
        add(study, sampler, state, EPOCHS if state == TrialState.COMPLETE else 1 + k % 5)
    SPACE.suggest(FixedParams(propose(sampler, study, 36)))


@pytest.mark.parametrize("kept", ["cosine", 7, {"lr": 0.1}, {"family": "LSTM"}])
def test_a_trial_with_something_else_for_a_schedule_is_left_out(kept: object) -> None:
    proposed = []
    for others in (0, LEAST_KNOWN):
        study, sampler = optuna.create_study(), TraceSampler(seed=1)
        for _ in range(LEAST_KNOWN + 2):
            add(study, sampler, TrialState.COMPLETE)
        for _ in range(others):
            attrs = {"schedule": kept}
            study.add_trial(
                create_trial(value=-1.0, intermediate_values={1: -1.0}, user_attrs=attrs)
            )
        proposed.append(propose(sampler, study, 100))
    assert proposed[0] == proposed[1]


def test_what_has_learnt_nothing_surely_ends_where_it_stood() -> None:
    """Else a search goes on to propose it: predictors know only what was good enough to end."""
    lr = np.append(np.geomspace(0.02, 0.1, 12), [2.0, 0.11])[:, None] * np.linspace(1, 0.05, 25)
    raw = np.linspace(2.0, 0.3, 25) + np.arange(14.0)[:, None] / 50
    raw[12], raw[13] = 2.4, raw[5]
    reached, state = (
        np.append(np.full(12, 25), [5, 5]),
        np.append(np.full(12, COMPLETE), [STOPPED] * 2),
    )
    target, variance = believed(Curves(lr, raw, raw - 0.1, reached, state, trace_features(lr)))
    assert target[12] == pytest.approx(np.log(2.3))
    assert target[13] < np.log(0.6)
    assert variance[12] == 0.0 < variance[13]


def test_few_proposals_go_to_rates_at_which_nothing_learns() -> None:
    space = Space(None, 20, (1e-3, 2.0))
    lost: list[list[bool]] = []

    def objective(trial: optuna.Trial) -> float:
        schedule = space.suggest(trial)
        trial.set_user_attr("schedule", schedule.to_dict())
        lr = lr_per_epoch(schedule)
        avg = 0.1 + 0.02 * np.log(lr.sum()) ** 2 + 2 * np.exp(-3 * lr.cumsum())
        raw = avg + 0.3 * lr
        lost[-1].append(bool(lr.max() > 0.25))
        if lost[-1][-1]:
            after = int(np.argmax(lr > 0.25))
            raw[after:] = avg[after:] = 2.3 + 0.2 * lr.max()
        for epoch in range(1, 21):
            trial.set_user_attr("avg_val_losses", avg[:epoch].tolist())
            trial.report(float(raw[epoch - 1]), epoch)
            if epoch < 20 and trial.should_prune():
                raise optuna.TrialPruned
        return float(raw[-1])

    for seed in (1, 4):
        lost.append([])
        study = optuna.create_study(sampler=TraceSampler(seed), pruner=SchedulePruner())
        study.optimize(objective, n_trials=60)
    assert sum(sum(each[20:]) for each in lost) <= 28  # of 80


def test_a_stopped_trial_is_never_believed_better_than_the_best() -> None:
    study, sampler = optuna.create_study(), TraceSampler(seed=0)
    for k in range(24):
        pruned = k % 2
        add(
            study,
            sampler,
            TrialState.PRUNED if pruned else TrialState.COMPLETE,
            3 if pruned else EPOCHS,
        )
    curves = load_curves(study)
    target, variance = believed(curves)
    complete = curves.state == COMPLETE
    assert target[~complete].min() >= target[complete].min()
    assert (variance[~complete] > 0).all()
    assert (variance[complete] == 0).all()


@pytest.mark.parametrize("shift", [0.0, 30.0])  # losses that are positive, and some that are not
def test_before_any_is_complete_the_losses_after_a_tenth_of_the_budget_have_to_do(
    shift: float,
) -> None:
    avg = 1.0 + np.arange(100.0).reshape(4, 25) - shift
    reached, state = np.array([2, 3, 25, 1]), np.array([RUNNING, STOPPED, COMPLETE, DIVERGED])
    curves = Curves(np.ones((4, 25)), avg + 5, avg, reached, state, np.ones((4, 2)))
    at_three = avg[:, 2] if shift else np.log(avg[:, 2])
    avg[0, 2] = np.nan  # of epochs 1 and 2 alone nothing is believed
    target, variance = believed(curves)
    np.testing.assert_array_equal(target, [np.nan, *at_three[1:3], np.inf])
    assert not variance.any()


def test_what_is_promised_is_the_expected_improvement() -> None:
    rng = np.random.default_rng(0)
    features, candidates = rng.uniform(-1, 1, size=(30, 2)), rng.uniform(-1, 1, size=(6, 2))
    target = (features**2).sum(axis=1) + 0.1 * rng.standard_normal(30)
    learnt: dict[bytes, np.ndarray] = {}
    gain = promise(features, target, np.zeros(30), candidates, learnt)
    (theta,) = learnt.values()
    rough = ROUGH * candidates.std(axis=0)
    process = fit(features, target, variance=np.zeros(30), theta=theta, rough=rough)
    mean, sd = process.predict(candidates)
    values = mean + sd * norm.ppf((np.arange(100_000) + 0.5) / 100_000)[:, None]
    expected = np.maximum(target.min() - values, 0).mean(axis=0)
    np.testing.assert_allclose(gain, expected, rtol=1e-3, atol=1e-6)


def test_what_was_foretold_is_believed_no_better_than_the_certain_ones_say() -> None:
    rng = np.random.default_rng(0)
    features, candidates = rng.uniform(-1, 1, size=(24, 2)), rng.uniform(-1, 1, size=(6, 2))
    features[18:, 0] = 0.8
    target = np.where(features[:, 0] > 0, 3.0, (features**2).sum(axis=1))
    variance = np.where(np.arange(24) < 18, 0.0, 0.01)
    gains = [
        promise(features, np.where(variance > 0, foretold, target), variance, candidates)
        for foretold in (0.3, 0.4, 4.0)  # they say about 3
    ]
    assert np.array_equal(gains[0], gains[1])
    assert not np.allclose(gains[1], gains[2])


def test_two_that_are_asked_for_at_once_differ() -> None:
    study, sampler = optuna.create_study(), TraceSampler(seed=0)
    for _ in range(LEAST_KNOWN + 4):
        add(study, sampler, TrialState.COMPLETE)
    first = 4 * SHARED_BY  # they share their candidates
    asked = [propose(sampler, study, number) for number in range(first, first + 4)]
    assert len({params["lr"] for params in asked}) > 1


def test_nothing_near_a_trial_that_diverged_is_proposed_whatever_its_loop_returned() -> None:
    study, sampler = optuna.create_study(), TraceSampler(seed=0)
    for _ in range(LEAST_KNOWN):
        add(study, sampler, TrialState.COMPLETE)
    diverged = study.trials[0]
    diverged.value, diverged.user_attrs["stopped"] = -9.0, "diverged"
    study.add_trial(diverged)
    propose(sampler, study, LEAST_KNOWN + 1)
    assert sampler._pool is not None
    parents = {parent[0] for parent in sampler._pool.near if parent is not None}
    assert len(parents) == PARENTS
    assert LEAST_KNOWN not in parents


def test_running_trials_keep_others_from_the_same_place() -> None:
    rng = np.random.default_rng(0)
    features = rng.uniform(-1, 1, size=(20, 2))
    target = (features**2).sum(axis=1)
    first = promise(features, target, np.zeros(20), np.zeros((1, 2)))
    second = promise(
        np.vstack([features, np.zeros((1, 2))]),
        np.append(target, np.nan),
        np.zeros(21),
        np.zeros((1, 2)),
    )
    assert second[0] < first[0]


def test_a_curve_that_was_run_promises_nothing_but_a_lucky_one_nearby_does() -> None:
    rng = np.random.default_rng(0)
    features = rng.uniform(-1, 1, size=(30, 2))
    target = (features**2).sum(axis=1) + 0.1 * rng.standard_normal(30)  # a rough function
    best = features[[np.argmin(target)]]
    elsewhere = rng.uniform(-1, 1, size=(50, 2))
    candidates = np.concatenate([best, best + 1e-4, best + 0.2, elsewhere])
    gain = promise(features, target, np.zeros(30), candidates)
    assert max(gain[0], gain[1]) < 0.1 * gain[2]


def test_the_same_curve_under_another_name_is_the_same_candidate() -> None:
    polynomial = Schedule("PolynomialLR", 0.1, EPOCHS, {"power": 1.0, "total_iters": EPOCHS})
    linear = Schedule(
        "LinearLR", 0.1, EPOCHS, {"start_factor": 1.0, "end_factor": 0.0, "total_iters": EPOCHS}
    )
    np.testing.assert_allclose(candidate_lr(polynomial), candidate_lr(linear), atol=1e-12)


def test_plateau_is_guessed_from_the_losses_of_a_trial_of_nearly_its_rate() -> None:
    study = optuna.create_study()
    flat, falling = [1.0] * EPOCHS, np.linspace(1, 0.5, EPOCHS).tolist()
    for rate, losses in ((0.001, falling), (0.1, flat), (3.0, falling)):
        schedule = Schedule("ConstantLR", rate, EPOCHS, {"factor": 1.0, "total_iters": EPOCHS})
        values = dict(enumerate(losses, start=1))
        attrs = {"schedule": schedule.to_dict()}
        study.add_trial(
            create_trial(value=losses[-1], intermediate_values=values, user_attrs=attrs)
        )
    args = {"factor": 0.1, "patience": 3}
    stops, holds = (Schedule("ReduceLROnPlateau", lr, EPOCHS, args) for lr in (0.1, 0.9))
    curves, drawn = load_curves(study), Drawn(np.random.default_rng(0))
    candidates = Candidates([drawn, drawn], [stops, holds], curves.features.shape[1])
    found = candidates.features(np.arange(2), curves)
    lr = np.array([[0.1] * 5 + [0.01] * 4 + [0.001] * 3, [0.9] * EPOCHS])
    np.testing.assert_allclose(found, trace_features(lr))


def test_a_long_schedule_is_looked_at_in_a_hundred_epochs() -> None:
    cosine = Schedule("CosineAnnealingLR", 0.1, 300)
    np.testing.assert_allclose(candidate_lr(cosine), cosine.trace().lr[::3], rtol=1e-9)
    assert candidates._shrunk(np.arange(300.0)).tolist() == list(range(0, 300, 3))


def test_a_neighbour_keeps_a_value_or_moves_it_by_about_a_tenth_of_its_range() -> None:
    rng = np.random.default_rng(0)
    moved = []
    for _ in range(2000):
        drawn = Drawn(rng, {"even": 5.0, "log": 0.1, "whole": 1050})
        even = (drawn.suggest_float("even", 0.0, 10.0) - 5.0) / 10
        log = math.log10(drawn.suggest_float("log", 1e-3, 10.0, log=True) / 0.1) / 4
        moved.append((even, log, (drawn.suggest_int("whole", 1000, 1100) - 1050) / 100))
    distance = np.abs(np.array(moved).round(6))
    share = (distance > 0).mean(axis=0)  # a tenth anew, and six of ten of the others
    np.testing.assert_allclose(share, 0.64, atol=0.05)
    for column in distance.T:
        assert np.median(column[column > 0]) == pytest.approx(0.078, abs=0.01)


def test_a_neighbour_is_near_and_in_range() -> None:
    base = propose(TraceSampler(seed=0), optuna.create_study(), 0)
    rng = np.random.default_rng(0)
    neighbours = [Drawn(rng, base) for _ in range(50)]
    for drawn in neighbours:
        SPACE.suggest(drawn)
        asked = distributions(drawn.params)
        for name, value in drawn.params.items():
            distribution = asked[name]
            assert distribution._contains(distribution.to_internal_repr(value))
    same = sum(d.params["scheduler"] == base["scheduler"] for d in neighbours)
    assert same > 35
    ratio = [abs(np.log(d.params["lr"] / base["lr"])) for d in neighbours]
    assert np.median(ratio) < 0.2 * np.log(1000)


def test_what_was_asked_before_changes_no_promise() -> None:
    """Stopped trials move the loss from which on all are alike, and so what is learnt from."""
    rng = np.random.default_rng(0)
    features, candidates = rng.normal(size=(24, 3)), rng.normal(size=(5, 3))
    target = np.concatenate([rng.normal(size=15), [30.0], np.full(8, 5.0)])
    variance = np.concatenate([np.zeros(16), np.full(8, 0.1)])
    learnt: dict[bytes, np.ndarray] = {}
    promise(features[:16], target[:16], variance[:16], candidates, learnt)
    again = promise(features, target, variance, candidates, learnt)
    assert again.tolist() == promise(features, target, variance, candidates).tolist()


def test_a_draft_shows_samplers_what_ended_since_the_last() -> None:
    """Optuna's samplers read the trials through a cache of the thread, which only ask empties."""
    seen: list[int] = []

    class Cached(optuna.samplers.RandomSampler):
        def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
            seen.append(len(study._get_trials(deepcopy=False, use_cache=True)))

    study = optuna.create_study(sampler=Cached(), study_name="s")
    study.ask()
    other = optuna.load_study(study_name="s", storage=study._storage)
    other.add_trial(create_trial(value=1.0))
    Draft(study, other.trials[0])
    assert seen == [1, 2]


@pytest.mark.parametrize("state", [TrialState.RUNNING, TrialState.COMPLETE])
@pytest.mark.parametrize("losses", [True, False])
def test_a_trial_that_is_asked_again_before_it_runs_is_read_anew(
    state: TrialState, losses: bool
) -> None:
    """As where another worker has stored the same schedule meanwhile."""
    study, reader = optuna.create_study(), CurveReader()
    trial = study.ask()
    trial.set_user_attr("schedule", Schedule("ConstantLR", 0.1, EPOCHS).to_dict())
    before = reader.rows(study, study.get_trials())[0]
    other = Schedule("CosineAnnealingLR", 0.5, EPOCHS)
    trial.set_user_attr("schedule", other.to_dict())
    if state == TrialState.COMPLETE:
        study.tell(trial, 1.0)
    after = reader.rows(study, study.get_trials(), losses=losses)[0]
    assert before.lr.tolist() != after.lr.tolist() == lr_per_epoch(other).tolist()
    assert after.features.tolist() == trace_features(lr_per_epoch(other))[0].tolist()
