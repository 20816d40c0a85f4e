"""The page of the speed record says what its record holds."""

from __future__ import annotations

import json
from pathlib import Path

from tests.benchmarks import speed_figures, speed_page

FOLDER = Path(__file__).resolve().parents[1] / "studies" / "speed"


def test_tables_and_figure_are_what_the_record_renders_to() -> None:
    record = json.loads((FOLDER / "record.json").read_text(encoding="utf-8"))
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert speed_page.page(record, readme) == readme
    drawn = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.svg")}
    assert drawn == speed_figures.drawings(record)
    assert "speed.svg" in drawn


def test_another_figure_in_the_record_gives_another_page() -> None:
    record = json.loads((FOLDER / "record.json").read_text(encoding="utf-8"))
    before = speed_page.tables(record)
    record["training digits"]["rows"]["16"][0]["ms_per_epoch"] *= 100
    assert speed_page.tables(record) != before
