"""The page of the speed record: ``studies/speed/README.md`` and a figure, from ``record.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import spread
from tests.benchmarks.speed_figures import NAMES, WORDS, drawings


def tables(record: dict[str, Any]) -> str:
    """All tables of a record, as Markdown."""
    parts = [_machine(record)]
    parts += [f"![{WORDS[name]}]({name})" for name in drawings(record)]
    for name, part in record.items():
        kind = name.split()[0]
        text = {
            "study": _study,
            "ray": _study,
            "own": _own,
            "training": _training,
            "growth": _growth,
            "workers": _workers,
            "average": _average,
            "slots": _slots,
            "shares": _shares,
            "help": _help,
        }[kind](part)
        parts.append(f"**{name}** (load {part['load'][0]:g}, commit {part['commit']})\n\n{text}")
    return "\n\n".join(parts) + "\n"


def _machine(record: dict[str, Any]) -> str:
    one = next(iter(record.values()))["machine"]
    return (
        f"{one['cores']} cores of {one['cpu']}, Python {one['python']}, torch {one['torch']}, "
        f"Optuna {one['optuna']}, {one['date']}. Median (range) of rounds, or the only one."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _study(part: dict[str, Any]) -> str:
    runs = part["runs"]
    rows = []
    for arm, found in runs.items():
        rows.append(
            [
                NAMES[arm],
                f"{found[0]['trials']}",
                spread([c["epochs"] for c in found]),
                spread([c["cpu"] for c in found]),
                spread([1e3 * c["cpu"] / max(1, c["epochs"]) for c in found]),
                spread([c["wall"] for c in found]),
                spread([c["memory"] for c in found]),
                spread([c["best"] for c in found]),
            ]
        )
    head = ["", "trials", "epochs", "CPU s", "CPU ms / epoch", "wall s", "MiB", "best value"]
    text = _table(head, rows)
    for arm, found in runs.items():
        if arm == "lrsearch":
            continue
        pairs = list(zip(found, runs["lrsearch"], strict=True))
        each = spread([a["cpu"] * b["epochs"] / a["epochs"] / b["cpu"] for a, b in pairs])
        line = f"{NAMES[arm]} / lrsearch, n = {len(pairs)}: CPU per trained epoch {each}"
        if found[0]["trials"] == runs["lrsearch"][0]["trials"]:
            whole = spread([a["cpu"] / b["cpu"] for a, b in pairs])
            line += f", of the whole study {whole}, best value {spread(_bests(pairs))}, "
            line += f"wall time to the worse of both bests {spread(_reached(pairs))}, "
            line += f"peak memory {spread([a['memory'] / b['memory'] for a, b in pairs])}"
        if arm == "ray":
            line += ". Its memory is what all of its processes hold alone, ours all of the largest"
        text += f"\n\n{line}."
    return text


def _bests(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[float]:
    return [theirs["best"] / ours["best"] for theirs, ours in pairs]


def _reached(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[float]:
    """How many times longer theirs takes to a value that both have found."""
    found = []
    for pair in pairs:
        target = max(run["best"] for run in pair)
        theirs, ours = (
            next(wall for wall, loss in run["history"] if loss <= target) for run in pair
        )
        found.append(theirs / ours)
    return found


def _training(part: dict[str, Any]) -> str:
    plain = part["rows"]["plain"]
    rows = []
    for way, found in part["rows"].items():
        pairs = zip(plain, found, strict=True)
        rows.append(
            [
                f"{way} fused" if way.isdecimal() else way,
                spread([r["ms_per_epoch"] for r in found]),
                spread([r["images_per_cpu_second"] for r in found]),
                spread([a["ms_per_epoch"] / b["ms_per_epoch"] for a, b in pairs]),
                f"{max(r['memory'] for r in found):.0f}",
            ]
        )
    head = ["way", "CPU ms / epoch", "samples / CPU s", "times the plain loop", "peak MiB"]
    return _table(head, rows)


def _growth(part: dict[str, Any]) -> str:
    rows = []
    sizes = sorted({cost["trials"] for cost in part["runs"]["lrsearch"]})
    for n in sizes:
        ours, plain = (
            [cost for cost in part["runs"].get(arm, []) if cost["trials"] == n]
            for arm in ("lrsearch", "plain")
        )
        cells = [f"{n:,}"]
        for found in (ours, plain):
            values = [[c["epochs"], c["cpu"], 1e3 * c["cpu"] / n, c["best"]] for c in found]
            columns = zip(*values, strict=True) if values else []
            cells += [spread(column) for column in columns] or ["not run"] * 4
        ratios = [a["cpu"] / b["cpu"] for a, b in zip(plain, ours, strict=bool(plain))]
        rows.append([*cells, spread(ratios) if ratios else "–"])
    each = ["epochs", "CPU s", "ms a trial", "best"]
    return _table(["trials", *each, *[f"plain: {name}" for name in each], "ratio of CPU s"], rows)


def _own(part: dict[str, Any]) -> str:
    runs, rows = part["runs"], []
    names = [arm.removesuffix(", plain") for arm in runs if arm.endswith(", plain")]
    for name in names:
        ours, plain = runs[f"{name}, lrsearch"], runs[f"{name}, plain"]
        pairs = list(zip(plain, ours, strict=True))
        each = [a["cpu"] * b["epochs"] / a["epochs"] / b["cpu"] for a, b in pairs]
        rows.append(
            [
                f"{name} ({len(pairs)})",
                spread([c["epochs"] for c in ours]),
                spread([c["epochs"] for c in plain]),
                spread([c["cpu"] for c in ours]),
                spread([c["cpu"] for c in plain]),
                spread(each),
                spread([a["cpu"] / b["cpu"] for a, b in pairs]),
                spread([b["best"] / a["best"] for a, b in pairs]),
            ]
        )
    head = ["task (n)", "epochs: ours", "plain", "CPU s: ours", "plain"]
    head += ["times cheaper: an epoch", "a study", "best value, ours / plain"]
    return _table(head, rows)


def _workers(part: dict[str, Any]) -> str:
    one, two = part["runs"]["1"], part["runs"]["2"]
    rows = [
        [name, spread([c["wall"] for c in found]), spread([c["cpu"] for c in found])]
        for name, found in (("1 worker", one), ("2 workers", two))
    ]
    gain = spread([a["wall"] / b["wall"] for a, b in zip(one, two, strict=True)])
    more = spread([b["cpu"] / a["cpu"] for a, b in zip(one, two, strict=True)])
    return (
        f"{_table(['', 'wall s', 'CPU s'], rows)}\n\nn = {len(one)}: two are {gain} times one, "
        f"by wall time, for {more} times the CPU seconds."
    )


def _average(part: dict[str, Any]) -> str:
    rows = []
    for way in ("single", "16"):
        found, without = part["rows"][way], part["rows"][f"{way} without"]
        pairs = list(zip(found, without, strict=True))
        rows.append(
            [
                f"{way} fused" if way.isdecimal() else way,
                spread([r["ms_per_epoch"] for r in found]),
                spread([r["ms_per_epoch"] for r in without]),
                spread([a["ms_per_epoch"] / b["ms_per_epoch"] for a, b in pairs]),
            ]
        )
    return _table(["", "with: CPU ms / epoch", "without", "ratio"], rows)


def _shares(part: dict[str, Any]) -> str:
    whole = [sum(values) for values in zip(*part["rows"].values(), strict=True)]
    rows = [
        [name, spread(found), spread([100 * a / b for a, b in zip(found, whole, strict=True)])]
        for name, found in part["rows"].items()
    ]
    return _table(["", "CPU s", "% of the study"], [*rows, ["together", spread(whole), "100"]])


def _slots(part: dict[str, Any]) -> str:
    rows = [
        [fuse, f"{len(found)}"]
        + [spread([c[key] for c in found]) for key in ("epochs", "cpu", "wall", "memory", "best")]
        for fuse, found in sorted(part["runs"].items(), key=lambda pair: int(pair[0]))
    ]
    return _table(["fused", "n", "epochs", "CPU s", "wall s", "MiB", "best value"], rows)


def _help(part: dict[str, Any]) -> str:
    rows = [
        [
            f"`{name}`",
            spread([1e3 * r["cpu"] for r in found]),
            spread([1e3 * r["wall"] for r in found]),
        ]
        for name, found in part["rows"].items()
    ]
    return _table(["", "CPU ms", "wall ms"], rows)


def page(record: dict[str, Any], words: str) -> str:
    """The README: words of people up to the mark, then the tables."""
    return words.partition(MARK)[0] + MARK + "\n\n" + tables(record)


MARK = "<!-- written by tests/benchmarks/speed_page.py from record.json -->"


def write(record: Path) -> None:
    """Write the page and the figure beside a record."""
    found = json.loads(record.read_text(encoding="utf-8"))
    readme = record.parent / "README.md"
    words = readme.read_text(encoding="utf-8") if readme.exists() else "# Speed\n\n"
    readme.write_text(page(found, words), encoding="utf-8")
    for name, svg in drawings(found).items():
        (record.parent / name).write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    write(Path("studies/speed/record.json"))
