"""What is said once of a study, however many workers make it together."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.engine import Connection

from lrsearch.storage.engine import Storage
from lrsearch.storage.schema import STUDY_ATTRIBUTES, lock_study


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

    def work(connection: Connection) -> Any:
        lock_study(connection, study_id)
        found = connection.execute(
            select(STUDY_ATTRIBUTES.c.value_json).where(
                STUDY_ATTRIBUTES.c.study_id == study_id, STUDY_ATTRIBUTES.c.key == key
            )
        ).scalar()
        if found is not None:
            return json.loads(found)
        text = json.dumps(value)
        row = {"study_id": study_id, "key": key, "value_json": text}
        connection.execute(insert(STUDY_ATTRIBUTES).values(row))
        return json.loads(text)

    return storage.transact(work)
