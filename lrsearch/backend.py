"""The storage of a study without the cache that Optuna puts before a relational one."""

from __future__ import annotations

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
