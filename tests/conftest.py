"""Fixtures for all tests: one torch thread, the real data, an empty folder to run in."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Only tests/test_gpu.py sees GPUs: elsewhere what is left to ``auto`` runs on the CPU.
os.environ.setdefault("LRSEARCH_TEST_GPUS", os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.pop("LRSEARCH_STORAGE", None)

import numpy as np
import pytest
import torch
from hypothesis import settings

from lrsearch.optuna_helpers import optuna_logs_errors_only
from lrsearch.storage import Storage, open_storage
from tests.crash_runs import TRIALS, arguments, finish, histories, place_of_sockets, running
from tests.servers import SERVERS, Postgres, mysql_database

torch.set_num_threads(1)
for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(name, None)  # what rich makes of a terminal is the same in every CI
os.environ["TERM"] = "xterm-256color"
os.environ["no_proxy"] = "127.0.0.1,127.0.0.2,localhost"  # the servers of tests
# In memory commits and deletions need not wait for a disk, and paths of sockets are short enough.
MEMORY = "/dev/shm"
if "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK):
    room = os.statvfs(MEMORY)
    if room.f_bavail * room.f_frsize > 4e9 and not room.f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = tempfile.tempdir = MEMORY
# The same draws in every run; `pytest --hypothesis-profile default` looks for other ones.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")


def _real_data_dir() -> Path | None:
    """``$LRSEARCH_DATA_DIR``, or ``../shared/data`` beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    named = os.environ.get("LRSEARCH_DATA_DIR")
    for folder in (Path(named) if named else None, beside):
        if folder and (folder / "cifar-10-batches-py").is_dir():
            return folder
    return None


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real CIFAR-10 and Fashion-MNIST; skips where there is none."""
    folder = _real_data_dir()
    if folder is None:
        pytest.skip("real data not found: set LRSEARCH_DATA_DIR to a folder with CIFAR-10")
    return folder


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the test inside an empty folder, as a user would."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def storage(in_tmp: Path) -> Storage:
    """The default database, in an empty folder."""
    return open_storage("sqlite:///lrsearch.db")


@pytest.fixture
def quiet_optuna() -> Iterator[None]:
    """Optuna logs nothing but errors."""
    with optuna_logs_errors_only():
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of our own for the whole session."""
    folder = Path(tempfile.mkdtemp(prefix="lrpg", dir=place_of_sockets()))
    server = Postgres(folder)
    yield server
    server.end()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What a run of the crash task in one process gives."""
    folder = tmp_path_factory.mktemp("undisturbed")
    url = f"sqlite:///{folder}/a.db"
    with running(folder, *arguments(url), LRSEARCH_TEST_PAUSE="0") as process:
        finish(process)
    found = histories(open_storage(url))
    assert len(found) == TRIALS
    assert np.isfinite([trial["value"] for trial in found.values()]).all()
    return found


@pytest.fixture(params=["sqlite", *SERVERS])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/test.db"
    elif request.param == "postgresql":
        yield request.getfixturevalue("postgres").new_database()
    else:
        with mysql_database() as url:
            yield url
