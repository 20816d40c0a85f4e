"""The schedule pruner: what it stops, what it leaves, and that the database alone decides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial
from scipy.stats import norm, spearmanr, t

from lrsearch.errors import UsageError
from lrsearch.prediction.curves import (
    COMPLETE,
    DIVERGED,
    RUNNING,
    STOPPED,
    Curves,
    by_end,
    load_curves,
)
from lrsearch.prediction.judge import Judge, Memory, agreement
from lrsearch.prediction.predictors import Rung
from lrsearch.prediction.surrogate import Array, trace_features
from lrsearch.schedules import RandomParams, Schedule, Space
from lrsearch.search import pruning
from lrsearch.search.pruning import SchedulePruner, is_due, rungs

EPOCHS = 20


def losses_of(lr: Array, noise: float = 0.0) -> tuple[Array, Array]:
    """A task made up: the best integral is 1; a rate that is still high hides how good it is."""
    progress = np.cumsum(lr)
    avg = 0.2 + 0.05 * (np.log(lr.sum())) ** 2 + np.exp(-3 * progress)
    return avg + 3.0 * lr + noise, avg + 0.3 * lr + noise


def random_schedules(n: int, seed: int = 0, epochs: int = EPOCHS) -> list[Schedule]:
    space = Space(["CosineAnnealingLR", "StepLR", "PolynomialLR", "ConstantLR"], epochs, (1e-3, 1))
    rng = np.random.default_rng(seed)
    return [space.suggest(RandomParams(rng)) for _ in range(n)]


def run_trial(study: optuna.Study, schedule: Schedule, averaged: bool = True) -> TrialState:
    trial = study.ask()
    trial.set_user_attr("schedule", schedule.to_dict())
    raw, avg = losses_of(schedule.trace().lr)
    for epoch in range(1, EPOCHS + 1):
        trial.report(float(raw[epoch - 1]), epoch)
        if averaged:
            trial.set_user_attr("avg_val_losses", avg[:epoch].tolist())
        if epoch < EPOCHS and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return TrialState.PRUNED
    study.tell(trial, float(raw[-1]))
    return TrialState.COMPLETE


@pytest.mark.parametrize("averaged", [True, False])
def test_most_epochs_are_saved_and_one_of_the_best_survives(averaged: bool) -> None:
    study = optuna.create_study(pruner=SchedulePruner())
    schedules = random_schedules(60)
    for schedule in schedules:
        run_trial(study, schedule, averaged)
    trials = study.get_trials(deepcopy=False)
    used = sum(len(t.intermediate_values) for t in trials) / (60 * EPOCHS)
    final = sorted(float(losses_of(s.trace().lr)[0][-1]) for s in schedules)
    assert used < 0.5
    assert study.best_value <= final[2]


def test_nothing_is_stopped_among_the_first_few_before_a_third_of_the_budget() -> None:
    study = optuna.create_study(pruner=SchedulePruner())
    for schedule in random_schedules(pruning.STARTUP):
        run_trial(study, schedule)
    assert all(len(t.intermediate_values) >= 7 for t in study.get_trials(deepcopy=False))


@pytest.mark.parametrize(
    ("leads", "chance", "stopped"),
    [(False, 0.16, False), (False, 0.14, True), (True, 0.016, False), (True, 0.014, True)],
)
def test_a_trial_that_leads_by_averaged_loss_is_stopped_at_a_tenth_of_the_share(
    leads: bool, chance: float, stopped: bool
) -> None:
    judge: Any = SimpleNamespace(
        finished=pruning.STARTUP,
        leads=lambda running, epoch: np.array([leads]),
        chance=lambda running, epoch: np.array([chance]),
        chance_of_best=lambda epoch: 0.5,
    )
    trial = made(0.1, 2.0)
    assert pruning.stops(trial, 5, trial, judge, share=0.3).tolist() == [stopped]


def made(rates: Any, raw: Any, avg: Any = None, state: int = RUNNING) -> Curves:
    """Trials of these rates and losses, each (n, E), (n, 1) or one number for one trial."""
    given = (rates, raw, raw if avg is None else avg)
    lr, raw, avg = (np.array(x) for x in np.broadcast_arrays(np.zeros((1, EPOCHS)), *given)[1:])
    n = len(lr)
    return Curves(lr, raw, avg, np.full(n, EPOCHS), np.full(n, state), trace_features(lr))


def test_a_trial_that_looks_worse_than_every_completed_one_ever_did_is_stopped() -> None:
    rates = np.geomspace(0.02, 0.2, 8)[:, None] * np.linspace(1, 0, EPOCHS)
    falling = np.geomspace(1.0, 0.2, EPOCHS) * np.linspace(0.9, 1.1, 8)[:, None]
    judge = Judge(made(rates, falling, state=COMPLETE))
    lost, level = made(0.3, 2.3), made(0.3, 0.8 * falling[:1])
    expected = np.log(2.3 / falling[:, 4].max())
    np.testing.assert_allclose(judge.excess(lost, 5), [expected])
    assert judge.excess(level, 5) == [0.0]
    assert pruning.stops(lost, 5, lost, judge, share=0.01)
    assert not pruning.stops(level, 5, level, judge, share=0.01)


@pytest.mark.parametrize(
    ("rates", "raw", "avg"),
    [
        (np.linspace(0, 0.01, EPOCHS), 2.3, 2.3),  # it has hardly begun
        (0.3, 2.3, 0.5),  # the average of its weights is as good as others
        (0.3, np.nan, np.nan),
    ],
)
def test_a_slow_start_or_a_good_average_is_not_held_against_a_trial(
    rates: Any, raw: float, avg: float
) -> None:
    falling = np.geomspace(1.0, 0.2, EPOCHS) * np.linspace(0.9, 1.1, 8)[:, None]
    judge = Judge(made(np.geomspace(0.02, 0.2, 8)[:, None], falling, state=COMPLETE))
    assert judge.excess(made(rates, raw, avg), 5) == [0.0]


def test_two_workers_with_their_own_memory_decide_alike() -> None:
    study = optuna.create_study(pruner=SchedulePruner())
    for schedule in random_schedules(30):
        run_trial(study, schedule)
    warm = study.pruner
    trial = study.ask()
    schedule = random_schedules(1, seed=9)[0]
    trial.set_user_attr("schedule", schedule.to_dict())
    trial.report(float(losses_of(schedule.trace().lr)[0][0]), 1)
    frozen = study.get_trials(deepcopy=False)[-1]
    own = load_curves(study, [frozen])
    settled = [t for t in study.trials if t.state.is_finished()]
    chances = [
        pruner._judge_of(study, settled, own.epochs).chance(own, 1)
        for pruner in (warm, SchedulePruner())
        if isinstance(pruner, SchedulePruner)
    ]
    np.testing.assert_allclose(chances[0], chances[1], rtol=1e-6)


def test_a_judge_that_saw_the_study_grow_and_one_that_comes_late_learn_the_same() -> None:
    lr = np.stack([s.trace().lr for s in random_schedules(40)])
    curves = np.array([losses_of(row) for row in lr])
    curves[::3] *= 1e3  # bad enough to be capped, at a value that every further trial moves
    trials = made(lr, curves[:, 0], curves[:, 1], COMPLETE)
    memory = Memory()
    for ended in (16, 17, 18, 19):  # their predictors learn from the first 16, 16, 18, 18
        grown = Judge(trials.take(np.arange(ended)), memory)
        late = Judge(trials.take(np.arange(ended)))
        for epoch in (3, 10):
            chances = [judge.chance(trials, epoch) for judge in (grown, late)]
            assert np.array_equal(*chances), (ended, epoch)


def test_what_is_believed_of_stopped_trials_is_the_same_however_long_it_was_kept() -> None:
    lr = np.stack([s.trace().lr for s in random_schedules(24)])
    lr[11::4] = np.geomspace(2.0, 3.0, 4)[:, None]  # stopped ones that learnt nothing
    curves = np.array([losses_of(row) for row in lr])
    curves[11::4] = curves[:, :, 0].max() + lr[11::4, None]
    state = np.where(np.arange(24) % 2, STOPPED, COMPLETE)
    reached = np.where(state == COMPLETE, EPOCHS, 5)
    curves[np.broadcast_to(np.arange(EPOCHS) >= reached[:, None, None], curves.shape)] = np.nan
    trials = Curves(lr, curves[:, 0], curves[:, 1], reached, state, trace_features(lr))
    memory = Memory()
    for count in (12, 13, 14, 16, 23, 24):  # some only add a stopped one, others a completed one
        some = trials.take(np.arange(count))
        grown, late = Judge(some, memory), Judge(some)
        for kept, fresh in zip(grown.beliefs(), late.beliefs(), strict=True):
            np.testing.assert_allclose(kept, fresh)
        np.testing.assert_allclose(grown.stood(), late.stood())
    assert np.flatnonzero(np.isfinite(grown.stood())).tolist() == [11, 15, 19, 23]


@pytest.mark.parametrize("unknown", [0.0, 0.3])
@pytest.mark.parametrize("least", [0.0, -2.0])
def test_the_floor_of_a_stopped_trial_is_what_comparing_it_with_each_completed_one_gives(
    least: float, unknown: float
) -> None:
    rng = np.random.default_rng(0)
    state = np.where(np.arange(60) < 20, COMPLETE, STOPPED)
    reached = np.where(state == COMPLETE, EPOCHS, rng.choice([1, 3, 10], 60))
    raw = rng.integers(1, 40, (60, 1)) + rng.integers(0, 6, (60, EPOCHS)) + least  # some are equal
    avg = np.where(rng.random(raw.shape) < unknown, np.nan, raw + rng.integers(0, 3, raw.shape))
    judge = Judge(Curves(raw, raw, avg, reached, state, trace_features(np.abs(raw))))
    raw, avg = judge.scaled(raw), judge.scaled(avg)
    floor = []
    for own in range(20, 60):
        at = reached[own] - 1
        worse = np.fmin(raw[own, at] - raw[:20, at], avg[own, at] - avg[:20, at])
        alike = raw[:20, -1][worse <= 0]
        floor.append(alike.min() if len(alike) else raw[:20, -1].max() + np.nanmin(worse))
    own = np.arange(20, 60)
    found = np.empty(40)
    for epoch in (1, 3, 10):
        found[reached[own] == epoch] = judge._floor(epoch, own[reached[own] == epoch])
    assert found.tolist() == floor
    assert len(set(floor)) > 10


def test_a_trial_that_still_holds_a_high_rate_outlives_one_that_looks_better_now() -> None:
    lr = np.stack([s.trace().lr for s in random_schedules(40)])
    curves = np.array([losses_of(row) for row in lr])  # (n, 2, E)
    settled = made(lr, curves[:, 0], curves[:, 1], COMPLETE)
    judge = Judge(settled)
    held, early = np.full(EPOCHS, 0.08), np.full(EPOCHS, 1e-3)
    held[-5:] = np.geomspace(0.04, 1e-3, 5)
    early[:5] = 0.1
    two = np.stack([held, early])
    losses = np.array([losses_of(row) for row in two])
    assert losses[0, 0, 9] > losses[1, 0, 9]
    assert losses[0, 0, -1] < losses[1, 0, -1]
    running = Curves(
        two, losses[:, 0], losses[:, 1], np.full(2, 10), np.full(2, RUNNING), trace_features(two)
    )
    chances = judge.chance(running, 10)
    assert chances[0] > chances[1]


def test_the_luckier_the_best_the_smaller_the_chance_that_is_enough() -> None:
    lr = np.stack([s.trace().lr for s in random_schedules(30)])
    curves = np.array([losses_of(row) for row in lr])
    best = int(curves[:, 0, -1].argmin())

    def own_chance(luck: float) -> float:
        raw = curves[:, 0].copy()
        raw[best, -1] *= luck
        return Judge(made(lr, raw, curves[:, 1], COMPLETE)).chance_of_best(10)

    assert 0 < own_chance(0.7) < own_chance(0.9) < own_chance(1.0) < 1


def test_diverged_and_stopped_trials_are_no_obstacle() -> None:
    lr = np.stack([s.trace().lr for s in random_schedules(30)])
    curves = np.array([losses_of(row) for row in lr])
    state = np.array([COMPLETE] * 12 + [DIVERGED] * 6 + [STOPPED] * 12)
    reached = np.array([EPOCHS] * 12 + [2] * 6 + [1, 3, 10] * 4)
    beyond = np.arange(EPOCHS) >= reached[:, None]
    raw, avg = np.where(beyond, np.nan, curves[:, 0]), np.where(beyond, np.nan, curves[:, 1])
    raw[12:18, 1] = np.inf
    judge = Judge(Curves(lr, raw, avg, reached, state, trace_features(lr)))
    running = Curves(
        lr[:1], raw[:1], avg[:1], reached[:1], np.array([RUNNING]), trace_features(lr[:1])
    )
    for epoch in rungs(EPOCHS):
        assert 0 <= judge.chance(running, epoch)[0] <= 1


def test_a_stopped_trial_that_was_worse_than_all_that_ended_is_believed_to_end_worse() -> None:
    """Only good trials come to their end, so predictors take a far away one for as good."""
    peaks = np.append(np.geomspace(0.02, 0.1, 12), [2.0, 0.11])
    lr = peaks[:, None] * np.linspace(1, 0.05, EPOCHS)
    curves = np.array([losses_of(row) for row in lr])
    curves[12], at = 2.3, 5
    state = np.array([COMPLETE] * 12 + [STOPPED] * 2)
    reached = np.where(state == COMPLETE, EPOCHS, at)
    curves[12:, :, at:] = np.nan
    judge = Judge(Curves(lr, curves[:, 0], curves[:, 1], reached, state, trace_features(lr)))
    final, stopped = np.log(curves[:12, 0, -1]), judge.beliefs()[0][12:]
    _, sd = judge._alone(at).moments(trace_features(lr[12:]), np.log(curves[12:, 1, at - 1]))
    np.testing.assert_allclose(judge.beliefs()[1][12:], sd**2)
    ahead = np.log(2.3) - np.log(curves[:12, :, at - 1].max(axis=0)).max()
    assert stopped[0] == pytest.approx(final.max() + ahead)
    assert final.min() <= stopped[1] < final.max()  # others looked as bad, and ended well
    np.testing.assert_allclose(judge.stood(), [np.nan] * 12 + [np.log(2.3), np.nan])


def test_losses_may_be_negative() -> None:
    lr = np.stack([s.trace().lr for s in random_schedules(20)])
    curves = np.array([losses_of(row) for row in lr]) - 3
    settled = made(lr, curves[:, 0], curves[:, 1], COMPLETE)
    judge = Judge(settled)
    chances = judge.chance(settled, 17)
    best = int(curves[:, 0, -1].argmin())
    assert best in np.argsort(-chances)[:3]


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (1, ()),
        (2, (1,)),
        (10, (1, 2, 3, 4, 5, 6, 8)),
        (3, (1, 2)),
        (60, (2, 4, 6, 8, 10, 13, 17, 22, 29, 38, 49)),
    ],
)
def test_rungs_leave_the_last_epochs_alone(epochs: int, expected: tuple[int, ...]) -> None:
    assert rungs(epochs) == expected


@pytest.mark.parametrize("every", [1, 7, 50])
def test_each_rung_is_judged_once_whatever_the_validation_interval(every: int) -> None:
    budget = 200
    values: dict[int, float] = {}
    judged = 0
    for step in range(every, budget + 1, every):
        values[step] = 1.0
        trial = optuna.trial.create_trial(value=1.0, intermediate_values=dict(values))
        judged += is_due(trial, budget)
    assert 0 < judged <= len(rungs(budget))
    assert judged == len(
        {-(-r // every) for r in rungs(budget) if -(-r // every) * every < budget}
    )


def test_a_trial_that_has_run_its_budget_is_not_judged() -> None:
    passed = optuna.trial.create_trial(value=1.0, intermediate_values={10: 1.0, 20: 1.0})
    assert is_due(passed, 21)  # rungs at 13 and 17
    assert not is_due(passed, 20)


@pytest.mark.parametrize(
    ("raw", "avg", "epoch", "others", "stopped"),
    [
        (3.1, 3.1, 7, 5, True),
        (3.0, 3.1, 7, 5, False),  # as good as half of them, by one of the two
        (3.1, 3.0, 7, 5, False),
        (3.1, 3.1, 6, 5, False),  # before a third of 20 epochs
        (3.1, 3.1, 7, 4, True),
        (3.0, 3.1, 7, 4, False),
        (9.0, 9.0, 7, 2, False),  # too few came so far
    ],
)
def test_before_anything_is_known_one_is_hopeless_that_is_worse_than_half(
    raw: float, avg: float, epoch: int, others: int, stopped: bool
) -> None:
    known, own = finished(7), finished(1)
    rank = np.repeat(np.arange(1.0, 8.0)[:, None], EPOCHS, axis=1)
    reached = np.where(np.arange(7) < others, 7, 5)  # the worst did not come so far
    known = replace(known, raw=rank, avg=rank, reached=reached)
    losses = np.repeat([[raw], [avg]], EPOCHS, axis=1)
    losses[:, 0] = 0.0  # they have been lower before
    own = replace(own, raw=losses[:1], avg=losses[1:])
    assert pruning.hopeless(own, epoch, known).tolist() == [stopped]


@pytest.mark.parametrize(
    ("raw_falls", "avg_falls", "epoch", "stopped"),
    [
        (True, True, 9, False),
        (True, True, 10, True),  # half of 20 epochs
        (True, False, 9, True),
        (False, True, 9, True),
    ],
)
def test_before_anything_is_known_one_that_still_falls_is_spared_until_half(
    raw_falls: bool, avg_falls: bool, epoch: int, stopped: bool
) -> None:
    known, own = finished(7), finished(1)
    low = np.ones((7, EPOCHS))
    known = replace(known, raw=low, avg=low, reached=np.full(7, epoch))
    falls, rises = np.linspace(4, 2, EPOCHS)[None], np.linspace(2, 4, EPOCHS)[None]
    own = replace(own, raw=falls if raw_falls else rises, avg=falls if avg_falls else rises)
    assert pruning.hopeless(own, epoch, known).tolist() == [stopped]


def test_the_first_report_and_a_past_nan_do_not_say_that_a_loss_has_risen() -> None:
    known, own = finished(7), finished(2)
    low = np.ones((7, EPOCHS))
    known = replace(known, raw=low, avg=low, reached=np.full(7, 8))
    first, broken = (
        np.full(EPOCHS, 3.0),
        np.linspace(4, 2, EPOCHS),
    )  # a report stands for all before
    broken[2] = np.nan
    losses = np.stack([first, broken])
    assert not pruning.hopeless(replace(own, raw=losses, avg=losses), 8, known).any()


def test_the_first_that_may_be_stopped_is_the_fourth() -> None:
    study = optuna.create_study(pruner=SchedulePruner())
    kept = random_schedules(1)[0].to_dict()
    stopped = []
    for loss in (1.0, 2.0, 9.0, 9.5):
        trial = study.ask()
        trial.set_user_attr("schedule", kept)
        for epoch in range(1, EPOCHS + 1):
            trial.report(loss + 0.01 * epoch, epoch)
            if trial.should_prune():
                stopped.append((trial.number, epoch))
                break
    assert stopped == [(3, 8)]


def test_a_trial_that_ends_while_others_run_is_seen_at_their_next_decision() -> None:
    study, pruner = optuna.create_study(), SchedulePruner()
    one, other = study.ask(), study.ask()
    for trial in (one, other):
        trial.set_user_attr("schedule", random_schedules(1)[0].to_dict())
        trial.report(1.0, 1)
    before = pruner._look(study, EPOCHS).judge
    study.tell(one, 1.0)
    after = pruner._look(study, EPOCHS).judge
    assert (before.finished, after.finished) == (0, 1)


def test_trials_that_are_judged_together_are_judged_as_each_would_be_alone() -> None:
    study = optuna.create_study(pruner=SchedulePruner())
    for schedule in random_schedules(30):
        run_trial(study, schedule)
    running = [study.ask() for _ in range(8)]
    for trial, schedule in zip(running, random_schedules(8, seed=5), strict=True):
        trial.set_user_attr("schedule", schedule.to_dict())
        raw, avg = losses_of(schedule.trace().lr)
        reports = 0 if trial is running[-1] else 3 + trial.number % 2
        trial.set_user_attr("avg_val_losses", avg[:reports].tolist())
        for epoch in range(1, reports + 1):
            trial.report(float(raw[epoch - 1]), epoch)
    together, trials = SchedulePruner(), study.get_trials(deepcopy=False)
    judge = Judge(load_curves(study, by_end([t for t in trials if t.state.is_finished()])))
    decided = []
    for trial in trials[30:-1]:
        own = load_curves(study, [trial])
        alone = pruning.stops(own, trial.last_step or 0, own, judge, pruning.SHARE)
        decided.append(together.prune(study, trial))
        assert [decided[-1]] == alone.tolist()
    assert set(decided) == {False, True}


def test_a_trial_without_a_schedule_is_never_stopped() -> None:
    study = optuna.create_study(pruner=SchedulePruner())
    trial = study.ask()
    trial.report(1e5, 1)
    with pytest.warns(UserWarning, match=r"ask for it by lrsearch\.suggest\(trial, epochs"):
        assert not trial.should_prune()


NO_SCHEDULES = ("cosine", 7, {"lr": 0.1}, {"lr": 0.1, "epochs": 20}, {"epochs": [20]}, [1, 2])


@pytest.mark.filterwarnings("ignore:SchedulePruner stops no trial without")
@pytest.mark.parametrize("kept", NO_SCHEDULES)
def test_a_trial_with_something_else_for_a_schedule_is_left_out(kept: object) -> None:
    decided = []
    for others in (0, 3):
        study = optuna.create_study(pruner=SchedulePruner())
        for _ in range(others):
            attrs = {"schedule": kept}
            study.add_trial(
                create_trial(value=0.01, intermediate_values={20: 0.01}, user_attrs=attrs)
            )
        decided.append([run_trial(study, schedule) for schedule in random_schedules(12)])
        trial = study.ask()
        trial.set_user_attr("schedule", kept)
        for epoch in range(1, EPOCHS):
            trial.report(1e5, epoch)
            assert not trial.should_prune()
    assert decided[0] == decided[1]
    assert TrialState.PRUNED in decided[0]


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match="above 0 and below 1"):
        SchedulePruner(share)


def test_averages_are_read_from_our_own_storage(tmp_path: Path) -> None:
    from lrsearch.measured import EpochResult
    from lrsearch.storage import open_storage
    from tests.storage_worker import record

    storage = open_storage(f"sqlite:///{tmp_path}/a.db")
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    trial.set_user_attr("schedule", random_schedules(1)[0].to_dict())
    for epoch, loss in ((2, 0.5), (4, 0.25)):
        result = EpochResult(
            epoch=epoch, lr=0.1, train_loss=1.0, val_loss=loss, val_metric=None,
            avg_val_loss=loss / 2, avg_val_metric=None, seconds=0.1,
        )  # fmt: skip
        record(storage, trial._trial_id, result)
    curves = load_curves(study)
    assert curves.reached.tolist() == [4]
    np.testing.assert_allclose(curves.avg[0, :4], [0.25, 0.25, 0.25, 0.125])
    np.testing.assert_allclose(curves.raw[0, :4], [0.5, 0.5, 0.5, 0.25])
    assert np.isnan(curves.raw[0, 4:]).all()


def test_where_the_averaged_loss_ranks_as_well_as_the_predictors_more_leaders_go_on() -> None:
    """Of 19 that came to epoch 10, and itself: those with fewer than 3 better ones, or 12."""
    lr = np.stack([s.trace().lr for s in random_schedules(19)])
    curves = np.array([losses_of(row) for row in lr])
    full, state = np.full(len(lr), EPOCHS), np.full(len(lr), COMPLETE)
    luck = np.random.default_rng(0).permutation(len(lr))

    def leaders(at_ten: Array) -> int:
        avg = curves[luck, 1]
        avg[:, 9] = at_ten  # no other epoch tells
        settled = Curves(lr, curves[:, 0], avg, full, state, trace_features(lr))
        return int(Judge(settled).leads(settled, 10).sum())

    final = curves[:, 0, -1]
    assert (leaders(final), leaders(final[luck])) == (12, 3)


def finished(n: int) -> Curves:
    lr = np.stack([s.trace().lr for s in random_schedules(n)])
    curves = np.array([losses_of(row) for row in lr])
    full, state = np.full(n, EPOCHS), np.full(n, COMPLETE)
    return Curves(lr, curves[:, 0], curves[:, 1], full, state, trace_features(lr))


def test_predictors_are_weighted_by_how_well_each_foretold_the_finished_from_the_others() -> None:
    rung = Judge(finished(20))._alone(10)
    foretold = [process.leave_one_out() for process in rung.processes]
    evidence = np.array([norm.logpdf(error, scale=sd).sum() for error, sd in foretold])
    expected = np.exp(evidence - evidence.max())
    np.testing.assert_allclose(rung.weights, expected / expected.sum())
    assert rung.weights.min() > 0


def test_a_loss_that_always_falls_by_the_same_part_from_its_average_is_foretold_by_that() -> None:
    known = finished(20)
    known = replace(known, raw=np.repeat(0.8 * known.avg[:, 9:10], EPOCHS, axis=1))
    rung = Judge(known.take(np.arange(18)))._alone(10)
    new = known.take(np.arange(18, 20))
    means, _ = rung.predict(new.features, np.log(new.avg[:, 9]))
    np.testing.assert_allclose(means[2], np.log(new.raw[:, -1]), atol=1e-6)


def test_the_predictors_together_are_a_mixture() -> None:
    class Sure:
        def __init__(self, mean: float, sd: float) -> None:
            self.told = np.array([mean]), np.array([sd])

        def predict(self, x: Array, linear: Array) -> tuple[Array, Array]:
            return self.told

    three: Any = Sure(1.0, 0.1), Sure(2.0, 0.2), Sure(3.0, 0.3)
    rung = Rung((0.5, 9.0), three, np.array([0.5, 0.3, 0.2]), freedom=7.0)
    own = np.zeros((1, 2)), np.array([0.7])  # above the cap of 0.5, where the third starts from
    mean, sd = rung.moments(*own)
    second = 0.5 * (1 + 0.01) + 0.3 * (4 + 0.04) + 0.2 * (3.5**2 + 0.09)
    assert mean[0] == pytest.approx(0.5 + 0.6 + 0.7)
    assert sd[0] == pytest.approx(np.sqrt(second - 1.8**2))
    below = 0.5 * t.cdf(10, 7) + 0.3 * t.cdf(0, 7) + 0.2 * t.cdf(-5, 7)
    assert rung.chance(*own, best=2.0)[0] == pytest.approx(below)


def test_what_is_learnt_is_learnt_anew_when_an_eighth_more_have_ended() -> None:
    every = finished(18)
    learnt = [Judge(every.take(np.arange(n)))._alone(10).thetas for n in (16, 17, 18)]
    assert [theta.tolist() for theta in learnt[0]] == [theta.tolist() for theta in learnt[1]]
    assert learnt[1][0].tolist() != learnt[2][0].tolist()


def test_agreement_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=12)
    other = one + rng.normal(size=12)
    assert agreement(one, other) == pytest.approx(spearmanr(one, other).statistic)
