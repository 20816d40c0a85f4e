"""Trackers get what the database holds, are named when missing, and never in the way."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from threading import Event
from types import ModuleType, SimpleNamespace
from typing import Any

import optuna
import pytest

import lrsearch
from lrsearch import tracking
from lrsearch.cli import main
from lrsearch.errors import LrsearchError, UsageError
from lrsearch.report.tables import load
from lrsearch.search import tracker_thread
from tests.bench import EPOCHS, Bench, FakeRunner

RUN = ["run", "--trials", "6", "--epochs", "3", "--train-samples", "200", "--workers", "1"]


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard itself reads in a folder: name -> step -> value."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = events.EventAccumulator(str(folder))
    read.Reload()
    return {
        name: {event.step: event.value for event in read.Scalars(name)}
        for name in read.Tags()["scalars"]
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_shows_every_epoch_of_every_trial(in_tmp: Path) -> None:
    pytest.importorskip("tensorboard")
    assert main([*RUN, "--quiet", "--log", "tensorboard:runs"]) == 0
    table = load(lrsearch.report("digits").study)
    assert {p.name for p in (in_tmp / "runs" / "digits").iterdir()} == {
        f"trial-{t.number}" for t in table.trials
    }
    for trial in table.trials:
        seen = scalars(in_tmp / "runs" / "digits" / f"trial-{trial.number}")
        losses = table.history.of(trial.trial_id, "val_loss")
        assert list(seen["validation loss"].values()) == pytest.approx(losses.tolist())
        rates = table.history.of(trial.trial_id, "lr")
        assert list(seen["learning rate"].values()) == pytest.approx(rates.tolist())
        assert list(seen["final/validation loss"].values()) == pytest.approx([losses[-1]])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tracker_is_a_callback_of_a_loop_of_ones_own(in_tmp: Path) -> None:
    pytest.importorskip("tensorboard")
    study = optuna.create_study(study_name="own")

    def objective(trial: optuna.Trial) -> float:
        lrsearch.suggest(trial, epochs=2)
        for loss in (2.0, 1.0):
            trial.report(loss, 1 if loss == 2.0 else 2)
        return 1.0

    study.optimize(objective, n_trials=2, callbacks=[tracking.make_tracker("tensorboard:runs")])
    seen = scalars(in_tmp / "runs" / "own" / "trial-1")
    assert seen["validation loss"] == {1: 2.0, 2: 1.0}


class Recorder(ModuleType):
    """A package that records what it is asked to do, in place of the real one."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.calls: list[tuple[str, Any]] = []


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """optuna_integration as if it had not looked for the packages yet."""
    pytest.importorskip("optuna_integration")
    yield monkeypatch
    for name in [n for n in sys.modules if n.startswith("optuna_integration.")]:
        del sys.modules[name]


def put(monkeypatch: pytest.MonkeyPatch, package: Recorder) -> None:
    for name in [n for n in sys.modules if n.startswith("optuna_integration.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package.__name__, package)


def test_mlflow_gets_each_trial_through_optunas_callback(
    fresh: pytest.MonkeyPatch, in_tmp: Path
) -> None:
    mlflow: Any = Recorder("mlflow")
    for name in ("set_tracking_uri", "set_experiment", "log_metrics", "log_params", "set_tags"):
        setattr(mlflow, name, lambda value, name=name: mlflow.calls.append((name, value)))

    @contextmanager
    def start_run(**words: Any) -> Iterator[None]:
        mlflow.calls.append(("start_run", words["run_name"]))
        yield

    mlflow.start_run = start_run
    mlflow.MlflowClient = lambda tracking_uri: SimpleNamespace(
        search_experiments=lambda max_results: mlflow.calls.append(("asked", tracking_uri))
    )
    validation = SimpleNamespace(MAX_TAG_VAL_LENGTH=5000)
    mlflow.utils = SimpleNamespace(validation=validation)
    put(fresh, mlflow)
    fresh.delenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", raising=False)
    assert main([*RUN, "--quiet", "--log", "mlflow:http://127.0.0.1:5000"]) == 0
    assert os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] == "true"
    study = lrsearch.report("digits").study
    assert mlflow.calls[0] == ("asked", "http://127.0.0.1:5000")
    assert ("set_tracking_uri", "http://127.0.0.1:5000") in mlflow.calls
    assert ("set_experiment", "digits") in mlflow.calls
    order = [int(value) for name, value in mlflow.calls if name == "start_run"]
    assert sorted(order) == list(range(6))
    trials = [study.trials[number] for number in order]
    got = [value for name, value in mlflow.calls if name == "log_metrics"]
    assert got == [{"validation loss": t.value} for t in trials]
    assert [v for n, v in mlflow.calls if n == "log_params"] == [t.params for t in trials]


def test_wandb_gets_each_trial_through_optunas_callback(
    fresh: pytest.MonkeyPatch, in_tmp: Path
) -> None:
    wandb: Any = Recorder("wandb")

    class Run:
        name, tags = "sunny", ()
        config = SimpleNamespace(update=lambda values: wandb.calls.append(("config", values)))

        def log(self, values: dict[str, Any], step: int | None) -> None:
            wandb.calls.append(("log", values))

        def finish(self) -> None:
            wandb.calls.append(("finish", None))

    wandb.sdk = SimpleNamespace(wandb_run=SimpleNamespace(Run=Run))
    wandb.run = None
    wandb.login = lambda force: wandb.calls.append(("login", force))
    wandb.init = lambda **words: (wandb.calls.append(("init", words)), Run())[1]
    put(fresh, wandb)
    assert main([*RUN, "--quiet", "--log", "wandb:rates"]) == 0
    study = lrsearch.report("digits").study
    logged = [value for name, value in wandb.calls if name == "log"]
    logged.sort(key=lambda row: row["trial_number"])
    assert [row["validation loss"] for row in logged] == [t.value for t in study.trials]
    assert [row["scheduler"] for row in logged] == [t.params["scheduler"] for t in study.trials]
    assert wandb.calls[0] == ("login", True)  # no choice that workers could not know of
    quiet = {"silent": True, "console": "off"}
    assert wandb.calls.count(("init", {"project": "rates", "settings": quiet})) == 6
    assert wandb.calls.count(("finish", None)) == 6


@pytest.mark.parametrize("log", ["mlflow:http://me:secret@127.0.0.1:5000", "wandb:rates"])
def test_tracker_that_refuses_is_said_before_anything_is_made(
    fresh: pytest.MonkeyPatch, in_tmp: Path, capsys: pytest.CaptureFixture[str], log: str
) -> None:
    def refuse(*args: Any, **words: Any) -> None:
        raise ConnectionError(f"no such place\nas {log}")

    package: Any = Recorder(log.partition(":")[0])
    package.MlflowClient = package.login = refuse
    put(fresh, package)
    assert main([*RUN, "--log", log]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no such place as" in said
    assert "secret" not in said
    assert list(in_tmp.iterdir()) == []


def test_wandb_that_is_offline_is_not_asked_for_a_key(fresh: pytest.MonkeyPatch) -> None:
    put(fresh, Recorder("wandb"))  # it has no login
    fresh.setenv("WANDB_MODE", "offline")
    tracking.check_log("wandb:rates")
    fresh.setenv("WANDB_MODE", "online")
    with pytest.raises(LrsearchError, match="login"):
        tracking.check_log("wandb:rates")


@pytest.mark.parametrize(
    ("log", "missing", "advice"),
    [
        ("tensorboard:runs", {"tensorboard"}, "pip install tensorboard"),
        ("mlflow:x", {"mlflow"}, "pip install mlflow"),
        ("wandb:x", {"wandb", "optuna_integration"}, "pip install wandb optuna-integration"),
    ],
)
def test_missing_package_is_named_before_anything_is_made(
    in_tmp: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    log: str,
    missing: set[str],
    advice: str,
) -> None:
    monkeypatch.setattr(tracking, "_installed", lambda name: name not in missing)
    assert main([*RUN, "--log", log]) == 2
    assert advice in capsys.readouterr().err
    assert list(in_tmp.iterdir()) == []
    with pytest.raises(UsageError, match=advice):
        tracking.make_tracker(log)


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("tensorbord:x", "did you mean tensorboard"),
        ("wandb", "needs wandb:PROJECT, got 'wandb'"),
        ("mlflow: ", "needs mlflow:URI"),
        ("x:y", "one of tensorboard:DIR, mlflow:URI, wandb:PROJECT"),
    ],
)
def test_wrong_log_is_one_line(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], log: str, message: str
) -> None:
    assert main([*RUN, "--log", log]) == 2
    assert message in capsys.readouterr().err
    with pytest.raises(UsageError, match="log: "):
        tracking.make_tracker(log)


def test_tracker_that_fails_is_left_out_and_the_study_goes_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    told: list[int] = []

    def broken(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        told.append(trial.number)
        if len(told) == 3:
            raise ConnectionError("no route to host")

    worker = bench.worker(8, FakeRunner(2))
    worker.tracker = broken
    worker.run()
    assert sorted(told) == told
    assert len(told) == 3
    assert bench.notes.count("tracking stopped: ConnectionError: no route to host") == 1
    assert [t.state.name for t in bench.trials] == ["COMPLETE"] * 8


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("shown", ["--quiet", "--json"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_tracker_that_stopped_is_the_one_line_of_a_quiet_run(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], shown: str, workers: str
) -> None:
    pytest.importorskip("tensorboard")
    (in_tmp / "runs").mkdir()
    (in_tmp / "runs" / "digits").touch()  # where the study's folder should be
    words = [*RUN[:-1], workers, "--fuse", "off", "--log", "tensorboard:runs"]
    assert main([*words, shown]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lrsearch: tracking stopped: NotADirectoryError")


def test_slow_tracker_does_not_hold_training_up(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    trained, told = Event(), []

    def hook(key: int, schedule: lrsearch.Schedule, epoch: int) -> None:
        if key == 6 and epoch == EPOCHS:
            trained.set()

    def slow(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        told.append((trial.number, trained.wait(10)))

    worker = bench.worker(6, FakeRunner(1, hook=hook))
    worker.tracker = slow
    worker.run()
    assert told == [(number, True) for number in range(6)]


def test_tracker_without_an_answer_does_not_hold_the_end_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_thread, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(tracker_thread, "LEAVE_SECONDS", 0.1)
    bench = Bench(tmp_path)
    answer = Event()
    worker = bench.worker(3, FakeRunner(1))
    worker.tracker = lambda study, trial: trial.number == 0 or answer.wait(60)
    worker.run()
    answer.set()
    assert bench.notes[0].startswith("tracking stopped: no answer for")
    assert bench.notes[0].endswith("2 trials are not logged")
    assert [t.state.name for t in bench.trials] == ["COMPLETE"] * 3


def test_failed_trials_are_tracked_as_such(tmp_path: Path) -> None:
    bench = Bench(tmp_path)

    def fails_once(key: int, schedule: lrsearch.Schedule, epoch: int) -> float | None:
        if key == 2:
            raise RuntimeError("out of luck")
        return None

    states: list[str] = []
    worker = bench.worker(4, FakeRunner(1, hook=fails_once))
    worker.tracker = lambda study, trial: states.append(trial.state.name)
    worker.run()
    assert sorted(states) == ["COMPLETE"] * 3 + ["FAIL"]
