"""What pruning and the lr range test are worth, live: whole studies with and without them.

    python -m tests.benchmarks.live pruning --data-dir DIR --write studies/pruning
    python -m tests.benchmarks.live lr --data-dir DIR --write studies/sampling

Tasks and worker are those of ``tests.benchmarks.samplers``; sampler and pruner are the defaults.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from tests.benchmarks import record
from tests.benchmarks.samplers import TASKS, Array, mean_se, runs

WIDE = (1e-5, 10.0)
NOTHING = 0.9 * float(np.log(10))
"""A final loss above it is that of guessing: both tasks have ten classes."""
NEAR = 1.05
"""A study has reached the value when its best is at most so many times the best of both arms."""

ARMS: dict[str, dict[str, dict[str, Any]]] = {
    "pruning": {
        "pruning off": {"pruner": "none"},
        "pruning on": {"pruner": "schedule"},
        "twice the trials": {"pruner": "schedule", "times": 2},
    },
    "lr": {
        "lr 1e-5 to 10": {"lr": WIDE, "pruner": "none", "baselines": False},
        "--lr auto": {"lr": "auto", "pruner": "none", "baselines": False},
    },
}
"""What is compared -> arm -> settings of its studies, and how many times the trials it has.

Baselines would show the usual rate to the lr range test.
"""


def column(rows: Sequence[Mapping[str, Any]], task: str, arm: str, name: str) -> Array:
    """One figure of all seeds, in order."""
    some = [row for row in rows if (row["task"], row["arm"]) == (task, arm)]
    some.sort(key=lambda row: row["seed"])
    return np.array([min(row["values"]) if name == "best" else row[name] for row in some])


def pruning_table(rows: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> list[str]:
    """Best value and epochs with and without pruning, and the paired differences."""
    lines = [
        "| task | arm | best | difference | epochs used | seeds |",
        "|---|---|---|---|---|---|",
    ]
    for task in tasks:
        off = column(rows, task, "pruning off", "best")
        full = column(rows, task, "pruning off", "epochs")
        for arm in ARMS["pruning"]:
            best, used = (column(rows, task, arm, name) for name in ("best", "epochs"))
            cells = ["{:.4f} ± {:.4f}".format(*mean_se(best)), "", "100%"]
            if arm != "pruning off":
                cells[1] = "{:+.1f} ± {:.1f}%".format(*(100 * v for v in mean_se(best / off - 1)))
                cells[2] = "{:.0f} ± {:.0f}%".format(*(100 * v for v in mean_se(used / full)))
            lines.append(f"| {task} | {arm} | {' | '.join(cells)} | {len(best)} |")
    return lines


def reached(values: Sequence[float], value: float) -> int:
    """Trials until the best is at most ``value``; all of them and one more if it never is."""
    return next((i for i, each in enumerate(values, 1) if each <= value), len(values) + 1)


def lr_table(rows: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> list[str]:
    """Trials to the value, and trials lost to rates that explode, with and without the test."""
    lines = [
        "| task | arm | range searched | trials to the value | learnt nothing | best | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for task in tasks:
        arms = {arm: column(rows, task, arm, "values") for arm in ARMS["lr"]}
        goal = NEAR * np.min([values.min(axis=1) for values in arms.values()], axis=0)
        for arm, values in arms.items():
            ranges = column(rows, task, arm, "lr")
            count = np.array([reached(v, g) for v, g in zip(values, goal, strict=True)])
            lost = (values > NOTHING).sum(axis=1)
            cells = [f"{ranges[:, 0].mean():.2g} to {ranges[:, 1].mean():.2g}"]
            cells += ["{:.1f} ± {:.1f}".format(*mean_se(each)) for each in (count, lost)]
            cells += ["{:.4f} ± {:.4f}".format(*mean_se(values.min(axis=1)))]
            lines.append(f"| {task} | {arm} | {' | '.join(cells)} | {len(values)} |")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.live", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", choices=ARMS)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--tasks", nargs="*", default=["digits", "cifar10"], choices=TASKS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--raw", type=Path, help="runs that are done already; grows")
    parser.add_argument("--write", type=Path, help="folder for README.md and record.json")
    args = parser.parse_args(argv)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    raw = args.raw or Path(f"live-{args.what}.jsonl")
    rows = runs(ARMS[args.what], args.tasks, args.seeds, args.trials, args.data_dir, raw)
    lines = (pruning_table if args.what == "pruning" else lr_table)(rows, args.tasks)
    print("\n".join(lines))
    if args.write:
        command = f"python -m tests.benchmarks.live {args.what} --data-dir DIR"
        command += f" --tasks {' '.join(args.tasks)} --seeds {args.seeds}"
        command += f" --trials {args.trials} --write {args.write}"
        record.write(args.write, f"live {args.what}", lines, rows, command)


if __name__ == "__main__":
    main(sys.argv[1:])
