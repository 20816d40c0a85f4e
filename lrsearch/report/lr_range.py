"""The lr range test of a study as a figure: loss against rate, and the range that is searched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import optuna

from lrsearch.attributes import LR_RANGE_ATTR
from lrsearch.measured import LrRange
from lrsearch.report.figures import log_ticks
from lrsearch.report.style import BLUE, VERMILION, figure_layout

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


RANGE = (
    "One model, trained for a few steps while the rate grows. Shaded: what is searched; dashed: "
    "where it diverged."
)
"""What is said below the figure."""


def lr_range_table(study: optuna.Study) -> LrRange | None:
    """The range test kept with a study; None where none was run."""
    stored = study.user_attrs.get(LR_RANGE_ATTR)
    return None if stored is None else LrRange(**stored)


def lr_range_figure(test: LrRange) -> Figure:
    """Training loss against the growing rate; the range searched is shaded."""
    import plotly.graph_objects as go

    figure = go.Figure(layout=figure_layout())
    figure.add_scatter(
        x=test.lrs,
        y=test.losses,
        name="each step",
        mode="markers",
        marker={"size": 4, "color": "rgba(127,127,127,0.5)"},
    )
    figure.add_scatter(
        x=test.lrs,
        y=test.smoothed,
        name="smoothed",
        mode="lines",
        line={"color": BLUE, "width": 2.4},
    )
    figure.add_vrect(x0=test.low, x1=test.high, fillcolor=BLUE, opacity=0.12, line_width=0)
    if test.diverges_at is not None:
        figure.add_vline(x=test.diverges_at, line={"dash": "dash", "color": VERMILION})
    figure.update_xaxes(title="learning rate", **log_ticks(test.lrs))
    start, bottom = test.smoothed[0], min(0.0, *test.smoothed)
    top = start + 0.3 * (start - bottom)
    figure.update_yaxes(title="training loss", range=[bottom, top] if bottom < top else None)
    return figure
