"""The worker loop, with a runner whose losses are known: claims, baselines, pruning, failures."""

from __future__ import annotations

import copy
import dataclasses
import math
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState
from threadpoolctl import threadpool_info, threadpool_limits

from lrsearch.config import make
from lrsearch.divergence import DIVERGED_LOSS
from lrsearch.errors import LrsearchError
from lrsearch.measured import EpochResult
from lrsearch.schedules import Schedule, Space
from lrsearch.search.ask import Asker
from lrsearch.search.interrupt import Interrupt, Interrupted
from lrsearch.search.loop import FAILURES_IN_A_ROW
from lrsearch.search.run import run
from lrsearch.search.sampling import TraceSampler
from lrsearch.search.study import load_study, open_study
from lrsearch.storage import new_owner, slots, trials
from lrsearch.storage.cache import cache_of
from lrsearch.storage.history import load_history
from lrsearch.tasks import Split, Task
from lrsearch.training import checkpoint
from lrsearch.training.loop import SingleRunner
from tests.bench import EPOCHS, Bench, FakeRunner
from tests.storage_worker import finish


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize("capacity", [1, 4, 50])
def test_study_gets_exactly_its_target_whatever_is_fused(bench: Bench, capacity: int) -> None:
    bench.work(11, FakeRunner(capacity))
    assert [t.state for t in bench.trials] == [TrialState.COMPLETE] * 11
    bench.work(11, FakeRunner(capacity))
    assert len(bench.trials) == 11
    bench.work(14, FakeRunner(capacity))
    assert len(bench.trials) == 14


def test_what_another_worker_stored_while_we_asked_is_not_proposed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the same trials follow the same proposals."""
    bench, made = Bench(tmp_path, sampler="trace"), Asker._ask

    def draw(
        self: TraceSampler, study: optuna.Study, number: int, space: Space
    ) -> Mapping[str, Any]:
        others = [t for t in study.get_trials(deepcopy=False) if t.number != number]
        there = [t.params.get("lr") for t in others]
        drawn = (self._random(n, space) for n in range(100))
        return next(each for each in drawn if each["lr"] not in there)

    monkeypatch.setattr(TraceSampler, "_draw", draw)
    bench.config = dataclasses.replace(bench.config, sampler="trace")
    plan = bench.worker(10).plan
    ours, theirs = (
        Asker(load_study(bench.storage, "digits"), bench.storage, plan, {}) for _ in range(2)
    )
    first, second = (
        slots.claim_some(bench.storage, bench.study._study_id, 10, new_owner(), 3)
        for _ in range(2)
    )
    met: list[int] = []

    def ask(self: Asker, slot: int, trial: FrozenTrial) -> None:
        made(self, slot, trial)
        if slot == second[-1].slot and not met:
            met.append(slot)
            theirs.trials(first)

    monkeypatch.setattr(Asker, "_ask", ask)
    with cache_of(ours.study).frozen():
        asked, _ = ours.trials(second)
    assert met
    stored = [trial.params for trial in bench.trials]
    assert [trial.params for _, trial in asked] == stored[:3]
    assert len(stored) == len({params["lr"] for params in stored}) == 6


def test_linear_algebra_takes_no_more_threads_than_torch(bench: Bench) -> None:
    """Threads that wait for each other over the sampler's small matrices double a study's cost."""
    seen = set()

    class Noting(FakeRunner):
        def epoch(self) -> dict[int, EpochResult]:
            found = threadpool_info()
            seen.update(each["num_threads"] for each in found if each["user_api"] == "blas")
            return super().epoch()

    with threadpool_limits(torch.get_num_threads() + 1, user_api="blas"):
        bench.work(5, Noting())
    assert seen == {torch.get_num_threads()}


def test_trials_do_not_depend_on_what_ran_beside_them(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    alone, fused = Bench(tmp_path / "a"), Bench(tmp_path / "b")
    alone.work(12, FakeRunner(1))
    fused.work(12, FakeRunner(5))
    assert [t.params for t in alone.trials] == [t.params for t in fused.trials]
    assert [t.value for t in alone.trials] == [t.value for t in fused.trials]


def test_baselines_take_the_first_slots_and_are_never_pruned(tmp_path: Path) -> None:
    bench = Bench(tmp_path, pruner="median")
    bench.work(30)
    names = list(bench.space.baselines(0.1))
    assert [t.user_attrs.get("baseline") for t in bench.trials[: len(names)]] == names
    assert all(t.state == TrialState.COMPLETE for t in bench.trials[: len(names)])
    assert any(t.state == TrialState.PRUNED for t in bench.trials)


def test_a_given_schedule_is_a_baseline_with_values_that_are_never_searched(bench: Bench) -> None:
    """Its schedule is trained as it is; Optuna knows the family and the nearest rate."""
    high = bench.space.lr_dim.high
    slow = Schedule("ExponentialLR", 2 * high, EPOCHS, {"gamma": 0.99995})
    own = Schedule("Points", 0.5, EPOCHS, {"points": [[0, 0.5], [EPOCHS, 0.1]]})
    worker = bench.worker(14)
    worker.baselines = {"slow": slow, "own": own}
    worker.run()
    first, second, *rest = bench.trials
    assert [t.user_attrs.get("baseline") for t in bench.trials] == ["slow", "own", *[None] * 12]
    assert Schedule.from_dict(first.user_attrs["schedule"]) == slow
    assert first.params == {"scheduler": "ExponentialLR", "lr": high}
    assert second.params == {"lr": 0.5}
    assert first.distributions["lr"] == rest[0].distributions["lr"]


def test_pruned_trial_keeps_its_last_loss_and_says_why(tmp_path: Path) -> None:
    bench = Bench(tmp_path, pruner="median")
    bench.work(30)
    assert {trial.state for trial in bench.trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    for trial in bench.trials:
        last = trial.intermediate_values[max(trial.intermediate_values)]
        assert trial.value == last
        assert trial.user_attrs["epochs"] == max(trial.intermediate_values)
        expected = "completed" if trial.state == TrialState.COMPLETE else "pruned"
        assert trial.user_attrs["stopped"] == expected


def test_history_has_a_row_per_epoch_equal_to_what_optuna_was_told(bench: Bench) -> None:
    bench.work(5, FakeRunner(3))
    rows = load_history(bench.storage, bench.study._study_id)
    assert len(rows) == 5 * EPOCHS
    for trial in bench.trials:
        epochs, losses = (
            rows.of(trial._trial_id, name).tolist() for name in ("epoch", "val_loss")
        )
        assert dict(zip(epochs, losses, strict=True)) == trial.intermediate_values


def test_diverged_trial_is_stopped_counted_and_teaches_the_sampler(bench: Bench) -> None:
    def explode(key: int, schedule: Schedule, epoch: int) -> float | None:
        return math.nan if schedule.lr > 1 and epoch == 2 else None

    bench.work(20, FakeRunner(4, explode))
    diverged = [t for t in bench.trials if t.user_attrs["stopped"] == "diverged"]
    assert diverged
    for trial in diverged:
        assert trial.state == TrialState.PRUNED
        assert trial.value == DIVERGED_LOSS
        assert trial.user_attrs["epochs"] == 2
        assert trial.params["lr"] > 1


def test_a_trial_that_cannot_begin_is_recorded_and_the_study_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an optimizer that does not take the model: the runner has never had the trial."""
    original = Schedule.build
    built: list[Schedule] = []

    def refuse_once(self: Schedule, *given: Any, **named: Any) -> Any:
        built.append(self)
        if len(built) == 1:
            raise RuntimeError("no such group")
        return original(self, *given, **named)

    monkeypatch.setattr(Schedule, "build", refuse_once)
    net = torch.nn.Linear(2, 2)
    part = Split(torch.eye(2), torch.arange(2))
    task = Task("two", lambda: copy.deepcopy(net), part, part, batch_size=2, epochs=EPOCHS)
    options: dict[str, Any] = {"optimizer": "SGD", "optimizer_args": {}, "seed": 0}
    bench.work(2, SingleRunner(task, device=torch.device("cpu"), **options), baselines=False)
    assert [t.state for t in bench.trials] == [TrialState.FAIL, TrialState.COMPLETE]
    assert any("trial 0 failed: RuntimeError: no such group" in note for note in bench.notes)


def test_one_failing_trial_is_recorded_and_the_study_goes_on(bench: Bench) -> None:
    def fail(key: int, schedule: Schedule, epoch: int) -> float | None:
        if key == 3:
            raise RuntimeError("out of memory")
        return None

    bench.work(8, FakeRunner(1, fail))
    states = [t.state for t in bench.trials]
    assert states.count(TrialState.FAIL) == 1
    assert states.count(TrialState.COMPLETE) == 7
    failed = next(t for t in bench.trials if t.state == TrialState.FAIL)
    assert failed.user_attrs["error"] == "RuntimeError: out of memory"
    assert any("failed: RuntimeError: out of memory" in note for note in bench.notes)


def test_many_failures_in_a_row_end_the_study(bench: Bench) -> None:
    def fail(key: int, schedule: Schedule, epoch: int) -> float | None:
        raise ValueError("shapes do not fit")

    with pytest.raises(LrsearchError, match=r"5 trials in a row failed.*shapes do not fit"):
        bench.work(50, FakeRunner(1, fail))
    assert len(bench.trials) == FAILURES_IN_A_ROW


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("no stacking rule"), "RuntimeError: no stacking rule"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_fused_failure_falls_back_to_one_trial_at_a_time(
    bench: Bench, error: Exception, told: str
) -> None:
    def fail(key: int, schedule: Schedule, epoch: int) -> float | None:
        raise error

    bench.work(6, FakeRunner(4, fail))
    assert [t.state for t in bench.trials] == [TrialState.COMPLETE] * 6
    assert bench.notes == [f"fused training failed ({told}); going on with one trial at a time"]


def test_fused_trials_that_need_too_much_memory_go_on_with_half_of_them(bench: Bench) -> None:
    def fail(key: int, schedule: Schedule, epoch: int) -> float | None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    made: list[int] = []
    worker = bench.worker(9, FakeRunner(8, fail))

    def smaller(count: int) -> FakeRunner:
        made.append(count)
        return FakeRunner(count, fail if count > 2 else FakeRunner.hook)

    worker.fallback = smaller
    worker.run()
    assert made == [4, 2]
    assert [t.state for t in bench.trials] == [TrialState.COMPLETE] * 9
    assert "going on with 2 trials at a time" in bench.notes[-1]


def test_nothing_of_a_failed_runner_is_kept_while_the_next_is_made(bench: Bench) -> None:
    held: list[weakref.ref[Any]] = []

    def fail(key: int, schedule: Schedule, epoch: int) -> float | None:
        activations = FakeRunner()  # of a step: what its traceback would keep
        held.append(weakref.ref(activations))
        raise RuntimeError("no stacking rule")

    def smaller(count: int) -> FakeRunner:
        assert [kept() for kept in held] == [None, None]
        return FakeRunner(count)

    worker = bench.worker(6, FakeRunner(4, fail))
    held.append(weakref.ref(worker.runner))
    worker.fallback = smaller
    worker.run()
    assert len(held) == 2
    assert [t.state for t in bench.trials] == [TrialState.COMPLETE] * 6


def test_trials_of_a_device_that_failed_go_back_to_the_queue(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a device that failed holds cannot be saved."""
    interrupt = Interrupt()

    def stop(key: int, schedule: Schedule, epoch: int) -> float | None:
        if epoch == 2:
            interrupt._code = 130
        return None

    def unreadable(self: FakeRunner, key: int) -> dict[str, Any]:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(FakeRunner, "state", unreadable)
    with pytest.raises(Interrupted):
        bench.worker(4, FakeRunner(2, stop), interrupt=interrupt).run()
    assert any("could not be saved (RuntimeError: CUDA error" in note for note in bench.notes)
    monkeypatch.undo()
    bench.work(4)
    assert [t.state for t in bench.trials] == [TrialState.COMPLETE] * 4


@pytest.mark.parametrize(("share", "saved"), [(1e9, True), (0.05, False)])
def test_saving_takes_a_small_part_of_the_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, share: float, saved: bool
) -> None:
    """Where one state takes ten seconds to write, trials are not saved after each epoch."""
    monkeypatch.setattr("lrsearch.search.checkpoints.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("lrsearch.search.checkpoints.SHARE", share)
    written: list[Path] = []
    monkeypatch.setattr(checkpoint, "save", lambda path, state: written.append(path))
    worker = bench.worker(2, FakeRunner(2))
    worker.checkpoints.seconds = 10.0
    worker.run()
    assert len(written) > 2 if saved else written == []


def test_interrupted_trial_goes_on_from_its_checkpoint_with_its_number(bench: Bench) -> None:
    interrupt = Interrupt()
    runner = FakeRunner(2)

    def stop(key: int, schedule: Schedule, epoch: int) -> float | None:
        if key == 4 and epoch == 3:
            interrupt._code = 130
        return None

    runner.hook = stop
    worker = bench.worker(8, runner, baselines=False, interrupt=interrupt)
    with pytest.raises(Interrupted) as caught:
        worker.run()
    assert caught.value.exit_code == 130
    handed_back = [t for t in bench.trials if t.state == TrialState.WAITING]
    assert handed_back
    assert not [t for t in bench.trials if t.state == TrialState.RUNNING]

    after = FakeRunner(2)
    bench.work(8, after, baselines=False)
    assert [t.state for t in bench.trials] == [TrialState.COMPLETE] * 8
    resumed = {key: epoch for key, epoch in after.started if epoch > 0}
    assert set(resumed) == {t._trial_id for t in handed_back}
    for trial in bench.trials:
        assert sorted(trial.intermediate_values) == list(range(1, EPOCHS + 1))
    assert list((bench.folder / "checkpoints").iterdir()) == []


def test_a_database_that_is_waited_for_no_longer_ends_an_interrupted_run_as_interrupted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt = Interrupt()

    def away(*_: object, **__: object) -> set[int]:
        interrupt._code = 130
        raise LrsearchError("the storage cannot be reached")

    monkeypatch.setattr("lrsearch.storage.history.record_epochs", away)
    with pytest.raises(Interrupted), interrupt.listening():
        bench.worker(2, interrupt=interrupt).run()


def test_a_trial_that_fails_after_another_worker_took_it_over_leaves_that_one_s_checkpoint(
    bench: Bench,
) -> None:
    worker = bench.worker(1, baselines=False)
    file = worker.checkpoints.folder / "1.pt"

    def fail(key: int, schedule: Schedule, epoch: int) -> float | None:
        slots.release(bench.storage, worker.owner)
        assert slots.claim_some(bench.storage, bench.study._study_id, 1, new_owner(), 1)
        worker.checkpoints.write(key, {"epoch": 1})
        worker.context.interrupt._code = 130
        raise ValueError("a worker that slept for long")

    worker.runner = FakeRunner(1, fail)
    with pytest.raises(Interrupted):
        worker.run()
    assert bench.trials[0].state == TrialState.RUNNING
    assert file.exists()


def test_damaged_checkpoint_starts_the_trial_over_and_says_so(bench: Bench) -> None:
    interrupt = Interrupt()

    def stop(key: int, schedule: Schedule, epoch: int) -> float | None:
        interrupt._code = 143 if epoch == 3 else None
        return None

    worker = bench.worker(1, FakeRunner(1, stop), baselines=False, interrupt=interrupt)
    with pytest.raises(Interrupted):
        worker.run()
    (path,) = (bench.folder / "checkpoints").iterdir()
    path.write_bytes(path.read_bytes()[:20])
    after = FakeRunner(1)
    bench.work(1, after, baselines=False)
    assert after.started == [(1, 0)]
    assert any("starts over" in note for note in bench.notes)
    assert sorted(bench.trials[0].intermediate_values) == list(range(1, EPOCHS + 1))


def test_trial_that_a_user_queued_is_run_and_completed_with_the_rest(bench: Bench) -> None:
    bench.study.enqueue_trial({"scheduler": "StepLR", "lr": 0.05})
    bench.work(7)
    assert len(bench.trials) == 7
    queued = next(t for t in bench.trials if t.params["lr"] == 0.05)
    assert queued.state == TrialState.COMPLETE
    assert queued.params["scheduler"] == "StepLR"
    assert "StepLR.gamma" in queued.params


@pytest.mark.parametrize(
    "params",
    [{"lr": None}, {"lr": [1, 2]}, {"lr": -1}, {"scheduler": "NopeLR"}, {"lr": "high"}],
    ids=str,
)
def test_queued_parameters_that_make_no_schedule_fail_alone(
    bench: Bench, params: dict[str, Any]
) -> None:
    bench.study.enqueue_trial(params)
    bench.work(6)
    states = [t.state for t in bench.trials]
    assert (states.count(TrialState.FAIL), states.count(TrialState.COMPLETE)) == (1, 5)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        (
            "CyclicLR.mode",
            "triangular2",
            "must be triangular in this study, got 'triangular2' — did you mean triangular?",
        ),
        ("CyclicLR.mode", 3, "must be triangular in this study, got 3; queue another"),
        ("lr", 20, "must be a number from 0.001 to 10 in this study, got 20; queue another"),
        ("lr", "high", "must be a number from 0.001 to 10 in this study, got 'high'"),
        ("CyclicLR.cycles", 1.5, "must be a whole number from 1 to 3 in this study, got 1.5"),
    ],
)
def test_a_queued_value_that_is_not_searched_fails_its_trial_and_the_study_goes_on(
    bench: Bench, name: str, value: Any, error: str
) -> None:
    searched = {"CyclicLR.mode": "triangular", "CyclicLR.cycles": (1, 3)}
    bench.space = Space(["CyclicLR"], EPOCHS, (1e-3, 10.0), overrides=searched)
    bench.study.enqueue_trial({"scheduler": "CyclicLR", name: value})
    bench.study.enqueue_trial({"scheduler": "CyclicLR", "lr": 1})
    bench.work(4, baselines=False)
    failed, *others = sorted(bench.trials, key=lambda t: t.state != TrialState.FAIL)
    assert failed.state == TrialState.FAIL
    assert failed.user_attrs["error"].startswith(f"UsageError: the queued {name} {error}")
    assert [t.state for t in others] == [TrialState.COMPLETE] * 3
    assert any(t.params["lr"] == 1.0 for t in others)


def test_a_run_with_a_smaller_target_does_not_wait_for_one_with_a_larger(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it touch what that one is just writing."""
    study_id, other = bench.study._study_id, new_owner()
    claims = slots.claim_some(bench.storage, study_id, 5, other, 5)
    trials.start_trials(bench.storage, claims)
    for trial in bench.trials[:3]:
        finish(bench.storage, trial._trial_id, TrialState.PRUNED, 1.0, owner=other)
    folder = bench.folder / "checkpoints"
    folder.mkdir()
    (folder / ".4.pt-half").touch()
    waits: list[float] = []
    interrupt = Interrupt()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        interrupt._code = 130

    monkeypatch.setattr(interrupt, "sleep", sleep)
    bench.worker(3, interrupt=interrupt).run()
    assert waits == []
    assert (folder / ".4.pt-half").exists()
    with pytest.raises(Interrupted):
        bench.worker(4, interrupt=interrupt).run()
    assert len(waits) == 1
    interrupt._code = None
    slots.release(bench.storage, other)
    bench.work(5)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("anew", [False, True])
def test_a_study_deleted_in_mid_run_ends_the_run_and_the_next_of_its_number_is_left_alone(
    bench: Bench, anew: bool
) -> None:
    deleted: list[int] = []

    def delete(key: int, schedule: Schedule, epoch: int) -> float | None:
        if epoch == 2 and key == 3 and not deleted:
            deleted.append(key)
            optuna.delete_study(study_name=bench.study.study_name, storage=bench.storage)
            if anew:
                made = open_study(bench.storage, make({"epochs": EPOCHS, "lr": (0.1, 0.2)}), {})
                assert made._study_id == bench.study._study_id
        return None

    name = bench.study.study_name
    with pytest.raises(LrsearchError, match=rf"study '{name}' was deleted; start it again"):
        bench.worker(8, FakeRunner(4, delete)).run()
    assert bench.notes == []
    assert not (bench.folder / "checkpoints").exists()
    if anew:
        assert bench.storage.get_all_trials(bench.study._study_id) == []


def test_timeout_starts_no_new_trial(bench: Bench) -> None:
    worker = bench.worker(5, FakeRunner(), baselines=False, interrupt=Interrupt(), deadline=0.0)
    worker.run()
    assert bench.trials == []


def test_families_in_another_order_are_the_same_parameter(in_tmp: Path) -> None:
    base = {"task": "digits", "epochs": 2, "fuse": "off", "workers": 1, "baselines": False}
    run(make({**base, "trials": 2, "schedules": "LinearLR,PolynomialLR"}))
    outcome = run(make({**base, "trials": 4, "schedules": "PolynomialLR,LinearLR"}))
    asked = {trial.distributions["scheduler"] for trial in outcome.study.trials}
    assert asked == {CategoricalDistribution(("LinearLR", "PolynomialLR"))}


@pytest.mark.parametrize("sampler", ["trace", "tpe", "random", "gp", "cmaes", "qmc"])
def test_every_sampler_proposes_over_all_families(tmp_path: Path, sampler: str) -> None:
    bench = Bench(tmp_path, sampler=sampler)
    bench.work(16, FakeRunner(3))
    assert [t.state for t in bench.trials] == [TrialState.COMPLETE] * 16


@pytest.mark.parametrize("pruner", ["schedule", "median", "asha", "hyperband", "none"])
def test_every_pruner_runs_through_the_loop(tmp_path: Path, pruner: str) -> None:
    bench = Bench(tmp_path, pruner=pruner)
    bench.work(30, FakeRunner(4))
    states = {t.state for t in bench.trials}
    assert states <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert (TrialState.PRUNED in states) == (pruner != "none")


def test_a_checkpoint_is_never_ahead_of_the_history(bench: Bench) -> None:
    """The disk is full at the last epoch: going on from it later leaves no gap."""
    worker = bench.worker(1, FakeRunner(1), baselines=False)
    real = worker._record

    def record(results: Mapping[int, EpochResult]) -> None:
        if any(result.epoch == EPOCHS for result in results.values()):
            raise LrsearchError("the disk is full")
        real(results)

    worker._record = record  # type: ignore[method-assign]
    with pytest.raises(LrsearchError, match="disk is full"):
        worker.run()
    runner = FakeRunner(1)
    bench.work(1, runner, baselines=False)
    assert runner.started[0][1] < EPOCHS
    (trial,) = bench.trials
    assert sorted(trial.intermediate_values) == list(range(1, EPOCHS + 1))
