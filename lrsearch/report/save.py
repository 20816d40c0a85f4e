"""A report's figures as PNG and its tables as CSV, for papers and notebooks."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsearch.errors import LrsearchError, UsageError
from lrsearch.files import write_text
from lrsearch.report.tables import families_table, load

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from plotly.graph_objects import Figure

    from lrsearch.report.page import Report

NEEDS = (
    "PNG and SVG need kaleido and a Chrome or Chromium: pip install 'lrsearch[png]', and install "
    "chromium (or run plotly_get_chrome); HTML needs neither"
)


def write_png(report: Report, folder: Path) -> list[Path]:
    """Every figure of a report as a PNG of 2400 pixels width.

    Raises:
        LrsearchError: Says what to install where kaleido or a browser is missing.
    """
    _make(folder)
    paths = [folder / f"{name}.png" for name in report.figures]
    write_pictures([figure for figure, _ in report.figures.values()], paths)
    return paths


def write_pictures(figures: Sequence[Figure], paths: Sequence[Path], width: int = 1200) -> None:
    """Figures as files, by the ends of their names: .svg, or .png of twice the pixels.

    Raises:
        LrsearchError: Says what to install where kaleido or a browser is missing.
    """
    import copy
    import importlib.util

    if importlib.util.find_spec("kaleido") is None:
        raise LrsearchError(f"cannot write pictures: kaleido is not installed. {NEEDS}")
    _import_kaleido()
    import plotly.io

    drawn = [copy.deepcopy(figure) for figure in figures]
    for figure in drawn:
        figure.update_layout(
            template="none", paper_bgcolor="white", plot_bgcolor="white", font_color="#333333"
        )
    try:
        plotly.io.write_images(
            drawn,
            [str(p) for p in paths],
            width=width,
            height=[int(figure.layout.height or 480) for figure in drawn],
            scale=[1 if path.suffix == ".svg" else 2 for path in paths],
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise LrsearchError(f"cannot write pictures: {_first_line(error)}. {NEEDS}") from None


def write_overview(study: optuna.Study, storage: BaseStorage | None, path: Path) -> Path:
    """Every schedule that a study tried, and its loss, as one picture: .svg or .png.

    Raises:
        UsageError: Another kind of file.
        LrsearchError: Says what to install where kaleido or a browser is missing.
    """
    from lrsearch.report.overview import overview_figure, overview_table

    if path.suffix not in (".svg", ".png"):
        raise UsageError(f"--overview {path}: the name must end in .svg or .png")
    _make(path.parent)
    write_pictures([overview_figure(overview_table(load(study, storage)))], [path])
    return path


def _import_kaleido() -> None:
    """Import it while our command line is hidden: a module below it reads that, and trips."""
    import sys

    ours, sys.argv = sys.argv, sys.argv[:1]
    try:
        import kaleido  # noqa: F401
    except ImportError as error:
        raise LrsearchError(f"cannot write pictures: {_first_line(error)}. {NEEDS}") from None
    finally:
        sys.argv = ours


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def write_csv(report: Report, folder: Path) -> list[Path]:
    """trials.csv, history.csv, families.csv, importance.csv and, if confirmed, confirm.csv."""
    table = report.table
    _make(folder)
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


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LrsearchError(f"cannot make {folder} ({error.strerror or error})") from None
