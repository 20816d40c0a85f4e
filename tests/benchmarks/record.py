"""Writes what a benchmark found beside a study: the table into its README, raw values as JSON."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import machine


def write(
    folder: Path, part: str, lines: Sequence[str], rows: Sequence[Any], command: str
) -> None:
    """Put a table between its marks in ``README.md``, and its rows into ``record.json``.

    Args:
        folder: Of the study; ``README.md`` has the marks ``<!-- part -->`` and ``<!-- /part -->``.
        part: Name of the table.
        lines: The table.
        rows: Raw values.
        command: Makes them again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "record.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    record[part] = {**machine(), "commit": commit(), "command": command, "rows": plain(list(rows))}
    path.write_text(to_text(record))
    page = folder / "README.md"
    marks = f"<!-- {part} -->", f"<!-- /{part} -->"
    old = page.read_text() if page.exists() else "\n".join(marks) + "\n"
    before, _, rest = old.partition(marks[0])
    _, _, after = rest.partition(marks[1])
    page.write_text("\n".join([before + marks[0], *lines, marks[1] + after]))


def to_text(record: Mapping[str, Any]) -> str:
    """A record as JSON, with each row on a line of its own."""
    parts = []
    for name, part in record.items():
        head = json.dumps({key: value for key, value in part.items() if key != "rows"}, indent=2)
        rows = ",\n".join(json.dumps(row) for row in part["rows"])
        parts.append(f'{json.dumps(name)}: {head[:-2]},\n  "rows": [\n{rows}\n]}}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def plain(value: Any) -> Any:
    """For JSON: numbers to six digits, None for what is not finite."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def commit() -> str:
    """The commit that is checked out; with a plus where files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run(
        [*git, "status", "--porcelain", "-uno", "--", "../../lrsearch"],
        capture_output=True,
        text=True,
    )
    return head.stdout.strip() + "+" * bool(changed.stdout.strip())
