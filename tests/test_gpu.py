"""On a CUDA device, where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.on_gpu import CASES

GPUS = os.environ.get("LRSEARCH_TEST_GPUS", "all")
if not GPUS or not any([*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev").glob("dxg")]):
    pytest.skip("needs a CUDA device", allow_module_level=True)


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    """What every case gave."""
    environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    if GPUS != "all":
        environment["CUDA_VISIBLE_DEVICES"] = GPUS
    program = [sys.executable, "-m", "tests.on_gpu"]
    done = subprocess.run(
        program, capture_output=True, text=True, check=False, timeout=600, env=environment
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] | None = json.loads(done.stdout)
    if found is None:
        pytest.skip("this torch finds no CUDA device")
    return found


@pytest.mark.parametrize("name", CASES)
def test_models_are_fused(name: str, trained: dict[str, Any]) -> None:
    assert trained[name]["reason"] is None


@pytest.mark.parametrize("name", CASES)
def test_a_trial_is_the_same_whatever_runs_beside_it(name: str, trained: dict[str, Any]) -> None:
    near = 5e-3 if CASES[name].precision == "fp32" else 5e-2
    one, two = (trained[name][how] for how in ("one", "two"))
    assert two == [pytest.approx(losses, rel=near, abs=near) for losses in one]


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].same])
def test_a_fused_trial_follows_one_alone(name: str, trained: dict[str, Any]) -> None:
    near = 5e-3 if CASES[name].precision == "fp32" else 5e-2
    alone, one = (trained[name][how] for how in ("alone", "one"))
    assert one == [pytest.approx(losses, rel=near, abs=near) for losses in alone]
