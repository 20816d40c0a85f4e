"""A report's tables as CSV, for notebooks and spreadsheets."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsearch.files import make_folder, write_text
from lrsearch.report.tables import families_table

if TYPE_CHECKING:
    from lrsearch.report.report import Report


def write_csv(report: Report, folder: Path) -> list[Path]:
    """trials.csv, history.csv, families.csv, importance.csv and, if confirmed, confirm.csv."""
    table = report.table
    make_folder(folder)
    params = sorted({name for t in table.trials for name in t.params})
    head = ["number", "status", "family", "lr", "warmup", "baseline", "val_loss", "last_val_loss"]
    head += ["val_metric", "epochs", "seconds", "device", "stopped"]
    head += [f"params_{name}" if name in head else name for name in params]  # no column twice
    trials = [
        [
            t.number, t.status, t.family, t.lr, t.warmup, t.baseline, t.value, t.last_loss,
            t.metric, t.epochs, t.seconds, t.device, t.stopped, *(t.params.get(p) for p in params),
        ]
        for t in table.trials
    ]  # fmt: skip
    names = list(table.history.columns)
    history = (  # row by row: of a long study there are millions
        [t.number, *row]
        for t in table.trials
        for row in zip(
            *(table.history.of(t.trial_id, n).tolist() for n in ("epoch", *names)), strict=True
        )
    )
    families = [
        [r.family, r.best.number if r.best else None, r.best.value if r.best else None, r.median,
         r.complete, r.pruned, r.diverged, r.failed]
        for r in families_table(table)
    ]  # fmt: skip
    found = report.mattered
    levels = [("all trials", "", found.overall), ("better half", "", found.better)]
    levels += [("all trials", family, s) for family, s in found.within.items()]
    levels += [("better half", family, s) for family, s in found.within_better.items()]
    shares = [
        [over, family, name, share, s.spread.get(name), s.trials]
        for over, family, s in levels
        if s is not None
        for name, share in s.share.items()
    ]
    tables: dict[str, tuple[Sequence[str], Iterable[Sequence[Any]]]] = {
        "trials": (head, trials),
        "history": (["number", "epoch", *names], history),
        "families": (
            ["family", "best", "val_loss", "median_val_loss", "complete", "pruned", "diverged",
             "failed"],
            families,
        ),
        "importance": (["over", "family", "parameter", "share", "spread", "trials"], shares),
    }  # fmt: skip
    if report.confirmed is not None:
        tables["confirm"] = (
            ["arm", "family", "lr", "baseline", "seed", "lost", "val_loss", "test_loss",
             "test_metric"],
            [
                [a.key, a.schedule.get("family"), a.schedule.get("lr"), a.baseline, seed,
                 int(seed in a.lost), a.val_loss.get(seed), a.test_loss.get(seed),
                 a.test_metric.get(seed)]
                for a in report.confirmed.arms
                for seed in sorted(a.losses)
            ],
        )  # fmt: skip
    written = []
    for name, (columns, rows) in tables.items():
        path = folder / f"{name}.csv"
        write_text(path, _csv(columns, rows))
        written.append(path)
    return written


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(v) for v in row] for row in rows)
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text_like = isinstance(value, str) and value.startswith(tuple("=+-@\t\r"))
    return f"'{value}" if text_like else value  # a spreadsheet must not run it
