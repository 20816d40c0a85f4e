"""Where a study is kept: Optuna's storage, tuned, with our own tables beside its own."""

from lrsearch.storage.engine import Storage
from lrsearch.storage.opening import open_storage
from lrsearch.storage.owners import Heartbeat, new_owner
from lrsearch.storage.urls import check_storage, redact

__all__ = ["Heartbeat", "Storage", "check_storage", "new_owner", "open_storage", "redact"]
