"""`lrsearch doctor`: what works on this machine, and the fix for what does not."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lrsearch.errors import LrsearchError, first_line
from lrsearch.imports import uncollected

DEV = Path("/dev")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
EXTRAS = {
    "postgres": ("psycopg", "PostgreSQL storage"),
    "mysql": ("pymysql", "MySQL storage"),
    "ray": ("ray", "--launcher ray"),
    "png": ("kaleido", "report --png"),
}


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        what: What was looked at.
        ok: True works, False does not, None is not there and not needed.
        found: What was seen.
        fix: What to do, where something can be done.
    """

    what: str
    ok: bool | None
    found: str
    fix: str = ""


def examine(storage: str, data_dir: str | None) -> Iterator[Finding]:
    """Look at everything a search needs, cheapest first."""
    yield _python()
    yield from _packages()
    yield from _devices()
    yield from _data(data_dir)
    yield _storage(storage)
    yield from _extras()
    yield _browser()


def _python() -> Finding:
    found = f"{platform.python_version()} at {sys.executable}"
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Finding("Python", good, found, "" if good else "use Python 3.11, 3.12 or 3.13")


def _packages() -> Iterator[Finding]:
    for name in ("torch", "torchvision", "optuna", "optuna-dashboard", "sqlalchemy", "plotly"):
        try:
            yield Finding(name, True, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, False, "missing", f"python -m pip install {name}")


def _devices() -> Iterator[Finding]:
    """A tiny training step on each device."""
    with uncollected():
        import torch

        from lrsearch.report.words import count
        from lrsearch.training.device import available

    names = available()
    for name in names:
        try:
            weight = torch.ones(4, 4, device=name, requires_grad=True)
            (grad,) = torch.autograd.grad((weight @ weight).sum(), weight)
            total = float(grad.sum())
        except RuntimeError as error:
            why = first_line(error)
            yield Finding(f"device {name}", False, why, "check its driver, or --device cpu")
            continue
        label = torch.cuda.get_device_name(name) if name.startswith("cuda") else platform.machine()
        cores = f", {count(torch.get_num_threads(), 'thread')}" if name == "cpu" else ""
        yield Finding(f"device {name}", total == 128.0, f"{label}{cores}: a step ran")
    if len(names) == 1:
        yield _no_gpu()


def _no_gpu() -> Finding:
    """None, or one that torch does not see, and why."""
    import torch

    if not any([*DEV.glob("nvidia[0-9]*"), *DEV.glob("dxg")]):
        fix = "fine for digits and square; image tasks are slow on a CPU"
        return Finding("GPU", None, "none found", fix)
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden in ("", "-1"):
        return Finding("GPU", None, f"hidden by CUDA_VISIBLE_DEVICES={hidden}", "unset it")
    if torch.version.cuda is None:
        found = f"torch {torch.__version__} is built without CUDA"
        return Finding("GPU", None, found, "install a build that has it: pytorch.org, Get Started")
    found = f"torch finds none that CUDA {torch.version.cuda} can use"
    return Finding("GPU", None, found, "nvidia-smi shows whether its driver works, and is as new")


def _data(data_dir: str | None) -> Iterator[Finding]:
    from lrsearch.tasks import data_folder
    from lrsearch.tasks.datasets import CIFAR, FASHION, located

    root = data_folder(data_dir)
    for task, (name, files) in (("cifar10", CIFAR), ("fashion-mnist", FASHION)):
        folder = located(root, name, files)
        if folder is None:
            fix = f"lrsearch run --task {task} downloads it, or give --data-dir"
            yield Finding(f"data {task}", None, f"no {name}/ in {root}/", fix)
            continue
        missing = [file for file in files if not (folder / file).is_file()]
        lacks = f" lacks {', '.join(missing)}" if missing else ""
        fix = "delete the folder to have it downloaded again" if missing else ""
        yield Finding(f"data {task}", not missing, f"{folder}{lacks}", fix)


def _storage(url: str) -> Finding:
    from sqlalchemy import text

    from lrsearch.storage import open_storage, redact
    from lrsearch.storage.urls import check_storage, parse_storage_url, sqlite_file

    shown = redact(url)
    try:
        file = sqlite_file(parse_storage_url(url))
        if file is not None and not file.exists():
            check_storage(url)
            return Finding("storage", True, f"{shown}: will be made")
        storage = open_storage(url, create=False)
        storage.transact(lambda connection: connection.execute(text("SELECT 1")), read=True)
    except LrsearchError as error:
        of_a_server = "" if url.startswith("sqlite") else "mend the URL or start the server"
        return Finding("storage", False, str(error), of_a_server)  # of a file the error says it
    return Finding("storage", True, f"{shown}: reachable")


def _extras() -> Iterator[Finding]:
    for extra, (module, purpose) in EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        yield Finding(
            f"extra [{extra}]",
            True if there else None,
            f"{purpose}: {'installed' if there else 'not installed'}",
            "" if there else f"python -m pip install 'lrsearch[{extra}]'",
        )


def _browser() -> Finding:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None and importlib.util.find_spec("choreographer") is not None:
        from choreographer.browsers.chromium import Chromium

        found = Chromium.find_browser(skip_local=False)
    return Finding(
        "browser for PNG",
        True if found else None,
        str(found or "none found"),
        "" if found else "install Chrome or Chromium (Debian: apt-get install chromium)",
    )


def print_findings(storage: str, data_dir: str | None) -> bool:
    """Print the examination as it goes; True if nothing needed is broken."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    marks = {True: ("ok  ", "green"), False: ("BAD ", "bold red"), None: ("–   ", "dim")}
    good = True
    for finding in examine(storage, data_dir):
        mark, style = marks[finding.ok]
        line = Text(mark, style=style)
        line.append(f"{finding.what:<20} {finding.found}", style="")
        if finding.fix:
            line.append(f"  → {finding.fix}", style="yellow" if finding.ok is False else "dim")
        console.print(line)
        good = good and finding.ok is not False
    return good
