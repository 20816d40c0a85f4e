"""The commands that show, write or delete what a study has: none trains anything."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lrsearch.cli_arguments import (
    Call,
    import_argument,
    json_argument,
    named_study,
    note,
    out,
    out_json,
    place,
    storage_argument,
    study_argument,
    whole,
)
from lrsearch.errors import UsageError, printable
from lrsearch.imports import uncollected

# report


def add_report(sub: argparse.ArgumentParser) -> Call:
    study_argument(sub)
    storage_argument(sub)
    sub.add_argument(
        "-o",
        "--output",
        type=place,
        metavar="FILE.html",
        help="where to write (default: lrsearch-results/STUDY/report.html)",
    )
    sub.add_argument(
        "--png", type=place, metavar="DIR", help="also write the figures as PNG (needs kaleido)"
    )
    sub.add_argument("--csv", type=place, metavar="DIR", help="also write the tables as CSV")
    sub.add_argument(
        "--record",
        type=place,
        metavar="FILE.json",
        help="only write a record instead: raw values, comparisons, versions; and FILE.svg",
    )
    sub.add_argument(
        "--overview",
        type=place,
        metavar="FILE.svg",
        help="only draw every schedule that was tried, and its loss; as SVG or PNG",
    )
    return _report


def _report(args: argparse.Namespace) -> int:
    with uncollected():
        from lrsearch.attributes import CONFIRM_ATTR
        from lrsearch.report.page import write_report
        from lrsearch.search.study import folder_of, load_study

    study, storage = named_study(args)
    if CONFIRM_ATTR in study.user_attrs:  # a confirmation is a part of its search's report
        study = load_study(storage, study.user_attrs[CONFIRM_ATTR]["of"])
    if args.record:
        from lrsearch.report.record import write_record

        written = write_record(study, Path(args.record))
    elif args.overview:
        from lrsearch.report.pictures import write_overview

        written = [write_overview(study, Path(args.overview))]
    else:
        written = write_report(
            study,
            Path(args.output) if args.output else folder_of(study) / "report.html",
            png=Path(args.png) if args.png else None,
            csv=Path(args.csv) if args.csv else None,
        )
    for file in written:
        out(str(file))
    return 0


# dashboard


def add_dashboard(sub: argparse.ArgumentParser) -> Call:
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
    with uncollected():
        from lrsearch.dashboard import open_dashboard
        from lrsearch.storage import open_storage

    if args.study is None:
        storage = open_storage(args.storage, create=False)
    else:
        _, storage = named_study(args)
    note("reading studies ...")
    dashboard = open_dashboard(storage, args.study, args.port)
    out(f"{dashboard.url}   (Ctrl-C ends it)")
    sys.stdout.flush()
    dashboard.run()
    return 0


# export


def add_export(sub: argparse.ArgumentParser) -> Call:
    study_argument(sub)
    storage_argument(sub)
    sub.add_argument(
        "-o", "--output", type=place, metavar="FILE", help="write to FILE (default: stdout)"
    )
    sub.add_argument("--trial", type=whole, metavar="N", help="export this trial, not the answer")
    sub.add_argument("--python", action="store_true", help="plain torch code instead of YAML")
    import_argument(sub)
    return _export


def _export(args: argparse.Namespace) -> int:
    study, _ = named_study(args)
    from lrsearch.export import answer_note, export_text
    from lrsearch.files import write_text

    name = Path(args.output).name if args.output else None
    text = export_text(study, trial=args.trial, python=args.python, name=name)
    if args.output:
        write_text(Path(args.output), text)
        out(args.output)
    else:
        sys.stdout.write(text)
    if args.trial is None and (line := answer_note(study)):
        note(f"lrsearch: {line.replace('`', '')}")
    return 0


# show, studies, delete


def add_show(sub: argparse.ArgumentParser) -> Call:
    study_argument(sub)
    storage_argument(sub)
    json_argument(sub)
    return _show


def _show(args: argparse.Namespace) -> int:
    study, _ = named_study(args)
    from lrsearch.report.status import print_status, study_status

    status = study_status(study)
    if args.json:
        out_json(status)
    else:
        print_status(status)
    return 0


def add_studies(sub: argparse.ArgumentParser) -> Call:
    storage_argument(sub)
    json_argument(sub)
    return _studies


def _studies(args: argparse.Namespace) -> int:
    with uncollected():
        from lrsearch.report.status import print_studies, studies
        from lrsearch.storage import open_storage

    storage = open_storage(args.storage, create=False)
    rows = studies(storage)
    if args.json:
        out_json(rows)
    else:
        print_studies(rows, storage.label)
    return 0


def add_delete(sub: argparse.ArgumentParser) -> Call:
    study_argument(sub, nargs="+")
    storage_argument(sub)
    sub.add_argument("--yes", action="store_true", help="do not ask")
    return _delete


def _delete(args: argparse.Namespace) -> int:
    with uncollected():
        from lrsearch.delete import delete, told, with_confirmations
        from lrsearch.storage import open_storage
        from lrsearch.storage.tuning import shrink

    storage = open_storage(args.storage, create=False)
    doomed = with_confirmations(storage, args.study)
    what = printable(", ".join(map(told, doomed)))
    if not args.yes:
        if not sys.stdin.isatty():
            raise UsageError(f"delete asks at a terminal; without one add --yes to delete {what}")
        sys.stderr.write(f"Delete from {storage.label}: {what}? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            note("nothing was deleted")
            return 1
    for study in doomed:
        folder = delete(study, storage)
        stays = "" if folder is None else f"; its files stay in {folder}"
        out(printable(f"deleted {study.study_name}{stays}"))
    shrink(storage.engine)
    return 0
