"""What a study says of the final losses of its trials: its own finished trials weigh predictors.

A predictor's weight is how well it would have predicted every finished trial of the study from the
others (:mod:`lrsearch.prediction.predictors`). Pruner and sampler share what is learnt.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lrsearch.prediction.curves import COMPLETE, DIVERGED, STOPPED, Curves
from lrsearch.prediction.predictors import LEADERS, PREDICTORS, Rung
from lrsearch.prediction.surrogate import Array, cap, fit, spread

STARTUP: Final = 4
"""Finished trials before the predictors are asked."""
LARGEST_FIT: Final = 150
"""Finished trials that the predictors know, at most: the best and some of the others."""
LEARNT: Final = 60
"""Of these, those that their hyperparameters are learnt from, at most."""


@dataclass
class Memory:
    """What judges of one study have learnt, for the next: all of it follows from the trials.

    Attributes:
        ended: Final values of the ended trials that ``rungs`` and ``beliefs`` are from.
        rungs: Predictors from ended trials alone, by epoch.
        beliefs: Predicted final value, its variance, and where it stood (:meth:`Judge.stood`), by
            features, epoch, raw and averaged loss of a stopped trial.
        thetas: Hyperparameters, by what they were learnt from.
    """

    ended: bytes = b""
    rungs: dict[int, Rung] = field(default_factory=dict)
    beliefs: dict[tuple[bytes, int, float, float], tuple[float, ...]] = field(default_factory=dict)
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
        told = settled.reached > 0
        ended = told & ((settled.state == COMPLETE) | (settled.state == DIVERGED))
        self._ended = np.flatnonzero(ended)
        self._stopped = np.flatnonzero(told & (settled.state == STOPPED))
        self._final = np.where(settled.state == COMPLETE, self._raw[:, -1:].sum(axis=1), np.inf)
        self._complete = np.flatnonzero(told & (settled.state == COMPLETE))
        self.finished = len(self._complete)
        self.best = float(self._final.min(initial=np.inf))
        self._known = self._ended[spread(self._final[self._ended], LARGEST_FIT)]
        self._memory = Memory() if memory is None else memory
        if self._memory.ended != (ended_now := self._final[self._ended].tobytes()):
            self._memory.ended = ended_now
            self._memory.rungs, self._memory.beliefs = {}, {}
        self._believed: tuple[Array, Array, Array] | None = None
        self._rungs: dict[int, Rung] = {}
        self._of_best: dict[int, float] = {}

    def scaled(self, losses: Array) -> Array:
        """Log of losses that are all positive; what is not finite after divergence is +inf."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.log(losses) if self._log else losses, dtype=np.float64)

    def losses(self, scaled: Array) -> Array:
        """Losses, from what :meth:`scaled` makes of them."""
        return np.asarray(np.exp(scaled) if self._log else scaled)

    def chance(self, running: Curves, epoch: int) -> Array:
        """Chance that each running trial will beat the best finished one, (m,)."""
        avg = self.scaled(running.avg[:, epoch - 1])
        best = self.best - self.excess(running, epoch)
        return self.rung(epoch).chance(running.features, avg, best)

    def excess(self, running: Curves, epoch: int) -> Array:
        """By how much each running trial looks worse than any completed one ever did, (m,), >= 0.

        Predictors know only trials that were good enough to end. One whose losses both are above
        those of every completed trial, when that had come no further (by epochs and by the
        integral of the rate, so that a slow start is no fault), will end worse than they say.
        """
        progress = self._settled.lr[self._complete, :epoch].cumsum(axis=1)  # (c, epoch)
        own = running.lr[:, :epoch].sum(axis=1)[:, None, None]
        at = (progress <= own * (1 + 1e-9)).sum(axis=2) - 1  # (m, c)
        raw, avg = (
            self.scaled(now[:, epoch - 1])[:, None] - then[self._complete, at]
            for now, then in ((running.raw, self._raw), (running.avg, self._avg))
        )
        worse = np.where(at < 0, 0.0, np.fmin(raw, avg)).min(axis=1, initial=np.inf)
        return np.asarray(np.where(worse > 0.0, worse, 0.0))  # 0 for NaN, too

    def chance_of_best(self, epoch: int) -> float:
        """What chance the curve of the best finished trial would be given to be as good again.

        A search stops at a value that luck has helped to, which no curve promises. So this, not
        certainty, is what the chances of others are to be measured against.
        """
        if epoch not in self._of_best:
            rows = self._ended[[int(np.argmin(self._final[self._ended]))]]
            avg, features = self._averaged(epoch, rows), self._settled.features[rows]
            self._of_best[epoch] = float(self.rung(epoch).chance(features, avg, self.best)[0])
        return self._of_best[epoch]

    def leads(self, running: Curves, epoch: int) -> NDArray[np.bool_]:
        """Whether each running trial has an averaged loss among the best of all that came here.

        What no predictor foretells is luck, and luck shows in the losses first: how far to follow
        them is also decided by the record.
        """
        there = self._avg[self._settled.reached >= epoch, epoch - 1]
        own = self.scaled(running.avg[:, epoch - 1])
        better = (there[None, :] < own[:, None]).sum(axis=1)
        return np.asarray(better < self._alone(epoch).leaders * (len(there) + 1))

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
        """Final values of all settled trials and their variance: stopped ones are predicted.

        They are NaN while too few have told of their epochs.
        """
        return self._foretold()[:2]

    def worth(self) -> tuple[Array, Array]:
        """What each settled trial is taken to have come to, and the variance of that, (n,).

        The final loss of completed trials; the predicted one of stopped trials, no better than
        the best completed; +inf for diverged ones. A stopped trial that looked worse than any
        completed one ever did has, most likely, learnt nothing: it counts as one that ended where
        it stood. NaN for stopped ones while few are complete.
        """
        (mean, variance), stood = self.beliefs(), self.stood()
        worst = ~np.isnan(stood)
        value = np.maximum(np.where(worst, stood, mean), self.best)
        return value, np.where(worst, 0.0, variance)

    def stood(self) -> Array:
        """Losses of stopped trials that looked worse than any completed one, (n,); else NaN.

        Most of them have learnt nothing, and would end where they stood. The predictors know only
        trials that were good enough to end, and take these for hardly worse.
        """
        return self._foretold()[2]

    def _foretold(self) -> tuple[Array, Array, Array]:
        """Of each settled trial: the final value, its variance, and where it :meth:`stood`."""
        if self._believed is not None:
            return self._believed
        settled, kept, stopped = self._settled, self._memory.beliefs, self._stopped
        nothing = np.full(len(settled), np.nan)
        out = self._believed = self._final.copy(), np.zeros(len(settled)), nothing
        if self.finished < STARTUP:
            out[0][stopped] = np.nan
            return out
        at = settled.reached[stopped] - 1
        ends = zip(stopped, self._raw[stopped, at], self._avg[stopped, at], strict=True)
        keys = {
            i: (settled.features[i].tobytes(), int(settled.reached[i]), float(raw), float(avg))
            for i, raw, avg in ends
        }
        new = np.array([i for i, key in keys.items() if key not in kept], dtype=np.int64)
        for epoch in np.unique(settled.reached[new]).tolist():
            rows = new[settled.reached[new] == epoch]
            avg = self._averaged(epoch, rows)
            mean, sd = self._alone(epoch).moments(settled.features[rows], avg)
            mean = np.fmax(mean, self._floor(epoch, rows))
            worst = self.excess(settled.take(rows), epoch) > 0.0
            stood = np.where(worst, np.fmin(self._raw[rows, epoch - 1], avg), np.nan)
            found = np.array([mean, sd**2, stood]).T.tolist()
            kept.update({keys[i]: tuple(each) for i, each in zip(rows, found, strict=True)})
        for i, key in keys.items():
            out[0][i], out[1][i], out[2][i] = kept[key]
        return out

    def _floor(self, epoch: int, rows: NDArray[np.int64]) -> Array:
        """What the final losses of trials stopped after an epoch will hardly be below, (s,).

        The best that any completed trial came to which looked as bad at the same epoch, by the
        raw or the averaged loss. Where none did: the worst of them, and by how much it was worse.
        """
        final = self._final[self._complete]
        with np.errstate(invalid="ignore"):  # two averages that are not finite
            raw, avg = (
                losses[rows, epoch - 1][:, None] - losses[self._complete, epoch - 1]
                for losses in (self._raw, self._avg)
            )
        worse = np.fmin(raw, avg)  # (s, c): by how much it is worse in both
        alike = np.where(worse <= 0.0, final, np.inf).min(axis=1)
        beyond = final.max() + np.fmin.reduce(worse, axis=1)
        return np.asarray(np.where(np.isfinite(alike), alike, beyond))

    def _averaged(self, epoch: int, rows: NDArray[np.int64]) -> Array:
        """Averaged losses at an epoch, or at the last of a trial that diverged before."""
        column = np.minimum(epoch, self._settled.reached[rows]) - 1
        return np.asarray(self._avg[rows, column])

    def _alone(self, epoch: int) -> Rung:
        """The predictors from ended trials only; they are kept until another trial ends."""
        if epoch not in self._memory.rungs:
            known = self._known
            rung = Rung(self._caps(epoch, known), (), np.zeros(0), max(3.0, len(known) - 2.0))
            rung = replace(rung, thetas=self._learnt(epoch, rung))
            rung = self._fitted(epoch, rung, known, self._final)
            errors, sds = np.array([each.leave_one_out() for each in rung.processes]).swapaxes(
                0, 1
            )
            record = -(0.5 * (errors / sds) ** 2 + np.log(sds)).sum(axis=1)
            weights = np.exp(record - record.max())
            weights /= weights.sum()
            final, avg = np.minimum(self._final[known], rung.caps[1]), self._averaged(epoch, known)
            best = np.argsort(final, kind="stable")[: max(4, 2 * len(final) // 3)]
            foretold = agreement((final - weights @ errors)[best], final[best])
            follow = agreement(avg[best], final[best]) >= foretold
            self._memory.rungs[epoch] = replace(
                rung, weights=weights, leaders=LEADERS[1] if follow else LEADERS[0]
            )
        return self._memory.rungs[epoch]

    def _caps(self, epoch: int, rows: NDArray[np.int64]) -> tuple[float, float]:
        return cap(self._averaged(epoch, rows)), cap(self._final[rows])

    def _learnt(self, epoch: int, rung: Rung) -> list[Array]:
        """Hyperparameters of each predictor; those of the trace alone serve every epoch.

        They are learnt from a set of ended trials that changes ever more rarely, and follow from
        these alone, whenever they are first asked for.
        """
        n = len(self._ended)
        step = max(1, n // 8)
        rows = self._ended[: n // step * step]
        rows = rows[spread(self._final[rows], LEARNT)]
        values, thetas = self._final[rows].tobytes(), self._memory.thetas
        if (values, epoch) not in thetas:
            rung = replace(rung, caps=self._caps(epoch, rows))
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
        avg = np.minimum(self._averaged(epoch, rows), rung.caps[0])
        y, features = np.minimum(final[rows], rung.caps[1]), self._settled.features[rows]
        parts = [inputs(avg) for inputs in PREDICTORS.values()]
        return [
            (np.concatenate([features, linear], axis=1), y - offset, linear)
            for linear, offset in parts
        ]


def agreement(one: Array, other: Array) -> float:
    """Rank correlation (Spearman's) of two arrays of at least two values."""
    ranks = np.array([np.argsort(np.argsort(each, kind="stable")) for each in (one, other)])
    middle = ranks - ranks.mean()
    return float(middle[0] @ middle[1] / (middle[0] @ middle[0]))
