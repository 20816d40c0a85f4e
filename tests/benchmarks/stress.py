"""Which of a search's finalists holds: does one run at a higher rate tell, without many seeds?

    python -m tests.benchmarks.stress --data-dir DIR --seeds 24 --first 600 --write studies/winners

A schedule that fails on some seeds lies near the edge of what the task bears, and with all of its
rates raised it is beyond. The winner of a search, the gentler one and the third that ``confirm``
takes are trained at several times their rates, from initial weights that no search has seen. Five
fresh seeds choose; fifteen others, which nobody has looked at, judge.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

import lrsearch
from lrsearch.report.confirmed import BEYOND, EDGE
from lrsearch.report.distinct import choose_arms
from lrsearch.schedules import Schedule
from lrsearch.tasks.task import Task
from tests.benchmarks import record, winners
from tests.benchmarks.live import GUESSING, NOTHING, percent, train_together

CHOOSE = 5
"""Fresh seeds that choose."""
JUDGE = 15
"""Further seeds, by which the chosen are compared."""
TIMES = (1.0, 1.3, EDGE)
"""What the rates are multiplied by."""


def run_study(task: Task, seed: int, trials: int) -> dict[str, Any]:
    """One search, and what its finalists and recipes came to: losses by times of the rates."""
    with tempfile.TemporaryDirectory() as folder:
        result = lrsearch.search(
            task,
            name="s",
            trials=trials,
            seed=seed,
            storage=f"sqlite:///{folder}/s.db",
            out=folder,
            device="cpu",
            quiet=True,
        )
        chosen = choose_arms(result.tables.table, 3)
        milder = result.tables.found.gentler if result.tables.found is not None else None
    schedules = [Schedule.from_dict(arm["schedule"]) for arm in chosen]
    first = 10**6 + 1000 * seed
    losses: list[dict[str, list[float]]] = [{} for _ in chosen]
    for times in TIMES:
        raised = [replace(schedule, lr=schedule.lr * times) for schedule in schedules]
        seeds = range(first, first + CHOOSE + (JUDGE if times == 1.0 else 0))
        found = np.array([train_together(task, raised, each) for each in seeds])
        for i, its in enumerate(found.T.tolist()):
            losses[i][str(times)] = its
    numbers = [arm["trial"] for arm in chosen]
    return {
        "gentler": 0 if milder is None else numbers.index(milder.number),
        "arms": [
            {"label": arm["key"], "baseline": arm.get("baseline"), "losses": its}
            for arm, its in zip(chosen, losses, strict=True)
        ],
    }


def choices(row: Mapping[str, Any]) -> dict[str, list[int]]:
    """What is taken -> which arms it takes: one, or one for each seed that chooses alone."""
    arms = row["arms"]
    own = [i for i, arm in enumerate(arms) if arm["baseline"] is None] or [0]

    def mean(i: int) -> float:
        return float(np.mean(arms[i]["losses"]["1.0"][:CHOOSE]))

    def guarded(k: int) -> int:  # as lrsearch.report.confirmed does it
        far = {i for i in own if arms[i]["losses"][str(EDGE)][k] > BEYOND * mean(i)}
        return min(every, key=lambda i: (i in far and far != set(own), mean(i)))

    every = range(len(arms))
    alone = {
        times: [min(own, key=lambda i: arms[i]["losses"][str(times)][k]) for k in range(CHOOSE)]
        for times in TIMES
    }
    return {
        "winner of the search": [0],
        "gentler one of the search": [row["gentler"]],
        "lowest finalist on one fresh seed": alone[1.0],
        **{f"the same at {times:g} times its rates": alone[times] for times in TIMES[1:]},
        f"lowest of all on {CHOOSE} fresh seeds": [min(every, key=mean)],
        f"the same, of those that bear {EDGE:g} times": [guarded(k) for k in range(CHOOSE)],
    }


def judged(row: Mapping[str, Any]) -> dict[str, tuple[list[float], float]]:
    """Of each choice: how far it is above the best recipe, and its share of runs without result.

    The best recipe is the one of the seeds that choose.
    """
    arms = row["arms"]
    losses = np.array([arm["losses"]["1.0"] for arm in arms], dtype=np.float64)
    losses = np.minimum(np.nan_to_num(losses, nan=GUESSING, posinf=GUESSING), GUESSING)
    recipes = [i for i, arm in enumerate(arms) if arm["baseline"] is not None]
    best = min(recipes, key=lambda i: losses[i, :CHOOSE].mean())
    means, lost = losses[:, CHOOSE:].mean(axis=1), (losses[:, CHOOSE:] > NOTHING).mean(axis=1)
    return {
        name: ([float(means[i] / means[best]) - 1 for i in taken], float(np.mean(lost[taken])))
        for name, taken in choices(row).items()
    }


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Distance from the best recipe, mean and worst, and the share of runs that learnt nothing."""
    lines = [
        "| task | searches | choice | against the best recipe | worst | learnt nothing |",
        "|---|---|---|---|---|---|",
    ]
    for task in dict.fromkeys(row["task"] for row in rows):
        found = [judged(row) for row in rows if row["task"] == task]
        for name in found[0]:
            gains = [each[name][0] for each in found]
            mean, error = percent(np.array([np.mean(its) for its in gains]))
            worst = 100 * max(map(max, gains))
            lost = 100 * float(np.mean([each[name][1] for each in found]))
            cells = [f"{mean:+.1f} ± {error:.1f}%", f"{worst:+.0f}%", f"{lost:.1f}%"]
            lines.append(f"| {task} | {len(found)} | {name} | {' | '.join(cells)} |")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = winners.arguments("stress", __doc__)
    parser.add_argument("--part", default="", help="of the record, beside the usual one")
    args = parser.parse_args(argv)
    rows = winners.searches(args, run_study)
    lines = table(rows)
    print("\n".join(lines))
    if args.write:
        command, part = winners.command("stress", args), "stress"
        if args.part:
            part, command = f"{part}, {args.part}", f"{command} --part '{args.part}'"
        record.write(args.write, part, lines, rows, command)


if __name__ == "__main__":
    main(sys.argv[1:])
