"""Workers made by fork: only where that is safe, and none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lrsearch.config import make
from lrsearch.search.forked import spares
from tests.crash_runs import alive
from tests.servers import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="made on Linux only")

PROGRAM = """
import os, sys, threading, time
from lrsearch.config import make
from lrsearch.program import run_and_leave
from lrsearch.search.forked import spares

def main():
    {first}
    with spares(make(dict(device="cpu", {settings}))) as ready:
        print(*[spare._pid for spare in ready], flush=True)
        {inside}
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return 7

run_and_leave(main)
"""


def _program(settings: str, *, first: str = "pass", inside: str = "pass") -> tuple[int, list[int]]:
    """Exit code of a program, and the copies that it made."""
    text = PROGRAM.format(settings=settings, first=first, inside=inside)
    done = subprocess.run(
        [sys.executable, "-c", text],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize(("settings", "count"), [("workers=3", 3), ("workers=2, confirm=5", 4)])
def test_copies_are_made_for_the_workers_asked_for_and_end_unused(
    settings: str, count: int
) -> None:
    code, made = _program(settings)
    assert len(made) == count
    assert code == 7, "a copy is left"


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        ("workers=1", "pass"),
        ("workers=3, trials=1", "pass"),
        ("workers=2, launcher='ray'", "pass"),
        ("workers=2", "threading.Thread(target=time.sleep, args=(1,), daemon=True).start()"),
        ("workers=2", "sys.stdin = None"),
    ],
)
def test_no_copies_where_none_are_needed_or_not_safe(settings: str, first: str) -> None:
    assert _program(settings, first=first) == (7, [])


def test_no_copies_of_a_program_that_only_uses_us() -> None:
    settings: dict[str, Any] = {"workers": 2, "device": "cpu"}
    with spares(make(settings)) as ready:
        assert ready == []


def test_copies_leave_when_the_process_was_killed() -> None:
    code, made = _program("workers=2", inside="os.kill(os.getpid(), 9)")
    assert code == -signal.SIGKILL
    assert len(made) == 2
    wait_for(lambda: not any(map(alive, made)), 60)


def test_a_copy_that_fails_ends_with_its_error_in_its_own_log() -> None:
    broken = "spare = ready[-1]; print('no json', file=spare.stdin, flush=True); "
    broken += "code = spare.wait(20); spare.log.seek(0); "
    broken += "assert (code, b'JSONDecodeError' in spare.log.read()) == (1, True)"
    code, made = _program("workers=2", inside=broken)
    assert code == 7
    assert len(made) == 2


TASK = """
import torch
from torch.utils.data import DataLoader, TensorDataset

x, y = torch.randn(32, 4), torch.arange(32) % 2
task = {"model": lambda: torch.nn.Linear(4, 2), "epochs": 1, "validation": (x, y),
        "train": DataLoader(TensorDataset(x, y), 16, num_workers=1, drop_last=True,
                            collate_fn=torch.utils.data.default_collate, batch_sampler=None,
                            sampler=range(32))}
"""


def test_a_loader_with_processes_of_its_own_works_in_a_worker(tmp_path: Path) -> None:
    """A process forked from a worker must not wait for a lock that a thread there holds."""
    (tmp_path / "own.py").write_text(TASK)
    words = ["run", "--task", "own.py:task", "--trials", "2", "--workers", "2", "--quiet"]
    with subprocess.Popen(
        [sys.executable, "-m", "lrsearch", *words, "--device", "cpu"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            out, _ = process.communicate(timeout=180)
        finally:
            process.terminate()
    assert process.returncode == 0, out
    assert "2 trials (2 completed)" in out


ALL_FORKED = """
import sys
from lrsearch.cli import main
from lrsearch.program import run_and_leave
from lrsearch.search import child

child._start = None  # starts a program, which imports all anew
run_and_leave(lambda: main(sys.argv[1:]))
"""


def test_confirmations_are_trained_by_copies_too(tmp_path: Path) -> None:
    small = ["--task", "square", "--trials", "2", "--epochs", "1", "--no-robust"]
    for words in (["run", *small, "--confirm", "2"], ["confirm", "square", "--seeds", "3"]):
        done = subprocess.run(
            [sys.executable, "-c", ALL_FORKED, *words, "--workers", "2", "--device", "cpu"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Lower by" in done.stdout
