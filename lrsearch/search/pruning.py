"""The pruner: it knows the rest of each schedule, and predicts the final loss.

A schedule that still holds a high rate looks bad in mid-run and may win at the end. So a trial is
not compared with the losses of others at the same epoch, but by its predicted final loss
(:mod:`lrsearch.search.predictors`). From that follows the chance that it beats the best finished
trial. It is stopped where this chance is small against the one that the best trial itself would
have been given at the same epoch. A trial whose averaged loss is among the lowest of all so far
is stopped only where the chance is ten times smaller still.
"""

from __future__ import annotations

import functools
import math
import operator
import warnings
from typing import Any, Final

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from lrsearch.attributes import budget_of
from lrsearch.errors import UsageError
from lrsearch.objective import check_direction
from lrsearch.search.curves import DECIDING, CurveReader, Curves, by_end, load_curves
from lrsearch.search.predictors import STARTUP, Judge, Memory
from lrsearch.surrogate import Array

SHARE: Final = 0.3
"""Share of the best's own chance below which a trial is stopped, by default."""

LEADING: Final = 0.1
"""Part of this share that is enough for a trial whose averaged loss is among the best."""

HOPELESS: Final = 1 / 3
"""Share of the budget after which one may be stopped while the predictors know too little."""


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


def hopeless(running: Curves, epoch: int, others: Curves) -> Array:
    """Before anything is known: whether both losses are worse than half of the others', (m,).

    Asked only after a third of the budget, and with at least three others that came so far.
    """
    there = others.reached >= epoch
    if epoch < HOPELESS * running.epochs or there.sum() < 3:
        return np.zeros(len(running), dtype=bool)
    at = epoch - 1
    bars = (np.sort(losses[there, at]) for losses in (others.raw, others.avg))
    raw, avg = (bar[math.ceil((len(bar) - 1) / 2)] for bar in bars)
    return np.asarray((running.raw[:, at] > raw) & (running.avg[:, at] > avg))


def stops(running: Curves, epoch: int, others: Curves, judge: Judge, share: float) -> bool:
    """Whether one trial (the only row of ``running``) is to be stopped after ``epoch``.

    Args:
        running: The trial.
        epoch: Epochs it has run, one at which trials are judged.
        others: All others that have begun, in any state.
        judge: Of those that run no more.
        share: Of the chance that the best finished trial's curve would be given, below which it is
            stopped; a leader below :data:`LEADING` of it.
    """
    if judge.finished < STARTUP:
        return bool(hopeless(running, epoch, others)[0])
    if judge.leads(running, epoch)[0]:
        share *= LEADING
    return bool(judge.chance(running, epoch)[0] < share * judge.chance_of_best(epoch))


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
        self._seen: tuple[tuple[str, int], list[FrozenTrial], Judge] | None = None
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
        trials, judge = self._look(study, epochs)
        own = load_curves(study, [trial], self._reader)
        if not len(own):
            return False
        if judge.finished >= STARTUP:
            return stops(own, epoch, own, judge, self._share)
        begun = [t for t in trials if t.number != trial.number and t.intermediate_values]
        others = load_curves(study, begun, self._reader, epochs)
        return stops(own, epoch, others, judge, self._share)

    def _look(self, study: optuna.Study, epochs: int) -> tuple[list[FrozenTrial], Judge]:
        """All trials, and the judge of the settled: one look for the decisions of an epoch."""
        key, trials = (study.study_name, epochs), study.get_trials(deepcopy=False)
        if self._seen is None or self._seen[0] != key or not _same(self._seen[1], trials):
            check_direction(study)
            settled = [t for t in trials if t.state.is_finished()]
            judge = self._judge_of(study, settled, epochs)
            self._reader.rows(study, [t for t in trials if not t.state.is_finished()])
            self._seen = key, trials, judge
        return trials, self._seen[2]

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


def _same(one: list[FrozenTrial], other: list[FrozenTrial]) -> bool:
    """Whether two lists hold the very same trials, as they were read."""
    return len(one) == len(other) and all(map(operator.is_, one, other))


def is_due(trial: FrozenTrial, epochs: int) -> bool:
    """Whether the latest report is the first since a rung was passed."""
    steps = sorted(trial.intermediate_values)
    before = steps[-2] if len(steps) > 1 else 0
    return any(before < rung <= steps[-1] < epochs for rung in rungs(epochs))
