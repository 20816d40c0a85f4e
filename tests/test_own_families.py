"""Schedule families that only Python code registers, and the commands that meet them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler

import lrsearch
from lrsearch.cli import main
from lrsearch.config import make
from lrsearch.errors import UsageError
from lrsearch.report.record import make_record, to_json
from lrsearch.schedules import FAMILIES, Family, Schedule, get_family
from lrsearch.schedules.family import home, is_builtin
from lrsearch.search.context import Context
from lrsearch.search.interrupt import Interrupt
from lrsearch.search.make import make_crew
from lrsearch.search.plan import make_plan
from lrsearch.search.run import run
from lrsearch.search.worker_process import _import_families
from lrsearch.storage import open_storage
from lrsearch.tasks.modules import import_module

CODE = """
from torch.optim.lr_scheduler import ExponentialLR
from lrsearch.schedules import Arg, Family, Range, register

register(
    Family(
        "Shrinking",
        "shrinks",
        args={"gamma": Arg("number", high=1.0)},
        search=lambda epochs: {"gamma": Range(0.5, 0.9)},
        build=lambda optimizer, args, job: ExponentialLR(optimizer, args["gamma"]),
    )
)
"""


@pytest.fixture(autouse=True)
def place(in_tmp: Path) -> Iterator[Path]:
    """A folder with ``shrinking.py``; what it registers is forgotten at the end."""
    (in_tmp / "shrinking.py").write_text(CODE, encoding="utf-8")
    path = list(sys.path)
    yield in_tmp
    forget()
    sys.path[:] = path


def forget() -> None:
    """As a new process would be."""
    FAMILIES.pop("Shrinking", None)
    sys.modules.pop("lrsearch_task_shrinking", None)


class Recursive(LRScheduler):
    """Has no formula: each rate is made from the one before."""

    def get_lr(self) -> list[float]:
        factor = 0.5 if self.last_epoch > 0 else 1.0
        return [group["lr"] * factor for group in self.optimizer.param_groups]


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("tensor", [False, True])
def test_a_recursive_scheduler_starts_at_the_peak_behind_a_warmup(
    monkeypatch: pytest.MonkeyPatch, interval: Any, tensor: bool
) -> None:
    family = Family(
        "Recursive", "halves", {}, lambda epochs: {}, lambda o, args, job: Recursive(o)
    )
    monkeypatch.setitem(FAMILIES, "Recursive", family)
    model = torch.nn.Linear(2, 2)
    lr = torch.tensor(1.0) if tensor else 1.0
    groups = [{"params": model.weight}, {"params": model.bias, "lr": lr / 10}]
    rates = {}
    for warmup in (0, 3):
        optimizer = torch.optim.Adam(groups, lr=lr, foreach=False, capturable=False)
        schedule = Schedule("Recursive", 0.4, 4 + warmup, warmup=warmup, interval=interval)
        scheduler = schedule.build(optimizer, steps_per_epoch=1)
        rates[warmup] = []
        for _ in range(schedule.epochs):
            rates[warmup].append([float(group["lr"]) for group in optimizer.param_groups])
            optimizer.step()
            scheduler.step()
    assert np.array(rates[3][3:]) == pytest.approx(np.array(rates[0]))
    assert rates[0][0] == pytest.approx([0.4, 0.04])


RUN = "run --name s --trials 2 --epochs 2 --no-baselines --fuse off --workers 1 --quiet"


def test_commands_name_a_family_that_they_do_not_know_and_what_brings_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = [*RUN.split(), "--schedules", "Shrinking"]
    assert main([*run, "--import", "shrinking.py"]) == 0
    forget()
    assert main(["report", "s"]) == 0
    page = Path("lrsearch-results/s/report.html").read_text(encoding="utf-8")
    assert re.search("lrsearch run [^<]*--name s[^<]* --import shrinking.py<", page)
    assert "<code>lrsearch confirm s --import shrinking.py</code>" in page
    told = capsys.readouterr().out
    assert "lrsearch confirm s --import shrinking.py " in told
    assert "best.yaml --epochs 8 --import shrinking.py " in told
    best = "lrsearch-results/s/best.yaml"
    commands = [
        run,
        ["confirm", "s", "--top", "1", "--seeds", "2", "--quiet"],
        ["train", best, "--quiet"],
        ["curves", "Shrinking", "gamma=0.5"],
    ]
    for words in commands:
        assert main(words) == 2
        out, errors = capsys.readouterr()
        assert out == ""
        assert len(errors.splitlines()) == 1
        assert "unknown schedule family 'Shrinking'" in errors
        assert "one of your own comes with --import FILE.py" in errors
    for words in commands:
        assert main([*words, "--import", "shrinking.py"]) == 0
        forget()
    assert "confirmed.yaml --import shrinking.py " in capsys.readouterr().out
    for words in (["report", "s"], ["export", "s"], ["show", "s"]):
        assert main(words) == 0
    assert "lrsearch confirm s --seeds 10 --import shrinking.py adds" in capsys.readouterr().out


def test_the_record_of_a_family_from_elsewhere_names_its_file_without_the_folder(
    place: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    file = str(place / "shrinking.py")
    assert main([*RUN.split(), "--schedules", "Shrinking", "--import", file]) == 0
    result = lrsearch.report("s")
    record = make_record(result.study)
    assert record["commands"][0].endswith(" --import shrinking.py")
    assert str(place) not in to_json(record)


def test_workers_have_the_family_of_a_recipe_that_is_not_searched(place: Path) -> None:
    import_module("shrinking.py")
    recipe = {"mine": {"family": "Shrinking", "lr": 0.1, "gamma": 0.5}}
    settings = {"schedules": "StepLR", "baselines": recipe, "epochs": 4, "train_samples": 100}
    plan = make_plan(make({**settings, "workers": 2}))
    assert plan.homes == {"Shrinking": str(place / "shrinking.py")}
    run(make({**settings, "trials": 2, "workers": 1}), quiet=True)
    forget()
    words = ["confirm", "digits", "--seeds", "2", "--workers", "2", "--fuse", "off", "--quiet"]
    assert main([*words, "--import", "shrinking.py"]) == 0


def test_workers_find_a_task_that_goes_to_another_folder(
    place: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (place / "goes.py").write_text(
        f"import os\n\nimport torch\n\nos.chdir({str(elsewhere)!r})\n"
        "x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))\n"
        "y = (x[:, 0] > 0).long()\n"
        "task = {'model': lambda: torch.nn.Linear(4, 2), 'train': (x, y), 'validation': (x, y)}\n",
        encoding="utf-8",
    )
    words = ["run", "--task", "goes.py:task", "--import", "shrinking.py", "--workers", "2"]
    words += ["--fuse", "off", "--epochs", "4", "--trials", "6", "--name", "goes", "--quiet"]
    try:
        assert main(words) == 0
    finally:
        os.chdir(place)
    (place / "goes.py").unlink()
    with pytest.raises(UsageError, match="does not exist"):
        import_module("goes.py")


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("nowhere.py", "--import file nowhere.py does not exist"),
        ("nowhere", "--import module nowhere cannot be found; run from its folder, or give FILE."),
        ("broken.py", "--import broken.py raises when imported: "),
    ],
)
def test_what_cannot_be_imported_is_one_line(
    place: str, words: str, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (in_tmp / "broken.py").write_text("1 / 0", encoding="utf-8")
    assert main(["schedules", "--import", place]) in (1, 2)
    out, errors = capsys.readouterr()
    assert out == ""
    assert len(errors.splitlines()) == 1
    assert words in errors


def test_other_processes_import_a_family_from_its_file(place: Path) -> None:
    import_module("shrinking.py")
    file = home(get_family("Shrinking"))
    assert file == str(place / "shrinking.py")
    forget()
    _import_families({"Shrinking": file}, "digits")
    assert "Shrinking" in FAMILIES
    _import_families({"Shrinking": file}, "digits")  # once is enough
    assert home(get_family("StepLR")) is None
    assert all(is_builtin(f) for name, f in FAMILIES.items() if name != "Shrinking")


def test_a_family_of_a_script_has_one_worker_unless_more_are_asked_for(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module("shrinking.py")
    family = get_family("Shrinking")
    monkeypatch.setattr(family.build, "__module__", "__main__")
    assert home(family) is None
    settings = {"schedules": "Shrinking", "epochs": 4, "train_samples": 100}
    plan = make_plan(make({**settings, "workers": 2}))
    assert plan.choice.workers == 2
    with pytest.raises(UsageError, match="cannot share the schedule family Shrinking, which is"):
        make_crew(plan, Context(open_storage("sqlite:///a.db"), Interrupt(), print))
    assert module.__name__ == "lrsearch_task_shrinking"
