"""What a user gets: a search's winner or ``gentler.yaml``, what ``--confirm`` chooses, a recipe.

    python -m tests.benchmarks.winners --data-dir DIR --seeds 24 --write studies/winners

Each study is searched and confirmed by ``lrsearch.search(confirm=...)``. The first fresh seeds
choose, as they do for a user; the others, which nobody has looked at, judge what was chosen.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import optuna

import lrsearch
from lrsearch.report.confirmed import Confirmed
from lrsearch.report.finalists import gentler
from lrsearch.tasks import load_task
from lrsearch.tasks.task import Task
from tests.benchmarks import record, tasks
from tests.benchmarks.live import GUESSING, NOTHING, percent
from tests.benchmarks.samplers import TASKS, mean_se

CHOOSE = 5
"""Fresh seeds that choose, as many as ``lrsearch confirm`` takes by default."""
JUDGE = 10
"""Further seeds, by which the chosen are compared."""
RECIPE = "best recipe on 5 fresh seeds"
CHOICES = ("winner of the search", "gentler one of the search", "lowest on 5 fresh seeds", RECIPE)


def make_task(name: str, data_dir: Path) -> Task:
    """``digits``, the built-in task as it is; the others of ``samplers`` and ``tasks`` here."""
    if name == "digits":
        return replace(load_task("digits"), test=None)
    return replace(
        tasks.TASKS[name]() if name in tasks.TASKS else TASKS[name](data_dir), test=None
    )


@contextlib.contextmanager
def searched(task: Task, seed: int, trials: int, **settings: Any) -> Iterator[lrsearch.Result]:
    """A search with everything by default, in a database that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        yield lrsearch.search(
            task,
            name="s",
            trials=trials,
            seed=seed,
            storage=f"sqlite:///{folder}/s.db",
            out=folder,
            device="cpu",
            quiet=True,
            **settings,
        )


def run_study(task: Task, seed: int, trials: int) -> dict[str, Any]:
    """One search with its confirmation: for each schedule the losses on all fresh seeds."""
    with searched(task, seed, trials, robust=False, confirm=CHOOSE + JUDGE) as result:
        found = result.confirmed
        assert found is not None
        value, recipes = result.tables.table.complete[0].value, result.baselines
        milder = gentler(result.tables.table)
    arms = [
        {"label": a.name, "baseline": a.baseline, "losses": losses(found, a.key)}
        for a in found.arms
    ]
    its = 0 if milder is None else [a.trial for a in found.arms].index(milder.number)
    return {"value": value, "recipes": recipes, "arms": arms, "gentler": its}


def losses(found: Confirmed, key: str) -> list[float]:
    """On every seed; a run that was lost has learnt nothing, and counts as guessing."""
    return [found.arm(key).val_loss.get(seed, GUESSING) for seed in found.seeds]


def judged(row: Mapping[str, Any]) -> dict[str, Any]:
    """The losses of each of :data:`CHOICES` on the seeds that did not choose, (JUDGE,) each."""
    arms = row["arms"]

    def chosen(some: Sequence[Mapping[str, Any]]) -> list[float]:
        best = min(some, key=lambda arm: float(np.mean(arm["losses"][:CHOOSE])))
        return list(best["losses"][CHOOSE:])

    recipes = [arm for arm in arms if arm["baseline"] is not None]
    two = (arms[i]["losses"][CHOOSE:] for i in (0, row["gentler"]))
    picks = (*two, chosen(arms), chosen(recipes))
    return dict(zip(CHOICES, picks, strict=True))


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Mean loss, distance from the best recipe, and how often it is worse or learns nothing."""
    lines = [
        "| task | choice | validation loss | against the best recipe | worse than it "
        "| runs that learnt nothing |",
        "|---|---|---|---|---|---|",
    ]
    for task in dict.fromkeys(row["task"] for row in rows):
        found = [judged(row) for row in rows if row["task"] == task]
        recipe = np.array([np.mean(each[RECIPE]) for each in found])
        for name in CHOICES:
            own = np.array([each[name] for each in found])
            mean = own.mean(axis=1)
            gain = (
                "" if name == RECIPE else "{:+.1f} ± {:.1f}%".format(*percent(mean / recipe - 1))
            )
            worse = "" if name == RECIPE else f"{int((mean > recipe).sum())} of {len(mean)}"
            cells = ["{:.4f} ± {:.4f}".format(*mean_se(mean)), gain, worse]
            lost = f"{int((own > NOTHING).sum())} of {own.size}"
            lines.append(f"| {task} | {name} | {' | '.join(cells)} | {lost} |")
    return lines


def arguments(name: str, description: str | None) -> argparse.ArgumentParser:
    """The words of a benchmark of searches."""
    parser = argparse.ArgumentParser(f"python -m tests.benchmarks.{name}", description=description)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--tasks", nargs="*", default=["digits", "fashion-mnist", "cifar10"])
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--first", type=int, default=0, help="seed of the first search")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--raw", type=Path, default=Path(f"{name}.jsonl"), help="done runs; grows")
    parser.add_argument("--write", type=Path, help="folder for README.md and record.json")
    return parser


def searches(
    args: argparse.Namespace,
    run: Callable[[Task, int, int], dict[str, Any]],
    make: Callable[[str, Path], Task] = make_task,
) -> list[dict[str, Any]]:
    """What ``run(task, seed, trials)`` gives for every search that is asked for."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows = [json.loads(line) for line in args.raw.open()] if args.raw.exists() else []
    done = {(row["task"], row["seed"]) for row in rows}
    for name in args.tasks:
        task = make(name, args.data_dir)
        for seed in range(args.first, args.first + args.seeds):
            if (name, seed) in done:
                continue
            rows.append({"task": name, "seed": seed, **run(task, seed, args.trials)})
            with args.raw.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(f"{name:14} seed {seed:2}", flush=True)
    seeds = range(args.first, args.first + args.seeds)
    return [row for row in rows if row["task"] in args.tasks and row["seed"] in seeds]


def command(name: str, args: argparse.Namespace) -> str:
    """The line that makes the record again."""
    text = f"python -m tests.benchmarks.{name} --data-dir DIR --tasks {shlex.join(args.tasks)}"
    text += f" --seeds {args.seeds} --first {args.first} --trials {args.trials}"
    return f"{text} --write {args.write}"


def main(argv: Sequence[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    args = arguments("winners", __doc__).parse_args(argv)
    rows = searches(args, run_study)
    lines = table(rows)
    print("\n".join(lines))
    if args.write:
        record.write(args.write, "winners", lines, rows, command("winners", args))


if __name__ == "__main__":
    main(sys.argv[1:])
