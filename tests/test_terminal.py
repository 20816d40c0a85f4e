"""Tables and paragraphs in terminals of any width: nothing is cut off, nothing overlaps."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import os
import re
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from rich.cells import cell_len
from rich.console import Console

from lrsearch.cli_arguments import note
from lrsearch.config import make
from lrsearch.divergence import DIVERGED_LOSS
from lrsearch.report import terminal
from lrsearch.report.status import print_status, print_studies, study_status
from lrsearch.report.tables import TrialRow
from lrsearch.report.terminal import print_next, print_rows, print_text
from lrsearch.schedules import Schedule, schedules_table
from lrsearch.search.display import Display, LineDisplay, LiveDisplay, finished_line, make_display
from lrsearch.search.ending import _metric
from lrsearch.search.interrupt import Interrupt, Interrupted
from lrsearch.search.progress import Progress, described, read_progress
from lrsearch.search.run import run
from lrsearch.storage import open_storage
from tests.synthetic import make_study

HEADS = ("study", "trials", "best val loss", "last")
ROWS = [
    ["a-study-with-a-name", "200", "0.1249", "61 s ago"],
    ["名前 with spaces", "5", "", "2 days ago"],
]


def console(width: int, tty: bool = True) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=tty, color_system=None, highlight=False, width=width
    )


def told(of: Console) -> str:
    assert isinstance(of.file, io.StringIO)
    return of.file.getvalue()


@pytest.mark.parametrize("width", [28, 30, 40, 60, 100])
def test_rows_keep_every_word_in_a_terminal_of_any_width(width: int) -> None:
    out = console(width)
    print_rows(out, HEADS, ROWS, right=(1, 2))
    text = told(out)
    assert "…" not in text
    assert all(cell_len(line) <= width for line in text.splitlines())
    for row in ROWS:
        for cell in row:
            assert cell in text


def test_rows_are_a_table_where_it_fits_and_small_lists_where_not() -> None:
    wide, narrow = console(60), console(30)
    for out in (wide, narrow):
        print_rows(out, HEADS, ROWS, right=(1, 2))
    assert told(wide).splitlines()[0].split() == ["study", "trials", "best", "val", "loss", "last"]
    lines = [line.rstrip() for line in told(narrow).splitlines()]
    assert lines == [
        "a-study-with-a-name",
        "  trials 200",
        "  best val loss 0.1249",
        "  last 61 s ago",
        "名前 with spaces",
        "  trials 5 · last 2 days ago",
    ]


def test_a_cell_wider_than_the_terminal_is_folded_in_its_row_s_list() -> None:
    out = console(24)
    print_rows(out, ("name", "what"), [["one", "a cell of more than 24 columns"], ["two", "b"]])
    lines = [line.rstrip() for line in told(out).splitlines()]
    assert lines == ["one", "  what  a cell of more", "        than 24 columns", "two", "  what b"]


def test_rows_in_a_pipe_are_one_line_each_however_long() -> None:
    out = console(20, tty=False)
    print_rows(out, HEADS, [["x" * 200, "1", "2", "3"]])
    assert len(told(out).splitlines()) == 2


def test_text_is_broken_between_words_and_indented() -> None:
    out = console(24)
    print_text(out, "sure?   it is not one-cycle, not distinguishable", indent=8)
    assert told(out).splitlines() == [
        "sure?   it is not",
        "        one-cycle, not",
        "        distinguishable",
    ]
    piped = console(24, tty=False)
    print_text(piped, "sure?   it is not one-cycle, not distinguishable", indent=8)
    assert len(told(piped).splitlines()) == 1


def test_what_to_type_next_stays_on_a_line_of_its_own_where_it_is_narrow() -> None:
    steps = [("report digits", "everything on one page"), ("confirm digits", "fresh seeds")]
    out = console(40)
    print_next(out, steps)
    assert told(out).splitlines() == [
        "Next    lrsearch report digits",
        "          everything on one page",
        "        lrsearch confirm digits",
        "          fresh seeds",
    ]
    wide = console(80)
    print_next(wide, steps)
    assert told(wide).splitlines() == [
        "Next    lrsearch report digits   everything on one page",
        "        lrsearch confirm digits  fresh seeds",
    ]


@pytest.mark.parametrize("width", [30, 40, 80])
def test_show_studies_schedules_and_tasks_fit_the_terminal(
    width: int, in_tmp: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage("sqlite:///lrsearch.db")
    study = make_study(30, storage=storage)
    make_study(8, name="another", storage=storage)
    out = console(width)
    monkeypatch.setattr(terminal, "to_stdout", lambda: out)
    print_status(study_status(study))
    from lrsearch.report.status import studies

    print_studies(studies(storage), "sqlite:///lrsearch.db")
    terminal.print_schedules(30)
    terminal.print_tasks()
    text = told(out)
    assert "…" not in text
    assert all(cell_len(line) <= width for line in text.splitlines())
    for word in ("digits", "another", "inverse_sqrt", "convnet (default)", "MultiplicativeLR"):
        assert word in text


def trial(number: int, status: str = "complete", loss: float = 0.3, **more: Any) -> TrialRow:
    """A trial as it is shown."""
    schedule = Schedule("StepLR", 0.1, 30, {"step_size": 10, "gamma": 0.5})
    row = TrialRow(
        number, number, status, "StepLR", 0.1, epochs=2, schedule=schedule.to_dict(),
        value=loss if status == "complete" else None, last_loss=loss,
    )  # fmt: skip
    return dataclasses.replace(row, **more)


def restarts(number: int, status: str, loss: float, **more: Any) -> TrialRow:
    """One whose name and parameters are long."""
    params = {"T_0": 10, "T_mult": 2, "eta_min": 0.00012}
    schedule = Schedule("CosineAnnealingWarmRestarts", 0.0123, 30, params, warmup=3)
    kept = {"family": schedule.family, "lr": schedule.lr, "schedule": schedule.to_dict()}
    return trial(number, status, loss, **kept, **more)


def test_the_line_of_a_trial_that_blew_up_tells_its_loss_and_of_one_without_any_that() -> None:
    row = trial(3, "diverged", 3e9)
    progress = Progress(9, 5, (row,))
    assert "diverged 2/5   val loss 3.000e+09" in finished_line(row, 1, progress, False)
    lost = dataclasses.replace(row, last_loss=DIVERGED_LOSS)
    assert "diverged 2/5   loss not finite" in finished_line(lost, 1, progress, False)


def test_each_trial_below_all_lines_before_it_is_the_best_so_far() -> None:
    first = trial(0, loss=3.0)
    rows = [trial(1, loss=4.0), trial(2, loss=2.0), trial(3, "pruned", 1.0), trial(4, loss=1.5)]
    out = io.StringIO()
    display = LineDisplay(out)
    display.update(Progress(9, 5, (first,)))  # of an earlier run
    display.update(Progress(9, 5, (first, *rows)))  # all of these ended at once
    marked = ["  best  " in line for line in out.getvalue().splitlines()]
    assert marked == [False, True, False, True]


@pytest.mark.parametrize("stopped", ["failed: given up", "pruned", "failed"])
def test_a_trial_that_was_given_up_counts_among_those_that_failed(stopped: str) -> None:
    study = optuna.create_study()
    attrs = {"schedule": Schedule("ConstantLR", 0.1, 5).to_dict(), "stopped": stopped}
    attrs["error"] = "given up after 3 workers ended over it"
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs=attrs))
    progress = read_progress(study, 1, 5)
    assert progress.count("failed") == 1
    line = finished_line(progress.rows[0], 1, progress, False)
    assert "failed 0/5" in line
    assert line.endswith("given up after 3 workers ended over it")


def test_the_line_of_a_trial_has_its_result_first_and_at_most_120_columns() -> None:
    row = restarts(112, "complete", 0.15, epochs=30)
    line = finished_line(row, 12, Progress(200, 30, (row,)), True)
    assert line.startswith(
        "[ 12/200] #112 completed 30/30  val loss 0.1500  best  CosineAnnealingWarm"
    )
    assert len(line) <= 120
    assert line.endswith(" lr 0.0123 T_0 10 T_mult 2 eta_min …")


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [("mae", -0.25, ", mae −0.25"), ("accuracy", 0.99999, ", accuracy 99.9%"), ("", 0.5, "")],
)
def test_the_metric_at_the_end_of_a_run_is_written_as_in_the_report(
    name: str, value: float, shown: str
) -> None:
    outcome: Any = SimpleNamespace(plan=SimpleNamespace(task=SimpleNamespace(metric_name=name)))
    assert _metric(outcome, trial(3, metric=value)) == shown


@pytest.mark.parametrize("width", [50, 60, 70, 80, 100, 140])
def test_the_table_of_running_trials_cuts_words_and_no_numbers(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    rows = [restarts(n, "running", 0.1434, epochs=20 + n % 10) for n in range(22, 35)]
    rows.insert(0, trial(21, "running", 0.1434, epochs=21, lr=0.0123, baseline="StepLR"))
    out = io.StringIO()
    display = LiveDisplay(out)
    text = console(width)
    text.print(display._running(Progress(100, 30, tuple(rows))))
    display.close()
    lines = told(text).splitlines()
    assert all(cell_len(line) <= width for line in lines)
    assert lines[0].split()[:1] + lines[0].split()[-4:] == [
        "running",
        "epoch",
        "lr",
        "val",
        "loss",
    ]
    for row, line in zip(rows[:12], lines[1:], strict=False):
        assert line.split()[-3:] == [f"{row.epochs}/30", "0.0123", "0.1434"]
        assert line.startswith(f"#{row.number} ")
    assert lines[-1].split() == ["and", "2", "more"]
    if width == 140:
        assert described(rows[1]) in lines[2]
    if width >= 80:
        assert "CosineAnnealingWarmRestarts" in lines[2], "the description gives way first"


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_study_s_bar_gives_way_to_its_counts(width: int) -> None:
    ends = ["pruned"] * 41 + ["diverged"] * 3 + ["complete"] * 19
    rows = [trial(n, end) for n, end in enumerate(ends)]
    display = LiveDisplay(io.StringIO())
    display._console = out = console(width)
    display._before = 0
    display._began -= 63 * 120
    out.print(display._render(Progress(100, 30, tuple(rows))))
    (line,) = [line for line in told(out).splitlines() if line.startswith("trials")]
    bar, _, counts = line.rstrip().partition("  63/100")
    assert "━━━" in bar
    assert counts.startswith(" · 41 pruned · 3 diverged · 19 complete  eta 1:14:")


class Screen(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("kind", "of"), [("xterm", LiveDisplay), ("dumb", LineDisplay)])
def test_a_terminal_that_cannot_redraw_gets_a_line_per_trial(
    kind: str, of: type[Display], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", kind)
    assert isinstance(make_display(quiet=False, stream=Screen()), of)


def test_a_second_interrupt_shows_the_cursor_before_it_ends_the_process(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    interrupt, screen, left = Interrupt(), Screen(), []

    class Twice(LiveDisplay):
        def update(self, progress: Progress) -> None:
            super().update(progress)
            assert screen.getvalue().count("\x1b[?25l") == 1, "it is hidden"
            interrupt._code = 128 + signal.SIGINT
            interrupt._handle(signal.SIGINT, None)

    def leave(code: int) -> None:
        left.append((code, screen.getvalue().rpartition("\x1b[?25l")[2]))
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", leave)
    settings = make({"trials": 1, "epochs": 1, "train_samples": 400, "workers": "1"})
    with pytest.raises(SystemExit):
        run(settings, display=Twice(screen), interrupt=interrupt)
    ((code, after),) = left
    assert code == 130
    assert "\x1b[?25h" in after
    assert interrupt.at_once == []


def test_a_run_that_ends_before_its_display_begins_leaves_the_cursor_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    LiveDisplay(screen).note("lr range test")
    assert "\x1b[?25l" not in screen.getvalue()


@pytest.mark.parametrize("make_display", [LiveDisplay, LineDisplay])
def test_a_terminal_that_goes_away_in_mid_run_costs_no_results(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, make_display: Callable[[TextIO], Display]
) -> None:
    """The connection broke, or nobody reads the pipe any more."""
    monkeypatch.setenv("TERM", "xterm")

    class Gone(Screen):
        def write(self, text: str) -> int:
            if self.tell() > 300:
                raise OSError(errno.EIO, "Input/output error")
            return super().write(text)

    settings = make({"trials": 3, "epochs": 2, "train_samples": 400, "workers": "1"})
    screen = Gone()
    outcome = run(settings, display=make_display(screen))
    assert screen.tell() > 300
    assert outcome.progress.finished == 3
    assert (in_tmp / outcome.files[0]).is_file()


def test_a_line_that_nobody_reads_ends_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", buffering=1) as stream, open(os.devnull, "w") as nowhere:
        monkeypatch.setattr(sys, "stderr", stream)
        note("ConstantLR seed 1001  completed")
        os.dup2(nowhere.fileno(), write)  # what is left of the line goes there as it closes


def test_a_run_that_waits_for_the_database_before_it_begins_says_so_and_can_be_left(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lrsearch.storage.engine._FIRST_PAUSE", 0.6)  # told at once
    interrupt, screen = Interrupt(), io.StringIO()

    class Leaves(LineDisplay):
        def note(self, line: str) -> None:
            super().note(line)
            interrupt._handle(signal.SIGINT, None)

    open_storage("sqlite:///lrsearch.db")
    with contextlib.closing(sqlite3.connect("lrsearch.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Interrupted):
            run(make({"trials": 1}), display=Leaves(screen), interrupt=interrupt)
    assert screen.getvalue() == "waiting for sqlite:///lrsearch.db: database is locked\n"


def test_the_list_of_schedules_has_plain_words_for_what_differs_from_torch() -> None:
    notes = {row.family: f"{row.warmup}; {row.note or row.trap}" for row in schedules_table(30)}
    told = " ".join(notes.values())
    assert not re.search("nudged|worlds apart|trough|lie flat|cannot carry", told)
    assert notes["OneCycleLR"].startswith("none; torch fails at a step after the last")
