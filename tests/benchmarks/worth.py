"""What pruned trials are taken to be worth, beside what they are: the importance rests on it.

    python -m tests.benchmarks.worth --seeds 8 --write studies/importance

Each search is run with pruning; its pruned trials are then trained to the end, from the same seed.
Two ways to place them among the others, where they stood in mid-run and by the loss that is
predicted for their end, are compared with the truth, and so are the shares of the importance.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

from lrsearch.prediction.beliefs import foretold
from lrsearch.report.importance import Importance, importance, worth
from lrsearch.report.tables import StudyTable, load
from lrsearch.schedules import Schedule
from lrsearch.storage import open_storage
from lrsearch.tasks import load_task
from lrsearch.tasks.kept import with_samples_kept
from lrsearch.training.ensemble import EnsembleRunner
from tests.benchmarks.record import write

OWN = "tests.benchmarks.own_tasks"
SEARCHES: dict[str, tuple[str, int, str]] = {
    "digits": ("digits", 200, "schedule"),
    "digits, 60 trials": ("digits", 60, "schedule"),
    "digits, median pruner": ("digits", 100, "median"),
    "digits, hyperband": ("digits", 100, "hyperband"),
    "table (`tensors`)": (f"{OWN}:tensors", 100, "schedule"),
    "regression (`own_loss`)": (f"{OWN}:own_loss", 60, "schedule"),
    "numbers and a category (`dicts`)": (f"{OWN}:dicts", 40, "schedule"),
}
"""Name -> task, trials and pruner."""
TOGETHER = 16
"""Trials that are trained to the end as one model."""


def search(task: str, trials: int, pruner: str, seed: int, folder: Path) -> optuna.Study:
    """A search with ``lrsearch run``."""
    url = f"sqlite:///{folder}/a.db"
    command = [sys.executable, "-m", "lrsearch", "run", "--task", task, "--trials", str(trials)]
    command += ["--pruner", pruner, "--seed", str(seed), "--storage", url, "--out", str(folder)]
    command += ["--name", "search", "--no-robust", "--workers", "1", "--json"]
    subprocess.run(command, check=True, capture_output=True)
    return optuna.load_study(study_name="search", storage=open_storage(url))


def trained_to_the_end(name: str, study: optuna.Study, seed: int) -> dict[int, float]:
    """Final losses of the pruned trials of a study; +inf where one diverges."""
    task = with_samples_kept(load_task(name))
    runner = EnsembleRunner(
        task,
        k=TOGETHER,
        optimizer=task.optimizer,
        optimizer_args=task.optimizer_args,
        seed=seed,
        device=torch.device("cpu"),
    )
    pruned = [t for t in study.trials if t.state.name == "PRUNED"]
    waiting = {t.number: Schedule.from_dict(t.user_attrs["schedule"]) for t in pruned}
    inside: dict[int, Schedule] = {}
    found: dict[int, float] = {}
    while waiting or inside:
        while waiting and len(inside) < TOGETHER:
            number = next(iter(waiting))
            inside[number] = waiting.pop(number)
            runner.add(number, inside[number])
        for number, result in runner.epoch().items():
            if result.diverged or result.epoch == inside[number].epochs:
                found[number] = math.inf if result.diverged else result.val_loss
                runner.remove(number)
                del inside[number]
    return found


def agreement(one: Mapping[int, float], other: Mapping[int, float], of: Sequence[int]) -> float:
    """Rank correlation of two orders of the same trials."""
    ranks = [np.argsort(np.argsort([each[k] for k in of])) for each in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def shares(found: Importance) -> dict[str, float]:
    """All shares of an importance, by where and what."""
    parts = {"overall": found.overall, "better": found.better, **found.within}
    return {f"{where}/{k}": v for where, of in parts.items() if of for k, v in of.share.items()}


def compared(table: StudyTable, guessed: Mapping[int, float], truth: Mapping[int, float]) -> Any:
    """How far both ways are from the truth, in one search."""
    true, finished = worth(table, truth), [t.number for t in table.finished]
    better = sorted(finished, key=lambda k: true[k])[: len(finished) // 2]
    wanted = shares(importance(table, truth))
    row: dict[str, Any] = {"trials": len(finished), "complete": len(table.complete)}
    row["rate: truth"] = wanted["overall/lr"]
    for name, losses in (("mid-run", {}), ("predicted", guessed)):
        places, found = worth(table, losses), shares(importance(table, losses))
        row[f"order: {name}"] = agreement(places, true, finished)
        row[f"better half: {name}"] = agreement(places, true, better)
        row[f"rate: {name}"] = found["overall/lr"]
        off = [abs(found.get(k, 0.0) - v) for k, v in wanted.items()]
        row[f"shares: {name}"] = float(np.mean(off))
    return row


def lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table of the page: means, and their standard error where there is room for it."""
    kinds = ("order", "better half", "shares", "rate")
    columns = [f"{kind}: {way}" for kind in kinds for way in ("mid-run", "predicted")]
    head = ["search", "n", "complete", *columns, "rate: truth"]
    out = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    names = [*SEARCHES, "all"]
    for name in names:
        mine = [r for r in rows if name in (r["search"], "all")]
        if not mine:
            continue
        complete = f"{np.mean([r['complete'] / r['trials'] for r in mine]):.0%}"
        cells = [name, str(len(mine)), complete]
        for column in (*columns, "rate: truth"):
            values = np.array([r[column] for r in mine])
            error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
            digits = 3 if column.startswith("shares") else 2
            cells.append(f"{values.mean():.{digits}f} ± {error:.{digits}f}")
        out.append("| " + " | ".join(cells) + " |")
    return out


def main(argv: Sequence[str] | None = None) -> None:
    """Run the searches and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--searches", nargs="+", choices=SEARCHES, default=[*SEARCHES])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="of the study")
    args = parser.parse_args(argv)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    rows = []
    for name in args.searches:
        for seed in range(args.first, args.first + args.seeds):
            task, trials, pruner = SEARCHES[name]
            with tempfile.TemporaryDirectory() as folder:
                study = search(task, trials, pruner, seed, Path(folder))
                truth = trained_to_the_end(task, study, seed)
                row = compared(load(study), foretold(study), truth)
            rows.append({"search": name, "seed": seed, **row})
            print(rows[-1], flush=True)
    print("\n".join(lines(rows)))
    if args.write:
        command = f"python -m tests.benchmarks.worth --seeds {args.seeds}"
        write(args.write, "worth", lines(rows), rows, command)


if __name__ == "__main__":
    main()
