"""Sampler and pruner in a study of the user's own: other loops, samplers, threads, names."""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

import lrsearch
from lrsearch.errors import UsageError
from lrsearch.prediction.curves import COMPLETE, CurveReader, load_curves
from lrsearch.prediction.judge import STARTUP
from lrsearch.schedules import Schedule
from lrsearch.search.pruning import SchedulePruner
from lrsearch.search.sampling import LEAST_KNOWN, TraceSampler

EPOCHS = 12
FAMILIES = ["ConstantLR", "StepLR", "CosineAnnealingLR"]
SEED = 1
SPACE = lrsearch.Space(FAMILIES, EPOCHS, (1e-3, 1.0), "step")
pytestmark = pytest.mark.usefixtures("quiet_optuna")


def loss_of(schedule: Schedule, epoch: int) -> float:
    """Best at lr 0.1, falling over the epochs."""
    return 0.1 + math.log10(schedule.lr / 0.1) ** 2 + 1 / epoch


def ask(trial: optuna.trial.BaseTrial, epochs: int = EPOCHS) -> Schedule:
    return lrsearch.suggest(trial, epochs, schedules=FAMILIES, lr=(1e-3, 1.0))


def make(
    sampler: optuna.samplers.BaseSampler | None = None,
    pruner: optuna.pruners.BasePruner | None = None,
    name: str | None = None,
) -> optuna.Study:
    sampler = sampler or optuna.samplers.RandomSampler(seed=SEED)
    return optuna.create_study(sampler=sampler, pruner=pruner or SchedulePruner(), study_name=name)


def run(study: optuna.Study, trials: int, epochs: int = EPOCHS, scale: float = 1.0) -> None:
    def objective(trial: optuna.Trial) -> float:
        schedule = ask(trial, epochs)
        pruning = lrsearch.PruningCallback(trial)
        for epoch in range(1, epochs + 1):
            pruning(scale * loss_of(schedule, epoch))
        return scale * loss_of(schedule, epochs)

    study.optimize(objective, n_trials=trials)


def states(study: optuna.Study) -> list[TrialState]:
    return [trial.state for trial in study.get_trials(deepcopy=False)]


def test_an_objective_runs_again_with_the_best_trial() -> None:
    """As Optuna's tutorial does: a finished trial has no hash."""
    study = make()
    run(study, 3)
    best = study.best_trial
    schedule = ask(best)
    assert schedule == Schedule.from_dict(study.best_trial.user_attrs["schedule"])
    pruning = lrsearch.PruningCallback(best)
    for epoch in range(1, EPOCHS + 1):
        pruning(loss_of(schedule, epoch))
    with pytest.raises(UsageError, match=f"epoch {EPOCHS + 1} of a schedule of {EPOCHS}"):
        pruning(1.0)


@pytest.mark.parametrize(("first", "then"), [(10, 30), (30, 10), (4, 30), (30, 4)])
def test_a_study_whose_budget_changes_learns_from_trials_of_the_same(
    first: int, then: int
) -> None:
    study, fresh = make(), make()
    run(study, 20, first)
    study.sampler = TraceSampler(SEED)
    run(study, 30, then)
    fresh.sampler = TraceSampler(SEED)
    for _ in range(20):  # the draws follow from the trial's number
        fresh.tell(fresh.ask(), state=TrialState.FAIL)
    run(fresh, 30, then)
    ours, alone = study.trials[20:], fresh.trials[20:]
    assert [t.params for t in ours] == [t.params for t in alone]
    assert [t.intermediate_values for t in ours] == [t.intermediate_values for t in alone]


@pytest.mark.parametrize(
    "steps", [range(3, 12, 3), range(12), range(1, 8)], ids=["every third", "from 0", "ends early"]
)
def test_a_loop_that_does_not_report_its_last_epoch_is_pruned_too(steps: range) -> None:
    study = make()

    def objective(trial: optuna.Trial) -> float:
        schedule = ask(trial)
        for step in steps:
            trial.report(loss_of(schedule, step + 1), step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss_of(schedule, steps[-1] + 1)

    study.optimize(objective, n_trials=40)
    assert TrialState.PRUNED in states(study)
    curves = load_curves(study)
    final = [trial.value for trial in study.trials if trial.state == TrialState.COMPLETE]
    np.testing.assert_array_equal(curves.raw[curves.state == COMPLETE, -1], final)


def test_trials_that_reported_nothing_are_known_by_their_values() -> None:
    study = make(TraceSampler(SEED))
    study.optimize(lambda trial: loss_of(ask(trial), EPOCHS), n_trials=2 * LEAST_KNOWN)
    number = len(study.trials)
    trial = study.ask()
    ask(trial)
    assert trial.params != TraceSampler(SEED)._random(number, SPACE)
    run(study, 30)
    assert TrialState.PRUNED in states(study)[number + STARTUP :]


def test_threads_decide_one_after_the_other() -> None:
    class Watched(SchedulePruner):
        inside = most = 0

        def _decide(self, *args: Any) -> bool:
            self.inside += 1
            self.most = max(self.most, self.inside)
            time.sleep(0.01)
            self.inside -= 1
            return False

    pruner = Watched()
    study = make(pruner=pruner)
    trials = [study.ask() for _ in range(4)]
    for trial in trials:
        ask(trial)
        trial.report(1.0, 1)
    threads = [threading.Thread(target=trial.should_prune) for trial in trials]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pruner.most == 1


@pytest.mark.parametrize("fixed", [{"lr": 0.1}, {"scheduler": "StepLR"}])
def test_a_part_of_the_schedule_may_be_fixed(fixed: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.PartialFixedSampler(fixed, TraceSampler(SEED))
    study = make(sampler)
    run(study, 15)
    assert all(trial.params.items() >= fixed.items() for trial in study.trials)
    assert len({str(trial.params) for trial in study.trials}) > LEAST_KNOWN


def test_sampler_and_pruner_may_serve_another_study_of_the_same_name() -> None:
    sampler, pruner = TraceSampler(SEED), SchedulePruner()
    run(make(sampler, pruner, "mine"), 14, scale=100.0)
    again, fresh = make(sampler, pruner, "mine"), make(TraceSampler(SEED), name="mine")
    for study in (again, fresh):
        run(study, 30)
    assert [t.params for t in again.trials] == [t.params for t in fresh.trials]
    assert states(again) == states(fresh)


def test_parameters_beside_the_schedule_are_others_after_a_restart() -> None:
    study = make()

    def objective(trial: optuna.Trial) -> float:
        decay = trial.suggest_float("weight_decay", 0.0, 1.0)
        optimizer = trial.suggest_categorical("optimizer", ["sgd", "adam"])
        return loss_of(ask(trial), EPOCHS) + decay + (optimizer == "sgd")

    for _ in range(3):
        study.sampler = TraceSampler(SEED)
        study.optimize(objective, n_trials=5)
    assert len({trial.params["weight_decay"] for trial in study.trials}) == 15
    assert {trial.params["optimizer"] for trial in study.trials} == {"sgd", "adam"}


def test_a_trial_that_waited_when_it_was_read_is_seen_when_it_runs() -> None:
    study, reader = make(), CurveReader()
    study.enqueue_trial({"lr": 0.1})
    assert not reader.rows(study, study.get_trials(deepcopy=False))
    ask(study.ask())
    assert set(reader.rows(study, study.get_trials(deepcopy=False))) == {0}


def test_one_curve_that_was_stopped_at_two_losses_is_believed_by_each() -> None:
    study = make(pruner=optuna.pruners.NopPruner())
    run(study, 10)
    for loss in (1.3, 4.0):
        study.enqueue_trial({"lr": 0.05, "scheduler": "ConstantLR"})
        trial = study.ask()
        ask(trial)
        for epoch in range(1, 5):
            trial.report(loss, epoch)
        study.tell(trial, state=TrialState.PRUNED)
    pruner = SchedulePruner()
    warm = pruner._judge_of(study, study.trials[:11], EPOCHS).beliefs()[0]
    both = pruner._judge_of(study, study.trials, EPOCHS).beliefs()[0]
    fresh = SchedulePruner()._judge_of(study, study.trials, EPOCHS).beliefs()[0]
    np.testing.assert_allclose(both, fresh)
    np.testing.assert_allclose(both[:11], warm)
    assert both[11] > both[10]


def test_a_study_that_maximises_is_refused_by_sampler_and_pruner() -> None:
    study = optuna.create_study(direction="maximize", sampler=TraceSampler(SEED))
    with pytest.raises(UsageError, match="minimises one validation loss, this one has maximize"):
        SPACE.suggest(study.ask())
    study = optuna.create_study(direction="maximize", pruner=SchedulePruner())
    trial = study.ask()
    trial.set_user_attr("schedule", Schedule("ConstantLR", 0.1, EPOCHS).to_dict())
    trial.report(1.0, 1)
    with pytest.raises(UsageError, match="minimises one validation loss, this one has maximize"):
        trial.should_prune()


def test_reports_of_steps_are_no_epochs() -> None:
    study = make()
    trial = study.ask()
    ask(trial)
    for step in range(EPOCHS + 1):  # one before the first epoch, perhaps
        trial.report(1.0, step)
        assert not trial.should_prune()
    trial.report(1.0, EPOCHS + 1)
    with pytest.raises(UsageError, match=f"step {EPOCHS + 1} was reported.*of {EPOCHS} epochs"):
        trial.should_prune()


def test_a_trial_has_one_schedule() -> None:
    trial = make().ask()
    schedule = ask(trial)
    assert ask(trial) == schedule
    with pytest.raises(UsageError, match="with other arguments before, and has but one: build"):
        ask(trial, EPOCHS + 1)
    assert trial.user_attrs["schedule"] == schedule.to_dict()


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("lr", lambda trial: trial.suggest_float("lr", 1e-6, 10.0, log=True)),
        ("lr", lambda trial: trial.suggest_float("lr", 1e-4, 1.0)),
        ("warmup", lambda trial: trial.suggest_int("warmup", 0, 500)),
        ("scheduler", lambda trial: trial.suggest_categorical("scheduler", ["cosine", "step"])),
    ],
)
def test_a_parameter_of_the_objective_under_a_name_of_ours_is_named(
    name: str, own: Callable[[optuna.Trial], Any]
) -> None:
    trial = make().ask()
    own(trial)
    with pytest.raises(UsageError, match=f"the objective asks for '{name}' itself.*another name"):
        ask(trial)


def test_a_parameter_of_the_same_range_is_shared_with_the_objective() -> None:
    trial = make().ask()
    lr = trial.suggest_float("lr", 1e-3, 1.0, log=True)
    assert ask(trial).lr == lr


@pytest.mark.filterwarnings("ignore:Fixed parameter")  # Optuna's, of a value out of its range
@pytest.mark.parametrize(
    ("queued", "message"),
    [
        ({"scheduler": "Step"}, "make no schedule: 'Step' not in .'ConstantLR'"),
        ({"lr": "0.1"}, "make no schedule: .*'<' not supported"),
        ({"lr": -0.1}, "make no schedule: .*-0.1. is invalid"),
        (
            {"scheduler": "StepLR", "StepLR.gamma": 3.0},
            "StepLR.gamma: must be .* at most 1, got 3",
        ),
    ],
)
def test_queued_values_that_make_no_schedule_are_named(
    queued: dict[str, Any], message: str
) -> None:
    study = make()
    study.enqueue_trial(queued)
    trial = study.ask()
    with pytest.raises(UsageError, match=f"the queued values .*{message}"):
        ask(trial)


@pytest.mark.parametrize("first", [0, 1])
def test_steps_that_are_no_epochs_are_spread_over_the_budget(first: int) -> None:
    """An objective that reports every batch, as many do, with a pruner of Optuna's."""
    study = make(pruner=optuna.pruners.NopPruner())

    def objective(trial: optuna.Trial) -> float:
        schedule = ask(trial)
        for step in range(10 * EPOCHS):
            trial.report(loss_of(schedule, 1 + step // 10), first + step)
            if trial.number == 1 and step == 5 * EPOCHS - 1:
                raise optuna.TrialPruned
        return loss_of(schedule, EPOCHS)

    study.optimize(objective, n_trials=6)
    tables = lrsearch.report(study).tables
    assert [trial.epochs for trial in tables.table.trials] == [EPOCHS, EPOCHS // 2] + 4 * [EPOCHS]
    assert tables.stopped.saved == pytest.approx(1 / 12)
    curves = load_curves(study)
    np.testing.assert_array_equal(curves.reached, 0)
    values = [trial.value for trial in study.trials if trial.state == TrialState.COMPLETE]
    np.testing.assert_array_equal(curves.raw[curves.state == COMPLETE, -1], values)


def test_averaged_losses_that_came_after_the_report_are_seen_at_the_end() -> None:
    study, reader = make(), CurveReader()
    trial = study.ask()
    ask(trial)
    for epoch in (1, 2):
        trial.report(1.0, epoch)
        reader.rows(study, study.get_trials(deepcopy=False))
        trial.set_user_attr("avg_val_losses", [0.5] * epoch)
    study.tell(trial, state=TrialState.PRUNED)
    row = reader.rows(study, study.get_trials(deepcopy=False))[0]
    assert row.avg[:2].tolist() == [0.5, 0.5]
