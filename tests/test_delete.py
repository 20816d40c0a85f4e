"""lrsearch delete: what goes, what stays, and when it does not."""

from __future__ import annotations

import io
import sqlite3
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from lrsearch.cli import main
from lrsearch.storage import Storage, open_storage, slots
from lrsearch.storage.owners import new_owner
from lrsearch.storage.tuning import shrink
from tests.storage_worker import claim_one
from tests.synthetic import make_study
from tests.test_confirm import constant, found, search_of

URL = "sqlite:///lrsearch.db"


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


def names(storage: Storage) -> list[str]:
    return sorted(study.study_name for study in storage.get_all_studies())


def test_a_study_goes_with_its_confirmation_and_checkpoints_and_its_files_stay(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--epochs", "2", "--trials", "5", "--workers", "1", "--quiet"]
    assert main(["run", *words, "--confirm", "2"]) == 0
    assert main(["run", *words, "--name", "other", "--no-baselines"]) == 0
    storage = open_storage(URL)
    uid = optuna.load_study(study_name="digits", storage=storage).user_attrs["lrsearch"]["uid"]
    left = Path("lrsearch-results/digits/checkpoints", uid, "1.pt")
    left.parent.mkdir(parents=True)
    left.touch()
    capsys.readouterr()
    assert main(["delete", "digits", "--yes"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "deleted digits; its files stay in lrsearch-results/digits",
        "deleted digits-confirm",
    ]
    assert names(storage) == ["other"]
    assert not left.parent.exists()
    assert Path("lrsearch-results/digits/best.yaml").is_file()
    assert main(["run", *words, "--seed", "1"]) == 0  # as if there had been none


def test_a_file_of_sqlite_gives_the_disk_back_what_a_deleted_study_took(
    storage: Storage,
) -> None:
    make_study(20, storage=storage, name="kept")
    kept = [trial.value for trial in optuna.load_study(study_name="kept", storage=storage).trials]
    make_study(300, storage=storage)
    storage.close()
    file = Path("lrsearch.db")
    before = file.stat().st_size
    assert main(["delete", "digits", "--yes"]) == 0
    assert file.stat().st_size < 0.5 * before
    study = optuna.load_study(study_name="kept", storage=open_storage(URL))
    assert [trial.value for trial in study.trials] == kept


def test_a_file_that_another_process_writes_to_keeps_its_size(storage: Storage) -> None:
    make_study(300, storage=storage)
    storage.delete_study(optuna.load_study(study_name="digits", storage=storage)._study_id)
    file = Path("lrsearch.db")
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = file.stat().st_size
    other.execute("BEGIN IMMEDIATE")
    shrink(storage.engine)
    assert file.stat().st_size == before
    other.execute("ROLLBACK")
    other.close()
    shrink(storage.engine)
    assert file.stat().st_size < 0.5 * before


def test_a_file_in_which_trials_of_another_study_run_is_not_written_anew(storage: Storage) -> None:
    kept = make_study(5, storage=storage, name="kept")
    make_study(300, storage=storage)
    running = kept.ask()
    storage.delete_study(optuna.load_study(study_name="digits", storage=storage)._study_id)
    before = pages(storage)
    shrink(storage.engine)
    assert pages(storage) == before
    kept.tell(running, 0.1)
    shrink(storage.engine)
    assert pages(storage) < 0.5 * before


def pages(storage: Storage) -> int:
    with storage.engine.connect() as connection:
        return int(connection.exec_driver_sql("PRAGMA page_count").scalar_one())


def test_it_asks_at_a_terminal(
    storage: Storage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_study(6, storage=storage)
    make_study(5, storage=storage, name="more")
    for answer, code, left in (("", 1, 2), ("n\n", 1, 2), ("y\n", 0, 0)):
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        assert main(["delete", "digits", "more"]) == code
        said = capsys.readouterr()
        asked = "Delete from sqlite:///lrsearch.db: digits (6 trials), more (5 trials)? [y/N] "
        assert said.err.startswith(asked)
        assert ("nothing was deleted" in said.err) == bool(code)
        assert len(names(storage)) == left


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["digits"], "without one add --yes to delete digits (5 trials)"),
        (["digits", "digist", "--yes"], "no study 'digist' in sqlite:///lrsearch.db — did you"),
        (["digits", "--yes", "--storage", "sqlite:///no.db"], "storage no.db does not exist"),
        (["--yes"], "the following arguments are required: STUDY"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_goes(
    storage: Storage, capsys: pytest.CaptureFixture[str], words: list[str], error: str
) -> None:
    make_study(5, storage=storage)
    assert main(["delete", *words]) in (1, 2)
    said = capsys.readouterr().err
    assert error in said
    assert said.count("\n") == 1
    assert names(storage) == ["digits"]


def test_a_study_with_a_worker_at_work_stays(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make_study(5, storage=storage)
    owner = new_owner()
    assert claim_one(storage, study._study_id, 6, owner) is not None
    assert main(["delete", "digits", "--yes"]) == 1
    said = capsys.readouterr().err
    assert said == (
        "lrsearch: study 'digits' has 1 trial running: stop its workers (Ctrl-C), then delete it\n"
    )
    slots.release(storage, owner)
    assert main(["delete", "digits", "--yes"]) == 0
    assert names(storage) == []


def test_a_confirmation_alone_and_a_study_that_only_looks_like_one(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    search_of(storage, found(constant(0.1), 0.2), found(constant(1e-4), 0.3, baseline="constant"))
    assert main(["confirm", "digits", "--seeds", "2", "--top", "1", "--quiet"]) == 0
    assert main(["delete", "digits-confirm", "--yes"]) == 0
    assert names(storage) == ["digits"]
    optuna.create_study(study_name="digits-confirm", storage=storage).ask()
    assert main(["confirm", "digits", "--seeds", "2", "--top", "1", "--quiet"]) == 2
    assert "lrsearch delete digits-confirm\n" in capsys.readouterr().err
    assert main(["delete", "digits", "--yes"]) == 0
    assert names(storage) == ["digits-confirm"]


def test_a_plain_optuna_database_can_lose_a_study_too(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = optuna.create_study(study_name="own", storage="sqlite:///plain.db")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    study.ask()
    assert study.trials[-1].state == TrialState.RUNNING
    assert main(["delete", "own", "--storage", "sqlite:///plain.db"]) == 2
    assert "own (4 trials, 1 of them running)" in capsys.readouterr().err
    assert main(["delete", "own", "--storage", "sqlite:///plain.db", "--yes"]) == 0
    assert optuna.get_all_study_names("sqlite:///plain.db") == []
