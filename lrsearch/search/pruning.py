"""The pruner: it knows the rest of each schedule, and predicts the final loss.

A schedule that still holds a high rate looks bad in mid-run and may win at the end. So a trial is
not compared with the losses of others at the same epoch, but by its predicted final loss
(:mod:`lrsearch.prediction.judge`). From that follows the chance that it beats the best finished
trial. It is stopped where this chance is small against the one that the best trial itself would
have been given at the same epoch. A trial whose averaged loss is among the lowest of all so far
is stopped only where the chance is ten times smaller still.
"""

from __future__ import annotations

import functools
import math
import warnings
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from lrsearch.attributes import budget_of
from lrsearch.errors import UsageError
from lrsearch.optuna_helpers import check_direction
from lrsearch.prediction.curves import (
    DECIDING,
    CurveReader,
    Curves,
    TrialCurve,
    by_end,
    load_curves,
    same,
    stack,
)
from lrsearch.prediction.judge import STARTUP, Judge, Memory

SHARE: Final = 0.3
"""Share of the best's own chance below which a trial is stopped, by default."""

LEADING: Final = 0.1
"""Part of this share that is enough for a trial whose averaged loss is among the best."""

HOPELESS: Final = (1 / 3, 1 / 2)
"""Shares of the budget after which one may be stopped while the predictors know too little: a
trial of which a loss has risen, and any."""


@functools.cache
def rungs(epochs: int) -> tuple[int, ...]:
    """Epochs after which a trial is judged: from E/30 in steps of 30%.

    Example:
        >>> rungs(30)
        (1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 22)
    """
    at = max(1, epochs // 30)
    out = []
    while at <= 0.9 * epochs and at < epochs:
        out.append(at)
        at = max(at + max(1, epochs // 30), round(1.3 * at))
    return tuple(out)


def hopeless(running: Curves, epoch: int, others: Curves) -> NDArray[np.bool_]:
    """Before anything is known: whether both losses are worse than half of the others', (m,).

    Asked only where at least three others came so far. While neither of its losses has been lower
    before, a trial is spared until half of the budget: what learns slowly may end well.
    """
    there, at = others.reached >= epoch, epoch - 1
    some, every = (epoch >= share * running.epochs for share in HOPELESS)
    if not some or there.sum() < 3:
        return np.zeros(len(running), dtype=bool)
    bars = (np.sort(losses[there, at]) for losses in (others.raw, others.avg))
    raw, avg = (bar[math.ceil((len(bar) - 1) / 2)] for bar in bars)
    worse = (running.raw[:, at] > raw) & (running.avg[:, at] > avg)
    if every:
        return np.asarray(worse)
    risen = [
        losses[:, at] > np.fmin.reduce(losses[:, :at], axis=1, initial=np.inf)
        for losses in (running.raw, running.avg)
    ]
    return np.asarray(worse & (risen[0] | risen[1]))


def stops(
    running: Curves, epoch: int, others: Curves, judge: Judge, share: float
) -> NDArray[np.bool_]:
    """Which of the running trials are to be stopped after ``epoch``, (m,).

    Args:
        running: The trials.
        epoch: Epochs they have run, one at which trials are judged.
        others: All others that have begun, in any state.
        judge: Of those that run no more.
        share: Of the chance that the best finished trial's curve would be given, below which one
            is stopped; a leader below :data:`LEADING` of it.
    """
    if judge.finished < STARTUP:
        return hopeless(running, epoch, others)
    bars = np.where(judge.leads(running, epoch), share * LEADING, share)
    return np.asarray(judge.chance(running, epoch) < bars * judge.chance_of_best(epoch))


@dataclass
class _Look:
    """What a study showed at one look, which serves for all decisions of a lock-step epoch.

    Attributes:
        key: Name of the study, and the budget.
        trials: All its trials.
        judge: Of those that run no more.
        due: The others that are to be judged now, by number.
        stopped: Epoch -> whether each of those that stand there is to be stopped.
    """

    key: tuple[str, int]
    trials: list[FrozenTrial]
    judge: Judge
    due: dict[int, TrialCurve]
    stopped: dict[int, dict[int, bool]] = field(default_factory=dict)


class SchedulePruner(optuna.pruners.BasePruner):
    """Stops a trial whose known schedule and losses so far say that it will not be the best.

    Every decision follows from the database alone, so any number of workers agree; what is kept in
    memory are only the curves of finished trials. It learns from trials of the same budget. Trials
    need ``user_attrs["schedule"]`` (:meth:`Schedule.to_dict`) and, where they are not in our own
    storage, may have ``user_attrs["avg_val_losses"]``: the validation losses of the running
    average of the weights.
    Report each epoch's validation loss with ``trial.report(loss, step=epochs_finished)``. A trial
    without a schedule is never stopped, and a warning says so.

    Args:
        share: A trial is stopped when its chance of beating the best finished trial is below this
            share of the chance that the best's own curve would have been given at the same epoch,
            and below a tenth of it where its averaged loss is among the best; in (0, 1), smaller
            is safer and dearer.

    Raises:
        UsageError: If ``share`` is not in (0, 1). At a decision: if the study maximises, or a step
            is beyond the schedule's epochs.

    Example:
        >>> study = optuna.create_study(pruner=SchedulePruner())
    """

    def __init__(self, share: float = SHARE) -> None:
        if not 0.0 < share < 1.0:
            raise UsageError(f"share must be above 0 and below 1, got {share}")
        self._share = share
        self._reader = CurveReader()
        self._seen: _Look | None = None
        self._judge: tuple[tuple[Any, ...], Judge] | None = None
        self._memory: dict[str, Memory] = {}

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to stop ``trial`` after its latest report."""
        epoch, epochs = trial.last_step, budget_of(trial)
        if epoch is None:
            return False
        if epochs is None:
            warnings.warn(
                "SchedulePruner stops no trial without a schedule: ask for it by "
                "lrsearch.suggest(trial, epochs=...)",
                stacklevel=2,
            )
            return False
        if epoch > epochs:
            raise UsageError(
                f"step {epoch} was reported of a schedule of {epochs} epochs: report once an "
                "epoch, with the epochs finished, or give suggest(trial, epochs=...) the number "
                "of reports"
            )
        if not is_due(trial, epochs):
            return False
        with DECIDING:
            return self._decide(study, trial, epoch, epochs)

    def _decide(self, study: optuna.Study, trial: FrozenTrial, epoch: int, epochs: int) -> bool:
        look = self._look(study, epochs)
        row = self._reader.rows(study, [trial]).get(trial.number)
        if row is None:
            return False
        if look.judge.finished < STARTUP:
            begun = [t for t in look.trials if t.number != trial.number and t.intermediate_values]
            others = load_curves(study, begun, self._reader, epochs)
            return bool(stops(stack([row]), epoch, others, look.judge, self._share)[0])
        if row is not look.due.get(trial.number) or row.reached != epoch:
            own = stack([row])  # it has told more since the look
            return bool(stops(own, epoch, own, look.judge, self._share)[0])
        if epoch not in look.stopped:  # those of an epoch together: it takes hardly longer
            there = {n: each for n, each in look.due.items() if each.reached == epoch}
            curves = stack([*there.values()])
            found = stops(curves, epoch, curves, look.judge, self._share).tolist()
            look.stopped[epoch] = dict(zip(there, found, strict=True))
        return look.stopped[epoch][trial.number]

    def _look(self, study: optuna.Study, epochs: int) -> _Look:
        """What the study shows now: one look for the decisions of an epoch."""
        key, seen = (study.study_name, epochs), self._seen
        trials = study.get_trials(deepcopy=False)
        if seen is None or seen.key != key or not same(seen.trials, trials):
            check_direction(study)
            settled = [t for t in trials if t.state.is_finished()]
            judge = self._judge_of(study, settled, epochs)
            running = [t for t in trials if not t.state.is_finished() and is_due(t, epochs)]
            rows = self._reader.rows(study, running)
            due = {n: row for n, row in rows.items() if len(row.lr) == epochs}
            self._seen = seen = _Look(key, trials, judge, due)
        return seen

    def learnt(self, study: optuna.Study) -> tuple[CurveReader, Memory]:
        """What was read and learnt of a study: a sampler that shares it need not do so again."""
        return self._reader, self._memory.setdefault(study.study_name, Memory())

    def _judge_of(self, study: optuna.Study, settled: list[FrozenTrial], epochs: int) -> Judge:
        begun = settled[0].datetime_start if settled else None  # another study of the same name
        key = (study.study_name, epochs, begun, *(t.number for t in settled))
        if self._judge is None or self._judge[0] != key:
            reader, memory = self.learnt(study)
            curves = load_curves(study, by_end(settled), reader, epochs)
            self._judge = key, Judge(curves, memory)
        return self._judge[1]


def is_due(trial: FrozenTrial, epochs: int) -> bool:
    """Whether the latest report is the first since a rung was passed."""
    before, last = [0, 0, *sorted(trial.intermediate_values)][-2:]
    return any(before < rung <= last < epochs for rung in rungs(epochs))
