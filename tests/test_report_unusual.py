"""Reports of unusual studies: losses below 0, no trial that ran to its end, loops of others."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml
from optuna.trial import TrialState

import lrsearch
from lrsearch.cli import main
from lrsearch.dashboard_study import note
from lrsearch.export import export_text
from lrsearch.report import report as reports
from lrsearch.report import words
from lrsearch.report.answer import sentences
from lrsearch.report.importance import Importance, Shares
from lrsearch.report.importance_shown import importance_sentences
from lrsearch.report.page import page, wall_seconds
from lrsearch.report.report import make_report
from lrsearch.report.tables import StudyTable, TrialRow, answer, load, pruning
from lrsearch.schedules import Schedule
from lrsearch.storage import Storage, open_storage
from tests.synthetic import Fake, fakes, make_study


def visible(text: str) -> str:
    """A page without its scripts."""
    return re.sub(r"<script[^>]*>.*?</script>", "", text, flags=re.S)


def below_zero(storage: Storage | None = None) -> optuna.Study:
    """A study whose losses are log-likelihoods: all below 0."""
    made = fakes(60)
    for fake in made:
        fake.losses = fake.losses - 5.0
    return make_study(made=made, storage=storage)


def test_losses_below_zero_are_compared_by_differences_everywhere() -> None:
    report = make_report(below_zero())
    found = report.found
    assert found is not None
    assert found.strongest is not None
    assert found.best.value is not None
    assert found.strongest.value is not None
    assert found.close == ()
    by = words.number(found.strongest.value - found.best.value)
    bodies = visible(page(report))
    assert f"<strong>{by} below</strong> the best usual recipe" in bodies
    assert f"<dd>−{by}</dd>" in bodies
    assert bodies.count(f">−{by}</td>") == 1
    assert not re.search(r"[+−][0-9.]+%", bodies)
    widths = [float(w) for w in re.findall(r'<i style="width:([\d.]+)%', bodies)]
    assert widths[0] == 0
    assert max(widths) == 100
    assert f"−{by} |" in note(report)


def test_an_axis_of_losses_that_are_not_above_zero_is_linear(in_tmp: Path) -> None:
    storage = open_storage("sqlite:///lrsearch.db")
    drawn = make_report(below_zero(storage)).figures
    for name in ("scatter", "history", "lines", "paths"):
        assert drawn[name][0].layout.yaxis.type != "log", name
    for name in ("curves", "overview"):
        assert drawn[name][0].layout.yaxis2.type != "log", name
    best = [a for a in drawn["overview"][0].layout.annotations if "<b>" in a.text]
    assert best[0].y < -3
    assert make_report(make_study(60)).figures["curves"][0].layout.yaxis2.type == "log"


def lost(trials: int = 12) -> list[Fake]:
    """Trials that all diverged."""
    made = fakes(trials, prune=False)
    for fake in made:
        fake.losses = np.array([2.0, math.inf])
        fake.state, fake.stopped = TrialState.PRUNED, "diverged"
    return made


def test_where_all_trials_diverged_the_report_says_what_to_do_and_claims_nothing() -> None:
    made = lost()
    text = visible(page(make_report(make_study(12, made=made))))
    least = words.number(min(fake.schedule["lr"] for fake in made))
    assert f"All 12 trials diverged, even at a peak learning rate of <strong>{least}<" in text
    assert "search lower rates: <code>lrsearch run --lr LOW,HIGH --name ANOTHER</code>" in text
    assert "Run the same command again" not in text
    assert "explains" not in text
    assert "saved" not in text
    assert "That took 24 of 240 epochs." in text


def test_an_axis_without_a_loss_has_no_numbers() -> None:
    drawn = make_report(make_study(12, made=lost())).figures
    assert drawn["scatter"][0].layout.yaxis.tickvals == ()
    assert drawn["scatter"][0].layout.yaxis2.ticktext == ("diverged",)
    made = lost()
    for fake in made:
        fake.losses = np.array([math.inf])
    drawn = make_report(make_study(12, made=made)).figures
    assert drawn["overview"][0].layout.yaxis2.tickvals == ()


@pytest.mark.parametrize("trials", [0, 12])
def test_links_of_a_page_lead_to_sections_that_are_there(trials: int) -> None:
    text = visible(page(make_report(make_study(12, made=lost(trials)))))
    links = re.findall(r'<a href="#(\w+)">', text)
    assert links
    assert set(links) == set(re.findall(r'<section id="(\w+)">', text))
    if not trials:
        assert "trained to the end" not in text
        assert "0 trials" not in text


@pytest.mark.parametrize(("target", "says"), [(12, "a larger <code>--trials"), (20, "again to")])
def test_a_study_that_has_all_its_trials_is_not_to_be_run_again(target: int, says: str) -> None:
    made = lost()
    made[11].losses = np.array([2.0, 1.9])
    made[11].stopped = "pruned"
    assert says in page(make_report(make_study(target, made=made)))
    made[11].state, made[11].stopped = TrialState.FAIL, "failed"
    text = page(make_report(make_study(target, made=made)))
    assert "<code>lrsearch show digits</code> says why some failed" in text


def test_trials_that_came_to_the_same_loss_tell_nothing_of_what_mattered() -> None:
    made = fakes(15, prune=False)
    for fake in made:
        fake.losses, fake.state, fake.stopped = np.zeros(20), TrialState.COMPLETE, "completed"
    found = make_report(make_study(made=made)).mattered
    assert found.overall is None
    assert importance_sentences(found) == [
        "The trials came to nothing that family, rate or warmup could explain."
    ]


def test_a_run_whose_trials_all_diverge_says_so(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("lost.py").write_text(
        "import torch\n"
        "x = torch.randn(40, 5)\n"
        "y = x.sum(1, keepdim=True) * 1e5\n"
        "net = lambda: torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 1))\n"
        "task = {'model': net, 'train': (x * 1e3, y), 'validation': (x * 1e3, y), 'epochs': 3,\n"
        "        'lr': 1e3, 'lr_range': (1e2, 1e5)}\n"
    )
    assert main(["run", "--quiet", "--task", "lost.py:task", "--trials", "5", "--name", "l"]) == 1
    said = capsys.readouterr().err
    assert "study 'l': all 5 trials diverged, even at lr" in said
    assert "search lower rates (--lr LOW,HIGH and another --name)" in said


def test_a_run_whose_trials_all_come_to_one_loss_says_so(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was: train with this recipe, nothing tried was better; square with seed 2 is such."""
    Path("dead.py").write_text(
        "import torch\n"
        "x = torch.linspace(0, 1, 200).reshape(40, 5)\n"
        "def net():\n"
        "    first, last = torch.nn.Linear(5, 4), torch.nn.Linear(4, 1)\n"
        "    torch.nn.init.constant_(first.bias, -10.0)\n"
        "    last.requires_grad_(False)\n"
        "    return torch.nn.Sequential(first, torch.nn.ReLU(), last)\n"
        "task = {'model': net, 'train': (x, x[:, :1]), 'validation': (x, x[:, :1]), 'epochs': 2}\n"
    )
    run = ["run", "--quiet", "--workers", "1", "--task", "dead.py:task", "--trials", "6"]
    assert main([*run, "--name", "d"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "All 6 trials came to this loss: no schedule made a difference. If it is a poor" in said
    assert "look at the model, or search with --seed N --name ANOTHER." in said
    assert "nothing tried was better" not in said
    assert "StepLR ±0.0%" in said, "neither lower nor higher"
    assert main([*run[:-1], "10", "--no-baselines", "--name", "e"]) == 0
    said = capsys.readouterr().out
    assert "All 10 trials" in said
    assert "behind by luck alone" not in said, "none is behind"
    assert main(["report", "d", "-o", "d.html"]) == 0
    text = visible(Path("d.html").read_text())
    assert "No schedule made a difference: all 6 trials came to the same validation loss" in text
    assert "Train with" not in text


def test_loops_of_ones_own_that_come_to_one_loss_say_so() -> None:
    made = fakes(15, prune=False)
    for fake in made:
        fake.losses, fake.state, fake.stopped = np.ones(20), TrialState.COMPLETE, "completed"
    table = load(make_study(made=made))
    first, then = sentences(replace(table, info={}), answer(table), None)
    assert first.endswith("all 15 trials came to the same validation loss, **1.000**.")
    assert then.endswith("look at the model, or search with another seed.")
    made[3].losses = np.full(20, 1.5)
    table = load(make_study(made=made))
    assert sentences(table, answer(table), None)[0].startswith("Train with ")


def test_trials_that_ran_side_by_side_count_their_time_once() -> None:
    def row(number: int, end: float, seconds: float) -> TrialRow:
        finished = datetime(2026, 1, 1) + timedelta(seconds=end)
        return TrialRow(number, number, "complete", seconds=seconds, finished=finished)

    table = load(make_study(made=[]))
    fused = [row(i, 10, 10) for i in range(8)]
    rows = (*fused, row(8, 14, 6), row(9, 12, 3), row(10, 100, 2), TrialRow(11, 11, "waiting"))
    assert wall_seconds(replace(table, trials=rows)) == pytest.approx(16)
    text = page(make_report(make_study(40)))
    assert re.search(r"trained for \d+ s by the clock", text)


def own_loop(metric: float | None = None, decays: bool = False, trials: int = 16) -> optuna.Study:
    """A study from a loop of the user's own; where it asks for a weight decay, that matters."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1), study_name="mine")

    def objective(trial: optuna.Trial) -> float:
        schedule = lrsearch.suggest(trial, 2, lr=(1e-3, 10.0))
        decay = trial.suggest_float("weight_decay", 1e-5, 1e-1, log=True) if decays else 0.01
        loss = 1 + math.log10(decay / 0.01) ** 2 + 1e-3 * math.log10(schedule.lr)
        pruning = lrsearch.PruningCallback(trial)
        for _ in range(2):
            pruning(loss, val_metric=metric)
        return loss

    lrsearch.enqueue_baselines(study, 2, lr=(1e-3, 10.0))
    study.optimize(objective, n_trials=trials)
    return study


def rows_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="rows">(.*?)</script>', text)
    assert found is not None
    rows: dict[str, Any] = json.loads(found[1])
    return rows


def test_a_metric_without_a_known_name_is_a_plain_number() -> None:
    text = page(make_report(own_loop(metric=23.4)))
    assert "<dt>validation metric</dt><dd>23.4</dd>" in visible(text)
    assert rows_of(text)["metric"] == "metric"
    assert "accuracy" not in visible(text)


def test_without_a_metric_nothing_is_said_of_one() -> None:
    text = page(make_report(own_loop()))
    assert rows_of(text)["metric"] is None
    assert "accuracy" not in visible(text)
    assert "validation metric" not in visible(text)


def test_the_report_of_a_loop_of_ones_own_says_what_rescales_its_schedule(tmp_path: Path) -> None:
    study = own_loop()
    text = visible(page(make_report(study)))
    assert "lrsearch train" not in text
    assert "it is <code>lrsearch.load(&quot;best.yaml&quot;).rescaled(100)</code>." in text
    (tmp_path / "best.yaml").write_text(export_text(study))
    assert lrsearch.load(tmp_path / "best.yaml").rescaled(100).epochs == 100


def test_what_an_objective_asks_for_beside_the_schedule_is_shown_and_exported(
    tmp_path: Path,
) -> None:
    study = own_loop(decays=True, trials=60)
    report = make_report(study)
    assert report.mattered.overall is not None
    assert next(iter(report.mattered.overall.share)) == "weight_decay"
    assert all("weight_decay" not in found.share for found in report.mattered.within.values())
    assert "weight_decay" in report.figures["importance"][0].data[0].y
    text = visible(page(report))
    assert "<code>weight_decay</code> explains" in text
    assert ", which ran with other values of <code>weight_decay</code>" in text
    best = study.best_trial.params["weight_decay"]
    assert f"weight_decay {words.value(best)}" in text
    (tmp_path / "best.yaml").write_text(export_text(study))
    assert yaml.safe_load(export_text(study))["also"] == {"weight_decay": best}
    stored = Schedule.from_dict(study.best_trial.user_attrs["schedule"])
    assert lrsearch.load(tmp_path / "best.yaml") == stored
    assert "also" not in yaml.safe_load(export_text(own_loop()))
    assert "other values" not in page(make_report(own_loop()))


@pytest.mark.parametrize("end", [optuna.TrialPruned, ValueError])
def test_where_a_loop_of_ones_own_completed_nothing_its_report_says_so(
    end: type[Exception],
) -> None:
    study = optuna.create_study()

    def objective(trial: optuna.Trial) -> float:
        lrsearch.suggest(trial, 2, lr=(1e-3, 1.0))
        raise end

    study.optimize(objective, n_trials=3, catch=ValueError)
    text = visible(page(make_report(study)))
    assert "No trial has been trained to the end; 3 trials ended before." in text
    assert "Run its own training loop again to go on." in text


def test_a_trial_that_ends_while_a_report_is_made_is_no_part_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = optuna.create_study()
    trial = study.ask()
    lrsearch.suggest(trial, 2, lr=(1e-3, 1.0))
    read = reports.load

    def load(study: optuna.Study) -> StudyTable:
        table = read(study)
        study.tell(trial, 0.5)
        return table

    monkeypatch.setattr(reports, "load", load)
    text = visible(page(make_report(study)))
    assert "No trial has been trained to the end yet." in text
    assert "In training now: 1 trial." in text
    assert '<section id="use">' not in text


@pytest.mark.parametrize("steps", [(), range(2), range(1, 3)])
def test_a_complete_trial_has_run_its_budget_however_its_loop_reports(
    steps: Sequence[int],
) -> None:
    study = optuna.create_study()

    def objective(trial: optuna.Trial) -> float:
        lrsearch.suggest(trial, 2, lr=(1e-3, 1.0))
        for step in steps:
            trial.report(0.5, step)
        return 0.5

    study.optimize(objective, n_trials=3)
    table = load(study)
    assert [trial.epochs for trial in table.trials] == [2, 2, 2]
    assert pruning(table).saved == 0
    assert set(table.history.epoch) == ({1, 2} if steps else set())


def test_the_best_of_a_study_without_schedules_is_told_by_its_number() -> None:
    study = optuna.create_study()
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    report = make_report(study)
    text = visible(page(report))
    assert f"<strong>Trial {study.best_trial.number}</strong> is the best; it has no" in text
    assert "**" not in text
    assert "Learning rate of trial" not in text
    assert not {"winner", "scatter"} & set(report.figures)


def test_shares_are_told_with_their_spread_and_names_as_they_are() -> None:
    shares = Shares({"weight_*decay*": 0.05, "lr": 0.02}, {"weight_*decay*": 0.3, "lr": 0.1}, 300)
    (told,) = importance_sentences(Importance(shares, None, {}, {}, [], 300))
    said = "Nothing stands out from chance yet: `weight_*decay*` explains 5 ± 30% and the learning"
    assert told.startswith(f"{said} rate 2 ± 10% of the differences between 300 trials")


def test_a_loss_of_exactly_zero_is_the_lowest_of_its_study() -> None:
    study = optuna.create_study()
    for value in (0.0, 3e7):
        study.add_trial(optuna.trial.create_trial(value=value))
    state = TrialState.PRUNED
    study.add_trial(optuna.trial.create_trial(value=2e6, state=state))
    assert [t.status for t in load(study).trials] == ["complete", "complete", "diverged"]


EVIL = "<b>a</b> [x](http://y) | <img src=x>"
ESCAPED = "&lt;b&gt;a&lt;/b&gt; [x](http://y) | &lt;img src=x&gt;"


def named(name: str) -> optuna.Study:
    """A study whose one recipe has a strange name."""
    made = fakes(30)
    for fake in made:
        fake.baseline = None
    made[0].baseline = name
    return make_study(made=made, name="my `study`; ls")


def test_the_name_of_a_recipe_is_no_markup_in_figures_and_notes() -> None:
    report = make_report(named(EVIL))
    drawn = {name: figure for name, (figure, _) in report.figures.items()}
    assert drawn["winner"].data[1].name == f"{ESCAPED} baseline"
    frames = next(trace for trace in drawn["scatter"].data if trace.name == "usual recipe")
    assert frames.text[0].startswith(f"<i>{ESCAPED} baseline</i>")
    said = note(report)
    escaped = r"\<b\>a\</b\> \[x\](http://y) \| \<img src=x\>"
    assert f"| {escaped} | " in said
    assert f"the best usual recipe, {escaped} (" in said
    assert "**" in said.splitlines()[0]
    assert "`lrsearch report 'my ’study’; ls'`" in said
