"""What a replay on many tasks comes to: our pruner beside Optuna's, by pruner and by task.

    python -m tests.benchmarks.across scores.json --write studies/pruning

``scores.json`` is what ``tests.benchmarks.replay --csv scores.json`` wrote for the curves of
``tests.benchmarks.tasks``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lrsearch.prediction.surrogate import Array
from lrsearch.search.pruning import SHARE
from tests.benchmarks import record

CLEARLY = 2.0
"""Standard errors of a mean difference that is called clear."""
NEAR = 0.01
"""Share of the epochs that another pruner may use more."""

Row = Mapping[str, Any]


def same_epochs(ours: Sequence[Row], row: Row) -> Array | None:
    """Our regrets at the epochs of another pruner, (orders,); None beyond our settings."""
    ours = sorted(ours, key=lambda each: float(each["epochs"]))
    shares = [each["epochs"] for each in ours]
    if not shares[0] <= row["epochs"] <= shares[-1]:
        return None
    upper = max(1, int(np.searchsorted(shares, row["epochs"])))
    low, high = shares[upper - 1], shares[upper]
    part = (row["epochs"] - low) / (high - low)
    one, other = (np.array(ours[at]["regrets"]) for at in (upper - 1, upper))
    between: Array = (1 - part) * one + part * other
    return between


def clear(difference: Array) -> int:
    """1 if the mean is clearly above zero, -1 if clearly below, else 0."""
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    return int(np.sign(difference.mean())) if abs(difference.mean()) > CLEARLY * error else 0


def by_pruner(rows: Sequence[Row]) -> list[str]:
    """For each of Optuna's pruners and signals: on how many tasks ours is better."""
    heads = ["pruner", "signal", "epochs", "regret", "ours there", "ours better", "level", "worse"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for pruner, signal in dict.fromkeys((row["pruner"], row["signal"]) for row in rows):
        some = [row for row in rows if (row["pruner"], row["signal"]) == (pruner, signal)]
        there, verdicts = [], []
        for row in some if signal != "both" else ():
            own = same_epochs(ours_of(rows, row["record"]), row)
            if own is not None:
                there.append((np.mean(row["regrets"]), own.mean()))
                verdicts.append(clear(np.array(row["regrets"]) - own))
        cells = [f"{100 * np.mean([row['epochs'] for row in some]):.1f}%"]
        cells += [f"{100 * np.mean([row['regret'] for row in some]):.2f}%"]
        if there:
            their, own = 100 * np.mean(there, axis=0)
            cells += [f"{own:.2f}% ({their:.2f}%)"]
            cells += [f"{verdicts.count(sign)}" for sign in (1, 0, -1)]
        else:
            cells += [""] * 4
        lines.append(f"| {pruner} | {signal} | {' | '.join(cells)} |")
    return lines


def by_task(rows: Sequence[Row]) -> list[str]:
    """For each task: our default, and the best of Optuna's with as many epochs, in hindsight."""
    heads = ["task", "ours: epochs", "regret", "Optuna's best there", "its epochs", "its regret"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in dict.fromkeys(row["record"] for row in rows):
        some = of_task(rows, name)
        (own,) = [row for row in some if row["pruner"] == f"ours:{SHARE:g}"]
        most = own["epochs"] + NEAR
        others = [row for row in some if not is_ours(row) and row["epochs"] <= most]
        best = min(others, key=lambda row: float(row["regret"]))
        cells = [f"{own['epochs']:.1%}", error(own), f"{best['pruner']}, {best['signal']}"]
        cells += [f"{best['epochs']:.1%}", error(best)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def of_task(rows: Sequence[Row], name: str) -> list[Row]:
    return [row for row in rows if row["record"] == name]


def ours_of(rows: Sequence[Row], name: str) -> list[Row]:
    """Our settings on a task."""
    return [row for row in of_task(rows, name) if is_ours(row)]


def is_ours(row: Row) -> bool:
    return str(row["pruner"]).startswith("ours")


def error(row: Row) -> str:
    return f"{100 * row['regret']:.2f} ± {100 * row['regret_se']:.2f}%"


def summary(scores: Sequence[Path], folder: Path | None) -> None:
    """Print both tables of a replay's scores, and put them into a study's page."""
    rows = [row for path in scores for row in json.loads(path.read_text())]
    tables = {"other tasks, by pruner": by_pruner(rows), "other tasks": by_task(rows)}
    command = "python -m tests.benchmarks.across scores.json"
    for part, lines in tables.items():
        print("\n".join(lines), end="\n\n")
        if folder is not None:
            kept = rows if part == "other tasks" else []
            record.write(folder, part, lines, kept, f"{command} --write {folder}")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.across", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("scores", type=Path, nargs="+")
    parser.add_argument("--write", type=Path, help="folder for README.md and record.json")
    args = parser.parse_args(argv)
    summary(args.scores, args.write)


if __name__ == "__main__":
    main(sys.argv[1:])
