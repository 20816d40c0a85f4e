"""Optuna's cache of trials, which can be held still while many decisions are made at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.storages import _CachedStorage

from lrsearch.storage.engine import Storage


@contextmanager
def frozen(study: optuna.Study) -> Iterator[None]:
    """`Cache.frozen` of a study's storage; nothing for a study on any other."""
    cache = study._storage
    if not isinstance(cache, Cache):
        yield
        return
    with cache.frozen():
        yield


class Cache(_CachedStorage):
    """What Optuna wraps around a relational storage, with `frozen`.

    Optuna asks the database for every trial under way at each look at the study. A lock-step epoch
    of K fused trials makes K pruning decisions, and each looks at least once.

    Args:
        storage: From `open_storage`.

    Example:
        >>> study = optuna.create_study(storage=Cache(storage))  # doctest: +SKIP
        >>> with frozen(study):  # doctest: +SKIP
        ...     decisions = [pruner.prune(study, trial) for trial in trials]
    """

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self._still = threading.local()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Read the study at the first look inside, and not again in this thread until the end."""
        before = getattr(self._still, "read", None)
        self._still.read = set() if before is None else before
        try:
            yield
        finally:
            self._still.read = before

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna's; what a pruner notes on a trial is also seen by those decided after it."""
        super().set_trial_system_attr(trial_id, key, value)
        with self._lock:
            known = self._trial_id_to_study_id_and_number.get(trial_id)
            if known is not None:
                study_id, number = known
                self._studies[study_id].trials[number].system_attrs[key] = value

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        read: set[int] | None = getattr(self._still, "read", None)
        if read is not None and study_id in read:
            return
        super()._read_trials_from_remote_storage(study_id)
        if read is not None:
            read.add(study_id)
