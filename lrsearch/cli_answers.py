"""The commands that answer: report, confirm, train, dashboard, export."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from lrsearch.cli_arguments import (
    Call,
    Commands,
    aside,
    import_argument,
    json_argument,
    named_study,
    note,
    out,
    out_json,
    silent,
    storage_argument,
    study_argument,
    whole,
)
from lrsearch.settings import default_storage


def _machine_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps")
    sub.add_argument(
        "--precision", metavar="auto|fp32|bf16|fp16", help="number format of forward and backward"
    )
    sub.add_argument("--data-dir", metavar="DIR", help="folder of the data sets")


# report


def _add_report(sub: argparse.ArgumentParser) -> Call:
    study_argument(sub)
    storage_argument(sub)
    sub.add_argument(
        "-o",
        "--output",
        metavar="FILE.html",
        help="where to write (default: lrsearch-results/STUDY/report.html)",
    )
    sub.add_argument("--png", metavar="DIR", help="also write the figures as PNG (needs kaleido)")
    sub.add_argument("--csv", metavar="DIR", help="also write the tables as CSV")
    sub.add_argument(
        "--record",
        metavar="FILE.json",
        help="only write a record instead: raw values, comparisons, versions; and FILE.svg",
    )
    sub.add_argument(
        "--overview",
        metavar="FILE.svg",
        help="only draw every schedule that was tried, and its loss; as SVG or PNG",
    )
    return _report


def _report(args: argparse.Namespace) -> int:
    from lrsearch.attributes import CONFIRM_ATTR
    from lrsearch.report.page import write_report
    from lrsearch.search.study import folder_of

    study, storage = named_study(args)
    if CONFIRM_ATTR in study.user_attrs:  # a confirmation is a part of its search's report
        args.study = study.user_attrs[CONFIRM_ATTR]["of"]
        study, storage = named_study(args)
    if args.record:
        from lrsearch.report.record import write_record

        out("\n".join(str(file) for file in write_record(study, storage, Path(args.record))))
        return 0
    if args.overview:
        from lrsearch.report.pictures import write_overview

        out(str(write_overview(study, storage, Path(args.overview))))
        return 0
    path = Path(args.output) if args.output else folder_of(study) / "report.html"
    written = write_report(
        study,
        storage,
        path,
        png=Path(args.png) if args.png else None,
        csv=Path(args.csv) if args.csv else None,
    )
    for file in written:
        out(str(file))
    return 0


# confirm


def _add_confirm(sub: argparse.ArgumentParser) -> Call:
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
    from lrsearch.confirm import OF_THE_MACHINE, confirm
    from lrsearch.export import best_trial
    from lrsearch.report.command import data_option, import_options
    from lrsearch.report.confirmed_words import print_confirmed
    from lrsearch.report.terminal import print_next, to_stdout
    from lrsearch.search.interrupt import Interrupted
    from lrsearch.search.outcome import file_to_train
    from lrsearch.search.study import stored_config
    from lrsearch.storage.urls import option

    study, storage = named_study(args)
    try:
        with aside(args):
            found = confirm(
                study,
                storage,
                top=args.top,
                seeds=args.seeds,
                overrides={key: getattr(args, key) for key in OF_THE_MACHINE},
                note=silent if args.quiet or args.json else note,
            )
    except Interrupted as stop:
        note("lrsearch: stopped; what is finished is kept. Go on with the same command")
        return stop.exit_code
    if args.json:
        out_json(found.to_dict())
        return 0
    console = to_stdout()
    print_confirmed(found, console)
    out(f"\nFiles   {found.file}")
    name = shlex.quote(study.study_name)
    where = option(args.storage, default_storage())
    data = data_option(args.data_dir or stored_config(study).get("data_dir"))
    assert found.file is not None
    file, why = found.file, "what came lowest on these seeds"
    if (best := file_to_train(study, storage, file.parent, found)) != file and best.exists():
        file, why = best, "the winner held" if found.decided else "until more seeds decide"
        if not found.is_of(best_trial(study).number):  # --top 0: it is none of the arms
            why = "the answer of the search"
    train = f"train {shlex.quote(str(file))}{data}{import_options(args.imports)}"
    steps = ((f"report {name}{where}", "everything on one page"), (train, why))
    print_next(console, steps)
    return 0


# train


def _add_train(sub: argparse.ArgumentParser) -> Call:
    sub.add_argument("file", metavar="FILE.yaml", help="what lrsearch run or export wrote")
    sub.add_argument(
        "--epochs", type=whole, metavar="N", help="another budget; the curve is stretched to it"
    )
    sub.add_argument("--seed", type=whole, metavar="N", help="another seed (default: the study's)")
    sub.add_argument("-o", "--output", metavar="DIR", help="where to write (default: beside FILE)")
    _machine_arguments(sub)
    import_argument(sub)
    sub.add_argument("--quiet", action="store_true", help="show the end only")
    json_argument(sub)
    return _train


def _train(args: argparse.Namespace) -> int:
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
            note=silent if args.quiet or args.json else note,
        )
    if args.json:
        out_json(result.to_dict())
    else:
        out("\n".join(lines(result)))
    return 0


# dashboard


def _add_dashboard(sub: argparse.ArgumentParser) -> Call:
    sub.add_argument("study", metavar="STUDY", nargs="?", help="the one to open (default: all)")
    storage_argument(sub)
    sub.add_argument(
        "--port", type=_port, default=8080, metavar="N", help="on 127.0.0.1 (default: %(default)s)"
    )
    return _dashboard


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"needs a number from 1 to 65,535, got {text!r}")
    return int(text)


def _dashboard(args: argparse.Namespace) -> int:
    from lrsearch.dashboard import open_dashboard
    from lrsearch.storage import open_storage

    if args.study is not None:
        named_study(args)
    storage = open_storage(args.storage, create=False)
    note("reading studies ...")
    dashboard = open_dashboard(storage, args.study, args.port)
    out(f"{dashboard.url}   (Ctrl-C ends it)")
    sys.stdout.flush()
    dashboard.run()
    return 0


# export


def _add_export(sub: argparse.ArgumentParser) -> Call:
    study_argument(sub)
    storage_argument(sub)
    sub.add_argument("-o", "--output", metavar="FILE", help="write to FILE (default: stdout)")
    sub.add_argument("--trial", type=whole, metavar="N", help="export this trial, not the answer")
    sub.add_argument("--python", action="store_true", help="plain torch code instead of YAML")
    import_argument(sub)
    return _export


def _export(args: argparse.Namespace) -> int:
    study, storage = named_study(args)
    from lrsearch.export import answer_note, export_text
    from lrsearch.files import write_text

    name = Path(args.output).name if args.output else None
    text = export_text(study, trial=args.trial, python=args.python, name=name)
    if args.output:
        write_text(Path(args.output), text)
        out(args.output)
    else:
        sys.stdout.write(text)
    if args.trial is None and (line := answer_note(study, storage)):
        note(f"lrsearch: {line.replace('`', '')}")
    return 0


COMMANDS: Commands = {
    "report": (_add_report, "one HTML page with the answer and everything behind it"),
    "confirm": (_add_confirm, "is it really better? fresh seeds, test data, honest statistics"),
    "train": (_add_train, "train an exported configuration, on its budget or another"),
    "dashboard": (_add_dashboard, "every trial in the browser (optuna-dashboard)"),
    "export": (_add_export, "the answer as YAML, or as Python code"),
}
