"""Words on the command line become one call; no logic lives here, nothing heavy is imported."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from lrsearch import __version__
from lrsearch.cli_answers import COMMANDS as ANSWERS
from lrsearch.cli_arguments import (
    Call,
    Commands,
    aside,
    import_argument,
    note,
    out_json,
    pairs,
    silent,
)
from lrsearch.cli_lists import COMMANDS as LISTS
from lrsearch.cli_studies import COMMANDS as STUDIES
from lrsearch.errors import LrsearchError, UsageError, did_you_mean, printable
from lrsearch.imports import uncollected
from lrsearch.program import is_ours
from lrsearch.settings import SETTINGS

if TYPE_CHECKING:
    from lrsearch.config import StudyConfig
    from lrsearch.report.confirmed import Confirmed
    from lrsearch.search.outcome import Outcome

FLAGS = ("warmup", "baselines", "robust", "compile")
GROUPS = {
    "what is trained": ("task", "model", "data_dir", "train_samples", "batch_size", "optimizer"),
    "what is searched": ("schedules", "lr", "epochs", "warmup", "interval", "baselines"),
    "how": ("trials", "sampler", "pruner", "seed", "timeout", "robust", "confirm"),
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
    parser.add_argument("-V", "--version", action="version", version=f"lrsearch {__version__}")
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
        known = [word[2:] for word in sub._option_string_actions if word[:2] == "--"]
        sub.set_defaults(options=known)
    return parser


# run


def _add_run(sub: argparse.ArgumentParser) -> Call:
    sub.add_argument(
        "--study-file",
        metavar="FILE.yaml",
        help="read settings from this file; flags given beside it win",
    )
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
        from lrsearch.search.forked import spares
        from lrsearch.search.interrupt import Interrupted
        from lrsearch.search.run import run

    try:
        with spares(config) as ready, aside(args):
            outcome = run(config, quiet=args.quiet or args.json, spares=ready)
        found = _confirmed(outcome, config, args)
    except (Interrupted, KeyboardInterrupt) as stop:
        note("lrsearch: stopped; what is finished is kept. Go on with the same command")
        return stop.exit_code if isinstance(stop, Interrupted) else 130
    _tell(outcome, found, args)
    return 0


def _confirmed(
    outcome: Outcome, config: StudyConfig, args: argparse.Namespace
) -> Confirmed | None:
    """What the run has found, on fresh seeds; if that fails, the end of the run is still told."""
    from lrsearch.confirm import after_run, known

    try:
        with aside(args):
            if not config.confirm:
                return known(outcome)
            return after_run(outcome, config, note=silent if args.quiet or args.json else note)
    except LrsearchError:
        _tell(outcome, None, args)
        raise


def _tell(outcome: Outcome, found: Confirmed | None, args: argparse.Namespace) -> None:
    """The end of a run."""
    from lrsearch.search.outcome import outcome_dict, print_outcome

    if args.json:
        out_json(outcome_dict(outcome, found))
    else:
        print_outcome(outcome, found, imports=args.imports)


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given on the command line."""
    given = {key: value for key, value in vars(args).items() if key in SETTINGS}
    arguments = pairs(args.optimizer_arg, "--optimizer-arg")
    if "name" in arguments:
        raise UsageError("--optimizer-arg name: the optimizer's name goes to --optimizer")
    if arguments:
        name = given.get("optimizer")
        given["optimizer"] = {**({"name": name} if name else {}), **arguments}
    return given


COMMANDS: Commands = {
    "run": (_add_run, "search schedules for a task"),
    **ANSWERS,
    **STUDIES,
    **LISTS,
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
        if isinstance(error, ImportError | MemoryError) or str(error) == "std::bad_alloc":
            why = " ".join(str(error).split()) or "out of memory"  # mostly so, as torch is loaded
            _complain(
                f"the system refused: {why}; give it more memory (ulimit -v), or mend the "
                "installation (lrsearch doctor)"
            )
            return 1
        kind = type(error).__name__
        if kind in ("OutOfMemoryError", "AcceleratorError"):  # torch's, which is not imported here
            first = f"{kind}: {error}".splitlines()[0]
            _complain(
                f"the device failed: {first}; what is finished is kept: mend the cause, or give "
                "another --device, then run the same command again"
            )
            return 1
        _complain(
            f"internal error, please report it: {kind}: {error} (--debug shows the traceback)"
        )
        return 1


def _utf8(word: str) -> str:
    """A word that was typed; where the locale knows no UTF-8, Python has it as lone bytes."""
    try:
        return word.encode(errors="surrogateescape").decode()
    except UnicodeError:  # bytes that are no text
        return word


def _main(arguments: list[str]) -> int:
    parser = build_parser()
    words = [word for word in arguments if not word.startswith("-")]
    if words and words[0] not in COMMANDS and arguments[0] in (words[0], "--debug"):
        near = did_you_mean(words[0], COMMANDS)
        question = f" — did you mean {near}?" if near else ""
        raise UsageError(
            f"unknown command {words[0]!r}{question} (commands: {', '.join(COMMANDS)})"
        )
    if arguments and arguments[0].partition("=")[0][2:].replace("-", "_") in SETTINGS:
        raise UsageError(f"{arguments[0]} goes behind a command: lrsearch run {arguments[0]} ...")
    args, strange = parser.parse_known_args(arguments)
    if strange:
        raise _unrecognized(strange, parser.prog, args)
    if args.command is None:
        parser.print_help()
        return 0
    for place in getattr(args, "imports", []):
        from lrsearch.tasks.custom import import_module

        with aside(args):
            import_module(place, "--import")
    code: int = args.call(args)
    return code


def _unrecognized(strange: list[str], prog: str, args: argparse.Namespace) -> UsageError:
    """The error for words that a command does not know; names the nearest option."""
    word = strange[0].partition("=")[0].removeprefix("--")
    near = did_you_mean(word, getattr(args, "options", ())) if strange[0][:2] == "--" else None
    question = f" — did you mean --{near}?" if near else ""
    command = f"{prog} {args.command}" if args.command else prog
    return UsageError(f"unrecognized arguments: {' '.join(strange)}{question} ({command} --help)")


def _complain(text: str) -> None:
    """One message on stderr, its further lines indented under the first."""
    first, *rest = printable(text).splitlines() or [""]
    sys.stderr.write("\n".join([f"lrsearch: {first}", *(" " * 10 + line for line in rest)]) + "\n")
