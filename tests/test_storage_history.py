"""History: one transaction per lock-step epoch, read back exactly, fast at any size."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import event, insert

from lrsearch.divergence import DIVERGED_LOSS
from lrsearch.storage import Storage, history, new_owner, open_storage
from lrsearch.storage.schema import TRIALS
from tests.storage_worker import Result, claim_one, create_trial, finish


@pytest.fixture
def storage(database_url: str) -> Iterator[Storage]:
    opened = open_storage(database_url)
    yield opened
    opened.close()


def begin(storage: Storage, count: int, name: str = "s") -> tuple[optuna.Study, str, list[int]]:
    """A study with ``count`` running trials of one owner."""
    study = optuna.create_study(storage=storage, study_name=name)
    owner = new_owner()
    ids = []
    for _ in range(count):
        claim = claim_one(storage, study._study_id, count, owner)
        assert claim is not None
        ids.append(create_trial(storage, claim))
    return study, owner, ids


def test_what_was_recorded_is_read_back_exactly(storage: Storage) -> None:
    study, owner, (first, second) = begin(storage, 2)
    third = math.pi * 1e-300
    one = Result(1, 0.1, 2.5, third, 0.25, 1e300, 0.125, 0.75)
    two = Result(1, 1e-8, 1.0, 0.3, None, 0.2, None, 0.5)
    history.record_epochs(storage, [(second, two), (first, one)], owner=owner)
    history.record_epochs(storage, [(first, Result(2, 0.2))], owner=owner)
    loaded = history.load_history(storage, study._study_id)
    assert loaded.spans == {first: (0, 2), second: (2, 3)}
    assert loaded.epoch.tolist() == [1, 2, 1]
    assert loaded.columns["lr"].tolist() == [0.1, 0.2, 1e-8]
    assert loaded.columns["val_loss"].tolist() == [third, 1.0, 0.3]
    assert loaded.columns["avg_val_loss"].tolist() == [1e300, 1.0, 0.2]
    assert loaded.columns["seconds"].tolist() == [0.75, 0.01, 0.5]
    np.testing.assert_array_equal(loaded.columns["val_metric"], [0.25, 0.5, np.nan])
    values = [trial.intermediate_values for trial in study.get_trials()]
    assert values == [{1: third, 2: 1.0}, {1: 0.3}]


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf"), 1e30, 0.5])
def test_a_diverged_loss_is_missing_here_and_large_in_optuna(
    loss: float, tmp_path: object
) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/a.db")
    study, owner, ids = begin(storage, 1)
    diverged = loss != 1e30
    rows = [(ids[0], Result(1, val_loss=loss, train_loss=loss, diverged=diverged))]
    history.record_epochs(storage, rows, owner=owner)
    assert study.get_trials()[0].intermediate_values == {1: DIVERGED_LOSS}
    loaded = history.load_history(storage, study._study_id).columns["val_loss"][0]
    assert loaded == loss if math.isfinite(loss) else math.isnan(loaded)


def test_an_epoch_recorded_again_replaces_the_old_one(storage: Storage) -> None:
    study, owner, (trial,) = begin(storage, 1)
    history.record_epochs(storage, [(trial, Result(1, val_loss=9.0))], owner=owner)
    history.record_epochs(storage, [(trial, Result(1, val_loss=2.0))], owner=owner)
    loaded = history.load_history(storage, study._study_id)
    assert loaded.columns["val_loss"].tolist() == [2.0]
    assert study.get_trials()[0].intermediate_values == {1: 2.0}


def test_forgotten_epochs_are_gone_everywhere(storage: Storage) -> None:
    study, owner, (first, second) = begin(storage, 2)
    for epoch in range(1, 5):
        rows = [(first, Result(epoch)), (second, Result(epoch))]
        history.record_epochs(storage, rows, owner=owner)
    history.forget_epochs(storage, first, 2)
    loaded = history.load_history(storage, study._study_id)
    assert loaded.of(first, "epoch").tolist() == [1, 2]
    assert loaded.of(second, "epoch").tolist() == [1, 2, 3, 4]
    values = [sorted(trial.intermediate_values) for trial in study.get_trials()]
    assert values == [[1, 2], [1, 2, 3, 4]]


def test_lost_trials_are_reported_and_the_others_are_written(storage: Storage) -> None:
    study, owner, (first, second, third) = begin(storage, 3)
    finish(storage, second, TrialState.PRUNED, 1.0, owner=owner)
    rows = [(trial, Result(1)) for trial in (first, second, third)]
    assert history.record_epochs(storage, rows, owner=owner) == {second}
    assert list(history.load_history(storage, study._study_id).spans) == [first, third]


def test_an_epoch_of_many_trials_is_one_transaction(storage: Storage) -> None:
    _, owner, ids = begin(storage, 16)
    commits: list[object] = []
    event.listen(storage.engine, "commit", commits.append)
    history.record_epochs(storage, [(trial, Result(1)) for trial in ids], owner=owner)
    assert len(commits) == 1


def test_recording_sixteen_trials_is_much_cheaper_than_optunas_own_report(
    storage: Storage,
) -> None:
    _, owner, ids = begin(storage, 16)
    ours, theirs = [], []
    for epoch in range(1, 16):
        rows = [(trial, Result(epoch)) for trial in ids]
        start = time.process_time()
        history.record_epochs(storage, rows, owner=owner)
        ours.append((time.process_time() - start) / len(ids))
        start = time.process_time()
        storage.set_trial_intermediate_value(ids[0], 100 + epoch, 1.0)
        theirs.append(time.process_time() - start)
    assert sorted(ours)[7] < sorted(theirs)[7]


def test_some_trials_and_columns_can_be_read_alone(storage: Storage) -> None:
    study, owner, ids = begin(storage, 3)
    history.record_epochs(storage, [(trial, Result(1)) for trial in ids], owner=owner)
    loaded = history.load_history(
        storage, study._study_id, trial_ids=[ids[2], ids[0]], columns=["val_loss"]
    )
    assert list(loaded.spans) == [ids[0], ids[2]]
    assert loaded.columns["val_loss"].tolist() == [1.0, 1.0]
    assert list(loaded.columns) == ["val_loss"]
    assert len(history.load_history(storage, study._study_id, trial_ids=[])) == 0


def test_history_splits_into_trials(storage: Storage) -> None:
    study, owner, ids = begin(storage, 3)
    for trial, epochs in zip(ids, (2, 0, 3), strict=True):
        for epoch in range(1, epochs + 1):
            history.record_epochs(storage, [(trial, Result(epoch))], owner=owner)
    found = history.load_history(storage, study._study_id)
    assert [found.of(trial, "epoch").tolist() for trial in ids] == [[1, 2], [], [1, 2, 3]]
    assert found.spans.keys() == {ids[0], ids[2]}
    assert history.load_history(storage, study._study_id + 1).spans == {}


def test_ten_thousand_trials_of_thirty_epochs_are_read_in_seconds(storage: Storage) -> None:
    study = optuna.create_study(storage=storage, study_name="large")
    with storage.engine.begin() as connection:
        connection.execute(
            insert(TRIALS),
            [
                {"study_id": study._study_id, "number": n, "state": TrialState.COMPLETE}
                for n in range(10_000)
            ],
        )
        connection.exec_driver_sql(
            "INSERT INTO lrsearch_history WITH RECURSIVE epochs(e) AS "
            "(SELECT 1 UNION ALL SELECT e + 1 FROM epochs WHERE e < 30) "
            "SELECT t.trial_id, e, 0.1, 1, 1, 1, 1, 1, 1 FROM trials t, epochs"
        )
    start = time.process_time()
    loaded = history.load_history(storage, study._study_id)
    seconds = time.process_time() - start
    assert len(loaded) == 300_000
    assert loaded.epoch[:31].tolist() == [*range(1, 31), 1]
    print(f"{storage.engine.dialect.name}: {seconds:.2f} s")
    assert seconds < 15
