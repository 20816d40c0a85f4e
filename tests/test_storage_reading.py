"""Reading trials: what Optuna's own storage reads from the same database, only sooner."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from lrsearch.search.methods import PRUNERS
from lrsearch.storage import Storage, open_storage, reading
from lrsearch.storage.cache import Cache
from lrsearch.storage.history import forget_epochs


@pytest.fixture
def filled(database_url: str) -> Iterator[tuple[Storage, optuna.Study]]:
    """Trials in every state, with everything that a trial can hold."""
    storage = open_storage(database_url)
    study = optuna.create_study(storage=storage, study_name="s")
    optuna.create_study(storage=storage, study_name="another").enqueue_trial({"x": 1.0})
    spaces = {
        "x": FloatDistribution(1e-3, 1.0, log=True),
        "n": IntDistribution(1, 9),
        "kind": CategoricalDistribution(["a", None, 1.5, True]),
    }
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.WAITING]
    for index in range(12):
        state = states[index % 4]
        study.add_trial(
            optuna.create_trial(
                state=state,
                value=1.0 / (1 + index) if state != TrialState.FAIL and index % 4 < 2 else None,
                params={"x": 0.5, "n": index % 9 + 1, "kind": ["a", None, 1.5, True][index % 4]},
                distributions=spaces,
                user_attrs={"text": f"é\n'{index}", "nested": {"a": [1, None]}},
                system_attrs={"fixed_params": {"x": 1}},
                intermediate_values={
                    1: 1.0,
                    2: float("nan"),
                    3: float("inf"),
                    4: -float("inf"),
                },
            )
        )
    study.add_trial(optuna.create_trial(value=float("inf")))
    running = study.ask(fixed_distributions={"x": spaces["x"]})
    running.report(0.25, 9)
    yield storage, study
    storage.close()


def plain(storage: Storage) -> RDBStorage:
    """Optuna's own storage on the same database."""
    return RDBStorage(storage.url.replace("{", "{{"))


@pytest.mark.parametrize("few", [500, 3])
def test_trials_are_those_that_optuna_reads(
    filled: tuple[Storage, optuna.Study], few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_FEW", few)
    storage, study = filled
    study_id = study._study_id
    theirs = plain(storage)
    everything = theirs._get_trials(study_id, None, set(), -1)
    ids = [trial._trial_id for trial in everything]
    assert len(ids) == 13
    for states, included, newer in [
        (None, set(), -1),
        ((TrialState.COMPLETE, TrialState.WAITING), set(), -1),
        (None, {ids[1], ids[3], ids[12]}, ids[9]),
        (None, set(), ids[9]),
        ((TrialState.RUNNING,), {ids[1]}, ids[4]),
        (None, {ids[1]}, 10**9),
        ((), set(), -1),
    ]:
        expected = theirs._get_trials(study_id, states, included, newer)
        found = storage._get_trials(study_id, states, included, newer)
        assert [_comparable(trial) for trial in found] == [_comparable(t) for t in expected]
    for trial_id in ids:
        assert _comparable(storage.get_trial(trial_id)) == _comparable(theirs.get_trial(trial_id))
    theirs.engine.dispose()


def _comparable(trial: optuna.trial.FrozenTrial) -> dict[str, object]:
    """All fields; NaN as text, parameters with their order."""
    fields = {name.lstrip("_"): value for name, value in vars(trial).items()}
    fields["intermediate_values"] = repr(sorted(trial.intermediate_values.items()))
    fields["params"] = list(trial.params.items())
    fields["distributions"] = list(trial.distributions.items())
    return fields


def test_a_trial_that_is_not_there_is_a_key_error(filled: tuple[Storage, optuna.Study]) -> None:
    storage, _ = filled
    with pytest.raises(KeyError):
        storage.get_trial(10**6)
    assert storage._get_trials(10**6, None, set(), -1) == []


def test_reading_is_faster_than_optunas(filled: tuple[Storage, optuna.Study]) -> None:
    storage, study = filled
    theirs = plain(storage)

    def seconds(source: RDBStorage) -> float:
        times = []
        for _ in range(7):
            start = time.process_time()
            source._get_trials(study._study_id, None, set(), -1)
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(storage) < seconds(theirs)
    theirs.engine.dispose()


def test_a_frozen_cache_reads_once_and_sees_what_pruners_note(tmp_path: object) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/a.db")
    study = optuna.create_study(storage=Cache(storage), study_name="s")
    other = optuna.load_study(storage=storage, study_name="s")
    cache = study._storage
    assert isinstance(cache, Cache)
    first, second = other.ask(), other.ask()
    reads: list[int] = []
    real = storage._get_trials
    storage._get_trials = lambda *args, **named: reads.append(1) or real(*args, **named)  # type: ignore
    with cache.frozen():
        assert len(study.get_trials(deepcopy=False)) == 2
        other.tell(first, 1.0)
        with cache.frozen():
            states = [trial.state for trial in study.get_trials(deepcopy=False)]
        assert states == [TrialState.RUNNING] * 2
        cache.set_trial_system_attr(second._trial_id, "completed_rung_0", 0.5)
        noted = [trial.system_attrs for trial in study.get_trials(deepcopy=False)]
        assert noted == [{}, {"completed_rung_0": 0.5}]
        assert len(reads) == 1
    assert study.get_trials(deepcopy=False)[0].state == TrialState.COMPLETE
    assert storage.get_trial(second._trial_id).system_attrs == {"completed_rung_0": 0.5}


@pytest.mark.parametrize("name", ["median", "asha", "hyperband"])
def test_decisions_in_a_frozen_cache_are_those_without_it(name: str, tmp_path: object) -> None:
    decisions = []
    for still in (False, True):
        storage = open_storage(f"sqlite:///{tmp_path}/{still}.db")
        study = optuna.create_study(
            storage=Cache(storage), study_name="s", pruner=PRUNERS[name](9)
        )
        cache = study._storage
        assert isinstance(cache, Cache)
        for index in range(12):
            study.add_trial(
                optuna.create_trial(
                    value=index / 12,
                    intermediate_values={e: index / 12 + 1 / e for e in range(1, 10)},
                )
            )
        running = [study.ask() for _ in range(6)]
        made: list[list[bool]] = []
        for epoch in range(1, 9):
            for index, trial in enumerate(running):
                trial.report(index / 3 + 1 / epoch, epoch)
            with cache.frozen() if still else nullcontext():
                made.append([trial.should_prune() for trial in running])
        decisions.append(made)
        storage.close()
    assert decisions[0] == decisions[1]
    assert any(decision for made in decisions[0] for decision in made)


def test_a_cache_reads_of_running_trials_what_changes_and_all_when_they_end(
    database_url: str,
) -> None:
    storage = open_storage(database_url)
    study = optuna.create_study(storage=Cache(storage), study_name="s")
    other = optuna.load_study(storage=storage, study_name="s")
    running = [other.ask({"x": FloatDistribution(0, 1)}) for _ in range(3)]
    queued = {"x": 0.5}
    other.enqueue_trial(queued)

    def same() -> list[optuna.trial.FrozenTrial]:
        mine = study.get_trials(deepcopy=False)
        fresh = optuna.load_study(storage=storage, study_name="s").trials
        assert [_comparable(t) for t in mine] == [_comparable(t) for t in fresh]
        return mine

    same()
    for trial in running:
        trial.set_user_attr("schedule", {"family": "StepLR"})
    assert all("schedule" in t.user_attrs for t in same()[:3])
    before = study.get_trials(deepcopy=False)
    for epoch in (1, 2):
        for trial in running:
            trial.report(1 / epoch, epoch)
        running[1].storage.set_trial_system_attr(running[1]._trial_id, f"rung_{epoch}", epoch)
        assert [len(t.intermediate_values) for t in same()] == [epoch] * 3 + [0]
    assert not any(t.intermediate_values for t in before), "what was read stays as it was"
    running[0].set_user_attr("stopped", "completed")
    other.tell(running[0], 0.25)
    other.tell(running[1], state=TrialState.PRUNED)
    ended = same()
    assert [t.value for t in ended] == [0.25, 0.5, None, None]
    assert ended[0].user_attrs["stopped"] == "completed"
    assert ended[1].system_attrs == {"rung_1": 1, "rung_2": 2}
    waiting = other.ask({"x": FloatDistribution(0, 1)})
    assert waiting.params == queued
    assert same()[3].state == TrialState.RUNNING
    storage.close()


def begun(
    folder: object, count: int
) -> tuple[Storage, optuna.Study, optuna.Study, list[optuna.Trial]]:
    """A database, a study through a cache, the same without, and trials that it has begun."""
    storage = open_storage(f"sqlite:///{folder}/a.db")
    study = optuna.create_study(storage=Cache(storage), study_name="s")
    other = optuna.load_study(storage=storage, study_name="s")
    running = [other.ask() for _ in range(count)]
    for trial in running:
        trial.set_user_attr("schedule", {"family": "StepLR"})
    return storage, study, other, running


@pytest.mark.parametrize("count", [15, 16, 17, 65])
def test_a_cache_reads_the_newest_epochs_of_any_number_of_running_trials(
    count: int, tmp_path: object
) -> None:
    storage, study, _, running = begun(tmp_path, count)
    for epoch in range(1, 4):
        study.get_trials(deepcopy=False)
        for trial in running[epoch:]:
            trial.report(float("inf") if trial.number % 2 else 0.5, epoch)
    mine = study.get_trials(deepcopy=False)
    fresh = optuna.load_study(storage=storage, study_name="s").trials
    assert [_comparable(t) for t in mine] == [_comparable(t) for t in fresh]
    assert [len(t.intermediate_values) for t in mine[:4]] == [0, 1, 2, 3]
    storage.close()


@pytest.mark.parametrize("count", [1, 17, 65])
@pytest.mark.parametrize("again", [3, 12])
def test_a_cache_sees_that_another_worker_goes_on_with_a_trial_from_an_earlier_epoch(
    count: int, again: int, tmp_path: object
) -> None:
    storage, study, other, running = begun(tmp_path, count)
    for trial in running:
        for epoch in range(1, 9):
            trial.report(float("nan") if epoch == 8 else 1 / epoch, epoch)
    study.get_trials(deepcopy=False)
    forget_epochs(storage, running[0]._trial_id, 2)
    for go in (1, 2):
        if go == 1:
            assert len(study.get_trials(deepcopy=False)[0].intermediate_values) == 2
        resumed = optuna.trial.Trial(other, running[0]._trial_id)
        for epoch in range(3, again + 1):
            resumed.report(go / epoch, epoch)
        mine = study.get_trials(deepcopy=False)
        fresh = optuna.load_study(storage=storage, study_name="s").trials
        assert [_comparable(t) for t in mine] == [_comparable(t) for t in fresh]
        forget_epochs(storage, running[0]._trial_id, 2)
    storage.close()
