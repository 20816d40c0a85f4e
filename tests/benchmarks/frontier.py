"""The pruners of a replay side by side: a table, and regret against epochs as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.benchmarks import record

if TYPE_CHECKING:
    from tests.benchmarks.replay import Score


def at_the_same_epochs(rows: Sequence[Score], row: Score) -> float | None:
    """Our regret at the epochs of another pruner, between the settings replayed; or None."""
    ours = sorted((r.epochs, r.regret) for r in rows if is_ours(r) and r.record == row.record)
    shares = [share for share, _ in ours]
    if not ours or not shares[0] <= row.epochs <= shares[-1]:
        return None
    return float(np.interp(row.epochs, shares, [regret for _, regret in ours]))


def is_ours(row: Score) -> bool:
    """Whether it is a setting of ours."""
    return row.pruner.startswith("ours")


def table(rows: Sequence[Score]) -> list[str]:
    """Markdown: a row for each pruner and signal; a group of columns for each record."""
    records = list(dict.fromkeys(row.record for row in rows))
    heads = [
        f"{name}: {what}"
        for name in records
        for what in ("epochs", "regret", "ours there", "best tenth stopped")
    ]
    lines = [f"| pruner | signal | {' | '.join(heads)} |", "|---" * (len(heads) + 2) + "|"]
    for pruner, signal in dict.fromkeys((row.pruner, row.signal) for row in rows):
        cells = []
        for name in records:
            (row,) = [r for r in rows if (r.pruner, r.signal, r.record) == (pruner, signal, name)]
            there = None if is_ours(row) else at_the_same_epochs(rows, row)
            cells += [
                f"{row.epochs:.1%}",
                f"{100 * row.regret:.2f} ± {100 * row.regret_se:.2f}%",
                "" if there is None else f"{100 * there:.2f}%",
                f"{row.lost:.0%}",
            ]
        lines.append(f"| {pruner} | {signal} | {' | '.join(cells)} |")
    return lines


def figure(rows: Sequence[Score], path: Path) -> None:
    """Regret against epochs used with standard errors, a panel for each record."""
    from plotly.subplots import make_subplots

    from lrsearch.report.style import PALETTE, figure_layout

    records = list(dict.fromkeys(row.record for row in rows))
    kinds = list(dict.fromkeys(row.pruner.partition(":")[0] for row in rows))
    drawn = make_subplots(1, len(records), subplot_titles=records)
    for column, name in enumerate(records, 1):
        for kind, color in zip(kinds, PALETTE, strict=False):
            for signal, symbol in (("both", "circle"), ("raw", "x"), ("averaged", "diamond-open")):
                some = [
                    row
                    for row in rows
                    if (row.record, row.signal) == (name, signal)
                    and row.pruner.partition(":")[0] == kind
                ]
                some.sort(key=lambda row: row.epochs)
                if not some:
                    continue
                drawn.add_scatter(
                    x=[100 * row.epochs for row in some],
                    y=[100 * row.regret for row in some],
                    error_y={"array": [100 * row.regret_se for row in some], "thickness": 1},
                    mode="lines+markers" if signal == "both" else "markers",
                    marker={"color": color, "symbol": symbol, "size": 8},
                    name=kind if signal == "both" else f"{kind}, {signal}",
                    legendgroup=kind + signal,
                    showlegend=column == 1,
                    row=1,
                    col=column,
                )
    layout = figure_layout()
    axis = [layout.pop("xaxis"), layout.pop("yaxis")][0]
    drawn.update_layout({**layout, "margin_t": 40})
    drawn.update_layout(paper_bgcolor="white", plot_bgcolor="white")
    drawn.update_xaxes(axis, title="epochs used, % of training all in full")
    drawn.update_yaxes({**axis, "rangemode": "tozero"})
    drawn.update_yaxes(title="regret, %", row=1, col=1)
    drawn.write_image(path, width=520 * len(records) + 80, height=430)


def write(folder: Path, rows: Sequence[Score], command: str) -> None:
    """README table, raw values and figure."""
    record.write(folder, "replay", table(rows), [asdict(row) for row in rows], command)
    figure(rows, folder / "replay.svg")
