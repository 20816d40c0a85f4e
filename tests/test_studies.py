"""The studies: every file runs, every record is complete, and what is said of them is theirs."""

from __future__ import annotations

import itertools
import json
import re
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lrsearch.config import load
from lrsearch.report.record import to_json
from lrsearch.report.record_shown import record_block
from lrsearch.schedules import Schedule
from lrsearch.search.run import run
from lrsearch.settings import json_schema
from tests.datafiles import write_cifar10, write_fashion_mnist
from tests.test_record import FIELDS

ROOT = Path(__file__).resolve().parents[1]
STUDIES = ROOT / "studies"
FILES = sorted(STUDIES.glob("*/*.yaml"))
RECORDS = sorted(
    path
    for name in ("four-decays", "square-network", "cifar10-net", "parameter-groups")
    for path in (STUDIES / name).glob("*.json")
)


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


@pytest.mark.parametrize("path", FILES, ids=named)
def test_study_file_is_valid(path: Path) -> None:
    config = load(path, {})
    assert config.name == path.parent.name or config.name == f"{path.parent.name}-{path.stem}"
    assert f"studies/{named(path)}" in path.read_text()  # its command, to be copied


def test_there_are_three_budgets_for_each_built_in_task() -> None:
    for task in ("digits", "fashion-mnist", "cifar10"):
        names = {path.stem for path in (STUDIES / task).glob("*.yaml")}
        assert names == {"laptop", "gpu", "cluster"}


def test_schema_of_the_editors_is_the_one_in_the_code() -> None:
    assert json.loads((STUDIES / "study.schema.json").read_text()) == json_schema()


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-10 and Fashion-MNIST of some hundred images."""
    folder = tmp_path_factory.mktemp("data")
    write_cifar10(folder)
    return write_fashion_mnist(folder)


@pytest.mark.parametrize("path", FILES, ids=named)
def test_study_file_runs_in_miniature(
    path: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # a task of its own is named from there
    stated = load(path, {}).baselines
    count = len(stated) if isinstance(stated, Mapping) else 4 if stated else 0
    small = {
        "trials": count + 1, "epochs": 2, "data_dir": str(tiny_data), "device": "cpu",
        "storage": f"sqlite:///{tmp_path}/lrsearch.db", "out": str(tmp_path), "workers": 1,
    }  # fmt: skip
    if load(path, {}).task in ("cifar10", "fashion-mnist"):
        small["train_samples"] = 64
    outcome = run(load(path, small))
    assert outcome.progress.finished == count + 1
    found = [t.user_attrs.get("baseline") for t in outcome.study.trials[:count]]
    assert None not in found
    if isinstance(stated, Mapping):
        assert found == list(stated)


def read(name: str) -> dict[str, Any]:
    """A record by its place below ``studies/``."""
    record: dict[str, Any] = json.loads((STUDIES / name).read_text())
    return record


def test_every_experiment_has_a_record() -> None:
    assert [named(path) for path in RECORDS] == [
        "cifar10-net/record.json",
        "four-decays/record.json",
        "parameter-groups/record.json",
        "square-network/record-arms.json",
        "square-network/record.json",
    ]


@pytest.mark.parametrize("path", RECORDS, ids=named)
def test_record_is_complete_and_was_written_by_the_command(path: Path) -> None:
    record = json.loads(path.read_text())
    assert all(record[key] for key in FIELDS)
    assert path.read_text() == to_json(record)
    assert path.with_suffix(".svg").read_text().startswith("<svg")
    assert not re.search(r"/(work|home|root|tmp|Users)/", path.read_text())
    for arm in record["confirm"]["arms"].values():
        assert arm["n"] + len(arm["lost_seeds"]) == len(record["confirm"]["seeds"])
        assert arm["mean"] == pytest.approx(sum(arm["val_loss"].values()) / arm["n"])
        Schedule.from_dict(arm["schedule"])


@pytest.mark.parametrize("path", RECORDS, ids=named)
def test_tables_of_a_readme_are_those_of_the_record(path: Path) -> None:
    block = record_block(json.loads(path.read_text()), path.name)
    assert block in (path.parent / "README.md").read_text()


@pytest.mark.parametrize("path", sorted({p.parent / "README.md" for p in RECORDS}), ids=named)
def test_every_picture_and_file_that_a_readme_names_is_there(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def losses(record: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Arm -> seed -> loss, of the seeds on which no arm's square network is dead."""
    arms = {key: arm["val_loss"] for key, arm in record["confirm"]["arms"].items()}
    living = [s for s in record["confirm"]["seeds"] if max(v[str(s)] for v in arms.values()) < 1.9]
    return {key: {str(s): values[str(s)] for s in living} for key, values in arms.items()}


def falling(record: Mapping[str, Any], *arms: str) -> int:
    """Living seeds on which each arm is below the next."""
    found = losses(record)
    return sum(
        all(found[a][s] < found[b][s] for a, b in itertools.pairwise(arms)) for s in found[arms[0]]
    )


def middle(record: Mapping[str, Any], key: str | None = None, digits: int = 4) -> str:
    """Median of the living, of an arm or of the search's winner, as .0036."""
    found = losses(record)[key or record["confirm"]["winner_of_search"]]
    return f"{statistics.median(found.values()):.{digits}f}".removeprefix("0")


def lower(record: Mapping[str, Any], a: str, b: str) -> int:
    """Seeds on which one arm is below another."""
    found = {k: v["val_loss"] for k, v in record["confirm"]["arms"].items()}
    return sum(found[a][seed] < found[b][seed] for seed in found[a])


def least_wins(record: Mapping[str, Any], *arms: str) -> int:
    """Seeds on which the search's winner is below the arm that it beats least often."""
    return min(lower(record, record["confirm"]["winner_of_search"], arm) for arm in arms)


def mean(record: Mapping[str, Any], key: str | None = None) -> str:
    """Mean loss of an arm, or of the search's winner, as .1518."""
    arm = record["confirm"]["arms"][key or record["confirm"]["winner_of_search"]]
    return f"{arm['mean']:.4f}".removeprefix("0")


def lowest(record: Mapping[str, Any]) -> str:
    """The lowest mean loss of all arms, as .1516."""
    arms = record["confirm"]["arms"]
    return mean(record, min(arms, key=lambda key: float(arms[key]["mean"])))


def accuracy(record: Mapping[str, Any], key: str | None = None) -> str:
    """Mean test accuracy of an arm, or of the search's winner, as 46.7%."""
    arm = record["confirm"]["arms"][key or record["confirm"]["winner_of_search"]]
    return f"{arm['test_accuracy']['mean']:.1%}"


CIFAR = ("studies/cifar10-net/README.md", "cifar10-net/record.json")
GROUPS = ("studies/parameter-groups/README.md", "parameter-groups/record.json")
FOUR = ("studies/four-decays/README.md", "four-decays/record.json")
ALL = ("studies/square-network/README.md", "square-network/record.json")
ARMS = ("studies/square-network/README.md", "square-network/record-arms.json")
SENTENCES: list[tuple[str, str, Callable[[Mapping[str, Any]], str]]] = [
    (
        *CIFAR,
        lambda r: (
            f"from {r['search']['best']['schedule']['lr']:.3f} and a tenth".replace(" 0.", " .")
            + f" after every 3 epochs the loss is {float(mean(r)):.3f} instead of "
            f"{float(mean(r, 'published')):.3f}, and the test accuracy {accuracy(r)} instead of "
            f"{accuracy(r, 'published')} (means of {len(r['confirm']['seeds'])} seeds, no overlap)"
        ),
    ),
    (
        *GROUPS,
        lambda r: (
            f"the loss is {lowest(r)} instead of {mean(r, 'published')} "
            f"(means of {len(r['confirm']['seeds'])} seeds). It is what the run says to train "
            f"with. - The winner of the search, from .688, has {mean(r)}:"
        ),
    ),
    (
        *FOUR,
        lambda r: (
            "below each of them, and the usual cosine, on all "
            f"{least_wins(r, *r['search']['baselines'])} seeds."
        ),
    ),
    (*ARMS, lambda r: f"On {100 - len(losses(r)['cosine'])} of the 100 seeds the net is dead"),
    (
        *ARMS,
        lambda r: f"a score of {max(r['confirm']['arms']['cosine']['val_loss'].values()):.3f})",
    ),
    (
        *ARMS,
        lambda r: (
            f"On the {len(losses(r)['cosine'])} living seeds the published order holds "
            f"{falling(r, 'cosine', 'exponential', 'constant')} times; constant < exponential < "
            f"cosine, its reverse, holds {falling(r, 'constant', 'exponential', 'cosine')} times."
        ),
    ),
    (
        *ARMS,
        lambda r: (
            f"constant is below cosine on {falling(r, 'constant', 'cosine')}, exponential below "
            f"cosine on {falling(r, 'exponential', 'cosine')}, constant below exponential on "
            f"{falling(r, 'constant', 'exponential')};"
        ),
    ),
    (
        *ARMS,
        lambda r: (
            f"medians of the living {middle(r, 'constant')} (constant), "
            f"{middle(r, 'exponential')} (exponential), {middle(r, 'cosine')} (cosine)"
        ),
    ),
    (*ARMS, lambda r: f"(median of the living {middle(r, 'warning')})"),
    (*ALL, lambda r: f"from {r['search']['best']['schedule']['lr']:.4f}".replace(" 0.", " .")),
    (
        *ALL,
        lambda r: (
            "below each of the three arms on "
            f"{least_wins(r, 'cosine', 'constant', 'exponential')} of "
            f"{len(losses(r)['cosine'])} living seeds."
        ),
    ),
    (
        *ALL,
        lambda r: (
            f"Medians of the living: {middle(r, digits=6)}, against {middle(r, 'constant')} "
            f"(constant), {middle(r, 'cosine')} (cosine) and {middle(r, 'exponential')} "
            "(exponential)."
        ),
    ),
    (*ALL, lambda r: f"On the other {40 - len(losses(r)['cosine'])} seeds the net is as dead"),
]
"""(document, record, how a sentence of it follows from the record): numbers in prose."""


@pytest.mark.parametrize(("document", "record", "sentence"), SENTENCES)
def test_numbers_in_prose_are_those_of_the_record(
    document: str, record: str, sentence: Callable[[Mapping[str, Any]], str]
) -> None:
    text = " ".join((ROOT / document).read_text().split())
    assert sentence(read(record)) in text
