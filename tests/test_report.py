"""Reports: what the tables say of a study, and what the files hold."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from lrsearch import config as configs
from lrsearch.doctor import BROWSERS
from lrsearch.errors import LrsearchError
from lrsearch.prediction.beliefs import foretold
from lrsearch.report import (
    csv_files,
    figures,
    importance_shown,
    learning_curves,
    optuna_figures,
    overview,
    pictures,
    run_figures,
    sections,
)
from lrsearch.report.command import command_line
from lrsearch.report.importance import Importance, Shares
from lrsearch.report.importance_shown import importance_line, importance_sentences
from lrsearch.report.page import page, write_report
from lrsearch.report.report import Report, make_report
from lrsearch.report.tables import FamilyRow, StudyTable, answer, families_table, load, pruning
from lrsearch.storage import Storage, open_storage
from tests.synthetic import Fake, fakes, make_study


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return open_storage(f"sqlite:///{tmp_path_factory.mktemp('report')}/lrsearch.db")


@pytest.fixture(scope="module")
def study(storage: Storage) -> optuna.Study:
    return make_study(150, storage=storage, failed=2)


@pytest.fixture(scope="module")
def table(study: optuna.Study) -> StudyTable:
    return load(study)


@pytest.fixture(scope="module")
def report(study: optuna.Study) -> Report:
    return make_report(study)


# tables


def test_a_study_reads_the_same_from_memory_and_from_a_database(table: StudyTable) -> None:
    other = load(make_study(150, failed=2))
    for mine, theirs in zip(table.trials, other.trials, strict=True):
        assert (mine.status, mine.family, mine.lr, mine.params, mine.value) == (
            theirs.status,
            theirs.family,
            theirs.lr,
            theirs.params,
            theirs.value,
        )
        ours = table.history.of(mine.trial_id, "val_loss")
        np.testing.assert_array_equal(
            ours[np.isfinite(ours)],
            (v := other.history.of(theirs.trial_id, "val_loss"))[np.isfinite(v)],
        )


def test_every_trial_is_counted_once(table: StudyTable) -> None:
    made = fakes(150, failed=2)
    stopped = [fake.stopped for fake in made]
    counts = pruning(table).counts
    assert counts["complete"] == stopped.count("completed")
    assert counts["pruned"] == stopped.count("pruned")
    assert counts["diverged"] == stopped.count("diverged")
    assert counts["failed"] == 2
    assert sum(row.trials for row in families_table(table)) == 150


def test_saved_epochs_are_those_that_were_not_run(table: StudyTable) -> None:
    rows = pruning(table)
    ended = [f for f in fakes(150, failed=2) if f.state is not TrialState.FAIL]
    assert rows.epochs_run == sum(len(fake.losses) for fake in ended)
    assert rows.saved == pytest.approx(1 - rows.epochs_run / (20 * len(ended)))


def test_baselines_of_the_answer_come_in_the_order_of_their_losses(table: StudyTable) -> None:
    found = answer(table)
    assert found is not None
    assert found.best.value == min(t.value for t in table.trials if t.value is not None)
    assert len(found.baselines) == 4
    assert found.strongest is found.baselines[0]
    values = [t.value for t in found.baselines if t.value is not None]
    assert values == sorted(values)


def test_a_diverged_trial_is_told_from_a_pruned_one() -> None:
    inf = float("inf")
    made = fakes(6, families=("StepLR",), prune=False)
    made[4].losses, made[4].state, made[4].stopped = (
        np.array([2.0, inf]),
        TrialState.PRUNED,
        "diverged",
    )
    made[5].losses, made[5].state, made[5].stopped = (
        np.array([2.0, 1.9]),
        TrialState.PRUNED,
        "pruned",
    )
    rows = load(make_study(made=made)).trials
    assert [rows[4].status, rows[5].status] == ["diverged", "pruned"]
    assert rows[5].last_loss == 1.9
    assert rows[4].value is None


# figures


def test_every_trial_that_ended_is_a_mark_of_its_kind(table: StudyTable) -> None:
    rows = figures.lr_vs_val_loss_table(table)
    numbers = {
        s: sorted(n for m in rows.marks if m.status == s for n in m.number)
        for s in ("complete", "pruned", "diverged")
    }
    for status, found in numbers.items():
        assert found == [t.number for t in table.trials if t.status == status]
    figure = figures.lr_vs_val_loss_figure(rows)
    drawn = {
        kind: sum(len(t.x) for t in figure.data if t.text is not None and test(t))
        for kind, test in {
            "hollow": lambda t: (
                str(t.marker.symbol).endswith("-open")
                and t.name != "best"
                and t.name != "usual recipe"
                and t.yaxis != "y2"
            ),
            "rail": lambda t: t.yaxis == "y2",
        }.items()
    }
    assert drawn == {"hollow": len(numbers["pruned"]), "rail": len(numbers["diverged"])}
    assert figure.layout.xaxis.type == "log"


def test_a_pruned_mark_stands_at_the_loss_it_had_when_it_was_stopped(table: StudyTable) -> None:
    for mark in figures.lr_vs_val_loss_table(table).marks:
        if mark.status == "pruned":
            by_number = {t.number: t for t in table.trials}
            assert mark.loss == [by_number[n].last_loss for n in mark.number]


def test_a_family_has_one_colour_in_every_figure(table: StudyTable) -> None:
    scatter = figures.lr_vs_val_loss_figure(figures.lr_vs_val_loss_table(table))
    lines = learning_curves.learning_curves_figure(learning_curves.best_curves(table))
    colors: dict[str, set[str]] = {}
    for trace in scatter.data:
        colors.setdefault(str(trace.name), set()).add(trace.marker.color)
    for trace in lines.data:
        colors.setdefault(str(trace.name), set()).add(trace.line.color)
    families = set(table.families)
    assert {
        name: len(found) for name, found in colors.items() if name in families
    } == dict.fromkeys(families, 1)


def test_overview_holds_every_trial_once_as_far_as_it_ran(table: StudyTable) -> None:
    rows = overview.overview_table(table)
    assert rows.best is not None
    drawn = [*rows.others, *rows.recipes, rows.best]
    ended = table.having("complete", "pruned", "diverged")
    assert sorted(c.trial.number for c in drawn) == [t.number for t in ended]
    assert len(overview.overview_table(table, most=20).others) <= 20
    figure = overview.overview_figure(rows)
    rates = [trace for trace in figure.data if trace.xaxis == "x" and trace.mode == "lines"]
    (bold,) = [trace for trace in rates if trace.line.width == 4.0]
    assert max(x for x in bold.x if x is not None) == table.budget
    for curve in rows.others:
        if curve.trial.status == "pruned":
            assert max(overview.rates(curve)[0]) <= curve.trial.epochs


def test_curves_show_the_trace_of_the_real_schedule() -> None:
    from lrsearch.schedules import Schedule

    schedule = Schedule("CosineAnnealingLR", lr=0.2, epochs=8, warmup=2)
    fake = fakes(1, epochs=8)[0]
    fake.schedule = schedule.to_dict()
    table = load(make_study(made=[fake], epochs=8))
    (curve,) = learning_curves.learning_curves_of(table, table.complete)
    assert curve.x == list(range(9))
    np.testing.assert_array_equal(curve.lr[:8], schedule.trace(1).lr)
    assert curve.level


def test_epoch_lines_are_at_most_150_and_hold_the_best() -> None:
    table = load(make_study(600, prune=False))
    chosen = optuna_figures.spread(table, 150)
    assert len(chosen) == 150
    assert table.best in chosen


def test_epoch_lines_are_chosen_without_comparing_trials_field_by_field(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 5,000 trials that took a sixth of the whole report's time."""
    table = load(make_study(600, prune=False))
    monkeypatch.setattr(type(table.trials[0]), "__eq__", lambda *rows: pytest.fail("compared"))
    assert len(optuna_figures.spread(table, 150)) == 150


def test_the_legend_tells_all_trials_of_a_family_from_its_better_half() -> None:
    """It shows the colour of the first bar, and not the opacity of the marks."""
    shares = Shares({"gamma": 0.4}, {}, 20)
    within = {"StepLR": shares}
    figure = importance_shown.within_figure(Importance(None, None, within, within, [], 0))
    better, everything = (trace.marker.color[0] for trace in figure.data)
    assert better != everything


def test_a_familys_name_stands_above_the_bars_of_its_parameters() -> None:
    rows = {"StepLR": ("gamma", "step_size"), "LinearLR": ("end_factor",)}
    within = {
        f: Shares({**dict.fromkeys(names, 0.4), "lr": 0.1}, {}, 20) for f, names in rows.items()
    }
    figure = importance_shown.within_figure(Importance(None, None, within, {}, [], 0))
    axis = figure.layout.yaxis
    heads = {a.text: a.y for a in figure.layout.annotations}
    places = dict(zip(axis.ticktext, axis.tickvals, strict=True))
    assert list(figure.data[0].y) == list(axis.tickvals)
    step, linear = (heads[f"<b>{family}</b>"] for family in rows)
    assert step > places["gamma"] > places["step_size"] > linear
    assert linear > places["end_factor"] > axis.range[0]
    assert figure.data[0].customdata[1] == "StepLR · step_size"


def test_the_longest_family_may_break_where_the_others_are_listed() -> None:
    row = FamilyRow("CosineAnnealingWarmRestarts", None, None, 0, 1, 0, 0)
    said = sections.others([row], {}, "", "", row.family)
    assert "Cosine<wbr>Annealing<wbr>Warm<wbr>Restarts" in said


def test_whiskers_end_on_the_axis_also_those_of_a_share_of_nothing() -> None:
    shares = Shares({"lr": 0.3, "warmup": 0.0}, {"lr": 0.25, "warmup": 0.2}, 20)
    figure = importance_shown.importance_figure(Importance(shares, None, {}, {}, [], 0))
    (bars,) = figure.data
    assert dict(zip(bars.y, bars.error_x.array, strict=True)) == {
        "learning rate": 0.25,
        "warmup": 0.2,
    }
    assert figure.layout.xaxis.range[1] > 0.3 + 0.25


def test_stops_and_survivors_add_up(table: StudyTable) -> None:
    rows = pruning(table)
    figure = figures.pruning_figure(rows)
    bars = {t.name: sum(t.y) for t in figure.data if t.type == "bar"}
    assert bars == {"pruned": rows.counts["pruned"], "diverged": rows.counts["diverged"]}


# pages


def test_the_three_pages_of_a_run_are_whole_and_ask_nothing_of_the_network(
    study: optuna.Study, tmp_path: Path
) -> None:
    written, mattered = run_figures.write_figures(study, load(study), tmp_path)
    whole = run_figures.importance(load(study), foretold(study))
    assert mattered.overall is not None
    assert whole.overall is not None
    assert mattered.overall.share == whole.overall.share  # the report says the same numbers
    assert [s.share for s in mattered.within.values()] == [s.share for s in whole.within.values()]
    assert sorted(p.name for p in written) == [
        "curves.html",
        "importance.html",
        "lr_vs_val_loss.html",
    ]
    for path in written:
        text = path.read_text(encoding="utf-8")
        assert "default-src 'none'" in text
        assert not re.search(r"<(script|link|img|iframe)[^>]*\s(src|href)=[\"'](?!data:)", text)


def test_a_report_says_the_answer_and_holds_every_part(report: Report, table: StudyTable) -> None:
    text = page(report)
    best = table.best
    assert best is not None
    assert f"Train with <strong>{best.family}</strong>" in text
    for name in ("sure", "mattered", "others", "stopped", "search", "trials", "use", "again"):
        assert f'<section id="{name}">' in text, name
    assert text.count("plotly.js v") == 1
    rows = json.loads(re.search(r'id="rows">(.*?)</script>', text, re.S)[1])  # type: ignore[index]
    assert rows["columns"]["number"] == list(range(150))


EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>`**[x](javascript:1)"


def test_a_hostile_name_is_text_everywhere(tmp_path: Path) -> None:
    made = fakes(30)
    made[3].attrs["stopped"] = EVIL
    made[5].schedule["family"] = EVIL
    made[6].schedule["params"] = {EVIL: EVIL}
    text = page(make_report(make_study(name=EVIL, made=made)))
    bodies = re.sub(r"<script[^>]*>.*?</script>", "", text, flags=re.S)
    assert "<img src=x" not in bodies
    assert "<img src=x" not in re.sub(r"plotly\.js v.*?</script>", "", text, flags=re.S)
    assert text.count("<script>alert(1)") == 0
    assert "alert(1)&lt;/script&gt;" in bodies


@pytest.mark.parametrize("trials", [0, 1, 3, 12])
def test_a_study_with_few_trials_makes_a_report(trials: int, tmp_path: Path) -> None:
    study = make_study(made=fakes(trials))
    (path,) = write_report(study, tmp_path / "report.html")
    text = path.read_text(encoding="utf-8")
    assert ("No trial has run yet" in text) == (trials == 0)


def test_a_study_without_a_complete_trial_makes_a_report(tmp_path: Path) -> None:
    made = fakes(5)
    for fake in made:
        fake.losses = np.array([2.0, math.inf])
        fake.state, fake.stopped = TrialState.PRUNED, "diverged"
    text = page(make_report(make_study(made=made)))
    assert "All 5 trials diverged, even at a peak learning rate of" in text


def test_where_a_baseline_is_best_the_answer_says_so() -> None:
    made = fakes(20)
    for fake in made:
        if fake.baseline != "StepLR":
            fake.losses = fake.losses + 5.0
    text = page(make_report(make_study(made=made)))
    assert "That is the usual recipe, StepLR: nothing else that was tried" in text


# files


def test_csv_files_hold_every_trial_and_epoch(
    report: Report, table: StudyTable, tmp_path: Path
) -> None:
    written = {p.stem: p for p in csv_files.write_csv(report, tmp_path / "csv")}
    with written["trials"].open(newline="") as file:
        trials = list(csv.DictReader(file))
    assert len(trials) == 150
    assert float(trials[0]["lr"]) == float(trials[0]["params_lr"]) == table.trials[0].lr
    for path in written.values():
        with path.open(newline="") as file:
            head, *rows = csv.reader(file)
        assert len(set(head)) == len(head), "no column twice"
        assert not any("'" in row for row in rows), "what is empty stays empty"
    with written["history"].open(newline="") as file:
        assert sum(1 for _ in file) - 1 == len(table.history.epoch)


def test_a_cell_that_a_spreadsheet_would_run_is_quoted(tmp_path: Path) -> None:
    made: list[Fake] = fakes(3)
    made[0].state, made[0].attrs["error"] = TrialState.FAIL, "=HYPERLINK(1)"
    paths = csv_files.write_csv(make_report(make_study(made=made)), tmp_path)
    assert "'=HYPERLINK(1)" in next(p for p in paths if p.stem == "trials").read_text()


def test_png_without_a_browser_says_what_to_install(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import plotly.io

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("\nKaleido requires Google Chrome to be installed.\n\nmore")

    monkeypatch.setattr(pictures, "find_spec", lambda name: object())
    monkeypatch.setattr(pictures, "_import_kaleido", lambda: None)
    monkeypatch.setattr(plotly.io, "write_images", fail)
    with pytest.raises(LrsearchError, match=r"requires Google Chrome.*install chromium"):
        pictures.write_png(report, tmp_path)
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    with pytest.raises(LrsearchError, match=r"kaleido is not installed.*lrsearch\[png\]"):
        pictures.write_png(report, tmp_path)


def test_the_command_has_what_differs_from_the_defaults() -> None:
    config = {
        "task": "digits", "trials": 50, "seed": 0, "warmup": False, "lr": [0.001, 0.5],
        "optimizer": {"name": "AdamW", "weight_decay": 0.1}, "schedules": {"StepLR": {}},
        "storage": "postgresql://me:secret@db/x", "log": "mlflow:https://me:secret@host",
    }  # fmt: skip
    assert command_line("my study", config) == (
        "lrsearch run --task digits --trials 50 --schedules StepLR --lr 0.001,0.5 --no-warmup "
        "--optimizer AdamW --optimizer-arg weight_decay=0.1 "
        "--storage URL --log 'mlflow:https://me:***@host' --name 'my study'"
    )


def test_the_command_names_rates_to_their_last_digit() -> None:
    lr = [0.00123456789, 1.0]
    told = command_line("digits", {"task": "digits", "lr": lr})
    assert told == "lrsearch run --task digits --lr 0.00123456789,1"
    assert configs.make({"lr": told.split()[-1]}).lr == tuple(lr)


def test_the_command_of_a_study_with_recipes_of_its_own_needs_its_file() -> None:
    recipes = {"low": {"family": "ConstantLR", "lr": 0.01}}
    ranges = {"StepLR": {"gamma": [0.1, 0.5]}, "ConstantLR": {}}
    for own in ({"baselines": recipes}, {"schedules": ranges, "baselines": recipes}):
        told = command_line("digits", {"task": "digits", "trials": 9, **own})
        assert told == "lrsearch run --study-file study.yaml --task digits --trials 9"


def test_an_infinite_final_loss_is_a_trial_that_diverged() -> None:
    study = optuna.create_study()
    for value in (1.0, math.inf, 0.5):
        study.add_trial(optuna.trial.create_trial(value=value))
    table = load(study)
    assert [t.status for t in table.trials] == ["complete", "diverged", "complete"]
    assert table.best is not None
    assert table.best.number == 2
    assert list(optuna_figures.history_figure(table).data[0].y) == [1.0, 0.5]


def test_the_report_package_imports_neither_plotly_nor_torch_nor_training() -> None:
    code = (
        "import sys, lrsearch.report, lrsearch.report.tables, lrsearch.report.figures;"
        "heavy = {'plotly', 'torch', 'sklearn', 'lrsearch.training'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_reports_never_import_training() -> None:
    folder = Path(figures.__file__).parent
    for path in folder.glob("*.py"):
        assert "lrsearch.training" not in path.read_text(encoding="utf-8"), path.name


def test_a_long_line_of_the_overview_has_fewer_points_and_the_same_ends() -> None:
    strokes = overview.Strokes([], [])
    epochs = list(range(1, 10_001))
    strokes.add(epochs, [1 / epoch for epoch in epochs])
    assert (strokes.x[0], strokes.y[0], strokes.x[-2:]) == (1, 1, [10_000, None])
    assert len(strokes.x) <= overview.MOST_POINTS + 2
    assert all(x is None or y == 1 / x for x, y in zip(*strokes, strict=True))
    strokes.add([3], [0.5])
    strokes.add([], [])
    strokes.add([1, 2, 3], [4, None, 5])
    assert strokes.x[-7:] == [3, None, None, 1, 2, 3, None]
    assert strokes.y[-7:] == [0.5, None, None, 4, None, 5, None]


def test_overview_is_asked_for_by_a_picture_s_name(study: optuna.Study, tmp_path: Path) -> None:
    with pytest.raises(LrsearchError, match=r"overview .*x\.pdf: the name must end in \.svg"):
        pictures.write_overview(study, tmp_path / "x.pdf")
    pytest.importorskip("kaleido")
    if not any(shutil.which(name) for name in BROWSERS):
        pytest.skip("no browser to draw with")
    written = pictures.write_overview(study, tmp_path / "all.svg")
    assert "schedules tried" in written.read_text()


def test_a_single_trial_has_axes_that_can_be_read() -> None:
    """One decade of rates on either side, and no loss below 0."""
    table = load(make_study(made=fakes(1)))
    figure = figures.lr_vs_val_loss_figure(figures.lr_vs_val_loss_table(table))
    assert figure.layout.xaxis.dtick == "D2"
    assert figure.layout.yaxis.rangemode == "tozero"
    assert optuna_figures.history_figure(table).layout.yaxis.rangemode == "tozero"


def test_the_caption_names_the_rail_only_where_a_trial_lies_on_it() -> None:
    study = make_study(40)
    table = load(study)
    assert table.having("diverged")
    assert "the rail <strong>diverged</strong>" in page(make_report(study))
    calm = optuna.create_study()
    calm.add_trials([t for t in study.trials if t.user_attrs.get("stopped") != "diverged"])
    assert "the rail" not in page(make_report(calm))


def test_where_too_few_trials_ended_the_page_says_so_and_draws_no_empty_figure(
    tmp_path: Path,
) -> None:
    few = make_study(3)
    run_figures.write_figures(few, load(few), tmp_path)
    text = (tmp_path / "importance.html").read_text(encoding="utf-8")
    assert "Too few trials have finished to say what mattered (12 are needed)." in text
    assert '<script type="application/json"' not in text
    assert '<script type="application/json"' in (tmp_path / "curves.html").read_text("utf-8")


def test_a_long_name_of_a_parameter_leaves_its_bar_room() -> None:
    names = [f"weight_decay_of_all_layers_behind_the_{n}_block" for n in ("first", "second")]
    shares = Shares({"lr": 0.5, names[0]: 0.2, names[1]: 0.1}, {}, 20)
    found = Importance(shares, None, {"Own": Shares({names[0]: 0.2}, {}, 20)}, {}, [], 0)
    figure = importance_shown.importance_figure(found)
    assert list(figure.data[0].y) == list(figure.data[0].customdata)[:3] != []
    assert set(names) < set(figure.data[0].customdata), "hovering shows the whole"
    assert "learning rate" in figure.layout.yaxis.ticktext
    for drawn in (figure, importance_shown.within_figure(found)):
        assert max(map(len, drawn.layout.yaxis.ticktext)) <= 24


def test_a_choice_stands_below_its_points_in_plain_words() -> None:
    table = load(make_study(30, families=["LambdaLR"], prune=False))
    figure = optuna_figures.slice_figure(table, "LambdaLR")
    assert figure is not None
    (axis,) = (axis for axis in figure.select_xaxes() if axis.type == "category")
    assert set(axis.ticktext) == {"inverse_sqrt", "trapezoid", "rex"}
    assert axis.range == (-0.5, 2.5), "no choice is cut off at the end"


def test_labels_of_a_narrow_panel_have_room_and_whole_numbers_no_halves() -> None:
    for family, name, epochs in (
        ("CosineAnnealingLR", "eta_min_ratio", 20),
        ("StepLR", "step_size", 6),
    ):
        table = load(make_study(60, families=[family], prune=False, epochs=epochs))
        figure = optuna_figures.slice_figure(table, family)
        assert figure is not None
        values = [t.params[f"{family}.{name}"] for t in table.complete]
        assert max(values) - min(values) <= 4
        assert name == "step_size" or max(values) / min(values) > 20
        (axis,) = (axis for axis in figure.select_xaxes() if axis.title.text == name)
        assert axis.dtick == 1, "powers of ten alone, whole numbers"


def test_few_epochs_and_few_stops_are_labelled_by_whole_numbers() -> None:
    def ticks(trials: int, epochs: int) -> list[object]:
        table = load(make_study(trials, epochs=epochs))
        stops = figures.pruning_figure(pruning(table))
        curves = optuna_figures.epochs_figure(table)
        return [stops.layout.xaxis.dtick, stops.layout.yaxis.dtick, curves.layout.xaxis.dtick]

    assert ticks(12, 5) == [1, 1, 1]
    assert ticks(200, 30) == [None, None, None]


def test_what_mattered_is_a_line_at_the_end_of_a_run() -> None:
    overall = Shares({"lr": 0.61, "scheduler": 0.09}, {"lr": 0.2, "scheduler": 0.1}, 60)
    within = Shares({"lr": 0.5, "eta_min": 0.3, "T_max": 0.05}, {"eta_min": 0.1}, 20)
    found = Importance(overall, None, {"CosineAnnealingLR": within}, {}, [], 0)
    line = "what mattered: lr explains 61 ± 20% of the differences; nothing else stands out"
    cosine = " · within CosineAnnealingLR: eta_min 30 ± 10%"
    assert importance_line(found, "CosineAnnealingLR") == line + cosine
    assert importance_line(found, "StepLR") == line
    vague = dataclasses.replace(found, overall=Shares({"lr": 0.05, "warmup": 0.0}, {}, 60))
    nothing = "what mattered: nothing stands out over all trials yet"
    assert importance_line(vague, "CosineAnnealingLR") == nothing + cosine
    small = dataclasses.replace(within, share={"lr": 0.5, "eta_min": 0.09})
    found = dataclasses.replace(found, within={"CosineAnnealingLR": small})
    assert importance_line(found, "CosineAnnealingLR") == line
    assert importance_line(dataclasses.replace(found, overall=None), "StepLR") == ""


@pytest.mark.parametrize(
    ("share", "spread", "clear"),
    [
        ({"lr": 0.5, "scheduler": 0.1}, {"lr": 0.2, "scheduler": 0.1}, ["lr"]),
        ({"lr": 0.5, "scheduler": 0.3}, {"lr": 0.2, "scheduler": 0.1}, ["lr", "scheduler"]),
        ({"lr": 0.5, "scheduler": 0.3}, {"lr": 0.02, "scheduler": 0.4}, []),
        ({"lr": 0.5, "scheduler": 0.1, "warmup": 0.0}, {"lr": 0.2, "warmup": 0.6}, []),
        ({"lr": 0.3}, {"lr": 0.4}, []),
        ({"lr": 0.05}, {"lr": 0.01}, []),
    ],
)
def test_only_what_stands_out_from_its_spread_is_told_as_a_fact(
    share: dict[str, float], spread: dict[str, float], clear: list[str]
) -> None:
    overall = Shares(share, spread, 60)
    assert overall.clear() == clear
    found = Importance(overall, None, {}, {}, [], 60)
    said = importance_line(found, "StepLR"), importance_sentences(found)[0]
    assert all(("nothing stands out from chance yet" in s.lower()) == (not clear) for s in said)
    assert [n for n in share if f"{n} " in said[0]] == clear


def test_what_matters_as_much_as_another_thing_matters_too() -> None:
    """Two that explain 45% each: "nothing stands out" was said of them, as neither was ahead."""
    spread = {"lr": 0.03, "scheduler": 0.03, "warmup": 0.01}
    even = Shares({"scheduler": 0.45, "lr": 0.44, "warmup": 0.0}, spread, 400)
    assert even.clear() == ["scheduler", "lr"]
    within = Shares({"gamma": 0.4, "step_size": 0.38, "end": 0.0}, {"gamma": 0.1}, 40)
    found = Importance(even, even, {"StepLR": within}, {}, [], 400)
    assert importance_line(found, "StepLR") == (
        "what mattered: scheduler explains 45 ± 3% and lr 44 ± 3% of the differences; nothing "
        "else stands out · within StepLR: gamma 40 ± 10% and step_size 38 ± 0%"
    )
    assert "stands out" not in " ".join(importance_sentences(found))
    both = Importance(Shares({"lr": 0.5, "scheduler": 0.3}, {}, 400), None, {}, {}, [], 0)
    assert "nothing else" not in importance_line(both, "StepLR")


@pytest.mark.parametrize(
    ("pruner", "says"),
    [("median", "stopped by the pruner median"), ("none", "none stopped early")],
)
def test_the_page_says_that_sampler_and_pruner_are_such(pruner: str, says: str) -> None:
    report = make_report(make_study(20))
    config = {**report.table.config, "sampler": "trace", "pruner": pruner}
    info = {**report.table.info, "config": config}
    table = dataclasses.replace(report.table, info=info)
    report = dataclasses.replace(report, table=table)
    assert f"proposed by the sampler trace, {says}" in page(report)
