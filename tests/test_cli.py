"""The command line through its real parser: one line for every mistake, exit codes, --json."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lrsearch
from lrsearch.cli import COMMANDS, main
from lrsearch.errors import LrsearchError
from lrsearch.report.command import storage_option
from lrsearch.search import plan
from lrsearch.storage import open_storage
from lrsearch.storage.urls import redact
from tests.synthetic import make_study

SMALL = ["run", "--quiet", "--epochs", "3", "--trials", "6", "--train-samples", "200"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rum"], "unknown command 'rum' — did you mean run?"),
        (["run", "--trails", "3"], "unrecognized arguments: --trails 3"),
        (["run", "--task", "cifar11"], "unknown task 'cifar11' — did you mean cifar10?"),
        (["run", "--model", "mpl"], "unknown model of task digits 'mpl' — did you mean mlp?"),
        (["run", "--schedules", "StepLRR"], "unknown schedule family 'StepLRR' — did you mean"),
        (["run", "--name=-x"], "--name: must not start with -, as options do, got '-x'"),
        (["run", "--sampler", "tpa"], "'tpa' — did you mean tpe?"),
        (["run", "--pruner", "asga"], "'asga' — did you mean asha?"),
        (["run", "--device", "cuda:9"], "cuda:9"),
        (["run", "--device", "gpu"], "unknown device 'gpu'"),
        (["run", "--optimizer", "adamm"], "unknown optimizer 'adamm' — did you mean Adam"),
        (["run", "--optimizer-arg", "momentum"], "needs KEY=VALUE, got 'momentum'"),
        (["run", "--optimizer-arg", "momentun=0.9"], "momentun"),
        (["run", "--optimizer-arg", "eps=!!bool 3"], "eps: '!!bool 3' is no plain value"),
        (["run", "--lr", "1,0.1"], "low 1 is above high 0.1"),
        (["run", "--storage", "sqlite:///no/such/folder/a.db"], "no/such/folder"),
        (["run", "--storage", "oracle://x"], "oracle"),
        (["run", "--storage", "nonsense"], "nonsense"),
        (["run", "--epochs", "0"], "must be from 1"),
        (["run", "--confirm", "1"], "must be at least 2 to compare anything, or 0 for none"),
        (["run", "--epochs", "1", "--schedules", "MultiStepLR"], "MultiStepLR"),
        (["run", "--study-file", "none.yaml"], "none.yaml: cannot be read"),
        (["run", "--study-file", ""], "--study-file: needs the name of a file or folder, got ''"),
        (["report", "x", "--record", ""], "--record: needs the name of a file or folder"),
        (["export", "x", "-o", " "], "-o/--output: needs the name of a file or folder, got ' '"),
        (["train", ""], "FILE.yaml: needs the name of a file or folder"),
        (["export", "nothing"], "storage lrsearch.db does not exist"),
        (["curves", "StepLRR"], "unknown schedule family 'StepLRR'"),
        (["curves", "StepLR", "step_size=0"], "step_size"),
        (["curves", "StepLR", "stepsize=3"], "stepsize"),
        (["schedules", "--epochs", "x"], "--epochs"),
    ],
)
def test_wrong_input_is_one_clear_line_and_exit_2(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code = main(words)
    text = capsys.readouterr().err
    assert message in text, text
    assert text.startswith("lrsearch: ")
    assert len(text.strip().splitlines()) <= 4, text
    assert "Traceback" not in text
    assert code in (1, 2)
    assert [p.name for p in in_tmp.iterdir() if p.suffix in (".yaml", ".html")] == []


def test_arguments_of_an_optimizer_are_written_as_anyone_would(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["betas=0,0.99", "eps=1e-6", "weight_decay=1e-4", "amsgrad=yes"]
    words = [word for text in given for word in ("--optimizer-arg", text)]
    assert main([*SMALL, "--trials", "1", "--optimizer", "adam", *words, "--fuse", "off"]) == 0
    assert main(["export", "digits"]) == 0
    text = capsys.readouterr().out
    optimizer = yaml.safe_load(text[text.index("schedule:") :])["optimizer"]
    assert optimizer.pop("betas") == [0.0, 0.99]
    expected = {"name": "Adam", "eps": 1e-6, "weight_decay": 1e-4, "amsgrad": True}
    assert optimizer == expected


def test_run_finishes_and_the_same_command_completes_what_is_missing(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, "--trials", "4"]) == 0
    first = capsys.readouterr().out
    assert "Best schedule" in first
    assert main([*SMALL, "--json", "--trials", "6"][:1] + SMALL[2:] + ["--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["trials"] == 6
    assert data["best"]["schedule"]["family"]
    assert data["importance"] == {}, "too few trials to tell"
    for name in data["files"]:
        assert (in_tmp / name).stat().st_size > 0


def test_json_stays_alone_on_stdout_whatever_a_task_prints(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("loud.py").write_text(
        "import torch\nprint('reading')\n"
        "class Net(torch.nn.Linear):\n"
        "    def forward(self, x):\n        print(x.shape)\n        return super().forward(x)\n"
        "x, y = torch.randn(40, 4), torch.zeros(40).long()\n"
        "task = dict(model=lambda: Net(4, 2), train=(x, y), validation=(x, y), test=(x, y))\n"
    )
    Path("family.py").write_text("print('mine')\n")
    words = ["--task", "loud.py:task", "--import", "family.py", "--fuse", "off", "--workers", "1"]
    best = "lrsearch-results/loud/best.yaml"
    for command, key in (
        (["run", *words, "--epochs", "1", "--trials", "2", "--confirm", "2"], "best"),
        (["confirm", "loud", "--seeds", "3"], "arms"),
        (["train", best, "--import", "family.py"], "val_loss"),
    ):
        assert main([*command, "--json"]) == 0
        told = capsys.readouterr()
        assert key in json.loads(told.out)
        assert "torch.Size" in told.err


def test_a_confirmation_names_the_flag_that_is_wrong(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["confirm", "digits", "--workers", "x"]) == 2
    assert "--workers: needs auto or a number" in capsys.readouterr().err


def test_a_run_whose_time_is_up_says_so_and_how_to_go_on(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SMALL[:-4], "--fuse", "8", "--workers", "1", "--trials", "5000", "--timeout", "1s"]
    assert main(words) == 0
    told = capsys.readouterr().out
    found = re.search(
        r"time was up after 1 s: (\d+) of 5,000 trials have ended; the same command goes on", told
    )
    assert found
    assert main([*words[:1], *words[2:], "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["timed_out"]
    assert data["target"] == 5000 > data["trials"] > int(found[1])
    whole = ["run", "--json", "--epochs", "2", "--trials", "4", "--name", "whole", "--timeout"]
    assert main([*whole, "50"]) == 0
    assert not json.loads(capsys.readouterr().out)["timed_out"]


def test_the_list_of_schedules_says_where_a_warmup_starts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["schedules"]) == 0
    assert "a warmup is linear, from a tenth of the rate" in capsys.readouterr().out
    trace = lrsearch.Schedule("ConstantLR", lr=1.0, epochs=10, warmup=2).trace()
    assert trace.lr[0] == pytest.approx(0.1)


def test_queued_trials_beyond_the_target_are_told(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, "--fuse", "8", "--workers", "1"]) == 0
    assert "queued" not in capsys.readouterr().out
    study = optuna.load_study(study_name="digits", storage="sqlite:///lrsearch.db")
    for lr in (0.02, 0.03):
        study.enqueue_trial({"lr": lr})
    assert main(SMALL) == 0
    assert "2 trials still queued: a larger --trials goes on" in capsys.readouterr().out
    assert main([*SMALL, "--trials", "8"]) == 0
    assert "queued" not in capsys.readouterr().out


def test_trials_that_repeat_an_earlier_schedule_are_counted(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("few.yaml").write_text(
        "{lr: [0.1, 0.1], warmup: false, baselines: false, pruner: none, trials: 9, epochs: 4,"
        " schedules: {StepLR: {step_size: [2, 3], gamma: 0.1}}, train_samples: 200}"
    )
    assert main(["run", "--quiet", "--study-file", "few.yaml"]) == 0
    told = capsys.readouterr().out
    assert "7 trials repeated the schedule of an earlier one: 2 schedules tried in all" in told
    assert main(["run", "--json", "--study-file", "few.yaml"]) == 0
    assert json.loads(capsys.readouterr().out)["repeated"] == 7
    assert main([*SMALL, "--name", "many"]) == 0
    assert "repeated" not in capsys.readouterr().out


def test_a_run_calls_things_by_the_names_that_were_given(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The optimizer's class by its file, a recipe of one's own as what it is."""
    Path("mine.py").write_text(
        "import torch\n"
        "class Sign(torch.optim.SGD):\n"
        "    pass\n"
        "x = torch.randn(40, 5)\n"
        "task = {'model': lambda: torch.nn.Linear(5, 2), 'train': (x, (x[:, 0] > 0).long()),\n"
        "        'validation': (x, (x[:, 0] > 0).long()), 'epochs': 2, 'optimizer': Sign}\n"
    )
    Path("mine.yaml").write_text(
        "{task: 'mine.py:task', trials: 1, schedules: {StepLR: {}}, workers: 1,"
        " baselines: {own: {family: ConstantLR, lr: 0.1}}}"
    )
    assert main(["run", "--study-file", "mine.yaml", "--name", "m"]) == 0
    said = capsys.readouterr()
    assert "optimizer mine:Sign" in said.err
    assert "1 schedule family\n" in said.err
    assert "optimizer Sign has no stacked form" in said.err
    assert "lrsearch_task_" not in said.err + said.out
    assert main(["report", "m", "-o", "m.html"]) == 0
    page = Path("m.html").read_text()
    assert "<td>mine:Sign" in page
    assert "1 schedule tried" in page
    assert "1 trial of 1 family," in page
    assert main(["export", "m"]) == 0
    assert "name: lrsearch_task_mine:Sign" in capsys.readouterr().out
    assert (
        main(["run", "--study-file", "mine.yaml", "--name", "m", "--schedules", "LinearLR"]) == 2
    )
    assert "schedules StepLR, now LinearLR. Keep" in capsys.readouterr().err


def test_run_confirms_what_it_found(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*SMALL, "--confirm", "2"]
    assert main(words) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "schedule median val loss test accuracy lower by" in told
    assert "On 2 fresh seeds" in told
    files = "confirmed.yaml best.yaml robust.yaml (as best.yaml) importance.html"
    assert f"Files lrsearch-results/digits/ {files}" in told
    assert "Next lrsearch report digits" in told
    assert "is it really better?" not in told
    assert "lrsearch train lrsearch-results/digits/confirmed.yaml --epochs 12" in told
    assert main([*words[:1], *words[2:], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["files"][0] == found["confirmation"]["file"]
    assert found["confirmation"]["seeds"] == [1001, 1002]
    lowest = {a["key"]: a["trial"] for a in found["confirmation"]["arms"]}
    file = yaml.safe_load(Path(found["files"][0]).read_text())
    assert file["study"]["trial"] == lowest[found["confirmation"]["lowest"]]


def test_what_to_type_next_finds_the_data_where_they_were(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, "--data-dir", "my data"]) == 0
    said = capsys.readouterr().out
    best = "train lrsearch-results/digits/best.yaml"
    assert re.search(rf"{best} --epochs \d+ --data-dir 'my data'", said)
    assert "confirm digits  " in said  # it is kept with the study
    for words, folder in (([], "'my data'"), (["--data-dir", "."], ".")):
        assert main(["confirm", "digits", "--seeds", "2", "--top", "0", *words]) == 0
        said = capsys.readouterr().out
        assert f"train lrsearch-results/digits/confirmed.yaml --data-dir {folder} " in said


def test_another_folder_for_results_has_the_confirmed_schedule_too(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(SMALL) == 0
    assert main([*SMALL, "--out", "other", "--confirm", "2"]) == 0
    assert "Files   other/digits/  confirmed.yaml  best.yaml" in capsys.readouterr().out
    assert Path("other/digits/confirmed.yaml").is_file()
    assert not Path("lrsearch-results/digits/confirmed.yaml").exists()


def test_a_run_that_cannot_be_confirmed_is_told_all_the_same(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise LrsearchError("no run of the best schedule came to its end")

    monkeypatch.setattr("lrsearch.search.confirm_worker.ConfirmWorker.run", fails)
    assert main([*SMALL, "--confirm", "2"]) == 1
    said = capsys.readouterr()
    assert "Best schedule" in said.out
    assert "lrsearch confirm digits" in said.out
    assert said.err == "lrsearch: no run of the best schedule came to its end\n"
    assert main([*SMALL[:1], *SMALL[2:], "--json", "--confirm", "2"]) == 1
    assert "confirmation" not in json.loads(capsys.readouterr().out)


def test_what_to_type_next_names_the_database_that_was_given(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "sqlite:///my runs.db"
    assert main([*SMALL, "--trials", "5", "--storage", url]) == 0
    said = capsys.readouterr().out
    assert f"lrsearch confirm digits --storage '{url}'" in said
    assert f"lrsearch report digits --storage '{url}'" in said
    assert main(["confirm", "digits", "--seeds", "2", "--top", "1", "--storage", url]) == 0
    said = capsys.readouterr().out
    assert f"lrsearch report digits --storage '{url}'" in said
    assert main(["report", "digits", "--storage", url]) == 0


def test_an_exported_file_names_itself_and_what_is_only_printed_names_no_file(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, "--trials", "5"]) == 0
    best = (in_tmp / "lrsearch-results/digits/best.yaml").read_text()
    assert '# use it: scheduler = lrsearch.load("best.yaml")' in best
    capsys.readouterr()
    assert main(["export", "digits"]) == 0
    printed = capsys.readouterr().out
    assert "# use it: save this as FILE.yaml, then scheduler = lrsearch.load" in printed
    assert "best.yaml" not in printed
    assert main(["export", "digits", "-o", "mine.yaml"]) == 0
    assert 'lrsearch.load("mine.yaml")' in (in_tmp / "mine.yaml").read_text()
    assert 'lrsearch.load("his.yaml")' in lrsearch.report("digits").export("his.yaml")


def test_the_environment_names_the_database_where_nothing_else_does(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRSEARCH_STORAGE", "sqlite:///mine.db")
    assert main([*SMALL, "--trials", "5"]) == 0
    assert "lrsearch confirm digits  " in capsys.readouterr().out  # nothing more to type
    assert main([*SMALL, "--trials", "5", "--storage", "sqlite:///other.db"]) == 0
    assert "lrsearch confirm digits --storage sqlite:///other.db" in capsys.readouterr().out
    assert sorted(path.name for path in in_tmp.glob("*.db")) == ["mine.db", "other.db"]
    assert main(["show", "digits"]) == 0
    for storage in (lrsearch.open_storage(), lrsearch.report("digits").storage):
        assert getattr(storage, "label", None) == "sqlite:///mine.db"
    monkeypatch.setenv("LRSEARCH_STORAGE", "mine.db")
    assert main(["show", "digits"]) == 2
    assert "(it stands in $LRSEARCH_STORAGE)" in capsys.readouterr().err
    assert main(["show", "digits", "--storage", "other.db"]) == 2
    assert "LRSEARCH_STORAGE" not in capsys.readouterr().err
    monkeypatch.setenv("LRSEARCH_STORAGE", "")
    assert main(["show", "digits"]) == 1
    assert "storage lrsearch.db does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite:///lrsearch.db", ""),
        ("sqlite:///b.db", " --storage sqlite:///b.db"),
        ("postgresql://me@db/runs", " --storage postgresql://me@db/runs"),
        ("postgresql://me:secret@db/runs", " --storage URL"),
        ("postgresql://me:***@db/runs", " --storage URL"),
        ("mysql://me@db/runs?password=secret", " --storage URL"),
    ],
)
def test_a_command_to_type_holds_no_password(
    url: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LRSEARCH_STORAGE", raising=False)
    assert storage_option(url) == told
    monkeypatch.setenv("LRSEARCH_STORAGE", url)
    assert storage_option(url) == storage_option(redact(url)) == ""


def test_ctrl_c_while_results_are_written_is_told_like_any_other(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lrsearch.search.run.write_results", stopped)
    assert main(SMALL) == 130
    said = capsys.readouterr().err
    assert said == "lrsearch: stopped; what is finished is kept. Go on with the same command\n"


def test_changed_space_on_an_existing_study_shows_the_difference(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, "--trials", "1"]) == 0
    capsys.readouterr()
    assert main([*SMALL, "--epochs", "4"]) == 2
    text = capsys.readouterr().err
    assert "study 'digits' was made with epochs 3, now 4" in text


def test_the_default_range_may_be_said_in_so_many_words(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is what a study was made with, and what goes on where a later version's default moved."""
    assert main([*SMALL, "--trials", "1"]) == 0
    assert main([*SMALL, "--trials", "2", "--lr", "0.001,2"]) == 0
    assert main([*SMALL, "--trials", "3", "--lr", "0.001,1"]) == 2
    assert (
        "made with lr left out (the default of the task), now [0.001, 1.0]"
        in capsys.readouterr().err
    )


def test_another_pruner_or_sampler_on_an_existing_study_is_told_in_one_line(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [word for word in SMALL if word != "--quiet"]
    told = "study 'digits' was made with sampler trace, now random; pruner schedule, now none"
    for trials, words in (
        ("1", []),
        ("2", ["--sampler", "random", "--pruner", "none"]),
        ("2", []),
    ):
        assert main([*small, "--trials", trials, *words]) == 0
        out, errors = capsys.readouterr()
        assert (out + errors).count(told) == (out + errors).count("was made with") == bool(words)


def imported(*words: str) -> set[str]:
    """The packages beyond the standard library that a command imports, which has to succeed."""
    program = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "from lrsearch.__main__ import main\n"
        "try:\n"
        f"    code = main({words!r})\n"
        "except SystemExit as end:\n"
        "    code = end.code\n"
        "assert code == 0\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "      - sys.stdlib_module_names)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_and_version_import_nothing_but_the_standard_library(word: str) -> None:
    assert imported(word) == {"lrsearch"}


def test_commands_about_studies_import_nothing_that_computes(in_tmp: Path) -> None:
    """scipy alone takes longer than all that such a command does."""
    make_study(storage=open_storage("sqlite:///lrsearch.db"))
    for line in ("show digits", "studies", "export digits", "delete digits --yes"):
        found = imported(*line.split())
        assert "optuna" in found
        assert not found & {"scipy", "torch", "sklearn", "plotly", "pandas"}, line


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    told = capsys.readouterr().out
    assert f"lrsearch {command}" in told
    assert not re.search(r"^  [A-Z]+$", told, re.MULTILINE)  # an argument without a word


def test_module_and_command_are_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lrsearch", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("lrsearch 0.1")


WORDS = st.sampled_from(
    [
        "run",
        "export",
        "curves",
        "schedules",
        "--trials",
        "--lr",
        "--task",
        "-o",
        "--",
        "--schedules",
        "StepLR",
        "gamma=0.5",
        "gamma=[",
        "../../x",
        "'\"",
        "--epochs",
        "-1",
        "\n",
        "\x00",
        "",
    ]
)


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(WORDS | st.text(max_size=6), max_size=4))
def test_any_words_end_in_a_line_and_an_exit_code(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    if words[:1] == ["run"]:
        words = ["run", "--task", "no-such-task", *words[1:]]
    try:
        code = main(words)
    except SystemExit as stop:  # --help
        code = int(stop.code or 0)
    text = capsys.readouterr().err
    assert code in (0, 1, 2)
    assert "Traceback" not in text
    assert "internal error" not in text
    assert "the system refused" not in text


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (MemoryError(), "out of memory"),
        (ImportError("libtorch_cpu.so: failed to map segment"), "failed to map segment"),
        (RuntimeError("std::bad_alloc"), "bad_alloc"),
    ],
)
def test_too_little_memory_is_the_machine_s_and_no_bug_to_report(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    why: str,
) -> None:
    def fail(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr("lrsearch.cli._main", fail)
    assert main(["run"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lrsearch: the system refused: ")
    assert why in line
    assert "ulimit -v" in line
    with pytest.raises(type(error)):
        main(["run", "--debug"])


def test_a_search_loads_torch_after_what_would_wait_for_ever_for_the_memory_it_takes() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "try: import lrsearch.search.run\n"
        "except ImportError: print('scipy.special' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


class AcceleratorError(RuntimeError):
    """As newer versions of torch have it."""


@pytest.mark.parametrize(
    ("error", "code_is_ours"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"), False),
        (AcceleratorError("CUDA error: device-side assert triggered\nCompile with"), False),
        (RuntimeError("no more"), True),
    ],
)
def test_a_device_that_fails_is_no_mistake_of_ours(
    in_tmp: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code_is_ours: bool,
) -> None:
    def fail(*args: object, **settings: object) -> None:
        raise error

    monkeypatch.setattr(plan, "lr_range_test", fail)
    assert main(["run", "--lr", "auto", "--quiet", "--train-samples", "100"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert ("internal error, please report it" in line) is code_is_ours
    assert ("the device failed: " in line) is not code_is_ours
    assert str(error).splitlines()[0] in line


def test_json_is_json_where_a_metric_is_no_number(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own.py").write_text(
        "import torch\n"
        "x = torch.randn(40, 5)\n"
        "part = x, (x[:, 0] > 0).long()\n"
        "def net():\n"
        "    made = torch.nn.Linear(5, 2)\n"
        "    [torch.nn.init.zeros_(p) for p in made.parameters()]\n"
        "    return made\n"
        "def metric(out, y):\n"  # a number before training, where it is tried; then none
        "    return torch.where(out.any(), float('nan'), 0.0)\n"
        "task = {'model': net, 'train': part, 'validation': part,\n"
        "        'test': part, 'metric': metric, 'epochs': 1}\n"
    )

    def told(*words: str) -> Any:
        assert main([*words, "--json"]) == 0
        text = capsys.readouterr().out
        return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    words = ("run", "--task", "own.py:task", "--trials", "5", "--name", "own", "--workers", "1")
    found = told(*words, "--confirm", "2")
    assert found["best"]["metric"] is None
    assert all(arm["test_metric"] is None for arm in found["confirmation"]["arms"])
    assert told("show", "own")["best"]["val_metric"] is None
    trained = told("train", "lrsearch-results/own/best.yaml")
    assert (trained["val_metric"], trained["test_metric"]) == (None, None)
    assert main(["export", "own"]) == 0
    assert "nan" not in capsys.readouterr().out
    study = optuna.load_study(study_name="own", storage="sqlite:///lrsearch.db")
    assert [trial.user_attrs["val_metric"] for trial in study.trials] == [None] * 5
