"""Slots: exactly as many trials as asked for, one worker at a time, whatever happens to them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import event, func, select, update

from lrsearch.errors import LrsearchError
from lrsearch.storage import (
    Heartbeat,
    Storage,
    history,
    new_owner,
    open_storage,
    owners,
    slots,
    trials,
)
from lrsearch.storage.history import beat_in
from lrsearch.storage.owners import is_dead
from lrsearch.storage.schema import HISTORY, SLOTS, metadata, server_now
from lrsearch.storage.slot_rows import Ending
from lrsearch.storage.study_attributes import set_once
from tests.servers import wait_for
from tests.storage_worker import Result, claim_one, count_slots, create_trial, fill_trial, finish


@dataclass
class Place:
    """A study in a database, and short words for what the tests do with it."""

    storage: Storage
    study: optuna.Study

    @property
    def id(self) -> int:
        return self.study._study_id

    def claim(self, owner: str, target: int = 3, **options: float) -> slots.Claim | None:
        return claim_one(self.storage, self.id, target, owner, **options)

    def begin(self, owner: str, target: int = 3) -> tuple[slots.Claim, int]:
        claim = self.claim(owner, target)
        assert claim is not None
        trial_id = claim.trial_id or create_trial(self.storage, claim)
        return claim, trial_id

    def record(self, trial_id: int, epoch: int, owner: str) -> set[int]:
        return history.record_epochs(self.storage, [(trial_id, Result(epoch))], owner=owner)

    def finish(self, trial_id: int, owner: str, value: float = 1.0) -> bool:
        return finish(self.storage, trial_id, TrialState.COMPLETE, value, {"a": 1}, owner=owner)

    def silence(self, seconds: float) -> None:
        """As if nobody's heart had beaten for so long."""
        with self.storage.engine.begin() as connection:
            connection.execute(update(SLOTS).values(beat=server_now() - seconds))

    def age(self) -> float:
        """Seconds since the last beat of the only trial."""
        with self.storage.engine.connect() as connection:
            return float(connection.execute(select(server_now() - SLOTS.c.beat)).scalar_one())

    def beat(self, owner: str) -> set[int]:
        return self.storage.transact(lambda connection: beat_in(connection, owner))

    def state(self, trial_id: int) -> TrialState:
        return self.storage.get_trial(trial_id).state

    def progress(self) -> tuple[int, int, int]:
        found = count_slots(self.storage, self.id)
        assert slots.count_running(self.storage, self.id) == found.running
        return found


@pytest.fixture
def place(database_url: str) -> Iterator[Place]:
    storage = open_storage(database_url)
    yield Place(storage, optuna.create_study(storage=storage, study_name="s"))
    storage.close()


@pytest.fixture
def local(tmp_path: object) -> Iterator[Place]:
    """On SQLite only, for what does not depend on the database."""
    storage = open_storage(f"sqlite:///{tmp_path}/test.db")
    yield Place(storage, optuna.create_study(storage=storage, study_name="s"))
    storage.close()


def dead_owner() -> str:
    """The name of a worker on this machine whose process has ended."""
    code = "from lrsearch.storage.owners import new_owner; print(new_owner())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


# the target


def test_no_more_slots_than_the_target_and_a_higher_one_continues(place: Place) -> None:
    me = new_owner()
    assert [c.slot if (c := place.claim(me)) else None for _ in range(4)] == [0, 1, 2, None]
    assert place.claim(me, target=4) == slots.Claim(place.id, 3, me)
    assert place.claim(me, target=2) is None


def test_trial_numbers_are_those_of_optuna(place: Place) -> None:
    me = new_owner()
    numbers = []
    for _ in range(2):
        _, trial_id = place.begin(me, 4)
        numbers.append(place.storage.get_trial(trial_id).number)
    place.study.add_trial(optuna.create_trial(value=1.0))
    numbers.append(place.storage.get_trial(place.begin(me, 4)[1]).number)
    assert numbers == [0, 1, 3]
    assert [t.number for t in place.study.get_trials()] == [0, 1, 2, 3]


def test_failed_trials_use_their_slots(place: Place) -> None:
    me = new_owner()
    for _ in range(3):
        _, trial_id = place.begin(me)
        assert finish(place.storage, trial_id, TrialState.FAIL, None, {"error": "x"}, owner=me)
    assert place.claim(me) is None
    assert place.progress() == (3, 0, 0)


# a trial's life


def test_finish_is_seen_by_optuna_and_by_its_cache(place: Place) -> None:
    me = new_owner()
    _, trial_id = place.begin(me)
    assert [t.state for t in place.study.get_trials()] == [TrialState.RUNNING]
    trial = place.storage.get_trial(trial_id)
    trial.params = {"lr": 0.1, "scheduler": "StepLR"}
    trial.distributions = {
        "lr": FloatDistribution(1e-4, 1.0, log=True),
        "scheduler": CategoricalDistribution(["OneCycleLR", "StepLR"]),
    }
    trial.user_attrs = {"schedule": {"family": "StepLR", "params": {"gamma": 0.5}}}
    trials.fill_trials(place.storage, [trial])
    place.record(trial_id, 1, me)
    attrs = {"stopped": "completed", "val_metric": None, "text": "quoted ' \" \n"}
    assert finish(place.storage, trial_id, TrialState.COMPLETE, 0.25, attrs, owner=me)
    best = place.study.best_trial
    assert best.value == 0.25
    assert best.params == {"lr": 0.1, "scheduler": "StepLR"}
    assert best.distributions["scheduler"] == CategoricalDistribution(["OneCycleLR", "StepLR"])
    assert best.user_attrs == {
        "schedule": {"family": "StepLR", "params": {"gamma": 0.5}},
        **attrs,
    }
    assert best.intermediate_values == {1: 1.0}
    assert best.duration is not None
    assert 0 <= best.duration.total_seconds() < 60


def test_finish_twice_is_once(place: Place) -> None:
    me = new_owner()
    _, trial_id = place.begin(me)
    assert place.finish(trial_id, me, 1.0)
    assert place.finish(trial_id, me, 2.0)
    assert place.study.best_value == 1.0


def test_create_twice_is_one_trial(place: Place) -> None:
    claim = place.claim(new_owner())
    assert claim is not None
    assert create_trial(place.storage, claim) == create_trial(place.storage, claim)
    assert len(place.study.get_trials()) == 1


def test_a_queued_trial_is_adopted_once_and_one_handed_back_is_not(place: Place) -> None:
    me, other = new_owner(), new_owner()
    place.study.enqueue_trial({"x": 0.5})
    (queued,) = (t._trial_id for t in place.study.get_trials(states=(TrialState.WAITING,)))
    mine = slots.claim_some(place.storage, place.id, 3, me, 2)
    theirs = slots.claim_some(place.storage, place.id, 3, other, 2)
    assert [claim.slot for claim in (*mine, *theirs)] == [0, 1, 2]

    def start(claims: list[slots.Claim]) -> dict[int, int]:
        found = trials.start_trials(place.storage, claims, [queued], reserved=1)
        return {slot: trial._trial_id for slot, trial in found.items()}

    started = start(mine)
    assert started[0] != queued, "the first slot is for a baseline"
    assert started[1] == queued
    assert place.storage.get_trial(queued).system_attrs == {"fixed_params": {"x": 0.5}}
    assert start(mine) == started, "asked again after a lost answer"
    slots.release(place.storage, me)
    assert place.state(queued) == TrialState.WAITING
    assert start(theirs)[2] not in (queued, started[0])
    assert start(mine) == {}, "they may be anybody's now"


def test_a_claim_says_whether_other_workers_have_slots(place: Place) -> None:
    me, other = new_owner(), new_owner()

    def alone(owner: str) -> bool:
        (claim,) = slots.claim_some(place.storage, place.id, 9, owner, 1)
        return not claim.others

    assert alone(me)
    assert alone(me), "its own slot is none of another"
    assert not alone(other)
    assert not alone(me)
    slots.release(place.storage, other)
    assert alone(me), "it took the slot that was left"


def test_many_are_claimed_filled_and_finished_together(place: Place) -> None:
    me, other = new_owner(), new_owner()
    claims = slots.claim_some(place.storage, place.id, 5, me, 4)
    started = trials.start_trials(place.storage, claims)
    assert [started[slot].number for slot in range(4)] == [0, 1, 2, 3]
    for trial in started.values():
        trial.params, trial.distributions = {"x": 0.5}, {"x": FloatDistribution(0, 1)}
        trial.user_attrs = {"n": trial.number}
    trials.fill_trials(place.storage, list(started.values()))
    first, second, third, _ = (trial._trial_id for trial in started.values())
    taken, _ = place.begin(other, 5), slots.claim_some(place.storage, place.id, 5, me, 4)
    endings = [
        Ending(first, TrialState.COMPLETE, 0.5, {"a": 1}),
        Ending(second, TrialState.FAIL, None),
        Ending(third, TrialState.PRUNED, 0.75),
        Ending(taken[1], TrialState.COMPLETE, 0.25),
    ]
    assert trials.finish_all(place.storage, endings, me) == {first, second, third}
    found = place.study.get_trials()
    assert [t.value for t in found] == [0.5, None, 0.75, None, None]
    assert [t.user_attrs.get("n") for t in found] == [0, 1, 2, 3, None]
    assert found[0].user_attrs["a"] == 1
    assert place.progress() == (3, 2, 0)


# handing back


def test_released_trials_wait_and_go_on_with_number_parameters_and_history(place: Place) -> None:
    me, other = new_owner(), new_owner()
    claim, trial_id = place.begin(me)
    fill_trial(place.storage, trial_id, {"x": 0.5})
    place.record(trial_id, 1, me)
    place.record(trial_id, 2, me)
    slots.release(place.storage, me)
    assert place.state(trial_id) == TrialState.WAITING
    assert place.progress() == (0, 0, 1)
    again = place.claim(other)
    assert again == slots.Claim(place.id, claim.slot, other, trial_id, attempts=0)
    assert place.state(trial_id) == TrialState.RUNNING
    assert place.storage.get_trial(trial_id).params == {"x": 0.5}
    assert place.record(trial_id, 3, me) == {trial_id}
    assert place.record(trial_id, 3, other) == set()
    loaded = history.load_history(place.storage, place.id)
    assert loaded.epoch.tolist() == [1, 2, 3]


def test_release_leaves_others_and_finished_trials_alone(place: Place) -> None:
    me, other = new_owner(), new_owner()
    _, finished = place.begin(me)
    place.finish(finished, me)
    _, running = place.begin(other)
    _, mine = place.begin(me)
    slots.release(place.storage, me)
    assert place.state(mine) == TrialState.WAITING
    assert place.state(finished) == TrialState.COMPLETE
    assert place.state(running) == TrialState.RUNNING
    assert place.record(running, 1, other) == set()


def test_samplers_do_not_see_waiting_trials(local: Place) -> None:
    me = new_owner()
    _, trial_id = local.begin(me)
    slots.release(local.storage, me)
    seen = local.study.get_trials(
        states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    )
    assert trial_id not in [t._trial_id for t in seen]


# death


def test_a_silent_worker_is_replaced_and_may_not_write_any_more(place: Place) -> None:
    silent, other = new_owner(), new_owner()
    claim, trial_id = place.begin(silent)
    place.silence(61)
    again = place.claim(other, stale_seconds=60)
    assert again == slots.Claim(place.id, claim.slot, other, trial_id, attempts=1)
    assert place.record(trial_id, 1, silent) == {trial_id}
    assert not place.finish(trial_id, silent, 9.0)
    assert len(history.load_history(place.storage, place.id)) == 0
    assert place.state(trial_id) == TrialState.RUNNING
    assert place.finish(trial_id, other, 1.0)
    assert place.study.best_value == 1.0


def test_a_beating_worker_is_left_alone(place: Place) -> None:
    slow, other = new_owner(), new_owner()
    _, trial_id = place.begin(slow, target=1)
    place.silence(61)
    assert place.beat(slow) == {trial_id}
    assert place.claim(other, target=1, stale_seconds=60) is None
    place.silence(61)
    assert place.record(trial_id, 1, slow) == set()
    assert place.claim(other, target=1, stale_seconds=60) is None


def test_the_clock_of_the_worker_does_not_matter(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    me, other = new_owner(), new_owner()
    place.begin(me, target=1)
    for shift in (-1e6, 1e6):
        monkeypatch.setattr(time, "time", lambda shift=shift: 1.7e9 + shift)
        assert place.claim(other, target=1, stale_seconds=60) is None
        place.beat(me)
    assert -1 < place.age() < 60


def test_a_dead_process_of_this_machine_is_replaced_at_once(place: Place) -> None:
    gone, me = dead_owner(), new_owner()
    _, trial_id = place.begin(gone)
    claim = place.claim(me, stale_seconds=1e9)
    assert claim is not None
    assert (claim.trial_id, claim.attempts) == (trial_id, 1)


def test_only_ended_processes_of_this_machine_are_known_to_be_dead() -> None:
    me = new_owner()
    host, machine, pid, start, random = me.split(":")
    assert not is_dead(me)
    assert is_dead(dead_owner())
    assert not is_dead(f"{host}:00000000:999999:{start}:{random}"), "another machine"
    assert not is_dead("somebody else's words")
    if sys.platform.startswith("linux"):
        assert is_dead(f"{host}:{machine}:{pid}:1:{random}"), "the number was given to another"
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        name = f"{host}:{machine}:{child.pid}:{owners._process(child.pid)}:{random}"
        assert not is_dead(name)
        child.kill()
        while not is_dead(name):  # a zombie counts as dead
            time.sleep(0.01)
        child.communicate()


def test_where_a_machine_has_no_proc_its_workers_are_not_taken_for_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(owners, "_process", lambda pid: None)
    assert not is_dead(new_owner())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_a_process_that_proc_hides_from_this_user_is_not_taken_for_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """/proc mounted with hidepid, as on many clusters."""
    owner = new_owner()

    def kill(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(owners, "_process", lambda pid: None)
    monkeypatch.setattr(os, "kill", kill)
    assert not is_dead(owner)


def test_two_machines_of_one_name_without_proc_take_none_of_each_other_s_workers_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owners, "Path", lambda path: tmp_path / path.lstrip("/"))
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(uuid, "getnode", lambda: 0xA0)
    gone = new_owner().split(":")
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    gone[2] = str(child.pid)
    assert is_dead(":".join(gone))
    monkeypatch.setattr(uuid, "getnode", lambda: 0xB0)
    assert not is_dead(":".join(gone))


def test_a_trial_that_keeps_killing_its_workers_is_given_up_with_the_last_error(
    place: Place,
) -> None:
    for attempt in range(slots.MAX_ATTEMPTS):
        worker = new_owner()
        claim, trial_id = place.begin(worker, target=1)
        assert claim.attempts == attempt
        slots.release(place.storage, worker, error=f"\0\udcff: signal 9 ({attempt})")
    assert place.claim(new_owner(), target=1) is None
    trial = place.storage.get_trial(trial_id)
    assert trial.state == TrialState.FAIL
    assert "5 workers" in trial.user_attrs["error"]
    assert r"\x00\udcff: signal 9 (4)" in trial.user_attrs["error"]
    assert trial.user_attrs["stopped"].startswith("failed")


def test_a_suspect_comes_last_and_goes_to_a_worker_that_runs_nothing_else(place: Place) -> None:
    for _ in range(2):
        worker = new_owner()
        place.begin(worker, target=3)
        slots.release(place.storage, worker, error="killed")
    claims = [claim_one(place.storage, place.id, 3, new_owner()) for _ in range(2)]
    assert [c.slot for c in claims if c is not None and not c.suspect] == [1, 2]
    assert claim_one(place.storage, place.id, 3, new_owner(), suspects=False) is None
    alone = claim_one(place.storage, place.id, 3, new_owner())
    assert alone is not None
    assert (alone.slot, alone.suspect) == (0, True)


def test_deaths_are_forgotten_when_an_epoch_gets_done(place: Place) -> None:
    for epoch in range(1, 2 * slots.MAX_ATTEMPTS):
        worker = new_owner()
        claim, trial_id = place.begin(worker, target=1)
        assert claim.attempts == min(1, epoch - 1)
        place.record(trial_id, epoch, worker)
        slots.release(place.storage, worker, error="killed")
    assert place.state(trial_id) == TrialState.WAITING
    worker = new_owner()
    place.begin(worker, target=1)
    place.record(trial_id, 1, worker)  # done before: no progress
    slots.release(place.storage, worker, error="killed")
    again = place.claim(new_owner(), target=1)
    assert again is not None
    assert again.attempts == 2


def test_a_worker_has_worked_when_an_epoch_of_its_own_is_on_record(place: Place) -> None:
    first, second = new_owner(), new_owner()
    _, trial_id = place.begin(first, target=1)
    assert not slots.has_worked(place.storage, first, {})
    place.record(trial_id, 1, first)
    assert slots.has_worked(place.storage, first, {})
    slots.release(place.storage, first)
    before = slots.reached(place.storage)
    assert before == {(place.id, 0): 1}
    place.begin(second, target=1)
    assert not slots.has_worked(place.storage, second, before), "it only took the trial over"
    place.record(trial_id, 2, second)
    assert slots.has_worked(place.storage, second, before)
    place.finish(trial_id, second)
    assert slots.has_worked(place.storage, second, before)
    assert slots.reached(place.storage) == {}


def test_after_an_outage_nobody_is_taken_for_dead_too_soon(local: Place) -> None:
    _, trial_id = local.begin(new_owner(), target=1)
    local.silence(61)
    local.storage.recovered_at = time.monotonic()
    assert local.claim(new_owner(), target=1, stale_seconds=60) is None
    local.storage.recovered_at = time.monotonic() - 61
    claim = local.claim(new_owner(), target=1, stale_seconds=60)
    assert claim is not None
    assert claim.trial_id == trial_id


def test_after_the_machine_slept_nobody_is_taken_for_dead_too_soon(
    local: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or after the clock was set: the other worker is as alive as this one."""
    other = new_owner()
    local.begin(other, target=1)
    woken = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: woken)
    local.silence(3600)
    assert local.claim(new_owner(), target=1, stale_seconds=60) is None
    assert local.storage.recovered_at is not None
    assert time.monotonic() - local.storage.recovered_at < 60


def test_a_worker_killed_between_claiming_and_creating_leaves_its_slot(place: Place) -> None:
    first = place.claim(dead_owner())
    again = place.claim(new_owner())
    assert first is not None
    assert again is not None
    assert (again.slot, again.trial_id) == (first.slot, None)
    assert trials.start_trials(place.storage, [first]) == {}
    assert place.study.get_trials() == []


def test_a_trial_told_by_another_program_frees_its_slot(place: Place) -> None:
    me = new_owner()
    _, trial_id = place.begin(me, target=1)
    place.study.tell(0, 3.0)
    assert place.claim(new_owner(), target=1) is None
    assert place.progress() == (1, 0, 0)
    assert place.finish(trial_id, me, 5.0)
    assert place.study.best_value == 3.0


# races


def test_one_stale_trial_goes_to_one_of_many(place: Place) -> None:
    _, trial_id = place.begin(new_owner(), target=1)
    place.silence(61)
    won: list[slots.Claim] = []
    barrier = threading.Barrier(8)
    errors: list[BaseException] = []

    def grab() -> None:
        try:
            barrier.wait()
            claim = place.claim(new_owner(), target=1, stale_seconds=60)
            if claim is not None:
                won.append(claim)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=grab) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [claim.trial_id for claim in won] == [trial_id]


def test_takeover_and_report_at_the_same_time_never_both_win(place: Place) -> None:
    for round_ in range(10):
        owner, thief = new_owner(), new_owner()
        _, trial_id = place.begin(owner, target=round_ + 1)
        place.silence(61)
        barrier = threading.Barrier(2)
        lost: list[set[int]] = []

        def report(
            owner: str = owner,
            trial_id: int = trial_id,
            barrier: threading.Barrier = barrier,
            lost: list[set[int]] = lost,
        ) -> None:
            barrier.wait()
            lost.append(place.record(trial_id, 1, owner))

        thread = threading.Thread(target=report)
        thread.start()
        barrier.wait()
        claim = place.claim(thief, target=round_ + 1, stale_seconds=60)
        thread.join()
        assert (lost == [{trial_id}]) == (claim is not None)
        assert place.finish(trial_id, owner if claim is None else thief)


def test_heartbeat_thread_keeps_a_slow_worker_alive(local: Place) -> None:
    slow = new_owner()
    local.begin(slow, target=1)
    local.silence(100)
    with Heartbeat(local.storage, slow, seconds=0.05):
        wait_for(lambda: local.age() < 5)
    assert local.claim(new_owner(), target=1, stale_seconds=60) is None
    wait_for(lambda: "lrsearch-heartbeat" not in [t.name for t in threading.enumerate()])


# studies


def test_studies_in_one_database_do_not_mix_and_a_deleted_one_leaves_nothing(
    place: Place,
) -> None:
    me = new_owner()
    second = Place(place.storage, optuna.create_study(storage=place.storage, study_name="second"))
    _, first_trial = place.begin(me)
    _, second_trial = second.begin(me)
    place.record(first_trial, 1, me)
    second.record(second_trial, 1, me)
    assert second.storage.get_trial(second_trial).number == 0
    optuna.delete_study(study_name="second", storage=place.storage)
    with place.storage.engine.connect() as connection:
        left = connection.execute(select(SLOTS.c.study_id)).scalars().all()
        rows = connection.execute(select(HISTORY.c.trial_id)).scalars().all()
    assert left == [place.id]
    assert rows == [first_trial]
    with pytest.raises(LrsearchError, match="study was deleted"):
        second.claim(me)


def test_deleting_a_study_empties_every_table_but_those_of_other_studies(place: Place) -> None:
    def rows() -> dict[str, int]:
        tables = (*models.BaseModel.metadata.sorted_tables, *metadata.sorted_tables)
        with place.storage.engine.connect() as connection:
            return {
                table.name: connection.execute(select(func.count()).select_from(table)).scalar()
                for table in tables
            }

    me, before = new_owner(), rows()
    other = Place(place.storage, optuna.create_study(storage=place.storage, study_name="second"))
    _, trial_id = other.begin(me)
    other.record(trial_id, 1, me)
    other.finish(trial_id, me)
    study = optuna.load_study(study_name="second", storage=place.storage)
    study.set_user_attr("made", "here")
    place.storage.set_study_system_attr(other.id, "note", "here")
    ran = study.ask({"lr": FloatDistribution(0, 1)})
    place.storage.set_trial_system_attr(ran._trial_id, "rung", 1)
    place.storage.record_heartbeat(ran._trial_id)
    full = rows()
    unlike = {name for name, count in full.items() if count == before[name]}
    assert unlike == {"version_info", "lrsearch_version"}, "a table that this study has not filled"
    place.storage.delete_study(other.id)
    assert rows() == before
    with pytest.raises(KeyError):
        place.storage.delete_study(other.id)


def test_deleting_takes_as_many_statements_for_many_trials_as_for_one(local: Place) -> None:
    def statements(name: str, count: int) -> int:
        study = optuna.create_study(storage=local.storage, study_name=name)
        for _ in range(count):
            study.ask({"lr": FloatDistribution(0, 1)})
        seen: list[Any] = []
        event.listen(
            local.storage.engine, "before_cursor_execute", lambda *each: seen.append(each)
        )
        local.storage.delete_study(study._study_id)
        return len(seen)

    first, again = statements("one", 1), statements("many", 12)
    assert again == first


def test_plain_optuna_deleting_a_study_on_sqlite_leaves_nothing_for_the_next(
    local: Place,
) -> None:
    me = new_owner()
    _, trial_id = local.begin(me)
    local.record(trial_id, 1, me)
    plain = optuna.storages.RDBStorage(local.storage.url)
    optuna.delete_study(study_name="s", storage=plain)
    plain.engine.dispose()
    after = Place(local.storage, optuna.create_study(storage=local.storage, study_name="new"))
    assert after.id == local.id, "SQLite gives the number again"
    assert after.claim(me) == slots.Claim(after.id, 0, me)
    assert len(history.load_history(local.storage, after.id)) == 0


def test_what_is_said_once_of_a_study_is_said_by_the_first_of_many(place: Place) -> None:
    barrier = threading.Barrier(6)
    heard: list[object] = []

    def say(word: int) -> None:
        barrier.wait()
        heard.append(set_once(place.storage, place.id, "lrsearch", {"uid": word}))

    threads = [threading.Thread(target=say, args=(word,)) for word in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(heard) == 6
    assert all(word == heard[0] for word in heard)
    assert place.study.user_attrs == {"lrsearch": heard[0]}


def test_owner_names_fit_their_column() -> None:
    assert len(new_owner()) <= 255
    assert os.getpid() == int(new_owner().split(":")[2])
