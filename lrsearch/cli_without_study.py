"""The commands that need no study: schedules, curves, tasks, doctor."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lrsearch.cli_arguments import (
    Call,
    import_argument,
    out,
    pairs,
    place,
    storage_argument,
    whole,
)
from lrsearch.errors import UsageError
from lrsearch.imports import uncollected
from lrsearch.settings import SETTINGS


def add_schedules(sub: argparse.ArgumentParser) -> Call:
    sub.add_argument("--epochs", type=whole, default=30, metavar="N", help="budget (default: 30)")
    import_argument(sub)
    return _schedules


def _schedules(args: argparse.Namespace) -> int:
    from lrsearch.report.terminal import print_schedules

    print_schedules(args.epochs)
    return 0


def add_curves(sub: argparse.ArgumentParser) -> Call:
    sub.add_argument(
        "what",
        metavar="FAMILY|FILE.yaml",
        help="scheduler, by its torch class name; or what lrsearch run or export wrote",
    )
    sub.add_argument(
        "more",
        nargs="*",
        metavar="NAME=VALUE[,VALUE...]|FILE.yaml",
        help="its arguments; several values draw several lines (milestones=[9,16] is one value); "
        "or more files",
    )
    sub.add_argument(
        "--lr",
        metavar="LR[,LR...]",
        help="peak learning rate (default: 0.1); several are those of parameter groups",
    )
    sub.add_argument("--epochs", type=whole, metavar="N", help="budget (default: 30)")
    sub.add_argument(
        "--warmup",
        type=whole,
        metavar="N",
        help="epochs of linear warmup, which starts at a tenth of the rate (default: 0)",
    )
    how = SETTINGS["interval"].help
    sub.add_argument("--interval", choices=("auto", "epoch", "step"), help=how)
    sub.add_argument(
        "--log", action=argparse.BooleanOptionalAction, default=False, help="log axis of the lr"
    )
    sub.add_argument(
        "-o",
        "--output",
        type=place,
        metavar="FILE",
        help="where to write: .html, .svg or .png (default: curves-, the family or files, .html)",
    )
    import_argument(sub)
    return _curves


def _curves(args: argparse.Namespace) -> int:
    from lrsearch.report.curves import curve_lines, curves_title, saved_lines, write_curves

    if _is_file(args.what):
        files, title = _files(args), ""
        with uncollected():  # the first curve imports torch
            lines = saved_lines(files)
        name = _joined(files)
    else:
        values, lr, warmup = _values(args.more), _rates(args.lr or "0.1"), args.warmup or 0
        epochs = 30 if args.epochs is None else args.epochs
        with uncollected():
            lines = curve_lines(args.what, values, lr, epochs, warmup, args.interval or "auto")
        title, name = curves_title(args.what, values, lr, warmup), args.what
    path = Path(args.output or f"curves-{name}.html")
    write_curves(lines, path, title=title, log=args.log)
    out(str(path))
    return 0


def _is_file(text: str) -> bool:
    return Path(text).suffix.lower() in (".yaml", ".yml")


def _files(args: argparse.Namespace) -> list[Path]:
    """The files to draw; a file says all of its schedule."""
    for text in args.more:
        if not _is_file(text):
            raise UsageError(f"curves {args.what} takes more files FILE.yaml, got {text!r}")
    for option in ("lr", "epochs", "warmup", "interval"):
        if getattr(args, option) is not None:
            raise UsageError(f"curves {args.what}: the file says its --{option}; leave that out")
    return [Path(text) for text in (args.what, *args.more)]


def _joined(files: Sequence[Path]) -> str:
    """Their names as one; those of one name are told apart by their folders."""
    stems = [file.stem for file in files]
    folders = [file.parent.name if stems.count(file.stem) > 1 else "" for file in files]
    return "-".join(filter(None, itertools.chain(*zip(folders, stems, strict=True))))


def _values(texts: Sequence[str]) -> dict[str, Any]:
    """The values of each argument: several draw several lines."""
    values: dict[str, Any] = {}
    for text in texts:
        for key, value in pairs([text], "a parameter").items():
            if key in values:
                raise UsageError(f"{key} is given twice; several values draw lines: {key}=A,B")
            several = isinstance(value, list) and text.partition("=")[2][:1] != "["
            values[key] = value if several else [value]
    return values


def _rates(text: str) -> float | list[float]:
    try:
        rates = [float(each) for each in text.split(",")]
    except ValueError:
        raise UsageError(f"--lr needs a number, or several: 0.01,0.001; got {text!r}") from None
    return rates[0] if len(rates) == 1 else rates


def add_tasks(sub: argparse.ArgumentParser) -> Call:
    return _tasks


def _tasks(args: argparse.Namespace) -> int:
    from lrsearch.report.terminal import print_tasks

    print_tasks()
    return 0


def add_doctor(sub: argparse.ArgumentParser) -> Call:
    storage_argument(sub)
    sub.add_argument("--data-dir", type=place, metavar="DIR", help="folder of the data sets")
    return _doctor


def _doctor(args: argparse.Namespace) -> int:
    from lrsearch.doctor import print_findings

    return 0 if print_findings(args.storage, args.data_dir) else 1
