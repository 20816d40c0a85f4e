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

from lrsearch.report.raised import RAISE, is_near_edge
from tests.benchmarks import record
from tests.benchmarks.live import GUESSING, NOTHING, percent
from tests.benchmarks.stress import CHOOSE, CONFIRMED, robust

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
    others = [i for i, arm in enumerate(arms) if arm["baseline"] is None]
    found = []
    for first in range(losses.shape[1]):
        order = np.roll(losses, -first, axis=1)
        means, rest = order[:, :count].mean(axis=1), order[:, count:]
        held = robust(arms, first % CHOOSE) if "value" in arms[0] else row["gentler"]
        own = [i for i in dict.fromkeys([0, held, row["gentler"], *others]) if i in others]
        own = own[:CONFIRMED]
        raised = [arm["losses"][str(RAISE)][first % CHOOSE] for arm in arms]
        far = {i for i in own if is_near_edge(raised[i], float(means[i]), None)}
        aside = far if far != set(own) else set()
        taken = [min([*own, *recipes], key=lambda i: means[i])]
        taken.append(min([*own, *recipes], key=lambda i: (i in aside, means[i])))
        best = min(recipes, key=lambda i: means[i])
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
