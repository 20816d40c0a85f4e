"""The files that a run leaves in its folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import optuna

from lrsearch.errors import LrsearchError
from lrsearch.report.command import typed

if TYPE_CHECKING:
    from lrsearch.report.importance import Importance
    from lrsearch.report.robust import Robust
    from lrsearch.report.tables import StudyTable
    from lrsearch.storage.engine import Storage


def write_results(
    study: optuna.Study, table: StudyTable, storage: Storage, folder: Path
) -> tuple[list[Path], Importance]:
    """Write best.yaml and the figures; returns them and what mattered.

    Raises:
        LrsearchError: If the folder cannot be written; the study is safe in the database.
    """
    from lrsearch.export import write_best
    from lrsearch.report.standalone import write_figures

    with _written(study, storage, folder):
        folder.mkdir(parents=True, exist_ok=True)
        best = write_best(study, folder / "best.yaml")
        files, mattered = write_figures(study, table, folder)
    return [best, *files], mattered


def write_robust(
    study: optuna.Study, found: Robust | None, storage: Storage, folder: Path
) -> Path:
    """Write robust.yaml, the schedule that is the safest to train with: the best if there is none.

    Raises:
        LrsearchError: As of :func:`write_results`.
    """
    from lrsearch import export

    with _written(study, storage, folder):
        return export.write_robust(study, found, folder / "robust.yaml")


@contextlib.contextmanager
def _written(study: optuna.Study, storage: Storage, folder: Path) -> Iterator[None]:
    """What to say where the folder cannot be written.

    Raises:
        LrsearchError: It could not be.
    """
    try:
        yield
    except OSError as error:
        raise LrsearchError(
            f"results could not be written to {folder} ({error.strerror or error}); the study is "
            f"safe in its database: {typed('export', study.study_name, storage.label)} -o FILE"
        ) from None
