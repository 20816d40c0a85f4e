"""The study files that people start from are valid, and the editors' schema is up to date."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lrsearch.config import json_schema, load

STUDIES = Path(__file__).resolve().parents[1] / "studies"
FILES = sorted(STUDIES.glob("*/*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_study_file_is_valid(path: Path) -> None:
    config = load(path, {})
    assert config.name == path.parent.name or config.name == f"{path.parent.name}-{path.stem}"


def test_there_are_three_budgets_for_each_built_in_task() -> None:
    for task in ("digits", "fashion-mnist", "cifar10"):
        names = {path.stem for path in (STUDIES / task).glob("*.yaml")}
        assert names == {"laptop", "gpu", "cluster"}


def test_schema_of_the_editors_is_the_one_in_the_code() -> None:
    assert json.loads((STUDIES / "study.schema.json").read_text()) == json_schema()
