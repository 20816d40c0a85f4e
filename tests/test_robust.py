"""The end of a search: finalists at higher rates, and robust.yaml."""

from __future__ import annotations

import json
import math
import re
import sqlite3
import statistics
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import FrozenTrial, TrialState

import lrsearch
from lrsearch.attributes import CONFIRM_ATTR
from lrsearch.cli import main
from lrsearch.config import make
from lrsearch.export import write_robust
from lrsearch.report.finalists import LEAST_SURE, gentler
from lrsearch.report.raised import RAISE, arm_at, raised_losses
from lrsearch.report.robust import (
    Raised,
    Robust,
    bears,
    below,
    contenders,
    lowest_raised,
    next_runs,
    read_raised,
    robust,
    too_dear,
)
from lrsearch.report.robust_words import robust_line, robust_sentence
from lrsearch.report.tables import TrialRow, load, load_confirmation
from lrsearch.schedules import Schedule
from lrsearch.search.confirm_study import open_confirmation
from lrsearch.search.confirm_worker import ConfirmWorker
from lrsearch.search.context import Context
from lrsearch.search.interrupt import Interrupted
from lrsearch.search.plan import make_plan
from lrsearch.search.raise_finalists import Run, _ahead
from lrsearch.storage import Storage, new_owner, open_storage
from lrsearch.storage.slots import claim_some
from tests.test_confirm import constant, found, interrupt_after_one, search_of
from tests.test_schedules import POINTS, SEARCHED, draws

SEARCH: Mapping[str, Any] = {"epochs": 4, "trials": 60, "device": "cpu", "quiet": True}
RUN = ["run", "--task", "digits", "--epochs", "4", "--trials", "100", "--device", "cpu"]
FILE = Path("lrsearch-results/digits/robust.yaml")


Runs = dict[tuple[str, int], optuna.trial.FrozenTrial]


def raised_trials(study: str = "digits-confirm") -> Runs:
    """Name and seed of each run at higher rates -> its trial."""
    again = optuna.load_study(study_name=study, storage=open_storage("sqlite:///lrsearch.db"))
    runs = [t for t in again.trials if t.user_attrs["arm"].endswith(f" x {RAISE:g}")]
    made = {(t.user_attrs["arm"], t.user_attrs["seed"]): t for t in runs}
    assert len(made) == len(runs)
    return made


def losses_of(runs: Runs) -> dict[int, list[float]]:
    """Number of the finalist -> its losses, seed by seed."""
    losses: dict[int, list[float]] = {}
    for (arm, _), trial in sorted(runs.items(), key=lambda item: item[0][1]):
        assert trial.value is not None
        losses.setdefault(int(arm.partition(" ")[0][1:]), []).append(trial.value)
    return losses


def test_a_run_trains_its_finalists_at_higher_rates(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(RUN) == 0
    said = capsys.readouterr()
    made, result = raised_trials(), lrsearch.report("digits")
    table, losses = result.tables.table, losses_of(made)
    assert sorted(map(len, losses.values())) in ([2, 2, 2], [1, 1, 1, 2, 2, 2])
    assert f"3 finalists at {RAISE:g} times their rates" in said.err
    assert f"once more at {RAISE:g} times their rates" in said.err
    tried = contenders(table)[: len(losses)]
    assert tried[0].number == result.study.best_trial.number
    rates = {trial.number: trial.lr for trial in tried}
    assert rates.keys() == losses.keys()
    for (arm, seed), again in made.items():
        number = int(arm.partition(" ")[0][1:])
        assert again.user_attrs["schedule"]["lr"] == pytest.approx(RAISE * rates[number])
        assert seed in (1001, 1002)
        assert again.state is optuna.trial.TrialState.COMPLETE
        assert not any("test" in key for key in again.user_attrs)
    found = result.tables.found
    assert found is not None
    assert found.robust is not None
    assert found.robust.raised == losses
    worse = {
        trial.number: max(trial.value or 0.0, statistics.geometric_mean(losses[trial.number]))
        for trial in tried
        if len(losses[trial.number]) > 1
    }
    assert found.robust.trial.number == min(worse, key=lambda number: worse[number])
    assert lrsearch.load(FILE) == result.robust
    content = yaml.safe_load(FILE.read_text())
    assert content["study"]["trial"] == found.robust.trial.number
    assert content["robust"]["times_the_rates"] == RAISE
    assert content["robust"]["val_loss"] == losses
    assert f"did best of {len(losses)} finalists with its rates raised {RAISE:g} times" in said.out
    assert "train lrsearch-results/digits/robust.yaml" in said.out
    assert f"did best with its rates raised {RAISE:g} times" in result._repr_html_()


def test_the_same_command_again_trains_nothing_more(in_tmp: Path) -> None:
    assert main([*RUN, "--quiet"]) == 0
    before, text = raised_trials(), FILE.read_text()
    FILE.unlink()
    assert main([*RUN, "--quiet"]) == 0
    assert raised_trials().keys() == before.keys()
    assert FILE.read_text() == text


def test_who_was_raised_is_read_and_not_worked_out_again(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([*RUN, "--quiet"]) == 0
    before = lrsearch.report("digits").robust
    with monkeypatch.context() as patch:  # as if it were chosen otherwise on another machine
        patch.setattr("lrsearch.report.robust.contenders", lambda table: table.complete[1:2])
        assert lrsearch.report("digits").robust == before
    assert lrsearch.load(FILE) == before


def test_more_trials_raise_whom_they_bring_among_the_finalists_and_nobody_twice(
    in_tmp: Path,
) -> None:
    assert main([*RUN, "--quiet"]) == 0
    before = raised_trials()
    assert main([*RUN, "--quiet", "--trials", "140"]) == 0
    after = raised_trials()
    assert before.keys() <= after.keys()
    assert all(after[key].number == trial.number for key, trial in before.items())
    content = yaml.safe_load(FILE.read_text())
    losses = losses_of(after)
    assert all(its == losses[n][: len(its)] for n, its in content["robust"]["val_loss"].items())
    assert lrsearch.report("digits").study.best_trial.number in content["robust"]["val_loss"]


def test_a_confirmation_makes_use_of_them(in_tmp: Path) -> None:
    assert main([*RUN, "--quiet"]) == 0
    before = raised_trials()
    result = lrsearch.report("digits")
    assert result.confirmed is None  # that is yet to be asked
    confirmed = lrsearch.confirm("digits", seeds=2, quiet=True)
    arms = [arm for arm in confirmed.arms if arm.baseline is None]
    after = raised_trials()
    assert before.keys() <= after.keys()
    assert {(f"#{arm.trial} x {RAISE:g}", 1001) for arm in arms} <= after.keys()
    assert lrsearch.load(FILE) == result.robust == lrsearch.report("digits").robust
    assert yaml.safe_load(FILE.read_text())["study"]["trial"] in [arm.trial for arm in arms]
    again = lrsearch.report("digits")
    assert again.confirmed is not None
    assert not again.confirmed.decision.decided  # so few seeds say nothing: it stays what it was
    assert again.schedule == result.schedule == result.robust
    for arm in arms:
        losses = losses_of(after)[arm.trial]
        assert arm.raised == pytest.approx(statistics.geometric_mean(losses))


def test_what_to_train_with_next_is_what_export_gives_while_fresh_seeds_have_not_decided(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*RUN, "--quiet", "--confirm", "2"]) == 0
    ran = " ".join(capsys.readouterr().out.split())
    assert main(["confirm", "digits", "--seeds", "2", "--quiet"]) == 0
    confirmed = " ".join(capsys.readouterr().out.split())
    result = lrsearch.report("digits")
    assert result.confirmed is not None
    assert not result.confirmed.decision.decided
    assert lrsearch.load(FILE) == result.schedule
    assert f"lrsearch train {FILE} --epochs" in ran
    assert f"lrsearch train {FILE} until more seeds decide" in confirmed


def test_a_run_of_what_was_confirmed_tells_it_again_and_does_not_propose_it(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*RUN, "--quiet"]) == 0
    assert "\nNext    lrsearch confirm digits" in capsys.readouterr().out
    assert main(["confirm", "digits", "--seeds", "2", "--quiet"]) == 0
    said = capsys.readouterr().out.split("\n\nFiles")[0]
    Path("lrsearch-results/digits/confirmed.yaml").unlink()
    assert main([*RUN, "--quiet"]) == 0
    out = capsys.readouterr().out
    assert said in out
    assert "Files   lrsearch-results/digits/  confirmed.yaml  best.yaml" in out
    assert "\nNext    lrsearch report digits" in out
    assert main([*RUN, "--json"]) == 0
    assert "confirmation" in json.loads(capsys.readouterr().out)
    assert main(["confirm", "digits", "--seeds", "2", "--top", "0", "--quiet"]) == 0
    capsys.readouterr()
    assert main([*RUN, "--quiet"]) == 0
    assert "\nNext    lrsearch confirm digits" in capsys.readouterr().out


def test_json_has_what_robust_yaml_has_after_a_confirmation(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*RUN, "--no-robust", "--confirm", "2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["robust"]
    content = yaml.safe_load(FILE.read_text())
    assert said["trial"] == content["study"]["trial"]
    assert said["raised"] == {str(n): x for n, x in content["robust"]["val_loss"].items()}


def test_the_end_of_a_run_says_which_of_its_two_files_to_train_with(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gentler one was told as (robust.yaml); of one that is the same, nothing was said."""
    other = [*RUN, "--quiet", "--seed", "1"]
    assert main([*other, "--trials", "4"]) == 0  # a recipe won
    assert "best.yaml  robust.yaml (as best.yaml)  " in capsys.readouterr().out
    assert main([*other, "--no-robust"]) == 0
    out = capsys.readouterr().out
    assert "best.yaml  robust.yaml  " in out
    assert re.search(r"^Train with     best\.yaml\n  robust\.yaml has a gentler one, ", out, re.M)
    assert "train lrsearch-results/digits/best.yaml" in out


@pytest.mark.parametrize("words", [["--no-robust"], ["--trials", "12"]])
def test_where_they_are_not_asked_for_or_cost_too_much_it_is_the_gentler_one(
    words: list[str], in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*RUN, *words]) == 0
    said = capsys.readouterr()
    assert "times their rates" not in "".join(said)
    assert ("with its rates raised" in said.out) == ("--trials" in words)
    assert "digits-confirm" not in {
        s.study_name for s in open_storage("sqlite:///lrsearch.db").get_all_studies()
    }
    result = lrsearch.report("digits")
    table = result.tables.table
    milder = gentler(table) if len(table.complete) >= LEAST_SURE else None
    better = milder is not None and milder in contenders(table)
    number = milder.number if milder is not None and better else result.study.best_trial.number
    assert yaml.safe_load(FILE.read_text())["study"]["trial"] == number
    assert "robust" not in yaml.safe_load(FILE.read_text())


def test_a_loss_is_not_called_luck_where_few_trials_say_how_much_that_is(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """8 complete trials took 0.5152 for as good as 0.2183."""
    few = ["--epochs", "5", "--trials", "10", "--optimizer", "adamw"]
    assert main(["run", "--task", "digits", "--device", "cpu", "--quiet", *few]) == 0
    assert "luck" not in capsys.readouterr().out
    result = lrsearch.report("digits")
    assert yaml.safe_load(FILE.read_text())["study"]["trial"] == result.study.best_trial.number
    table = result.tables.table
    assert gentler(table) in contenders(table), "it may be raised all the same"


def test_a_short_search_says_that_they_cost_too_much_and_robust_trains_them_all_the_same(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = [*RUN, "--trials", "12"]
    told = "no finalist was trained with its rates raised 1.7 times, as that costs more than a "
    assert main([*short, "--quiet"]) == 0
    assert f"  {told}fifth of the search: --robust does it\n" in capsys.readouterr().out
    lrsearch.report("digits").write("short.html")
    assert "search: <code>--robust</code> does it." in Path("short.html").read_text()
    assert main([*short, "--robust"]) == 0
    said = capsys.readouterr()
    assert told not in said.out
    assert f"at {RAISE:g} times their rates" in said.err
    assert len(raised_trials()) in (4, 5, 6, 7, 8, 9)
    lrsearch.report("digits").write("short.html")
    assert "<code>--robust</code>" not in Path("short.html").read_text()


def test_where_every_run_of_the_first_finalists_fails_no_more_are_tried_and_that_is_said(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def admit(self: ConfirmWorker, trial: FrozenTrial, **_: Any) -> None:
        self._fail(trial._trial_id, RuntimeError("no memory"))

    monkeypatch.setattr(ConfirmWorker, "_admit", admit)
    assert main([*RUN]) == 0
    shown = capsys.readouterr().out
    assert "every run of a finalist with its rates raised 1.7 times failed: lrsearch sh" in shown
    assert [trial.state for trial in raised_trials().values()] == [TrialState.FAIL] * 3


def test_no_finalist_starts_when_the_time_is_up_and_the_same_command_goes_on(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finish, up = ConfirmWorker._finish, list[bool]()

    def last(self: ConfirmWorker, *args: Any) -> None:
        finish(self, *args)
        up.append(True)

    with monkeypatch.context() as patch:
        patch.setattr(ConfirmWorker, "_finish", last)
        patch.setattr(Context, "time_is_up", lambda self: bool(up))
        timed = [*RUN, "--fuse", "1", "--timeout", "2h"]
        assert main(timed) == 0
    told = "time was up before all runs of the finalists had ended"
    assert f"  {told}; the same command goes on\n" in capsys.readouterr().out
    assert [trial.state for trial in raised_trials().values()] == [TrialState.COMPLETE]
    with monkeypatch.context() as patch:
        patch.setattr(Context, "time_is_up", lambda self: True)
        assert main(timed) == 0
    assert told in capsys.readouterr().out
    assert len(raised_trials()) == 1
    assert main(timed) == 0
    assert told not in capsys.readouterr().out
    assert len(raised_trials()) in (6, 9)


def test_who_interrupts_it_has_the_best_schedule_and_goes_on_with_the_same_command(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        interrupt_after_one(patch)
        assert main([*RUN, "--fuse", "1"]) == 130
    assert FILE.with_name("best.yaml").exists()
    assert FILE.exists()
    assert main([*RUN, "--fuse", "1"]) == 0
    made = raised_trials()
    assert {t.state for t in made.values()} == {optuna.trial.TrialState.COMPLETE}
    assert len(made) in (6, 9)


def test_who_interrupts_the_runs_at_own_rates_has_what_did_best_before(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([*RUN, "--no-robust", "--quiet"]) == 0
    FILE.write_text("schedule of an earlier run")

    def admit(self: ConfirmWorker, trial: FrozenTrial, **how: Any) -> None:
        if trial.user_attrs["arm"].endswith(" x 1"):
            raise Interrupted(130)
        real(self, trial, **how)

    real = ConfirmWorker._admit
    with monkeypatch.context() as patch:
        patch.setattr(ConfirmWorker, "_admit", admit)
        assert main(RUN) == 130
    number = lrsearch.report("digits").tables.found.chosen.number
    assert yaml.safe_load(FILE.read_text())["study"]["trial"] == number


def test_a_study_in_its_way_is_left_alone_and_the_run_is_told(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*RUN, "--trials", "4", "--name", "digits-confirm", "--quiet"]) == 0
    assert main(RUN) == 0
    said = capsys.readouterr()
    assert "finalists were not all trained at higher rates: study 'digits-confirm' " in said.err
    assert "Best schedule" in said.out
    assert FILE.exists()


def test_two_workers_find_what_one_does(in_tmp: Path) -> None:
    lrsearch.search("digits", **SEARCH)
    alone = {key: trial.value for key, trial in raised_trials().items()}
    lrsearch.search("digits", **SEARCH, name="two", robust=False)
    lrsearch.search("digits", **SEARCH, name="two", workers=2)
    two = {key: trial.value for key, trial in raised_trials("two-confirm").items()}
    assert two == pytest.approx(alone, rel=1e-5)


def test_who_waits_makes_runs_of_the_next_round_and_those_decide_nothing(
    storage: Storage,
) -> None:
    made = [found(constant(lr), loss) for lr, loss in ((0.3, 0.2), (0.1, 0.21), (0.03, 0.22))]
    more = [found(constant(lr), 0.23) for lr in (0.01, 0.003)]
    rest = [found(constant(0.2), 0.4)] * 20  # so that 3 runs are within a fifth, and 4 are not
    recipe_run = found(constant(0.05), 0.3, baseline="ConstantLR")
    table = load(search_of(storage, *made, *more, recipe_run, *rest))
    tried = contenders(table)
    first: list[Run] = [(trial, RAISE, 0) for trial in tried[:3]]
    recipe = next(trial for trial in table.trials if trial.baseline)
    plan = make_plan(make({"task": "digits", "fuse": "off", "robust": True}))

    def ahead(workers: int, raised: Raised, runs: list[Run], fuse: int = 1) -> list[Run]:
        choice = replace(plan.choice, workers=workers, fuse=fuse)
        return _ahead(replace(plan, choice=choice), table, raised, runs, again)

    again, second = None, [(trial, RAISE, 1) for trial in tried[:3]]
    assert [ahead(workers, {}, first) for workers in (1, 3)] == [[], []]
    assert ahead(2, {}, first) == ahead(4, {}, first) == [(recipe, 1.0, 0)]
    assert ahead(5, {}, first) == [(recipe, 1.0, 0), second[0]]
    assert ahead(8, {}, first) == ahead(2, {}, first, fuse=16) == [(recipe, 1.0, 0), *second]
    bore: Raised = {trial.number: [0.3] for trial in tried[:3]}
    assert ahead(8, bore, second) == [(recipe, 1.0, 0), (tried[0], 1.0, 0)]
    plan = replace(plan, config=replace(plan.config, robust=None))
    assert too_dear(table, 4)
    assert ahead(8, {}, first) == [(recipe, 1.0, 0)]
    plan = replace(plan, config=replace(plan.config, robust=True))
    runs = [
        replace(found(constant(0.1), loss), attrs={"arm": f"{arm} x {times}", "seed": seed})
        for arm, times, loss, seed in (
            *((f"#{trial.number}", RAISE, 2.3, 1001) for trial in tried[:3]),
            *((f"#{trial.number}", RAISE, 0.1, 1002) for trial in tried[:3]),
            ("ConstantLR", 1, 0.3, 1001),
        )
    ]
    again = load(search_of(storage, *runs, name="digits-confirm"))
    raised = read_raised(tried, again)
    assert raised == {trial.number: [2.3] for trial in tried[:3]}, "none bears it: more are tried"
    assert ahead(8, raised, [(tried[3], RAISE, 0)]) == []


TRIED = [
    TrialRow(n, n, "complete", family="StepLR", lr=0.5, value=0.1 + 0.01 * n) for n in range(6)
]


@pytest.mark.parametrize("family", [*SEARCHED, "Points"])
def test_schedules_of_every_family_can_be_raised(family: str) -> None:
    for schedule in [POINTS] if family == "Points" else draws(family, 8, "auto", 20):
        arm = {"key": "#1", "schedule": schedule.to_dict(), "trial": 1}
        raised = Schedule.from_dict(arm_at(arm, RAISE)["schedule"])
        assert raised.lr == RAISE * schedule.lr
        assert replace(raised, lr=schedule.lr, params=schedule.params) == schedule


def test_three_more_are_raised_where_none_bears_it_and_the_lowest_once_more() -> None:
    first, more = [(trial, 0) for trial in TRIED[:3]], [(trial, 0) for trial in TRIED[3:]]
    assert next_runs(TRIED, {}) == first
    lost = {number: [2.3] for number in range(3)}
    assert next_runs(TRIED, lost) == more
    assert next_runs(TRIED, {**lost, 2: [math.inf]}) == more
    all_lost = {number: [2.3 - 0.1 * number] for number in range(6)}  # not one bears it
    assert next_runs(TRIED, all_lost) == [(TRIED[5], 1), (TRIED[4], 1), (TRIED[3], 1)]
    bore = {**lost, 1: [0.2], 0: [0.3]}
    assert next_runs(TRIED, bore) == [(TRIED[1], 1), (TRIED[0], 1), (TRIED[2], 1)]
    six = {**lost, 3: [2.3], 4: [0.3], 5: [0.2]}
    assert next_runs(TRIED, six) == [(TRIED[5], 1), (TRIED[4], 1), (TRIED[0], 1)]
    twice = {**bore, 1: [0.2, 2.3], 2: [2.3, 2.3]}
    assert next_runs(TRIED, twice) == [(TRIED[0], 1)]
    assert next_runs(TRIED, {**twice, 0: [0.3, 0.4]}) == []
    assert next_runs(TRIED[:1], {}) == []  # it has no rival
    assert lowest_raised(TRIED, {**bore, 1: [0.2, 2.3], 0: [0.3, 0.4]}) == TRIED[0]
    assert lowest_raised(TRIED, bore) == TRIED[1]
    assert lowest_raised(TRIED, {0: [math.inf], 1: [math.inf]}) is None
    assert lowest_raised(TRIED, {}) is None


def test_a_run_at_higher_rates_that_failed_says_nothing_of_its_schedule() -> None:
    nan, bore = math.nan, {0: [math.nan], 1: [0.2], 2: [math.inf]}
    assert next_runs(TRIED, bore) == [(TRIED[1], 1), (TRIED[0], 1), (TRIED[2], 1)]
    assert lowest_raised(TRIED, bore) == TRIED[1]
    assert lowest_raised(TRIED, {0: [0.2, nan], 1: [0.3, 0.3], 2: [0.4, 0.4]}) == TRIED[1]
    assert lowest_raised(TRIED, {0: [0.2, nan], 1: [0.3, nan], 2: [0.4, nan]}) == TRIED[0]
    failed = {0: [nan], 1: [nan], 2: [nan]}
    assert next_runs(TRIED, failed) == [(trial, 0) for trial in TRIED[3:]]
    assert lowest_raised(TRIED, failed) is None
    none = Robust(TRIED[0], failed)
    assert not none.did_best
    assert not none.bears
    ended = "the run of each of 3 finalists failed with its rates raised 1.7 times"
    assert robust_line(none, 0) == ended
    said = robust_sentence(none, TRIED[0], "lrsearch export digits")
    assert said.startswith("How near it lies to the edge of what this task bears is not known: ")
    both = Robust(TRIED[0], {0: [math.inf], 1: [nan], 2: [math.inf, 0.2]})
    ended = "of 3 finalists 2 diverged and 1 failed with its rates raised 1.7 times"
    assert robust_line(both, 0) == f"near the edge of what the task bears: {ended}"
    said = robust_sentence(Robust(TRIED[1], bore), TRIED[0], "lrsearch export digits")
    assert "it came to 0.2000 there, and that one failed." in said


def test_of_losses_below_0_one_that_ends_no_lower_than_its_first_epoch_is_near_the_edge() -> None:
    tried = [replace(row, value=-2.0 + 0.1 * row.number, first_loss=0.5) for row in TRIED]
    bore = {0: [0.7], 1: [-1.5], 2: [0.4]}
    assert [Robust(row, bore).bears for row in tried[:3]] == [False, True, True]
    assert next_runs(tried, bore) == [(tried[1], 1), (tried[2], 1), (tried[0], 1)]
    assert next_runs(tried, {n: [0.6] for n in range(3)}) == [(row, 0) for row in tried[3:]]
    assert lowest_raised(tried, bore) == tried[1]
    unknown = replace(tried[0], first_loss=None)
    assert bears(unknown, [0.7])
    assert not bears(unknown, [math.inf])


def test_a_rate_that_is_too_low_is_no_answer_for_being_better_when_raised() -> None:
    assert lowest_raised(TRIED, {0: [0.105], 5: [0.09]}) == TRIED[0]  # 0.100 and 0.150 before
    assert below(TRIED, [0.4, 0.125]) == TRIED[:3]
    assert below(TRIED, []) == TRIED


def test_words() -> None:
    """All that were raised failed: that may be their rates, or nets that are dead at any rate."""
    bore, lost = {0: [2.3], 1: [0.14], 2: [0.2]}, {0: [2.1], 1: [2.3], 2: [math.inf]}
    raised = "with its rates raised 1.7 times"
    bears = f"did best of 3 finalists {raised}, on one fresh seed (robust.yaml)"
    assert robust_line(Robust(TRIED[1], bore), 0) == bears
    assert robust_line(Robust(TRIED[1], bore), 1) == f"robust, too: {bears}"
    near = (
        "near the edge of what the task bears, or unlucky in its seeds: "
        f"did least badly of 3 finalists {raised}, on one fresh seed (robust.yaml)"
    )
    assert robust_line(Robust(TRIED[1], lost), 0) == near
    assert robust_line(Robust(TRIED[0], lost), 0) == near
    assert robust_line(Robust(TRIED[1]), 0) == (
        "robust.yaml has a gentler one, perhaps behind by luck alone: StepLR, lr 0.5, val loss "
        "0.1100"
    )
    every = {number: [math.inf] for number in range(3)}
    each = f"each of 3 finalists diverged {raised}"
    edge = f"near the edge of what the task bears: {each}"
    assert robust_line(Robust(TRIED[5], every), 0) == edge
    export = "lrsearch export digits"
    said = robust_sentence(Robust(TRIED[5], {**every, 2: [0.2, math.inf]}), TRIED[0], export)
    assert f"{each}, on fresh seeds. Luck favours" in said
    said = robust_sentence(Robust(TRIED[1], {**bore, 1: [0.14, 0.5]}), TRIED[0], export)
    assert "is that of **StepLR** at a peak learning rate of **0.5** (trial 0, 0.1000)" in said
    assert f"did best {raised}, on fresh seeds: it came to 0.1400 there" in said
    assert "there, and that one came to 2.300" in said
    assert said.endswith("`lrsearch export digits --trial 0` writes it.")
    said = robust_sentence(Robust(TRIED[1], {**bore, 0: [math.inf]}), TRIED[0], export)
    assert "on one fresh seed: it came to 0.1400 there, and that one diverged." in said
    said = robust_sentence(Robust(TRIED[1], bore), TRIED[1], export)
    assert said.startswith("It is robust, too: ")
    said = robust_sentence(Robust(TRIED[0], lost), TRIED[0], export)
    assert said.startswith(f"Of 3 finalists it did least badly {raised}, on one fresh seed")
    either = "it lies near the edge of what this task bears, or its seeds were unlucky."
    assert said.endswith(f"(2.100 there). Even so, {either}")
    said = robust_sentence(Robust(TRIED[1], lost), TRIED[0], export)
    assert "it came to 2.300 there, and that one came to 2.100. Even so, it lies near" in said


def test_what_bore_higher_rates_is_the_answer_everywhere_until_fresh_seeds_have_one(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [found(constant(lr), loss) for lr, loss in ((0.3, 0.2), (0.1, 0.21), (0.03, 0.22))]
    study = search_of(storage, *made, found(constant(0.05), 0.3, baseline="constant"))
    result = lrsearch.report("digits")
    assert result.schedule == result.best == result.robust == constant(0.3)
    runs = [
        replace(found(constant(1.7 * lr), loss), attrs={"arm": f"#{n} x 1.7", "seed": seed})
        for n, lr, loss, seed in (
            (0, 0.3, 2.3, 1001),
            (1, 0.1, 0.2, 1001),
            (2, 0.03, 0.21, 1001),
            (2, 0.03, 0.2, 1002),
            (1, 0.1, 2.3, 1002),
            (0, 0.3, 2.3, 1002),
        )
    ]
    again = search_of(storage, *runs, name="digits-confirm")
    again.set_user_attr(CONFIRM_ATTR, {"of": "digits", "arms": [], "seeds": [], "slots": []})
    result = lrsearch.report("digits")
    assert result.schedule == result.robust == constant(0.03)
    assert result.best == constant(0.3)
    assert result.value == 0.22
    assert "train with ConstantLR" in repr(result)
    result.write("r.html")
    page = Path("r.html").read_text()
    assert "Learning rate of trial 2, which bore higher rates best" in page
    assert "Save this as <code>robust.yaml</code>" in page
    assert "lrsearch.load(&quot;robust.yaml&quot;)" in page
    assert "to train with</th>" in page
    assert "This is trial 2, also in robust.yaml" in page
    assert main(["show", "digits"]) == 0
    why = "did best with its rates raised (robust.yaml)"
    row = f"robust  #2 ConstantLR  lr 0.03, val loss 0.2200, {why}"
    assert row in capsys.readouterr().out
    assert main(["export", "digits"]) == 0
    said = capsys.readouterr()
    assert "lr: 0.03" in said.out
    assert "This is trial 2, also in robust.yaml" in said.err
    assert "The best of the search is in best.yaml (lrsearch export digits --trial 0" in said.err
    assert main(["export", "digits", "--trial", "0"]) == 0
    assert "best of the search" not in capsys.readouterr().err
    trial = study.ask()
    trial.set_user_attr("schedule", constant(0.2).to_dict())
    study.tell(trial, 0.1)
    assert lrsearch.report("digits").schedule == constant(0.2)  # it was not raised yet


def test_the_page_says_what_to_train_with_while_a_confirmation_has_not_decided(
    storage: Storage,
) -> None:
    """It said that the winner only looked best, drew that, and named nothing to take."""
    made = [found(constant(lr), loss) for lr, loss in ((0.3, 0.2), (0.1, 0.21), (0.03, 0.22))]
    search_of(storage, *made, found(constant(0.05), 0.3, baseline="ConstantLR"))
    lrsearch.confirm("digits", seeds=2, quiet=True)
    result = lrsearch.report("digits")
    assert result.confirmed is not None
    assert not result.confirmed.decision.decided
    assert result.tables.found is not None
    chosen = result.tables.found.chosen.number
    assert chosen != result.study.best_trial.number
    result.write("r.html")
    first, _, rest = Path("r.html").read_text().partition("Every trial by its peak learning rate")
    assert 'class="lead">Until more seeds decide, train with <strong>ConstantLR' in first
    assert f"Learning rate of trial {chosen}, which bore higher rates best" in first
    assert "the winner&#x27;s validation loss, median of 2 fresh seeds" in first
    assert "In the search, with one seed, its winner reached" in rest


def test_a_loop_of_the_users_own_has_the_gentler_one(tmp_path: Path) -> None:
    from tests.test_finalists import lucky, table_of

    table = table_of(tmp_path, lucky())
    alone = optuna.create_study()
    found = robust(table, alone)
    assert found == Robust(gentler(table) or table.trials[0])
    assert not found.bears
    for few in (3, LEAST_SURE - 1):
        short = replace(table, trials=table.trials[:few])
        assert robust(short, alone) is None


def test_processes_that_end_a_search_together_do_not_forget_what_the_others_planned(
    in_tmp: Path,
) -> None:
    lrsearch.search("digits", **{**SEARCH, "trials": 4}, robust=False)
    study, storage = lrsearch.report("digits").study, open_storage("sqlite:///lrsearch.db")
    plan = make_plan(make({"epochs": 4, "device": "cpu"}))
    edge = {"key": "#1 x 1.7", "of": "#1", "schedule": constant(0.1).to_dict(), "trial": 1}
    again = open_confirmation(study, storage, plan, [(edge, 0)])
    assert claim_some(storage, again._study_id, 1, new_owner(), 1)  # what is planned stays then
    together = Barrier(8)

    def end(seed: int) -> None:
        own = open_storage("sqlite:///lrsearch.db")
        together.wait()
        open_confirmation(study, own, plan, [(edge, seed)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(end, range(1, 9)))
    planned = again.user_attrs[CONFIRM_ATTR]["slots"]
    assert sorted(seed for _, seed in planned) == list(range(9))


def test_a_slot_that_another_process_used_otherwise_hides_no_run(in_tmp: Path) -> None:
    lrsearch.search("digits", **SEARCH)
    before = {key: trial.value for key, trial in raised_trials().items()}
    again = lrsearch.report("digits-confirm").study
    with sqlite3.connect("lrsearch.db") as database:
        database.execute(
            "UPDATE trial_user_attributes SET value_json = ? WHERE trial_id = ? AND key = 'arm'",
            ('"#999 x 1.7"', again.trials[0]._trial_id),
        )
    lrsearch.search("digits", **SEARCH)
    after = {key: trial.value for key, trial in raised_trials().items()}
    assert after.pop(("#999 x 1.7", 1001)) is not None
    assert after == pytest.approx(before, rel=1e-5)
    slots = again.user_attrs[CONFIRM_ATTR]["slots"]
    assert slots[0] == ["#999 x 1.7", 1001]
    assert len(slots) == len(before) + 1 + 2  # and two at their own rates


def test_where_a_run_cannot_be_done_the_search_ends_all_the_same(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[ConfirmWorker] = []
    monkeypatch.setattr(ConfirmWorker, "run", lambda self: asked.append(self))
    lrsearch.search("digits", **SEARCH)
    assert len(asked) == 1
    assert FILE.exists()


def test_a_confirmation_of_an_earlier_best_is_not_why_the_answer_is_another(
    storage: Storage,
) -> None:
    made = [found(constant(lr), loss) for lr, loss in ((0.3, 0.2), (0.1, 0.21), (0.03, 0.22))]
    search_of(storage, *made)
    runs = [
        replace(found(constant(lr), loss), attrs={"arm": arm, "seed": 1001})
        for arm, lr, loss in (
            ("#0 x 1.7", 0.51, 2.3),
            ("#1 x 1.7", 0.17, 0.22),
            ("#2 x 1.7", 0.05, 0.3),
            ("#1", 0.1, 0.21),
        )
    ]
    again = search_of(storage, *runs, name="digits-confirm")
    arm = {"key": "#1", "schedule": constant(0.1).to_dict(), "trial": 1, "baseline": None}
    again.set_user_attr(
        CONFIRM_ATTR, {"of": "digits", "arms": [arm], "seeds": [1001], "slots": []}
    )
    result = lrsearch.report("digits")
    assert result.confirmed is not None
    assert result.schedule == constant(0.1)
    result.write("r.html")
    page = Path("r.html").read_text()
    assert "Learning rate of trial 1, which bore higher rates best" in page
    assert "Save this as <code>robust.yaml</code>" in page


def test_where_all_finalists_are_lost_it_is_said_and_the_best_stays_the_answer(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    lrs = (0.3, 0.1, 0.03)
    search_of(storage, *(found(constant(lr), 0.2 + 0.01 * n) for n, lr in enumerate(lrs)))
    runs = [
        replace(
            found(constant(1.7 * lr), 0.2),
            attrs={"arm": f"#{n} x 1.7", "seed": 1001 + seed},
            state=TrialState.PRUNED if seed == n % 2 else TrialState.COMPLETE,
            stopped="diverged" if seed == n % 2 else "completed",
        )
        for n, lr in enumerate(lrs)
        for seed in range(2)
    ]
    again = search_of(storage, *runs, name="digits-confirm")
    again.set_user_attr(CONFIRM_ATTR, {"of": "digits", "arms": [], "seeds": [], "slots": []})
    result = lrsearch.report("digits")
    assert result.schedule == result.robust == constant(0.3)
    assert "each of 3 finalists diverged" in result._repr_html_()
    assert main(["show", "digits"]) == 0
    assert "robust" not in capsys.readouterr().out


def test_what_failed_at_higher_rates_is_read_as_failed_and_not_as_diverged(
    storage: Storage,
) -> None:
    made = [found(constant(lr), loss) for lr, loss in ((0.3, 0.2), (0.1, 0.21), (0.03, 0.22))]
    study = search_of(storage, *made, found(constant(0.05), 0.3, baseline="constant"))
    runs = [
        replace(
            found(constant(1.7 * lr), 0.25), attrs={"arm": f"#{n} x 1.7", "seed": 1001}, **ended
        )
        for n, lr, ended in (
            (0, 0.3, {"state": TrialState.FAIL, "stopped": "failed"}),
            (1, 0.1, {"state": TrialState.PRUNED, "stopped": "diverged"}),
            (2, 0.03, {}),
        )
    ]
    again = search_of(storage, *runs, name="digits-confirm")
    again.set_user_attr(CONFIRM_ATTR, {"of": "digits", "arms": [], "seeds": [], "slots": []})
    table = load(study)
    raised = read_raised(contenders(table), load_confirmation(study)[0])
    assert math.isnan(raised[0][0])
    assert raised[1] == [math.inf]
    assert raised[2] == [0.25]
    assert math.isnan(raised_losses(load(again), "#0")[1001])
    assert lrsearch.report("digits").robust == constant(0.03)
    write_robust(study, robust(table, study), Path("robust.yaml"))
    written = yaml.safe_load(Path("robust.yaml").read_text())["robust"]["val_loss"]
    assert written == {0: ["failed"], 1: ["diverged"], 2: [0.25]}
