"""What is compared: one whole study with lrsearch, the plain Optuna script, or Ray Tune."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests.benchmarks.measure import Cost, spawn, spread


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


def read_study(storage: str, began: float, cost: Cost) -> None:
    """Fill in what a study's database tells."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    summary, *_ = optuna.get_all_study_summaries(storage)  # then the finalists' confirmation
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


Arm = Callable[[Job, Path], Cost]


def in_turn(arms: Mapping[str, Arm], job: Job, rounds: int) -> dict[str, list[Cost]]:
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
