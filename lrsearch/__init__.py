"""Find the learning-rate schedule for your PyTorch model: which scheduler, which parameters.

The names below are imported when first used, so that ``import lrsearch`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lrsearch.api import confirm as confirm
    from lrsearch.api import open_storage as open_storage
    from lrsearch.api import report as report
    from lrsearch.api import search as search
    from lrsearch.callback import PruningCallback as PruningCallback
    from lrsearch.errors import LrsearchError as LrsearchError
    from lrsearch.objective import enqueue_baselines as enqueue_baselines
    from lrsearch.objective import suggest as suggest
    from lrsearch.result import Result as Result
    from lrsearch.saved import load as load
    from lrsearch.schedules import Schedule as Schedule
    from lrsearch.schedules import Space as Space
    from lrsearch.search.pruning import SchedulePruner as SchedulePruner
    from lrsearch.search.sampling import TraceSampler as TraceSampler
    from lrsearch.tasks import Split as Split
    from lrsearch.tasks import Task as Task

_PUBLIC = {
    "LrsearchError": "lrsearch.errors",
    "PruningCallback": "lrsearch.callback",
    "Result": "lrsearch.result",
    "Schedule": "lrsearch.schedules",
    "SchedulePruner": "lrsearch.search.pruning",
    "Space": "lrsearch.schedules",
    "Split": "lrsearch.tasks",
    "Task": "lrsearch.tasks",
    "TraceSampler": "lrsearch.search.sampling",
    "confirm": "lrsearch.api",
    "enqueue_baselines": "lrsearch.objective",
    "load": "lrsearch.saved",
    "open_storage": "lrsearch.api",
    "report": "lrsearch.api",
    "search": "lrsearch.api",
    "suggest": "lrsearch.objective",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'lrsearch' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
