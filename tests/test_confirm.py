"""confirm: planted differences and ties on digits, resuming, and who may look at test data."""

from __future__ import annotations

import contextlib
import csv
import re
import signal
import sqlite3
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
import torch
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState
from torch import nn

import lrsearch
from lrsearch.attributes import CONFIRM_ATTR
from lrsearch.cli import main
from lrsearch.confirm import confirm, known
from lrsearch.errors import LrsearchError, UsageError
from lrsearch.export import export_text, write_best, write_confirmed
from lrsearch.measured import EpochResult
from lrsearch.report import words
from lrsearch.report.answer import sentences
from lrsearch.report.confirmed import Arm, Confirmed
from lrsearch.report.confirmed_study import confirmed_of, read_confirmed
from lrsearch.report.confirmed_words import sentence
from lrsearch.report.csv_files import write_csv
from lrsearch.report.finalists import choose_arms, difference
from lrsearch.report.page import page
from lrsearch.report.record import make_record
from lrsearch.report.report import make_report
from lrsearch.report.status import study_status
from lrsearch.report.tables import answer, load
from lrsearch.schedules import Schedule
from lrsearch.search.confirm_worker import ConfirmWorker
from lrsearch.search.interrupt import Interrupt, Interrupted
from lrsearch.search.workers import LocalLauncher, Order
from lrsearch.storage import Storage, open_storage
from lrsearch.storage.engine import PATIENCE_SECONDS
from lrsearch.tasks import Split, Task, load_task
from tests.synthetic import Fake, make_study

EPOCHS = 4


@pytest.fixture
def storage(tmp_path: Path, in_tmp: Path) -> Storage:
    return open_storage(f"sqlite:///{tmp_path}/lrsearch.db")


def found(schedule: Schedule, loss: float, baseline: str | None = None) -> Fake:
    """A complete trial of a search, with whatever loss is claimed for it."""
    return Fake(
        {"scheduler": schedule.family, "lr": schedule.lr},
        {
            "scheduler": CategoricalDistribution(("ConstantLR", "StepLR", "LinearLR", "Points")),
            "lr": FloatDistribution(1e-5, 1.0, log=True),
        },
        schedule.to_dict(),
        np.full(schedule.epochs, schedule.lr),
        np.linspace(loss + 1, loss, schedule.epochs),
        baseline=baseline,
    )


def constant(lr: float) -> Schedule:
    return Schedule("ConstantLR", lr, EPOCHS)


def search_of(storage: Storage, *made: Fake, name: str = "digits") -> optuna.Study:
    return make_study(name=name, made=made, epochs=EPOCHS, storage=storage)


def test_a_planted_difference_on_digits_is_found(storage: Storage) -> None:
    study = search_of(
        storage, found(constant(0.1), 0.2), found(constant(1e-4), 0.21, baseline="ConstantLR")
    )
    result = confirm(study, storage, top=1, seeds=4)
    row = result.against("ConstantLR")
    assert row is not None
    assert (row.n, row.verdict()) == (4, "better")
    assert row.low is not None
    assert row.low > 0.5
    assert "the search's winner beat the baseline ConstantLR" in sentence(result)
    assert result.winner.test is not None
    assert result.winner.test.mean > 0.6


def test_what_a_search_found_is_trained_once_at_higher_rates(storage: Storage) -> None:
    points = Schedule("Points", 0.1, EPOCHS, {"points": [[0, 0.1], [4, 0.05]]})
    study = search_of(
        storage,
        found(constant(0.9), 0.2),
        found(points, 0.21),
        found(constant(0.1), 0.3, baseline="ConstantLR"),
    )
    result = confirm(study, storage, top=2, seeds=2)
    raised = {
        t.user_attrs["arm"]: t
        for t in _trials(storage)
        if t.user_attrs["arm"] not in [arm.key for arm in result.arms]
    }
    assert set(raised) == {"#0 x 1.7", "#1 x 1.7"}
    made = [Schedule.from_dict(t.user_attrs["schedule"]) for t in raised.values()]
    assert made == [
        constant(1.7 * 0.9),
        Schedule("Points", 1.7 * 0.1, EPOCHS, {"points": [[0, 1.7 * 0.1], [4, 1.7 * 0.05]]}),
    ]
    for key, trial in raised.items():
        assert trial.user_attrs["seed"] == 1001
        assert "test_loss" not in trial.user_attrs
        assert result.arm(key.partition(" ")[0]).raised == trial.value
    assert result.arm("ConstantLR").raised is None
    assert result.finished == result.planned == 6


def test_leaving_while_the_database_is_away_takes_seconds_and_the_wait_was_told(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = search_of(storage, found(constant(0.1), 0.2))
    interrupt, told = Interrupt(), list[str]()
    judge = ConfirmWorker._judge

    def locked(self: ConfirmWorker, key: int, result: EpochResult, *, lost: bool) -> None:
        other.execute("BEGIN IMMEDIATE")
        judge(self, key, result, lost=lost)

    def note(line: str) -> None:
        if line.startswith("waiting for") and not told:
            told.append(line)
            interrupt._handle(signal.SIGINT, None)

    monkeypatch.setattr(ConfirmWorker, "_judge", locked)
    monkeypatch.setattr("lrsearch.storage.engine._FIRST_PAUSE", 0.6)  # told at once
    with contextlib.closing(sqlite3.connect(tmp_path / "lrsearch.db", isolation_level=None)) as (
        other
    ):
        began = time.monotonic()
        with pytest.raises(Interrupted):
            confirm(study, storage, top=1, seeds=2, note=note, interrupt=interrupt)
    assert time.monotonic() - began < PATIENCE_SECONDS / 10
    assert told[0].startswith("waiting for sqlite:")


def test_a_planted_defeat_on_digits_is_found(storage: Storage) -> None:
    """The search was lucky: its winner is worse than the recipe on every fresh seed."""
    study = search_of(
        storage, found(constant(1e-4), 0.2), found(constant(0.1), 0.21, baseline="ConstantLR")
    )
    result = confirm(study, storage, top=1, seeds=3)
    row = result.against("ConstantLR")
    assert row is not None
    assert row.verdict() == "worse"
    assert "the search's winner lost to the baseline ConstantLR (worse on 3)" in sentence(result)
    assert result.lowest.key == "ConstantLR"
    assert "Lowest on these seeds, in the mean, is **ConstantLR b" in sentence(result)
    assert "below the winner on 3 of 3." in sentence(result)


def test_what_came_lowest_on_fresh_seeds_is_told_where_it_is_not_the_winner(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    study = search_of(
        storage,
        found(constant(1e-4), 0.2),
        found(constant(0.1), 0.21),
        found(constant(3e-4), 0.22, baseline="ConstantLR"),
    )
    assert main(["confirm", "digits", "--seeds", "4", "--quiet"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Lowest on 4 fresh seeds, in the mean, is ConstantLR, lr 0.1 (#1), " in shown
    assert (
        "below the search's winner on 4 of 4, below the baseline ConstantLR on 4 of 4, by "
        in shown
    )
    assert "Files lrsearch-results/digits/confirmed.yaml" in shown
    assert "lrsearch train lrsearch-results/digits/confirmed.yaml what came lowest" in shown
    table = load(study)
    assert sentences(table, answer(table), read_confirmed(study))[0] == (
        "**ConstantLR** at a peak learning rate of **0.1** is better than the baseline "
        "**ConstantLR**; "
        "**ConstantLR** at a peak learning rate of **0.0001** only looked best."
    )
    _, held, winner = sentences(table, answer(table), read_confirmed(study))
    assert held.startswith("Lowest on 4 fresh seeds, in the mean, is **ConstantLR, lr 0.1 (#1)**")
    assert "its winner reached a validation loss of **0.2000**" in winner
    assert ". The search's winner, ConstantLR, lr 0.0001 (#0): on 4 fresh seeds, " in winner
    assert main(["export", "digits-confirm"]) == 2
    assert "the luckiest seed: lrsearch export digits, with --trial N" in capsys.readouterr().err
    html = page(make_report(study))
    export = f"lrsearch export digits --storage {storage.label} --trial 0"
    assert f"of the search did not (<code>{export}</code>)" in html
    assert '<pre id="yaml" tabindex="0"># study digits · trial 1 ' in html
    assert "ConstantLR, lr 0.1, " in html.partition('<pre id="python"')[2][:80]
    assert main(["export", "digits"]) == 0
    exported = capsys.readouterr()
    assert yaml.safe_load(exported.out)["study"]["trial"] == 1
    assert exported.err == (
        "lrsearch: This is trial 1, also in confirmed.yaml: it held on fresh seeds, and the best "
        "of the search did not (lrsearch export digits --trial 0).\n"
    )
    result = lrsearch.report("digits")
    assert (result.schedule, result.value) == (constant(0.1), 0.21)
    assert yaml.safe_load(result.export())["study"]["trial"] == 1
    assert main(["export", "digits", "--trial", "0"]) == 0
    exported = capsys.readouterr()
    assert (yaml.safe_load(exported.out)["study"]["trial"], exported.err) == (0, "")
    write_best(study, Path("best.yaml"))
    assert yaml.safe_load(Path("best.yaml").read_text())["study"]["trial"] == 0
    assert "Learning rate of trial 1, the best of those on fresh seeds" in html
    assert ">0.2100<" in html.partition("to train with</th>")[2][:120]
    confirmed = read_confirmed(study)
    assert confirmed is not None
    assert confirmed.held is confirmed.lowest
    told = words.loss(confirmed.lowest.val.median)
    assert f"<dd>{told}</dd>" in html.partition("validation loss, median of 4 fresh seeds")[2][:60]


def test_a_confirmation_of_the_baselines_alone_says_nothing_of_the_schedule_to_train_with(
    storage: Storage, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = search_of(
        storage,
        found(constant(0.05), 0.2),
        found(constant(0.1), 0.21, baseline="ConstantLR"),
        found(constant(1e-4), 0.22, baseline="slow"),
    )
    best = write_best(study, Path("lrsearch-results/digits/best.yaml"))
    assert main(["confirm", "digits", "--top", "0", "--seeds", "4", "--quiet"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    confirmed = read_confirmed(study)
    assert confirmed is not None
    assert confirmed.decision.decided
    assert f"lrsearch train {best} the answer of the search" in shown


def test_export_names_what_came_lower_where_it_is_not_surely_better(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [(constant(1e-4), 0.2, "low"), (constant(0.1), 0.21, "ConstantLR")]
    study = search_of(storage, *(found(*each) for each in made))
    confirm(study, storage, top=1, seeds=2)
    assert main(["export", "digits"]) == 0
    exported = capsys.readouterr()
    assert yaml.safe_load(exported.out)["study"]["trial"] == 0
    assert exported.err == (
        "lrsearch: This is the best of the search. On fresh seeds trial 1, in confirmed.yaml, "
        "came lower: lrsearch export digits --trial 1.\n"
    )


def test_what_came_lowest_is_written_with_what_fresh_seeds_said_of_it(storage: Storage) -> None:
    study = search_of(
        storage,
        found(constant(1e-4), 0.2),
        found(constant(0.1), 0.21),
        found(constant(3e-4), 0.22, baseline="ConstantLR"),
    )
    result = confirm(study, storage, seeds=3)
    assert result.file == Path("lrsearch-results/digits/confirmed.yaml")
    assert lrsearch.load(result.file) == constant(0.1)
    content = yaml.safe_load(result.file.read_text())
    lowest, recipe = result.arm("#1"), result.arm("ConstantLR")
    assert content["study"] == {"name": "digits", "trial": 1, "seed": 0}
    assert content["result"]["value"] == 0.21
    confirmed = content["confirmed"]
    assert confirmed["seeds"] == [1001, 1002, 1003]
    assert confirmed["lost_seeds"] == []
    assert confirmed["val_loss"] == asdict(lowest.val)
    assert set(confirmed["val_loss"]) == {"n", "mean", "sd", "median"}
    assert lowest.test is not None
    assert confirmed["test_accuracy"]["mean"] == lowest.test.mean
    assert confirmed["baselines"] == {"ConstantLR": recipe.val.mean}
    assert "lowest validation loss when trained again" in result.file.read_text().splitlines()[0]
    assert read_confirmed(study) == replace(result, file=None)


def test_who_lost_a_seed_did_not_come_lowest() -> None:
    steady, lucky = (
        Arm(key, {"family": "ConstantLR", "lr": 0.1}, i, None, values, {}, {}, lost)
        for i, (key, values, lost) in enumerate(
            [("#0", {1: 0.3, 2: 0.3}, ()), ("#1", {1: 0.1}, (2,))]
        )
    )
    both = Confirmed("s", (steady, lucky), (1, 2), 4, 4, (), "accuracy")
    assert both.lowest is steady
    assert replace(both, arms=(replace(lucky, lost=()), steady)).lowest is steady


def test_a_planted_tie_on_digits_is_called_one(storage: Storage) -> None:
    """The same curve under another family's name, and one that hardly differs."""
    same = Schedule("LinearLR", 0.05, EPOCHS, {"start_factor": 1.0, "end_factor": 1.0})
    study = search_of(
        storage,
        found(same, 0.2),
        found(constant(0.05), 0.3, baseline="ConstantLR"),
        found(Schedule("StepLR", 0.0501, EPOCHS, {"step_size": 3, "gamma": 0.99}), 0.31, "StepLR"),
    )
    result = confirm(study, storage, top=1, seeds=4)
    assert [row.verdict() for row in result.loss] == ["equal", "unclear"]
    assert "**not distinguishable** from the baselines StepLR (" in sentence(result)
    assert "and ConstantLR (equal)" in sentence(result)
    table = load(study)
    lines = sentences(table, answer(table), read_confirmed(study))
    assert lines[0].startswith("Nothing found is surely better than")


def test_schedules_that_are_one_curve_are_trained_once(storage: Storage) -> None:
    same = Schedule("LinearLR", 0.1, EPOCHS, {"start_factor": 1.0, "end_factor": 1.0})
    study = search_of(
        storage,
        found(constant(0.1), 0.20),
        found(same, 0.21),
        found(constant(0.115), 0.22),
        found(constant(0.2), 0.23),
        found(constant(0.05), 0.24, baseline="ConstantLR"),
        found(constant(0.4), 0.25),
    )
    arms = choose_arms(load(study), top=2)
    assert [(arm["key"], arm["trial"]) for arm in arms] == [
        ("#0", 0),
        ("#3", 3),
        ("ConstantLR", 4),
    ]


def test_a_baseline_that_won_is_the_winner_and_stands_there_once(storage: Storage) -> None:
    study = search_of(
        storage, found(constant(0.1), 0.2, baseline="ConstantLR"), found(constant(0.3), 0.3)
    )
    arms = choose_arms(load(study), top=3)
    assert [arm["key"] for arm in arms] == ["ConstantLR", "#1"]


def test_no_schedule_but_the_baselines(storage: Storage) -> None:
    study = search_of(
        storage,
        found(constant(0.1), 0.1),
        found(constant(0.2), 0.3, baseline="high"),
        found(constant(0.2), 0.2, baseline="twin"),
    )
    table = load(study)
    assert [arm["key"] for arm in choose_arms(table, top=0)] == ["twin", "high"]
    without = search_of(storage, found(constant(0.1), 0.1), name="bare")
    with pytest.raises(LrsearchError, match="no completed baseline; write --top 1"):
        choose_arms(load(without), top=0)


@pytest.mark.parametrize(
    ("a", "b", "expected"), [([1, 1], [1, 1], 0.0), ([1, 0], [0, 1], 1.0), ([2, 2], [2, 1], 0.25)]
)
def test_difference_of_curves(a: list[float], b: list[float], expected: float) -> None:
    assert difference(np.array(a, float), np.array(b, float)) == expected


def test_a_run_that_ends_where_it_began_far_above_the_others_did_not_train() -> None:
    def run(i: int, first: float, last: float) -> Fake:
        made = found(constant(0.1), last)
        made.losses[0] = first
        made.attrs.update({"arm": "#0", "seed": 100 + i})
        return made

    ends = [(2.3, 0.2), (2.3, 2.31), (0.1, 0.2), (2.3, 0.9)]
    again = make_study(name="x-confirm", made=[run(i, *e) for i, e in enumerate(ends)], epochs=4)
    entry = {"key": "#0", "schedule": constant(0.1).to_dict(), "trial": 0}
    plan = {"arms": [entry], "seeds": [100, 101, 102, 103]}
    confirmed = confirmed_of(load(again), plan)
    assert confirmed is not None
    assert confirmed.winner.untrained == (101,)


@pytest.mark.parametrize(("good", "dead"), [(0.2, 2.31), (-2.0, 0.1)])
def test_an_arm_of_which_most_did_not_train_is_said_so(good: float, dead: float) -> None:
    def run(arm: str, seed: int, last: float) -> Fake:
        made = found(constant(0.1), last)
        made.losses[0] = last if last == dead else last + 2
        made.attrs.update({"arm": arm, "seed": seed})
        return made

    ends = {"#0": [dead, dead, good], "#1": [good, good, good]}
    runs = [run(key, s, last) for key, of in ends.items() for s, last in enumerate(of)]
    again = make_study(name="x-confirm", made=runs, epochs=4)
    entries = [{"key": k, "schedule": constant(0.1).to_dict(), "trial": 0} for k in ends]
    confirmed = confirmed_of(load(again), {"arms": entries, "seeds": [0, 1, 2]})
    assert confirmed is not None
    assert [arm.untrained for arm in confirmed.arms] == [(0, 1), ()]


def test_without_a_recipe_the_headline_names_what_to_train(storage: Storage) -> None:
    study = search_of(storage, found(constant(0.1), 0.2))
    confirm(study, storage, seeds=3)
    table = load(study)
    lines = sentences(table, answer(table), read_confirmed(study))
    assert lines[0] == "Train with **ConstantLR** at a peak learning rate of **0.1**."
    assert "there is no usual recipe to compare it with" in lines[1]


# resuming


def _trials(storage: Storage, name: str = "digits-confirm") -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)


def test_more_seeds_and_more_schedules_add_runs_and_repeat_none(storage: Storage) -> None:
    study = search_of(
        storage,
        found(constant(0.1), 0.2),
        found(constant(0.3), 0.22),
        found(constant(0.05), 0.3, baseline="ConstantLR"),
    )
    confirm(study, storage, top=1, seeds=2)
    first = {t.number: t.value for t in _trials(storage)}
    assert len(first) == 5, "two of each, and the winner at higher rates"
    confirm(study, storage, top=1, seeds=2)
    assert {t.number: t.value for t in _trials(storage)} == first
    result = confirm(study, storage, top=2, seeds=3)
    again = {t.number: t.value for t in _trials(storage)}
    assert len(again) == 11
    assert {k: again[k] for k in first} == first
    pairs = [(t.user_attrs["arm"], t.user_attrs["seed"]) for t in _trials(storage)]
    assert len(set(pairs)) == 11
    assert result.finished == result.planned == 9
    there = optuna.load_study(study_name="digits-confirm", storage=storage)
    assert study_status(there)["target"] == 11
    assert [arm.val.n for arm in result.arms] == [3, 3, 3]
    fewer = confirm(study, storage, top=2, seeds=2)
    assert fewer.seeds == result.seeds == (1001, 1002, 1003)
    assert fewer.finished == fewer.planned == 9
    record = make_record(study)
    assert record["commands"][1] == "lrsearch confirm digits --top 2 --seeds 3"


def test_fewer_seeds_than_were_run_before_are_announced_with_those(storage: Storage) -> None:
    """It announced "2 fresh seeds each", and told of three."""
    made = [found(constant(0.1), 0.2), found(constant(0.05), 0.3, baseline="ConstantLR")]
    study, lines = search_of(storage, *made), list[str]()
    confirm(study, storage, top=1, seeds=3, note=lines.append)
    assert lines[0].startswith("confirm digits: 2 schedules, 3 fresh seeds each; those found")
    lines.clear()
    confirm(study, storage, top=1, seeds=2, note=lines.append)
    assert "; 2 fresh seeds were asked for, 3 were run before: all are told;" in lines[0]


def test_each_arm_of_a_confirmation_is_announced_with_what_it_was_in_the_search(
    storage: Storage,
) -> None:
    made = [found(constant(0.1), 0.2), found(constant(0.05), 0.3, baseline="ConstantLR")]
    study, lines = search_of(storage, *made), list[str]()
    confirm(study, storage, top=1, seeds=2, note=lines.append)
    assert [" ".join(line.split()) for line in lines[1:3]] == [
        "#0 ConstantLR, lr 0.1 (trial 0, the best of the search)",
        "ConstantLR ConstantLR, lr 0.05 (baseline)",
    ]


def interrupt_after_one(patch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes when the first run of a confirmation has ended."""
    finish = ConfirmWorker._finish

    def interrupted(self: ConfirmWorker, *args: Any) -> None:
        finish(self, *args)
        raise Interrupted(130)

    patch.setattr(ConfirmWorker, "_finish", interrupted)


def test_fewer_seeds_than_were_planned_leave_out_what_was_not_begun(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = search_of(storage, found(constant(0.1), 0.2), found(constant(0.3), 0.22))
    with monkeypatch.context() as patch:
        interrupt_after_one(patch)
        with pytest.raises(Interrupted):
            confirm(study, storage, seeds=50)
    result = confirm(study, storage, seeds=3)
    assert result.finished == result.planned == 6
    assert len(_trials(storage)) == 6 + 2
    assert confirm(study, storage, seeds=4).finished == 8


def test_an_interrupted_confirmation_goes_on_to_the_undisturbed_result(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = [found(constant(0.1), 0.2), found(constant(0.05), 0.3, baseline="ConstantLR")]
    other = open_storage(f"sqlite:///{tmp_path}/undisturbed.db")
    undisturbed = confirm(search_of(other, *made), other, top=1, seeds=2)

    from lrsearch.training.loop import SingleRunner

    calls = 0
    original = SingleRunner.epoch

    def stop_once(self: SingleRunner) -> Any:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyboardInterrupt
        return original(self)

    study = search_of(storage, *made)
    monkeypatch.setattr(SingleRunner, "epoch", stop_once)
    with pytest.raises(KeyboardInterrupt):
        confirm(study, storage, top=1, seeds=2, overrides={"fuse": "off"})
    result = confirm(study, storage, top=1, seeds=2, overrides={"fuse": "off"})
    assert result.finished == 4
    assert len(_trials(storage)) == 4 + 1
    for arm, expected in zip(result.arms, undisturbed.arms, strict=True):
        assert arm.val_loss == pytest.approx(expected.val_loss, rel=1e-4)


def test_two_workers_find_what_one_does(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Order] = []  # one may have done all before the other has imported torch
    start = LocalLauncher.start
    monkeypatch.setattr(
        LocalLauncher, "start", lambda self, order: started.append(order) or start(self, order)
    )
    trials = (found(constant(0.1), 0.2), found(constant(0.3), 0.22))
    one = confirm(search_of(storage, *trials), storage, seeds=4, overrides={"fuse": "off"})
    other = open_storage(f"sqlite:///{tmp_path}/other.db")
    said: list[str] = []
    study = search_of(other, *trials)
    info = study.user_attrs["lrsearch"]
    hasty = {**info["config"], "timeout": 0.001}  # which was the search's
    study.set_user_attr("lrsearch", {**info, "config": hasty})
    two = confirm(
        study,
        other,
        seeds=4,
        overrides={"fuse": "off", "workers": 2},
        note=said.append,
    )
    assert two.arms == one.arms
    assert sum("completed" in line for line in said) == 8 + 2
    assert len(started) == 2
    assert not list(tmp_path.rglob("*.pt"))


def test_fused_runs_that_fail_go_back_with_the_one_that_waits_for_its_seed(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One arm diverges at once, so that its place is offered to a run of the next seed."""
    from lrsearch.training.ensemble import EnsembleRunner

    original = EnsembleRunner.epoch
    calls = 0

    def fail(self: EnsembleRunner) -> Any:
        nonlocal calls
        calls += 1
        assert calls < 20
        if calls % 2 == 0:
            raise RuntimeError("no rule for this batch")
        return original(self)

    monkeypatch.setattr(EnsembleRunner, "epoch", fail)
    study = search_of(
        storage,
        found(constant(0.1), 0.2),
        found(constant(1e6), 0.3, baseline="high"),
        found(constant(0.05), 0.3, baseline="low"),
    )
    said: list[str] = []
    result = confirm(study, storage, top=1, seeds=2, overrides={"fuse": "3"}, note=said.append)
    assert result.finished == 6
    assert sum("fused training failed" in line for line in said) == 1  # not at each seed again
    assert not any("taken over" in line for line in said)


def test_all_arms_of_a_seed_start_from_the_same_weights_and_other_seeds_do_not(
    storage: Storage,
) -> None:
    """With a rate of almost zero, a trial is its initial weights."""
    still = constant(1e-12)
    study = search_of(
        storage,
        found(still, 0.2),
        found(Schedule("StepLR", 1e-12, EPOCHS, {"step_size": 1, "gamma": 0.1}), 0.3, "StepLR"),
    )
    result = confirm(study, storage, top=1, seeds=2)
    best, step = result.arms
    assert best.val_loss == pytest.approx(step.val_loss, rel=1e-6)
    one, two = best.val_loss.values()
    assert one != pytest.approx(two, rel=1e-3)


# test data


def _task(test: Any) -> Task:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(96, 6, generator=generator)
    y = (x.sum(1) > 0).long()
    return Task(
        "tiny",
        lambda: nn.Linear(6, 2),
        Split(x[:64], y[:64]),
        Split(x[64:], y[64:]),
        test,
        batch_size=16,
        epochs=2,
        lr_range=(0.01, 0.5),
    )


def test_a_search_never_touches_test_data(in_tmp: Path) -> None:
    def test() -> Split:
        raise AssertionError("a search asked for the test data")

    result = lrsearch.search(_task(test), trials=12, quiet=True)
    result.write("report.html")
    assert len(result.study.trials) == 12
    assert all(t.state.is_finished() for t in result.study.trials)
    assert not any("test" in key for t in result.study.trials for key in t.user_attrs)
    with pytest.raises(LrsearchError, match="loading the test data fails: AssertionError: a sea"):
        lrsearch.confirm(result.study, task=_task(test), top=1, seeds=2, quiet=True)


def test_confirm_loads_test_data_once_and_measures_it(in_tmp: Path) -> None:
    loaded: list[int] = []
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(50, 6, generator=generator)

    def test() -> Split:
        loaded.append(1)
        return Split(x, (x.sum(1) > 0).long())

    result = lrsearch.search(_task(test), trials=6, quiet=True)
    assert loaded == []
    confirmed = lrsearch.confirm(result.study, task=_task(test), top=1, seeds=2, quiet=True)
    assert loaded == [1]
    assert all(len(arm.test_metric) == 2 for arm in confirmed.arms)


def test_no_other_module_asks_for_test_data() -> None:
    folder = Path(lrsearch.__file__).parent

    def with_text(pattern: str) -> set[str]:
        return {
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*.py")
            if re.search(pattern, path.read_text(encoding="utf-8"))
        }

    assert with_text(r"task\.test[()]|\.test\(\)") <= {
        "tasks/check.py",
        "training/evaluation.py",  # in its docstring
    }
    assert with_text(r"load_test\b") == {"tasks/check.py", "search/test_data.py"}
    assert with_text(r"TestData\b") == {
        "search/test_data.py",
        "search/confirm_worker.py",
        "train.py",
    }


def test_test_data_that_do_not_fit_are_named_before_anything_is_trained(in_tmp: Path) -> None:
    def wide() -> Split:
        return Split(torch.randn(5, 7), torch.zeros(5).long())

    result = lrsearch.search(_task(wide), trials=4, quiet=True)
    with pytest.raises(LrsearchError, match=r"the model Linear on a test batch \(5, 7\) float32"):
        lrsearch.confirm(result.study, task=_task(wide), top=1, seeds=2, quiet=True)
    assert _trials(open_storage("sqlite:///lrsearch.db"), "tiny-confirm") == []


def test_digits_keeps_its_test_part_apart() -> None:
    task = load_task("digits")
    assert task.test is not None
    parts = [task.train, task.validation, task.test()]
    rows = [{tuple(r) for r in p.x.flatten(1).tolist()} for p in parts if isinstance(p, Split)]
    assert [len(p) for p in parts if isinstance(p, Split)] == [1200, 300, 297]
    assert len(rows[2] & rows[0]) <= 1  # two of the 1,797 images are equal


# mistakes


def test_a_search_without_a_complete_trial_cannot_be_confirmed(storage: Storage) -> None:
    with pytest.raises(LrsearchError, match="has no completed trial yet"):
        confirm(search_of(storage), storage)


@pytest.mark.parametrize(
    ("options", "message"), [({"top": -1}, "--top"), ({"seeds": 1}, "--seeds")]
)
def test_impossible_numbers_are_refused(
    storage: Storage, options: dict[str, int], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        confirm(search_of(storage), storage, **options)


def test_a_confirmation_is_not_confirmed_again_and_its_runs_keep_their_seeds(
    storage: Storage,
) -> None:
    study = search_of(storage, found(constant(0.1), 0.2))
    confirm(study, storage, top=1, seeds=2)
    again = optuna.load_study(study_name="digits-confirm", storage=storage)
    with pytest.raises(UsageError, match=r"itself: lrsearch confirm digits --storage \S+ --se"):
        confirm(again, storage, seeds=2)
    for trial in again.get_trials():
        exported = yaml.safe_load(export_text(again, trial=trial.number))
        assert exported["study"]["seed"] == trial.user_attrs["seed"] > 1000


def test_a_study_of_that_name_that_is_no_confirmation_is_left_alone(storage: Storage) -> None:
    study = search_of(storage, found(constant(0.1), 0.2))
    other = search_of(storage, found(constant(0.1), 0.2), name="digits-confirm")
    with pytest.raises(UsageError, match="is no confirmation"):
        confirm(study, storage, seeds=2)
    assert len(other.get_trials()) == 1


def test_a_winner_that_diverges_on_every_fresh_seed_is_an_error_not_a_result(
    storage: Storage,
) -> None:
    study = search_of(storage, found(constant(1e6), 0.2))
    with pytest.raises(LrsearchError, match="lrsearch show digits-confirm"):
        confirm(study, storage, top=1, seeds=2)


def test_results_are_plain_values(storage: Storage) -> None:
    import json

    study = search_of(
        storage, found(constant(0.1), 0.2), found(constant(0.05), 0.3, baseline="ConstantLR")
    )
    plain = confirm(study, storage, top=1, seeds=2).to_dict()
    again = json.loads(json.dumps(plain))
    assert again["winner"] == "#0"
    assert again["runs"] == {"planned": 4, "finished": 4}
    assert {row["name"] for row in again["comparisons"]} == {"ConstantLR"}
    assert again["held"] == "#0"


def test_results_of_an_arm_that_lost_all_its_seeds_are_json() -> None:
    import json

    schedule = {"family": "ConstantLR", "lr": 0.1}
    winner = Arm("#0", schedule, 0, None, {1: 0.1, 2: 0.2}, {}, {}, ())
    lost = Arm("#1", schedule, 1, None, {}, {}, {}, (1, 2))
    both = Confirmed("s", (winner, lost), (1, 2), 4, 4, (), "accuracy")
    plain = json.loads(json.dumps(both.to_dict(), allow_nan=False))
    assert plain["arms"][1]["val_loss"] == {"n": 0, "mean": None, "sd": None, "median": None}
    assert set(plain["arms"][0]["val_loss"]) == set(plain["arms"][1]["val_loss"])


@pytest.mark.parametrize(
    ("confirmed", "seeds", "enough"),
    [((0, 1), 2, True), ((0,), 2, False), ((1, 0), 2, False), ((0, 1), 3, False)],
)
def test_a_confirmation_is_told_again_while_it_is_whole_and_of_the_finalists_that_there_are_now(
    confirmed: tuple[int, ...], seeds: int, enough: bool, storage: Storage
) -> None:
    made = [found(constant(0.1), 0.2), found(constant(0.01), 0.21)]
    study = search_of(storage, *made)
    runs = [
        replace(made[n], attrs={"arm": f"#{n}", "seed": 1001 + i})
        for n in confirmed
        for i in range(2)
    ]
    again = search_of(storage, *runs, name="digits-confirm")
    arms = [{"key": f"#{n}", "schedule": made[n].schedule, "trial": n} for n in confirmed]
    fresh = list(range(1001, 1001 + seeds))
    plan = {"of": "digits", "arms": arms, "seeds": fresh, "top": 2, "slots": []}
    again.set_user_attr(CONFIRM_ATTR, plan)
    made_with = SimpleNamespace(config=SimpleNamespace(out="out"))
    outcome: Any = SimpleNamespace(study=study, storage=storage, robust=None, plan=made_with)
    assert (known(outcome) is not None) == enough
    assert Path("out/digits/confirmed.yaml").exists() == enough


def test_the_files_say_which_of_the_lost_seeds_failed(storage: Storage, tmp_path: Path) -> None:
    winner = found(constant(0.1), 0.2)
    study = search_of(storage, winner)
    again = search_of(
        storage,
        *(
            replace(winner, attrs={"arm": "#0", "seed": 1001 + i}, **ended)
            for i, ended in enumerate(
                (
                    {},
                    {"state": TrialState.PRUNED, "stopped": "diverged"},
                    {"state": TrialState.FAIL, "stopped": "failed"},
                )
            )
        ),
        name="digits-confirm",
    )
    arm = {"key": "#0", "schedule": constant(0.1).to_dict(), "trial": 0}
    plan = {"of": "digits", "arms": [arm], "seeds": [1001, 1002, 1003], "slots": []}
    again.set_user_attr(CONFIRM_ATTR, plan)
    result = read_confirmed(study)
    assert result is not None
    told = result.to_dict()["arms"][0]
    assert (told["lost_seeds"], told["failed_seeds"]) == ([1002, 1003], [1003])
    written = yaml.safe_load(write_confirmed(study, result, tmp_path / "c.yaml").read_text())
    assert written["confirmed"]["lost_seeds"] == [1002, 1003]
    assert written["confirmed"]["failed_seeds"] == [1003]


def test_lost_seeds_are_in_the_files_as_well(tmp_path: Path) -> None:
    schedule = constant(0.1).to_dict()
    arms = (
        Arm("#0", schedule, 0, None, {1: 0.1, 2: 0.2}, {}, {2: 0.9}, ()),
        Arm("steady", schedule, 1, "steady", {2: 0.3}, {}, {}, (1,)),
        Arm("broken", schedule, 2, "broken", {}, {}, {}, (1, 2)),
    )
    both = Confirmed("s", arms, (1, 2), 6, 6, (), "accuracy")
    study = make_study(made=[found(constant(0.1), 0.2)])
    write_csv(replace(make_report(study), confirmed=both), tmp_path)
    with (tmp_path / "confirm.csv").open() as file:
        rows = [(r["arm"], r["seed"], r["lost"], r["val_loss"]) for r in csv.DictReader(file)]
    assert rows == [
        ("#0", "1", "0", "0.1"), ("#0", "2", "0", "0.2"),
        ("steady", "1", "1", ""), ("steady", "2", "0", "0.3"),
        ("broken", "1", "1", ""), ("broken", "2", "1", ""),
    ]  # fmt: skip
    text = write_confirmed(study, both, tmp_path / "c.yaml").read_text()
    of = "lowest validation loss of those with no lost seeds when trained again: 0.1500"
    assert of in text.splitlines()[0]
    written = yaml.safe_load(text)
    assert written["confirmed"]["baselines"] == {"steady": 0.3}
    assert written["confirmed"]["baselines_lost_seeds"] == {"steady": [1], "broken": [1, 2]}
