"""A record holds what was measured: raw values, every pair compared, no place of this machine."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from scipy.stats import ttest_rel

from lrsearch.attributes import CONFIRM_ATTR, CONFIRM_SUFFIX
from lrsearch.errors import UsageError
from lrsearch.report import record as records
from lrsearch.report.record import make_record, to_json, write_record
from lrsearch.report.record_shown import record_block, record_figure
from lrsearch.schedules import Schedule
from lrsearch.storage import Storage
from tests.synthetic import Fake, make_study

FIELDS = ("study", "date", "hardware", "versions", "commit", "commands", "settings", "search")
"""What every record has; ``confirm`` too, where it was run."""
EPOCHS = 300
LOSSES = {"low": [0.1, 0.2, 0.3, 2.0], "high": [0.2, 0.25, 0.29, 2.0]}


def fake(name: str, loss: float, **attrs: Any) -> Fake:
    schedule = Schedule("CosineAnnealingLR", 0.1 if name == "low" else 0.2, EPOCHS)
    return Fake(
        {"scheduler": "CosineAnnealingLR", "lr": schedule.lr},
        {
            "scheduler": CategoricalDistribution(("CosineAnnealingLR",)),
            "lr": FloatDistribution(1e-3, 1.0, log=True),
        },
        schedule.to_dict(),
        schedule.trace().lr,
        [loss + 1, loss],  # type: ignore[arg-type]
        baseline=name,
        attrs=attrs,
    )


@pytest.fixture
def study(storage: Storage) -> optuna.Study:
    """A search of two baselines, and its confirmation on four seeds."""
    search = make_study(
        name="two", epochs=EPOCHS, storage=storage, made=[fake("low", 0.1), fake("high", 0.3)]
    )
    runs = [
        fake(name, loss, arm=name, seed=100 + i)
        for name, losses in LOSSES.items()
        for i, loss in enumerate(losses)
    ]
    again = make_study(name="two" + CONFIRM_SUFFIX, epochs=EPOCHS, storage=storage, made=runs)
    arms = [
        {"key": n, "schedule": fake(n, 1).schedule, "trial": i, "baseline": n}
        for i, n in enumerate(LOSSES)
    ]
    plan = {"of": "two", "top": 0, "arms": arms, "seeds": [100, 101, 102, 103]}
    again.set_user_attr(CONFIRM_ATTR, plan)
    return search


def test_record_has_the_raw_values_and_what_follows_from_them(study: optuna.Study) -> None:
    record = make_record(study)
    assert set(FIELDS) <= set(record)
    low, high = (record["confirm"]["arms"][name] for name in ("low", "high"))
    assert list(low["val_loss"].values()) == LOSSES["low"]
    assert low["mean"] == pytest.approx(0.65)
    assert low["median"] == pytest.approx(0.25)
    assert high["n"] == 4
    (row,) = record["confirm"]["comparisons"]
    expected = ttest_rel(np.log(LOSSES["high"]), np.log(LOSSES["low"]))
    assert (row["a"], row["b"], row["n"]) == ("low", "high", 4)
    assert row["p"] == pytest.approx(expected.pvalue)
    assert (row["a_lower"], row["equal"], row["b_lower"]) == (2, 1, 1)
    assert row["difference"] == pytest.approx(1 - np.exp(-np.log(2 * 1.25 * 0.29 / 0.3) / 4))
    assert record["search"]["baselines"] == {"low": 0.1, "high": 0.3}
    assert record["commands"][1] == "lrsearch confirm two --top 0 --seeds 4"


def test_record_tells_no_place_of_this_machine(
    study: optuna.Study, storage: Storage, tmp_path: Path
) -> None:
    info = study.user_attrs["lrsearch"]
    config = info["config"] | {
        "task": f"{tmp_path}/mine.py:task",
        "data_dir": str(tmp_path),
        "storage": f"sqlite:///{tmp_path}/x.db",
    }
    study.set_user_attr("lrsearch", info | {"config": config})
    text = to_json(make_record(study))
    assert str(tmp_path) not in text
    assert '"task": "mine.py:task"' in text


def test_text_of_a_record_gives_it_back(study: optuna.Study) -> None:
    record = make_record(study)
    text = to_json(record)
    assert json.loads(text) == json.loads(json.dumps(record))
    assert '"val_loss": {"100": 0.1, "101": 0.2, "102": 0.3, "103": 2.0}' in text


def test_tables_go_between_the_markers_of_the_readme_and_nowhere_else(
    study: optuna.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Path] = []
    monkeypatch.setattr(records, "write_pictures", lambda f, paths, **how: drawn.extend(paths))
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n<!-- r.json -->\nold\n<!-- /r.json -->\nend\n")
    for _ in range(2):  # the second changes nothing
        written = write_record(study, tmp_path / "r.json")
        block = record_block(json.loads((tmp_path / "r.json").read_text()), "r.json")
        assert readme.read_text() == f"# Title\n{block}\nend\n"
    assert [path.name for path in written] == ["r.json", "r.svg", "README.md"]
    assert [path.name for path in drawn] == ["r.svg"] * 2
    assert "| low | 4 | 0.2500 | 0.6500 | 0.9 |" in block
    assert "| low | high | 20% | −37% to 53% | 0.279 | 2, 1, 1 |" in block


def test_without_a_confirmation_it_is_the_search_alone(storage: Storage) -> None:
    made = [fake("low", 0.1 + i) for i in range(40)]
    study = make_study(name="alone", storage=storage, made=made)
    record = make_record(study)
    assert "confirm" not in record
    assert len(record["search"]["runs"]) == 40
    block = record_block(record, "x.json")
    assert "(best of the search)" in block
    assert len(record_figure(record).data) == 2


def test_the_name_of_a_recipe_does_not_break_the_table_it_stands_in() -> None:
    arms = ({"label": name, "n": 1, "median": loss, "mean": loss, "sd": None, "lost_seeds": []}
            for name, loss in (("a|b", 0.1), ("<i>", 0.2)))  # fmt: skip
    confirm = {"arms": dict(zip(("a|b", "<i>"), arms, strict=True)), "comparisons": []}
    facts = {"date": "", "hardware": {"devices": []}, "versions": {}}
    best = {"schedule": {"family": "StepLR", "lr": 0.1}, "val_loss": 0.1}
    search = {"trials": 1, "wall_seconds": 1.0, "best": best, "baselines": {"a|b": 0.1}}
    block = record_block({**facts, "search": search}, "x.json")
    assert "| a\\|b | 0.1000 |" in block
    block = record_block({**facts, "search": search, "confirm": confirm}, "x.json")
    assert "| a\\|b | 1 |" in block
    assert "| \\<i\\> | 1 |" in block


def test_figure_has_a_line_a_cloud_and_a_median_for_each_arm(study: optuna.Study) -> None:
    figure = record_figure(make_record(study))
    lines, rest = figure.data[:2], figure.data[2:]
    assert all(len(line.x) <= 252 and math.isclose(line.x[-1], EPOCHS) for line in lines)
    assert [len(trace.x) for trace in rest] == [4, 2, 4, 2]
    assert [max(trace.x) for trace in rest] == pytest.approx([2.0, 0.25, 2.0, 0.27])


def test_file_must_be_json_and_the_study_have_a_trial(
    study: optuna.Study, storage: Storage, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"--record needs FILE\.json, got 'r\.txt'"):
        write_record(study, tmp_path / "r.txt")
    empty = make_study(name="empty", storage=storage, made=[])
    with pytest.raises(UsageError, match="'empty' has no completed trial to record"):
        make_record(empty)


def test_names_are_quoted_in_commands_and_no_markup_in_the_figure(
    study: optuna.Study, storage: Storage
) -> None:
    record = make_record(study)
    record["confirm"]["arms"]["low"]["label"] = "<b>low</b>"
    figure = record_figure(record)
    assert "<b>" not in str(figure.to_plotly_json())
    assert "&lt;b&gt;low&lt;/b&gt;" in figure.layout.yaxis2.ticktext[0]
    made = make_study(name="my study", storage=storage, made=[fake("low", 0.1)])
    again = make_study(
        name="my study" + CONFIRM_SUFFIX,
        storage=storage,
        made=[fake("low", 0.1, arm="low", seed=100)],
    )
    arm = {"key": "low", "schedule": fake("low", 1).schedule, "trial": 0, "baseline": "low"}
    again.set_user_attr(CONFIRM_ATTR, {"of": "my study", "top": 0, "arms": [arm], "seeds": [100]})
    commands = make_record(made)["commands"]
    assert commands[1] == "lrsearch confirm 'my study' --top 0 --seeds 1"
