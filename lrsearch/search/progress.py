"""The state of a study as numbers, read from the database: what every display shows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import optuna
from optuna.trial import FrozenTrial, TrialState

from lrsearch.divergence import DIVERGED_LOSS, blown_up, last_loss, status_of
from lrsearch.errors import LrsearchError
from lrsearch.report.read_study import row_of
from lrsearch.report.tables import ENDED, TrialRow
from lrsearch.schedules import Schedule


@dataclass(frozen=True)
class Progress:
    """A study at one moment.

    Attributes:
        target: Trials it shall have.
        budget: Epochs of one full trial.
        rows: All trials that have started, in order of their number. Of those that run, epochs
            and loss are what they have come to.
    """

    target: int
    budget: int
    rows: tuple[TrialRow, ...]

    def count(self, status: str) -> int:
        """How many trials ended so."""
        return sum(row.status == status for row in self.rows)

    @property
    def ends(self) -> list[str]:
        """How many trials ended in each way: ``12 completed``, ``7 pruned``."""
        return [f"{n} {ended(status)}" for status in ENDED if (n := self.count(status))]

    @property
    def finished(self) -> int:
        """Trials that have ended, in whatever way."""
        return sum(row.status != "running" for row in self.rows)

    @property
    def running(self) -> list[TrialRow]:
        """Trials under way."""
        return [row for row in self.rows if row.status == "running"]

    @property
    def epochs_run(self) -> int:
        """Epochs trained so far."""
        return sum(row.epochs for row in self.rows)

    @property
    def saved(self) -> float:
        """Share of the epochs of all finished trials that pruning and divergence saved.

        0 where none is complete: nothing was got for the others.
        """
        ended = [row for row in self.rows if row.status not in ("running", "failed")]
        full = self.budget * len(ended) if self.count("complete") else 0
        return 1 - sum(row.epochs for row in ended) / full if full else 0.0

    @property
    def best(self) -> TrialRow | None:
        """The completed trial with the smallest loss."""
        done = [row for row in self.rows if row.value is not None]
        return min(done, key=lambda row: (row.value or 0.0, row.number), default=None)

    @property
    def baselines(self) -> dict[str, float]:
        """Loss of each recipe that ran to the end."""
        return {
            row.baseline: row.value for row in self.rows if row.baseline and row.value is not None
        }


_ENDED: WeakKeyDictionary[optuna.Study, dict[int, TrialRow | None]] = WeakKeyDictionary()


def read_progress(study: optuna.Study, target: int, budget: int) -> Progress:
    """Read a study's :class:`Progress`; cheap, rows of finished trials are kept."""
    ended = _ENDED.setdefault(study, {})
    shown = []
    for trial in study.get_trials(deepcopy=False):
        if trial.state == TrialState.WAITING:
            continue
        row = ended[trial.number] if trial.number in ended else _row(trial)
        if trial.state.is_finished():
            ended[trial.number] = row
        if row is not None:
            shown.append((trial, row))
    ceiling = blown_up(last_loss(t) for t, _ in shown if t.state.is_finished())
    rows = (
        row if (now := status_of(trial, ceiling)) == row.status else replace(row, status=now)
        for trial, row in shown
    )
    return Progress(target, budget, tuple(rows))


def _row(trial: FrozenTrial) -> TrialRow | None:
    try:
        Schedule.from_dict(trial.user_attrs.get("schedule"))
    except LrsearchError:
        return None  # it has none yet, or it is a trial that somebody else put there
    row, step = row_of(trial, DIVERGED_LOSS, {}), trial.last_step
    loss = None if step is None else trial.intermediate_values[step]
    return replace(row, epochs=row.epochs or step or 0, last_loss=loss)


def ended(status: str) -> str:
    """How a trial ended, as a person is told while a study runs."""
    return "completed" if status == "complete" else status


def described(row: TrialRow) -> str:
    """The parameters of a schedule and its warmup, short."""
    return Schedule.from_dict(row.schedule).describe().removeprefix(row.family).strip()
