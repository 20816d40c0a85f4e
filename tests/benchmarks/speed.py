"""lrsearch against what a user would run instead: same task, budget, trials and machine, in turn.

    python -m tests.benchmarks.speed                       # digits, what takes some minutes
    python -m tests.benchmarks.speed study --task square --trials 20 --plain-trials 2
    python -m tests.benchmarks.speed ray --trials 50       # needs 'ray[tune]'
    python -m tests.benchmarks.speed own --trials 30 --tasks tensors rows
    python -m tests.benchmarks.speed growth --sizes 10 30 100 300 1000 --most-plain 300
    python -m tests.benchmarks.speed training slots --counts 1 2 4 8 16 32
    python -m tests.benchmarks.speed workers --task cifar10 --data-dir DIR --train-samples 2000 \\
        --epochs 4 --trials 16

With ``-o studies/speed/record.json`` a part replaces its last result there, and the page beside it
is written anew (:mod:`tests.benchmarks.speed_page`).

Arms run one after the other in processes of their own, again and again; what is compared are
ratios within one round, given as median and range over the rounds. CPU seconds are those of the
whole process with its children: imports, data, sampling and storing included.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import lrsearch
from tests.benchmarks import parts, speed_page
from tests.benchmarks.arms import Job
from tests.benchmarks.measure import machine
from tests.benchmarks.own_tasks import TASKS

TRIALS = 200
SOME = ("study", "training", "average", "shares", "help")
"""What runs unless parts are named: the others take long, or more than lrsearch has installed."""


def keep(path: Path, name: str, found: dict[str, Any], *, add: bool) -> None:
    """Put a part into a record, with where and how it was measured, and write its page anew.

    With ``add`` its rounds go behind those that are there.
    """
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if add and name in record:
        for key in {"runs", "rows"} & set(found):
            for arm, rounds in record[name][key].items():
                found[key][arm] = rounds + found[key].get(arm, [])
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


def title(part: str, job: Job) -> str:
    """The name of a part in the record."""
    if part == "help":
        return part
    if part == "own":
        return f"own tasks, {job.trials} trials"
    several = part in ("workers", "shares") and job.trials != TRIALS
    return f"{part} {job.task}" + f", {job.trials} trials" * several


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("part", nargs="*", help=f"default: {' '.join(SOME)}")
    parser.add_argument("--task", default="digits")
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS, help="of own")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--data-dir")
    parser.add_argument("--train-samples", type=int)
    parser.add_argument("--fuse", default="auto")
    parser.add_argument("--workers", default="auto")
    sizes = [10, 30, 100, 300]
    parser.add_argument("--sizes", type=int, nargs="+", default=sizes, help="trials, of growth")
    parser.add_argument("--most-plain", type=int, default=100, help="trials, of growth")
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
    known: dict[str, Callable[[], dict[str, Any]]] = {
        "study": lambda: parts.part_study(job, args.rounds, "plain"),
        "ray": lambda: parts.part_study(job, args.rounds, "ray"),
        "own": lambda: parts.part_own(job, args.rounds, args.tasks),
        "growth": lambda: parts.part_growth(job, args.sizes, args.most_plain, args.rounds),
        "training": lambda: parts.part_training(job, args.counts, args.rounds),
        "average": lambda: parts.part_average(job, args.rounds),
        "workers": lambda: parts.part_workers(job, args.rounds),
        "slots": lambda: parts.part_slots(job, args.counts, args.rounds),
        "shares": lambda: parts.part_shares(job, args.rounds),
        "help": lambda: parts.part_help(args.rounds),
    }
    if unknown := set(args.part) - set(known):
        parser.error(f"unknown part {', '.join(sorted(unknown))} (valid: {', '.join(known)})")
    # As pip does: with PYTHONDONTWRITEBYTECODE every run from a checkout would compile it anew.
    compileall.compile_dir(Path(lrsearch.__file__).parent, quiet=1)
    print(json.dumps(machine()))
    for name in args.part or SOME:
        found = known[name]()
        if args.output:
            keep(args.output, title(name, job), found, add=args.add)


if __name__ == "__main__":
    main()
