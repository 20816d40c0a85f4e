"""Replay any sampler over recorded schedules, without training.

    python -m tests.benchmarks.pool digits.npz fashion.npz --orders 15
    python -m tests.benchmarks.pool sqlite:///lrsearch.db --study digits --samplers trace tpe

The record is the pool: each schedule in it can be chosen once and comes to its recorded final
loss. ``trace`` chooses the one that promises most, by what ``TraceSampler`` goes by. The others
know names, not curves: they propose any schedule, and the nearest curve of the pool is taken.
Prints the regret (how much worse the best so far is than the best of the pool) after some trials.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import optuna
from numpy.typing import NDArray

from lrsearch.prediction.curves import lr_per_epoch
from lrsearch.prediction.surrogate import Array, trace_features
from lrsearch.schedules import Space
from lrsearch.search.methods import SAMPLERS, make_sampler
from lrsearch.search.sampling import LEAST_KNOWN, promise
from tests.benchmarks.recorded import DIVERGED_LOSS, Record, read

Index = NDArray[np.int64]
Choose = Callable[[Index, Index, Index], int]  # (ended, running, not yet chosen) -> the next one
CHECKS = (20, 30, 40, 80)
"""Trials after which the best is looked at."""


def by_promise(record: Record, seed: int) -> Choose:
    """The sampler's own surrogate, over the pool."""
    rng, learnt = np.random.default_rng(seed), dict[bytes, Array]()
    final = record.raw[:, -1]
    final = np.log(final) if (final > 0).all() else final

    def choose(ended: Index, running: Index, left: Index) -> int:
        if len(ended) < LEAST_KNOWN or not np.isfinite(final[ended]).any():
            return int(rng.choice(left))
        target = np.concatenate([final[ended], np.full(len(running), np.nan)])
        seen = record.features[np.concatenate([ended, running])]
        exact = np.zeros(len(target))
        gain = promise(seen, target, exact, record.features[left], learnt)
        return int(left[np.argmax(gain)])

    return choose


def by_name(name: str) -> Callable[[Record, int], Choose]:
    """A sampler of ``--sampler`` that proposes, and is told what the nearest curve came to."""

    def begin(record: Record, seed: int) -> Choose:
        peaks = record.lr.max(axis=1)
        space = Space(None, record.lr.shape[1], (float(peaks.min()), float(peaks.max())))
        study = optuna.create_study(sampler=make_sampler(name, seed, 0))
        asked: dict[int, optuna.Trial] = {}
        scale = np.maximum(record.features.std(axis=0), 1e-9)

        def choose(ended: Index, running: Index, left: Index) -> int:
            for i in [i for i in ended.tolist() if i in asked]:
                study.tell(asked.pop(i), min(float(record.raw[i, -1]), DIVERGED_LOSS))
            trial = study.ask()
            wanted = trace_features(lr_per_epoch(space.suggest(trial)))
            far = (((record.features[left] - wanted) / scale) ** 2).sum(axis=1)
            nearest = int(left[np.argmin(far)])
            asked[nearest] = trial
            return nearest

        return choose

    return begin


def regrets(
    record: Record, begin: Callable[[Record, int], Choose], trials: int, workers: int, seed: int
) -> Array:
    """Regret after each of ``trials`` trials, ``workers`` of them in flight, (trials,)."""
    choose = begin(record, seed)
    left, running, ended = list(range(len(record.lr))), list[int](), list[int]()
    while len(ended) < trials:
        while left and len(running) < workers and len(running) + len(ended) < trials:
            parts = (np.array(part, dtype=np.int64) for part in (ended, running, left))
            running.append(choose(*parts))
            left.remove(running[-1])
        ended.append(running.pop(0))
    final = record.raw[:, -1]
    best = final.min()
    return np.asarray((np.minimum.accumulate(final[ended]) - best) / abs(best))


def main(argv: Sequence[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.pool", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("sources", nargs="+", metavar="FILE")
    parser.add_argument("--study", help="name, if FILE is the URL of a database")
    known = list(SAMPLERS)
    parser.add_argument("--samplers", nargs="*", default=("trace", "random", "tpe"), choices=known)
    parser.add_argument("--orders", type=int, default=15)
    parser.add_argument("--workers", type=int, default=4)
    args = parser.parse_args(argv)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for record in [read(source, args.study) for source in args.sources]:
        checks = [check for check in CHECKS if check <= len(record.lr)] or [len(record.lr)]
        heads = "".join(f"{f'after {check}':>17}" for check in checks)
        print(f"{record.name}, {len(record.lr)} schedules{'':9}regret{heads}")
        for name in args.samplers:
            begin = by_promise if name == "trace" else by_name(name)
            each = [
                regrets(record, begin, checks[-1], args.workers, seed)[np.array(checks) - 1]
                for seed in range(args.orders)
            ]
            error = np.std(each, axis=0, ddof=1 if len(each) > 1 else 0) / np.sqrt(len(each))
            cells = zip(np.mean(each, axis=0), error, strict=True)
            row = "".join(f"{f'{mean:.2%} ± {se:.2%}':>17}" for mean, se in cells)
            print(f"{name:41}{row}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
