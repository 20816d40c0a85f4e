"""The whole search in one picture: every schedule that was tried, and what its loss did."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from lrsearch.report import words
from lrsearch.report.figures import log_ticks
from lrsearch.report.learning_curves import LearningCurve, learning_curves_of, thin
from lrsearch.report.style import family_style, lay_out
from lrsearch.report.tables import StudyTable, TrialRow

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_LINES = 300
"""Trials drawn, at most: the best and the recipes, and every so many-th of the others."""
MOST_POINTS = 200
"""Points of a line, at most: a panel is hardly more pixels wide."""
_INK = "#767676"  # middle grey: readable on light and on dark


class Overview(NamedTuple):
    """Trials over their epochs.

    Attributes:
        others: Curves of trials that ended, without the two below.
        recipes: Of the usual recipes.
        best: Of the best complete trial, if there is one.
        trials: Trials that ended, drawn or not.
    """

    others: list[LearningCurve]
    recipes: list[LearningCurve]
    best: LearningCurve | None
    trials: int


class Strokes(NamedTuple):
    """Several lines as one, with gaps between them."""

    x: list[float | None]
    y: list[float | None]

    def add(self, x: Sequence[float], y: Sequence[float | None]) -> None:
        """One line more; of a long one every so many-th point, and the last."""
        kept = thin(len(x), MOST_POINTS)
        self.x.extend([*(x[i] for i in kept), None])
        self.y.extend([*(y[i] for i in kept), None])


def overview_table(table: StudyTable, most: int = MOST_LINES) -> Overview:
    """Rate and loss over the epochs of all trials that ended, at most about ``most`` of them."""
    ended = table.finished
    best = table.best
    recipes = [t for t in ended if t.baseline and t is not best]
    rest = [t for t in ended if not t.baseline and t is not best]
    rest = rest[:: max(1, math.ceil(len(rest) / most))]
    winner = learning_curves_of(table, [best])[0] if best is not None else None
    return Overview(
        learning_curves_of(table, rest), learning_curves_of(table, recipes), winner, len(ended)
    )


def overview_figure(rows: Overview) -> Figure:
    """Left the rate, right the validation loss, over the epochs; a line for every trial.

    Colour says the family. A line that ends in a dot was stopped there. The best is bold, the
    usual recipes are dotted.
    """
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.09)
    lay_out(figure, height=430, showlegend=False, margin={"t": 36})
    figure.update_xaxes(title="epoch")
    full = [c for c in rows.others if c.trial.status == "complete"]
    stopped = [c for c in rows.others if c.trial.status != "complete"]
    for curves, opacity, width in ((stopped, 0.28, 1.0), (full, 0.6, 1.3)):
        for family in dict.fromkeys(c.trial.family for c in curves):
            mine = [c for c in curves if c.trial.family == family]
            _lines(figure, mine, family_style(family).color, width, opacity)
    _ends(figure, stopped)
    for curve in rows.recipes:
        _lines(figure, [curve], _INK, 1.6, 1.0, dash="dot")
    if rows.best is not None:
        color = family_style(rows.best.trial.family).color
        _lines(figure, [rows.best], "rgba(255,255,255,0.7)", 7.0, 1.0)
        _lines(figure, [rows.best], color, 4.0, 1.0)
    drawn = [*rows.others, *rows.recipes, *([rows.best] if rows.best is not None else [])]
    lrs = [v for c in drawn for v in rates(c)[1]]
    losses = _without_outliers([v for c in drawn for v in c.loss])
    figure.update_yaxes(title="learning rate", col=1, **_axis(lrs, 1e-4))
    figure.update_yaxes(title="validation loss", col=2, **_loss_axis(losses))
    if rows.best is not None:
        _say(figure, rows.best)
    last = max((c.x[-1] for c in drawn if c.x), default=1)
    figure.update_xaxes(range=[0, last * 1.02])
    pruned = sum(c.trial.status != "complete" for c in rows.others)
    _head(figure, 1, _tried(rows, pruned))
    recipes = "; dotted: recipes" if rows.recipes else ""
    _head(figure, 2, f"what they came to{recipes}")
    return figure


def _tried(rows: Overview, stopped: int) -> str:
    drawn = len(rows.others) + len(rows.recipes) + (rows.best is not None)
    said = f"{words.count(rows.trials, 'schedule')} tried"
    said += f", {drawn} drawn" if drawn < rows.trials else ""
    return f"{said}; a dot: stopped there" if stopped else said


def _head(figure: Figure, col: int, said: str) -> None:
    """A line of text above a panel."""
    number = "" if col == 1 else "2"
    figure.add_annotation(
        text=said,
        x=0,
        xref=f"x{number} domain",
        y=1.0,
        yref=f"y{number} domain",
        xanchor="left",
        yanchor="bottom",
        yshift=4,
        showarrow=False,
        font={"size": 13},
    )


def _without_outliers(values: Sequence[float | None]) -> list[float]:
    """Finite values up to the 99.5th percentile: one spike must not flatten all the others."""
    usable = sorted(v for v in values if v is not None and math.isfinite(v))
    return usable[: math.ceil(0.995 * len(usable))]


def _axis(values: Sequence[float | None], floor: float) -> dict[str, object]:
    """A log axis over the positive values, from ``floor`` times the largest at the least."""
    usable = [v for v in values if v is not None and math.isfinite(v) and v > 0]
    if not usable:
        return {"tickvals": []}
    low, high = max(min(usable), floor * max(usable)), max(usable)
    pad = 0.04 * math.log10(high / low) + 0.01
    return log_ticks([low, high]) | {"range": [math.log10(low) - 3 * pad, math.log10(high) + pad]}


def _loss_axis(losses: Sequence[float]) -> dict[str, object]:
    """As ``_axis``; linear where a loss is not above 0, with room for the name below the best."""
    if min(losses, default=1.0) > 0:
        return _axis(losses, 0.0)
    low, high = min(losses), max(losses)
    pad = 0.04 * (high - low or abs(high) or 1.0)
    return {"range": [low - 3 * pad, high + pad]}


def rates(curve: LearningCurve) -> tuple[list[float], list[float | None]]:
    """The rate as far as the trial ran, as corners where it stays level between epochs."""
    x: list[float] = []
    y: list[float | None] = []
    for i, (at, lr) in enumerate(zip(curve.x, curve.lr, strict=True)):
        if at > curve.trial.epochs:
            break
        if curve.level and i:
            x.append(at)
            y.append(y[-1])
        x.append(at)
        y.append(lr if lr > 0 else None)
    return x, y


def _lines(
    figure: Figure,
    curves: Sequence[LearningCurve],
    color: str,
    width: float,
    opacity: float,
    dash: str = "solid",
) -> None:
    """Trials of one kind as one line with gaps, in both panels."""
    lr, losses = Strokes([], []), Strokes([], [])
    for curve in curves:
        lr.add(*rates(curve))
        losses.add(curve.epoch, curve.loss)
    for col, path in enumerate((lr, losses), start=1):
        figure.add_scatter(
            x=path.x,
            y=path.y,
            mode="lines",
            line={"color": color, "width": width, "dash": dash},
            opacity=opacity,
            hoverinfo="skip",
            row=1,
            col=col,
        )


def _ends(figure: Figure, stopped: Sequence[LearningCurve]) -> None:
    """A dot where each stopped trial ended; hovering says which."""
    for col in (1, 2):
        points = []
        for curve in stopped:
            xs, ys = rates(curve) if col == 1 else (curve.epoch, curve.loss)
            if xs and ys[-1] is not None:
                points.append((xs[-1], ys[-1], curve.trial))
        figure.add_scatter(
            x=[p[0] for p in points],
            y=[p[1] for p in points],
            mode="markers",
            marker={"size": 3.5, "color": [family_style(p[2].family).color for p in points]},
            opacity=0.7,
            text=[_hover(p[2]) for p in points],
            hovertemplate="%{text}<extra></extra>",
            row=1,
            col=col,
        )


def _hover(trial: TrialRow) -> str:
    said = (
        f"#{trial.number} {html.escape(trial.family)}, {trial.status} after epoch {trial.epochs}"
    )
    return f"{said}<br>peak lr {words.number(trial.lr)}"


def _say(figure: Figure, best: LearningCurve) -> None:
    """Name the best at the end of its loss, on the axis as it is by now."""
    if not best.epoch or best.loss[-1] is None:
        return
    log = figure.layout.yaxis2.type == "log"
    figure.add_annotation(
        x=best.epoch[-1],
        y=math.log10(best.loss[-1]) if log else best.loss[-1],
        text=f"<b>{html.escape(best.trial.family)}</b>  {words.loss(best.trial.value)}",
        showarrow=False,
        xanchor="right",
        yanchor="top",
        yshift=-6,
        font={"size": 14},
        row=1,
        col=2,
    )
