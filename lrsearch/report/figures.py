"""Figures of a study, each as two functions: study -> table, table -> plotly figure.

Here: rate against loss, and what was stopped. Trials over their epochs are in
:mod:`lrsearch.report.learning_curves`, importance in :mod:`lrsearch.report.importance_shown`,
and what Optuna draws well in :mod:`lrsearch.report.optuna_figures`. Backgrounds are transparent
and greys are of middle lightness, so that each figure can stand on a light and on a dark page.
"""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lrsearch.report import words
from lrsearch.report.style import (
    BLUE,
    LEGEND_ABOVE,
    LEGEND_BELOW,
    MIDDLE_GREY,
    PRUNED,
    VERMILION,
    family_style,
    figure_layout,
)
from lrsearch.report.tables import PruningTable, StudyTable, TrialRow

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


class Marks(NamedTuple):
    """Trials of one family that ended alike, as points.

    Attributes:
        status: complete, pruned or diverged.
        loss: Final loss; of a pruned trial the loss at its stop, None of a diverged one.
        text: What hovering shows, plain text with <br>.
    """

    family: str
    status: str
    number: list[int]
    lr: list[float]
    loss: list[float | None]
    text: list[str]


class LrVsLoss(NamedTuple):
    """Peak rate against validation loss, one row per trial that ended."""

    marks: list[Marks]
    best: TrialRow | None
    baselines: list[TrialRow]


def hover(trial: TrialRow) -> str:
    """What hovering over a trial shows, safe in plotly's markup."""
    rows = [
        f"<b>#{trial.number} {html.escape(trial.family)}</b>",
        f"peak lr {words.number(trial.lr)}"
        + (f", warmup {words.count(trial.warmup, 'epoch')}" if trial.warmup else ""),
    ]
    if own := words.settings(trial):
        rows.append(html.escape(own))
    if trial.status == "complete":
        rows.append(f"validation loss {words.loss(trial.value)}")
    elif trial.status == "pruned":
        rows.append(f"stopped at epoch {trial.epochs}, loss {words.loss(trial.last_loss)}")
    else:
        rows.append(f"{trial.status} at epoch {trial.epochs}")
    return "<br>".join(rows)


def lr_vs_val_loss_table(table: StudyTable) -> LrVsLoss:
    """Peak lr and loss of every trial that ended, by family."""
    marks = []
    for family in table.families:
        for status in ("pruned", "diverged", "complete"):
            rows = [t for t in table.trials if t.family == family and t.status == status]
            if not rows:
                continue
            losses = [None if status == "diverged" else t.loss for t in rows]
            numbers, rates = [t.number for t in rows], [t.lr for t in rows]
            marks.append(Marks(family, status, numbers, rates, losses, [hover(t) for t in rows]))
    return LrVsLoss(marks, table.best, [t for t in table.complete if t.baseline])


def lr_vs_val_loss_figure(rows: LrVsLoss) -> Figure:
    """Peak lr (log axis) against validation loss: colour and symbol say the family.

    Trials trained to the end are filled, pruned ones hollow at the loss they had when they were
    stopped, diverged ones lie on a rail at the top. A ring is around the best, a square around
    each usual recipe: a legend shows neither size nor width.
    """
    import plotly.graph_objects as go

    figure = go.Figure(layout=figure_layout())
    crowd = sum(len(m.lr) for m in rows.marks)
    shrink = 1.0 if crowd <= 400 else 0.75 if crowd <= 2500 else 0.55
    for status in ("pruned", "diverged", "complete"):
        for mark in (m for m in rows.marks if m.status == status):
            style = family_style(mark.family)
            filled = status == "complete"
            on_rail = status == "diverged"
            figure.add_scatter(
                x=mark.lr,
                y=[(0.618 * n) % 1 for n in mark.number] if on_rail else mark.loss,
                yaxis="y2" if on_rail else "y",
                mode="markers",
                name=html.escape(mark.family),
                legendgroup=mark.family,
                showlegend=False,
                text=mark.text,
                hovertemplate="%{text}<extra></extra>",
                marker={
                    "color": style.color,
                    "symbol": style.symbol if filled else f"{style.symbol}-open",
                    "size": (9 if filled else 7) * shrink,
                    "opacity": 0.95 if filled else 0.5,
                    "line": {
                        "width": 0.6 if filled else 1.1,
                        "color": "rgba(255,255,255,0.75)" if filled else style.color,
                    },
                },
            )
    for family in dict.fromkeys(m.family for m in rows.marks):
        _legend_mark(figure, family)
    _frames(figure, rows)
    values = [v for m in rows.marks for v in m.loss if v is not None and math.isfinite(v)]
    wide = bool(values) and max(values) > 3 * min(values)
    rail = any(m.status == "diverged" for m in rows.marks)
    rates = [lr for mark in rows.marks for lr in mark.lr]
    figure.update_xaxes(title="peak learning rate", **log_ticks(rates))
    entries = len({m.family for m in rows.marks}) + 2
    figure.update_layout(
        yaxis={
            "title": "validation loss",
            "domain": [0, 0.9 if rail else 1],
            **(loss_axis(values) if wide else {}),
            **({"rangemode": "tozero"} if len(set(values)) == 1 and values[0] > 0 else {}),
            **({} if values else {"tickvals": []}),
        },
        height=470 + legend_height(entries),
        legend=LEGEND_BELOW,
    )
    if rail:
        _add_rail(figure)
    return figure


def _add_rail(figure: Figure) -> None:
    """A strip above the plot, for marks that have no loss."""
    figure.update_layout(
        yaxis2={
            "domain": [0.93, 1],
            "range": [-0.6, 1.6],
            "fixedrange": True,
            "showgrid": False,
            "zeroline": False,
            "tickvals": [0.5],
            "ticktext": ["diverged"],
            "ticks": "",
            "anchor": "x",
            "automargin": True,
        },
        shapes=[
            {
                "type": "rect", "xref": "paper", "yref": "paper", "x0": 0, "x1": 1,
                "y0": 0.93, "y1": 1, "fillcolor": "rgba(127,127,127,0.08)", "layer": "below",
                "line": {"width": 0},
            }
        ],
    )  # fmt: skip


def log_ticks(values: Sequence[float | None] = (), *, narrow: bool = False) -> dict[str, Any]:
    """A log axis that labels 1, 2, 5 (each power of ten alone, if there are many), as 0.01.

    Args:
        values: What it is for.
        narrow: A small panel of several, in which few labels have room.
    """
    usable = [v for v in values if v is not None and math.isfinite(v) and v > 0]
    ratio = max(usable) / min(usable) if usable else 1.0
    # a single value is drawn with a decade on either side of it
    many = 20 if narrow else 2000
    dtick: Any = 1 if ratio > many else "D2" if ratio > 5 or ratio == 1 else None
    return {
        "type": "log",
        "exponentformat": "power",
        "tickformat": "~g",
        "minorloglabels": "none",
        "dtick": dtick,
    }


def loss_axis(values: Sequence[float | None]) -> dict[str, Any]:
    """A log axis for losses; a linear one where any of them is not above 0."""
    below = any(v is not None and math.isfinite(v) and v <= 0 for v in values)
    return {} if below else log_ticks(values)


def legend_height(entries: int) -> int:
    """Pixels that a legend below the figure takes, about six entries a row."""
    return 24 * math.ceil(entries / 6)


def _legend_mark(figure: Figure, family: str) -> None:
    """A legend entry with the family's filled symbol, whatever its trials came to."""
    style = family_style(family)
    figure.add_scatter(
        x=[None],
        y=[None],
        mode="markers",
        name=html.escape(family),
        legendgroup=family,
        showlegend=True,
        marker={"color": style.color, "symbol": style.symbol, "size": 9},
    )


def _frames(figure: Figure, rows: LrVsLoss) -> None:
    """What marks the usual recipes and the best."""
    best = [] if rows.best is None else [rows.best]
    recipes = [t for t in rows.baselines if t is not rows.best]
    frames = (
        ("usual recipe", recipes, "square-open", 15, 1.4),
        ("best", best, "circle-open", 20, 2.4),
    )
    for name, shown, symbol, size, width in frames:
        if not shown:
            continue
        figure.add_scatter(
            x=[t.lr for t in shown],
            y=[t.value for t in shown],
            mode="markers",
            name=name,
            marker={
                "symbol": symbol,
                "size": size,
                "color": MIDDLE_GREY,
                "line": {"width": width},
            },
            text=[_recipe(t) + hover(t) for t in shown],
            hovertemplate="%{text}<extra></extra>",
        )


def _recipe(trial: TrialRow) -> str:
    if trial.baseline is None:
        return ""
    return f"<i>{html.escape(trial.baseline)} baseline</i><br>"


def pruning_figure(rows: PruningTable) -> Figure:
    """How many trials were stopped after each epoch, and how many were still training."""
    import plotly.graph_objects as go

    figure = go.Figure(layout=figure_layout())
    epochs = list(range(1, max(1, rows.budget) + 1))
    everyone = rows.finished
    gone = [0] * (len(epochs) + 1)
    for status, color in (("pruned", PRUNED), ("diverged", VERMILION)):
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
        line={"color": BLUE, "width": 2, "shape": "hvh"},
        hovertemplate="epoch %{x}: %{y:.0%} of trials train<extra></extra>",
    )
    figure.update_layout(
        barmode="stack",
        bargap=0.25,
        height=360,
        yaxis={"title": "trials stopped", **whole_ticks(max(gone))},
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
        legend=LEGEND_ABOVE,
    )
    figure.update_xaxes(title="epoch", **whole_ticks(len(epochs)))
    return figure


def whole_ticks(most: int) -> dict[str, Any]:
    """An axis of counts up to ``most``: where it has room for halves, it labels none."""
    return {"dtick": 1} if most <= 10 else {}
