"""The exported file builds the same scheduler again, whoever wrote it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
import pytest
import torch
import yaml
from optuna.trial import TrialState

import lrsearch
from lrsearch.cli import main
from lrsearch.errors import ConfigError, LrsearchError, UsageError
from lrsearch.export import best_trial, configuration, export_text, write_best
from lrsearch.saved import load
from lrsearch.schedules import FAMILIES, RandomParams, Schedule, Space
from lrsearch.schedules.code import python_code
from tests.bench import Bench, FakeRunner
from tests.test_schedules import torch_28_warns


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path)
    bench.work(12, FakeRunner(4))
    return bench


def lrs(scheduler: torch.optim.lr_scheduler.LRScheduler, steps: int) -> list[float]:
    """The rates of a real loop."""
    optimizer = scheduler.optimizer
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_best_is_the_completed_trial_with_the_smallest_loss(bench: Bench) -> None:
    best = best_trial(bench.study)
    assert best.value == min(t.value for t in bench.trials if t.value is not None)


def test_written_file_builds_a_scheduler_with_the_same_trace(bench: Bench) -> None:
    path = write_best(bench.study, bench.folder / "best.yaml")
    schedule = lrsearch.load(path)
    stored = Schedule.from_dict(best_trial(bench.study).user_attrs["schedule"])
    assert schedule == stored
    if FAMILIES[schedule.family].needs_metric:
        return
    np.testing.assert_array_equal(schedule.trace(5).lr, stored.trace(5).lr)


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("family", [n for n, f in FAMILIES.items() if f.searched])
def test_every_family_survives_a_file_exactly(tmp_path: Path, family: str, interval: str) -> None:
    for seed in range(5):
        space = Space([family], 20, (1e-3, 1.0), interval=interval)  # type: ignore[arg-type]
        schedule = space.suggest(RandomParams(seed))
        path = tmp_path / "x.yaml"
        path.write_text(yaml.safe_dump({"schedule": schedule.to_dict()}))
        again = load(path)
        assert again == schedule
        if FAMILIES[family].needs_metric:
            continue
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=9.0, momentum=0.9)
        per_epoch = 7 if schedule.interval == "step" else 1
        built = again.build(optimizer, steps_per_epoch=7)
        expected = schedule.trace(7).lr[:: 7 // per_epoch]
        assert lrs(built, 20 * per_epoch) == expected.tolist()


def test_export_holds_what_is_needed_to_repeat_it(bench: Bench) -> None:
    content = configuration(bench.study, best_trial(bench.study))
    assert set(content) == {"schedule", "optimizer", "task", "result", "study", "made_by"}
    assert set(content["result"]["baselines"]) == set(bench.space.baselines(0.1))
    assert content["made_by"]["torch"] == torch.__version__
    assert content["study"]["seed"] == 0


def test_chosen_trial_is_exported_and_a_missing_one_refused(bench: Bench) -> None:
    text = yaml.safe_load(export_text(bench.study, trial=3))
    assert text["schedule"] == bench.trials[3].user_attrs["schedule"]
    with pytest.raises(UsageError, match="has no trial 99"):
        export_text(bench.study, trial=99)


@torch_28_warns
def test_python_code_makes_the_same_rates_without_lrsearch(bench: Bench) -> None:
    for trial in bench.trials:
        schedule = Schedule.from_dict(trial.user_attrs["schedule"])
        if schedule.interval == "step" or FAMILIES[schedule.family].needs_metric:
            continue
        code = export_text(bench.study, trial=trial.number, python=True)
        assert "lrsearch" not in code
        names: dict[str, object] = {}
        exec(compile(code, "exported", "exec"), names)
        parameter = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([parameter], lr=schedule.lr, momentum=0.9)
        made = names["make_scheduler"](optimizer)  # type: ignore[operator]
        np.testing.assert_allclose(lrs(made, schedule.epochs), schedule.trace().lr, rtol=1e-12)


SHARES = (1.0, 0.1, 0.5)
GROUPS = [{"lr": 0.02 * share, "parameters": 1} for share in SHARES]


@torch_28_warns
@pytest.mark.parametrize("warmup", [0, 2])
@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_python_code_gives_each_parameter_group_the_rates_that_build_gives(
    interval: Literal["epoch", "step"], warmup: int
) -> None:
    """Every family, with floors: torch's cosines have one for all groups, cycles one peak."""
    for family in Space(families=None, epochs=20, lr=(1e-3, 10.0), interval=interval).names:
        space = Space(families=(family,), epochs=20, lr=(1e-3, 10.0), interval=interval)
        for seed in range(4):
            study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
            try:
                schedule = dataclasses.replace(space.suggest(study.ask()), warmup=0)
                schedule = dataclasses.replace(schedule, warmup=warmup)
            except ConfigError:  # a family that carries no warmup, or lengths that do not fit it
                continue
            per_epoch = 7 if schedule.interval == "step" else 1
            names: dict[str, Any] = {}
            code = python_code(schedule, {"name": "SGD", "momentum": 0.9}, GROUPS)
            exec(compile(code, "exported", "exec"), names)
            there = of_groups([schedule.lr * share for share in SHARES])
            more = (per_epoch,) if schedule.interval == "step" else ()
            made = names["make_scheduler"](there, *more)
            here = of_groups(list(SHARES))
            ours = schedule.build(here, steps_per_epoch=per_epoch)
            for _ in range(20 * per_epoch):
                rates = [[g["lr"] for g in each.param_groups] for each in (there, here)]
                np.testing.assert_allclose(rates[0], rates[1], rtol=1e-9, atol=1e-15)
                for optimizer, scheduler in ((there, made), (here, ours)):
                    optimizer.step()
                    loss = (1.0,) if FAMILIES[family].needs_metric else ()
                    scheduler.step(*loss)


def of_groups(rates: list[float]) -> torch.optim.Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in rates]
    return torch.optim.SGD(groups, momentum=0.9)


@pytest.mark.parametrize(
    ("family", "interval", "when"),
    [
        (
            "CosineAnnealingLR",
            "epoch",
            "scheduler.step() once an epoch, not after every optimizer",
        ),
        ("CosineAnnealingLR", "step", "scheduler.step() after every optimizer.step()"),
        ("OneCycleLR", "auto", "scheduler.step() after every optimizer.step()"),
        ("ReduceLROnPlateau", "auto", "scheduler.step(val_loss) once an epoch, after the validat"),
    ],
)
def test_files_and_code_say_when_to_step(
    tmp_path: Path, family: str, interval: Any, when: str
) -> None:
    study = optuna.create_study(study_name="own")
    trial = study.ask()
    params = {"factor": 0.5, "patience": 1} if family == "ReduceLROnPlateau" else {}
    schedule = Schedule(family, 0.1, 5, params, interval=interval)
    trial.set_user_attr("schedule", schedule.to_dict())
    study.tell(trial, 0.5)
    assert f"\n# step it: {when}" in export_text(study)
    code = export_text(study, python=True)
    assert f"To be stepped: {when}" in code
    counts = "steps_per_epoch counts optimizer steps: fewer than batches where gradients are accum"
    assert (counts in code) == ("step() after" in when)
    file = write_best(study, tmp_path / "best.yaml")
    assert load(file) == schedule


def test_export_of_a_task_with_parameter_groups_names_them(tmp_path: Path) -> None:
    def groups(model: torch.nn.Sequential) -> list[dict[str, Any]]:
        return [
            {"params": model[:-1].parameters(), "weight_decay": 0.1},
            {"params": model[-1].parameters(), "lr": 0.01, "betas": (0.8, 0.9)},
        ]

    x, y = torch.randn(40, 3), torch.randint(0, 2, (40,))
    task = {
        "model": lambda: torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)),
        "train": (x[:30], y[:30]),
        "validation": (x[30:], y[30:]),
        "optimizer": "AdamW",
        "lr": 0.1,
        "param_groups": groups,
    }
    found = lrsearch.search(
        task,
        trials=4,
        epochs=2,
        name="two",
        storage=f"sqlite:///{tmp_path}/a.db",
        out=tmp_path,
        workers=1,
        quiet=True,
    )
    known = configuration(found.study, found.study.trials[2])["param_groups"]
    assert known == [
        {"lr": 0.1, "weight_decay": 0.1, "parameters": 16},
        {"lr": 0.01, "betas": [0.8, 0.9], "parameters": 10},
    ]
    code = export_text(found.study, trial=2, python=True)
    assert "The optimizer's groups must have the rates 0.1, 0.01" in code
    assert '{"params": ..., "lr": 0.1, "weight_decay": 0.1},  # 16 parameters' in code
    assert "torch.optim.AdamW(groups, lr=0.1)" in code


@pytest.mark.parametrize(
    ("params", "said"), [({}, "this is the highest."), ({"eta_min": 0.001}, "use lrsearch.load")]
)
def test_python_code_of_an_own_loop_says_what_becomes_of_parameter_groups(
    params: dict[str, float], said: str
) -> None:
    own, known = Schedule("CosineAnnealingLR", 0.1, 10, params), {"name": "SGD"}
    told = f"Where its parameter groups have rates of their own, {said}"
    assert told in python_code(own)
    assert "parameter groups" not in python_code(own, known)


def test_study_without_a_completed_trial_says_so(tmp_path: Path) -> None:
    with pytest.raises(LrsearchError, match="has no completed trial yet"):
        export_text(Bench(tmp_path).study)


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ([math.inf, math.inf], "all 2 trials diverged, even at lr 0.1; look for NaN"),
        ([math.inf, math.inf], "or search lower rates in its own training loop$"),
        ([math.inf, None], "all 2 trials diverged"),
        ([math.inf, "pruned"], "has no completed trial yet"),
        (
            [ValueError, ValueError],
            "all 2 trials failed; an exception or a loss of NaN ended each",
        ),
    ],
)
def test_what_ended_without_a_finite_loss_is_never_the_best(ends: list[Any], message: str) -> None:
    study = optuna.create_study(study_name="own")
    _end(study, *ends)
    with pytest.raises(LrsearchError, match=message):
        export_text(study)
    _end(study, 0.5, -math.inf)
    assert best_trial(study).value == 0.5


def _end(study: optuna.Study, *ends: Any) -> None:
    """Trials of a training loop of the user's own; None for one that `PruningCallback` ended."""
    for end in ends:
        trial = study.ask()
        trial.set_user_attr("schedule", Schedule("ConstantLR", 0.1, 3).to_dict())
        if end is None:
            trial.set_user_attr("stopped", "diverged")
        if end is ValueError:
            study.tell(trial, state=TrialState.FAIL)
        elif end is None or end == "pruned":
            trial.report(1.0, 1)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, end)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1", "has no 'schedule:' block"),
        ("schedule: {family: StepLRR, lr: 0.1, epochs: 3}", "did you mean StepLR"),
        ("schedule: {family: StepLR, lr: 0.1, epochs: 3, params: {step_size: 0}}", "step_size"),
        ("schedule: {family: StepLR, lr: -1, epochs: 3}", "lr"),
        ("schedule: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("schedule:\n  lr: 0.1\n  lr: 0.2", "line 3  schedule.lr stands in line 2 too; keep one"),
        ("schedule: !!timestamp soon", "not valid YAML"),
        ("schedule: {lr: !!int ''}", "not valid YAML"),
        ("schedule: {lr: !!bool 3}", "not valid YAML"),
        ("schedule: {family: StepLR, lr: 0.1, epochs: 99999999999}", "epochs"),
    ],
)
def test_damaged_or_hostile_file_is_refused_in_words(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_file_names_the_precision_where_it_is_not_that_of_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for precision in ("fp32", "bf16"):
        run = ["run", "--trials", "1", "--epochs", "1", "--quiet", "--name", precision]
        assert main([*run, "--precision", precision]) == 0
    devices = [
        yaml.safe_load(Path(f"lrsearch-results/{name}/best.yaml").read_text())["made_by"]["device"]
        for name in ("fp32", "bf16")
    ]
    assert devices[1] == f"{devices[0]}, bf16"
