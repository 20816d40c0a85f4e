"""The checkpoints of a worker's trials: when they are written, and when they go."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from lrsearch.attributes import STUDY_ATTR
from lrsearch.errors import LrsearchError
from lrsearch.files import results_folder
from lrsearch.training import checkpoint

PAUSE_SECONDS = 5.0
"""A trial is saved again after this long, or longer where saving takes more than ``SHARE``."""
SHARE = 0.05
"""Of the time, that saving may take."""


@dataclass
class Checkpoints:
    """The checkpoint files of a study's trials.

    Args:
        folder: Where they lie; it is made with the first.
        note: Called with one line for the user.
        seconds: What the last save took, with the copy from the device.
    """

    folder: Path
    note: Callable[[str], None]
    seconds: float = 0.0

    @classmethod
    def of_study(cls, study: optuna.Study, out: str, note: Callable[[str], None]) -> Checkpoints:
        """Those of a study that ``lrsearch run`` made, below the folder of its results in ``out``.

        Its ``uid`` is in the name, so that those of a study of the same name in another database
        are never taken for its own.
        """
        folder = results_folder(out, study.study_name)
        return cls(folder / "checkpoints" / study.user_attrs[STUDY_ATTR]["uid"], note)

    def due(self, saved: float, residents: int) -> bool:
        """Whether a trial that was saved at a time of the monotonic clock is to be saved again."""
        pause = max(PAUSE_SECONDS, residents * self.seconds / SHARE)
        return time.monotonic() - saved > pause

    def write(self, key: int, state: dict[str, Any]) -> None:
        """Save the state of a trial.

        Raises:
            LrsearchError: The file cannot be written.
        """
        path = self._path(key)
        try:
            checkpoint.save(path, state)
        except OSError as error:
            raise LrsearchError(
                f"the checkpoint {path} could not be written ({error.strerror or error}); what is "
                "finished is kept: make room, then run the same command again"
            ) from None

    def read(self, trial: FrozenTrial) -> dict[str, Any] | None:
        """The state of a trial; None where there is none that can be read: then it starts over."""
        try:
            return checkpoint.load(self._path(trial._trial_id))
        except checkpoint.CheckpointError as error:
            self.note(f"trial {trial.number} starts over: {error}")
            return None

    def forget(self, key: int) -> None:
        """Delete the file of a trial that ended; what cannot be deleted does no harm."""
        with contextlib.suppress(OSError):
            self._path(key).unlink(missing_ok=True)

    def tidy(self, ended: Collection[int], *, half_written: bool) -> None:
        """Remove what workers that were killed left of trials that have ended."""
        if not self.folder.is_dir():
            return
        ids = {str(key) for key in ended}
        left = [path for path in self.folder.glob("*.pt") if path.stem in ids]
        if half_written:
            left += self.folder.glob(".*.pt-*")
        for path in left:
            path.unlink(missing_ok=True)

    def _path(self, key: int) -> Path:
        return self.folder / f"{key}.pt"
