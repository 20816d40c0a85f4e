"""Figures of what mattered and of what was stopped: small tables to plotly figures."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lrsearch.report.style import BLUE, GREY, SKY, VERMILION, family_style, figure_layout, pale

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from lrsearch.report.importance import Importance
    from lrsearch.report.tables import PruningTable

FAINT = "rgba(127,127,127,0.55)"
NAMES = {"scheduler": "scheduler", "lr": "learning rate", "warmup": "warmup"}


def _short(name: str) -> str:
    """A parameter's name beside its bar, cut in its middle where it would take the bars' room."""
    return html.escape(name if len(name) <= 24 else f"{name[:11]}…{name[-12:]}")


def importance_figure(rows: Importance) -> Figure:
    """Level one: what family, rate and warmup explain, over all trials and the better half."""
    import plotly.graph_objects as go

    figure = go.Figure(layout=figure_layout())
    if rows.overall is None:
        return figure
    names = list(rows.overall.share)[::-1]
    labels = [NAMES.get(n, html.escape(n)) for n in names]
    for shares, label, color in (
        (rows.better, "among the better half", SKY),
        (rows.overall, f"over all {rows.overall.trials:,} trials", BLUE),
    ):
        if shares is None:
            continue
        values = [shares.share.get(n, 0.0) for n in names]
        figure.add_bar(
            x=values,
            y=labels,
            orientation="h",
            name=label,
            customdata=labels,
            marker={"color": color, "line": {"width": 0}},
            error_x=_whiskers(values, [shares.spread.get(n, 0.0) for n in names]),
            hovertemplate="%{customdata}: %{x:.0%}<extra>" + label + "</extra>",
        )
    figure.update_yaxes(
        ticks="", tickvals=labels, ticktext=[NAMES.get(n, _short(n)) for n in names]
    )
    _share_axis(figure)
    figure.update_layout(height=120 + 58 * len(names))
    return figure


def _whiskers(values: Sequence[float], spreads: Sequence[float]) -> dict[str, Any]:
    pairs = list(zip(values, spreads, strict=True))
    return {
        "symmetric": False,
        "array": [min(e, 1 - v) for v, e in pairs],
        "arrayminus": [min(e, v) for v, e in pairs],
        "color": FAINT,
        "thickness": 1.2,
        "width": 0,
    }


def _share_axis(figure: Figure) -> None:
    """From 0 to beyond the longest whisker."""
    ends = [v + e for bars in figure.data for v, e in zip(bars.x, bars.error_x.array, strict=True)]
    figure.update_xaxes(
        tickformat=".0%",
        range=[0, min(1.02, max(0.1, max(ends, default=1.0) * 1.1))],
        title="share it explains alone",
    )
    figure.update_layout(
        barmode="group",
        bargap=0.35,
        bargroupgap=0.08,
        legend={
            "orientation": "h",
            "y": 1.02,
            "yanchor": "bottom",
            "x": 0,
            "traceorder": "reversed",
        },
    )


def within_figure(rows: Importance) -> Figure:
    """Level two: within each family, its own parameters.

    A family's name stands above its bars, not beside them, where it would take their room.
    """
    import plotly.graph_objects as go

    figure = go.Figure(layout=figure_layout())
    bars: list[tuple[str, str]] = []
    places: list[int] = []  # rows from the top, counted downwards
    row = 0
    for family, shares in rows.within.items():
        own = [name for name in shares.share if name not in NAMES]
        figure.add_annotation(
            x=0, y=row, text=f"<b>{html.escape(family)}</b>", showarrow=False, xanchor="left",
            yshift=-4,
        )  # fmt: skip
        bars += [(family, name) for name in own]
        places += range(row - 1, row - 1 - len(own), -1)
        row -= 1 + len(own)
    colors = [family_style(family).color for family, _ in bars]
    labels = [f"{html.escape(family)} · {html.escape(name)}" for family, name in bars]
    for found, label, opacity in (
        (rows.within_better, "their better half", 0.45),
        (rows.within, "all of its trials", 1.0),
    ):
        if not found:
            continue
        values = [found[f].share.get(n, 0.0) if f in found else 0.0 for f, n in bars]
        spreads = [found[f].spread.get(n, 0.0) if f in found else 0.0 for f, n in bars]
        figure.add_bar(
            x=values,
            y=places,
            customdata=labels,
            orientation="h",
            name=label,
            # Of the colours, not of the marks: the legend shows only those.
            marker={"color": [pale(c, opacity) for c in colors], "line": {"width": 0}},
            error_x=_whiskers(values, spreads),
            hovertemplate="%{customdata}: %{x:.0%}<extra>" + label + "</extra>",
        )
    _share_axis(figure)
    figure.update_xaxes(title="share it explains in its family")
    names = [_short(name) for _, name in bars]
    figure.update_yaxes(
        ticks="", tickvals=places, ticktext=names, range=[row + 0.4, 0.6], showgrid=False
    )
    figure.update_layout(height=130 + 27 * -row)
    return figure


def pruning_figure(rows: PruningTable) -> Figure:
    """How many trials were stopped after each epoch, and how many were still training."""
    import plotly.graph_objects as go

    figure = go.Figure(layout=figure_layout())
    epochs = list(range(1, max(1, rows.budget) + 1))
    everyone = sum(rows.counts[s] for s in ("complete", "pruned", "diverged"))
    gone = [0] * (len(epochs) + 1)
    for status, color in (("pruned", BLUE), ("diverged", VERMILION)):
        stops = Counter(e for family in rows.stops[status].values() for e in family)
        if not stops:
            continue
        for e, count in stops.items():
            gone[min(e, len(epochs))] += count
        figure.add_bar(
            x=epochs,
            y=[stops[e] for e in epochs],
            name=status,
            marker={"color": color, "line": {"width": 0}},
            hovertemplate="after epoch %{x}: %{y} " + status + "<extra></extra>",
        )
    left, alive = everyone, []
    for e in epochs:
        alive.append(left)
        left -= gone[e]
    figure.add_scatter(
        x=epochs,
        y=[a / everyone if everyone else 0 for a in alive],
        yaxis="y2",
        mode="lines",
        name="still training",
        line={"color": GREY, "width": 2, "shape": "hvh"},
        hovertemplate="epoch %{x}: %{y:.0%} of trials train<extra></extra>",
    )
    figure.update_layout(
        barmode="stack",
        bargap=0.25,
        height=360,
        yaxis={"title": "trials stopped"},
        yaxis2={
            "overlaying": "y",
            "side": "right",
            "range": [0, 1.02],
            "tickformat": ".0%",
            "tickvals": [0, 0.25, 0.5, 0.75, 1],
            "showgrid": False,
            "ticks": "",
            "title": "still training",
            "automargin": True,
        },
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )
    figure.update_xaxes(title="epoch")
    return figure
