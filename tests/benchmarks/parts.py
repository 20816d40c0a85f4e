"""The parts of the speed benchmark: each runs its arms in turn and returns what it found."""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.benchmarks import own_tasks
from tests.benchmarks.arms import Arm, Job, compare, in_turn, ours, plain, ray
from tests.benchmarks.measure import Cost, spawn, spread

RAY_NEEDS = ("ray", "pandas", "pyarrow", "tensorboardX")


def part_study(job: Job, rounds: int, other: str) -> dict[str, Any]:
    """Whole studies."""
    if other == "ray" and (missing := [name for name in RAY_NEEDS if not find_spec(name)]):
        raise SystemExit(f"ray: {missing[0]} is not installed: python -m pip install 'ray[tune]'")
    print(f"\nstudy: {job.task}, {job.trials} trials, lrsearch --fuse {job.fuse}")
    costs = in_turn({"lrsearch": ours, other: ray if other == "ray" else plain}, job, rounds)
    return {"job": asdict(job), "ratios": compare(costs), "runs": dumped(costs)}


def dumped(costs: Mapping[str, Sequence[Cost]], *, history: bool = True) -> dict[str, Any]:
    """Costs as plain values; their history is long, and few parts need it."""
    found = {name: [asdict(cost) for cost in costs[name]] for name in costs}
    for row in [row for rows in found.values() for row in rows if not history]:
        del row["history"]
    return found


def part_own(job: Job, rounds: int, names: Sequence[str]) -> dict[str, Any]:
    """Whole studies of tasks as users write them."""
    print(f"\nown tasks, {job.trials} trials")
    costs: dict[str, list[Cost]] = {}
    for i, name in itertools.product(range(rounds), names):
        for arm in ("lrsearch", "plain"):
            cost = own_tasks.measured(arm, name, job.trials, job.seed + i)
            costs.setdefault(f"{name}, {arm}", []).append(cost)
            print(f"  {name:12} {arm:9} {cost.cpu:6.1f} CPU s, {cost.epochs} epochs", flush=True)
    return {"job": asdict(job), "runs": dumped(costs, history=False)}


def part_growth(job: Job, sizes: Sequence[int], most_plain: int, rounds: int) -> dict[str, Any]:
    """How the cost of a study grows with the number of trials."""
    print(f"\ngrowth: {job.task}, {sizes} trials, of the plain script up to {most_plain}")
    costs: dict[str, list[Cost]] = {}
    for i in range(rounds):
        for n in sizes:
            arms: dict[str, Arm] = {"lrsearch": ours}
            if n <= most_plain:
                arms["plain"] = plain
            found = in_turn(arms, replace(job, trials=n, seed=job.seed + i), 1)
            for name, (cost,) in found.items():
                costs.setdefault(name, []).append(cost)
                print(f"  {n:5} trials: CPU ms a trial {1e3 * cost.cpu / n:7.1f} {name}")
    return {"job": asdict(job), "runs": dumped(costs, history=False)}


def trained(job: Job, way: str, *more: str) -> dict[str, float]:
    """One run of :mod:`tests.benchmarks.training`."""
    command = [sys.executable, "-m", "tests.benchmarks.training", "--task", job.task]
    command += ["--way", way, *more]
    if job.data_dir:
        command += ["--data-dir", job.data_dir]
    if job.train_samples:
        command += ["--train-samples", str(job.train_samples)]
    with tempfile.TemporaryDirectory() as folder:
        cost, out = spawn(command, Path(folder))
    return {"memory": cost.memory, **json.loads(out)}


def part_training(job: Job, counts: Sequence[int], rounds: int) -> dict[str, Any]:
    """Training and validation alone: the plain loop, one trial at a time, and K fused."""
    print(f"\ntraining: {job.task}, one CPU thread, without sampling and storing")
    ways = ["plain", "single", *map(str, counts)]
    rows: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            rows[way].append(trained(job, way))
    print("  way       CPU ms per trained epoch       plain / it                 memory MiB")
    for way in ways:
        each = [row["ms_per_epoch"] for row in rows[way]]
        pairs = zip(rows["plain"], rows[way], strict=True)
        ratios = [a["ms_per_epoch"] / b["ms_per_epoch"] for a, b in pairs]
        memory = max(row["memory"] for row in rows[way])
        name = f"{way} fused" if way.isdecimal() else way
        print(f"  {name:9} {spread(each):30} {spread(ratios):26} {memory:.0f}")
    return {"task": job.task, "rows": rows}


def part_average(job: Job, rounds: int) -> dict[str, Any]:
    """What the running average of the weights and its validation cost."""
    print(f"\naverage: {job.task}, with and without the running average of the weights")
    rows: dict[str, list[dict[str, float]]] = {}
    for _ in range(rounds):
        for way in ("single", "16"):
            for name, more in ((way, ()), (f"{way} without", ("--no-average",))):
                rows.setdefault(name, []).append(trained(job, way, *more))
    for name, found in rows.items():
        print(f"  {name:16} {spread([row['ms_per_epoch'] for row in found])} ms an epoch")
    return {"task": job.task, "rows": rows}


def part_workers(job: Job, rounds: int) -> dict[str, Any]:
    """One worker and two, nothing pruned: the same epochs in how much less time."""
    print(
        f"\nworkers: {job.task}, {job.trials} trials, the machine's load {os.getloadavg()[0]:.1f}"
    )
    more = ("--pruner", "none", "--sampler", "random")
    arms: dict[str, Arm] = {
        count: lambda job, folder, count=count: ours(replace(job, workers=count), folder, *more)  # type: ignore[misc]
        for count in ("1", "2")
    }
    return {"job": asdict(job), "runs": dumped(in_turn(arms, job, rounds))}


def part_slots(job: Job, counts: Sequence[int], rounds: int) -> dict[str, Any]:
    """Studies with K fused trials: the more, the less the sampler knows when it is asked."""
    print(f"\nslots: {job.task}, {job.trials} trials, {counts} fused")
    arms: dict[str, Arm] = {
        str(k): lambda job, folder, k=k: ours(replace(job, fuse=str(k), workers="1"), folder)  # type: ignore[misc]
        for k in counts
    }
    return {"job": asdict(job), "runs": dumped(in_turn(arms, job, rounds), history=False)}


def part_shares(job: Job, rounds: int) -> dict[str, Any]:
    """Where the CPU seconds of a study go."""
    rows: dict[str, list[float]] = {}
    for i in range(rounds):
        command = [sys.executable, "-m", "tests.benchmarks.shares", "--task", job.task]
        command += ["--trials", str(job.trials), "--seed", str(job.seed + i)]
        with tempfile.TemporaryDirectory() as folder:
            _, out = spawn(command, Path(folder))
        for name, seconds in json.loads(out.strip().splitlines()[-1]).items():
            rows.setdefault(name, []).append(seconds)
    for name, found in rows.items():
        print(f"  {name:10} {spread(found)} CPU s")
    return {"job": asdict(job), "rows": rows}


def part_help(rounds: int) -> dict[str, Any]:
    """``lrsearch --help`` and the start of Python."""
    commands = {"python -c pass": ["-c", "pass"], "lrsearch --help": ["-m", "lrsearch", "--help"]}
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for _ in range(max(7, rounds)):
        for name, words in commands.items():
            with tempfile.TemporaryDirectory() as folder:
                cost, _ = spawn([sys.executable, *words], Path(folder))
            rows[name].append({"cpu": cost.cpu, "wall": cost.wall, "memory": cost.memory})
    for name, found in rows.items():
        print(f"  {name:16} {spread([1e3 * row['cpu'] for row in found])} CPU ms")
    return {"rows": rows}
