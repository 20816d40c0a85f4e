"""Small helpers around Optuna: a study's storage and direction, its log and its warnings."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lrsearch.errors import UsageError

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage


def storage_of(study: optuna.Study) -> BaseStorage:
    """What keeps a study: the storage behind Optuna's cache.

    Only of the cache: what a ``JournalStorage`` has in ``_backend`` is a file, and no storage.

    Example:
        >>> import optuna
        >>> type(storage_of(optuna.create_study())).__name__
        'InMemoryStorage'
    """
    from optuna.storages import _CachedStorage

    storage: BaseStorage = study._storage
    return storage._backend if isinstance(storage, _CachedStorage) else storage


def label_of(study: optuna.Study) -> str:
    """The database of a study, as it may be shown; "" where it has no name."""
    return str(getattr(storage_of(study), "label", ""))


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


def check_direction(study: Any) -> None:
    """Make sure that a study minimises one number.

    Raises:
        UsageError: It maximises, or has several objectives.
    """
    directions = [d.name for d in getattr(study, "directions", None) or ()]
    if directions and directions != ["MINIMIZE"]:
        shown = " and ".join(name.lower() for name in directions)
        raise UsageError(
            f"a study of schedules minimises one validation loss, this one has {shown}; make it "
            "with optuna.create_study(direction='minimize') and return the loss (or 1 - accuracy)"
        )
