"""A study as rows: one read of all trials and their history, and small views of it.

Everything a report shows starts here: :func:`load` reads the study once, the other functions turn
it into the small tables that :mod:`lrsearch.report.figures` draws. Nothing here knows plotly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from lrsearch.attributes import CONFIRM_ATTR, confirmation_study
from lrsearch.optuna_helpers import check_direction

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

    from lrsearch.report.robust import Robust
    from lrsearch.storage.history import History

FINISHED = ("complete", "pruned", "diverged")
ENDED = (*FINISHED, "failed")
CLOSE = 0.02
"""A loss is near the best where it is at most this part of it above."""


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One trial.

    Attributes:
        number: Optuna's trial number.
        trial_id: Key of the trial in the database.
        status: complete, pruned, diverged, failed, running or waiting.
        family: Scheduler type by torch class name, "" while none is chosen.
        lr: Peak learning rate; NaN while none is chosen.
        warmup: Epochs of linear warmup.
        params: All Optuna parameters, with their distributions beside them.
        value: Final validation loss; None unless complete.
        metric: Validation metric at the end, where it was measured.
        first_loss, last_loss: Validation loss of the first and of the last epoch that was run;
            None before the first.
        epochs: Epochs run.
        budget: Epochs of a full trial.
        seconds: Wall time from its start to its end, beside whatever trained with it.
        baseline: Name of the usual recipe this trial is, or None.
        schedule: ``Schedule.to_dict()``.
        stopped: Why it ended, in words.
        others: Parameters that a loop of the user's own asked for beside the schedule.
    """

    number: int
    trial_id: int
    status: str
    family: str = ""
    lr: float = math.nan
    warmup: int = 0
    params: Mapping[str, Any] = field(default_factory=dict)
    distributions: Mapping[str, BaseDistribution] = field(default_factory=dict)
    value: float | None = None
    metric: float | None = None
    first_loss: float | None = None
    last_loss: float | None = None
    epochs: int = 0
    budget: int = 0
    seconds: float = 0.0
    baseline: str | None = None
    schedule: Mapping[str, Any] = field(default_factory=dict)
    stopped: str = ""
    device: str = ""
    started: datetime | None = None
    finished: datetime | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, Any] = field(default_factory=dict)

    @property
    def loss(self) -> float | None:
        """Its final loss, or the last one that it came to."""
        return self.last_loss if self.value is None else self.value

    @property
    def own_params(self) -> dict[str, Any]:
        """The family's own parameters, without the family's prefix."""
        prefix = f"{self.family}."
        return {k[len(prefix) :]: v for k, v in self.params.items() if k.startswith(prefix)}


@dataclass(frozen=True)
class StudyTable:
    """A study: its name, its stored settings, its trials in order of number, their history."""

    name: str
    trials: tuple[TrialRow, ...]
    history: History
    info: Mapping[str, Any] = field(default_factory=dict)
    metric_name: str = "metric"
    storage_url: str = ""

    @property
    def config(self) -> Mapping[str, Any]:
        """The study's stored configuration; empty for a study of another maker."""
        stored = self.info.get("config")
        return stored if isinstance(stored, Mapping) else {}

    @property
    def plan(self) -> Mapping[str, Any]:
        """What its configuration was resolved to; empty for a study of another maker."""
        stored: Mapping[str, Any] | None = self.info.get("plan")
        return stored or {}

    @property
    def budget(self) -> int:
        """Epochs of a full trial."""
        return max((t.budget for t in self.trials), default=0) or int(
            self.config.get("epochs") or 0
        )

    def having(self, *statuses: str) -> list[TrialRow]:
        """The trials with one of these statuses."""
        return [t for t in self.trials if t.status in statuses]

    @property
    def finished(self) -> list[TrialRow]:
        """The trials that ended, other than by failing: what a search has learnt from."""
        return self.having(*FINISHED)

    @property
    def complete(self) -> list[TrialRow]:
        """Complete trials, best first; equal values in order of number."""
        rows = [t for t in self.trials if t.status == "complete" and t.value is not None]
        return sorted(rows, key=lambda t: (t.value or 0.0, t.number))

    @property
    def best(self) -> TrialRow | None:
        """The complete trial with the lowest validation loss."""
        return next(iter(self.complete), None)

    @property
    def families(self) -> list[str]:
        """Families that occur, in the order of their best finished trial, then by name."""
        best: dict[str, float] = {}
        for trial in self.trials:
            if trial.family:
                value = trial.value if trial.value is not None else math.inf
                best[trial.family] = min(best.get(trial.family, math.inf), value)
        return sorted(best, key=lambda family: (best[family], family))


def load(study: optuna.Study) -> StudyTable:
    """Read a study once.

    Args:
        study: The study, in any storage of Optuna.

    Returns:
        Its trials and history. Where no history is kept (an in-memory study), the intermediate
        values stand in for it, as ``val_loss``. Of a study that ``lrsearch run`` made, trials that
        another program added without a schedule are left out.

    Raises:
        UsageError: The study maximises, or has several objectives.
    """
    from lrsearch.report import read_study

    check_direction(study)
    return read_study.read(study)


def load_confirmation(study: optuna.Study) -> tuple[StudyTable | None, Mapping[str, Any]]:
    """The study ``NAME-confirm`` of a search, and what is planned in it; (None, {}) for none."""
    again = confirmation_study(study)
    return (None, {}) if again is None else (load(again), again.user_attrs[CONFIRM_ATTR])


@dataclass(frozen=True)
class Answer:
    """The answer of a study.

    Attributes:
        best: The best complete trial.
        baselines: The strongest first; those that did not finish last.
        close: Complete trials that are no baseline, other than the best, within 2% of its loss;
            none where that is not above 0.
        robust: What :func:`lrsearch.report.robust.robust` found, where it was asked.
    """

    best: TrialRow
    baselines: tuple[TrialRow, ...]
    close: tuple[TrialRow, ...]
    robust: Robust | None = None

    @property
    def chosen(self) -> TrialRow:
        """The trial to train with: what runs on fresh seeds chose, or the best of the search."""
        found = self.robust
        return found.trial if found is not None and found.decided else self.best

    @property
    def strongest(self) -> TrialRow | None:
        """The baseline with the lowest loss, if any finished."""
        return next((t for t in self.baselines if t.value is not None), None)


def answer(table: StudyTable, robust: Robust | None = None) -> Answer | None:
    """The best schedule, and the baselines beside it; None before a trial is complete.

    Args:
        table: The study.
        robust: What :func:`lrsearch.report.robust.robust` found, where it was asked.
    """
    best = table.best
    if best is None or best.value is None:
        return None
    baselines = [t for t in table.trials if t.baseline is not None]
    baselines.sort(key=lambda t: (t.value is None, t.value or 0.0))
    limit = best.value * (1 + CLOSE) if best.value > 0 else -math.inf
    near = [
        t for t in table.complete if t is not best and not t.baseline and (t.value or 0) <= limit
    ]
    return Answer(best, tuple(baselines), tuple(near), robust)


def best_of_each_family(table: StudyTable) -> list[TrialRow]:
    """The best complete trial of each family, best first."""
    seen: dict[str, TrialRow] = {}
    for trial in table.complete:
        seen.setdefault(trial.family, trial)
    return list(seen.values())


@dataclass(frozen=True, slots=True)
class FamilyRow:
    """How one family did: its best trial and how its trials ended."""

    family: str
    best: TrialRow | None
    median: float | None
    complete: int
    pruned: int
    diverged: int
    failed: int

    @property
    def trials(self) -> int:
        """Trials that ended."""
        return self.complete + self.pruned + self.diverged + self.failed


def families_table(table: StudyTable) -> list[FamilyRow]:
    """One row per family, in the order of its best trial; those without one last."""
    found = []
    for family in table.families:
        mine = [t for t in table.trials if t.family == family]
        ended = {s: [t for t in mine if t.status == s] for s in ENDED}
        finals = [t.value for t in ended["complete"] if t.value is not None]
        best = min(ended["complete"], key=lambda t: t.value or 0.0, default=None)
        median = float(np.median(finals)) if finals else None
        counts = [len(ended[s]) for s in ENDED]
        found.append(FamilyRow(family, best, median, *counts))
    return found


@dataclass(frozen=True)
class PruningTable:
    """Where trials were stopped, and what that saved.

    Attributes:
        stops: Status (pruned, diverged) -> family -> epochs at which its trials stopped.
        epochs_run: Epochs of all finished trials together.
        epochs_full: What they would have taken without stopping any.
    """

    budget: int
    stops: Mapping[str, Mapping[str, Sequence[int]]]
    epochs_run: int
    epochs_full: int
    counts: Mapping[str, int]

    @property
    def finished(self) -> int:
        """Trials that ended, other than by failing."""
        return sum(self.counts[status] for status in FINISHED)

    @property
    def saved(self) -> float:
        """Part of the full cost that was not spent, 0 to 1; 0 where no trial is complete."""
        full = self.epochs_full if self.counts["complete"] else 0
        return 1 - self.epochs_run / full if full else 0.0


def pruning(table: StudyTable) -> PruningTable:
    """Who was stopped where, and how many epochs that saved."""
    done = table.finished
    stops: dict[str, dict[str, list[int]]] = {"pruned": {}, "diverged": {}}
    for trial in done:
        if trial.status in stops:
            stops[trial.status].setdefault(trial.family, []).append(trial.epochs)
    return PruningTable(
        budget=table.budget,
        stops=stops,
        epochs_run=sum(t.epochs for t in done),
        epochs_full=sum(t.budget or table.budget for t in done),
        counts={status: len(table.having(status)) for status in (*ENDED, "running", "waiting")},
    )


def rounded(value: float | None, digits: int) -> float | None:
    """With so many significant digits, for a file; NaN and infinities as None."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def finite(values: Iterable[float]) -> list[float | None]:
    """NaN and infinities as None, which plotly leaves out."""
    return [float(v) if math.isfinite(v) else None for v in values]
