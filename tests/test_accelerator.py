"""Training on a device that is not the CPU: on machines without one, too."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from torch.utils import backend_registration

from lrsearch.training.ensemble import EnsembleRunner

if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
    pytest.skip("this torch takes no devices written in Python", allow_module_level=True)
from tests.accelerator import CASES, EPOCHS, MISTAKES


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    """What every case gave on the CPU and on the other device."""
    program = [sys.executable, "-m", "tests.accelerator"]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_trial_has_the_history_it_has_on_the_cpu(name: str, trained: dict[str, Any]) -> None:
    here, there = trained[name]["cpu"], trained[name]["device"]
    assert len(there["histories"]) == 3
    for one, other in zip(here["histories"], there["histories"], strict=True):
        for numbers, others in zip(one, other, strict=True):
            assert others == pytest.approx(numbers, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_trial_goes_on_from_its_file_on_the_device(name: str, trained: dict[str, Any]) -> None:
    there = trained[name]["device"]
    assert there["resumed"] == [history[EPOCHS // 2 :] for history in there["histories"]]


READS = [name for name in CASES if CASES[name].precision != "fp16" and "metric" not in name]
"""Cases that need not wait in an epoch: at fp16 each step asks whether it overflowed."""


@pytest.mark.parametrize("name", READS)
def test_an_epoch_waits_for_the_device_at_its_end_only(name: str, trained: dict[str, Any]) -> None:
    """Of its four steps none waits; fused trials read training and validation apart."""
    most = 2 if CASES[name].runner is EnsembleRunner else 1
    assert set(trained[name]["device"]["readings"]) == {most}


@pytest.mark.parametrize("command", ["run", "confirm", "train"])
def test_the_commands_work_on_the_device(command: str, trained: dict[str, Any]) -> None:
    assert trained["commands"][command] == 0


def test_a_task_is_tried_on_the_device_before_it_is_trained(trained: dict[str, Any]) -> None:
    assert trained["check"]["dense"] == "nothing"
    wrong = trained["check"]["Forgetful"]
    assert "the model Forgetful on a train batch (16, 6) float32 fails" in wrong


@pytest.mark.parametrize("name", ["There", "data"])
def test_model_or_data_that_are_on_the_device_alone_are_taken(
    name: str, trained: dict[str, Any]
) -> None:
    assert trained["check"][name] == "nothing"


def test_a_part_that_all_models_have_stays_on_the_device(trained: dict[str, Any]) -> None:
    assert trained["check"]["on_top"] == "nothing"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_device_refuses_what_a_gpu_refuses(mistake: str, trained: dict[str, Any]) -> None:
    assert trained["refusals"][mistake] != "nothing"
