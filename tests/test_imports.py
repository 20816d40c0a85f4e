"""Large imports: what is left out, and that all works as before afterwards."""

from __future__ import annotations

import gc
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from lrsearch.imports import postponed, uncollected


@pytest.mark.parametrize("keep", [False, True])
def test_no_collection_inside_and_as_before_afterwards(keep: bool) -> None:
    frozen = gc.get_freeze_count()
    try:
        with uncollected(keep=keep):
            assert not gc.isenabled()
        assert gc.isenabled()
        assert (gc.get_freeze_count() > frozen) == keep
    finally:
        gc.unfreeze()


def test_a_postponed_module_is_imported_when_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "large_one.py").write_text("text = 'abc'\ndef double(x): return 2 * x\n")
    user = "import large_one\nfrom large_one import double, text\ndef call(): return double(21)\n"
    (tmp_path / "user_of_it.py").write_text(user)
    with postponed("large_one"):
        module = import_module("user_of_it")
    assert "large_one" not in sys.modules
    assert module.call() == 42
    assert module.text.upper() == "ABC"
    large = sys.modules["large_one"]
    with postponed("large_one"):
        assert import_module("large_one") is large


def test_forests_need_no_scipy_stats_and_others_find_it() -> None:
    program = (
        "import sys, optuna\n"
        "from lrsearch.report.importance import _evaluator\n"
        "optuna.logging.set_verbosity(optuna.logging.ERROR)\n"
        "study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))\n"
        "study.optimize(lambda trial: trial.suggest_float('x', 0, 1), n_trials=9)\n"
        "print(float(_evaluator()(seed=0, n_trees=3).evaluate(study)['x']))\n"
        "print('scipy.stats' in sys.modules)\n"
        "from sklearn.metrics import roc_auc_score\n"
        "import scipy.stats\n"
        "print(roc_auc_score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), scipy.stats.gmean([2, 8]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == ["1.0", "False", "0.75", "4.0"]
