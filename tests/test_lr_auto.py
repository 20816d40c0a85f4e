"""``--lr auto``: one range test before the study, kept with it, below divergence."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from lrsearch.attributes import LR_RANGE_ATTR
from lrsearch.config import make
from lrsearch.measured import LrRange
from lrsearch.report.lr_range import lr_range_figure, lr_range_table
from lrsearch.report.page import page
from lrsearch.report.report import make_report
from lrsearch.search import plan as plans
from lrsearch.search.run import run
from lrsearch.search.study import open_study
from lrsearch.storage import open_storage

SETTINGS = {"lr": "auto", "epochs": 2, "train_samples": 400, "sampler": "random"}


def test_study_searches_below_divergence_and_keeps_the_test(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = run(make({**SETTINGS, "trials": 8}))
    test = lr_range_table(outcome.study)
    assert test is not None
    assert test.diverges_at is None or test.high < test.diverges_at
    searched = [t.params["lr"] for t in outcome.study.trials]
    assert all(test.low <= lr <= test.high for lr in searched)
    assert Path("lrsearch-results/digits/lr_range.html").is_file()

    def again(*args: object, **kwargs: object) -> None:
        raise AssertionError("the range test ran twice")

    monkeypatch.setattr(plans, "lr_range_test", again)
    outcome = run(make({**SETTINGS, "trials": 10}))
    assert len(outcome.study.trials) == 10


def test_figure_shows_every_step_and_shades_what_is_searched(in_tmp: Path) -> None:
    study = run(make({**SETTINGS, "trials": 5})).study
    test = lr_range_table(study)
    assert test is not None
    figure = lr_range_figure(test)
    assert list(figure.data[0].x) == test.lrs
    shaded = next(shape for shape in figure.layout.shapes if shape.type == "rect")
    assert (shaded.x0, shaded.x1) == (test.low, test.high)
    report = make_report(study)
    assert report.figures["range"][0].to_json() == figure.to_json()
    assert "The lr range test before the search." in page(report)


def test_of_two_machines_that_test_at_the_same_time_both_search_what_the_first_found(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make({**SETTINGS, "trials": 5})
    plan = plans.make_plan(config)
    storage = open_storage(config.storage)
    study = open_study(storage, config, plan.to_dict())
    real = plans.lr_range_test
    found: list[tuple[plans.Plan, str]] = []

    def other_is_faster(*args: Any, **kwargs: Any) -> LrRange:
        test = real(*args, **kwargs)
        monkeypatch.setattr(plans, "lr_range_test", real)
        found.append(plans.with_lr_range(plan, study, storage))
        return dataclasses.replace(test, low=test.low / 2, high=test.high / 2)

    monkeypatch.setattr(plans, "lr_range_test", other_is_faster)
    last = plans.with_lr_range(plan, study, storage)
    assert last[1] == found[0][1]
    assert last[0].space.lr == found[0][0].space.lr
    assert study.user_attrs[LR_RANGE_ATTR]["low"] == last[0].space.lr[0]
