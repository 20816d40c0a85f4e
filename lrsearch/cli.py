"""Words on the command line become one call; no logic lives here, nothing heavy is imported."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from lrsearch import __version__
from lrsearch import cli_studies as studies
from lrsearch import cli_training as training
from lrsearch import cli_without_study as without_study
from lrsearch.cli_arguments import Call, aside
from lrsearch.errors import LrsearchError, UsageError, did_you_mean, printable, suggestion
from lrsearch.settings import SETTINGS

COMMANDS: dict[str, tuple[Callable[[argparse.ArgumentParser], Call], str]] = {
    "run": (training.add_run, "search schedules for a task"),
    "report": (studies.add_report, "one HTML page with the answer and everything behind it"),
    "confirm": (
        training.add_confirm,
        "is it really better? fresh seeds, test data, honest statistics",
    ),
    "train": (training.add_train, "train an exported configuration, on its budget or another"),
    "dashboard": (studies.add_dashboard, "every trial in the browser (optuna-dashboard)"),
    "export": (studies.add_export, "the answer as YAML, or as Python code"),
    "show": (studies.add_show, "the state of a study"),
    "studies": (studies.add_studies, "the studies of a database"),
    "delete": (studies.add_delete, "delete a study, with its confirmation"),
    "schedules": (without_study.add_schedules, "list the schedule families and what is searched"),
    "curves": (without_study.add_curves, "draw the learning-rate curve of a schedule"),
    "doctor": (
        without_study.add_doctor,
        "what works on this machine, and the fix for what does not",
    ),
    "tasks": (without_study.add_tasks, "list the built-in tasks and their models"),
}
"""Name -> (adds its arguments and gives what runs it, its line of help)."""


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
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (add, summary) in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        sub.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
        sub.set_defaults(call=add(sub))
        known = [word[2:] for word in sub._option_string_actions if word[:2] == "--"]
        sub.set_defaults(options=known)
    return parser


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
        question = suggestion(words[0], COMMANDS)
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
        from lrsearch.tasks.modules import import_module

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
