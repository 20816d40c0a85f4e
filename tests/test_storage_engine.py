"""Opening a storage: what is tuned, what is refused in which words, and who may do it at once."""

from __future__ import annotations

import contextlib
import errno
import inspect
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.storages._rdb import models

from lrsearch.errors import LrsearchError, UsageError
from lrsearch.measured import EpochResult
from lrsearch.report.tables import load
from lrsearch.storage import engine, history, open_storage, opening, redact
from lrsearch.storage.schema import HISTORY, SLOTS
from lrsearch.storage.urls import network_file_system, redact_text
from tests.storage_worker import record

SECRET = "s3cr/t@p:w"
QUOTED = "s3cr%2Ft%40p%3Aw"


# URLs


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("lrsearch.db", r"is no URL — did you mean sqlite:///lrsearch.db\?"),
        (
            "mysql//me:pw@box/x",
            r"'mysql//me:\*\*\*@box/x' is no .* mean mysql://me:\*\*\*@box/x\?",
        ),
        ("", r"did you mean sqlite:///lrsearch.db\?"),
        ("sqlit:///a.db", r"unknown database 'sqlit' — did you mean sqlite://\?"),
        ("oracle://u:pw@h/x", r"unknown database 'oracle'"),
        ("sqlite:///a.db?mode=ro", r"'mode' has no effect \(valid: timeout, .*\); take it out"),
        ("sqlite:///a.db?isolation_level=x", "'isolation_level' has no effect"),
        ("sqlite:///a.db?timeout=3&timeout=5", "timeout stands there twice; leave one of them"),
        ("sqlite:///a.db?timeout=x", r"could not convert .* 'x'; write sqlite:///FILE\?timeout="),
        ("sqlite://u:pw@h/a.db", r"u:\*\*\*@h/a.db: Invalid SQLite URL: .*; write sqlite:///FILE"),
        ("sqlite://", r"is memory, which ends with the process"),
        ("sqlite:///:memory:", r"is memory"),
        ("sqlite:////no/such/folder/a.db", r"/no/such/folder does not exist; make it: mkdir -p"),
        ("sqlite:////tmp", r"is a folder; name a file in it"),
        ("postgresql://u:pw@h:port/x", r"cannot be read; special characters"),
        ("postgresql://u:a@pw@h/x", r"//u:\*\*\*@h/x cannot be read; special characters"),
        ("postgresql://u:pw@h", r"names no database"),
    ],
)
def test_wrong_url_is_a_usage_error_of_one_line(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        open_storage(url)
    assert "\n" not in str(caught.value)
    assert "pw@" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "extra"), [("postgresql://u@h/x", "postgres"), ("mysql+pymysql://u@h/x", "mysql")]
)
def test_missing_driver_names_the_extra(
    url: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=re.escape(f"pip install 'lrsearch[{extra}]'")):
        open_storage(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://me:secret@db/x", "postgresql+psycopg://me:***@db/x"),
        ("mysql://me:a@b/c:d@db:3306/x", "mysql://me:***@db:3306/x"),
        ("postgresql://db/x?user=me&password=secret", "postgresql://db/x?user=me&password=***"),
        ("postgresql://:secret@db/x", "postgresql://:***@db/x"),
        ("postgresql://me@db/x", "postgresql://me@db/x"),
        ("sqlite:///lrsearch.db", "sqlite:///lrsearch.db"),
    ],
)
def test_redact_hides_every_password(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_driver_text_is_cleared_of_the_password_in_every_spelling() -> None:
    url = f"postgresql+psycopg://me:{QUOTED}@db/x"
    text = redact_text(f"dsn {url}; tried '{SECRET}', {QUOTED} and password={QUOTED}", url)
    assert SECRET not in text
    assert QUOTED not in text


def test_a_short_password_leaves_the_words_that_contain_it() -> None:
    url = "postgresql://me:se@db/x"
    assert redact_text("no service for user me, password se", url) == (
        "no service for user me, password ***"
    )


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg://me:{QUOTED}@127.0.0.1:1/x",
        f"mysql+pymysql://me:{QUOTED}@127.0.0.1:1/x",
        f"postgresql+psycopg://127.0.0.1:1/x?user=me&password={QUOTED}",
    ],
)
def test_unreachable_server_is_one_line_without_the_password(url: str) -> None:
    pytest.importorskip("pymysql" if url.startswith("mysql") else "psycopg")
    with pytest.raises(LrsearchError, match="cannot be reached") as caught:
        open_storage(url)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__, "a traceback would show the driver's own words"
    for spelling in (SECRET, QUOTED):
        assert spelling not in str(caught.value)


def test_a_name_that_is_gone_for_now_is_waited_for_like_any_outage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A database's container that restarts has none meanwhile."""
    pytest.importorskip("psycopg")

    def unknown(*_: object, **__: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    told: list[str] = []
    with pytest.raises(LrsearchError, match="cannot be reached: failed to resolve host"):
        open_storage("postgresql://me:pw@db.invalid/x", patience=2.5, on_wait=told.append)
    (line,) = told
    assert line.startswith("waiting for postgresql+psycopg://me:***@db.invalid/x: failed to")


# SQLite files


def test_sqlite_is_opened_with_wal_and_a_busy_timeout(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/a.db")
    with storage.engine.connect() as connection:
        read = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
        }
    assert read == {
        "journal_mode": "wal",
        "synchronous": 1,
        "busy_timeout": 1_000,
        "foreign_keys": 1,
    }
    assert storage.warnings == []


def test_a_writer_holds_the_lock_from_its_first_statement_and_readers_do_not_wait(
    tmp_path: Path,
) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/a.db")
    study_id = storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], "a")
    with storage.engine.begin() as connection:  # has written nothing yet
        other = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/a.db?timeout=0.05")
        with (
            other.connect() as second,
            pytest.raises(sqlalchemy.exc.OperationalError, match="locked"),
        ):
            second.exec_driver_sql("BEGIN IMMEDIATE")
        other.dispose()
        connection.execute(models.StudyModel.__table__.insert().values(study_name="b"))
        assert storage.get_study_id_from_name("a") == study_id
        found = [study.study_name for study in storage.get_all_studies()]
        assert found == ["a"], "a reader sees what was committed"
    assert storage.get_study_id_from_name("b") != study_id


def test_a_wait_for_a_locked_file_is_told_and_ends_soon_when_somebody_wants_to_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "NOTICED_SECONDS", 0.1)
    told: list[float] = []

    def tell(line: str) -> None:
        assert "database is locked" in line
        told.append(time.monotonic())
        storage.hurry()

    storage = open_storage(f"sqlite:///{tmp_path}/a.db", on_wait=tell)
    study_id = storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], "a")
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as browser:
        browser.execute("BEGIN IMMEDIATE")  # and its user has gone for lunch
        began = time.monotonic()
        with pytest.raises(LrsearchError, match="was locked by another process for too long"):
            storage.set_study_user_attr(study_id, "x", 1)
    assert time.monotonic() - began < engine.PATIENCE_SECONDS / 10


def test_opening_waits_for_a_file_that_is_locked(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db", check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        done = threading.Timer(2.5, other.rollback)
        done.start()
        assert open_storage(url).get_all_studies() == []
        done.join()


def test_opening_once_more_leaves_the_locks_of_what_is_open(tmp_path: Path) -> None:
    """POSIX: who opens and closes a file by himself gives up all locks that his process has."""
    file = tmp_path / "a.db"
    open_here = open_storage(f"sqlite:///{file}")
    open_here.get_all_studies()
    again = open_storage(f"sqlite:///{file}", create=False)
    other = "import optuna, sys; optuna.create_study(storage='sqlite:///' + sys.argv[1])"
    subprocess.run([sys.executable, "-c", other, str(file)], check=True, capture_output=True)
    assert (tmp_path / "a.db-wal").exists()  # the other has left, and was not the last
    for storage in (open_here, again):
        assert len(storage.get_all_studies()) == 1


def test_missing_file_is_an_error_where_nothing_may_be_created(tmp_path: Path) -> None:
    with pytest.raises(LrsearchError, match="does not exist; lrsearch run makes one"):
        open_storage(f"sqlite:///{tmp_path}/a.db", create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"study: digits\n", b"\x00" * 4096, b"SQLite format 4\x00"])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(
    content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    for create in (True, False):
        with pytest.raises(LrsearchError, match="is not an SQLite database"):
            open_storage(f"sqlite:///{path}", create=create)
    assert path.read_bytes() == content


def test_a_damaged_database_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)
    with pytest.raises(LrsearchError, match="or a damaged one; choose another"):
        open_storage(f"sqlite:///{path}")


def test_tables_of_another_program_are_refused_and_left_as_they_are(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    other = sqlalchemy.create_engine(url)
    with other.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE trials (patient TEXT)")
    with pytest.raises(LrsearchError, match="table 'trials' belongs to another program"):
        open_storage(url)
    assert sqlalchemy.inspect(other).get_table_names() == ["trials"]
    other.dispose()


@pytest.mark.parametrize(
    ("table", "column", "value", "message"),
    [
        ("alembic_version", "version_num", "v3.0.0.d", "optuna storage upgrade --storage URL"),
        ("alembic_version", "version_num", "v9.0.0.a", "pip install -U lrsearch optuna"),
        ("lrsearch_version", "version", 99, "pip install -U lrsearch"),
    ],
)
def test_another_schema_version_is_refused_with_the_cure(
    table: str, column: str, value: object, message: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    storage = open_storage(url)
    with storage.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {table} SET {column} = ?", (value,))
    with pytest.raises(LrsearchError, match=re.escape(message)):
        open_storage(url)


def test_a_database_made_by_optuna_itself_gets_our_tables_when_there_is_something_to_write(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    theirs = RDBStorage(url)
    study = optuna.create_study(storage=theirs, study_name="old")
    study.add_trial(optuna.create_trial(value=1.0))
    storage = open_storage(url, create=False)  # to report on a study made without lrsearch run
    read = optuna.load_study(study_name="old", storage=storage)
    assert load(read).best is not None
    assert HISTORY.name not in sqlalchemy.inspect(storage.engine).get_table_names()
    later = open_storage(url)
    result = EpochResult(1, 0.1, 1.0, 1.0, 0, 1, 0, 0)
    record(later, read.trials[0]._trial_id, result)
    assert len(history.load_history(storage, read._study_id)) == 1
    assert {HISTORY.name, SLOTS.name} <= set(sqlalchemy.inspect(storage.engine).get_table_names())
    theirs.engine.dispose()


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """Root may write anywhere; a user may not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def _open_to_all(path: Path, request: pytest.FixtureRequest) -> None:
    """Let every user through the folders above ``path`` until the test has ended."""
    for folder in [path, *path.parents]:
        mode = folder.stat().st_mode
        if folder.stat().st_uid == os.geteuid() and mode & 0o055 != 0o055:
            folder.chmod(mode | 0o055)
            request.addfinalizer(partial(folder.chmod, mode))


@pytest.mark.parametrize("ours", [True, False])
def test_read_only_folder_and_file_are_named(
    tmp_path: Path, request: pytest.FixtureRequest, ours: bool
) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    url = f"sqlite:///{folder}/a.db"
    made = open_storage(url) if ours else RDBStorage(url)
    made.create_new_study([optuna.study.StudyDirection.MINIMIZE], "kept")
    made.engine.dispose()
    _open_to_all(folder, request)
    (folder / "a.db").chmod(0o444)
    folder.chmod(0o555)
    request.addfinalizer(lambda: folder.chmod(0o755))
    request.getfixturevalue("as_nobody")
    with pytest.raises(LrsearchError, match=r"a\.db is read-only for this user"):
        open_storage(url)
    with pytest.raises(LrsearchError, match=r"folder .*archive is read-only for this user"):
        open_storage(f"sqlite:///{folder}/new.db")
    reader = open_storage(url, create=False)
    assert [study.study_name for study in reader.get_all_studies()] == ["kept"]
    assert load(optuna.load_study(study_name="kept", storage=reader)).trials == ()
    with pytest.raises(LrsearchError, match="read-only"):
        reader.create_new_study([optuna.study.StudyDirection.MINIMIZE], "another")


def test_who_may_only_read_sees_what_a_run_under_way_has_written(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    writer = open_storage(url)
    writer.create_new_study([optuna.study.StudyDirection.MINIMIZE], "first")  # is in the log
    _open_to_all(tmp_path, request)
    request.getfixturevalue("as_nobody")
    reader = open_storage(url, create=False)
    assert [study.study_name for study in reader.get_all_studies()] == ["first"]
    os.seteuid(os.getuid())
    writer.create_new_study([optuna.study.StudyDirection.MINIMIZE], "second")
    assert [study.study_name for study in reader.get_all_studies()] == ["first", "second"]
    writer.close()
    assert len(open_storage(url).get_all_studies()) == 2
    reader.close()


# file systems


def test_network_file_system_is_found_by_the_longest_mount_point() -> None:
    mounts = (
        "/dev/sda1 / ext4 rw 0 0\n"
        "server:/home /home nfs4 rw 0 0\n"
        "tmpfs /home/me/fast tmpfs rw 0 0\n"
        "//server/share /mnt/with\\040space cifs rw 0 0\n"
    )
    assert network_file_system(Path("/home/me/a.db"), mounts) == "nfs4"
    assert network_file_system(Path("/home/me/fast/a.db"), mounts) is None
    assert network_file_system(Path("/homework/a.db"), mounts) is None
    assert network_file_system(Path("/mnt/with space/a.db"), mounts) == "cifs"


def test_on_a_network_file_system_it_warns_and_does_without_wal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "network_file_system", lambda path: "nfs4")
    storage = open_storage(f"sqlite:///{tmp_path}/a.db")
    assert len(storage.warnings) == 1
    assert "network file system (nfs4)" in storage.warnings[0]
    with storage.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "delete"


# Optuna


def test_every_method_of_optuna_that_opens_a_transaction_is_listed() -> None:
    opens = {
        name
        for name, member in inspect.getmembers(RDBStorage, inspect.isfunction)
        if "_create_scoped_session(" in inspect.getsource(member)
    }
    own = {"get_trial", "_get_trials", "delete_study"}
    wrapped = {*engine.READS, *engine.WRITES, *own}
    assert opens - wrapped == set(), "Optuna has new methods: list them in engine.READS or WRITES"
    assert not set(engine.READS) & set(engine.WRITES)


def test_what_is_listed_as_reading_does_not_write() -> None:
    for name in engine.READS:
        source = inspect.getsource(getattr(RDBStorage, name))
        assert not re.search(
            r"session\.(add|delete|flush|merge)|\.execute\(.*(insert|update)", source
        )


def test_optuna_has_the_tables_that_are_written_directly() -> None:
    columns = {
        table.name: {column.name for column in table.columns}
        for table in models.BaseModel.metadata.sorted_tables
    }
    assert columns["trials"] == {
        "trial_id",
        "number",
        "study_id",
        "state",
        "datetime_start",
        "datetime_complete",
    }
    assert columns["trial_values"] == {
        "trial_value_id",
        "trial_id",
        "objective",
        "value",
        "value_type",
    }
    assert columns["trial_intermediate_values"] == {
        "trial_intermediate_value_id",
        "trial_id",
        "step",
        "intermediate_value",
        "intermediate_value_type",
    }
    assert columns["trial_params"] == {
        "param_id",
        "trial_id",
        "param_name",
        "param_value",
        "distribution_json",
    }
    attributes = {"trial_id", "key", "value_json"}
    assert columns["trial_user_attributes"] == attributes | {"trial_user_attribute_id"}
    unique = {
        table.name: {tuple(sorted(c.name for c in u.columns)) for u in table.constraints}
        for table in models.BaseModel.metadata.sorted_tables
    }
    assert ("objective", "trial_id") in unique["trial_values"]
    assert ("step", "trial_id") in unique["trial_intermediate_values"]
    assert ("param_name", "trial_id") in unique["trial_params"]
    assert ("key", "trial_id") in unique["trial_user_attributes"]


def test_opening_is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/a.db")
    optuna.create_study(storage=storage, study_name="quiet")
    assert capfd.readouterr() == ("", "")


# many at once


def test_many_threads_share_one_storage(database_url: str) -> None:
    storage = open_storage(database_url)
    study = optuna.create_study(storage=storage, study_name="threads")
    errors: list[BaseException] = []

    def add() -> None:
        try:
            for _ in range(5):
                study.add_trial(optuna.create_trial(value=1.0))
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=add) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(trial.number for trial in study.get_trials()) == list(range(30))
    storage.engine.dispose()


def test_a_file_that_cannot_be_reached_any_more_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a network folder that is gone, or one that this user may not enter any more."""
    storage = open_storage(f"sqlite:///{tmp_path}/a.db")

    def refused(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "exists", refused)
    with pytest.raises(LrsearchError, match=r"a\.db cannot be reached any more \(Perm"):
        storage.get_all_studies()


def test_a_file_deleted_in_mid_run_is_told_and_not_made_anew(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/a.db")
    optuna.create_study(storage=storage, study_name="x")
    for file in tmp_path.iterdir():
        file.unlink()
    told = r"a\.db was deleted while it was in use, and what it held is lost"
    for fresh in (False, True):
        if fresh:  # as of another thread
            storage.engine.dispose()
        for call in (storage.get_all_studies, lambda: storage.create_new_study([], "y")):
            with pytest.raises(LrsearchError, match=told):
                call()
    assert list(tmp_path.iterdir()) == []
