"""The trace sampler in an Optuna loop of the user's own: it needs no space, and any study does."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

import lrsearch
from lrsearch.errors import UsageError
from lrsearch.objective import _space
from lrsearch.schedules import Schedule, Space
from lrsearch.search.pruning import SchedulePruner
from lrsearch.search.sampling import LEAST_KNOWN, TraceSampler
from tests.servers import Postgres

EPOCHS = 6
LR = (1e-3, 10.0)
SPACE = _space(EPOCHS, None, LR, True, "step")
"""What the objective asks for."""
pytestmark = pytest.mark.usefixtures("quiet_optuna")


def loss_of(schedule: Schedule, epoch: int) -> float:
    """Best at lr 0.1, falling over the epochs; no number above lr 5."""
    return math.nan if schedule.lr > 5 else 0.1 + math.log10(schedule.lr / 0.1) ** 2 + 1 / epoch


def objective(trial: optuna.Trial) -> float:
    """As the README has it."""
    schedule = lrsearch.suggest(trial, EPOCHS, lr=LR)
    pruning = lrsearch.PruningCallback(trial)
    for epoch in range(1, EPOCHS + 1):
        pruning(loss_of(schedule, epoch))
    return loss_of(schedule, EPOCHS)


def make(storage: Any = None, seed: int = 0, **settings: Any) -> optuna.Study:
    settings = {"pruner": lrsearch.SchedulePruner(), "study_name": "mine"} | settings
    return optuna.create_study(
        storage=storage, sampler=lrsearch.TraceSampler(seed), load_if_exists=True, **settings
    )


def params(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in study.get_trials(deepcopy=False)]


STORAGES = {
    "optuna database": lambda url: url,
    "our database": lrsearch.open_storage,
    "journal": lambda url: optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(url.removeprefix("sqlite:///"))
    ),
}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a database that several processes can share."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.new_database()


def test_it_finds_better_schedules_than_random_draws() -> None:
    study = make(pruner=optuna.pruners.NopPruner())
    study.optimize(objective, n_trials=40)
    near = [0.05 < trial.params["lr"] < 0.2 for trial in study.trials[LEAST_KNOWN:]]
    assert sum(near) > 16  # of 32; 5 at random


@pytest.mark.parametrize("kind", STORAGES)
def test_every_storage_gives_the_same_study(kind: str, tmp_path: Path) -> None:
    kept, memory = make(STORAGES[kind](f"sqlite:///{tmp_path / 'study.db'}")), make()
    for study in (kept, memory):
        lrsearch.enqueue_baselines(study, EPOCHS, lr=LR)
        study.optimize(objective, n_trials=24)
    assert params(kept) == params(memory)
    states = {trial.state for trial in kept.trials}
    assert states == {TrialState.COMPLETE, TrialState.PRUNED}
    assert any(trial.user_attrs["stopped"] == "diverged" for trial in kept.trials)


def test_a_study_that_was_interrupted_goes_on_as_it_would_have_done(tmp_path: Path) -> None:
    whole, url = make(), f"sqlite:///{tmp_path / 'study.db'}"
    whole.optimize(objective, n_trials=18)
    for _ in range(3):
        make(url).optimize(objective, n_trials=6)
    assert params(make(url)) == params(whole)


def test_what_is_proposed_is_of_the_space_that_the_objective_asks_for() -> None:
    """There is no other: sampler and objective cannot differ."""
    study = make()
    for epochs, lr in ((EPOCHS, (1e-3, 1.0)), (EPOCHS, (0.1, 0.2)), (2 * EPOCHS, (0.01, 0.1))):
        for _ in range(LEAST_KNOWN + 6):
            trial = study.ask()
            schedule = lrsearch.suggest(trial, epochs, lr=lr)
            study.tell(trial, loss_of(schedule, epochs))
            assert schedule.epochs == epochs
            assert lr[0] <= schedule.lr <= lr[1]


def test_ask_and_tell_in_any_order() -> None:
    study = make()
    for _ in range(6):
        trials = [study.ask() for _ in range(4)]
        schedules = [lrsearch.suggest(trial, EPOCHS, lr=LR) for trial in trials]
        assert len({str(schedule) for schedule in schedules}) == 4
        for trial, schedule in reversed(list(zip(trials, schedules, strict=True))):
            if math.isnan(loss := loss_of(schedule, EPOCHS)):
                study.tell(trial, state=TrialState.FAIL)
            else:
                study.tell(trial, loss)
    assert study.best_params["lr"] == pytest.approx(0.1, rel=0.5)


def test_failed_trials_are_no_obstacle() -> None:
    def failing(trial: optuna.Trial) -> float:
        if trial.number % 3 == 0:
            raise RuntimeError("before it was asked")
        value = objective(trial)
        if trial.number % 3 == 1:
            raise RuntimeError("in the end")
        return value

    study = make()
    study.optimize(failing, n_trials=60, catch=RuntimeError)
    assert study.best_params["lr"] == pytest.approx(0.1, rel=0.5)


def test_of_a_trial_that_a_user_queued_the_rest_is_proposed() -> None:
    study = make()
    study.optimize(objective, n_trials=20)
    study.enqueue_trial({"lr": 0.3})
    number = len(study.trials) - 1
    proposal = dict(TraceSampler()._draw(study, number, SPACE))
    study.optimize(objective, n_trials=1)
    assert study.trials[number].params == {**proposal, "lr": 0.3}


def test_threads_are_asked_one_after_the_other_and_see_what_others_were_given() -> None:
    """Else two that ask at once may be given the same."""
    running: list[set[int]] = []

    class Watching(TraceSampler):
        def _draw(self, study: optuna.Study, number: int, space: Space) -> Any:
            trials = study.get_trials(deepcopy=False)
            running.append({t.number for t in trials if "schedule" in t.user_attrs})
            return super()._draw(study, number, space)

        def sample_independent(self, *args: Any) -> Any:
            value = super().sample_independent(*args)
            time.sleep(0.005)  # as a database takes to store it
            return value

    study = make()
    study.sampler = Watching()
    trials = [study.ask() for _ in range(8)]
    together = threading.Barrier(len(trials))

    def ask(trial: optuna.Trial) -> None:
        together.wait()
        lrsearch.suggest(trial, EPOCHS, lr=LR)

    threads = [threading.Thread(target=ask, args=(trial,)) for trial in trials]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(seen) for seen in running] == list(range(len(trials)))


@pytest.mark.parametrize("database", [False, True])
def test_n_jobs(tmp_path: Path, database: bool) -> None:
    study = make(f"sqlite:///{tmp_path / 'study.db'}" if database else None)
    study.optimize(objective, n_trials=40, n_jobs=4)
    asked = [str(trial.user_attrs["schedule"]) for trial in study.trials]
    assert len(set(asked)) == len(asked) == 40
    assert study.best_params["lr"] == pytest.approx(0.1, rel=0.5)


WORKER = """
import sys, optuna
from tests.test_own_sampler import make, objective
optuna.logging.set_verbosity(optuna.logging.WARNING)
make(sys.argv[1], seed=int(sys.argv[2])).optimize(objective, n_trials=15)
"""


def test_processes_share_a_storage(url: str) -> None:
    storage = optuna.storages.RDBStorage(url)
    study = make(storage)
    command = [sys.executable, "-c", WORKER, url]
    workers = [subprocess.Popen([*command, seed]) for seed in "01"]
    assert [worker.wait(120) for worker in workers] == [0, 0]
    asked = [str(trial.user_attrs["schedule"]) for trial in study.trials]
    assert len(asked) == 30
    assert len(set(asked)) > 25  # here they ask all the time, and two may see the same trials
    assert study.best_params["lr"] == pytest.approx(0.1, rel=0.5)
    storage.engine.dispose()


def test_a_study_that_maximises_is_told_what_to_do() -> None:
    study = make(direction="maximize")
    with pytest.raises(UsageError, match=r"direction='minimize'.*return the loss"):
        study.optimize(objective, n_trials=1)
    assert study.trials[0].state == TrialState.FAIL


@pytest.mark.parametrize("given", [None, "0", SPACE, 0.5])
def test_a_seed_that_is_none_is_named(given: Any) -> None:
    with pytest.raises(UsageError, match=r"seed must be a whole number.*from lrsearch.suggest"):
        TraceSampler(given)


def test_a_trial_without_a_schedule_is_warned_of() -> None:
    study = make(pruner=optuna.pruners.NopPruner())
    with pytest.warns(UserWarning, match=r"learns nothing.*ask for it by lrsearch.suggest\("):
        study.optimize(lambda trial: trial.suggest_float("lr", 0.1, 1.0), n_trials=1)


def test_pruner_and_sampler_read_a_study_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pruner = lrsearch.SchedulePruner()
    study = make(pruner=pruner)
    study.optimize(objective, n_trials=LEAST_KNOWN + 1)
    sampler = study.sampler
    assert isinstance(sampler, TraceSampler)
    assert (sampler._reader, sampler._memory) == pruner.learnt(study)
    study.pruner = SchedulePruner()
    study.optimize(objective, n_trials=1)
    assert sampler._reader is study.pruner.learnt(study)[0]


@pytest.mark.parametrize(
    "pruner",
    [
        optuna.pruners.HyperbandPruner(1, EPOCHS),  # shows the sampler a part of the study only
        optuna.pruners.MedianPruner(),
        optuna.pruners.NopPruner(),
    ],
)
def test_other_pruners(pruner: optuna.pruners.BasePruner) -> None:
    study = make(pruner=pruner)
    study.optimize(objective, n_trials=40)
    assert study.best_params["lr"] == pytest.approx(0.1, rel=0.7)


def with_others(trial: optuna.Trial) -> float:
    decay = trial.suggest_float("weight_decay", 0.0, 1.0)
    batch_size = trial.suggest_categorical("batch_size", [32, 64])
    return objective(trial) + abs(decay - 0.7) + (batch_size == 32)


def test_parameters_beside_the_schedule_are_searched_too() -> None:
    study = make(pruner=optuna.pruners.NopPruner())
    study.optimize(with_others, n_trials=60)
    late = study.trials[30:]
    near = sum(abs(trial.params["weight_decay"] - 0.7) < 0.2 for trial in late)
    assert near > 18  # of 30; 12 at random
    assert sum(trial.params["batch_size"] == 64 for trial in late) > 20


def test_parameters_beside_the_schedule_follow_from_the_study_and_the_number() -> None:
    whole, halves = (make(pruner=optuna.pruners.NopPruner()) for _ in range(2))
    whole.optimize(with_others, n_trials=20)
    halves.optimize(with_others, n_trials=10)
    halves.sampler = lrsearch.TraceSampler()
    halves.optimize(with_others, n_trials=10)
    assert params(halves) == params(whole)
