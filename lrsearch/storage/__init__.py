"""Where a study is kept: Optuna's storage, tuned, with our own tables beside its own."""

from lrsearch.storage.engine import Storage, open_storage
from lrsearch.storage.owners import Heartbeat, new_owner
from lrsearch.storage.urls import redact

__all__ = ["Heartbeat", "Storage", "new_owner", "open_storage", "redact"]
