"""The state of a study as numbers, read from the database: what every display shows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import optuna
from optuna.trial import FrozenTrial, TrialState

from lrsearch.divergence import DIVERGED_LOSS, blown_up, last_loss, status_of
from lrsearch.errors import LrsearchError
from lrsearch.schedules import Schedule


@dataclass(frozen=True)
class TrialProgress:
    """One trial, ready to be shown.

    Attributes:
        number: The trial's number.
        family: Its scheduler's torch class name.
        description: Its parameters, short.
        lr: Peak learning rate.
        epochs: Epochs run.
        value: Last (or final) validation loss; None before the first.
        metric: Final validation metric, where there is one.
        stopped: ``completed``, ``pruned``, ``diverged``, ``failed``, or ``running``.
        baseline: Name of the recipe, if it is one.
        error: First line of what it failed with.
    """

    number: int
    family: str
    description: str
    lr: float
    epochs: int
    value: float | None
    metric: float | None
    stopped: str
    baseline: str | None
    error: str | None


@dataclass(frozen=True)
class Progress:
    """A study at one moment.

    Attributes:
        target: Trials it shall have.
        budget: Epochs of one full trial.
        rows: All trials that have started, in order of their number.
    """

    target: int
    budget: int
    rows: tuple[TrialProgress, ...]

    def count(self, stopped: str) -> int:
        """How many trials ended so."""
        return sum(row.stopped == stopped for row in self.rows)

    @property
    def ends(self) -> list[str]:
        """How many trials ended in each way: ``12 completed``, ``7 pruned``."""
        counts = {end: self.count(end) for end in ("completed", "pruned", "diverged", "failed")}
        return [f"{n} {end}" for end, n in counts.items() if n]

    @property
    def finished(self) -> int:
        """Trials that have ended, in whatever way."""
        return sum(row.stopped != "running" for row in self.rows)

    @property
    def running(self) -> list[TrialProgress]:
        """Trials under way."""
        return [row for row in self.rows if row.stopped == "running"]

    @property
    def epochs_run(self) -> int:
        """Epochs trained so far."""
        return sum(row.epochs for row in self.rows)

    @property
    def saved(self) -> float:
        """Share of the epochs of all finished trials that pruning and divergence saved.

        0 where none is complete: nothing was got for the others.
        """
        ended = [row for row in self.rows if row.stopped not in ("running", "failed")]
        full = self.budget * len(ended) if self.count("completed") else 0
        return 1 - sum(row.epochs for row in ended) / full if full else 0.0

    @property
    def best(self) -> TrialProgress | None:
        """The completed trial with the smallest loss."""
        done = [r for r in self.rows if r.stopped == "completed" and r.value is not None]
        return min(done, key=lambda r: (r.value, r.number), default=None)

    @property
    def baselines(self) -> dict[str, float]:
        """Loss of each recipe that ran to the end."""
        return {
            row.baseline: row.value
            for row in self.rows
            if row.baseline and row.stopped == "completed" and row.value is not None
        }


_ENDED: WeakKeyDictionary[optuna.Study, dict[int, TrialProgress | None]] = WeakKeyDictionary()


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
        row if (end := _stopped(trial, ceiling)) == row.stopped else replace(row, stopped=end)
        for trial, row in shown
    )
    return Progress(target, budget, tuple(rows))


def _stopped(trial: FrozenTrial, ceiling: float = DIVERGED_LOSS) -> str:
    status = status_of(trial, ceiling)
    return "completed" if status == "complete" else status


def _row(trial: FrozenTrial) -> TrialProgress | None:
    attrs = trial.user_attrs
    if "schedule" not in attrs:
        return None
    try:
        schedule = Schedule.from_dict(attrs["schedule"])
    except LrsearchError:
        return None  # a trial that somebody else put there
    step = trial.last_step
    return TrialProgress(
        number=trial.number,
        family=schedule.family,
        description=schedule.describe().removeprefix(schedule.family).strip(),
        lr=schedule.lr,
        epochs=int(attrs.get("epochs", step or 0)),
        value=trial.intermediate_values[step] if step is not None else None,
        metric=attrs.get("val_metric"),
        stopped=_stopped(trial),
        baseline=attrs.get("baseline"),
        error=str(attrs["error"]).splitlines()[0] if attrs.get("error") else None,
    )
