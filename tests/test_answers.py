"""report, confirm, show and studies through the real command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

import lrsearch
from lrsearch.cli import main
from lrsearch.export import answer_trial, best_trial
from lrsearch.objective import suggest
from lrsearch.report import optuna_figures
from lrsearch.report.status import studies, study_status
from lrsearch.report.tables import load
from lrsearch.report.words import percent
from lrsearch.schedules import Schedule
from lrsearch.search.progress import read_progress
from lrsearch.storage import Storage, open_storage
from tests.synthetic import fakes, make_study
from tests.test_confirm import constant, found, search_of


def test_report_writes_its_page_into_the_studys_folder(
    storage: Storage, capsys: pytest.CaptureFixture[str], in_tmp: Path
) -> None:
    make_study(30, storage=storage)
    assert main(["report", "digits", "--csv", "tables"]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert written[0] == Path("lrsearch-results/digits/report.html")
    assert {p.name for p in written[1:]} == {
        "trials.csv",
        "history.csv",
        "families.csv",
        "importance.csv",
    }
    assert all(p.stat().st_size > 0 for p in written)


def test_confirm_prints_the_comparison_and_the_report_has_it(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    search_of(
        storage, found(constant(0.1), 0.2), found(constant(1e-4), 0.3, baseline="ConstantLR")
    )
    assert main(["confirm", "digits", "--seeds", "2", "--top", "1"]) == 0
    out = capsys.readouterr().out
    assert "ConstantLR baseline" in out
    says = "On 2 fresh seeds the mean validation loss of the search's winner was"
    assert says in out
    assert "lrsearch confirm digits --seeds 10 adds to them" in out
    assert not {"95%", "interval,"} & set(out.split())
    assert main(["confirm", "digits", "--seeds", "2", "--top", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["winner"] == "#0"
    assert main(["report", "digits-confirm", "-o", "r.html"]) == 0
    page = Path("r.html").read_text()
    assert page.count(says.replace("'", "&#x27;")) == 1
    assert "95% interval" not in page
    assert "test accuracy" in page
    assert main(["show", "digits-confirm"]) == 0
    assert "5/5 trials ended" in capsys.readouterr().out


def test_a_confirmation_of_an_earlier_best_is_not_told_of_the_new_one(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    study = search_of(
        storage, found(constant(0.1), 0.2), found(constant(1e-4), 0.3, baseline="ConstantLR")
    )
    assert main(["confirm", "digits", "--seeds", "2", "--top", "1"]) == 0
    assert "What was confirmed" not in capsys.readouterr().out
    assert main(["report", "digits", "-o", "before.html"]) == 0
    before = Path("before.html").read_text()
    assert "validation loss, median of 2 fresh seeds" in before
    trial = study.ask()
    trial.set_user_attr("schedule", constant(0.05).to_dict())
    study.tell(trial, 0.1)
    capsys.readouterr()
    assert main(["show", "digits"]) == 0
    assert answer_trial(study).number == trial.number
    told = "What was confirmed is {}, the best before more trials were run"
    assert told.format("ConstantLR, lr 0.1 (#0)") in capsys.readouterr().out
    assert main(["report", "digits", "-o", "after.html"]) == 0
    after = Path("after.html").read_text()
    assert told.format("<strong>ConstantLR, lr 0.1 (#0)</strong>") in after
    assert "validation loss, median of 2 fresh seeds" not in after
    assert main(["confirm", "digits", "--seeds", "2", "--top", "1"]) == 0
    capsys.readouterr()
    assert main(["show", "digits"]) == 0
    assert "What was confirmed" not in capsys.readouterr().out


def test_show_tells_the_state_of_a_study(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    make_study(80, storage=storage, failed=1)
    assert main(["show", "digits"]) == 0
    out = capsys.readouterr().out
    assert "80/80 trials ended" in out
    assert "1 failed" in out
    assert "failed: RuntimeError: CUDA out of memory" in out
    assert main(["show", "digits", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    ended = [told["trials"][k] for k in ("complete", "pruned", "diverged", "failed")]
    assert sum(ended) == told["trials"]["all"] == 80
    assert told["best"]["val_loss"] == min(
        row["best"] for row in told["families"] if row["best"] is not None
    )
    assert "NaN" not in json.dumps(told)


def test_show_lists_running_trials_with_where_they_are(storage: Storage) -> None:
    from optuna.trial import TrialState

    made = fakes(12)
    made[-1].state, made[-1].stopped = TrialState.RUNNING, ""
    made[-1].losses = made[-1].losses[:3]
    status = study_status(make_study(made=made, storage=storage))
    (running,) = status["running"]
    assert (running["number"], running["epoch"]) == (11, 3)
    assert running["val_loss"] == pytest.approx(float(made[-1].losses[-1]))
    assert running["lr_now"] == pytest.approx(float(made[-1].lrs[2]))


def test_studies_lists_what_the_database_has(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["studies"]) == 0
    assert "has no study yet" in capsys.readouterr().out
    make_study(20, name="one", storage=storage)
    make_study(10, name="two", storage=storage, prune=False)
    rows = {row["study"]: row for row in studies(storage)}
    assert rows["one"]["trials"] == 20
    assert rows["two"]["pruned"] + rows["two"]["complete"] == 10
    assert rows["two"]["best"] == study_status_best(storage, "two")
    assert main(["studies", "--json"]) == 0
    assert {row["study"] for row in json.loads(capsys.readouterr().out)} == {"one", "two"}


def study_status_best(storage: Storage, name: str) -> float:
    import optuna

    status = study_status(optuna.load_study(study_name=name, storage=storage))
    value: float = status["best"]["val_loss"]
    return value


@pytest.mark.parametrize("kept", [None, "cosine", {"lr": 0.1}])
def test_a_trial_that_another_program_added_without_a_schedule_is_nowhere_counted(
    storage: Storage, capsys: pytest.CaptureFixture[str], kept: object
) -> None:
    study = make_study(20, storage=storage)
    told = study_status(study), studies(storage), best_trial(study).number
    attrs = {} if kept is None else {"schedule": kept}
    for state, value in ((TrialState.COMPLETE, 1e-6), (TrialState.PRUNED, None)):
        study.add_trial(
            create_trial(
                state=state,
                value=value,
                params={"x": 0.1},
                distributions={"x": FloatDistribution(0, 1)},
                user_attrs=attrs,
                intermediate_values={1: 1e-6},
            )
        )
    assert (study_status(study), studies(storage), best_trial(study).number) == told
    assert told[0]["best"]["number"] == told[2]
    assert told[1][0]["best"] == told[0]["best"]["val_loss"]
    assert main(["show", "digits"]) == 0
    assert "20/20 trials ended" in capsys.readouterr().out


def test_reading_the_file_of_a_plain_optuna_script_leaves_it_as_it_is(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = optuna.create_study(study_name="plain", storage="sqlite:///plain.db")
    trial = study.ask()
    suggest(trial, epochs=3)
    study.tell(trial, 0.5)
    before = Path("plain.db").read_bytes()
    for words in (["studies"], ["show", "plain"], ["export", "plain"], ["report", "plain"]):
        assert main([*words, "--storage", "sqlite:///plain.db"]) == 0
        assert Path("plain.db").read_bytes() == before, words
        assert [path.name for path in Path().glob("plain.db*")] == ["plain.db"], words
    capsys.readouterr()


def test_of_a_study_of_plain_optuna_every_trial_counts(storage: Storage) -> None:
    study = optuna.create_study(study_name="plain", storage=storage)
    study.add_trial(create_trial(value=0.5, user_attrs={"schedule": "cosine"}))
    study.add_trial(create_trial(value=0.25))
    assert study_status(study)["best"]["number"] == 1
    (row,) = studies(storage)
    assert (row["trials"], row["complete"], row["best"]) == (2, 2, 0.25)


@pytest.mark.parametrize("command", ["report", "confirm", "show", "dashboard"])
def test_an_unknown_study_names_those_that_are_there(
    storage: Storage, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    make_study(3, storage=storage)
    assert main([command, "digit"]) == 2
    error = capsys.readouterr().err
    assert "no study 'digit'" in error
    assert "did you mean digits?" in error


def test_help_of_the_answers_imports_neither_torch_nor_optuna() -> None:
    import subprocess
    import sys

    code = (
        "import sys\nfrom lrsearch.cli import main\n"
        "try:\n    main(['confirm', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'optuna', 'plotly'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_names_in_brackets_are_no_markup(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "a[/b] [red]c"
    words = ["--epochs", "1", "--train-samples", "64", "--trials", "1", "--fuse", "off"]
    assert main(["run", "--name", name, "--workers", "1", *words]) == 0
    assert f"lrsearch report '{name}'" in capsys.readouterr().out
    assert main(["show", name]) == 0
    assert main(["studies"]) == 0
    assert capsys.readouterr().out.count(name) == 2
    search_of(storage, found(constant(0.1), 0.2), found(constant(0.05), 0.3, baseline=name))
    assert main(["confirm", "digits", "--seeds", "2", "--top", "1"]) == 0
    assert f"{name} baseline" in capsys.readouterr().out


def test_studies_of_others_are_told_apart(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    optuna.create_study(study_name="most", storage=storage, direction="maximize")
    two = optuna.create_study(study_name="two", storage=storage, directions=["minimize"] * 2)
    two.add_trial(optuna.trial.create_trial(values=[1.0, 2.0]))
    one = optuna.create_study(study_name="one", storage=storage)
    one.add_trial(optuna.trial.create_trial(value=1.0765432))
    search_of(storage, found(constant(0.1), 0.2, baseline="ConstantLR"))
    assert main(["confirm", "digits", "--seeds", "2"]) == 0
    capsys.readouterr()
    for name in ("most", "two", "one", "digits-confirm"):
        assert main(["run", "--name", name, "--trials", "1"]) == 2
        assert "was not made by lrsearch run; choose another" in capsys.readouterr().err
    assert main(["studies", "--json"]) == 0
    best = {row["study"]: row["best"] for row in json.loads(capsys.readouterr().out)}
    one_best = {"one": 1.0765432}
    assert best == {"most": None, "two": None, **one_best, "digits": 0.2, "digits-confirm": ANY}
    assert main(["studies"]) == 0
    assert " 1.077 " in capsys.readouterr().out
    for command in ("report", "export", "confirm", "show"):
        for name in ("most", "two"):
            assert main([command, name]) == 2
            assert "minimises one validation loss, this one has m" in capsys.readouterr().err
    assert main(["report", "one", "--record", "one.json"]) == 2
    assert "study 'one' was not made by lrsearch run" in capsys.readouterr().err
    assert main(["export", "one"]) == 1
    assert "has no trial with a schedule: neither" in capsys.readouterr().err


def test_whatever_another_program_keeps_in_a_trial_can_be_shown(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    kept: dict[str, list[Any]] = {
        "schedule": ["step", [1], {"family": 3, "params": [1]}, {"epochs": "x", "warmup": "x"}],
        "epochs": ["many", [1], {}, 10.5],
        "stopped": [["x"], 1, None, {}],
        "val_metric": ["<b>", [1], {}, True],
    }
    study = optuna.create_study(study_name="odd", storage=storage)
    for i in range(4):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        for key, values in kept.items():
            trial.set_user_attr(key, values[i])
        trial.report(1.0, 1)
        study.tell(trial, 1.0 + i)
    assert main(["report", "odd", "-o", "odd.html", "--csv", "tables"]) == 0
    capsys.readouterr()
    assert main(["show", "odd"]) == 0
    assert "4 trials ended (4 complete)" in capsys.readouterr().out
    assert main(["show", "odd", "--json"]) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert told["best"]["val_loss"] == 1.0


@pytest.mark.parametrize("kept", [{}, {"schedule": {"family": "StepLR", "lr": 0.1}}])
def test_a_trial_that_another_program_added_to_a_study_of_ours_is_left_out(
    storage: Storage, capsys: pytest.CaptureFixture[str], kept: dict[str, Any]
) -> None:
    """It was an internal error: the history of a report finds a trial by its number."""
    run = ["run", "--epochs", "1", "--quiet", "--no-robust", "--trials"]
    assert main([*run, "4"]) == 0
    study = optuna.load_study(study_name="digits", storage=storage)
    study.add_trial(optuna.trial.create_trial(value=1e-9, user_attrs=kept))
    assert main([*run, "6"]) == 0
    for words in (["report", "digits", "-o", "r.html"], ["export", "digits"], ["show", "digits"]):
        assert main(words) == 0
    assert "1e-09" not in capsys.readouterr().out
    history = optuna_figures.history_figure(load(study))
    assert list(history.data[0].x) == [0, 1, 2, 3, 5, 6]


def test_a_setting_of_another_version_is_told_by_the_study_that_has_it(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    study = search_of(storage, found(constant(0.1), 0.2))
    kept = study.user_attrs["lrsearch"]
    study.set_user_attr("lrsearch", {**kept, "config": {**kept["config"], "new": 3}})
    assert main(["confirm", "digits", "--seeds", "2", "--top", "1"]) == 1
    assert capsys.readouterr().err == (
        f"lrsearch: study 'digits' was made with new, which lrsearch {lrsearch.__version__} does "
        "not know: confirm it with the version that made it\n"
    )


@pytest.mark.parametrize("kept", ["mine", 3, [1], {}, {"config": "x"}, {"config": {}, "plan": 3}])
def test_whatever_another_program_keeps_in_a_study_under_our_name_it_is_none_of_ours(
    storage: Storage, capsys: pytest.CaptureFixture[str], kept: Any
) -> None:
    study = optuna.create_study(study_name="odd", storage=storage)
    study.set_user_attr("lrsearch", kept)
    schedule = Schedule("StepLR", 0.1, 4, params={"step_size": 2, "gamma": 0.5}).to_dict()
    for value in (2.0, 1.0):
        study.add_trial(optuna.trial.create_trial(value=value, user_attrs={"schedule": schedule}))
    study.add_trial(optuna.trial.create_trial(value=3.0))
    for words in (["show", "odd"], ["report", "odd"], ["export", "odd"], ["studies", "--json"]):
        assert main(words) == 0
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (row["trials"], row["ours"]) == (3, False)
    for words in (["confirm", "odd"], ["run", "--name", "odd"]):
        assert main(words) in (1, 2)
        assert "was not made by lrsearch run" in capsys.readouterr().err
    assert main(["delete", "odd", "--yes"]) == 0


def test_show_says_nothing_of_what_is_not_known(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    study = optuna.create_study(study_name="plain", storage=storage)
    study.add_trial(optuna.trial.create_trial(value=1.0))
    study.ask()
    assert main(["show", "plain"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert lines == [
        ["plain"],
        ["1", "trial", "ended", "(1", "complete),", "1", "running"],
        ["best", "#0"],
        ["val", "loss", "1.000"],
        ["running", "schedule", "epoch", "lr", "val", "loss"],
        ["#1", "0/–", "–", "–"],
    ]


def test_names_in_a_database_do_not_steer_the_terminal(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "a\x1b[31mred\u202e"
    study = optuna.create_study(study_name=name, storage=storage)
    study.add_trial(optuna.trial.create_trial(value=1.0))
    for words in (["studies"], ["show", name], ["show", "none"], ["export", name]):
        main(words)
        said = "".join(capsys.readouterr())
        assert r"a\x1b[31mred\u202e" in said
        assert all(c.isprintable() or c == "\n" for c in said)


def test_a_name_that_is_no_text_is_no_study(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    make_study(3, storage=storage)
    assert main(["show", "digit\udcff"]) == 2
    assert "in sqlite:///lrsearch.db — did you mean digits?" in capsys.readouterr().err


def test_a_name_that_is_too_long_for_a_folder_is_cut(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("x" * 500, "x" * 499):
        optuna.create_study(study_name=name, storage=storage)
        assert main(["report", name]) == 0
    assert len(set(capsys.readouterr().out.splitlines())) == 2
    assert main(["show", "none"]) == 2
    assert len(capsys.readouterr().err) < 250


def test_the_target_is_the_most_trials_that_were_asked_for(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "--quiet", "--epochs", "1", "--train-samples", "64", "--fuse", "off"]
    for trials in ("1", "3", "2"):
        assert main([*words, "--workers", "1", "--trials", trials]) == 0
    capsys.readouterr()
    assert main(["show", "digits"]) == 0
    assert "3/3 trials ended" in capsys.readouterr().out


TASK = """
import torch
x, y = torch.arange(40.0).view(20, 2) / 40, torch.arange(20) % 2
part = x, y
task = {{"model": lambda: torch.nn.Linear(2, {classes}), "train": part, "validation": part,
         "epochs": {epochs}, "lr_range": (1e-3, {most}), "batch_size": 4,
         "loss": torch.nn.CrossEntropyLoss(label_smoothing={smooth})}}
"""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"epochs": 3}, "was made with epochs 2, now 3"),
        ({"classes": 3}, "was made with parameters 6, now 9"),
        ({"most": 0.5}, r"was made with lr \[0.001, 1.0\], now \[0.001, 0.5\]"),
        (
            {"smooth": 0.5},
            r"was made with a train loss of 0.7\d+ before any training, now 0.7\d+ "
            r"\(other data, model or loss; what is random in them needs a seed\)",
        ),
    ],
)
def test_a_task_that_has_changed_is_another_study(
    change: dict[str, float], told: str, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"epochs": 2, "classes": 2, "most": 1.0, "smooth": 0.0}
    words = ["run", "--task", "own.py:task", "--workers", "1", "--fuse", "off", "--quiet"]
    for changes, trials, code in (({}, "4", 0), ({}, "5", 0), (change, "6", 2)):
        sys.modules.pop("lrsearch_task_own", None)
        Path("own.py").write_text(TASK.format(**{**given, **changes}))
        assert main([*words, "--trials", trials]) == code
    error = capsys.readouterr().err
    way = r"Keep what it has, choose another --name, or lrsearch delete own$"
    assert re.search(rf"study 'own' {told}\. {way}", error, re.MULTILINE)
    if "most" not in change:
        other_data = "smooth" in change  # which an unseeded split would be, too: it is told
        assert main(["confirm", "own", "--seeds", "2"]) == (0 if other_data else 2)
        error = capsys.readouterr().err
        begins = "" if other_data else "the task has changed since "
        assert re.search(f"{begins}study 'own' {told}", error)


def test_show_confirm_and_the_page_call_a_recipe_by_the_name_that_best_yaml_has(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    search_of(storage, found(constant(0.1), 0.2), found(constant(1e-4), 0.3, baseline="StepLR"))
    assert main(["export", "digits"]) == 0
    assert "StepLR: 0.3" in capsys.readouterr().out
    told = ("confirm --seeds 2 --top 1", "StepLR baseline"), ("show", "  StepLR −33.3%")
    for command, name in told:
        assert main([command.split()[0], "digits", *command.split()[1:]]) == 0
        assert name in capsys.readouterr().out
    assert main(["report", "digits", "-o", "r.html"]) == 0
    page = Path("r.html").read_text()
    assert "lower than that of the baseline StepLR." in page
    assert "step decay" not in page


def test_show_tells_each_finding_of_a_confirmation_on_a_line_and_names_whose_it_is(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    search_of(
        storage, found(constant(1e-4), 0.2), found(constant(0.1), 0.3, baseline="ConstantLR")
    )
    assert main(["confirm", "digits", "--seeds", "3", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["show", "digits"]) == 0
    told = capsys.readouterr().out.partition("sure?   ")[2].splitlines()
    assert told[0].startswith("On 3 fresh seeds, paired, the search's winner lost to the baseline")
    assert told[1].startswith("        Lowest on these seeds")


def test_show_says_the_same_share_of_epochs_saved_as_the_end_of_the_run(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 42.5025% one said 43%, the other 42%: it had rounded to 42.50% before."""
    study, budget = optuna.create_study(storage=storage, study_name="own"), 20_000
    schedule = Schedule("ConstantLR", 0.1, budget).to_dict()
    for epochs, ended in ((budget, TrialState.COMPLETE), (2_999, TrialState.PRUNED)):
        attrs = {"schedule": schedule, "epochs": epochs}
        study.add_trial(
            create_trial(
                state=ended,
                value=0.1 if ended is TrialState.COMPLETE else None,
                user_attrs=attrs,
                intermediate_values={epochs: 0.1},
            )
        )
    assert main(["show", "own"]) == 0
    told = percent(read_progress(study, 2, budget).saved)
    assert f"; {told} of epochs saved" in capsys.readouterr().out


def test_a_best_that_is_a_recipe_is_not_compared_with_itself(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    search_of(
        storage,
        found(constant(0.1), 0.2, baseline="ConstantLR"),
        found(constant(0.01), 0.4, baseline="StepLR"),
    )
    assert main(["show", "digits"]) == 0
    out = capsys.readouterr().out
    assert "(ConstantLR baseline)" in out
    assert "StepLR −50.0%" in out
    assert "ConstantLR +" not in out
    assert main(["report", "digits", "-o", "r.html"]) == 0
    page = Path("r.html").read_text()
    assert "Only the usual recipes were run; of these ConstantLR has the lowest" in page


def test_names_are_read_where_the_locale_knows_no_utf8(storage: Storage) -> None:
    make_study(8, name="学习 率", storage=storage)
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    shown = subprocess.run(
        [sys.executable, "-m", "lrsearch", "show", "学习 率"],
        env={**os.environ, **plain}, capture_output=True, check=False,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert b"trials ended" in shown.stdout


def test_folder_is_found_where_the_locale_knows_no_utf8(tmp_path: Path) -> None:
    folder = tmp_path / "学习"
    folder.mkdir()
    make_study(8, storage=open_storage(f"sqlite:///{folder / 'lrsearch.db'}"))
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    shown = subprocess.run(
        [sys.executable, "-m", "lrsearch", "show", "digits"],
        cwd=folder, env={**os.environ, **plain}, capture_output=True, check=False,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
