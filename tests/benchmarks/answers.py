"""What does a user get of a pruned search: is its answer as good as that of a full one?

    python -m tests.benchmarks.answers --data-dir DIR --trials 400 --write studies/pruning

The best value of many is also luck, and so is the winner. The answer is what ``robust.yaml`` has.
Both are trained again on seeds that no search has seen, the same for searches with and without
pruning. Tasks are those of ``tests.benchmarks.live``, everything else is by default.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from lrsearch.tasks.task import Task
from tests.benchmarks import record, winners
from tests.benchmarks.live import make_task, percent, train_together
from tests.benchmarks.samplers import mean_se

FRESH = 15
"""Seeds by which what was found is compared."""
PRUNERS = {"off": "none", "on": "schedule"}


def run_study(task: Task, seed: int, trials: int) -> dict[str, Any]:
    """A search with each of :data:`PRUNERS`, and what winner and answer come to on fresh seeds."""
    arms: dict[str, dict[str, Any]] = {}
    found = []
    for arm, pruner in PRUNERS.items():
        with winners.searched(task, seed, trials, pruner=pruner) as result:
            answer = result.tables.found
            assert answer is not None
            raised = answer.robust.raised if answer.robust is not None else {}
            arms[arm] = {
                "epochs": sum(trial.epochs for trial in result.trials),
                "raised": sum(map(len, raised.values())) * result.schedule.epochs,
                "value": answer.best.value,
            }
            found += [result.best, result.schedule]
    fresh = range(2 * 10**6 + 1000 * seed, 2 * 10**6 + 1000 * seed + FRESH)
    losses = np.transpose([train_together(task, found, each) for each in fresh]).tolist()
    for i, arm in enumerate(PRUNERS):
        arms[arm] |= {"winner": losses[2 * i], "answer": losses[2 * i + 1]}
    return {"arms": arms}


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Winner and answer on fresh seeds, with their differences to the full search, and epochs."""
    lines = [
        "| task | pruning | winner on fresh seeds | difference | answer on fresh seeds "
        "| difference | epochs used | with the raised | searches |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for task in dict.fromkeys(row["task"] for row in rows):
        some = [row["arms"] for row in rows if row["task"] == task]
        for arm in PRUNERS:
            cells = []
            for what in ("winner", "answer"):
                off, own = (
                    np.array([np.mean(row[each][what]) for row in some]) for each in ("off", arm)
                )
                gain = "{:+.1f} ± {:.1f}%".format(*percent(own / off - 1))
                cells += ["{:.4f} ± {:.4f}".format(*mean_se(own)), gain if arm == "on" else ""]
            for more in (0, 1):
                used = [
                    (row[arm]["epochs"] + more * row[arm]["raised"]) / row["off"]["epochs"]
                    for row in some
                ]
                cells.append("{:.0f} ± {:.0f}%".format(*percent(np.array(used))))
            lines.append(f"| {task} | {arm} | {' | '.join(cells)} | {len(some)} |")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = winners.arguments("answers", __doc__)
    parser.set_defaults(tasks=["digits"], trials=400)
    args = parser.parse_args(argv)
    rows = winners.searches(args, run_study, make_task)
    lines = table(rows)
    print("\n".join(lines))
    if args.write:
        part, command = f"answers, {args.trials} trials", winners.command("answers", args)
        record.write(args.write, part, lines, rows, command)


if __name__ == "__main__":
    main(sys.argv[1:])
