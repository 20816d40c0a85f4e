"""Every example and every block of the README runs, as a reader would run it."""

from __future__ import annotations

import importlib.util
import re
import runpy
import shlex
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lrsearch.cli import COMMANDS, main
from lrsearch.config import load as load_config
from lrsearch.errors import LrsearchError
from lrsearch.schedules import FAMILIES
from lrsearch.values import short_task_name

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
README = ROOT / "README.md"
TASKS = {
    "classification.py": "task",
    "regression.py": "Diabetes",
    "language_model.py": "characters",
    "dict_batches.py": "Autoencoder",
}
SCRIPTS = {
    "optuna_objective.py": ("best ", "usual recipes: ConstantLR", "own-loop.html"),
    "parameter_groups.py": ("study two-rates: ", "epoch 4 "),
    "own_family.py": ("study halving: ", "Points [0.01  0.105 0.2 "),
    "lightning_search.py": ("study lightning: ", "best ", "lightning.html"),
    "huggingface_trainer.py": ("study huggingface: ", "best "),
    "accelerate_loop.py": ("study accelerate: ", "best "),
}
NEEDS = {
    "lightning_search.py": "lightning",
    "huggingface_trainer.py": "transformers",
    "accelerate_loop.py": "accelerate",
}
SMALLER = {
    "run": ["--trials", "6", "--epochs", "3", "--workers", "1", "--quiet"],
    "confirm": ["--top", "1", "--seeds", "2", "--quiet"],
    "train": ["--epochs", "3", "--quiet"],
}
"""What a command of the README is cut down to: it is the reader's, its size is not."""
ELSEWHERE = ("dashboard", "worker")
"""Commands that serve until they are stopped; their own tests start and stop them."""
DATA = ("cifar10", "fashion-mnist")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Examples are programs of their own: what they change is put back."""
    families, verbosity = dict(FAMILIES), optuna.logging.get_verbosity()
    threads, path = torch.get_num_threads(), list(sys.path)
    yield
    FAMILIES.clear()
    FAMILIES.update(families)
    optuna.logging.set_verbosity(verbosity)
    torch.set_num_threads(threads)
    sys.path[:] = path


def run_script(name: str) -> None:
    """As ``python examples/NAME``; warnings are the frameworks' own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_every_example_is_in_a_test_and_says_how_to_run_it() -> None:
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == {*TASKS, *SCRIPTS}
    for name in names:
        head = (EXAMPLES / name).read_text().split('"""')[1]
        assert f"examples/{name}" in head


def test_slurm_signals_the_script_itself_which_becomes_the_worker() -> None:
    """Without ``B:`` only the steps of srun get the signal, and there is none."""
    script = (EXAMPLES / "clusters" / "slurm_array.sh").read_text()
    assert re.search(r"^#SBATCH --signal=B:TERM@\d+$", script, re.M)
    assert re.search(r"^exec lrsearch run ", script, re.M)


@pytest.mark.parametrize("name", TASKS)
def test_own_task_is_short_and_searched_from_the_command_line(
    name: str, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = (EXAMPLES / name).read_text().splitlines()
    code = source[source.index('"""', 1) + 1 :]
    assert len([line for line in code if line.strip()]) < 40
    task = f"{EXAMPLES / name}:{TASKS[name]}"
    words = ["run", "--task", task, "--trials", "7", "--epochs", "2", "--quiet", "--workers", "1"]
    assert main(words) == 0
    study = "classification" if TASKS[name] == "task" else TASKS[name]
    assert f"lrsearch report {study}" in capsys.readouterr().out
    assert main(["train", f"lrsearch-results/{study}/best.yaml", "--epochs", "1"]) == 0


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_runs_to_its_answer(
    name: str, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    run_script(name)
    said = capsys.readouterr().out
    for text in SCRIPTS[name]:
        assert text in said


def test_own_family_is_known_to_every_command_through_its_tasks_file(in_tmp: Path) -> None:
    task = f"{EXAMPLES / 'own_family.py'}:task"
    words = ["run", "--task", task, "--schedules", "Halving", "--no-baselines", "--quiet"]

    def own(words: list[str]) -> int:
        """In a process that has not imported the file."""
        FAMILIES.pop("Halving", None)
        sys.modules.pop("lrsearch_task_own_family", None)
        return main(words)

    assert own([*words, "--trials", "3", "--epochs", "4"]) == 0
    best = "lrsearch-results/own_family/best.yaml"
    assert own(["confirm", "own_family", "--top", "1", "--seeds", "2"]) == 0
    assert own(["train", best, "--epochs", "2"]) == 0
    assert own(["report", "own_family"]) == 0
    assert own(["export", "own_family"]) == 0
    assert own(["curves", "Halving"]) == 2
    assert own([*words[:3], "--schedules", "Halvng"]) == 2


def blocks() -> dict[int, tuple[str, str]]:
    """The code blocks of the README from top to bottom: line -> language and content."""
    text = README.read_text()
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return {text[: m.start()].count("\n") + 1: (m.group(1), m.group(2)) for m in found}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the whole README, read from top to bottom, beside what a copy holds."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("examples", "studies"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What a reader's own code has already when a block of the README begins."""
    model = nn.Sequential(nn.Linear(64, 10))
    data = TensorDataset(torch.randn(64, 64), torch.randint(0, 10, (64,)))
    return {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        "loader": DataLoader(data, batch_size=16, shuffle=True),
        "__name__": "readme",
    }


@pytest.fixture(scope="module")
def unread() -> list[int]:
    """Lines of the blocks that have not run yet."""
    return sorted(blocks())


@pytest.mark.parametrize("line", blocks())
def test_readme_block_works(
    line: int,
    unread: list[int],
    place: Path,
    names: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(place)
    while unread and unread[0] <= line:  # those above it come first, whatever is asked for
        run_block(*blocks()[unread.pop(0)], names, request)


def run_block(
    language: str, body: str, names: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """Do what a reader would do with a block."""
    if language == "python":
        if title := re.match(r"# (\w+\.py)\n", body):
            Path(title.group(1)).write_text(body)
        exec(compile(body, str(README), "exec"), names)
    elif language == "yaml":
        Path("study.yaml").write_text(body)
        assert load_config("study.yaml", {}).trials > 0
    else:
        assert language in ("", "console"), f"what is a {language} block?"
        ran = [run_line(line, request) for line in body.replace("\\\n", " ").splitlines()]
        assert any(ran), "a block of commands holds at least one"


def test_output_shown_in_the_readme_is_recorded() -> None:
    recorded = [
        line.strip() for line in (ROOT / "studies/digits/run.txt").read_text().splitlines()
    ]
    (shown,) = [body for language, body in blocks().values() if language == "console"]
    command, *lines = shown.splitlines()
    assert command == f"$ {recorded[0]}"
    assert len(lines) > 5
    for line in lines:
        assert line.strip() in recorded


def run_line(line: str, request: pytest.FixtureRequest) -> bool:
    """Run the commands of a line; False where it shows what a command says."""
    text = line.removeprefix("$ ")
    if not re.match(r"(lrsearch|python|pip) ", text):
        return False
    for command in text.split("#")[0].split("&&"):
        run_command(shlex.split(command), request)
    return True


def run_command(words: list[str], request: pytest.FixtureRequest) -> None:
    """A command of the README: lrsearch, or python with an example."""
    if words[:3] == ["python", "-m", "lrsearch"]:
        words = words[2:]
    if words[0] == "lrsearch":
        run_lrsearch(words[1:], request)
    elif words[0] == "python" and words[1].startswith("examples/"):
        if (name := words[1].removeprefix("examples/")) in NEEDS:
            pytest.importorskip(NEEDS[name])
        run_script(name)
    else:  # .ci/run does these
        known = (["python", "-m", "pip"], ["pip", "install"], ["python", "-m", "pytest"])
        assert any(words[: len(start)] == start for start in known), f"how is {words} run?"


def run_lrsearch(words: list[str], request: pytest.FixtureRequest) -> None:
    command, task = words[0], "digits"
    if "--task" in words:
        task = words[words.index("--task") + 1]
    if "--study-file" in words:
        task = load_config(words[words.index("--study-file") + 1], {}).task
    assert command in COMMANDS
    if command in ELSEWHERE or "postgresql" in " ".join(words):
        return
    if task in DATA:
        words = [w for w in words if w not in ("--data-dir", "DIR")]
        words += ["--data-dir", str(request.getfixturevalue("real_data"))]
        words += ["--train-samples", "300"]
    if command == "run" and "--name" not in words:  # several runs shown of one task are studies
        name = short_task_name(task)
        known = Path("lrsearch-results", name).exists()
        words += ["--name", f"{name}-{abs(hash(tuple(words)))}"] if known else []
    code = main([*words, *SMALLER.get(command, [])])
    assert code == 0 or (command == "doctor" and code == 1), f"lrsearch {shlex.join(words)}"


def test_optional_frameworks_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lightning", "transformers"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
        for known in (name, "pytorch_lightning", f"{name}.pytorch"):
            monkeypatch.setitem(sys.modules, known, None)
        monkeypatch.delitem(sys.modules, f"lrsearch.integrations.{name}", raising=False)
        with pytest.raises(LrsearchError, match=rf"pip install 'lrsearch\[{name}\]'"):
            importlib.import_module(f"lrsearch.integrations.{name}")
