"""With many fresh seeds, is the one run at higher rates of ``confirm`` still needed?

    python -m tests.benchmarks.more_seeds --write studies/winners

It trains nothing: it asks the searches that ``tests.benchmarks.stress`` has recorded again, of
which every finalist and recipe was trained on twenty fresh seeds. Five, ten or fifteen of these
choose, and the others judge; each seed is in turn the first of those that choose.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks import record
from tests.benchmarks.live import GUESSING, NOTHING, percent
from tests.benchmarks.stress import CHOOSE, lowest

NUMBERS = (5, 10, 15)
"""Fresh seeds that choose."""
CHOICES = ("lowest", "lowest of those that bear the higher rates")


def searches(folder: Path) -> Iterator[Mapping[str, Any]]:
    """The recorded searches whose arms were trained at their own and at higher rates."""
    for name, part in json.loads((folder / "record.json").read_text()).items():
        if name.split(",")[0] == "stress":
            yield from part["rows"]


def judged(row: Mapping[str, Any], count: int) -> list[tuple[float, float]]:
    """For each of :data:`CHOICES`: how far above the best recipe, and share that learnt nothing.

    Means over all seeds that may be the first of the ``count`` that choose.
    """
    arms = row["arms"]
    losses = np.array([arm["losses"]["1.0"] for arm in arms], dtype=np.float64)
    losses = np.minimum(np.nan_to_num(losses, nan=GUESSING, posinf=GUESSING), GUESSING)
    recipes = [i for i, arm in enumerate(arms) if arm["baseline"] is not None]
    found = []
    for first in range(losses.shape[1]):
        order = np.roll(losses, -first, axis=1)
        means, rest = order[:, :count].mean(axis=1).tolist(), order[:, count:]
        taken = lowest(row, first % CHOOSE, means.__getitem__)
        best = min(recipes, key=means.__getitem__)
        gains = [rest[i].mean() / rest[best].mean() - 1 for i in taken]
        found.append(list(zip(gains, [(rest[i] > NOTHING).mean() for i in taken], strict=True)))
    return [(float(gain), float(lost)) for gain, lost in np.mean(found, axis=0)]


def scores(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each choice came to, for each task and number of seeds, with the figures per search."""
    out = []
    for task in dict.fromkeys(row["task"] for row in rows):
        some = [row for row in rows if row["task"] == task]
        for count in NUMBERS:
            found = np.array([judged(row, count) for row in some])  # (searches, choices, 2)
            for at, choice in enumerate(CHOICES):
                gains, lost = found[:, at].T.tolist()
                own = {"task": task, "seeds": count, "choice": choice}
                out.append({**own, "gains": gains, "lost": float(np.mean(lost))})
    return out


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Distance from the best recipe, and the share of runs that learnt nothing."""
    heads = ["task", "searches", "seeds that choose", "choice", "against the best recipe"]
    lines = [f"| {' | '.join([*heads, 'learnt nothing'])} |", "|---" * 6 + "|"]
    for row in rows:
        gain = "{:+.1f} ± {:.1f}%".format(*percent(np.array(row["gains"])))
        cells = [row["task"], len(row["gains"]), row["seeds"], row["choice"], gain]
        lines.append(f"| {' | '.join(map(str, cells))} | {100 * row['lost']:.2f}% |")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.more_seeds", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--folder", type=Path, default=Path("studies/winners"))
    parser.add_argument("--tasks", nargs="*", default=["digits", "few digits"])
    parser.add_argument("--write", type=Path, help="folder for README.md and record.json")
    args = parser.parse_args(argv)
    rows = scores([row for row in searches(args.folder) if row["task"] in args.tasks])
    lines = table(rows)
    print("\n".join(lines))
    if args.write:
        command = f"python -m tests.benchmarks.more_seeds --write {args.write}"
        record.write(args.write, "more seeds", lines, rows, command)


if __name__ == "__main__":
    main(sys.argv[1:])
