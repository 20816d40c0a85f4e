"""Many workers on one database, killed, cut off and out of disk: nothing lost, nothing twice."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState
from sqlalchemy import create_engine, make_url, select
from sqlalchemy.exc import OperationalError

from lrsearch.errors import LrsearchError
from lrsearch.storage import (
    Storage,
    engine,
    history,
    links,
    new_owner,
    open_storage,
    slots,
)
from lrsearch.storage.engine import PATIENCE_SECONDS
from lrsearch.storage.schema import SLOTS, lock_study, server_now
from lrsearch.storage.tuning import engine_kwargs
from tests.crash_runs import state, stopped
from tests.servers import SERVERS, Postgres, wait_for
from tests.small_disk import small_disk
from tests.storage_worker import (
    EPOCHS,
    Result,
    SlotCounts,
    claim_one,
    count_slots,
    create_trial,
    finish,
    result,
    work,
)

ROOT = Path(__file__).resolve().parents[1]


_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.storage_worker"])


@dataclass
class Worker:
    """A worker process on study ``s``, and what it said at its end."""

    process: BaseProcess
    said: Connection

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def end(self, seconds: float) -> tuple[int, list[str]]:
        """Wait for it: trials that it finished, and lines about waiting."""
        assert self.said.poll(seconds), "it does not end"
        answer: tuple[int, list[str]] | str = self.said.recv()
        self.process.join()
        assert isinstance(answer, tuple), answer
        return answer


def _run(said: Connection, job: Callable[..., tuple[int, list[str]]], *args: Any) -> None:
    try:
        said.send(job(*args))
    except BaseException:
        said.send(traceback.format_exc())
        raise


def _start(job: Callable[..., tuple[int, list[str]]], *args: Any) -> Worker:
    said, says = _processes.Pipe(duplex=False)
    process = _processes.Process(target=_run, args=(says, job, *args), daemon=True)
    process.start()
    says.close()
    return Worker(process, said)


def _work(url: str, target: int, pause: float, stops: bool) -> tuple[int, list[str]]:
    lines: list[str] = []
    storage = open_storage(url)
    storage.on_wait = lines.append
    return work(storage, "s", target, pause, stops), lines


def start_worker(url: str, target: int, pause: float = 0.0, stops: bool = False) -> Worker:
    """One worker process."""
    return _start(_work, url, target, pause, stops)


def check_all_there(storage: Storage, target: int) -> None:
    """Exactly ``target`` finished trials, each with its full history, none twice."""
    study = optuna.load_study(study_name="s", storage=storage)
    found = study.get_trials()
    assert [trial.number for trial in found] == list(range(target))
    assert {trial.state for trial in found} == {TrialState.COMPLETE}
    assert sorted(trial.user_attrs["slot"] for trial in found) == list(range(target))
    loaded = history.load_history(storage, study._study_id)
    for trial in found:
        x = 1.0 / (1 + trial.user_attrs["slot"])
        expected = [result(x, epoch) for epoch in range(1, EPOCHS + 1)]
        for name in ("epoch", "lr", "val_loss"):
            stored = loaded.of(trial._trial_id, name)
            np.testing.assert_array_equal(stored, [getattr(e, name) for e in expected])
        assert trial.intermediate_values == {e.epoch: e.val_loss for e in expected}
        assert trial.value == expected[-1].val_loss
        assert trial.params == {"x": x}
    with storage.engine.connect() as connection:
        rows = connection.execute(select(SLOTS.c.trial_id, SLOTS.c.finished)).all()
    assert len(rows) == target
    assert sorted(row.trial_id for row in rows) == sorted(trial._trial_id for trial in found)
    assert {row.finished for row in rows} == {1}


def run_workers(url: str, count: int, target: int) -> int:
    """Trials finished by ``count`` processes that start together."""
    workers = [start_worker(url, target) for _ in range(count)]
    return sum(worker.end(120)[0] for worker in workers)


def _create(url: str, ready: Barrier) -> tuple[int, list[str]]:
    ready.wait(60)
    storage = open_storage(url)
    optuna.create_study(storage=storage, study_name="same", load_if_exists=True)
    return len(storage.get_all_studies()), storage.warnings


def test_many_processes_create_one_database_at_the_same_time(database_url: str) -> None:
    ready = _processes.Barrier(6)
    processes = [_start(_create, database_url, ready) for _ in range(6)]
    assert [process.end(60) for process in processes] == [(1, [])] * 6
    storage = open_storage(database_url, create=False)
    assert [study.study_name for study in storage.get_all_studies()] == ["same"]
    with storage.engine.connect() as connection:
        for table in ("alembic_version", "version_info", "lrsearch_version"):
            rows = connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar()
            assert rows == 1, table
    storage.close()


def test_sixteen_workers_on_one_sqlite_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    storage = open_storage(url)
    optuna.create_study(storage=storage, study_name="s")
    assert run_workers(url, 16, 500) == 500
    check_all_there(storage, 500)


@pytest.mark.parametrize("database_url", SERVERS, indirect=True)
def test_six_workers_on_one_server(database_url: str) -> None:
    storage = open_storage(database_url)
    optuna.create_study(storage=storage, study_name="s")
    assert run_workers(database_url, 6, 100) == 100
    check_all_there(storage, 100)
    storage.close()


def test_thirty_killed_workers_lose_nothing(database_url: str) -> None:
    storage = open_storage(database_url)
    study = optuna.create_study(storage=storage, study_name="s")
    target, kills = 40, 30
    rng = random.Random(0)
    workers = [start_worker(database_url, target, pause=0.01) for _ in range(3)]
    for _ in range(kills):
        before = count_slots(storage, study._study_id)
        limit = time.monotonic() + 1.0
        while time.monotonic() < limit:  # let some get under way
            if count_slots(storage, study._study_id) != before:
                break
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.03))
        victim = rng.randrange(len(workers))
        workers[victim].kill()
        workers[victim] = start_worker(database_url, target, pause=0.01)
    for worker in workers:
        worker.end(120)
    check_all_there(storage, target)
    storage.close()


# a server that goes away


@pytest.mark.parametrize("crash", [False, True], ids=["stopped", "crashed"])
def test_a_server_restart_in_mid_run_costs_only_a_wait(postgres: Postgres, crash: bool) -> None:
    url = postgres.new_database()
    storage = open_storage(url)
    study = optuna.create_study(storage=storage, study_name="s")
    target = 60
    workers = [start_worker(url, target, pause=0.03) for _ in range(3)]
    try:
        wait_for(lambda: count_slots(storage, study._study_id).finished >= 10, 60)
        with stopped([worker.pid for worker in workers]):  # else they may end before it does
            if crash:
                postgres.crash()
            else:
                postgres.stop()
        time.sleep(2.0)
        assert not any(worker.said.poll() for worker in workers), "a worker gave up"
    finally:
        postgres.start()
    told = [line for worker in workers for line in worker.end(120)[1]]
    assert told, "a wait of seconds is mentioned"
    check_all_there(storage, target)
    storage.close()


def test_everything_that_optuna_asks_waits_for_the_server_too(postgres: Postgres) -> None:
    storage = open_storage(postgres.new_database())
    study = optuna.create_study(storage=storage, study_name="s")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    lines: list[str] = []
    restart = threading.Thread(target=postgres.start)

    def tell(line: str) -> None:
        if not lines:
            restart.start()
        lines.append(line)

    storage.on_wait = tell
    postgres.stop()
    try:
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    finally:
        if lines:
            restart.join()
        else:
            postgres.start()
    assert [trial.number for trial in study.get_trials()] == list(range(6))
    assert lines
    assert "\n" not in lines[0]
    assert storage.recovered_at is not None
    storage.close()


def test_a_server_that_stays_away_is_an_error_after_the_patience(postgres: Postgres) -> None:
    url = postgres.new_database()
    storage = open_storage(url)
    study = optuna.create_study(storage=storage, study_name="s")
    storage.patience = 0.5
    postgres.stop()
    try:
        with pytest.raises(LrsearchError, match="cannot be reached") as caught:
            study.get_trials()
        assert "\n" not in str(caught.value)
        with pytest.raises(LrsearchError, match="cannot be reached"):
            open_storage(url)
    finally:
        postgres.start()
    storage.patience = 60.0
    assert study.get_trials() == []


def test_a_wait_ends_soon_when_somebody_wants_to_leave(postgres: Postgres) -> None:
    storage = open_storage(postgres.new_database())
    study = optuna.create_study(storage=storage, study_name="s")
    postgres.stop()
    hurry = threading.Timer(1.5, lambda: setattr(storage, "patience", 0.0))
    hurry.start()
    start = time.monotonic()
    try:
        with pytest.raises(LrsearchError, match="cannot be reached"):
            study.get_trials()
        seconds = time.monotonic() - start
    finally:
        postgres.start()
    assert seconds < PATIENCE_SECONDS / 10
    storage.close()


def test_what_is_read_under_a_lock_is_the_latest_whatever_the_server_s_default(
    postgres: Postgres,
) -> None:
    url = postgres.new_database()
    default = f"ALTER DATABASE {make_url(url).database} SET default_transaction_isolation"
    admin = create_engine(url)
    with admin.begin() as connection:
        connection.exec_driver_sql(f"{default} = 'repeatable read'")
    admin.dispose()
    storage, other = open_storage(url), open_storage(url)
    study = optuna.create_study(storage=storage, study_name="s")
    entered = threading.Barrier(2)
    claimed: list[slots.Claim | None] = []

    def claim() -> None:
        entered.wait()
        claimed.append(claim_one(other, study._study_id, 3, new_owner()))

    def work(connection: sqlalchemy.Connection) -> None:
        lock_study(connection, study._study_id)
        entered.wait()
        time.sleep(0.5)  # the other waits for the lock, and what it saw before is old then
        row = {"study_id": study._study_id, "slot": 0, "owner": "me", "beat": server_now()}
        connection.execute(SLOTS.insert().values(row))

    thread = threading.Thread(target=claim)
    thread.start()
    storage.transact(work)
    thread.join()
    assert [each.slot for each in claimed if each is not None] == [1]
    storage.close()
    other.close()


def test_a_wait_is_told_at_the_first_attempt_where_that_takes_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "NOTICED_SECONDS", 0.1)
    attempts: list[int] = []

    def call() -> None:
        attempts.append(len(attempts))
        time.sleep(0.2)
        raise OperationalError("SELECT 1", {}, sqlite3.OperationalError("database is locked"))

    told: list[int] = []
    with pytest.raises(LrsearchError):
        engine.persist(
            call,
            "sqlite:///a.db",
            patience=lambda: 60.0 if len(attempts) < 3 else 0.0,
            on_wait=lambda line: told.append(len(attempts)),
        )
    assert told == [1]
    assert len(attempts) == 3


def test_a_network_that_is_gone_without_a_word_is_noticed_within_a_minute() -> None:
    given = engine_kwargs(make_url("postgresql+psycopg://me@db/x"), wal=False)["connect_args"]
    asked = given["keepalives_idle"] + given["keepalives_count"] * given["keepalives_interval"]
    assert asked <= 60  # where an answer is waited for
    assert 0 < given["tcp_user_timeout"] <= 60_000  # where not even the question came through


def test_a_server_that_does_not_answer_does_not_keep_who_wants_to_leave(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "ANSWER_SECONDS", 0.5)
    storage = open_storage(postgres.new_database())
    study = optuna.create_study(storage=storage, study_name="s")
    hurry = threading.Timer(0.5, storage.hurry)
    hurry.start()
    with postgres.frozen(30), pytest.raises(LrsearchError, match="cannot be reached"):
        study.get_trials()  # works when it is frozen no more
    hurry.join()
    storage.patience = 20.0
    assert study.get_trials() == []
    storage.close()


def test_a_pooler_may_give_each_transaction_another_session(postgres: Postgres) -> None:
    storage = open_storage(postgres.new_database())
    study = optuna.create_study(storage=storage, study_name="s")
    owner = new_owner()
    claim = claim_one(storage, study._study_id, 1, owner)
    assert claim is not None
    trial_id = create_trial(storage, claim)
    for epoch in range(1, 12):
        history.record_epochs(storage, [(trial_id, Result(epoch))], owner=owner)
        study.get_trials()
    kept = "SELECT count(*) FROM pg_prepared_statements"
    assert storage.transact(lambda c: c.exec_driver_sql(kept).scalar(), read=True) == 0
    storage.close()


def test_a_lost_answer_after_a_commit_changes_nothing(tmp_path: Path) -> None:
    """The server went away after the commit: the transaction runs again."""
    storage = open_storage(f"sqlite:///{tmp_path}/a.db")
    study = optuna.create_study(storage=storage, study_name="s")
    owner = new_owner()
    real = storage.attempt

    def twice(call, *, read=False):  # type: ignore[no-untyped-def]
        real(call, read=read)
        return real(call, read=read)

    storage.attempt = twice  # type: ignore[method-assign]
    claim = claim_one(storage, study._study_id, 2, owner)
    assert claim is not None
    assert count_slots(storage, study._study_id) == SlotCounts(0, 1, 0)
    trial_id = create_trial(storage, claim)
    for epoch in (1, 2):
        assert history.record_epochs(storage, [(trial_id, Result(epoch))], owner=owner) == set()
    assert finish(storage, trial_id, TrialState.COMPLETE, 1.0, {"a": 1}, owner=owner)
    storage.attempt = real  # type: ignore[method-assign]
    assert count_slots(storage, study._study_id) == SlotCounts(1, 0, 0)
    assert [trial.state for trial in study.get_trials()] == [TrialState.COMPLETE]
    assert len(history.load_history(storage, study._study_id)) == 2


# a disk that is full


def test_a_full_disk_is_one_clear_line_and_the_database_is_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
import sys
from pathlib import Path
from tests.test_storage_load import _fill_until_it_fails
disk = Path(sys.argv[1])
_fill_until_it_fails(f"sqlite:///{disk}/a.db", "the disk is full", disk)
"""
    monkeypatch.chdir(ROOT)
    with small_disk(tmp_path / "disk", 3) as disk:
        command = [*disk.enter, sys.executable, "-c", code, str(disk.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_file_size_limit_is_one_clear_line_and_the_database_is_intact(tmp_path: Path) -> None:
    code = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
from pathlib import Path
from tests.test_storage_load import _fill_until_it_fails
_fill_until_it_fails(sys.argv[1], "the disk", None)
"""
    url = f"sqlite:///{tmp_path}/a.db"
    done = subprocess.run(
        [sys.executable, "-c", code, url], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _fill_until_it_fails(url: str, words: str, disk: Path | None) -> None:
    storage = open_storage(url)
    study = optuna.create_study(storage=storage, study_name="s")
    owner = new_owner()
    claim = claim_one(storage, study._study_id, 1, owner)
    assert claim is not None
    trial_id = create_trial(storage, claim)
    done = 0
    said: LrsearchError | None = None
    while said is None and done < 100_000:
        try:
            history.record_epochs(storage, [(trial_id, Result(done + 1))], owner=owner)
            done += 1
        except LrsearchError as error:
            said = error
    assert words in str(said)
    assert "\n" not in str(said)
    assert done > 100
    loaded = history.load_history(storage, study._study_id)
    assert loaded.epoch.tolist() == list(range(1, done + 1)), "what was committed, and no more"
    storage.close()
    path = url.removeprefix("sqlite:///")
    if disk is not None:
        copy = disk.parent / "copy.db"  # where there is room again
        for suffix in ("", "-wal"):
            source = Path(path + suffix)
            if source.exists():
                Path(f"{copy}{suffix}").write_bytes(source.read_bytes())
        path = str(copy)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    if disk is not None:
        again = open_storage(f"sqlite:///{path}")
        study = optuna.load_study(study_name="s", storage=again)
        rest = history.record_epochs(again, [(trial_id, Result(done + 1))], owner=owner)
        assert rest == set()
        assert len(history.load_history(again, study._study_id)) == done + 1
        again.close()


def test_a_stopped_worker_that_wakes_up_does_not_disturb_its_successor(tmp_path: Path) -> None:
    """SIGSTOP for longer than the heart may stand still, as a suspended machine."""
    url = f"sqlite:///{tmp_path}/a.db"
    storage = open_storage(url)
    study = optuna.create_study(storage=storage, study_name="s")
    worker = start_worker(url, 2, stops=True)
    wait_for(lambda: state(worker.pid) == "T", 60)
    assert len(history.load_history(storage, study._study_id)) == 1
    time.sleep(0.6)
    me = new_owner()
    claim = claim_one(storage, study._study_id, 2, me, stale_seconds=0.5)
    assert claim is not None
    assert claim.trial_id is not None
    os.kill(worker.pid, signal.SIGCONT)
    wait_for(lambda: count_slots(storage, study._study_id).finished == 1, 60)
    for epoch in range(1, EPOCHS + 1):
        rows = [(claim.trial_id, result(1.0, epoch))]
        assert history.record_epochs(storage, rows, owner=me) == set()
    value = result(1.0, EPOCHS).val_loss
    assert finish(storage, claim.trial_id, TrialState.COMPLETE, value, owner=me)
    assert worker.end(60) == (1, [])
    check_all_there(storage, 2)


def test_the_worker_of_these_tests_ends_at_the_target(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/a.db")
    optuna.create_study(storage=storage, study_name="s")
    assert work(storage, "s", 4) == 4
    assert work(storage, "s", 4) == 0
    assert work(storage, "s", 6) == 2
    check_all_there(storage, 6)
