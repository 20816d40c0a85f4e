"""The Python API: the same words, studies and answers as the command line; notebooks."""

from __future__ import annotations

import dataclasses
import html
import inspect
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset

import lrsearch
from lrsearch import api
from lrsearch.cli import main
from lrsearch.errors import LrsearchError, UsageError
from lrsearch.schedules import register
from lrsearch.search import display as displays
from lrsearch.search import notebook
from lrsearch.search.interrupt import Interrupted
from lrsearch.settings import SETTINGS
from lrsearch.tasks import Split, Task
from lrsearch.tasks.fingerprint import SAMPLES

SMALL: dict[str, Any] = {"trials": 6, "epochs": 3, "quiet": True}


@pytest.fixture(autouse=True)
def place(in_tmp: Path, quiet_optuna: None) -> Path:
    return in_tmp


def tiny(name: str = "tiny") -> Task:
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    data = Split(x, (x.sum(1) > 0).long())
    return Task(
        name, lambda: nn.Linear(4, 2), data, data, lambda: data, batch_size=16, lr_range=(0.01, 1)
    )


def test_search_takes_every_setting_of_the_command_line() -> None:
    words = set(inspect.signature(api.search).parameters)
    assert words - {"study_file", "quiet"} == set(SETTINGS)


def test_search_and_the_command_line_work_on_one_study(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = lrsearch.search("digits", train_samples=200, **SMALL)
    words = ["run", "--train-samples", "200", "--trials", "6", "--epochs", "3", "--json"]
    assert main(words) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["best"]["value"] == result.value
    assert said["best"]["schedule"] == result.schedule.to_dict()
    assert said["baselines"] == result.baselines
    assert said["trials"] == 6 == sum(result.counts.values()) == len(result.trials)


def test_result_shows_the_answer_its_figures_and_its_files(place: Path) -> None:
    result = lrsearch.search(tiny(), **SMALL)
    assert f"validation loss {result.value:#.4g}" in repr(result)
    assert "usual recipes: ConstantLR" in repr(result)
    page = result._repr_html_()
    assert f"{result.value:#.4g}" in page
    assert "<svg" in page
    assert {"scatter", "curves"} <= set(result.figures)
    assert all(type(figure).__name__ == "Figure" for figure in result.figures.values())
    assert {path.name for path in result.files} >= {"best.yaml", "curves.html"}
    assert result.write("page.html", csv="tables")[0].read_text().startswith("<!doctype html>")
    result.export("best.yaml")
    assert lrsearch.load("best.yaml") == result.schedule
    assert "def make_scheduler" in result.export(python=True)
    assert isinstance(result.importance, dict)


def test_task_may_be_a_task_a_function_a_class_or_a_dict() -> None:
    x = torch.randn(64, 4)
    y = x.sum(1, keepdim=True)

    class Regression:
        train = validation = (x, y)
        batch_size = 16

        @staticmethod
        def model() -> nn.Module:
            return nn.Linear(4, 1)

    def from_function() -> dict[str, Any]:
        return {"model": Regression.model, "train": (x, y), "validation": (x, y)}

    for given, name in (
        (tiny(), "tiny"),
        (Regression, "Regression"),
        (from_function, "from_function"),
        ({"name": "adict", **from_function()}, "adict"),
    ):
        result = lrsearch.search(given, **SMALL)
        assert result.name == name
        assert result.value < 3


def test_same_call_completes_what_is_missing_and_a_changed_one_is_refused() -> None:
    assert len(lrsearch.search(tiny(), **SMALL | {"trials": 4}).trials) == 4
    assert len(lrsearch.search(tiny(), **SMALL).trials) == 6
    with pytest.raises(UsageError, match="made with epochs 3, now 4"):
        lrsearch.search(tiny(), **SMALL | {"epochs": 4})


def net(activation: type[nn.Module] = nn.ReLU, dropout: float = 0.3) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), activation(), nn.Dropout(dropout), nn.Linear(8, 2))


def own(**changes: Any) -> dict[str, Any]:
    """A dict task, made anew as by a notebook's cell."""
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    pair = x, (x.sum(1) > 0).long()
    return {"model": net, "train": pair, "validation": pair, "metric": None, **changes}


def smooth(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(outputs, y, label_smoothing=0.2)


def test_a_task_that_has_changed_needs_another_name(capsys: pytest.CaptureFixture[str]) -> None:
    words = SMALL | {"fuse": "off", "epochs": 1}
    x, y = own()["train"]
    assert lrsearch.search(own(), **words | {"trials": 1}).name == "net"
    assert len(lrsearch.search(own(), **words | {"trials": 2}).trials) == 2
    loss = r"a {} loss of \d\.\d+ before any training, now \d\.\d+ \(other data, .* a seed\)"
    for changes, told in (
        ({"loss": smooth}, loss.format("train")),
        ({"validation_loss": smooth}, loss.format("validation")),
        ({"model": lambda: net(nn.Tanh), "model_name": "net"}, loss.format("train")),
        (
            {"model": lambda: net(dropout=0.1), "model_name": "net"},
            r"dropout \[0.3\], now \[0.1\]",
        ),
        ({"train": (x, 1 - y)}, loss.format("train")),
        ({"validation": (x + 1, y)}, loss.format("validation")),
    ):
        way = r"Keep what it has, choose another name=\.\.\., or lrsearch delete net$"
        message = rf"'net' was made with {told}\. {way}"
        with pytest.raises(UsageError, match=message):
            lrsearch.search(own(**changes), **words | {"trials": 3})
    with pytest.raises(UsageError, match="a train loss of"):  # nothing to train is no way past
        lrsearch.search(own(loss=smooth), **words | {"trials": 2})
    result = lrsearch.search(own(loss=smooth), **words | {"trials": 1}, name="other")
    capsys.readouterr()
    lrsearch.confirm(result.study, task=own(), seeds=2)  # it compares its own runs
    assert "'other' was made with a train loss of" in capsys.readouterr().err


def shuffled() -> dict[str, Any]:
    """Loaders that torch cannot make tensors of, in another order each time."""
    data = ConcatDataset([TensorDataset(*own()["train"])])
    generator = torch.Generator()
    generator.seed()
    return {
        "train": DataLoader(data, batch_size=16, shuffle=True, generator=generator),
        "validation": DataLoader(data, batch_size=16, shuffle=True),
    }


def by_numpy() -> nn.Module:
    """Weights from a random state that torch's seed does not set."""
    model = net()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.from_numpy(np.random.normal(size=parameter.shape)))
    return model


def on_gpus_alone(x: torch.Tensor) -> torch.Tensor:
    if len(x) == SAMPLES:
        raise RuntimeError("this kernel needs a GPU")
    return x


@pytest.mark.parametrize(
    "changes",
    [shuffled, lambda: {"model": by_numpy}, lambda: {"transform": on_gpus_alone}],
    ids=["order", "weights", "device"],
)
def test_what_differs_on_every_run_does_not_refuse_the_same_task(
    changes: Callable[[], dict[str, Any]],
) -> None:
    words = SMALL | {"fuse": "off", "epochs": 1}
    for trials in (1, 2):
        found = lrsearch.search(own(**changes()), **words | {"trials": trials}, name="same")
        assert len(found.trials) == trials
    assert not found.study.user_attrs["lrsearch"]["plan"].get("initial_loss")


def test_a_study_from_before_the_losses_were_kept_goes_on() -> None:
    words = SMALL | {"fuse": "off", "epochs": 1}
    study = lrsearch.search(own(), **words | {"trials": 1}).study
    kept = study.user_attrs["lrsearch"]
    plan = {k: v for k, v in kept["plan"].items() if k not in ("initial_loss", "dropout")}
    assert len(plan) == len(kept["plan"]) - 2
    study.set_user_attr("lrsearch", {**kept, "plan": plan})
    assert len(lrsearch.search(own(loss=smooth), **words | {"trials": 2}).trials) == 2


def test_an_optimizer_may_be_a_class_as_in_a_task() -> None:
    found = lrsearch.search(tiny(), **SMALL | {"trials": 1}, optimizer=torch.optim.Adam)
    assert "torch.optim.Adam(" in found.export(python=True)
    same = lrsearch.search(tiny(), **SMALL | {"trials": 2}, optimizer="Adam")
    assert len(same.trials) == 2


def test_what_is_no_whole_number_or_no_text_is_named() -> None:
    study = lrsearch.search(tiny(), **SMALL | {"trials": 1}).study
    with pytest.raises(UsageError, match=r"seeds must be a whole number, got 2\.5"):
        lrsearch.confirm(study, task=tiny(), seeds=2.5)  # type: ignore[arg-type]
    for call in (lrsearch.open_storage, lambda url: lrsearch.report("tiny", storage=url)):
        with pytest.raises(UsageError, match=r"storage must be a URL, got 5 \(sqlite:///lrs"):
            call(5)
    with pytest.raises(UsageError, match="register takes a Family, got 5"):
        register(5)  # type: ignore[arg-type]


def test_task_object_named_as_a_built_in_one_does_not_join_its_study() -> None:
    lrsearch.search("digits", train_samples=200, **SMALL)
    with pytest.raises(UsageError, match="made with task digits, now python:digits"):
        lrsearch.search(tiny("digits"), train_samples=20, **SMALL)


def test_study_file_is_read_and_arguments_come_before_it(place: Path) -> None:
    (place / "s.yaml").write_text("task: digits\ntrials: 5\nepochs: 3\ntrain_samples: 200\n")
    assert len(lrsearch.search(study_file="s.yaml", trials=4, quiet=True).trials) == 4
    with pytest.raises(UsageError, match=r"none\.yaml"):
        lrsearch.search(study_file="none.yaml")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pruner": "asga"}, "did you mean asha"),
        ({"trials": 0}, "trials: must be from 1"),
        ({"schedules": "StepLRR"}, "did you mean StepLR"),
        ({"workers": 2}, "put it in a file"),
        ({"model": "mlp"}, "leave out 'mlp'"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_study(
    place: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        lrsearch.search(tiny(), **settings)
    assert "--" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(LrsearchError):
        lrsearch.report("tiny")


def test_broken_task_is_named_before_the_first_trial() -> None:
    broken = {"model": lambda: nn.Linear(5, 2), "train": (torch.randn(8, 4), torch.zeros(8))}
    with pytest.raises(LrsearchError, match="has no validation"):
        lrsearch.search(broken)
    broken["validation"] = broken["train"]
    with pytest.raises(LrsearchError, match="the model Linear on a train batch"):
        lrsearch.search(broken)


def test_report_reads_a_study_by_name_or_as_it_is() -> None:
    result = lrsearch.search(tiny(), **SMALL)
    for again in (lrsearch.report("tiny"), lrsearch.report(result.study)):
        assert again.schedule == result.schedule
        assert again.counts == result.counts
    with pytest.raises(UsageError, match="did you mean tiny"):
        lrsearch.report("tinny")
    with pytest.raises(UsageError, match="expected a study or its name, got 3"):
        lrsearch.report(3)  # type: ignore[arg-type]


def test_report_of_an_own_loop_and_of_an_empty_study() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    empty = lrsearch.report(study)
    assert repr(empty) == f"study {study.study_name}: no trials yet"
    assert "No trial" in empty._repr_html_()
    with pytest.raises(LrsearchError, match="no completed trial yet"):
        _ = empty.schedule

    def objective(trial: optuna.Trial) -> float:
        return lrsearch.suggest(trial, epochs=5).lr

    study.optimize(objective, n_trials=3)
    result = lrsearch.report(study)
    assert result.value == result.schedule.lr == study.best_value
    with pytest.raises(UsageError, match="training loop of its own"):
        lrsearch.confirm(study)


def test_confirm_takes_the_task_object_again() -> None:
    result = lrsearch.search(tiny(), **SMALL)
    with pytest.raises(UsageError, match="pass it again as task="):
        lrsearch.confirm("tiny", seeds=2, top=1, quiet=True)
    found = lrsearch.confirm(result.study, task=tiny(), seeds=2, top=1, quiet=True)
    assert len(found.winner.val_loss) == 2
    assert found.winner.test_loss
    assert repr(found).startswith("tiny-confirm, 2 fresh seeds: ")
    assert f"{found.winner.val.mean:.3f}"[:4] in found._repr_html_()
    assert "<table" in found._repr_html_()


def test_what_a_report_of_a_task_object_says_to_call_can_be_called(place: Path) -> None:
    result = lrsearch.search(tiny(), sampler="random", **SMALL | {"lr": (0.01, 0.5)})
    [path, *_] = result.write()
    said = html.unescape(path.read_text())
    again = "lrsearch.search(task, name='tiny', trials=6, epochs=3, lr=[0.01, 0.5]"
    for call in ("lrsearch.confirm('tiny', task=task)", again, ".rescaled(100)"):
        assert call in said
    assert "lrsearch confirm" not in said
    assert "lrsearch run" not in said
    assert "lrsearch train" not in said
    [call] = re.findall(r"lrsearch\.search\([^<]*\)", said)
    assert eval(call, {"lrsearch": lrsearch, "task": tiny()}).study.trials == result.study.trials
    found = lrsearch.confirm(result.study, task=tiny(), seeds=2, top=1, quiet=True)
    assert "<code>lrsearch.confirm(&#x27;tiny&#x27;, task=task, seeds=10)</code>" in (
        found._repr_html_()
    )


def test_search_confirms_what_it_found() -> None:
    result = lrsearch.search(tiny(), confirm=2, **SMALL)
    assert result.confirmed is not None
    assert result.confirmed.finished == result.confirmed.planned
    assert [path.name for path in result.files[:2]] == ["confirmed.yaml", "best.yaml"]
    lowest = result.study.trials[result.confirmed.lowest.trial]
    assert lrsearch.load(result.files[0]).to_dict() == lowest.user_attrs["schedule"]
    again = lrsearch.search(tiny(), out="elsewhere", **SMALL)  # as lrsearch run does
    assert again.files[0] == Path("elsewhere/tiny/confirmed.yaml")
    assert lrsearch.load(again.files[0]).to_dict() == lowest.user_attrs["schedule"]
    assert lrsearch.search(tiny(), name="other", **SMALL).confirmed is None


def test_ctrl_c_is_a_keyboard_interrupt_and_threads_are_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        torch.set_num_threads(1)
        raise Interrupted(130)

    monkeypatch.setattr(sys.modules["lrsearch.search.run"], "run", stopped)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyboardInterrupt, match="call it again to go on"):
            lrsearch.search(tiny())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_names_of_packages_are_functions_whatever_was_imported_before() -> None:
    code = (
        "import sys, lrsearch\n"
        "assert not {'torch', 'optuna', 'plotly', 'lrsearch.api'} & set(sys.modules)\n"
        "assert callable(lrsearch.search) and callable(lrsearch.report)\n"
        "import lrsearch.search.run, lrsearch.report.tables, lrsearch.confirm, inspect\n"
        "for name in ('search', 'report', 'confirm'):\n"
        "    ours = getattr(lrsearch.api, name)\n"
        "    assert inspect.signature(getattr(lrsearch, name)) == inspect.signature(ours)\n"
        "try:\n"
        "    lrsearch.search(trials=0)\n"
        "except lrsearch.LrsearchError as error:\n"
        "    print(error)\n"
        "assert dir(lrsearch) == sorted(lrsearch.__all__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("trials: must be from 1")


class Handle:
    """What IPython's display gives."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def update(self, shown: Any) -> None:
        self.shown.append(shown._repr_html_())


def test_notebook_shows_progress_in_one_output_that_is_redrawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handle = Handle()

    def show(shown: Any, *, display_id: bool) -> Handle:
        assert display_id
        handle.update(shown)
        return handle

    monkeypatch.setattr(displays, "in_notebook", lambda: True)
    monkeypatch.setattr(displays, "NotebookDisplay", lambda: notebook.NotebookDisplay(show))
    result = lrsearch.search(tiny("<b>tiny"), **SMALL | {"quiet": False})
    last = handle.shown[-1]
    assert 'max="6" value="6"' in last
    assert f"{result.value:#.4g}" in last
    assert "study &lt;b&gt;tiny" in last
    assert "<b>tiny" not in last


def test_plain_python_and_terminals_are_no_notebook() -> None:
    assert not notebook.in_notebook()


def test_a_second_ctrl_c_in_a_notebook_is_a_keyboard_interrupt_and_nothing_is_lost() -> None:
    """The process, a kernel, must live on; the trial goes back to the queue."""
    calls = []

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return nn.functional.cross_entropy(outputs, targets)

    task = dataclasses.replace(tiny(), validation_loss=loss)
    words: dict[str, Any] = {**SMALL, "fuse": "off", "storage": "sqlite:///a.db"}
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        lrsearch.search(task, **words)
    assert signal.getsignal(signal.SIGINT) is before
    states = [t.state.name for t in lrsearch.report("tiny", storage="sqlite:///a.db").study.trials]
    assert "RUNNING" not in states
    assert len(lrsearch.search(task, **words).study.trials) == 6
