"""Schedules inside a user's own Optuna objective: any storage, pruning, divergence, averages."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
import yaml
from torch import nn

import lrsearch
from lrsearch.divergence import DIVERGED_LOSS
from lrsearch.errors import ConfigError, UsageError
from lrsearch.export import best_trial, configuration, export_text
from lrsearch.prediction.curves import COMPLETE, DIVERGED, load_curves
from lrsearch.report.page import write_report
from lrsearch.report.tables import load
from lrsearch.schedules import FixedParams, Schedule, Space
from lrsearch.search.progress import read_progress
from lrsearch.search.pruning import SchedulePruner
from lrsearch.storage import open_storage
from lrsearch.tracking import METRIC, _points

EPOCHS = 6
Loss = Callable[[Schedule, int], float]
pytestmark = pytest.mark.usefixtures("quiet_optuna")


def known_loss(schedule: Schedule, epoch: int) -> float:
    """Best at lr 0.1, falling over the epochs."""
    return 0.1 + math.log10(schedule.lr / 0.1) ** 2 + 1 / epoch


def run(study: optuna.Study, trials: int, loss: Loss = known_loss) -> None:
    """A search with an objective as a user writes it."""

    def objective(trial: optuna.Trial) -> float:
        schedule = lrsearch.suggest(trial, EPOCHS, lr=(1e-3, 10.0))
        pruning = lrsearch.PruningCallback(trial)
        value = math.inf
        for epoch in range(EPOCHS):
            value = loss(schedule, epoch + 1)
            pruning(value)
        return value

    study.optimize(objective, n_trials=trials)


def in_memory(pruner: optuna.pruners.BasePruner | None = None) -> optuna.Study:
    sampler = optuna.samplers.RandomSampler(seed=1)
    return optuna.create_study(sampler=sampler, pruner=pruner or optuna.pruners.NopPruner())


def studies(tmp_path: Path) -> list[optuna.Study]:
    """The same study in memory, in a database of Optuna, and in one of ours."""
    own = f"sqlite:///{tmp_path / 'own.db'}"
    stores = [None, f"sqlite:///{tmp_path / 'plain.db'}", open_storage(own)]
    return [
        optuna.create_study(
            storage=store,
            study_name="mine",
            sampler=optuna.samplers.RandomSampler(seed=1),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=3),
        )
        for store in stores
    ]


def test_stored_schedule_is_the_one_that_the_parameters_say() -> None:
    study = in_memory()
    run(study, 20)
    space = Space(None, EPOCHS, (1e-3, 10.0), "step")
    for trial in study.trials:
        stored = Schedule.from_dict(trial.user_attrs["schedule"])
        assert stored == space.suggest(FixedParams(trial.params))


def test_every_suggested_schedule_suits_a_loop_that_steps_after_each_batch() -> None:
    study = in_memory()
    for _ in range(40):
        schedule = lrsearch.suggest(study.ask(), EPOCHS)
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
        scheduler = schedule.build(optimizer, steps_per_epoch=5)
        used = []
        for _ in range(EPOCHS * 5):
            used.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        assert used == schedule.trace(5).lr.tolist()
    assert {t.params["scheduler"] for t in study.trials} >= {"StepLR", "OneCycleLR"}


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["memory", "optuna database", "our database"])
def test_report_and_export_work_on_a_study_of_ones_own(tmp_path: Path, kind: int) -> None:
    study = studies(tmp_path)[kind]
    assert lrsearch.enqueue_baselines(study, EPOCHS, usual_lr=0.5, lr=(1e-3, 10.0)) == [
        "ConstantLR",
        "StepLR",
        "CosineAnnealingLR",
        "OneCycleLR",
    ]
    run(study, 15)
    table = load(study)
    assert len(table.trials) == 15
    assert table.budget == EPOCHS
    assert {t.baseline for t in table.trials} == {
        None, "ConstantLR", "StepLR", "CosineAnnealingLR", "OneCycleLR",
    }  # fmt: skip
    assert table.having("pruned")
    page = write_report(study, tmp_path / "report.html")[0].read_text()
    assert study.study_name in page
    assert "make_scheduler" in page
    content = yaml.safe_load(export_text(study))
    assert content["schedule"] == study.best_trial.user_attrs["schedule"]
    assert content["result"]["value"] == study.best_value
    assert len(content["result"]["baselines"]) == 4
    assert content["made_by"]["torch"] == torch.__version__
    (tmp_path / "best.yaml").write_text(export_text(study))
    best = lrsearch.load(tmp_path / "best.yaml")
    assert best == Schedule.from_dict(study.best_trial.user_attrs["schedule"])
    assert "def make_scheduler" in export_text(study, python=True)


def test_a_journal_of_optuna_is_a_storage_like_any_other(tmp_path: Path) -> None:
    """It, too, has a ``_backend``, which is no storage."""
    journal = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log"))
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(journal),
        study_name="mine",
        sampler=lrsearch.TraceSampler(seed=1),
        pruner=lrsearch.SchedulePruner(),
    )
    run(study, 16)
    result = lrsearch.report(study)
    assert set(result.importance) == {"scheduler", "lr", "warmup"}
    assert len(result.trials) == 16
    assert result.value == study.best_value
    assert result.write(tmp_path / "report.html") == [tmp_path / "report.html"]
    assert yaml.safe_load(result.export())["result"]["value"] == study.best_value
    assert _points(study, study.best_trial)[-1] == (METRIC, EPOCHS, study.best_value)


def test_progress_knows_how_trials_of_a_silent_loop_ended() -> None:
    study = in_memory()

    def objective(trial: optuna.Trial) -> float:
        lrsearch.suggest(trial, EPOCHS)
        trial.report(1.0, 1)
        if trial.number == 1:
            raise optuna.TrialPruned
        return 1.0

    study.optimize(objective, n_trials=2)
    rows = read_progress(study, 2, EPOCHS).rows
    assert [row.status for row in rows] == ["complete", "pruned"]
    assert [row.epochs for row in rows] == [1, 1]


def test_baselines_are_queued_once_and_never_pruned() -> None:
    class Always(optuna.pruners.BasePruner):
        def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
            return True

    study = in_memory(Always())
    lrsearch.enqueue_baselines(study, EPOCHS, usual_lr=0.1, lr=(1e-3, 10.0))
    assert lrsearch.enqueue_baselines(study, EPOCHS, usual_lr=0.1, lr=(1e-3, 10.0)) == []
    run(study, 6)
    states = [t.state.name for t in study.trials]
    assert states == ["COMPLETE"] * 4 + ["PRUNED"] * 2
    assert all(t.user_attrs["schedule"]["lr"] == 0.1 for t in study.trials[:4])
    assert lrsearch.enqueue_baselines(study, EPOCHS, usual_lr=0.1, lr=(1e-3, 10.0)) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_diverged_trial_is_pruned_with_a_large_finite_loss(bad: float) -> None:
    study = in_memory()
    run(study, 2, lambda schedule, epoch: 1.0 if epoch < 3 else bad)
    for trial in study.trials:
        assert trial.state == optuna.trial.TrialState.PRUNED
        assert trial.value == DIVERGED_LOSS
        assert trial.user_attrs["stopped"] == "diverged"
        assert trial.user_attrs["epochs"] == 3
    assert [t.status for t in load(study).trials] == ["diverged", "diverged"]


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["memory", "optuna database", "our database"])
def test_losses_in_raw_units_are_losses_like_any_other(tmp_path: Path, kind: int) -> None:
    """A regression of prices has errors of 1e7 all along; one that blows up is told apart."""

    def loss(schedule: Schedule, epoch: int) -> float:
        if schedule.lr > 3:
            return math.nan if epoch == 2 else 1e7
        if schedule.lr > 1:
            return 3e7 * 100.0 ** (4 * epoch)
        return 3e7 * (1 + schedule.lr) / epoch

    study = studies(tmp_path)[kind]
    run(study, 40, loss)
    table = load(study)
    by_lr = {t.lr: t.status for t in table.trials}
    assert {s for lr, s in by_lr.items() if lr > 3} == {"diverged"}
    assert "pruned" not in {s for lr, s in by_lr.items() if lr > 1}  # but blown up
    progress = read_progress(study, 40, EPOCHS)
    for status in ("complete", "pruned", "diverged"):
        assert progress.count(status) == len(table.having(status))
    assert {s for lr, s in by_lr.items() if lr <= 1} <= {"complete", "pruned"}
    done = table.having("complete")
    assert len(done) > 5
    for trial in table.trials:
        kept = table.history.of(trial.trial_id, "val_loss")
        if trial.lr <= 1:
            assert np.isfinite(kept).all()
        else:
            assert math.isinf(kept[-1])
    curves = load_curves(study)
    ended = dict(zip([t.lr for t in table.trials], curves.state, strict=True))
    assert {state == DIVERGED for lr, state in ended.items() if lr > 1} == {True}
    assert {state == DIVERGED for lr, state in ended.items() if lr <= 1} == {False}
    for trial in study.trials:
        schedule = Schedule.from_dict(trial.user_attrs["schedule"])
        for epoch, value in trial.intermediate_values.items():
            assert value in (loss(schedule, epoch), DIVERGED_LOSS)


def test_a_trial_that_diverged_is_never_complete_whatever_its_loop_returns() -> None:
    study = in_memory()

    def objective(trial: optuna.Trial) -> float:
        lrsearch.suggest(trial, EPOCHS)
        trial.set_user_attr("baseline", ("ConstantLR", "StepLR")[trial.number])
        pruning = lrsearch.PruningCallback(trial)
        return 0.1 if pruning.report(math.nan if trial.number else 0.5, epoch=EPOCHS) else 0.5

    study.optimize(objective, n_trials=2)
    assert [t.value for t in study.trials] == [0.5, 0.1]
    assert [t.status for t in load(study).trials] == ["complete", "diverged"]
    rows = read_progress(study, 2, EPOCHS).rows
    assert [row.status for row in rows] == ["complete", "diverged"]
    assert load_curves(study).state.tolist() == [COMPLETE, DIVERGED]
    assert best_trial(study).number == 0
    assert configuration(study, study.trials[0])["result"]["baselines"] == {"ConstantLR": 0.5}


def test_completed_trial_is_marked_with_its_epochs_and_metric() -> None:
    trial = in_memory().ask()
    lrsearch.suggest(trial, 2)
    pruning = lrsearch.PruningCallback(trial)
    pruning(1.0, val_metric=0.5, avg_val_loss=0.9)
    pruning(torch.tensor(0.5), val_metric=0.75, avg_val_loss=math.nan)  # type: ignore[arg-type]
    attrs = trial.user_attrs
    assert (attrs["stopped"], attrs["epochs"], attrs["val_metric"]) == ("completed", 2, 0.75)
    assert attrs["avg_val_losses"] == [0.9, DIVERGED_LOSS]
    assert "avg_val_loss" not in attrs  # NaN is no number, and no JSON


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ([0.9, DIVERGED_LOSS], [0.9, math.nan]),
        ([0.9], [math.nan, math.nan]),  # not one each report
        ("x", [math.nan, math.nan]),
        ([None, "x"], [math.nan, math.nan]),
    ],
)
def test_averaged_losses_of_a_loop_of_ones_own_are_in_the_report(
    kept: object, expected: list[float]
) -> None:
    study = in_memory()
    trial = study.ask()
    lrsearch.suggest(trial, 2)
    pruning = lrsearch.PruningCallback(trial)
    pruning(1.0)
    pruning(0.5)
    trial.set_user_attr("avg_val_losses", kept)
    study.tell(trial, 0.5)
    history = load(study).history
    np.testing.assert_array_equal(history.of(trial._trial_id, "val_loss"), [1.0, 0.5])
    np.testing.assert_array_equal(history.of(trial._trial_id, "avg_val_loss"), expected)


@pytest.mark.parametrize("kept", ["x", [1], None, {"epochs": 2}, {"family": "x", "epochs": "y"}])
def test_callback_of_a_trial_whose_schedule_is_none_of_ours(kept: object) -> None:
    trial = in_memory().ask()
    trial.set_user_attr("schedule", kept)
    pruning = lrsearch.PruningCallback(trial)
    assert not any(pruning.report(1.0) for _ in range(3))
    assert "stopped" not in trial.user_attrs


@pytest.mark.parametrize(
    ("kept", "expected"), [([9.0, 0.9, "x"], [0.9, 0.5]), ("x", [1.0, 0.5]), ([1], [1.0, 0.5])]
)
def test_sampler_and_pruner_see_averaged_losses_by_step(
    kept: object, expected: list[float]
) -> None:
    study = in_memory()
    trial = study.ask()
    lrsearch.suggest(trial, 2)
    for step, loss in enumerate((5.0, 1.0, 0.5)):  # one before the first epoch
        trial.report(loss, step)
    trial.set_user_attr("avg_val_losses", kept)
    study.tell(trial, 0.5)
    np.testing.assert_array_equal(load_curves(study).avg, [expected])


def test_loop_that_validates_now_and_then_gives_the_epoch() -> None:
    study = in_memory()
    trial = study.ask()
    lrsearch.suggest(trial, EPOCHS)
    pruning = lrsearch.PruningCallback(trial)
    for epoch in (2, 4, 6):
        assert pruning.report(1 / epoch, epoch=epoch) is False
    assert study.trials[0].intermediate_values == {2: 0.5, 4: 0.25, 6: 1 / 6}
    with pytest.raises(UsageError, match=r"from 1, and rises: got 6 after 6; leave it out"):
        pruning(0.1, epoch=6)
    with pytest.raises(UsageError, match="got 0 after 0"):
        lrsearch.PruningCallback(trial)(0.1, epoch=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p("low"), "val_loss must be one number, got 'low'"),
        (
            lambda p: p(torch.ones(2)),
            r"val_loss must be one number, got shape \(2,\); take its mean",
        ),
        (lambda p: p(1.0, val_metric="x"), "val_metric must be one number, got 'x'"),
        (lambda p: p(1.0, avg_val_loss=[1]), r"avg_val_loss must be one number, got \[1\]"),
        (lambda p: p(1.0, epoch=1.5), "epoch counts the epochs finished.*got 1.5 after 0"),
        (lambda p: p(1.0, epoch="1st"), "got '1st' after 0"),
        (lambda p: p.average(nn.Linear(1, 1), None, 2.5), "whole number, at least 1, got 2.5"),
        (lambda p: lrsearch.PruningCallback(None), "must be an Optuna trial, got None"),
        (lambda p: lrsearch.enqueue_baselines("mine", 3), "must be an Optuna study, got 'mine'"),
        (lambda p: lrsearch.enqueue_baselines(in_memory(), 3, usual_lr=-1), "usual_lr: .*got -1"),
        (
            lambda p: lrsearch.enqueue_baselines(in_memory(), 3, usual_lr="x"),
            "usual_lr: .*got 'x'",
        ),
    ],
)
def test_a_wrong_argument_is_named_at_once(call: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call(lrsearch.PruningCallback(in_memory().ask()))


def test_an_error_that_a_device_tells_late_is_not_taken_for_a_wrong_argument() -> None:
    class Late(torch.Tensor):
        def __float__(self) -> float:
            raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side assert"):
        lrsearch.PruningCallback(in_memory().ask())(torch.ones(()).as_subclass(Late))


def test_schedule_pruner_uses_the_averaged_losses_of_a_loop_of_ones_own() -> None:
    study = in_memory(SchedulePruner())

    def objective(trial: optuna.Trial) -> float:
        schedule = lrsearch.suggest(trial, 20, lr=(1e-3, 10.0))
        pruning = lrsearch.PruningCallback(trial)
        for epoch in range(1, 21):
            loss = known_loss(schedule, epoch)
            pruning(loss, avg_val_loss=loss)
        return loss

    study.optimize(objective, n_trials=40)
    states = [t.state.name for t in study.trials]
    assert states.count("PRUNED") >= 5
    assert study.best_value == min(t.value for t in study.trials if t.value is not None)


def test_average_follows_every_optimizer_step_as_the_formula_says() -> None:
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruning = lrsearch.PruningCallback(in_memory().ask())
    with pytest.raises(UsageError, match="no average is kept"):
        _ = pruning.averaged
    pruning.average(model, optimizer, steps_per_epoch=4)
    expected = model.weight.detach().clone()
    for step in range(1, 41):
        model(torch.randn(3, 2)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        horizon = min(max(0.2 * step, 1.0), 8.0)
        expected += (model.weight.detach() - expected) / horizon
    averaged = pruning.averaged
    assert isinstance(averaged, nn.Linear)
    torch.testing.assert_close(averaged.weight.detach(), expected)
    assert not averaged.training


def test_a_loss_that_still_has_its_gradient_is_taken_without_a_warning() -> None:
    trial = in_memory().ask()
    lrsearch.suggest(trial, 3)
    loss = nn.Linear(2, 1)(torch.ones(1, 2)).square().mean()
    assert loss.requires_grad
    lrsearch.PruningCallback(trial)(loss)  # of a validation that forgot torch.no_grad()
    assert trial.storage.get_trial(trial._trial_id).intermediate_values[1] == loss.item()


def test_same_arguments_as_the_command_line_and_mistakes_together() -> None:
    trial = in_memory().ask()
    schedule = lrsearch.suggest(
        trial, 30, schedules={"StepLR": {"gamma": [0.1, 0.5]}}, lr=(0.1, 0.2), warmup=False
    )
    assert schedule.family == "StepLR"
    assert 0.1 <= schedule.params["gamma"] <= 0.5
    assert "warmup" not in trial.params
    with pytest.raises(ConfigError, match=r"schedules.StepLRR: .* did you mean StepLR"):
        lrsearch.suggest(trial, 30, schedules="StepLRR")
    with pytest.raises(ConfigError, match="low 1 is above high"):
        lrsearch.suggest(trial, 30, lr=(1.0, 0.5))
    with pytest.raises(ConfigError, match="needs at least"):
        lrsearch.suggest(trial, 1, schedules=["MultiStepLR"])


def test_plateau_and_family_intervals_are_there_for_who_asks() -> None:
    study = in_memory()
    plateau = lrsearch.suggest(study.ask(), 30, schedules="ReduceLROnPlateau")
    assert plateau.interval == "epoch"
    study = in_memory()
    auto = [
        lrsearch.suggest(study.ask(), 30, schedules="OneCycleLR,StepLR", interval="auto")
        for _ in range(10)
    ]
    assert {s.family: s.interval for s in auto} == {"OneCycleLR": "step", "StepLR": "epoch"}


@pytest.mark.parametrize("directions", [["maximize"], ["minimize", "minimize"]])
def test_study_that_does_not_minimise_one_loss_is_refused(directions: list[str]) -> None:
    study = optuna.create_study(directions=directions)
    with pytest.raises(UsageError, match="minimises one validation loss, this one has"):
        lrsearch.suggest(study.ask(), 30)
    with pytest.raises(UsageError, match="direction='minimize'"):
        lrsearch.enqueue_baselines(study, 30)


def test_fixed_trial_repeats_a_known_schedule() -> None:
    study = in_memory()
    run(study, 3)
    fixed = optuna.trial.FixedTrial(study.best_params)
    schedule = lrsearch.suggest(fixed, EPOCHS, lr=(1e-3, 10.0))
    assert schedule.to_dict() == study.best_trial.user_attrs["schedule"]
    lrsearch.PruningCallback(fixed)(0.1)


def test_trial_without_a_schedule_is_still_reported_and_pruned() -> None:
    study = in_memory(optuna.pruners.ThresholdPruner(upper=5.0))
    trial = study.ask()
    pruning = lrsearch.PruningCallback(trial)
    pruning(1.0)
    with pytest.raises(optuna.TrialPruned, match="pruned after epoch 2"):
        pruning(7.0)


def test_configuration_of_a_study_of_ones_own_has_no_made_up_task() -> None:
    study = in_memory()
    run(study, 3)
    content = configuration(study, study.best_trial)
    assert set(content) == {"schedule", "result", "study", "made_by"}
    assert content["study"] == {"name": study.study_name, "trial": study.best_trial.number}


def own_loop(
    study: optuna.Study, steps: int, calls: int, interval: str = "step", epochs: int = 4
) -> None:
    """A loop of ``steps`` optimizer steps an epoch that calls scheduler.step() ``calls`` times."""

    def objective(trial: optuna.Trial) -> float:
        weight = nn.Parameter(torch.zeros(()))
        optimizer = torch.optim.SGD([weight], lr=0.1)
        schedule = lrsearch.suggest(trial, 4, interval=interval)  # type: ignore[arg-type]
        scheduler = schedule.build(optimizer, steps_per_epoch=steps)
        pruning = lrsearch.PruningCallback(trial)
        for _ in range(epochs):
            optimizer.step()
            for _ in range(calls):
                scheduler.step()
            pruning(1.0)
        return 1.0

    study.optimize(objective, n_trials=12)


@pytest.mark.filterwarnings("ignore:Detected call of")
def test_a_scheduler_that_is_not_stepped_as_its_schedule_says_is_noticed() -> None:
    own_loop(in_memory(), steps=5, calls=5)
    own_loop(in_memory(), steps=5, calls=1, interval="epoch")
    for calls in (0, 1, 7):
        with pytest.raises(UsageError, match=rf"called {calls} times up to epoch 1, expected 5"):
            own_loop(in_memory(), steps=5, calls=calls)
    with pytest.raises(UsageError, match=r"of gradients accumulated, fewer than len\(loader\)"):
        own_loop(in_memory(), steps=5, calls=2)
    with pytest.raises(UsageError, match=r"called 5 times up to epoch 1, expected 1.*loop$"):
        own_loop(in_memory(), steps=5, calls=5, interval="epoch")
    with pytest.raises(UsageError, match="called 0 times up to epoch 2"):
        own_loop(in_memory(), steps=5, calls=0, interval="epoch")


def test_a_loop_longer_than_its_schedule_is_noticed() -> None:
    trial = in_memory(optuna.pruners.NopPruner()).ask()
    lrsearch.suggest(trial, EPOCHS)
    pruning = lrsearch.PruningCallback(trial)
    for _ in range(EPOCHS):
        pruning(1.0)
    with pytest.raises(UsageError, match=r"epoch 7 of a schedule of 6.*report their mean, or no"):
        pruning(1.0)


def test_a_loss_that_is_no_number_is_named() -> None:
    pruning = lrsearch.PruningCallback(in_memory().ask())
    with pytest.raises(UsageError, match=r"one number, got shape \(3,\); take its mean"):
        pruning(torch.zeros(3))  # type: ignore[arg-type]


def test_a_baseline_that_failed_is_queued_again() -> None:
    study = in_memory()
    queued = lrsearch.enqueue_baselines(study, EPOCHS)
    with pytest.raises(ZeroDivisionError):
        study.optimize(lambda trial: 1 / 0, n_trials=1)
    assert lrsearch.enqueue_baselines(study, EPOCHS) == queued[:1]


def test_python_code_names_the_optimizer_only_where_it_is_known() -> None:
    study = in_memory()
    run(study, 3)
    assert "YourOptimizer(model.parameters()" in export_text(study, python=True)


def test_a_study_in_which_all_diverged_says_what_to_look_at() -> None:
    study = in_memory()
    run(study, 2, lambda schedule, epoch: math.nan)
    with pytest.raises(lrsearch.LrsearchError, match=r"all 2 trials diverged, even at lr .*NaN"):
        export_text(study)


@pytest.mark.parametrize("change", [{"epochs": 30}, {"epochs": 2, "schedules": "StepLR"}])
def test_a_study_that_is_asked_for_another_space_says_so(change: dict[str, Any]) -> None:
    study = in_memory()
    lrsearch.suggest(study.ask(), epochs=2)
    with pytest.raises(UsageError, match="this study was searched with other families or choices"):
        lrsearch.suggest(study.ask(), **change)


def test_what_is_no_trial_is_said_in_one_line() -> None:
    with pytest.raises(UsageError, match="an Optuna trial, got None"):
        lrsearch.suggest(None, epochs=3)  # type: ignore[arg-type]
