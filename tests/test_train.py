"""train: an exported configuration on its own budget or another, with test metrics and weights."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

from lrsearch.errors import ConfigError, LrsearchError, UsageError
from lrsearch.schedules import Schedule
from lrsearch.tasks import load_task
from lrsearch.train import lines, train
from lrsearch.training.evaluation import evaluate


def write(folder: Path, schedule: Schedule, **changes: Any) -> Path:
    content = {
        "schedule": schedule.to_dict(),
        "optimizer": {"name": "SGD", "momentum": 0.9},
        "task": {"name": "digits"},
        "study": {"name": "digits", "trial": 3, "seed": 0},
    } | changes
    path = folder / "best.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    return path


COSINE = Schedule("CosineAnnealingLR", 0.1, 4, warmup=1)


def test_the_saved_weights_give_the_test_metrics_that_were_told(tmp_path: Path) -> None:
    result = train(write(tmp_path, COSINE))
    weights, page = result.files
    assert weights.name == "best-4epochs.safetensors"
    task = load_task("digits")
    assert task.test is not None
    found = evaluate(task, load_file(weights), task.test(), device=torch.device("cpu"))
    assert (result.test_loss, result.test_metric) == pytest.approx(found)
    assert result.test_metric is not None
    assert result.test_metric > 0.8
    assert "default-src 'none'" in page.read_text()
    with safe_open(weights, "pt") as file:
        facts = file.metadata()
    assert Schedule.from_dict(json.loads(facts["schedule"])) == COSINE


def test_training_needs_neither_optuna_nor_a_database(tmp_path: Path) -> None:
    """With what a search needs besides they took a third of the time of this command."""
    words = ["train", str(write(tmp_path, COSINE)), "--quiet"]
    program = (
        f"import sys; from lrsearch.cli import main\nassert main({words}) == 0\n"
        "assert not {'optuna', 'sqlalchemy', 'scipy.optimize'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_training_has_the_threads_that_it_is_given(tmp_path: Path) -> None:
    """A worker has one, since others run beside it; nothing runs beside a longer run."""
    torch.set_num_threads(2)
    try:
        train(write(tmp_path, COSINE))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_another_budget_rescales_the_schedule_by_its_fractions(tmp_path: Path) -> None:
    result = train(write(tmp_path, COSINE), epochs=8, out=tmp_path / "out")
    assert result.schedule == COSINE.rescaled(8)
    assert [r.epoch for r in result.epochs] == list(range(1, 9))
    assert result.epochs[1].lr == pytest.approx(0.1 * 0.55)  # second of two epochs of warmup
    assert result.files[0] == tmp_path / "out" / "best-8epochs.safetensors"


def test_the_same_seed_trains_the_same_model_and_another_seed_does_not(tmp_path: Path) -> None:
    path = write(tmp_path, Schedule("ConstantLR", 0.05, 1))
    one, two, other = train(path), train(path), train(path, seed=7)
    assert one.epochs[-1].val_loss == two.epochs[-1].val_loss
    assert one.epochs[-1].val_loss != other.epochs[-1].val_loss


def test_the_end_names_validation_test_and_files(tmp_path: Path) -> None:
    told: list[str] = []
    result = train(write(tmp_path, Schedule("ConstantLR", 0.05, 1)), note=told.append)
    assert told[0].startswith("task digits: mlp")
    assert any("epoch    1/1" in line for line in told)
    last = lines(result)
    assert re.fullmatch(r"validation  loss \d\.\d+  accuracy \d+\.\d%", last[0])
    assert last[1].startswith("test        loss")
    assert "best-1epochs.safetensors" in last[2]
    assert json.loads(json.dumps(result.to_dict()))["metric_name"] == "accuracy"


def test_a_training_that_diverges_says_so_and_leaves_no_files(tmp_path: Path) -> None:
    path = write(tmp_path, Schedule("ConstantLR", 1e6, 2))
    with pytest.raises(LrsearchError, match="not finite after epoch 1 of 2; lower lr"):
        train(path)
    assert [p.name for p in tmp_path.iterdir()] == ["best.yaml"]


def test_a_file_without_a_task_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no 'task:' block .* with lrsearch\.load\(FILE\)$"):
        train(write(tmp_path, COSINE, task=None))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lr: 0.1", "lr: -1", r"best.yaml: lr: must be"),
        ("family: Cos", "family: [Cos]  # ", r"best.yaml: unknown schedule family \['Cos'\]"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write(tmp_path, COSINE)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        train(path)


@pytest.mark.parametrize(
    ("block", "value", "message"),
    [
        ("task", {"name": None}, "no 'task:' block with a name"),
        ("task", {"name": "digits", "train_sample": 9}, "train_sample: .* mean train_samples"),
        ("optimiser", {"name": "adamw"}, "optimiser: unknown key — did you mean optimizer"),
        ("optimizer", [], r"optimizer: needs a name, .* got \[\]"),
        ("optimizer", {"name": "SGD", "nesterov": None}, "nesterov must be true or false"),
    ],
)
def test_a_file_edited_by_hand_never_trains_something_else(
    tmp_path: Path, block: str, value: object, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train(write(tmp_path, COSINE, **{block: value}))


def test_a_remark_in_the_file_does_no_harm(tmp_path: Path) -> None:
    result = train(write(tmp_path, Schedule("ConstantLR", 0.1, 1), remark="the good one"))
    assert result.epochs[-1].epoch == 1


TASK = """
import torch
from torch import nn

class Net(nn.Linear):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.register_buffer("graph", torch.eye(inputs).to_sparse())

    def forward(self, x):
        return super().forward(x @ self.graph)

    def get_extra_state(self):
        return {"seen": 3}

    def set_extra_state(self, state):
        assert state == {"seen": 3}

def none():
    raise FileNotFoundError("test.npz")

part = torch.arange(48.0).view(8, 6) / 48, torch.arange(8) % 2
data = {"model": lambda: Net(6, 2), "train": part, "validation": part}
good = {**data, "test": part}
bad = {**data, "test": none}
"""


def test_test_data_that_are_not_there_are_missed_before_training(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("own.py").write_text(TASK)
    path = write(in_tmp, Schedule("ConstantLR", 0.05, 1), task={"name": "own.py:bad"})
    monkeypatch.setattr("lrsearch.train._train", lambda *given: pytest.fail("it trained"))
    with pytest.raises(LrsearchError, match=r"test data fails: FileNotFoundError: test\.npz"):
        train(path)


def test_a_model_with_state_that_is_no_dense_tensor_is_trained_and_saved(in_tmp: Path) -> None:
    Path("own.py").write_text(TASK)
    path = write(in_tmp, Schedule("ConstantLR", 0.05, 1), task={"name": "own.py:good"})
    result = train(path)
    assert result.test_loss == pytest.approx(result.epochs[-1].val_loss)
    assert set(load_file(result.files[0])) == {"weight", "bias"}
