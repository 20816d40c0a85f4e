"""The benchmark of answers with and without pruning; so says its page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks import answers, live

STUDY = Path(__file__).resolve().parents[1] / "studies" / "pruning"


def test_both_searches_are_judged_on_the_same_fresh_seeds(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "FRESH", 2)
    task = replace(live.make_task("digits:2", in_tmp), batch_size=400)
    row = answers.run_study(task, 3, trials=12)
    assert row["arms"].keys() == {"off", "on"}
    off, on = row["arms"]["off"], row["arms"]["on"]
    assert off["epochs"] == 2 * 12 >= on["epochs"]
    assert len(off["winner"]) == len(on["answer"]) == 2
    lines = answers.table([{"task": "t", **row}, {"task": "t", **row}])
    assert lines[2].startswith("| t | off | ")
    assert "| 100 ± 0% |" in lines[2]


@pytest.mark.parametrize("trials", [100, 400])
def test_the_page_is_what_the_record_says(trials: int) -> None:
    rows = json.loads((STUDY / "record.json").read_text())[f"answers, {trials} trials"]["rows"]
    assert "\n".join(answers.table(rows)) in (STUDY / "README.md").read_text()
