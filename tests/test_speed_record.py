"""The page of the speed record says what its record holds."""

from __future__ import annotations

import json
from pathlib import Path

from tests.benchmarks import speed_page

FOLDER = Path(__file__).resolve().parents[1] / "studies" / "speed"


def test_tables_and_figure_are_what_the_record_renders_to() -> None:
    record = json.loads((FOLDER / "record.json").read_text(encoding="utf-8"))
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert speed_page.page(record, readme) == readme
    runs = record["study digits"]["runs"]
    assert speed_page.figure(runs) == (FOLDER / "speed.svg").read_text(encoding="utf-8")


def test_another_figure_in_the_record_gives_another_page() -> None:
    record = json.loads((FOLDER / "record.json").read_text(encoding="utf-8"))
    before = speed_page.tables(record)
    record["study digits"]["runs"]["lrsearch"][0]["cpu"] *= 100
    assert speed_page.tables(record) != before
