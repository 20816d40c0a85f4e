"""Replay recorded learning curves through any pruner, without training.

    python -m tests.benchmarks.replay digits.npz fashion.npz --orders 50 --workers 4
    python -m tests.benchmarks.replay sqlite:///lrsearch.db --study digits
    python -m tests.benchmarks.replay digits.npz fashion.npz --write studies/pruning

Prints, for each pruner: epochs used (share of full training), regret (how much worse the best
trial that ran to its end is than the best of all), and the share of the true best tenth stopped.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.pruners import HyperbandPruner, MedianPruner, PercentilePruner, SuccessiveHalvingPruner
from optuna.trial import TrialState

from lrsearch.errors import LrsearchError
from lrsearch.prediction.curves import COMPLETE, DIVERGED, RUNNING, STOPPED, Curves
from lrsearch.prediction.judge import Judge, Memory
from lrsearch.search import pruning
from lrsearch.tasks.modules import import_module
from tests.benchmarks import frontier
from tests.benchmarks.recorded import DIVERGED_LOSS, Record, read

Stop = Callable[[int, int], bool]  # (trial, epoch) -> stop it


@dataclass
class Course:
    """One replay: a random order of trials, and how far each has come."""

    record: Record
    order: NDArray[np.int64]
    reached: NDArray[np.int64]
    state: NDArray[np.int64]

    @classmethod
    def draw(cls, record: Record, trials: int, seed: int) -> Course:
        """``trials`` of the recorded ones in a random order."""
        n = min(trials, len(record.lr))
        order = np.random.default_rng(seed).permutation(len(record.lr))[:n]
        return cls(record, order, np.zeros(n, dtype=np.int64), np.full(n, RUNNING))

    def curves(self, rows: NDArray[np.int64]) -> Curves:
        """What is known of some trials (numbers in the order)."""
        which, reached = self.order[rows], self.reached[rows]
        known = np.arange(self.record.lr.shape[1]) < reached[:, None]
        return Curves(
            self.record.lr[which],
            np.where(known, self.record.raw[which], np.nan),
            np.where(known, self.record.avg[which], np.nan),
            reached,
            self.state[rows],
            self.record.features[which],
        )

    def run(self, stop: Stop, workers: int, told: Callable[[int, int], None]) -> None:
        """All trials, ``workers`` at a time in lock-step; ``told(trial, state)`` as they end."""
        epochs = self.record.lr.shape[1]
        waiting = iter(range(len(self.order)))
        active: list[int] = []
        while True:
            active += itertools.islice(waiting, workers - len(active))
            if not active:
                return
            for i in list(active):
                self.reached[i] += 1
                epoch = int(self.reached[i])
                state = RUNNING
                if not np.isfinite(self.record.raw[self.order[i], epoch - 1]):
                    state = DIVERGED
                elif epoch == epochs:
                    state = COMPLETE
                elif stop(i, epoch):
                    state = STOPPED
                if state != RUNNING:
                    self.state[i] = state
                    active.remove(i)
                    told(i, state)

    def score(self) -> tuple[float, float, float]:
        """(share of all epochs used, regret, share of the true best tenth stopped)."""
        final = self.record.raw[self.order, -1]
        done = self.state == COMPLETE
        best = final.min()
        regret = (final[done].min(initial=np.inf) - best) / abs(best)
        tenth = np.argsort(final)[: max(1, len(final) // 10)]
        used = self.reached.sum() / (len(final) * self.record.lr.shape[1])
        return float(used), float(regret), float((~done[tenth]).mean())


def replay_ours(course: Course, workers: int, share: float) -> None:
    """Our pruner, on the same pure functions that :class:`SchedulePruner` calls."""
    at = set(pruning.rungs(course.record.lr.shape[1]))
    judges: dict[int, Judge] = {}
    memory = Memory()

    def stop(i: int, epoch: int) -> bool:
        if epoch not in at:
            return False
        settled = np.flatnonzero(course.state != RUNNING)
        judge = judges.get(len(settled))
        if judge is None:
            judges.clear()
            judge = judges[len(settled)] = Judge(course.curves(settled), memory)
        begun = np.flatnonzero(course.reached > 0)
        early = judge.finished < pruning.STARTUP
        others = course.curves(begun[begun != i] if early else begun[:0])
        own = course.curves(np.array([i]))
        return bool(pruning.stops(own, epoch, others, judge, share)[0])

    course.run(stop, workers, lambda i, state: None)


def replay_informed(course: Course, workers: int, chance: float) -> None:
    """The same predictors, taught by all recorded trials that are not of this course.

    No pruner can know them: it shows what is lost by having to learn the task. Only the chance
    itself counts: there is no luck of others to measure it against, and nobody leads.
    """
    record, epochs = course.record, course.record.lr.shape[1]
    rest = np.setdiff1d(np.arange(len(record.lr)), course.order)
    if len(rest) < 10:
        raise SystemExit(f"informed needs 10 recorded trials beyond the replayed, has {len(rest)}")
    bad = ~np.isfinite(record.raw[rest])
    ended = np.where(bad.any(axis=1), bad.argmax(axis=1) + 1, epochs)
    state = np.where(bad.any(axis=1), DIVERGED, COMPLETE)
    others = Course(record, rest, ended, state)
    judge, at = Judge(others.curves(np.arange(len(rest)))), set(pruning.rungs(epochs))
    best = float("inf")

    def stop(i: int, epoch: int) -> bool:
        if epoch not in at or not np.isfinite(best):
            return False
        own = course.curves(np.array([i]))
        avg = judge.scaled(own.avg[:, epoch - 1])
        return bool(judge.rung(epoch).chance(own.features, avg, best)[0] < chance)

    def told(i: int, state: int) -> None:
        nonlocal best
        if state == COMPLETE:
            best = min(best, float(judge.scaled(record.raw[course.order[i], -1:])[0]))

    course.run(stop, workers, told)


def replay_optuna(
    course: Course, workers: int, pruner: optuna.pruners.BasePruner, signal: str, seed: int
) -> None:
    """One of Optuna's pruners, on a study in memory; ``signal`` is ``raw`` or ``averaged``."""
    study = optuna.create_study(study_name=f"replay-{seed}", pruner=pruner)
    storage, losses = study._storage, course.record.raw if signal == "raw" else course.record.avg
    ids: dict[int, int] = {}

    def stop(i: int, epoch: int) -> bool:
        if i not in ids:
            ids[i] = storage.create_new_trial(study._study_id)
        loss = float(losses[course.order[i], epoch - 1])
        storage.set_trial_intermediate_value(ids[i], epoch, loss)
        return pruner.prune(study, storage.get_trial(ids[i]))

    def told(i: int, state: int) -> None:
        epoch = int(course.reached[i])
        if i not in ids:  # it ended before it was asked about
            ids[i] = storage.create_new_trial(study._study_id)
        row = course.order[i]
        if state != STOPPED:
            value = min(float(losses[row, epoch - 1]), DIVERGED_LOSS)
            storage.set_trial_intermediate_value(ids[i], epoch, value)
        done = TrialState.COMPLETE if state == COMPLETE else TrialState.PRUNED
        value = min(float(course.record.raw[row, epoch - 1]), DIVERGED_LOSS)
        storage.set_trial_state_values(ids[i], done, [value])

    course.run(stop, workers, told)


def _optuna(make: Callable[[int], optuna.pruners.BasePruner]) -> Callable[..., None]:
    def run(course: Course, workers: int, signal: str, seed: int) -> None:
        replay_optuna(course, workers, make(course.record.lr.shape[1]), signal, seed)

    return run


def _percentile(name: str) -> Callable[[int], optuna.pruners.BasePruner]:
    share, startup, warmup = _numbers(name, (25.0, 5.0, 0.0))
    return lambda epochs: PercentilePruner(
        share, n_startup_trials=int(startup), n_warmup_steps=int(warmup)
    )


def _asha(name: str) -> Callable[[int], optuna.pruners.BasePruner]:
    least, factor, rate = (int(v) for v in _numbers(name, (1.0, 4.0, 0.0)))
    return lambda epochs: SuccessiveHalvingPruner(least, factor, rate)


def _numbers(name: str, default: tuple[float, ...]) -> tuple[float, ...]:
    """``asha:1,3`` -> (1, 3, *rest of the default)."""
    given = [float(v) for v in re.findall(r"[\d.]+", name.partition(":")[2])]
    return (*given, *default[len(given) :])


PRUNERS: dict[str, tuple[str, Callable[[str], Callable[..., None]]]] = {
    "ours": ("ours[:share]", lambda name: replay_ours),
    "informed": ("informed[:chance]", lambda name: replay_informed),
    "none": ("none", lambda name: _optuna(lambda epochs: optuna.pruners.NopPruner())),
    "median": (
        "median[:startup,warmup]",
        lambda name: _optuna(lambda e: MedianPruner(*(int(v) for v in _numbers(name, (5, 0))))),
    ),
    "percentile": (
        "percentile[:percent,startup,warmup]",
        lambda name: _optuna(_percentile(name)),
    ),
    "asha": ("asha[:min,factor,rate]", lambda name: _optuna(_asha(name))),
    "hyperband": (
        "hyperband[:min,factor]",
        lambda name: _optuna(
            lambda epochs: HyperbandPruner(
                int(_numbers(name, (1, 3))[0]), epochs, int(_numbers(name, (1, 3))[1])
            )
        ),
    ),
}
"""Name -> (how to write it, what makes it)."""
OURS = ("ours", "informed")
"""Those that see both losses."""
OWN = "FILE.py:NAME or package.module:NAME, which makes a pruner when it is called"


def _own(name: str) -> Callable[..., None]:
    """A pruner of Optuna's or of the user's, by where its class or a function is."""
    place, _, attribute = name.rpartition(":")
    if not place:
        raise SystemExit(f"unknown pruner {name!r} (valid: {', '.join(PRUNERS)}; {OWN})")
    try:
        make = getattr(import_module(place, "pruner"), attribute)
        made = make()
    except (LrsearchError, AttributeError, TypeError) as error:
        raise SystemExit(f"pruner {name}: {error}") from None
    if not isinstance(made, optuna.pruners.BasePruner):
        raise SystemExit(f"pruner {name} makes no optuna.pruners.BasePruner, but {made!r:.60}")
    return _optuna(lambda epochs: make())


@dataclass(frozen=True)
class Score:
    """One pruner on one record: means over the orders, and standard errors of the means."""

    record: str
    pruner: str
    signal: str
    epochs: float
    regret: float
    regret_se: float
    lost: float
    epochs_sd: float
    seconds: float
    regrets: list[float]  # of each order


def score(
    record: Record, pruner: str, signal: str, orders: int, trials: int, workers: int
) -> Score:
    """Replay ``orders`` random orders of ``trials`` trials through a pruner."""
    kind = pruner.partition(":")[0]
    run = PRUNERS[kind][1](pruner) if kind in PRUNERS else _own(pruner)
    start, rows = time.perf_counter(), []
    for seed in range(orders):
        course = Course.draw(record, trials, seed)
        if kind in OURS:
            run(course, workers, *_numbers(pruner, (pruning.SHARE,)))
        else:
            run(course, workers, signal, seed)
        rows.append(course.score())
    used, regret, lost = np.array(rows).T
    return Score(
        record.name,
        pruner,
        "both" if kind in OURS else signal,
        float(used.mean()),
        float(regret.mean()),
        float(regret.std(ddof=1) / np.sqrt(orders)) if orders > 1 else 0.0,
        float(lost.mean()),
        float(used.std()),
        (time.perf_counter() - start) / orders,
        [round(float(value), 6) for value in regret],
    )


def scores(
    records: Sequence[Record], pruners: Sequence[str], orders: int, trials: int, workers: int
) -> Iterator[Score]:
    """Every pruner on every record; Optuna's on the raw and on the averaged loss."""
    for pruner in pruners:
        for signal in ("both",) if pruner.startswith((*OURS, "none")) else ("raw", "averaged"):
            for record in records:
                yield score(record, pruner, signal, orders, trials, workers)


SWEEP = tuple(f"ours:{share:g}" for share in (0.01, 0.1, pruning.SHARE, 0.5, 0.8))
DEFAULT = (
    *SWEEP,
    "informed:0.02",
    "informed:0.1",
    "median",
    "percentile:25",
    "percentile:10",
    "asha:1,4",
    "asha:1,2",
    "asha:2,2",
    "asha:4,2",
    "hyperband:1,3",
    "hyperband:1,2",
)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.replay", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("sources", nargs="+", metavar="FILE")
    parser.add_argument("--study", help="name, if FILE is the URL of a database")
    written = "; ".join([*(how for how, _ in PRUNERS.values()), OWN])
    parser.add_argument("--pruners", nargs="*", default=DEFAULT, help=written)
    parser.add_argument("--orders", type=int, default=50)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--csv", type=Path, help="write the scores here, too")
    parser.add_argument("--write", type=Path, help="folder for README.md, record.json, figures")
    args = parser.parse_args(argv)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    records = [read(source, args.study) for source in args.sources]
    rows: list[Score] = []
    print(f"{'record':10} {'pruner':20} {'signal':9} epochs   regret          best tenth stopped")
    for row in scores(records, args.pruners, args.orders, args.trials, args.workers):
        rows.append(row)
        print(
            f"{row.record:10} {row.pruner:20} {row.signal:9} {row.epochs:5.1%}  "
            f"{row.regret:6.2%} ± {row.regret_se:5.2%}  {row.lost:4.0%}   ({row.seconds:.2f} s)",
            flush=True,
        )
    if args.csv:
        write(rows, args.csv)
    if args.write:
        names = " ".join(Path(source).name for source in args.sources)
        command = f"python -m tests.benchmarks.replay {names} --orders {args.orders}"
        frontier.write(args.write, rows, f"{command} --write {args.write}")


def write(rows: Sequence[Any], path: Path) -> None:
    """Rows (dataclasses) as CSV, or as JSON if the name ends so."""
    table = [asdict(row) for row in rows]
    if path.suffix == ".json":
        path.write_text(json.dumps(table, indent=1))
        return
    with path.open("w", newline="") as out:
        writer = csv.DictWriter(out, list(table[0]))
        writer.writeheader()
        writer.writerows(table)


if __name__ == "__main__":
    main(sys.argv[1:])
