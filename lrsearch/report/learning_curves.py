"""Trials over their epochs: rate and loss, as tables and as figures."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lrsearch.errors import LrsearchError
from lrsearch.report.figures import legend_height, log_ticks, loss_axis
from lrsearch.report.style import (
    LEGEND_BELOW,
    MIDDLE_GREY,
    family_style,
    figure_layout,
    lay_out,
    pale,
)
from lrsearch.report.tables import StudyTable, TrialRow, best_of_each_family, finite
from lrsearch.schedules import Schedule, formulas

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_POINTS = 1000
"""Points of a line, at most: a page is hardly more pixels wide."""
SAMPLES = 256
"""Points of a curve that is compared with others."""


class LearningCurve(NamedTuple):
    """One trial over its epochs.

    Attributes:
        x, lr: The rate in force from epoch x on (the last point ends it); ``level`` if it stays
            level until the next.
        epoch, loss, epoch_lr: After each epoch: the validation loss, and the rate it ended with.
    """

    trial: TrialRow
    x: list[float]
    lr: list[float]
    level: bool
    epoch: list[int]
    loss: list[float | None]
    epoch_lr: list[float | None]


def learning_curves_of(table: StudyTable, trials: Sequence[TrialRow]) -> list[LearningCurve]:
    """Rate and loss over the epochs of the given trials."""
    found = []
    for trial in trials:
        epochs = [int(e) for e in table.history.of(trial.trial_id, "epoch")]
        rates = finite(table.history.of(trial.trial_id, "lr"))
        losses = finite(table.history.of(trial.trial_id, "val_loss"))
        found.append(
            LearningCurve(
                trial, *trace_points(trial.schedule, epochs, rates), epochs, losses, rates
            )
        )
    return found


def thin(points: int, most: int) -> list[int]:
    """Places of the points of a line to draw: of a long one every so many-th, and the last."""
    last = points - 1
    return [*range(0, last, max(1, math.ceil(last / most))), *([last] if points else [])]


def thinned_curves(table: StudyTable, trials: Sequence[TrialRow]) -> list[LearningCurve]:
    """As :func:`learning_curves_of`, with no more points than can be seen."""
    found = []
    for curve in learning_curves_of(table, trials):
        line, ends = thin(len(curve.x), MOST_POINTS), thin(len(curve.epoch), MOST_POINTS)
        found.append(
            curve._replace(
                x=[curve.x[i] for i in line],
                lr=[curve.lr[i] for i in line],
                epoch=[curve.epoch[i] for i in ends],
                loss=[curve.loss[i] for i in ends],
                epoch_lr=[curve.epoch_lr[i] for i in ends],
            )
        )
    return found


def sampled(table: StudyTable, trial: TrialRow) -> np.ndarray:
    """The rate of a trial at :data:`SAMPLES` even times of its budget, (SAMPLES,)."""
    (curve,) = learning_curves_of(table, [trial])
    if not curve.x:
        return np.full(SAMPLES, trial.lr)
    times = (np.arange(SAMPLES) + 0.5) / SAMPLES * curve.x[-1]
    if not curve.level:
        return np.interp(times, curve.x, curve.lr)
    last = np.searchsorted(curve.x, times, side="right") - 1
    return np.asarray(curve.lr, dtype=float)[np.clip(last, 0, len(curve.lr) - 1)]


def trace_points(
    kept: Mapping[str, Any], epochs: Sequence[int], rates: Sequence[float | None]
) -> tuple[list[float], list[float], bool]:
    """A schedule as a line: by formula, from its trace, or as it was recorded where it has none.

    The formula needs no torch, which is most of the memory and half of the time of a page.

    Args:
        kept: The schedule, as :meth:`Schedule.to_dict` gives it, or whatever is kept in its place.
        epochs: Epochs after which a rate was recorded.
        rates: Those rates.

    Returns:
        Epochs from which a rate is in force (the last point is the end), the rates, and whether
        they stay level in between.
    """
    try:
        schedule = Schedule.from_dict(kept)
        per_step = schedule.interval == "step"
        fine = max(1, math.ceil(240 / schedule.epochs)) if per_step else 1
        lr = formulas.rates(schedule, fine)
        trace = (schedule.trace(fine).lr if lr is None else lr).tolist()
    except LrsearchError:
        return _recorded(epochs, rates)
    x = [t / fine for t in range(len(trace))]
    return [*x, float(schedule.epochs)], [*trace, trace[-1]], not per_step


def _recorded(
    epochs: Sequence[int], rates: Sequence[float | None]
) -> tuple[list[float], list[float], bool]:
    known = [(e, r) for e, r in zip(epochs, rates, strict=True) if r is not None]
    if not known:
        return [], [], True
    starts = [0, *(e for e, _ in known)]
    return [float(e) for e in starts], [*(r for _, r in known), known[-1][1]], True


def best_curves(table: StudyTable, most: int = 8) -> list[LearningCurve]:
    """The curve of the best trial of each family, at most ``most``."""
    return thinned_curves(table, best_of_each_family(table)[:most])


def learning_curves_figure(rows: Sequence[LearningCurve]) -> Figure:
    """lr(t) above, validation loss below, over the same epochs; a line per trial."""
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.42, 0.58]
    )
    lay_out(figure, height=540 + legend_height(len(rows)))
    figure.update_layout(legend=LEGEND_BELOW | {"y": -0.15})
    for row in rows:
        style = family_style(row.trial.family)
        line = {"color": style.color, "dash": style.dash, "width": 2.2}
        name = html.escape(row.trial.family)
        number = row.trial.number
        figure.add_scatter(
            x=row.x,
            y=row.lr,
            mode="lines",
            line=line | {"shape": "hv" if row.level else "linear"},
            name=name,
            legendgroup=name,
            showlegend=False,
            hovertemplate=f"#{number} {name}<br>epoch %{{x:.3~g}}: lr %{{y:.3~g}}<extra></extra>",
            row=1,
            col=1,
        )
        figure.add_scatter(
            x=row.epoch,
            y=row.loss,
            mode="lines+markers" if len(row.epoch) < 3 else "lines",
            line=line,
            name=name,
            legendgroup=name,
            hovertemplate=f"#{number} {name}<br>epoch %{{x}}: loss %{{y:.4~g}}<extra></extra>",
            row=2,
            col=1,
        )
    figure.update_yaxes(title="learning rate", rangemode="tozero", nticks=5, row=1, col=1)
    losses = [v for r in rows for v in r.loss]
    figure.update_yaxes(title="validation loss", row=2, col=1, **loss_axis(losses))
    figure.update_xaxes(title="epoch", row=2, col=1)
    last = max((r.x[-1] for r in rows if r.x), default=1)
    figure.update_xaxes(range=[0, last * 1.01])
    return figure


def winner_figure(rows: Sequence[LearningCurve]) -> Figure:
    """The winning curve as an area; a second curve, the best usual recipe, dashed over it."""
    import plotly.graph_objects as go

    figure = go.Figure(layout=figure_layout())
    for i, row in enumerate(rows[:2]):
        style = family_style(row.trial.family)
        name = html.escape(row.trial.family)
        recipe = html.escape(row.trial.baseline or row.trial.family)
        figure.add_scatter(
            x=row.x,
            y=row.lr,
            mode="lines",
            name=name if i == 0 else f"{recipe} baseline",
            fill="tozeroy" if i == 0 else None,
            fillcolor=pale(style.color, 0.2),
            line={
                "color": style.color if i == 0 else MIDDLE_GREY,
                "width": 2.6 if i == 0 else 1.6,
                "dash": "solid" if i == 0 else "dot",
                "shape": "hv" if row.level else "linear",
            },
            hovertemplate=f"{name}<br>epoch %{{x:.3~g}}: lr %{{y:.3~g}}<extra></extra>",
        )
    last = max((r.x[-1] for r in rows if r.x), default=1)
    figure.update_xaxes(title="epoch", showgrid=False, range=[0, last])
    figure.update_yaxes(rangemode="tozero", nticks=5)
    figure.update_layout(height=280, showlegend=False, margin={"l": 44, "r": 8, "t": 12, "b": 44})
    return figure


def paths_figure(rows: Sequence[LearningCurve]) -> Figure:
    """The way each trial took: validation loss against the rate of that epoch, epoch by epoch."""
    import plotly.graph_objects as go

    figure = go.Figure(layout=figure_layout())
    floor = min((r.trial.lr for r in rows), default=1.0) / 1000
    for row in rows:
        style = family_style(row.trial.family)
        name = html.escape(row.trial.family)
        kept = [
            (max(lr, floor), loss, epoch)
            for lr, loss, epoch in zip(row.epoch_lr, row.loss, row.epoch, strict=True)
            if lr is not None and loss is not None
        ]
        n = len(kept)
        figure.add_scatter(
            x=[k[0] for k in kept],
            y=[k[1] for k in kept],
            customdata=[k[2] for k in kept],
            mode="lines+markers",
            name=name,
            line={"color": style.color, "width": 1.6, "dash": style.dash},
            marker={
                "color": style.color,
                "symbol": ["circle"] * (n - 1) + [style.symbol],
                "size": [4] * (n - 1) + [12],
            },
            hovertemplate=(
                f"#{row.trial.number} {name}<br>after epoch %{{customdata}}: "
                "loss %{y:.4~g}, lr %{x:.3~g}<extra></extra>"
            ),
        )
    rates = [max(v, floor) for r in rows for v in r.epoch_lr if v is not None]
    figure.update_xaxes(title="learning rate of the epoch", **log_ticks(rates))
    losses = [v for r in rows for v in r.loss]
    figure.update_yaxes(title="validation loss", **loss_axis(losses))
    figure.update_layout(height=430 + legend_height(len(rows)), legend=LEGEND_BELOW)
    return figure
