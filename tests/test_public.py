"""What is public has a docstring, stands on the API page, and its examples are true."""

from __future__ import annotations

import doctest
import inspect
import pkgutil
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import optuna
import pytest
import torch
from torch import nn

import lrsearch
from lrsearch import apidoc
from lrsearch.errors import LrsearchError
from lrsearch.tasks import load_task

NAMES = [
    pytest.param(module, name, id=f"{module}.{name}")
    for module in apidoc.MODULES
    for name in apidoc.MODULES[module] or import_module(module).__all__
    if not name.startswith("_")
]
MODULES = sorted(info.name for info in pkgutil.walk_packages(lrsearch.__path__, "lrsearch."))


def imported(name: str) -> ModuleType:
    """The module; skips where a framework it is for is missing."""
    try:
        return import_module(name)
    except (LrsearchError, ModuleNotFoundError) as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_public_name_has_a_docstring_and_so_has_each_of_its_methods(
    module: str, name: str
) -> None:
    imported(module)
    value = dict(apidoc.public_names(module))[name]
    text = apidoc.documentation(name, value, module)
    assert text, f"{module}.{name} has no docstring"
    assert text.split("\n")[0].rstrip().endswith((".", ":", "?")) or "\n" in text
    if inspect.isclass(value):
        bare = [n for n, m in apidoc.members(value) if not apidoc.documentation(n, m, module)]
        assert bare == [], f"{module}.{name}: no docstring on {', '.join(bare)}"


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_public_function_describes_each_of_its_arguments(module: str, name: str) -> None:
    imported(module)
    value = dict(apidoc.public_names(module))[name]
    if not inspect.isroutine(value):
        return
    text = apidoc.documentation(name, value, module)
    for argument in inspect.signature(value).parameters:
        assert f"{argument}: " in text, f"{module}.{name} does not say what {argument} is"


def test_api_page_lists_every_public_name() -> None:
    page = apidoc.PLACE.read_text(encoding="utf-8")
    for param in NAMES:
        module, name = param.values
        assert f"### {module}.{name}\n" in page


def test_api_page_has_the_type_of_every_argument() -> None:
    assert not re.findall(r"\w+: [,)=].*", apidoc.PLACE.read_text(encoding="utf-8"))


def test_api_page_is_the_one_that_the_docstrings_make() -> None:
    for module in apidoc.MODULES:
        imported(module)
    assert apidoc.PLACE.read_text(encoding="utf-8") == apidoc.page(), (
        "a docstring or a signature changed: run python -m lrsearch.apidoc"
    )


@pytest.mark.parametrize("name", MODULES)
def test_module_says_what_it_is_for(name: str) -> None:
    assert (imported(name).__doc__ or "").strip()


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.usefixtures("quiet_optuna")
def test_examples_in_docstrings_are_true(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    known = {"torch": torch, "nn": nn, "optuna": optuna, "load_task": load_task}
    known["Schedule"] = lrsearch.Schedule
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    module = imported(name)
    for test in doctest.DocTestFinder().find(module, name, extraglobs=known):
        runner.run(test, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)
