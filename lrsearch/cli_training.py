"""The commands that train: run, confirm, train."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from lrsearch.cli_arguments import (
    Call,
    aside,
    import_argument,
    json_argument,
    named_study,
    note,
    note_unless_quiet,
    out,
    out_json,
    pairs,
    place,
    storage_argument,
    study_argument,
    whole,
)
from lrsearch.errors import LrsearchError, UsageError
from lrsearch.imports import uncollected
from lrsearch.program import has_told_all, is_ours
from lrsearch.settings import SETTINGS

if TYPE_CHECKING:
    from lrsearch.config import StudyConfig
    from lrsearch.search.forked import Forked
    from lrsearch.search.outcome import Outcome

STOPPED = "lrsearch: stopped; what is finished is kept. Go on with the same command"
GROUPS = {
    "what is trained": ("task", "model", "data_dir", "train_samples", "batch_size", "optimizer"),
    "what is searched": ("schedules", "lr", "epochs", "warmup", "interval", "baselines"),
    "how": ("trials", "sampler", "pruner", "seed", "timeout", "robust", "confirm"),
    "where": (
        "name", "storage", "out", "log", "device", "precision",
        "fuse", "workers", "launcher", "gpus_per_worker", "compile",
    ),
}  # fmt: skip


def _machine_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps")
    sub.add_argument(
        "--precision", metavar="auto|fp32|bf16|fp16", help="number format of forward and backward"
    )
    sub.add_argument("--data-dir", type=place, metavar="DIR", help="folder of the data sets")


# run


def add_run(sub: argparse.ArgumentParser) -> Call:
    sub.add_argument(
        "--study-file",
        type=place,
        metavar="FILE.yaml",
        help="read settings from this file; flags given beside it win",
    )
    for title, keys in GROUPS.items():
        group = sub.add_argument_group(title)
        for key in keys:
            setting = SETTINGS[key]
            how: dict[str, Any] = {"metavar": setting.metavar}
            if setting.metavar == "BOOL":  # --warmup, --no-warmup
                how = {"action": argparse.BooleanOptionalAction}
            group.add_argument(
                f"--{key.replace('_', '-')}",
                dest=key,
                default=argparse.SUPPRESS,
                help=setting.help,
                **how,
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
    _as_a_worker()
    with uncollected():
        from lrsearch.search.forked import spares
        from lrsearch.search.interrupt import Interrupted
        from lrsearch.search.run import run

    try:
        with spares(config) as ready:
            with aside(args):
                outcome = run(config, quiet=args.quiet or args.json, spares=ready)
            outcome = _confirmed(outcome, config, args, ready)
    except (Interrupted, KeyboardInterrupt) as stop:
        return _stopped(stop.exit_code if isinstance(stop, Interrupted) else 130)
    _tell(outcome, args)
    return 0


def _as_a_worker() -> None:
    """One thread, which libraries read once: copies of this process may be workers."""
    if is_ours():
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def _confirmed(
    outcome: Outcome, config: StudyConfig, args: argparse.Namespace, ready: list[Forked]
) -> Outcome:
    """The run with what fresh seeds say of it; if that fails, its end is still told."""
    from lrsearch.confirm import after_run

    try:
        with aside(args):
            return after_run(outcome, config, note=note_unless_quiet(args), spares=ready)
    except LrsearchError:
        _tell(outcome, args)
        raise


def _tell(outcome: Outcome, args: argparse.Namespace) -> None:
    """The end of a run."""
    from lrsearch.search.ending import print_outcome
    from lrsearch.search.outcome import outcome_dict

    if args.json:
        out_json(outcome_dict(outcome))
    else:
        print_outcome(outcome, args.imports)


def _stopped(code: int) -> int:
    """Say that a run was stopped; returns its exit code."""
    note(STOPPED)
    has_told_all()
    return code


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


# confirm


def add_confirm(sub: argparse.ArgumentParser) -> Call:
    study_argument(sub)
    storage_argument(sub)
    sub.add_argument(
        "--top",
        type=whole,
        default=3,
        metavar="N",
        help="how many of the best distinct schedules, beside the baselines (default: 3; 0: none)",
    )
    sub.add_argument(
        "--seeds", type=whole, default=5, metavar="N", help="fresh seeds for each (default: 5)"
    )
    _machine_arguments(sub)
    import_argument(sub)
    sub.add_argument("--fuse", metavar="auto|off|K", help="train K at a time as one stacked model")
    sub.add_argument("--workers", metavar="auto|N", help="processes that train")
    sub.add_argument("--quiet", action="store_true", help="show the end only")
    json_argument(sub)
    return _confirm


def _confirm(args: argparse.Namespace) -> int:
    from lrsearch.config import load

    _as_a_worker()
    with uncollected():
        from lrsearch.confirm import OF_THE_MACHINE, confirm
        from lrsearch.search.ending import print_confirmation
        from lrsearch.search.forked import spares
        from lrsearch.search.interrupt import Interrupted

    here = {key: getattr(args, key) for key in OF_THE_MACHINE}
    with spares(load(None, here)) as ready:
        study, storage = named_study(args)
        try:
            with aside(args):
                found = confirm(
                    study,
                    storage,
                    top=args.top,
                    seeds=args.seeds,
                    overrides=here,
                    note=note_unless_quiet(args),
                    spares=ready,
                )
        except Interrupted as stop:
            return _stopped(stop.exit_code)
    if args.json:
        out_json(found.to_dict())
    else:
        print_confirmation(
            found,
            study,
            storage=args.storage,
            data_dir=args.data_dir,
            imports=args.imports,
        )
    return 0


# train


def add_train(sub: argparse.ArgumentParser) -> Call:
    sub.add_argument(
        "file", type=place, metavar="FILE.yaml", help="what lrsearch run or export wrote"
    )
    sub.add_argument(
        "--epochs", type=whole, metavar="N", help="another budget; the curve is stretched to it"
    )
    sub.add_argument("--seed", type=whole, metavar="N", help="another seed (default: the study's)")
    sub.add_argument(
        "-o", "--output", type=place, metavar="DIR", help="where to write (default: beside FILE)"
    )
    _machine_arguments(sub)
    import_argument(sub)
    sub.add_argument("--quiet", action="store_true", help="show the end only")
    json_argument(sub)
    return _train


def _train(args: argparse.Namespace) -> int:
    with uncollected():
        from lrsearch.train import lines, train

    with aside(args):
        result = train(
            args.file,
            epochs=args.epochs,
            seed=args.seed,
            out=args.output,
            device=args.device or "auto",
            precision=args.precision or "auto",
            data_dir=args.data_dir,
            note=note_unless_quiet(args),
        )
    if args.json:
        out_json(result.to_dict())
    else:
        out("\n".join(lines(result)))
    return 0
