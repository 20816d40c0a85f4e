"""The benchmark of what a user gets: seeds that choose do not judge; its page is its record."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import winners

STUDY = Path(__file__).resolve().parents[1] / "studies" / "winners"


def arm(label: str, choose: float, judge: float, baseline: str | None = None) -> dict[str, Any]:
    losses = [choose] * winners.CHOOSE + [judge] * winners.JUDGE
    return {"label": label, "baseline": baseline, "losses": losses}


def test_the_first_seeds_choose_and_the_others_judge() -> None:
    arms = [
        arm("winner", 0.5, 0.1),
        arm("chosen", 0.2, 0.4),
        arm("gentler", 0.6, 0.5),
        arm("a recipe", 0.3, 0.8, "StepLR"),
        arm("another", 0.4, 0.2, "ConstantLR"),
    ]
    row = {"task": "t", "seed": 0, "arms": arms, "gentler": 2}
    found = winners.judged(row)
    assert [set(losses) for losses in found.values()] == [{0.1}, {0.5}, {0.4}, {0.8}]
    assert all(len(losses) == winners.JUDGE for losses in found.values())
    first, _, second, third = winners.table([row, row])[2:]
    assert "| 0.1000 ± 0.0000 | -87.5 ± 0.0% | 0 of 2 | 0 of 20 |" in first
    assert "| 0.4000 ± 0.0000 | -50.0 ± 0.0% | 0 of 2 | 0 of 20 |" in second
    assert "| 0.8000 ± 0.0000 |  |  | 0 of 20 |" in third


def test_a_study_is_searched_and_confirmed(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winners, "CHOOSE", 2)
    monkeypatch.setattr(winners, "JUDGE", 1)
    task = winners.make_task("digits", in_tmp)
    row = winners.run_study(replace(task, epochs=2), 3, trials=6)
    assert set(row["recipes"]) == {a["baseline"] for a in row["arms"]} - {None}
    assert all(len(a["losses"]) == 3 for a in row["arms"])
    assert row["gentler"] < len(row["arms"])


def test_the_page_is_what_the_record_says() -> None:
    rows = json.loads((STUDY / "record.json").read_text())["winners"]["rows"]
    page = (STUDY / "README.md").read_text()
    lines = winners.table(rows)
    assert "\n".join(lines) in page

    def worse(choice: str) -> str:
        found = [re.findall(r"\| (\d+) of (\d+) \|", line)[0] for line in lines if choice in line]
        return " of ".join(str(sum(map(int, column))) for column in zip(*found, strict=True))

    text = " ".join(page.split())
    assert f"it was worse than the best recipe in {worse(winners.CHOICES[0])} searches" in text
    assert f"The gentler one was worse in {worse(winners.CHOICES[1])}, but by less" in text
    assert f"What five fresh seeds chose was worse in {worse(winners.CHOICES[2])}." in text
