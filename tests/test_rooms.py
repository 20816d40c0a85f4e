"""The arrows between the rooms of the package point one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import lrsearch

ROOT = Path(lrsearch.__file__).parent
LEAVES = {"errors", "divergence", "files", "imports", "measured", "values"}
"""Modules that every room but ``schedules`` may stand on."""
ONLY = {
    "schedules": {"errors"},
    "tasks": {"schedules", *LEAVES},
    "training": {"tasks", "schedules", *LEAVES},
    "storage": LEAVES,
    "prediction": {"attributes", "optuna_helpers", "schedules", "storage", *LEAVES},
}
"""Room -> all that it may import."""
DOORS = {"api", "dashboard", *(path.stem for path in ROOT.glob("cli*.py"))}
"""Where users come in: nothing inside knows of them."""
NEVER = {
    "report": {"training", "search", *DOORS},
    "search": {"confirm", "train", *DOORS},
    "integrations": {"training", "search", "report", "storage", *DOORS},
}


def imported(path: Path) -> Iterator[str]:
    """The rooms and top modules that a module imports, at the top, in functions and for types."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "lrsearch":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lrsearch."):
            yield str(node.module).split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("lrsearch."))


def arrows(room: str) -> dict[str, set[str]]:
    """What a room imports -> the modules of the room that do."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / room).rglob("*.py")):
        for name in imported(path):
            found.setdefault(name, set()).add(path.stem)
    found.pop(room, None)
    return {name: users for name, users in found.items() if not name.startswith("__")}


@pytest.mark.parametrize("room", ONLY)
def test_a_lower_room_stands_on_those_below_it_alone(room: str) -> None:
    assert arrows(room), "the test sees no import at all"
    assert {name: by for name, by in arrows(room).items() if name not in ONLY[room]} == {}


@pytest.mark.parametrize("room", NEVER)
def test_an_upper_room_does_not_reach_across(room: str) -> None:
    assert {name: by for name, by in arrows(room).items() if name in NEVER[room]} == {}


def test_modules_that_all_stand_on_stand_on_each_other_and_schedules_alone() -> None:
    for name in LEAVES:
        assert set(imported(ROOT / f"{name}.py")) <= {"schedules", *LEAVES}
