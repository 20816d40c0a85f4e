"""What pruning, sampler and lr range test are worth, live: whole studies with and without them.

    python -m tests.benchmarks.live pruning --data-dir DIR --write studies/pruning
    python -m tests.benchmarks.live pruners --data-dir DIR --write studies/pruning
    python -m tests.benchmarks.live samplers --data-dir DIR --write studies/sampling
    python -m tests.benchmarks.live lr --data-dir DIR --write studies/sampling

Tasks and worker are those of ``tests.benchmarks.samplers``; sampler and pruner are the defaults.
``digits:60`` is the task with 60 epochs. What a user gets of a study is its winner, and its best
value is also luck: so the winners are trained again on seeds that no study has seen.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

from lrsearch.confirm import FIRST_SEED
from lrsearch.schedules import Schedule
from lrsearch.tasks.task import Task
from lrsearch.training.ensemble import EnsembleRunner
from tests.benchmarks import record
from tests.benchmarks.samplers import TASKS, Array, mean_se, runs

WIDE = (1e-5, 10.0)
GUESSING = math.log(10)
"""Loss of guessing: all tasks have ten classes."""
NOTHING = 0.9 * GUESSING
"""Who ends above it has learnt nothing."""
FRESH = 10
"""Seeds on which the winner of each study is trained again."""
CUTS = (0.25, 0.5)
"""Shares of the full study's epochs after which pruners are compared."""
NEAR = 1.05
"""A study has reached the value when its best is at most so many times the best of both arms."""

OPTUNAS = ("median", "asha", "hyperband")
"""Optuna's pruners, as ``--pruner`` offers them."""

ARMS: dict[str, dict[str, dict[str, Any]]] = {
    "pruning": {
        "pruning off": {"pruner": "none"},
        "pruning on": {"pruner": "schedule"},
        "twice the trials": {"pruner": "schedule", "times": 2},
    },
    "pruners": {
        "none": {"pruner": "none"},
        **{name: {"pruner": name, "times": 2} for name in ("schedule", *OPTUNAS)},
    },
    "samplers": {
        "trace": {"pruner": "schedule"},
        "tpe (group)": {"pruner": "schedule", "sampler": "tpe"},
    },
    "lr": {
        "lr 1e-5 to 10": {"lr": WIDE, "pruner": "none", "baselines": False},
        "--lr auto": {"lr": "auto", "pruner": "none", "baselines": False},
    },
}
"""What is compared -> arm -> settings of its studies, and how many times the trials it has.

Baselines would show the usual rate to the lr range test.
"""


def make_task(name: str, data_dir: Path) -> Task:
    """``digits``, or ``digits:60`` for 60 epochs."""
    base, _, epochs = name.partition(":")
    if base not in TASKS or not (epochs.isdecimal() or epochs == ""):
        raise SystemExit(f"unknown task {name!r} (valid: {', '.join(TASKS)}, each with :EPOCHS)")
    task = TASKS[base](data_dir)
    return replace(task, epochs=int(epochs)) if epochs else task


def train_winners(rows: Sequence[dict[str, Any]], tasks: Mapping[str, Task]) -> None:
    """``row["fresh"]``: losses of its winner on :data:`FRESH` seeds, the same for all arms."""
    for name, task in tasks.items():
        for seed in sorted({row["seed"] for row in rows if row["task"] == name}):
            some = [row for row in rows if (row["task"], row["seed"]) == (name, seed)]
            winners = [Schedule.from_dict(row["winner"]) for row in some]
            fresh = range(FIRST_SEED + FRESH * seed, FIRST_SEED + FRESH * (seed + 1))
            losses = [train_together(task, winners, each) for each in fresh]
            for row, its in zip(some, np.transpose(losses).tolist(), strict=True):
                row["fresh"] = its


def train_together(task: Task, schedules: Sequence[Schedule], seed: int) -> list[float]:
    """Final validation losses of schedules trained as one stack; who diverged is guessing."""
    runner = EnsembleRunner(
        task,
        k=len(schedules),
        optimizer=task.optimizer,
        optimizer_args=task.optimizer_args,
        seed=seed,
        device=torch.device("cpu"),
    )
    losses = [GUESSING] * len(schedules)
    left = set(range(len(schedules)))
    for i in left:
        runner.add(i, schedules[i])
    while left:
        for i, result in runner.epoch().items():
            ended = result.epoch == schedules[i].epochs
            if ended and not result.diverged:
                losses[i] = result.val_loss
            if ended or result.diverged:
                runner.remove(i)
                left.discard(i)
    return losses


def column(rows: Sequence[Mapping[str, Any]], task: str, arm: str, name: str) -> Array:
    """One figure of all seeds, in order: a field, or ``best`` of its values, or ``fresh``.

    ``fresh`` is the median of the winner: a mean would show those that diverge on some seeds only.
    """
    some = [row for row in rows if (row["task"], row["arm"]) == (task, arm)]
    some.sort(key=lambda row: row["seed"])
    if name == "fresh":
        return np.array([np.median(row[name]) for row in some])
    if name == "best" and "values" in some[0]:
        return np.array([min(row["values"]) for row in some])
    return np.array([row[name] for row in some])


def pruning_table(rows: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> list[str]:
    """Best value, winner on fresh seeds, and epochs; with their differences to pruning off."""
    lines = [
        "| task | arm | best | difference | winner on fresh seeds | difference | epochs used "
        "| seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task in tasks:
        full = column(rows, task, "pruning off", "epochs")
        for arm in ARMS["pruning"]:
            used, cells = column(rows, task, arm, "epochs"), []
            for name in ("best", "fresh"):
                off, own = (column(rows, task, each, name) for each in ("pruning off", arm))
                cells += ["{:.4f} ± {:.4f}".format(*mean_se(own)), ""]
                if arm != "pruning off":
                    cells[-1] = "{:+.1f} ± {:.1f}%".format(*percent(own / off - 1))
            cells += [
                "100%"
                if arm == "pruning off"
                else "{:.0f} ± {:.0f}%".format(*percent(used / full))
            ]
            lines.append(f"| {task} | {arm} | {' | '.join(cells)} | {len(used)} |")
    return lines


def compared(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each study of :data:`ARMS` ``["pruners"]`` is to the full one of its task and seed.

    ``best`` after as many trials, and ``best at`` each of :data:`CUTS`: how far it lies above the
    best of the full study. ``epochs``: share of its epochs that as many trials took.
    """
    full = {(row["task"], row["seed"]): row for row in rows if row["arm"] == "none"}
    out = []
    for row in rows:
        whole = full[row["task"], row["seed"]]
        trials, least = len(whole["spent"]), min(whole["values"])
        found = {key: row[key] for key in ("task", "arm", "seed")}
        found["best"] = min(row["values"][:trials]) / least - 1
        found["epochs"] = sum(row["spent"][:trials]) / whole["epochs"]
        for cut in CUTS:
            most = cut * whole["epochs"]
            count = int(np.searchsorted(np.cumsum(row["spent"]), most, side="right"))
            best = min(row["values"][:count], default=math.inf)
            found[f"best at {cut}"] = best / least - 1
        out.append(found)
    return out


def pruners_table(rows: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> list[str]:
    """Each pruner's best value: after as many trials as the full study has, and for its epochs."""
    heads = ["task", "pruner", "best of as many trials", "their epochs"]
    heads += [f"best in {100 * share:.0f}% of the epochs" for share in CUTS]
    lines = [f"| {' | '.join([*heads, 'seeds'])} |", "|---" * (len(heads) + 1) + "|"]
    for task in tasks:
        for arm in ARMS["pruners"]:
            cells = []
            for name in ("best", "epochs", *(f"best at {cut}" for cut in CUTS)):
                values = column(rows, task, arm, name)
                text = "{:.0f} ± {:.0f}%" if name == "epochs" else "{:+.1f} ± {:.1f}%"
                cells.append(text.format(*percent(values)))
            lines.append(f"| {task} | {arm} | {' | '.join(cells)} | {len(values)} |")
    return lines


def samplers_table(rows: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> list[str]:
    """Best value and epochs of each sampler with pruning; its difference to ours, by seed."""
    lines = [
        "| task | sampler | best | difference | epochs | seeds |",
        "|---|---|---|---|---|---|",
    ]
    for task in tasks:
        ours = column(rows, task, "trace", "best")
        for arm in ARMS["samplers"]:
            best, used = (column(rows, task, arm, name) for name in ("best", "epochs"))
            more = "" if arm == "trace" else "{:+.2f} ± {:.2f}%".format(*percent(best / ours - 1))
            cells = ["{:.4f} ± {:.4f}".format(*mean_se(best)), more]
            cells.append("{:.0f} ± {:.0f}".format(*mean_se(used)))
            lines.append(f"| {task} | {arm} | {' | '.join(cells)} | {len(best)} |")
    return lines


def percent(shares: Array) -> tuple[float, float]:
    """Mean and standard error, in percent."""
    mean, se = mean_se(shares)
    return 100 * mean, 100 * se


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


TABLES = {
    "pruning": pruning_table,
    "pruners": pruners_table,
    "samplers": samplers_table,
    "lr": lr_table,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.live", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", choices=ARMS)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument(
        "--tasks", nargs="*", default=["digits", "cifar10"], metavar="TASK[:EPOCHS]"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--raw", type=Path, help="runs that are done already; grows")
    parser.add_argument("--write", type=Path, help="folder for README.md and record.json")
    parser.add_argument("--part", default="", help="of the record, beside the usual one")
    args = parser.parse_args(argv)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    raw = args.raw or Path(f"live-{args.what}.jsonl")
    tasks = {name: make_task(name, args.data_dir) for name in args.tasks}
    rows = runs(ARMS[args.what], tasks, args.seeds, args.trials, raw)
    if args.what == "pruning":
        train_winners(rows, tasks)
    if args.what == "pruners":
        rows = compared(rows)
    lines = TABLES[args.what](rows, args.tasks)
    print("\n".join(lines))
    if args.write:
        command = f"python -m tests.benchmarks.live {args.what} --data-dir DIR"
        command += f" --tasks {' '.join(args.tasks)} --seeds {args.seeds}"
        command += f" --trials {args.trials} --write {args.write}"
        part = f"live {args.what}"
        if args.part:
            part, command = f"{part}, {args.part}", f"{command} --part '{args.part}'"
        record.write(args.write, part, lines, rows, command)


if __name__ == "__main__":
    main(sys.argv[1:])
