"""Which of a search's finalists holds: does one run at a higher rate tell, without many seeds?

    python -m tests.benchmarks.stress --data-dir DIR --seeds 24 --first 600 --write studies/winners

A schedule that fails on some seeds lies near the edge of what the task bears, and with all of its
rates raised it is beyond. The winner of a search, the gentler one and others that differ are
trained at higher rates, from initial weights that no search has seen, as for ``robust.yaml``. Five
fresh seeds choose; fifteen others, which nobody has looked at, judge.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from lrsearch.report.finalists import choose_arms, gentler
from lrsearch.report.raised import RAISE, is_near_edge
from lrsearch.report.robust import MOST, below, lowest_raised, next_runs
from lrsearch.report.tables import TrialRow
from lrsearch.schedules import Schedule
from lrsearch.tasks.task import Task
from tests.benchmarks import record, winners
from tests.benchmarks.live import GUESSING, NOTHING, percent, train_together

CHOOSE = 5
"""Fresh seeds that choose."""
JUDGE = 15
"""Further seeds, by which the chosen are compared."""
CONFIRMED = 3
"""Finalists that ``confirm`` takes."""


def run_study(task: Task, seed: int, trials: int) -> dict[str, Any]:
    """One search, and what its finalists and recipes came to: losses by times of the rates."""
    with winners.searched(task, seed, trials, robust=False) as result:
        table = result.tables.table
        chosen, milder = choose_arms(table, MOST), gentler(table)
        values = {trial.number: trial.value for trial in table.complete}
    schedules = [Schedule.from_dict(arm["schedule"]) for arm in chosen]
    first = 10**6 + 1000 * seed
    losses: list[dict[str, list[float]]] = [{} for _ in chosen]
    for times in (1.0, RAISE):
        raised = [replace(schedule, lr=schedule.lr * times) for schedule in schedules]
        seeds = range(first, first + CHOOSE + (JUDGE if times == 1.0 else 0))
        found = np.array([train_together(task, raised, each) for each in seeds])
        for i, its in enumerate(found.T.tolist()):
            losses[i][str(times)] = its
    numbers = [arm["trial"] for arm in chosen]
    return {
        "gentler": 0 if milder is None else numbers.index(milder.number),
        "arms": [
            {
                "label": arm["key"],
                "baseline": arm.get("baseline"),
                "value": values[arm["trial"]],
                "losses": its,
            }
            for arm, its in zip(chosen, losses, strict=True)
        ],
    }


def choices(row: Mapping[str, Any]) -> dict[str, list[int]]:
    """What is taken -> which arms it takes: one, or one for each seed that chooses alone.

    Rows of before ``robust.yaml`` have three finalists, at 1.3 times their rates, too.
    """
    arms, gentler = row["arms"], row["gentler"]
    found = [i for i, arm in enumerate(arms) if arm["baseline"] is None] or [0]
    more = [times for times in arms[0]["losses"] if float(times) > 1]

    def mean(i: int) -> float:
        return float(np.mean(arms[i]["losses"]["1.0"][:CHOOSE]))

    def alone(times: str) -> list[int]:
        first = found[:CONFIRMED]
        return [min(first, key=lambda i: arms[i]["losses"][times][k]) for k in range(CHOOSE)]

    taken = {
        "winner of the search": [0],
        "gentler one of the search": [gentler],
        "lowest finalist on one fresh seed": alone("1.0"),
        **{f"the same at {times} times its rates": alone(times) for times in more},
    }
    if "value" in arms[0]:
        taken["best finalist at higher rates"] = [finalist(arms, k) for k in range(CHOOSE)]
        taken["robust.yaml"] = [robust(arms, k) for k in range(CHOOSE)]
    five, bearing = zip(*(lowest(row, k, mean) for k in range(CHOOSE)), strict=True)
    taken[f"lowest of all on {CHOOSE} fresh seeds"] = list(
        five if len(set(five)) > 1 else five[:1]
    )
    taken[f"the same, of those that bear {RAISE:g} times"] = list(bearing)
    return taken


def lowest(row: Mapping[str, Any], k: int, mean: Callable[[int], float]) -> tuple[int, int]:
    """Of what ``confirm`` takes: the lowest arm, and the lowest of those that bear higher rates.

    Args:
        row: A search.
        k: Which fresh seed the arms are raised on.
        mean: Loss of an arm on the seeds that choose.
    """
    arms, gentler = row["arms"], row["gentler"]
    recipes = [i for i, arm in enumerate(arms) if arm["baseline"] is not None]
    found = [i for i in range(len(arms)) if i not in recipes]
    held = finalist(arms, k) if "value" in arms[0] else gentler
    # As lrsearch.report.finalists chooses them, and lrsearch.report.confirmed sets them aside.
    taken = list(dict.fromkeys([0, held, gentler, *found]))[:CONFIRMED]
    own = [i for i in taken if i not in recipes]
    far = {i for i in own if is_near_edge(arms[i]["losses"][str(RAISE)][k], mean(i), None)}
    aside = far if far != set(own) else set()
    some = [*own, *recipes]
    return min(some, key=mean), min(some, key=lambda i: (i in aside, mean(i)))


def robust(arms: Sequence[Mapping[str, Any]], k: int) -> int:
    """The arm in ``robust.yaml`` where the ``k``-th fresh seed is the first of the two."""
    recipes = [i for i, arm in enumerate(arms) if arm["baseline"] is not None]
    held, recipe = finalist(arms, k), min(recipes, key=lambda i: float(arms[i]["value"]))

    def over_two_seeds(i: int) -> float:
        found = [arms[i]["value"], arms[i]["losses"]["1.0"][k]]
        return float(np.nan_to_num(np.array(found, dtype=np.float64), nan=np.inf).mean())

    return min((held, recipe), key=over_two_seeds)


def finalist(arms: Sequence[Mapping[str, Any]], k: int) -> int:
    """The arm that does best at higher rates; the winner where none was raised."""
    if arms[0]["baseline"] is not None:
        return 0
    tried = [
        TrialRow(number=i, trial_id=i, status="complete", value=arm["value"])
        for i, arm in enumerate(arms)
        if arm["baseline"] is None
    ]
    tried = below(tried, [arm["value"] for arm in arms if arm["baseline"] is not None])
    raised: dict[int, list[float]] = {}
    while some := next_runs(tried, raised):
        for trial, nth in some:
            loss = arms[trial.number]["losses"][str(RAISE)][(k + nth) % CHOOSE]
            raised.setdefault(trial.number, []).append(loss)
    lowest = lowest_raised(tried, raised)
    return 0 if lowest is None else lowest.number


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
