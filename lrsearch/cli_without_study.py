"""The commands that need no study: schedules, curves, tasks, doctor."""

from __future__ import annotations

import argparse
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
    sub.add_argument("family", metavar="FAMILY", help="scheduler, by its torch class name")
    sub.add_argument(
        "params",
        nargs="*",
        metavar="NAME=VALUE[,VALUE...]",
        help="its arguments; several values draw several lines (milestones=[9,16] is one value)",
    )
    sub.add_argument(
        "--lr",
        default="0.1",
        metavar="LR[,LR...]",
        help="peak learning rate (default: 0.1); several are those of parameter groups",
    )
    sub.add_argument("--epochs", type=whole, default=30, metavar="N", help="budget (default: 30)")
    sub.add_argument(
        "--warmup",
        type=whole,
        default=0,
        metavar="N",
        help="epochs of linear warmup, which starts at a tenth of the rate",
    )
    how = SETTINGS["interval"].help
    sub.add_argument("--interval", choices=("auto", "epoch", "step"), default="auto", help=how)
    sub.add_argument(
        "--log", action=argparse.BooleanOptionalAction, default=False, help="log axis of the lr"
    )
    sub.add_argument(
        "-o",
        "--output",
        type=place,
        metavar="FILE",
        help="where to write: .html, .svg or .png (default: curves-FAMILY.html)",
    )
    import_argument(sub)
    return _curves


def _curves(args: argparse.Namespace) -> int:
    from lrsearch.report.curves import write_curves

    values: dict[str, Any] = {}
    for text in args.params:
        for key, value in pairs([text], "a parameter").items():
            if key in values:
                raise UsageError(f"{key} is given twice; several values draw lines: {key}=A,B")
            several = isinstance(value, list) and text.partition("=")[2][:1] != "["
            values[key] = value if several else [value]
    try:
        rates = [float(text) for text in args.lr.split(",")]
    except ValueError:
        raise UsageError(f"--lr needs a number, or several: 0.01,0.001; got {args.lr!r}") from None
    path = Path(args.output or f"curves-{args.family}.html")
    interval = None if args.interval == "auto" else args.interval
    write_curves(
        args.family,
        values,
        path,
        lr=rates[0] if len(rates) == 1 else rates,
        epochs=args.epochs,
        warmup=args.warmup,
        interval=interval,
        log=args.log,
    )
    out(str(path))
    return 0


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
