"""Our processes end quickly, and do all that was asked for at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import IO

import pytest

PROGRAM = """
import atexit, threading, time
from lrsearch.program import run_and_leave

class Kept:
    def __del__(self):
        print("taken apart", flush=True)

def main():
    global kept
    kept = Kept()
    atexit.register(print, "registered")
    print("the program")
    threading.Thread(target=lambda: (time.sleep(0.2), print("a thread"))).start()
    {end}

run_and_leave(main)
"""


def _python(program: str, out: IO[str] | int = subprocess.PIPE) -> CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
    )


def _run(end: str) -> CompletedProcess[str]:
    return _python(PROGRAM.replace("{end}", end))


def test_end_of_a_process_waits_and_calls_but_takes_nothing_apart() -> None:
    done = _run("return 7")
    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout.splitlines() == ["the program", "a thread", "registered"]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_a_late_interrupt_ends_a_process_without_a_traceback() -> None:
    late = "atexit.register(lambda: signal.raise_signal(signal.SIGINT))"
    done = _run(f"import signal; {late}; return 130")
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_database_file_is_whole_at_the_end_whoever_used_finalizers_before(tmp_path: Path) -> None:
    program = f"""
import weakref
class Kept: pass
kept = Kept()
weakref.finalize(kept, print)  # as a profiler in a .pth file may
from lrsearch.program import run_and_leave

def main():
    from lrsearch.storage import open_storage
    global storage
    storage = open_storage("sqlite:///{tmp_path / "a.db"}")
    return 0

run_and_leave(main)
"""
    done = _python(program)
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]  # and no a.db-wal


def test_an_exception_is_shown_as_ever() -> None:
    done = _run("raise ValueError('wrong')")
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("ValueError: wrong")
    assert done.stdout.splitlines()[:3] == ["the program", "a thread", "registered"]


def test_output_that_cannot_be_written_is_an_error() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    program = "from lrsearch.program import run_and_leave; run_and_leave(lambda: print('x') or 0)"
    with Path("/dev/full").open("w") as full:
        done = _python(program, full)
    assert done.returncode == 120
    assert "No space left" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    ("where", "code", "error"),
    [
        ("", 0, ""),
        (">&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        (">/dev/full", 1, "lrsearch: the system refused: [Errno 28] No space left on device;"),
    ],
)
def test_streams_that_are_narrow_closed_or_full(where: str, code: int, error: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m lrsearch tasks {where}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == code
    assert done.stderr.startswith(error)
    assert bool(done.stderr) == bool(error)
    assert ("digits" in done.stdout) == (where == "")
