"""Whole runs with several processes, disturbed in every way: they end as if nothing was."""

from __future__ import annotations

import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState

from lrsearch.config import make
from lrsearch.errors import LrsearchError
from lrsearch.search.beginning import header, idle
from lrsearch.search.child import LocalChild, death
from lrsearch.search.context import Context
from lrsearch.search.interrupt import Interrupt, Interrupted
from lrsearch.search.make import make_crew
from lrsearch.search.plan import make_plan
from lrsearch.search.raise_finalists import raise_finalists
from lrsearch.search.run import run
from lrsearch.search.worker_process import Orders
from lrsearch.search.workers import MAX_DEATHS, Crew, LocalLauncher, spread
from lrsearch.storage import new_owner, open_storage, slots
from tests.bench import Bench, FakeRunner
from tests.crash_runs import (
    EPOCHS,
    TRIALS,
    alive,
    arguments,
    check_equal,
    check_handed_back,
    children,
    finish,
    finished,
    hear,
    leftovers,
    open_owners,
    pids,
    positions,
    running,
    stopped,
)
from tests.servers import Postgres, wait_for
from tests.small_disk import small_disk

SLOWER = {"LRSEARCH_TEST_PAUSE": "0.1"}  # else a run may end before a busy machine disturbs it
AT_ONCE = {"LRSEARCH_TEST_PAUSE": "0"}

# death


def test_thirty_killed_workers_change_nothing(
    tmp_path: Path, undisturbed: dict[str, dict[str, Any]]
) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    storage = open_storage(url)
    rng = random.Random(0)
    seen: dict[tuple[str, int], tuple[int, bool]] = {}
    with running(tmp_path, *arguments(url, "--workers", "3"), **SLOWER) as process:
        kills = 0
        deadline = time.monotonic() + 240
        while kills < 30 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
            for owner, (slot, epoch) in positions(storage).items():
                first, eager = seen.setdefault((owner, slot), (epoch, rng.random() < 0.2))
                if epoch == first and not eager:
                    continue  # most are killed after an epoch or more, some before
                time.sleep(rng.uniform(0, 0.3))
                try:
                    os.kill(int(owner.split(":")[2]), signal.SIGKILL)
                except ProcessLookupError:
                    continue  # killed just now, and not yet missed
                kills += 1
                break
        assert kills == 30, "it ended too soon"
        said = "".join(finish(process))
    assert "was killed by SIGKILL" in said
    assert "it is replaced and its trials go on" in said
    check_equal(storage, undisturbed)
    assert leftovers(tmp_path) == []


def test_a_worker_whose_starter_was_killed_hands_back_and_leaves(
    tmp_path: Path, undisturbed: dict[str, dict[str, Any]]
) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    storage = open_storage(url)
    with running(tmp_path, *arguments(url, "--workers", "2"), **SLOWER) as process:
        wait_for(lambda: len(open_owners(storage)) == 2 and finished(storage) >= 2, 90)
        found = pids(storage)
        process.kill()
    wait_for(lambda: not any(map(alive, found)), 60)
    assert open_owners(storage) == []
    assert finished(storage) < TRIALS
    with running(tmp_path, *arguments(url), **AT_ONCE) as process:
        finish(process)
    check_equal(storage, undisturbed)


def test_a_trial_that_kills_every_worker_ends_the_run_with_the_last_error(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    args = arguments(url, "--workers", "2", "--quiet", trials=3)
    crash = {"LRSEARCH_TEST_CRASH": "2", "LRSEARCH_TEST_PAUSE": "0"}
    with running(tmp_path, *args, **crash) as process:
        out, errors = process.communicate(timeout=180)
    assert process.returncode == 1
    assert out == ""
    last = errors.splitlines()[-1]
    assert last.startswith("lrsearch: every worker died 2 times in a row; the last one was killed")
    assert "SIGSEGV: Fatal Python error: Segmentation fault" in last
    assert "Traceback" not in errors
    storage = open_storage(url)
    study = optuna.load_study(study_name="crash", storage=storage)
    assert TrialState.RUNNING not in {trial.state for trial in study.get_trials()}
    assert open_owners(storage) == []


class Stillborn:
    """A worker that ends as soon as it has taken a trial."""

    placed = True

    def __init__(self, bench: Bench) -> None:
        self.owner = new_owner()
        slots.claim_some(bench.storage, bench.study._study_id, 10, self.owner, 1)

    def words(self) -> list[dict[str, str]]:
        return [{"owner": self.owner}]

    def poll(self) -> int:
        return 1

    def death(self, code: int) -> str:
        return "ended"

    def leave(self) -> None:
        pass


def test_workers_that_die_over_trials_of_others_are_given_up_and_leave_them(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path)
    interrupt, runner = Interrupt(), FakeRunner(3)
    runner.hook = lambda key, schedule, epoch: setattr(interrupt, "_code", 143)
    with pytest.raises(Interrupted):
        bench.worker(10, runner, interrupt=interrupt).run()
    assert [trial.state for trial in bench.trials] == [TrialState.WAITING] * 3
    started: list[Stillborn] = []

    def start(order: object) -> Stillborn:
        started.append(Stillborn(bench))
        return started[-1]

    plan = make_plan(make({"task": "digits", "workers": "1"}))
    launcher = SimpleNamespace(devices=["cpu"], start=start)
    notes: list[str] = []
    crew = Crew(plan, Context(bench.storage, Interrupt(), notes.append), launcher)
    with pytest.raises(LrsearchError, match="every worker died 5 times in a row"):
        crew.run()
    assert len(started) == MAX_DEATHS
    assert [trial.state for trial in bench.trials] == [TrialState.WAITING] * 3


def test_a_worker_is_told_whose_home_the_results_are_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another node of a cluster ``~`` is another folder."""
    monkeypatch.setenv("HOME", "/home/somebody")
    orders: list[dict[str, Any]] = []

    def start(order: dict[str, Any]) -> None:
        orders.append(order)
        raise LrsearchError("no worker")

    plan = make_plan(make({"task": "digits", "workers": "1", "out": "~/results"}))
    launcher = SimpleNamespace(devices=["cpu"], start=start)
    context = Context(Bench(tmp_path).storage, Interrupt(), print)
    with pytest.raises(LrsearchError, match="no worker"):
        Crew(plan, context, launcher).run()
    assert orders[0]["config"]["out"] == "/home/somebody/results"


@pytest.mark.parametrize(
    ("code", "log", "words"),
    [
        (-9, "", "was killed by SIGKILL (out of memory?)"),
        (
            -11,
            "Fatal Python error: Segmentation fault\n\nCurrent thread 0x1:\n  File x\n",
            "was killed by SIGSEGV: Fatal Python error: Segmentation fault",
        ),
        (
            1,
            "Traceback (most recent call last):\n  File x\nRuntimeError: no\n\n",
            "ended with exit code 1: RuntimeError: no",
        ),
        (3, "", "ended with exit code 3"),
    ],
)
def test_a_death_is_told_in_words(code: int, log: str, words: str) -> None:
    assert death(code, log) == words


@pytest.mark.parametrize(("system", "calls"), [("linux", "os.kill"), ("win32", "raise_signal")])
def test_a_worker_whose_starter_is_gone_gets_a_signal_that_it_can_handle(
    system: str, calls: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is gone before the order is read."""
    called: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", system)
        patch.setattr(os, "kill", lambda pid, number: called.append("os.kill"))
        patch.setattr(signal, "raise_signal", lambda number: called.append("raise_signal"))
        end, other = os.pipe()
        os.write(other, b'{"a": 1}\n')
        os.close(other)
        orders = Orders(end, Interrupt())
        wait_for(lambda: bool(called), 10)
        assert orders.next() == {"a": 1}
        assert orders.next() is None
    os.close(end)
    assert called == [calls]


@pytest.mark.parametrize("last", [b"", b"\n", b"\r\n"])
def test_a_worker_takes_one_order_after_another_and_then_leaves(last: bytes) -> None:
    """When the pipe ends, or after an empty line, also as Windows writes it."""
    end, other = os.pipe()
    orders = Orders(end, Interrupt())
    for number in (1, 2):
        os.write(other, b'{"a": %d}\n' % number)
        assert orders.next() == {"a": number}
        orders.done()
    os.write(other, last)
    if not last:
        os.close(other)
    assert orders.next() is None, "and no signal has ended this process"
    for number in (end, other) if last else (end,):
        os.close(number)


def test_a_worker_that_had_a_signal_itself_is_not_ended_by_the_end_of_who_started_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As under Slurm, which sends SIGTERM to all processes: a second would end it unsaved."""
    called: list[int] = []
    end, other = os.pipe()
    interrupt = Interrupt()
    with interrupt.listening(), monkeypatch.context() as patch:
        os.kill(os.getpid(), signal.SIGTERM)
        patch.setattr(os, "kill", lambda pid, number: called.append(number))
        orders = Orders(end, interrupt)
        os.write(other, b'{"a": 1}\n')
        os.close(other)
        wait_for(lambda: not orders._thread.is_alive(), 10)
    os.close(end)
    assert called == []


def test_a_worker_leaves_though_another_process_holds_its_pipe_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of a loader do that were forked from the process that started it."""
    started: list[LocalChild] = []
    held: list[int] = []
    start = LocalLauncher.start

    def start_and_hold(self: LocalLauncher, order: dict[str, Any]) -> LocalChild:
        child = start(self, order)
        assert child._process.stdin is not None
        held.append(os.dup(child._process.stdin.fileno()))
        started.append(child)
        return child

    monkeypatch.setattr(LocalLauncher, "start", start_and_hold)
    monkeypatch.setattr("lrsearch.search.workers.STOP_SECONDS", 5.0)
    settings = {"task": "digits", "trials": 2, "epochs": 2, "workers": 2, "device": "cpu"}
    settings |= {"storage": f"sqlite:///{tmp_path}/a.db", "out": str(tmp_path), "fuse": "off"}
    run(make(settings))
    for end in held:
        os.close(end)
    assert [child.poll() for child in started] == [0, 0]


def test_a_worker_that_rests_leaves_when_it_is_told_to() -> None:
    end, other = os.pipe()
    interrupt = Interrupt()
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
    with interrupt.listening():
        timer.start()
        with pytest.raises(Interrupted):
            Orders(end, interrupt).next()
    os.close(other)


class Ended:
    """A process that was here, as a worker made by fork; used as a ``Forked``."""

    def __init__(self) -> None:
        end, other = os.pipe()
        os.close(other)
        self.stdin = open(os.devnull, "w")  # noqa: SIM115
        self.stdout = os.fdopen(end)
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        self.log.write(b"ValueError: no more\n")

    def poll(self) -> int:
        return 1

    def wait(self, timeout: float | None = None) -> int:
        return 1


@pytest.mark.parametrize("how", ["polled", "waited for"])
def test_the_log_of_a_worker_is_closed_with_it_and_its_last_words_stay(how: str) -> None:
    process = Ended()
    child = LocalChild({"threads": 1}, process)  # type: ignore[arg-type]
    child.leave()
    if how == "polled":
        assert child.poll() == 1
    else:
        child.wait(1)
    assert process.log.closed
    assert child.death(1) == "ended with exit code 1: ValueError: no more"


def test_workers_take_turns_on_all_gpus_unless_one_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = torch.device("cuda:0")
    configs = [make({"workers": workers, "train_samples": 100}) for workers in (1, 8)]
    plans = [replace(make_plan(config), device=first) for config in configs]  # with no GPU yet
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert spread("auto", first) == spread("cuda", first) == ["cuda:0", "cuda:1", "cuda:2"]
    assert spread("cuda:0", first) == ["cuda:0"]
    assert spread("auto", torch.device("cpu")) == ["cpu"]
    assert idle("auto", first, 1) == "1 of 3 GPUs at work; --workers 3 takes them all"
    assert idle("auto", first, 3) == idle("cuda:0", first, 1) == ""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    for config, plan, more in zip(configs, plans, ("", " and 2 more"), strict=True):
        assert header(plan, config)[-1].startswith(f"device cuda:0 (NVIDIA H200){more}: ")


def test_who_watches_the_workers_keeps_no_memory_of_a_gpu_from_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dry batch alone leaves as much with torch as a step of the model takes."""
    emptied: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    plan = make_plan(make({"workers": 2, "train_samples": 100}))
    there = replace(plan, device=torch.device("cuda:0"))
    context = Context(Bench(tmp_path).storage, Interrupt(), print)
    assert make_crew(there, context) is not None
    assert emptied == [True]


FREED = """
import torch
from lrsearch.training.device import give_back, prepare

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

cpu = torch.device("cpu")
prepare(cpu)
tensors = [torch.ones(1 << 14) for _ in range(4000)]  # 262 MB
del tensors
kept = resident()
give_back(cpu)
print(kept - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_process_that_rests_gives_back_the_memory_that_it_kept_for_the_next_step() -> None:
    """That of a large model is half of what the process takes."""
    freed = subprocess.check_output([sys.executable, "-c", FREED])
    assert int(freed) > 200_000_000


# one order after another


@pytest.mark.parametrize("killed", [False, True])
def test_the_workers_of_a_search_train_its_finalists_too(
    killed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are started once; one that died while it rested is replaced."""
    started: list[LocalChild] = []
    start, raised = LocalLauncher.start, raise_finalists

    def start_and_keep(self: LocalLauncher, order: dict[str, Any]) -> LocalChild:
        started.append(start(self, order))
        return started[-1]

    def later(plan: Any, study: Any, table: Any, context: Context) -> str:
        assert {child for _, child in context.resting} == set(started)
        if killed:
            started[0].kill()
            wait_for(lambda: started[0].poll() is not None, 10)
        return raised(plan, study, table, context)

    monkeypatch.setattr(LocalLauncher, "start", start_and_keep)
    monkeypatch.setattr("lrsearch.search.raise_finalists.raise_finalists", later)
    settings = {"task": "digits", "trials": 12, "epochs": 3, "workers": 2, "fuse": "off"}
    settings |= {"storage": f"sqlite:///{tmp_path}/a.db", "out": str(tmp_path), "device": "cpu"}
    outcome = run(make({**settings, "robust": True}))
    again = optuna.load_study(study_name="digits-confirm", storage=outcome.storage)
    assert {trial.state for trial in again.get_trials()} == {TrialState.COMPLETE}
    assert len(started) == 2 + killed
    assert [child.poll() for child in started[1:]] == [0] * (1 + killed)


# leaving


@pytest.mark.parametrize(
    ("sent", "code", "workers"),
    [(signal.SIGINT, 130, "1"), (signal.SIGTERM, 143, "2")],
)
def test_interrupted_and_called_again_it_ends_as_if_nothing_had_happened(
    sent: signal.Signals,
    code: int,
    workers: str,
    tmp_path: Path,
    undisturbed: dict[str, dict[str, Any]],
) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    storage = open_storage(url)
    args = arguments(url, "--workers", workers)

    def in_mid_trial() -> bool:
        under_way = positions(storage).values()
        return finished(storage) >= 1 and any(epoch < EPOCHS / 2 for _, epoch in under_way)

    with running(tmp_path, *args, **SLOWER) as process:
        wait_for(in_mid_trial, 90)
        process.send_signal(sent)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == code
    check_handed_back(storage, tmp_path, errors)
    with running(tmp_path, *args, **AT_ONCE) as process:
        finish(process)
    check_equal(storage, undisturbed)
    assert leftovers(tmp_path) == []


def test_a_second_interrupt_leaves_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    storage = open_storage(url)
    slow = {"LRSEARCH_TEST_PAUSE": "30"}
    with running(tmp_path, *arguments(url, "--workers", "2"), **slow) as process:
        wait_for(lambda: len(open_owners(storage)) == 2, 90)
        found = pids(storage)
        for pid in found:
            os.kill(pid, signal.SIGSTOP)  # so that they cannot leave after the first
        process.send_signal(signal.SIGINT)
        time.sleep(1.0)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Go on with the same command" not in errors, "it has left as after the first"
    wait_for(lambda: not any(map(alive, found)), 60)


# the database goes away


def test_a_database_restart_in_mid_run_changes_nothing(
    tmp_path: Path, postgres: Postgres, undisturbed: dict[str, dict[str, Any]]
) -> None:
    url = postgres.new_database()
    storage = open_storage(url)
    with running(tmp_path, *arguments(url, "--workers", "2")) as process:
        wait_for(lambda: finished(storage) >= 2, 90)
        with stopped(pids(storage)):  # else they may end before a busy server does
            postgres.stop()
        try:
            hear(process, "waiting for postgresql+psycopg://", 60)
        finally:
            postgres.start()
        finish(process)
    check_equal(storage, undisturbed)
    storage.close()


def test_leaving_while_the_database_is_away_takes_seconds(
    tmp_path: Path, postgres: Postgres
) -> None:
    url = postgres.new_database()
    storage = open_storage(url)
    with running(tmp_path, *arguments(url, "--workers", "2")) as process:
        wait_for(lambda: len(open_owners(storage)) == 2 and finished(storage) >= 2, 90)
        with stopped(pids(storage)):
            postgres.stop()
        try:
            hear(process, "waiting for postgresql+psycopg://", 60)
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=120)  # patience is for a quarter of an hour
        finally:
            postgres.start()
    assert process.returncode == 143
    assert "Traceback" not in errors
    storage.close()


def test_a_full_disk_is_one_line_and_more_room_ends_the_study(
    in_tmp: Path, undisturbed: dict[str, dict[str, Any]]
) -> None:
    with small_disk(in_tmp / "disk", 12) as disk:
        args = arguments(f"sqlite:///{disk.path}/a.db", "--workers", "2")
        stuffing = disk.outside / "stuffing"
        stuffing.write_bytes(b"x" * 11_600_000)
        with running(in_tmp, *args, enter=disk.enter) as process:
            out, errors = process.communicate(timeout=120)
        assert process.returncode == 1
        complaint = [line for line in errors.splitlines() if line.startswith("lrsearch: ")]
        assert len(complaint) == 1
        assert "full" in complaint[0]
        assert "Traceback" not in out + errors
        stuffing.unlink()
        with running(in_tmp, *args, enter=disk.enter, **AT_ONCE) as process:
            finish(process)
        for file in disk.outside.glob("a.db*"):
            shutil.copy(file, in_tmp / file.name)
    check_equal(open_storage(f"sqlite:///{in_tmp}/a.db"), undisturbed)


def test_no_password_is_shown_by_a_run_of_several_workers(
    tmp_path: Path, postgres: Postgres
) -> None:
    secret = "h1dd3n"
    url = postgres.new_database().replace("postgres:@", f"postgres:{secret}@")
    assert secret in url
    storage = open_storage(url)
    args = arguments(url, "--workers", "2", trials=4)
    with running(tmp_path, *args, **SLOWER) as process:

        def command(pid: int) -> str:
            try:
                return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
            except (FileNotFoundError, ProcessLookupError):
                return ""  # gone meanwhile, as a zombie's is

        def workers() -> list[int]:
            """Children that run a program of their own; one just forked has its parent's line."""
            ours = command(process.pid)
            return [p for p in children(process.pid) if command(p) not in ("", ours)]

        wait_for(lambda: len(open_owners(storage)) == 2, 60)
        for pid in pids(storage):  # copies of the process, with its command line, too
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(workers()) >= 2, 60)
        assert secret in command(process.pid), "what the user typed"
        for pid in workers():
            assert secret not in command(pid)
        said = "".join(finish(process))
    storage.close()
    assert "is replaced" in said
    assert secret not in said
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path
