"""Whole runs in other processes, to be disturbed, and what an undisturbed one gives."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from sqlalchemy import select

from lrsearch.storage import Storage
from lrsearch.storage.history import load_history
from lrsearch.storage.schema import SLOTS

TASK = f"{Path(__file__).with_name('crash_task.py')}:task"
EPOCHS = 6
TRIALS = 20


def place_of_sockets() -> str:
    """A folder for files of which some are sockets: their paths have 107 bytes at most."""
    usual = tempfile.gettempdir()
    return usual if len(usual) < 60 else "/tmp"


def arguments(url: str, *more: str, trials: int = TRIALS) -> list[str]:
    """A run whose trials do not depend on one another."""
    return [
        *("--task", TASK, "--name", "crash", "--storage", url, "--trials", str(trials)),
        *("--sampler", "random", "--pruner", "none", "--fuse", "off", "--device", "cpu"),
        *more,
    ]


@contextmanager
def running(
    folder: Path, *args: str, enter: Sequence[str] = (), **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """``lrsearch run`` in the background; nothing of it is left afterwards."""
    process = subprocess.Popen(
        [*enter, sys.executable, "-m", "lrsearch", "run", *args],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def hear(process: subprocess.Popen[str], words: str, seconds: float) -> None:
    """Wait until a running process has written some words."""
    assert process.stdout is not None
    assert process.stderr is not None
    said, end = "", time.monotonic() + seconds
    with selectors.DefaultSelector() as written:
        for stream in (process.stdout, process.stderr):
            written.register(stream, selectors.EVENT_READ)
        while words not in said:
            assert process.poll() is None, said
            assert time.monotonic() < end, said
            for key, _ in written.select(0.2):
                said += os.read(key.fd, 1 << 16).decode()


def finish(process: subprocess.Popen[str], seconds: float = 180) -> tuple[str, str]:
    """What it wrote to stdout and stderr, when it has ended well."""
    out, errors = process.communicate(timeout=seconds)
    assert process.returncode == 0, errors
    return out, errors


def histories(storage: Storage) -> dict[str, dict[str, Any]]:
    """By the parameters of each trial: all that an undisturbed run would have as well."""
    study = optuna.load_study(study_name="crash", storage=storage)
    rows = load_history(storage, study._study_id)
    found = {}
    for trial in study.get_trials():
        key = json.dumps(trial.params, sort_keys=True)
        assert key not in found, "two trials with the same parameters"
        found[key] = {
            "state": trial.state,
            "value": trial.value,
            "losses": trial.intermediate_values,
            **{
                name: rows.of(trial._trial_id, name).tolist()
                for name in ("epoch", "lr", "train_loss", "val_loss", "avg_val_loss")
            },
        }
    return found


def check_equal(storage: Storage, expected: dict[str, dict[str, Any]]) -> None:
    """The same trials with the same histories, each once."""
    found = histories(storage)
    assert found.keys() == expected.keys()
    for key, trial in found.items():
        assert trial == expected[key], key
        assert trial["epoch"] == list(range(1, EPOCHS + 1))
        assert trial["state"] == TrialState.COMPLETE
    with storage.engine.connect() as connection:
        assert set(connection.execute(select(SLOTS.c.finished)).scalars()) == {1}


def positions(storage: Storage) -> dict[str, tuple[int, int]]:
    """What each worker runs now, and how far it is."""
    with storage.engine.connect() as connection:
        rows = connection.execute(
            select(SLOTS.c.owner, SLOTS.c.slot, SLOTS.c.epoch).where(
                SLOTS.c.finished == 0, SLOTS.c.owner.is_not(None)
            )
        ).all()
    return {str(row.owner): (row.slot, row.epoch) for row in rows}


def open_owners(storage: Storage) -> list[str]:
    """Names of the workers that run a trial now."""
    return sorted(positions(storage))


def pids(storage: Storage) -> list[int]:
    """Process numbers of the workers that run a trial now."""
    return [int(owner.split(":")[2]) for owner in open_owners(storage)]


def finished(storage: Storage) -> int:
    """Trials that have ended."""
    with storage.engine.connect() as connection:
        return len(connection.execute(select(SLOTS.c.slot).where(SLOTS.c.finished == 1)).all())


def leftovers(folder: Path) -> list[str]:
    """Checkpoints that are still there."""
    return [path.name for path in folder.rglob("checkpoints/**/*.pt")]


def check_handed_back(storage: Storage, folder: Path, errors: str) -> None:
    """A run that was stopped has said how it goes on, saved all trials and given them back."""
    assert "Go on with the same command" in errors
    assert "Traceback" not in errors
    assert open_owners(storage) == []
    study = optuna.load_study(study_name="crash", storage=storage)
    states = [trial.state for trial in study.get_trials()]
    assert TrialState.RUNNING not in states
    assert TrialState.WAITING in states
    assert leftovers(folder), "what was under way is saved"


@contextmanager
def stopped(pids: Sequence[int]) -> Iterator[None]:
    """Let processes do nothing inside, wherever they are."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended stays until it is collected, in some containers
    for ever.
    """
    return state(pid) not in ("", "Z", "X")


def state(pid: int) -> str:
    """The kernel's letter for what a process does; empty if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0]


def children(pid: int) -> list[int]:
    """Numbers of the processes that ``pid`` started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found
