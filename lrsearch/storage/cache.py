"""Optuna's cache of trials, which can be held still while many decisions are made at once."""

from __future__ import annotations

import copy
import threading
from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.storages import _CachedStorage
from optuna.storages._cached_storage import _StudyInfo
from optuna.trial import FrozenTrial, TrialState

from lrsearch.storage.engine import Storage


def cache_of(study: optuna.Study) -> Cache:
    """The cache of a study that :mod:`lrsearch.search.study` has opened."""
    cache = study._storage
    assert isinstance(cache, Cache)
    return cache


class Cache(_CachedStorage):
    """What Optuna wraps around a relational storage, with `frozen`.

    Optuna asks the database for every trial under way at each look at the study. A lock-step epoch
    of K fused trials makes K pruning decisions, and each looks at least once.

    Args:
        storage: From `open_storage`.

    Example:
        >>> study = optuna.create_study(storage=Cache(storage))  # doctest: +SKIP
        >>> with cache_of(study).frozen():  # doctest: +SKIP
        ...     decisions = [pruner.prune(study, trial) for trial in trials]
    """

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self._still = threading.local()
        self._noted: dict[int, dict[str, Any]] = {}

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Read the study at the first look inside, and not again in this thread until the end."""
        before = getattr(self._still, "read", None)
        self._still.read = set() if before is None else before
        try:
            yield
        finally:
            self._still.read = before

    def look_again(self, study_id: int) -> None:
        """Let the next look inside `frozen` read the study anew."""
        read: set[int] | None = getattr(self._still, "read", None)
        if read is not None:
            read.discard(study_id)

    def put(self, study_id: int, trial: FrozenTrial) -> None:
        """Show a new trial to looks inside `frozen` too.

        Args:
            study_id: Optuna's number of the study.
            trial: As it is in the database or soon will be, but for what a sampler noted on it
                through this cache. What it reports later is not seen here.
        """
        shown = copy.copy(trial)
        shown.intermediate_values = dict(trial.intermediate_values)
        shown.system_attrs = {**trial.system_attrs, **self._noted.pop(trial._trial_id, {})}
        with self._lock:
            if study_id in self._studies:
                self._add_trials_to_cache(study_id, [shown])
                self._studies[study_id].unfinished_trial_ids.add(trial._trial_id)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna's; what a pruner notes on a trial is also seen by those decided after it."""
        super().set_trial_system_attr(trial_id, key, value)
        with self._lock:
            known = self._trial_id_to_study_id_and_number.get(trial_id)
            if known is None:
                self._noted.setdefault(trial_id, {})[key] = value
            else:
                study_id, number = known
                self._studies[study_id].trials[number].system_attrs[key] = value

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """As Optuna's; every decision looks at all trials, which are sorted by their keys here."""
        if deepcopy or states is not None:
            return super().get_all_trials(study_id, deepcopy, states)
        self._read_trials_from_remote_storage(study_id)
        with self._lock:
            trials = self._studies[study_id].trials
            return [trials[number] for number in sorted(trials)]

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        read: set[int] | None = getattr(self._still, "read", None)
        if read is not None and study_id in read:
            return
        self._read_changes(study_id)
        if read is not None:
            read.add(study_id)

    def _read_changes(self, study_id: int) -> None:
        """As Optuna's; of a trial that runs and has its schedule, only what still changes."""
        storage = self._backend
        assert isinstance(storage, Storage)
        with self._lock:
            study = self._studies.setdefault(study_id, _StudyInfo())
            places = self._trial_id_to_study_id_and_number
            under_way = [study.trials[places[key][1]] for key in study.unfinished_trial_ids]
            known = {
                trial._trial_id: trial
                for trial in under_way
                if trial.state == TrialState.RUNNING and "schedule" in trial.user_attrs
            }
            trials = storage._get_trials(
                study_id, None, study.unfinished_trial_ids, study.last_finished_trial_id, known
            )
            self._add_trials_to_cache(study_id, trials)
            for trial in trials:
                if trial.state.is_finished():
                    study.last_finished_trial_id = max(
                        study.last_finished_trial_id, trial._trial_id
                    )
                    study.unfinished_trial_ids.discard(trial._trial_id)
                else:
                    study.unfinished_trial_ids.add(trial._trial_id)
