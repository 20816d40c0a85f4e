"""Small helpers around Optuna: its storage without a cache, its log and its warnings."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


def backend(storage: BaseStorage) -> BaseStorage:
    """What keeps the trials: the storage behind Optuna's cache, or the storage itself.

    Only of the cache: what a ``JournalStorage`` has in ``_backend`` is a file, and no storage.

    Example:
        >>> from optuna.storages import InMemoryStorage
        >>> type(backend(InMemoryStorage())).__name__
        'InMemoryStorage'
    """
    from optuna.storages import _CachedStorage

    if not isinstance(storage, _CachedStorage):
        return storage
    inner: BaseStorage = storage._backend
    return inner


@contextmanager
def optuna_logs_errors_only() -> Iterator[None]:
    """Optuna logs nothing but errors inside; afterwards it logs as before."""
    from optuna import logging

    before = logging.get_verbosity()
    if before < logging.ERROR:  # to set it makes every logger of the process think anew
        logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        if logging.get_verbosity() != before:
            logging.set_verbosity(before)


@contextmanager
def experiments_allowed() -> Iterator[None]:
    """Optuna does not warn inside that a feature is experimental."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
