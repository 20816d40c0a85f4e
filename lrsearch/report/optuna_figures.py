"""Plots that Optuna has, of a light copy of the study and in the look of the others."""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from lrsearch.optuna_helpers import experiments_allowed, optuna_logs_errors_only
from lrsearch.report.figures import log_ticks, loss_axis, whole_ticks
from lrsearch.report.light_study import as_study, frozen, study_of
from lrsearch.report.style import BLUE, LEGEND_ABOVE, VERMILION, family_style, lay_out
from lrsearch.report.tables import StudyTable, TrialRow

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_LINES = 150
MOST_POINTS = 400  # of each of these lines
MOST_BARS = 400


def _drawn(plot: Callable[..., Any], *arguments: Any, **options: Any) -> Figure:
    """One of Optuna's plots, quietly and with our layout in the place of its own."""
    with optuna_logs_errors_only(), experiments_allowed():
        figure: Figure = plot(*arguments, **options)
    figure.update_layout(template="none")
    lay_out(figure)
    return figure


def history_figure(table: StudyTable) -> Figure:
    """Final loss of each complete trial and the best so far (``plot_optimization_history``)."""
    from optuna.visualization import plot_optimization_history

    known = {t.number: t for t in as_study(table).trials}
    missing = TrialState.FAIL  # left out of the table; the plot finds a trial by its number
    rows = [known.get(n) or frozen(n, None, {}, {}, missing) for n in range(max(known) + 1)]
    figure = _drawn(plot_optimization_history, study_of(rows), target_name="validation loss")
    for trace in figure.data:
        if trace.mode == "markers":
            trace.update(name="trained to the end", marker={"color": BLUE, "size": 7})
            trace.update(cliponaxis=False)
        else:
            trace.update(name="best so far", line={"color": VERMILION, "width": 2, "shape": "hv"})
    values = [t.value for t in table.complete if t.value is not None]
    if values and min(values) > 0 and max(values) / min(values) > 6:
        figure.update_yaxes(log_ticks(values))
    elif len(set(values)) == 1 and values[0] > 0:  # plotly would go as far below 0 as above
        figure.update_yaxes(rangemode="tozero")
    figure.update_xaxes(title="trial", rangemode="tozero")
    figure.update_yaxes(title="validation loss")
    figure.update_layout(height=360, legend=LEGEND_ABOVE)
    return figure


def epochs_figure(table: StudyTable) -> Figure:
    """Validation loss of many trials over their epochs (``plot_intermediate_values``).

    The best, and an even choice of the others, 150 in all, each of 400 points at most; colour says
    the family, pale lines were stopped.
    """
    from optuna.visualization import plot_intermediate_values

    chosen, winner = {t.number: t for t in spread(table, MOST_LINES)}, table.best
    figure = _drawn(
        plot_intermediate_values, as_study(table, lambda t: t.number in chosen, steps=MOST_POINTS)
    )
    for trace in figure.data:
        trial = chosen[int(str(trace.name).removeprefix("Trial"))]
        style = family_style(trial.family)
        best = trial is winner
        trace.update(
            mode="lines",
            name=f"#{trial.number} {html.escape(trial.family)}",
            line={"color": style.color, "width": 3 if best else 1.2},
            opacity=1 if best else 0.75 if trial.status == "complete" else 0.3,
            hovertemplate="%{fullData.name}<br>epoch %{x}: loss %{y:.4~g}<extra></extra>",
        )
    losses = [v for trace in figure.data for v in trace.y]
    figure.update_yaxes(title="validation loss", **loss_axis(losses))
    figure.update_xaxes(title="epoch", **whole_ticks(table.budget or 0))
    figure.update_layout(height=420, showlegend=False)
    return figure


def spread(table: StudyTable, most: int) -> list[TrialRow]:
    """Trials with more than one epoch: half the places to the best, half evenly to the others."""
    usable = [
        t
        for t in table.having("complete", "pruned")
        if t.epochs > 1 and t.last_loss is not None and math.isfinite(t.last_loss)
    ]
    if len(usable) <= most:
        return usable
    numbers = {t.number for t in usable}
    complete = [t for t in table.complete if t.number in numbers][: most // 2]
    taken = {t.number for t in complete}
    others = [t for t in usable if t.number not in taken]
    step = len(others) / (most - len(complete))
    return complete + [others[int(i * step)] for i in range(most - len(complete))]


def slice_figure(table: StudyTable, family: str) -> Figure | None:
    """Loss against each parameter of one family (``plot_slice``); None where it has none."""
    from optuna.visualization import plot_slice

    mine = [t for t in table.complete if t.family == family]
    own = sorted({k for t in mine for k in t.params if k.startswith(f"{family}.")})
    if not own or len(mine) < 4:
        return None
    params = ["lr", *own] if all("lr" in t.params for t in mine) else own
    study = as_study(table, lambda t: t.status == "complete" and t.family == family)
    figure = _drawn(plot_slice, study, params=params, target_name="validation loss")
    figure.update_traces(
        marker={
            "color": family_style(family).color,
            "size": 7,
            "opacity": 0.7,
            "line": {"width": 0},
            "showscale": False,
        },
        showlegend=False,
    )
    for axis in figure.select_xaxes():
        param = str(axis.title.text or "")
        axis.title = {"text": html.escape(param.removeprefix(f"{family}."))}
        if axis.type == "log":
            axis.update(log_ticks([t.params.get(param) for t in mine], narrow=True))
        elif axis.type == "category":  # Optuna quotes its choices, and plotly halves the last
            choices = list(axis.categoryarray)
            said = [html.escape(choice.strip("'")) for choice in choices]
            axis.update(tickvals=choices, ticktext=said, range=[-0.5, len(choices) - 0.5])
        else:
            whole = [v for t in mine if isinstance(v := t.params.get(param), int)]
            few = len(whole) == len(mine) and max(whole) - min(whole) <= 4
            axis.update(dtick=1 if few else None, nticks=4)
    figure.update_layout(height=330, showlegend=False, coloraxis_showscale=False)
    return figure


def timeline_figure(table: StudyTable) -> Figure | None:
    """When each trial ran (``plot_timeline``), the last 400; None where they ran one by one."""
    from optuna.visualization import plot_timeline

    rows = [t for t in table.trials if t.started and t.finished][-MOST_BARS:]
    times = sorted((t.started, t.finished) for t in rows if t.started and t.finished)
    if not any(b[0] < a[1] for a, b in pairwise(times)):
        return None
    kept = {t.number for t in rows}
    figure = _drawn(plot_timeline, as_study(table, lambda t: t.number in kept))
    names = {"COMPLETE": ("trained to the end", BLUE), "PRUNED": ("stopped", "#7F7F7F")}
    for trace in figure.data:
        name, color = names.get(str(trace.name), (str(trace.name).lower(), VERMILION))
        trace.update(name=name, marker={"color": color, "line": {"width": 0}})
        trace.update(hovertemplate="trial %{y}<extra></extra>", hovertext=None)
    figure.update_xaxes(title="")
    figure.update_yaxes(title="trial")
    figure.update_layout(height=360, legend=LEGEND_ABOVE)
    return figure
