"""The commands about studies as such: show, studies, delete."""

from __future__ import annotations

import argparse
import sys

from lrsearch.cli_arguments import (
    Call,
    Commands,
    json_argument,
    named_study,
    note,
    out,
    out_json,
    storage_argument,
    study_argument,
)
from lrsearch.errors import UsageError, printable
from lrsearch.imports import uncollected


def _add_show(sub: argparse.ArgumentParser) -> Call:
    study_argument(sub)
    storage_argument(sub)
    json_argument(sub)
    return _show


def _show(args: argparse.Namespace) -> int:
    study, storage = named_study(args)
    from lrsearch.report.status import print_status, study_status

    status = study_status(study, storage)
    if args.json:
        out_json(status)
    else:
        print_status(status)
    return 0


def _add_studies(sub: argparse.ArgumentParser) -> Call:
    storage_argument(sub)
    json_argument(sub)
    return _studies


def _studies(args: argparse.Namespace) -> int:
    with uncollected():
        from lrsearch.report.status import print_studies, studies
        from lrsearch.storage import open_storage, redact

    rows = studies(open_storage(args.storage, create=False))
    if args.json:
        out_json(rows)
    else:
        print_studies(rows, redact(args.storage))
    return 0


def _add_delete(sub: argparse.ArgumentParser) -> Call:
    study_argument(sub, nargs="+")
    storage_argument(sub)
    sub.add_argument("--yes", action="store_true", help="do not ask")
    return _delete


def _delete(args: argparse.Namespace) -> int:
    with uncollected():
        from lrsearch.delete import delete, told, with_confirmations
        from lrsearch.storage import open_storage, redact
        from lrsearch.storage.tuning import shrink

    url = redact(args.storage)
    storage = open_storage(args.storage, create=False)
    doomed = with_confirmations(storage, args.study, url)
    what = printable(", ".join(map(told, doomed)))
    if not args.yes:
        if not sys.stdin.isatty():
            raise UsageError(f"delete asks at a terminal; without one add --yes to delete {what}")
        sys.stderr.write(f"Delete from {url}: {what}? [y/N] ")
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


COMMANDS: Commands = {
    "show": (_add_show, "the state of a study"),
    "studies": (_add_studies, "the studies of a database"),
    "delete": (_add_delete, "delete a study, with its confirmation"),
}
