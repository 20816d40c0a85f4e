"""What a user may get wrong on the command line: one line with the rule, value and next step.

Exit code 2 for what was typed, 1 for what failed; nothing on stdout, never a traceback.
"""

from __future__ import annotations

import shlex
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lrsearch.attributes import CONFIRM_ATTR
from lrsearch.cli import main
from lrsearch.confirm import confirm
from lrsearch.doctor import _data, _no_gpu, _storage
from lrsearch.errors import LrsearchError, UsageError
from lrsearch.export import export_text
from lrsearch.search.run import write_results
from tests.datafiles import write_cifar10

STUDY = "--epochs 2 --train-samples 200 --quiet --fuse off --workers 1 --trials 5"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Study ``s`` in ``good.db`` and things that are no study."""
    folder = tmp_path_factory.mktemp("wrong")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(shlex.split(f"run --storage sqlite:///good.db --name s {STUDY}")) == 0
        assert main(shlex.split("export s --storage sqlite:///good.db -o best.yaml")) == 0
        good = Path("good.db").read_bytes()
        Path("corrupt.db").write_bytes(good[:4096] + b"\xa5" * 16_000 + good[20_096:])
        Path("cut.db").write_bytes(good[:9_000])
        Path("noise").write_bytes(bytes(range(255, 0, -1)) * 9)
        Path("empty").write_bytes(b"")
        Path("list.yaml").write_text("- a\n", encoding="utf-8")
        Path("folder").mkdir()
        with sqlite3.connect("other.db") as connection:
            connection.execute("create table x (a)")
        connection.close()
        yield folder


RUN = [
    ("--task nix", "unknown task 'nix' (valid: digits, "),
    ("--task dgits", "unknown task 'dgits' — did you mean digits?"),
    ("--task ''", "--task: needs a text, got ''"),
    ("--task nix.py:task", "task file nix.py does not exist"),
    ("--task folder:task", "task folder:task: folder has no 'task'"),
    ("--task good.db:task", "task module good.db cannot be found; run from its folder, or"),
    ("--task ../x:y", "task ../x is neither a file.py nor a package.module"),
    ("--model nix", "unknown model of task digits 'nix' (valid: mlp)"),
    ("--epochs 0", "--epochs: must be from 1 to 1,000,000, got 0"),
    ("--epochs -3", "--epochs: must be from 1 to 1,000,000, got -3"),
    ("--epochs 1.5", "--epochs: needs a whole number, got '1.5'"),
    ("--trials 0", "--trials: must be from 1 to 1,000,000, got 0"),
    ("--trials 1e3", "--trials: needs a whole number, got '1e3'"),
    ("--trials", "argument --trials: expected one argument (lrsearch run --help)"),
    ("--lr 0.1", "--lr: needs LOW,HIGH or auto, got '0.1'"),
    ("--lr 1,0.1", "--lr: low 1 is above high 0.1"),
    ("--lr a,b", "--lr: needs a number, got 'a'"),
    ("--lr 0,1", "--lr: low must be above 0, got 0"),
    ("--lr nan,1", "--lr: needs a number, got 'nan'"),
    ("--lr 0.1,1e30", "lr: must be above 0 and at most 1e+06, got 1e+30"),
    ("--schedules nix", "unknown schedule family 'nix' (lrsearch schedules lists all"),
    ("--schedules StepRL", "unknown schedule family 'StepRL' — did you mean StepLR?"),
    ("--schedules CosinLR", "unknown schedule family 'CosinLR' — did you mean Cosine"),
    ("--schedules plateau", "'plateau' — did you mean ReduceLROnPlateau?"),
    ("--schedules ''", "--schedules: needs at least one family name"),
    ("--interval foo", "--interval: 'foo' — one of auto, epoch, step"),
    ("--optimizer foo", "unknown optimizer 'foo' (valid: "),
    ("--optimizer lbfgs", "optimizer LBFGS cannot be used: it calls a closure"),
    (
        "--optimizer sgd --optimizer-arg momentum",
        "--optimizer-arg needs KEY=VALUE, got 'momentum'",
    ),
    ("--optimizer sgd --optimizer-arg momentum=-5", "Invalid momentum value: -5"),
    ("--optimizer sgd --optimizer-arg foo=1", "optimizer SGD has no argument 'foo' (valid: "),
    ("--optimizer-arg momentm=1", "SGD has no argument 'momentm' — did you mean momentum?"),
    ("--optimizer-arg name=adam", "--optimizer-arg name: the optimizer's name goes to --optim"),
    ("--optimizer sgd --optimizer-arg lr=1", "lr is what is searched: give its range as"),
    ("--batch-size 0", "--batch-size: must be from 1 to 1,000,000, got 0"),
    ("--train-samples 0", "--train-samples: must be from 1 to 100,000,000, got 0"),
    ("--train-samples 9999", "--train-samples must be 1 to 1,200, got 9,999"),
    ("--seed -1", "--seed: must be from 0 to 2,147,483,647, got -1"),
    ("--sampler foo", "--sampler: 'foo' — one of trace, tpe"),
    ("--pruner foo", "--pruner: 'foo' — one of schedule, median"),
    ("--timeout -1", "--timeout: must be above 0, got '-1'"),
    ("--timeout 1e308h", "--timeout: needs a time such as 90s, 15m or 2h, got '1e308h'"),
    ("--timeout 1h30m", "--timeout: needs a time such as 90s, 15m or 2h, got '1h30m'"),
    ("--name ''", "--name: needs a text, got ''"),
    ("--storage foo", "storage 'foo' is no URL — did you mean sqlite:///foo?"),
    ("--storage sqlite:///folder", "storage folder is a folder; name a file in it"),
    ("--storage sqlite:///nix/a.db", "nix does not exist; make it: mkdir -p "),
    ("--storage sqlite://", "storage sqlite:// is memory, which ends with the process"),
    ("--storage oracle://x/y", "storage: unknown database 'oracle' (valid: sqlite:"),
    ("--storage postgresql://", "storage URL postgresql:// names no database: end it with /NAME"),
    ("--out noise", "noise is no folder; choose another --out"),
    ("--out noise/x", "noise is no folder; choose another --out"),
    ("--out ''", "--out: needs a text, got ''"),
    ("--device foo", "unknown device 'foo' (valid: auto, cpu, cuda, cuda:N, mps; here: "),
    ("--device cuda:99", "device cuda:99 is not here; this machine has cpu"),
    ("--precision fp8", "--precision: 'fp8' — one of auto, fp32, bf16, fp16"),
    ("--device cpu --precision fp16", "precision fp16 needs a GPU; on the cpu take bf16 or fp32"),
    ("--fuse 0", "--fuse: needs auto, off or a number from 1 to 4096, got '0'"),
    ("--workers x", "--workers: needs auto or a number from 1 to 4096, got 'x'"),
    ("--log foo", "--log: 'foo' — one of tensorboard:DIR, mlflow:URI, wandb:PROJECT"),
    ("--log tensorboard:", "--log: needs tensorboard:DIR, got 'tensorboard:'"),
    ("--log tensorboard:noise/x", "noise is no folder; choose another --log"),
    ("--study-file nix.yaml", "nix.yaml: cannot be read (No such file or directory)"),
    ("--study-file folder", "folder: cannot be read (Is a directory)"),
    ("--study-file noise", "noise: not valid YAML: "),
    ("--study-file list.yaml", "list.yaml: a study file is a mapping such as 'task: digits'"),
    ("--quiet --json", "argument --json: not allowed with argument --quiet"),
    ("extra", "unrecognized arguments: extra"),
    ("--tri 5", "unrecognized arguments: --tri 5 — did you mean --trials? (lrsearch run"),
    ("--trails=5", "unrecognized arguments: --trails=5 — did you mean --trials? (lrsearch run"),
    ("--dry-run", "unrecognized arguments: --dry-run (lrsearch run --help)"),
    ("--name s --storage sqlite:///good.db --epochs 3", "study 's' was made with epochs 2, now 3"),
]
ANSWERS = [
    ("report", "the following arguments are required: STUDY"),
    ("report t {}", "no study 't' in sqlite:///good.db (it has: s)"),
    ("show t {}", "no study 't' in sqlite:///good.db (it has: s)"),
    ("export t {}", "no study 't' in sqlite:///good.db (it has: s)"),
    ("confirm t {}", "no study 't' in sqlite:///good.db (it has: s)"),
    ("dashboard t {}", "no study 't' in sqlite:///good.db (it has: s)"),
    ("studies --storage foo", "storage 'foo' is no URL — did you mean sqlite:///foo?"),
    ("export s {} --trial 99", "study 's' has no trial 99 with a schedule (it has 5 trials)"),
    ("export s {} --trial x", "argument --trial: needs a whole number, got 'x'"),
    ("confirm s {} --seeds 1", "--seeds must be at least 2 to compare anything, got 1"),
    ("confirm s {} --seeds 1000000", "--seeds must be at most 10,000, got 1,000,000"),
    ("confirm s {} --seeds x", "argument --seeds: needs a whole number, got 'x'"),
    ("confirm s {} --fuse x", "fuse: needs auto, off or a number from 1 to 4096, got 'x'"),
    ("confirm s {} --device foo", "unknown device 'foo' (valid: auto, cpu,"),
    ("train nix.yaml", "nix.yaml: cannot be read (No such file or directory)"),
    ("train folder", "folder: cannot be read (Is a directory)"),
    ("train noise", "noise: not valid YAML: "),
    ("train empty", "empty: has no 'schedule:' block; lrsearch export STUDY writes one"),
    ("train list.yaml", "list.yaml: has no 'schedule:' block; lrsearch export STUDY writes one"),
    ("train best.yaml --epochs 0", "epochs must be whole, from 1 to 1,000,000, got 0"),
    ("train best.yaml --epochs 1e9", "argument --epochs: needs a whole number, got '1e9'"),
    ("train best.yaml --seed -1", "seed: must be from 0 to 2,147,483,647, got -1"),
    ("train best.yaml --device foo", "unknown device 'foo' (valid: auto, cpu,"),
    ("train best.yaml -o noise", "--output noise: "),
    ("dashboard --port 99999 {}", "argument --port: needs a number from 1 to 65,535, got '99999'"),
    ("dashboard --port x {}", "argument --port: needs a number from 1 to 65,535, got 'x'"),
    ("schedules --epochs 0", "epochs: must be whole, from 1 to 1,000,000, got 0"),
    ("curves nix", "unknown schedule family 'nix'"),
    ("curves StepLR gamma", "a parameter needs KEY=VALUE, got 'gamma'"),
    (
        "curves StepLR gamma=0.5 gamma=0.6",
        "gamma is given twice; several values draw lines: gamma=A,",
    ),
    ("curves StepLR gamma=0.5 step_size=0", "StepLR.step_size: must be at least 1 and at most"),
    ("curves StepLR gamma=0.5 step_size=3 --warmup 99", "warmup: 99 epochs leave nothing of a"),
    ("curves StepLR gamma=0.5 step_size=3 --epochs 0", "epochs: must be whole epochs from 1 to"),
    ("curves StepLR gamma=0.5 step_size=3 -o a.pdf", "curves a.pdf: the name must end in .html,"),
    ("tasks extra", "unrecognized arguments: extra"),
    ("repot s", "unknown command 'repot' — did you mean report?"),
    ("--nix", "unrecognized arguments: --nix"),
    ("--trials 3", "--trials goes behind a command: lrsearch run --trials ..."),
]
FAILED = [
    (
        "run --storage sqlite:///noise",
        "storage noise is not an SQLite database, or a damaged one; choose another",
    ),
    ("run --name s --storage sqlite:///corrupt.db", "storage corrupt.db is damaged or no SQLite"),
    ("show s --storage sqlite:///corrupt.db", "storage corrupt.db is damaged or no SQLite"),
    ("report s --storage sqlite:///cut.db", "storage cut.db is damaged or no SQLite database"),
    ("report s --storage sqlite:///nix.db", "storage nix.db does not exist; lrsearch run makes"),
    ("report s --storage sqlite:///empty", "holds no lrsearch study; lrsearch run makes one"),
    ("studies --storage sqlite:///other.db", "holds no lrsearch study; lrsearch run makes one"),
    (
        "studies --storage sqlite:///noise",
        "storage noise is not an SQLite database, or a damaged one; choose",
    ),
    ("report s {} -o folder", "cannot write folder: it is a folder; name a file in it"),
    ("report s {} -o noise/x.html", "cannot write noise/x.html (File exists)"),
    ("report s {} --csv noise", "cannot make noise (File exists)"),
    ("export s {} -o folder", "cannot write folder: it is a folder; name a file in it"),
    ("export s {} -o noise/x.yaml", "cannot write noise/x.yaml (File exists)"),
    (
        "curves StepLR gamma=0.5 step_size=3 -o folder",
        "cannot write folder: it is a folder; name a file in it",
    ),
]
CASES = [
    *((f"run {words}", 2, text) for words, text in RUN),
    *((words, 2, text) for words, text in ANSWERS),
    *((words, 1, text) for words, text in FAILED),
]


@pytest.mark.parametrize(("words", "code", "text"), CASES, ids=[case[0] for case in CASES])
def test_a_mistake_is_one_line(
    words: str,
    code: int,
    text: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    assert main(shlex.split(words.format("--storage sqlite:///good.db"))) == code
    out, errors = capsys.readouterr()
    assert out == ""
    assert len(errors.splitlines()) == 1
    assert errors.startswith("lrsearch: ")
    assert text in errors


def test_no_password_is_in_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    for url in ("postgresql://u:s3cret@127.0.0.1:1/db", "postgresql://u:s3/cret@127.0.0.1:1/db"):
        assert main(["studies", "--storage", url]) == 1
        errors = capsys.readouterr().err
        assert len(errors.splitlines()) == 1
        assert "cannot be reached" in errors
        assert "u:***@127.0.0.1:1" in errors
        assert "cret" not in errors


def test_a_run_that_cannot_write_its_results_says_so_before_it_trains(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lrsearch.files.may_write", lambda folder: False)
    assert main(["run", "--out", "here/and/there"]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("lrsearch: --out here/and/there/digits: ")
    assert errors.endswith(" is read-only for this user; choose another --out\n")
    assert list(in_tmp.iterdir()) == []


def test_a_command_in_an_error_can_be_typed_whatever_the_study_is_called(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    storage: Any = SimpleNamespace(label="sqlite:///my runs.db")
    study: Any = SimpleNamespace(study_name="my study", user_attrs={}, _storage=storage)
    typed = "'my study' --storage 'sqlite:///my runs.db'"
    with pytest.raises(LrsearchError, match=f"database: lrsearch export {typed} -o FILE$"):
        write_results(study, None, tmp_path / "file")
    attrs = {CONFIRM_ATTR: {"of": "my study"}}
    again: Any = SimpleNamespace(study_name="my study-confirm", user_attrs=attrs, _storage=storage)
    with pytest.raises(UsageError, match=f"lrsearch confirm {typed} --seeds N adds"):
        confirm(again, storage)
    with pytest.raises(UsageError, match=f"lrsearch export {typed}, with --trial N"):
        export_text(again)


@pytest.mark.parametrize("words", ["--task nix", "--task nix.py:task", "--device nix"])
def test_a_mistake_leaves_nothing_behind(words: str, in_tmp: Path) -> None:
    assert main(["run", *shlex.split(words)]) == 2
    assert list(in_tmp.iterdir()) == []


def test_the_doctor_knows_a_folder_that_is_missing(in_tmp: Path) -> None:
    finding = _storage("sqlite:///no/such/a.db")
    assert not finding.ok
    assert "no/such does not exist; make it: mkdir -p" in finding.found
    assert _storage("sqlite:///a.db").found == "sqlite:///a.db: will be made"


@pytest.mark.parametrize(
    ("files", "hidden", "cuda", "found"),
    [
        ([], "", None, "none found"),
        (["nvidiactl"], None, None, "none found"),
        (["nvidia3"], "", "13.0", "hidden by CUDA_VISIBLE_DEVICES="),
        (["nvidia0"], None, None, "built without CUDA"),
        (["dxg"], None, "13.0", "torch finds none that CUDA 13.0 can use"),
    ],
)
def test_the_doctor_says_why_torch_does_not_see_a_gpu(
    files: list[str],
    hidden: str | None,
    cuda: str | None,
    found: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lrsearch.doctor.DEV", tmp_path)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    for name in files:
        (tmp_path / name).touch()
    finding = _no_gpu()
    assert found in finding.found
    assert finding.fix


def test_the_doctor_looks_for_data_where_a_run_does(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar10(tmp_path)
    for place in (tmp_path, folder):
        assert next(_data(str(place))).found == str(folder)
    (folder / "test_batch").unlink()
    cifar, fashion = _data(str(tmp_path))
    assert (cifar.ok, cifar.found) == (False, f"{folder} lacks test_batch")
    assert (fashion.ok, fashion.found) == (None, f"no FashionMNIST/raw/ in {tmp_path}/")


def test_the_doctor_names_a_fix_that_fits_the_database(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _storage("postgresql://u@127.0.0.1:1/db").fix == "mend the URL or start the server"
    monkeypatch.setattr("lrsearch.storage.urls.may_write", lambda folder: False)
    finding = _storage("sqlite:///a.db")
    assert not finding.ok
    assert "is read-only for this user; choose a file elsewhere with --storage" in finding.found
    assert finding.fix == ""
