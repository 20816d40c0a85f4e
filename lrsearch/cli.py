"""Words on the command line become one call; no logic lives here, nothing heavy is imported."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lrsearch import __version__
from lrsearch.cli_answers import COMMANDS as ANSWERS
from lrsearch.cli_answers import import_argument
from lrsearch.ending import is_ours
from lrsearch.errors import LrsearchError, UsageError, did_you_mean, printable
from lrsearch.imports import uncollected
from lrsearch.settings import SETTINGS

FLAGS = ("warmup", "baselines", "compile")
GROUPS = {
    "what is trained": ("task", "model", "data_dir", "train_samples", "batch_size", "optimizer"),
    "what is searched": ("schedules", "lr", "epochs", "warmup", "interval", "baselines"),
    "how": ("trials", "sampler", "pruner", "seed", "timeout"),
    "where": (
        "name",
        "storage",
        "out",
        "log",
        "device",
        "precision",
        "fuse",
        "workers",
        "launcher",
        "gpus_per_worker",
        "compile",
    ),
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving."""
        raise UsageError(f"{message} ({self.prog} --help)")


def build_parser() -> Parser:
    """The whole command line."""
    parser = Parser(
        prog="lrsearch",
        description="Which learning-rate schedule, with which parameters, for this model?",
        epilog="lrsearch COMMAND --help tells more. Start with: lrsearch run",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"lrsearch {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, (add, summary) in COMMANDS.items():
        sub = commands.add_parser(
            name, help=summary, description=summary, allow_abbrev=False, add_help=True
        )
        sub.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
        sub.set_defaults(call=add(sub))
    return parser


Call = Callable[[argparse.Namespace], int]


def _out(text: str = "") -> None:
    sys.stdout.write(text + "\n")


def _storage_argument(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--storage",
        metavar="URL",
        default="sqlite:///lrsearch.db",
        help="database URL (default: %(default)s)",
    )


# run


def _add_run(sub: argparse.ArgumentParser) -> Call:
    sub.add_argument("--study-file", metavar="FILE.yaml", help="read any of the settings below")
    for title, keys in GROUPS.items():
        group = sub.add_argument_group(title)
        for key in keys:
            setting = SETTINGS[key]
            flag = f"--{key.replace('_', '-')}"
            if key in FLAGS:
                group.add_argument(
                    flag,
                    dest=key,
                    action=argparse.BooleanOptionalAction,
                    default=argparse.SUPPRESS,
                    help=setting.help,
                )
            else:
                group.add_argument(
                    flag,
                    dest=key,
                    metavar=setting.metavar,
                    default=argparse.SUPPRESS,
                    help=setting.help,
                )
            if key == "optimizer":
                group.add_argument(
                    "--optimizer-arg",
                    metavar="KEY=VALUE",
                    action="append",
                    default=[],
                    help="an argument of the optimizer, such as momentum=0.95; may be repeated",
                )
    import_argument(sub)
    shown = sub.add_mutually_exclusive_group()
    shown.add_argument("--quiet", action="store_true", help="show the end only")
    shown.add_argument("--json", action="store_true", help="one JSON object on stdout at the end")
    return _run


def _run(args: argparse.Namespace) -> int:
    from lrsearch.config import load

    config = load(args.study_file, _settings(args))
    if is_ours():
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker's; libraries read it once
    with uncollected():
        from lrsearch.search.closing import closing, summary
        from lrsearch.search.forked import spares
        from lrsearch.search.interrupt import Interrupted
        from lrsearch.search.run import run

    try:
        with spares(config) as ready:
            outcome = run(config, quiet=args.quiet or args.json, spares=ready)
    except Interrupted as stop:
        sys.stderr.write(
            "lrsearch: stopped; what is finished is kept. Go on with the same command\n"
        )
        return stop.exit_code
    if args.json:
        _out(json.dumps(summary(outcome)))
    else:
        closing(outcome)
    return 0


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given on the command line."""
    given = {key: value for key, value in vars(args).items() if key in SETTINGS}
    arguments = _pairs(args.optimizer_arg, "--optimizer-arg")
    if arguments:
        name = given.get("optimizer")
        given["optimizer"] = {**({"name": name} if name else {}), **arguments}
    return given


def _pairs(texts: Sequence[str], what: str) -> dict[str, Any]:
    """``KEY=VALUE`` texts with YAML values; a comma makes a list."""
    import yaml

    from lrsearch.yamlfile import BROKEN

    pairs: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if "," in value and value[:1] != "[":
            value = f"[{value}]"
        if not equals or not key.isidentifier():
            raise UsageError(f"{what} needs KEY=VALUE, got {text!r}")
        try:
            pairs[key] = yaml.safe_load(value)
        except BROKEN:
            raise UsageError(f"{what} {key}: {value!r} is no plain value") from None
    return pairs


# schedules, curves, tasks


def _add_schedules(sub: argparse.ArgumentParser) -> Call:
    sub.add_argument("--epochs", type=int, default=30, metavar="N", help="budget (default: 30)")
    import_argument(sub)
    return _schedules


def _schedules(args: argparse.Namespace) -> int:
    from lrsearch.report.terminal import print_schedules

    print_schedules(args.epochs)
    return 0


def _add_curves(sub: argparse.ArgumentParser) -> Call:
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
    sub.add_argument("--epochs", type=int, default=30, metavar="N", help="budget (default: 30)")
    sub.add_argument("--warmup", type=int, default=0, metavar="N", help="epochs of linear warmup")
    sub.add_argument("--interval", choices=("auto", "epoch", "step"), default="auto")
    sub.add_argument(
        "--log", action=argparse.BooleanOptionalAction, default=False, help="log axis of the lr"
    )
    sub.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="where to write: .html, .svg or .png (default: curves-FAMILY.html)",
    )
    import_argument(sub)
    return _curves


def _curves(args: argparse.Namespace) -> int:
    from lrsearch.report.curves import write_curves

    values = {
        key: value if isinstance(value, list) and text.partition("=")[2][:1] != "[" else [value]
        for text in args.params
        for key, value in _pairs([text], "a parameter").items()
    }
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
    _out(str(path))
    return 0


def _add_tasks(sub: argparse.ArgumentParser) -> Call:
    return _tasks


def _tasks(args: argparse.Namespace) -> int:
    from lrsearch.report.terminal import print_tasks

    print_tasks()
    return 0


# export


def _add_export(sub: argparse.ArgumentParser) -> Call:
    sub.add_argument("study", metavar="STUDY")
    _storage_argument(sub)
    sub.add_argument("-o", "--output", metavar="FILE", help="write to FILE (default: stdout)")
    sub.add_argument("--trial", type=int, metavar="N", help="this trial instead of the best")
    sub.add_argument("--python", action="store_true", help="plain torch code instead of YAML")
    import_argument(sub)
    return _export


def _export(args: argparse.Namespace) -> int:
    from lrsearch.export import export_text
    from lrsearch.files import write_text
    from lrsearch.search.study import load_study
    from lrsearch.storage import open_storage, redact

    storage = open_storage(args.storage, create=False)
    study = load_study(storage, args.study, redact(args.storage))
    text = export_text(study, trial=args.trial, python=args.python)
    if args.output:
        write_text(Path(args.output), text)
        _out(args.output)
    else:
        sys.stdout.write(text)
    return 0


def _add_doctor(sub: argparse.ArgumentParser) -> Call:
    _storage_argument(sub)
    sub.add_argument("--data-dir", metavar="DIR", help="where data sets lie")
    return _doctor


def _doctor(args: argparse.Namespace) -> int:
    from lrsearch.doctor import print_findings

    return 0 if print_findings(args.storage, args.data_dir) else 1


COMMANDS: dict[str, tuple[Callable[[argparse.ArgumentParser], Call], str]] = {
    "run": (_add_run, "search schedules for a task"),
    **ANSWERS,
    "export": (_add_export, "the best configuration as YAML, or as Python code"),
    "schedules": (_add_schedules, "list the schedule families and what is searched"),
    "curves": (_add_curves, "draw the learning-rate curve of a schedule"),
    "doctor": (_add_doctor, "what works on this machine, and the fix for what does not"),
    "tasks": (_add_tasks, "list the built-in tasks and their models"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0 done, 1 something failed, 2 the input is wrong, 130 Ctrl-C, 143 SIGTERM.
    """
    arguments = [_utf8(word) for word in (sys.argv[1:] if argv is None else argv)]
    debug = "--debug" in arguments
    try:
        return _main(arguments)
    except LrsearchError as error:
        if debug:
            raise
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _complain("stopped")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # such as a full disk: the machine's, not ours
        if debug:
            raise
        _complain(f"the system refused: {error}; mend that, then run the same command again")
        return 1
    except Exception as error:  # the last door: one line for whatever is our bug
        if debug:
            raise
        _complain(
            f"internal error, please report it: {type(error).__name__}: {error} "
            "(--debug shows the traceback)"
        )
        return 1


def _utf8(word: str) -> str:
    """A word that was typed; where the locale knows no UTF-8, Python has it as lone bytes."""
    if word.isascii():
        return word
    return word.encode(errors="surrogateescape").decode(errors="replace")


def _main(arguments: list[str]) -> int:
    parser = build_parser()
    words = [word for word in arguments if not word.startswith("-")]
    if words and words[0] not in COMMANDS and arguments[0] in (words[0], "--debug"):
        near = did_you_mean(words[0], COMMANDS)
        question = f" — did you mean {near}?" if near else ""
        raise UsageError(
            f"unknown command {words[0]!r}{question} (commands: {', '.join(COMMANDS)})"
        )
    args = parser.parse_args(arguments)
    if args.command is None:
        parser.print_help()
        return 0
    for place in getattr(args, "imports", []):
        from lrsearch.tasks.custom import import_module

        import_module(place, "--import")
    code: int = args.call(args)
    return code


def _complain(text: str) -> None:
    """One message on stderr, its further lines indented under the first."""
    first, *rest = printable(text).splitlines() or [""]
    sys.stderr.write("\n".join([f"lrsearch: {first}", *(" " * 10 + line for line in rest)]) + "\n")
