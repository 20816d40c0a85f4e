"""Large imports: what is left out, and that all works as before afterwards."""

from __future__ import annotations

import gc
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from lrsearch.imports import hollow, postponed, uncollected


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


def test_a_module_of_a_hollow_package_stays_and_the_package_comes_whole_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "large_package"
    package.mkdir()
    (package / "__init__.py").write_text("from large_package import other\nwhole = True\n")
    (package / "other.py").write_text("from large_package.wanted import text\n")
    (package / "wanted.py").write_text("text = 'abc'\n")
    with hollow("large_package"):
        wanted = import_module("large_package.wanted")
    assert "large_package" not in sys.modules
    assert "large_package.other" not in sys.modules
    whole = import_module("large_package")
    assert whole.whole
    assert whole.other.text == "abc"
    assert sys.modules["large_package.wanted"] is wanted
    with hollow("large_package"):
        assert import_module("large_package") is whole
    with hollow("no_such_package"), pytest.raises(ImportError):
        import_module("no_such_package")


@pytest.mark.parametrize("module", ["lrsearch.search.run", "lrsearch.confirm", "lrsearch.train"])
def test_what_trains_imports_scipy_before_torch(module: str) -> None:
    program = f"import sys, {module}; names = list(sys.modules)\n"
    program += "assert names.index('scipy.special') < names.index('torch')"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_forests_leave_most_of_scikit_learn_alone_and_others_find_it() -> None:
    program = (
        "import sys, optuna\n"
        "from lrsearch.report.fanova import Fanova\n"
        "optuna.logging.set_verbosity(optuna.logging.ERROR)\n"
        "study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))\n"
        "study.optimize(lambda trial: trial.suggest_float('x', 0, 1), n_trials=9)\n"
        "ask = {'n_trees': 3, 'max_depth': 6, 'seed': 0}\n"
        "print(round(float(Fanova(**ask).evaluate(study)['x']), 9))\n"
        "large = ('scipy.stats', 'sklearn.ensemble', 'sklearn.linear_model')\n"
        "print(sum(name in sys.modules for name in large))\n"
        "from sklearn.metrics import roc_auc_score\n"
        "from sklearn.ensemble import GradientBoostingRegressor, RandomTreesEmbedding\n"
        "from sklearn.neighbors import KNeighborsClassifier\n"
        "import scipy.stats, sklearn.manifold\n"
        "print(roc_auc_score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), scipy.stats.gmean([2, 8]))\n"
        "print(*KNeighborsClassifier(1).fit([[0], [1]], [0, 1]).predict([[0.9]]))\n"
        "GradientBoostingRegressor().fit([[0], [1]], [0, 1])\n"
        "RandomTreesEmbedding(3).fit_transform([[0], [1]])\n"
        "theirs = optuna.importance.FanovaImportanceEvaluator(**ask)\n"
        "print(round(float(theirs.evaluate(study)['x']), 9))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == ["1.0", "0", "0.75", "4.0", "1", "1.0"]
