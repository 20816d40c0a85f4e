"""The pruner that knows the rest of the schedule, and learns from the study whom to trust.

A schedule that still holds a high rate looks bad in mid-run and may win at the end. So a trial is
not compared with the losses of others now, but by what its final loss will be. Several predictors
say so, each a Gaussian process on the trace features (:mod:`lrsearch.search.surrogate`): from the
trace alone, from the trace and the averaged loss so far, and of how far the final loss will be
from the averaged loss now. How well each would have foretold every finished trial of this study
from the others is its weight. A trial is stopped when the chance that it beats the best finished
trial is small, unless its averaged loss leads those of all that came so far.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial
from scipy.special import stdtr

from lrsearch.errors import UsageError
from lrsearch.search.curves import (
    COMPLETE,
    DIVERGED,
    STOPPED,
    Curves,
    Reader,
    by_end,
    load_curves,
)
from lrsearch.search.surrogate import Array, GaussianProcess, fit

CHANCE: Final = 0.06
"""Chance of being the best below which a trial is stopped, by default."""
LEADERS: Final = 0.2
"""Share of the trials, the best by averaged loss at the same epoch, that are not stopped."""
STARTUP: Final = 4
"""Finished trials before the predictors are asked."""
LARGEST_FIT: Final = 150
"""Finished trials that the predictors know, at most: the best and some of the others."""
LEARNT: Final = 60
"""Of these, those that their hyperparameters are learnt from, at most."""

_Inputs = Callable[[Array, Array], tuple[Array, Array]]


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


def _nothing(raw: Array, avg: Array) -> tuple[Array, Array]:
    return np.zeros((len(raw), 0)), np.zeros(len(raw))


def _averaged(raw: Array, avg: Array) -> tuple[Array, Array]:
    return avg[:, None], np.zeros(len(raw))


def _from_averaged(raw: Array, avg: Array) -> tuple[Array, Array]:
    return np.zeros((len(raw), 0)), avg


PREDICTORS: Final[dict[str, _Inputs]] = {
    "trace": _nothing,
    "trace and averaged loss": _averaged,
    "what is left from the averaged loss": _from_averaged,
}
"""Name -> (losses that are inputs, offset of the target), from the losses at a rung."""


@dataclass(frozen=True)
class Rung:
    """The predictors of the final loss at one epoch, fitted, with their weights."""

    caps: tuple[float, float, float]  # of raw, averaged and final loss
    processes: tuple[GaussianProcess, ...]
    weights: Array  # (predictors,)
    freedom: float  # degrees of freedom of the predictive t distribution
    thetas: Sequence[Array] = ()  # hyperparameters to keep, one for each predictor

    def predict(self, features: Array, raw: Array, avg: Array) -> tuple[Array, Array]:
        """Means and sds of the final (log) loss by each predictor: two of (predictors, m)."""
        raw, avg = np.minimum(raw, self.caps[0]), np.minimum(avg, self.caps[1])
        means, sds = [], []
        for inputs, process in zip(PREDICTORS.values(), self.processes, strict=True):
            linear, offset = inputs(raw, avg)
            mean, sd = process.predict(np.concatenate([features, linear], axis=1), linear)
            means.append(mean + offset)
            sds.append(sd)
        return np.array(means), np.array(sds)

    def moments(self, features: Array, raw: Array, avg: Array) -> tuple[Array, Array]:
        """Mean and sd of the weighted mixture: two of (m,)."""
        means, sds = self.predict(features, raw, avg)
        mean = self.weights @ means
        return mean, np.sqrt(np.maximum(self.weights @ (sds**2 + means**2) - mean**2, 0.0))

    def chance(self, features: Array, raw: Array, avg: Array, best: float) -> Array:
        """Chance that the final loss is below ``best``, (m,)."""
        means, sds = self.predict(features, raw, avg)
        return np.asarray(self.weights @ stdtr(self.freedom, (best - means) / sds))


@dataclass
class Memory:
    """What judges of one study have learnt, for the next: all of it follows from the trials.

    Attributes:
        ended: Final values of the ended trials that ``rungs`` and ``beliefs`` are from.
        rungs: Predictors from ended trials alone, by epoch.
        beliefs: Predicted final value and its variance, by features and epoch of a stopped trial.
        thetas: Hyperparameters, by what they were learnt from.
    """

    ended: bytes = b""
    rungs: dict[int, Rung] = field(default_factory=dict)
    beliefs: dict[tuple[bytes, int], tuple[float, float]] = field(default_factory=dict)
    thetas: dict[tuple[bytes, int], list[Array]] = field(default_factory=dict)


class Judge:
    """What the finished and stopped trials of a study say of the others.

    Args:
        settled: Trials that run no more.
        memory: What judges of the same study have learnt before; this one adds to it.
    """

    def __init__(self, settled: Curves, memory: Memory | None = None) -> None:
        positive = bool(np.nanmin(settled.raw, initial=np.inf) > 0)
        positive &= bool(np.nanmin(settled.avg, initial=np.inf) > 0)
        self._log = positive
        self._settled = settled
        self._raw, self._avg = self.scaled(settled.raw), self.scaled(settled.avg)
        ended = np.isin(settled.state, (COMPLETE, DIVERGED)) & (settled.reached > 0)
        self._ended = np.flatnonzero(ended)
        self._stopped = np.flatnonzero((settled.state == STOPPED) & (settled.reached > 0))
        self._final = np.where(settled.state == COMPLETE, self._raw[:, -1:].sum(axis=1), np.inf)
        self.finished = int((settled.state == COMPLETE).sum())
        self.best = float(self._final.min(initial=np.inf))
        self._known = self._ended[spread(self._final[self._ended], LARGEST_FIT)]
        self._memory = Memory() if memory is None else memory
        if self._memory.ended != (ended_now := self._final[self._ended].tobytes()):
            self._memory.ended = ended_now
            self._memory.rungs, self._memory.beliefs = {}, {}
        self._believed: tuple[Array, Array] | None = None
        self._rungs: dict[int, Rung] = {}

    def scaled(self, losses: Array) -> Array:
        """Log of losses that are all positive; what is not finite after divergence is +inf."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.log(losses) if self._log else losses, dtype=np.float64)

    def chance(self, running: Curves, epoch: int) -> Array:
        """Chance that each running trial will beat the best finished one, (m,)."""
        raw, avg = self.scaled(running.raw[:, epoch - 1]), self.scaled(running.avg[:, epoch - 1])
        return self.rung(epoch).chance(running.features, raw, avg, self.best)

    def leads(self, running: Curves, epoch: int) -> NDArray[np.bool_]:
        """Whether each running trial has an averaged loss among the best of all that came here.

        What no predictor foretells is luck, and luck shows in the losses first.
        """
        there = self._avg[self._settled.reached >= epoch, epoch - 1]
        own = self.scaled(running.avg[:, epoch - 1])
        better = (there[None, :] < own[:, None]).sum(axis=1)
        return np.asarray(better < LEADERS * (len(there) + 1))

    def rung(self, epoch: int) -> Rung:
        """The predictors at an epoch, with stopped trials that came further at predicted value."""
        if epoch not in self._rungs:
            rung = self._alone(epoch)
            further = self._stopped[self._settled.reached[self._stopped] > epoch]
            if len(further):
                mean, variance = self.beliefs()
                further = further[spread(mean[further], LARGEST_FIT)]
                rows = np.concatenate([self._known, further])
                rung = self._fitted(epoch, rung, rows, mean, variance)
            self._rungs[epoch] = rung
        return self._rungs[epoch]

    def beliefs(self) -> tuple[Array, Array]:
        """Final values of all settled trials and their variance: stopped ones are predicted."""
        if self._believed is None:
            settled, kept = self._settled, self._memory.beliefs
            mean, variance = self._final.copy(), np.zeros(len(self._final))
            keys = {
                i: (settled.features[i].tobytes(), int(settled.reached[i])) for i in self._stopped
            }
            new = np.array([i for i, key in keys.items() if key not in kept], dtype=np.int64)
            for epoch in np.unique(settled.reached[new]):
                rows = new[settled.reached[new] == epoch]
                moments = self._alone(int(epoch)).moments(
                    settled.features[rows], *self._losses(int(epoch), rows)
                )
                for i, m, s in zip(rows, *moments, strict=True):
                    kept[keys[i]] = float(m), float(s) ** 2
            for i, key in keys.items():
                mean[i], variance[i] = kept[key]
            self._believed = mean, variance
        return self._believed

    def _losses(self, epoch: int, rows: NDArray[np.int64]) -> tuple[Array, Array]:
        """Raw and averaged at an epoch, or at the last of a trial that diverged before."""
        column = np.minimum(epoch, self._settled.reached[rows]) - 1
        return self._raw[rows, column], self._avg[rows, column]

    def _alone(self, epoch: int) -> Rung:
        """The predictors from ended trials only; they are kept until another trial ends."""
        if epoch not in self._memory.rungs:
            known = self._known
            raw, avg = self._losses(epoch, known)
            caps = cap(raw), cap(avg), cap(self._final[known])
            rung = Rung(caps, (), np.zeros(0), max(3.0, len(known) - 2.0))
            rung = replace(rung, thetas=self._learnt(epoch, rung))
            rung = self._fitted(epoch, rung, known, self._final)
            record = []
            for process in rung.processes:
                error, sd = process.leave_one_out()
                record.append(-float((0.5 * (error / sd) ** 2 + np.log(sd)).sum()))
            weights = np.exp(np.array(record) - max(record))
            self._memory.rungs[epoch] = replace(rung, weights=weights / weights.sum())
        return self._memory.rungs[epoch]

    def _learnt(self, epoch: int, rung: Rung) -> list[Array]:
        """Hyperparameters of each predictor; those of the trace alone serve every epoch.

        They are learnt from a set of ended trials that changes ever more rarely.
        """
        n = len(self._ended)
        step = max(1, n // 8)
        rows = self._ended[: n // step * step]
        rows = rows[spread(self._final[rows], LEARNT)]
        values, thetas = self._final[rows].tobytes(), self._memory.thetas
        if (values, epoch) not in thetas:
            out = thetas.get((values, 0), [])[:]
            for x, y, linear in self._inputs(epoch, rung, rows, self._final)[len(out) :]:
                start = out[0] if out else None
                out.append(fit(x, y, linear=linear, start=start, steps=10 if out else 30).theta)
            thetas[values, 0], thetas[values, epoch] = out[:1], out
        return thetas[values, epoch]

    def _fitted(
        self,
        epoch: int,
        rung: Rung,
        rows: NDArray[np.int64],
        final: Array,
        variance: Array | None = None,
    ) -> Rung:
        """A rung with its processes fitted to some trials."""
        extra = None if variance is None else variance[rows]
        inputs = self._inputs(epoch, rung, rows, final)
        processes = tuple(
            fit(x, y, linear=linear, variance=extra, theta=theta)
            for (x, y, linear), theta in zip(inputs, rung.thetas, strict=True)
        )
        return replace(rung, processes=processes)

    def _inputs(
        self, epoch: int, rung: Rung, rows: NDArray[np.int64], final: Array
    ) -> list[tuple[Array, Array, Array]]:
        """(features, target, losses with a linear effect) for each predictor."""
        raw, avg = self._losses(epoch, rows)
        raw, avg = np.minimum(raw, rung.caps[0]), np.minimum(avg, rung.caps[1])
        y, features = np.minimum(final[rows], rung.caps[2]), self._settled.features[rows]
        parts = [inputs(raw, avg) for inputs in PREDICTORS.values()]
        return [
            (np.concatenate([features, linear], axis=1), y - offset, linear)
            for linear, offset in parts
        ]


def cap(values: Array) -> float:
    """Losses above it say only "bad": the median plus twice its distance from the best."""
    middle = float(np.median(values))
    if not np.isfinite(middle):
        middle = float(np.max(values[np.isfinite(values)], initial=0.0))
    return middle + 2.0 * (middle - float(values.min())) + 1e-6


def spread(y: Array, most: int) -> NDArray[np.int64]:
    """Indices of at most ``most`` values: the best two thirds of them, and every so many-th."""
    order = np.argsort(y, kind="stable")
    if len(order) <= most:
        return order
    best = 2 * most // 3
    rest = order[best:]
    return np.concatenate([order[:best], rest[:: -(-len(rest) // (most - best))]])


def hopeless(running: Curves, epoch: int, others: Curves) -> Array:
    """Before anything is known: whether both losses are worse than half of the others', (m,).

    Asked only after 10% of the budget, and with at least three others that came so far.
    """
    there = others.reached >= epoch
    if epoch < 0.1 * running.epochs or there.sum() < 3:
        return np.zeros(len(running), dtype=bool)
    at = epoch - 1
    bars = (np.sort(losses[there, at]) for losses in (others.raw, others.avg))
    raw, avg = (bar[math.ceil((len(bar) - 1) / 2)] for bar in bars)
    return np.asarray((running.raw[:, at] > raw) & (running.avg[:, at] > avg))


def stops(running: Curves, epoch: int, others: Curves, judge: Judge, chance: float) -> bool:
    """Whether one trial (the only row of ``running``) is to be stopped after ``epoch``.

    Args:
        running: The trial.
        epoch: Epochs it has run, one at which trials are judged.
        others: All others that have begun, in any state.
        judge: Of those that run no more.
        chance: Of beating the best finished trial, below which it is stopped.
    """
    if judge.finished < STARTUP:
        return bool(hopeless(running, epoch, others)[0])
    return bool(judge.chance(running, epoch)[0] < chance and not judge.leads(running, epoch)[0])


class SchedulePruner(optuna.pruners.BasePruner):
    """Stops a trial whose known schedule and losses so far say that it will not be the best.

    Every decision follows from the database alone, so any number of workers agree; what is kept in
    memory are only the curves of finished trials. Trials need ``user_attrs["schedule"]``
    (:meth:`Schedule.to_dict`) and, where they are not in our own storage, may have
    ``user_attrs["avg_val_losses"]``: the validation losses of the running average of the weights.
    Report each epoch's validation loss with ``trial.report(loss, step=epochs_finished)``.

    Args:
        chance: Chance of beating the best finished trial below which a trial is stopped, in
            (0, 1); smaller is safer and dearer.

    Raises:
        UsageError: If ``chance`` is not in (0, 1).

    Example:
        >>> study = optuna.create_study(pruner=SchedulePruner())
    """

    def __init__(self, chance: float = CHANCE) -> None:
        if not 0.0 < chance < 1.0:
            raise UsageError(f"chance must be above 0 and below 1, got {chance}")
        self._chance = chance
        self._reader = Reader()
        self._seen: tuple[str, list[FrozenTrial], Judge] | None = None
        self._judge: tuple[tuple[str, tuple[int, ...]], Judge] | None = None
        self._memory: dict[str, Memory] = {}

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to stop ``trial`` after its latest report."""
        epoch, schedule = trial.last_step, trial.user_attrs.get("schedule")
        if epoch is None or schedule is None or not is_due(trial, int(schedule["epochs"])):
            return False
        trials, judge = self._look(study)
        own = load_curves(study, [trial], self._reader)
        if judge.finished >= STARTUP:
            return stops(own, epoch, own, judge, self._chance)
        begun = [t for t in trials if t.number != trial.number and t.intermediate_values]
        others = load_curves(study, begun, self._reader)
        return stops(own, epoch, others, judge, self._chance)

    def _look(self, study: optuna.Study) -> tuple[list[FrozenTrial], Judge]:
        """All trials, and the judge of the settled: one look for the decisions of an epoch."""
        name, trials = study.study_name, study.get_trials(deepcopy=False)
        if self._seen is None or self._seen[0] != name or not _same(self._seen[1], trials):
            settled = [t for t in trials if t.state.is_finished()]
            judge = self._judge_of(study, settled)
            self._reader.rows(study, [t for t in trials if not t.state.is_finished()])
            self._seen = name, trials, judge
        return trials, self._seen[2]

    def learnt(self, study: optuna.Study) -> tuple[Reader, Memory]:
        """What was read and learnt of a study: a sampler that shares it need not do so again."""
        return self._reader, self._memory.setdefault(study.study_name, Memory())

    def _judge_of(self, study: optuna.Study, settled: list[FrozenTrial]) -> Judge:
        key = (study.study_name, tuple(t.number for t in settled))
        if self._judge is None or self._judge[0] != key:
            reader, memory = self.learnt(study)
            self._judge = key, Judge(load_curves(study, by_end(settled), reader), memory)
        return self._judge[1]


def _same(one: list[FrozenTrial], other: list[FrozenTrial]) -> bool:
    """Whether two lists hold the very same trials, as they were read."""
    return len(one) == len(other) and all(map(operator.is_, one, other))


def is_due(trial: FrozenTrial, epochs: int) -> bool:
    """Whether the latest report is the first since a rung was passed."""
    steps = sorted(trial.intermediate_values)
    before = steps[-2] if len(steps) > 1 else 0
    return any(before < rung <= steps[-1] < epochs for rung in rungs(epochs))
