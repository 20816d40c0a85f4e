"""lrsearch against what a user would run instead: same task, budget, trials and machine, in turn.

    python -m tests.benchmarks.speed                       # digits, all parts, some minutes
    python -m tests.benchmarks.speed study --task square --trials 20
    python -m tests.benchmarks.speed study --task cifar10 --data-dir DIR --train-samples 4000 \\
        --epochs 2 --trials 4
    python -m tests.benchmarks.speed growth --most 1000
    python -m tests.benchmarks.speed training help average
    python -m tests.benchmarks.speed workers --task cifar10 --data-dir DIR --train-samples 2000 \\
        --epochs 2 --trials 6

With ``-o studies/speed/record.json`` a part replaces its last result there, and the page beside it
is written anew (:mod:`tests.benchmarks.speed_page`).

Arms run one after the other in processes of their own, again and again; what is compared are
ratios within one round, given as median and range over the rounds. CPU seconds are those of the
whole process with its children: imports, data, sampling and storing included.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.benchmarks import speed_page
from tests.benchmarks.measure import Cost, machine, spawn, spread


def read_study(storage: str, began: float, cost: Cost) -> None:
    """Fill in what a study's database tells."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    (summary,) = optuna.get_all_study_summaries(storage)
    study = optuna.load_study(study_name=summary.study_name, storage=storage)
    done = [trial for trial in study.trials if trial.state.is_finished()]
    cost.trials = len(done)
    cost.epochs = sum(max(trial.intermediate_values, default=0) for trial in done)
    complete = [t for t in done if t.state == optuna.trial.TrialState.COMPLETE]
    ends = [(t.datetime_complete, t.value) for t in complete]
    for end, value in sorted((x.timestamp(), y) for x, y in ends if x and y is not None):
        if not cost.history or value < cost.history[-1][1]:
            cost.history.append((end - began, value))
    cost.best = cost.history[-1][1] if cost.history else float("nan")


MOST_PLAIN = 300
"""Trials of the plain script, at most, where growth is measured: it grows by the trial."""


@dataclass(frozen=True)
class Job:
    """What every arm does.

    Args:
        task: Name of a built-in task.
        trials: Finished trials.
        seed: Seed.
        epochs: Budget of a trial; None = the task's.
        data_dir: Where data lie.
        train_samples: Use so many; None = all.
        fuse: ``--fuse`` of lrsearch.
        workers: ``--workers`` of lrsearch.
        plain_trials: Trials of the other arms, where a whole study of theirs takes too long.
    """

    task: str
    trials: int
    seed: int = 0
    epochs: int | None = None
    data_dir: str | None = None
    train_samples: int | None = None
    fuse: str = "auto"
    workers: str = "auto"
    plain_trials: int | None = None

    def arguments(self, *, own: bool = False) -> list[str]:
        """Arguments that all arms know."""
        given = {
            "task": self.task,
            "trials": self.trials if own else self.plain_trials or self.trials,
            "seed": self.seed,
            "epochs": self.epochs,
            "data-dir": self.data_dir,
            "train-samples": self.train_samples,
        }
        return [
            text
            for key, value in given.items()
            if value is not None
            for text in (f"--{key}", str(value))
        ]


def ours(job: Job, folder: Path, *more: str) -> Cost:
    """``lrsearch run``."""
    storage = f"sqlite:///{folder / 'ours.db'}"
    command = [sys.executable, "-m", "lrsearch", "run", *job.arguments(own=True), "--json"]
    command += ["--fuse", job.fuse, "--workers", job.workers, *more]
    command += ["--storage", storage, "--out", str(folder / "results")]
    began = time.time()
    cost, _ = spawn(command, folder)
    read_study(storage, began, cost)
    return cost


def plain(job: Job, folder: Path) -> Cost:
    """The plain Optuna script."""
    storage = f"sqlite:///{folder / 'plain.db'}"
    script = [sys.executable, "-m", "tests.benchmarks.plain_optuna", *job.arguments()]
    began = time.time()
    cost, _ = spawn([*script, "--storage", storage], folder)
    read_study(storage, began, cost)
    return cost


def ray(job: Job, folder: Path) -> Cost:
    """Ray Tune with OptunaSearch and ASHA; it counts the CPU seconds of its own processes."""
    script = [sys.executable, "-m", "tests.benchmarks.ray_tune", *job.arguments()]
    cost, out = spawn([*script, "--folder", str(folder)], folder)
    told = json.loads(out.strip().splitlines()[-1])
    for name in ("cpu", "memory", "epochs", "best", "trials"):
        setattr(cost, name, told[name])
    cost.history = [(wall, loss) for wall, loss in told["history"]]
    return cost


def in_turn(
    arms: Mapping[str, Callable[[Job, Path], Cost]], job: Job, rounds: int
) -> dict[str, list[Cost]]:
    """Run every arm once a round; each round has a seed of its own."""
    costs: dict[str, list[Cost]] = {name: [] for name in arms}
    for i in range(rounds):
        for name, arm in arms.items():
            with tempfile.TemporaryDirectory() as folder:
                cost = arm(replace(job, seed=job.seed + i), Path(folder))
            costs[name].append(cost)
            print(
                f"  round {i + 1}/{rounds} {name:10} {cost.cpu:8.1f} CPU s {cost.wall:8.1f} s "
                f"{cost.epochs:7,} epochs {1e3 * cost.cpu_per_epoch:9.3f} ms/epoch "
                f"{cost.memory:6.0f} MiB  best {cost.best:.5g}",
                flush=True,
            )
    return costs


def compare(costs: dict[str, list[Cost]]) -> dict[str, dict[str, list[float]]]:
    """How many times more each other arm costs than ours, round by round; printed as well."""
    found: dict[str, dict[str, list[float]]] = {}
    for name, theirs in costs.items():
        if name == "lrsearch":
            continue
        pairs = list(zip(theirs, costs["lrsearch"], strict=True))
        targets = [max(them.best, us.best) for them, us in pairs]
        reached = list(zip(pairs, targets, strict=True))
        found[name] = {
            "CPU seconds per trained epoch": [t.cpu_per_epoch / u.cpu_per_epoch for t, u in pairs],
            "CPU seconds of the study": [t.cpu / u.cpu for t, u in pairs],
            "wall seconds of the study": [t.wall / u.wall for t, u in pairs],
            "wall to the worse of both bests": [t.reach(x) / u.reach(x) for (t, u), x in reached],
            "peak memory": [t.memory / u.memory for t, u in pairs],
            "best value (above 1: ours is better)": [t.best / u.best for t, u in pairs],
        }
        print(f"\n{name} / lrsearch: median (range) of {len(pairs)} rounds")
        for what, ratios in found[name].items():
            print(f"  {what:40} {spread(ratios)}")
    return found


def part_study(job: Job, rounds: int, *others: str) -> dict[str, Any]:
    """Whole studies."""
    print(f"\nstudy: {job.task}, {job.trials} trials, lrsearch --fuse {job.fuse}")
    arms: dict[str, Callable[[Job, Path], Cost]] = {"lrsearch": ours}
    for name in others:
        if name == "ray" and not importlib.util.find_spec("ray"):
            print("  ray: skipped, not installed (python -m pip install 'ray[tune]')")
        else:
            arms[name] = ray if name == "ray" else plain
    costs = in_turn(arms, job, rounds)
    ratios = compare(costs)
    runs = {name: [asdict(cost) for cost in found] for name, found in costs.items()}
    return {"job": asdict(job), "ratios": ratios, "runs": runs}


def part_growth(job: Job, most: int) -> dict[str, Any]:
    """How cost grows with the number of trials."""
    sizes = [n for n in (10, 100, 1000) if n <= most]
    print(f"\ngrowth: {job.task}, {sizes} trials")
    rows = []
    for n in sizes:
        arms: dict[str, Callable[[Job, Path], Cost]] = {"lrsearch": ours}
        if n <= MOST_PLAIN:
            arms["plain"] = plain
        costs = in_turn(arms, replace(job, trials=n), 1)
        rows.append({"trials": n, **{name: asdict(found[0]) for name, found in costs.items()}})
        for name, (cost,) in costs.items():
            print(f"  {n:5} trials: CPU ms a trial {1e3 * cost.cpu / n:7.1f} {name}")
    return {"job": asdict(job), "rows": rows}


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
    arms: dict[str, Callable[[Job, Path], Cost]] = {
        count: lambda job, folder, count=count: ours(  # type: ignore[misc]
            replace(job, workers=count), folder, "--pruner", "none", "--sampler", "random"
        )
        for count in ("1", "2")
    }
    costs = in_turn(arms, job, rounds)
    return {"job": asdict(job), "runs": {k: [asdict(c) for c in v] for k, v in costs.items()}}


def part_slots(job: Job, rounds: int) -> dict[str, Any]:
    """How many fused trials: the more, the less the sampler knows when it is asked."""
    print(f"\nslots: {job.task}, {job.trials} trials, 8, 16 and 32 fused")
    rows = []
    for i in range(rounds):
        for fuse in ("8", "16", "32"):
            with tempfile.TemporaryDirectory() as folder:
                cost = ours(replace(job, seed=job.seed + i, fuse=fuse, workers="1"), Path(folder))
            row = {"fuse": int(fuse), "seed": job.seed + i, **asdict(cost)}
            rows.append({k: row[k] for k in ("fuse", "seed", "cpu", "epochs", "best")})
            print(f"  {fuse} fused, seed {i}: {cost.cpu:.1f} CPU s, best {cost.best:.5g}")
    return {"job": asdict(job), "rows": rows}


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


def keep(path: Path, name: str, found: dict[str, Any], *, add: bool) -> None:
    """Put a part into a record, with where and how it was measured, and write its page anew.

    With ``add`` its rounds go behind those that are there.
    """
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if add and name in record:
        for key in ("runs", "rows"):
            for arm, rounds in record[name].get(key, {}).items():
                found[key][arm] = rounds + found[key][arm]
        found.pop("ratios", None)
    if found.get("job", {}).get("data_dir"):
        found["job"]["data_dir"] = "DIR"  # a folder of this machine
    git = subprocess.run(
        ["git", "log", "-1", "--format=%h", "--", "lrsearch"],  # of the program, not of this
        capture_output=True,
        text=True,
        check=False,
    )
    record[name] = {
        "machine": machine(),
        "load": [round(x, 1) for x in os.getloadavg()],
        "commit": git.stdout.strip(),
        "command": "python -m tests.benchmarks.speed " + " ".join(_public(sys.argv[1:])),
        **found,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    speed_page.write(path)


def _public(words: Sequence[str]) -> list[str]:
    """The command without the folders of this machine."""
    shown = {"--data-dir": "DIR", "-o": "studies/speed/record.json"}
    return [shown.get(before, word) for before, word in pairwise(["", *words])]


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("part", nargs="*", help="all but workers and slots by default")
    parser.add_argument("--task", default="digits")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--data-dir")
    parser.add_argument("--train-samples", type=int)
    parser.add_argument("--fuse", default="auto")
    parser.add_argument("--workers", default="auto")
    parser.add_argument("--most", type=int, default=300, help="trials at the end of growth")
    parser.add_argument("--counts", type=int, nargs="*", default=[1, 4, 16, 64], help="of fused")
    parser.add_argument("--plain-trials", type=int, help="of the other arms")
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    parser.add_argument("--add", action="store_true", help="to the rounds in FILE.json")
    parser.add_argument("-o", "--output", metavar="FILE.json", type=Path)
    args = parser.parse_args()
    job = Job(
        args.task,
        args.trials,
        seed=args.seed,
        epochs=args.epochs,
        data_dir=args.data_dir,
        train_samples=args.train_samples,
        fuse=args.fuse,
        workers=args.workers,
        plain_trials=args.plain_trials,
    )
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "study": lambda: part_study(job, args.rounds, "plain"),
        "ray": lambda: part_study(job, args.rounds, "ray"),
        "growth": lambda: part_growth(job, args.most),
        "training": lambda: part_training(job, args.counts, args.rounds),
        "average": lambda: part_average(job, args.rounds),
        "workers": lambda: part_workers(job, args.rounds),
        "slots": lambda: part_slots(job, args.rounds),
        "shares": lambda: part_shares(job, args.rounds),
        "help": lambda: part_help(args.rounds),
    }
    dear = {"workers", "slots"}
    unknown = set(args.part) - set(parts)
    if unknown:
        parser.error(f"unknown part {', '.join(sorted(unknown))} (valid: {', '.join(parts)})")
    print(json.dumps(machine()))
    for name in args.part or [name for name in parts if name not in dear]:
        found = parts[name]()
        if args.output:
            keep(
                args.output,
                name if name == "help" else f"{name} {job.task}",
                found,
                add=args.add,
            )


if __name__ == "__main__":
    main()
