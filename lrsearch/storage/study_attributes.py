"""Attributes of a study that many workers set at once, none overwriting what another has set."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Connection

from lrsearch.storage.engine import Storage
from lrsearch.storage.schema import STUDY_ATTRIBUTES, lock_study, upsert


def set_once(storage: Storage, study_id: int, key: str, value: Any) -> Any:
    """Set a user attribute of a study unless it has one of that name.

    Args:
        storage: From `open_storage`.
        study_id: Optuna's number of the study.
        key: Name of the attribute.
        value: Any JSON value.

    Returns:
        The value that the study has now: ``value``, or that of whoever came first.

    Example:
        >>> set_once(storage, 1, "lrsearch", {"uid": "ab12"})  # doctest: +SKIP
        {'uid': 'ab12'}
    """

    return change(storage, study_id, key, lambda _, found: value if found is None else found)


def change(
    storage: Storage, study_id: int, key: str, new: Callable[[Connection, Any], Any]
) -> Any:
    """Change a user attribute of a study, which nobody else changes meanwhile.

    Args:
        storage: From `open_storage`.
        study_id: Optuna's number of the study.
        key: Name of the attribute.
        new: (the connection, on which the study is locked; its value, None if it has none) -> the
            new value, any JSON value. May be called again where the database was busy.

    Returns:
        The new value, as it can be read from now on.
    """

    def work(connection: Connection) -> Any:
        lock_study(connection, study_id)
        where = (STUDY_ATTRIBUTES.c.study_id == study_id, STUDY_ATTRIBUTES.c.key == key)
        found = connection.execute(select(STUDY_ATTRIBUTES.c.value_json).where(*where)).scalar()
        value = new(connection, None if found is None else json.loads(found))
        if (text := json.dumps(value)) != found:
            row = {"study_id": study_id, "key": key, "value_json": text}
            upsert(connection, STUDY_ATTRIBUTES, ("study_id", "key"), [row])
        return json.loads(text)

    return storage.transact(work)
