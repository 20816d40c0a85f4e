"""One look for every figure: a family has the same colour, symbol and line everywhere.

Hues are Okabe and Ito's (2008), which people with any common colour vision deficiency tell apart;
with a violet in place of the yellow, which does not show on white. Families that share a hue
differ in symbol and dash, so that no figure relies on colour alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, VIOLET, GREY = "#CC79A7", "#56B4E9", "#7A4FE0", "#6D6D6D"

MIDDLE_GREY = "rgba(127,127,127,0.95)"
"""For what stands beside the families in a figure; it shows on light and on dark pages."""
PRUNED = "#9AA0A8"
"""Of what was stopped early, as on the page."""
PALETTE: tuple[str, ...] = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, VIOLET, GREY)
"""Colours for lines that are not families (parameter values, arms), in order of use."""


LEGEND_ABOVE = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
LEGEND_BELOW = {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"}


@dataclass(frozen=True)
class Style:
    """How one family is drawn.

    Args:
        color: Hex colour, readable on white and on dark backgrounds.
        symbol: plotly marker symbol; append ``"-open"`` for a hollow one (pruned trials).
        dash: plotly line dash.
    """

    color: str
    symbol: str
    dash: str


FAMILY_STYLES: dict[str, Style] = {
    "ConstantLR": Style(GREY, "circle", "solid"),
    "StepLR": Style(ORANGE, "square", "solid"),
    "MultiStepLR": Style(ORANGE, "diamond", "dash"),
    "ExponentialLR": Style(VERMILION, "circle", "solid"),
    "MultiplicativeLR": Style(VERMILION, "triangle-down", "dash"),
    "ChainedScheduler": Style(VERMILION, "cross", "dot"),
    "LinearLR": Style(GREEN, "triangle-up", "solid"),
    "PolynomialLR": Style(GREEN, "pentagon", "dash"),
    "CosineAnnealingLR": Style(BLUE, "circle", "solid"),
    "CosineAnnealingWarmRestarts": Style(BLUE, "star", "dash"),
    "SequentialLR": Style(BLUE, "hexagon", "dot"),
    "OneCycleLR": Style(PURPLE, "diamond", "solid"),
    "CyclicLR": Style(PURPLE, "hourglass", "dash"),
    "LambdaLR": Style(SKY, "square", "solid"),
    "ReduceLROnPlateau": Style(VIOLET, "x", "solid"),
    "Points": Style(GREY, "star-diamond", "dash"),
}
"""Family name -> its style; unknown families (a user's own) get one from :func:`family_style`."""


def family_style(name: str) -> Style:
    """The style of a family by name; the same name always gives the same style.

    Example:
        >>> family_style("CosineAnnealingLR").color
        '#0072B2'
    """
    if name in FAMILY_STYLES:
        return FAMILY_STYLES[name]
    turn = sum(name.encode())  # not hash(): that changes from run to run
    symbols = ("bowtie", "star-square", "hexagram", "octagon")
    return Style(PALETTE[turn % len(PALETTE)], symbols[turn % len(symbols)], "longdashdot")


def lay_out(figure: Figure, **options: Any) -> None:
    """Give a figure of several panels, or one that Optuna made, our layout on every axis.

    Args:
        figure: Is changed.
        **options: Of the layout, such as ``height``.
    """
    layout = figure_layout()
    axis = layout.pop("xaxis")
    del layout["yaxis"]
    figure.update_layout(layout, **options)
    figure.update_xaxes(axis)
    figure.update_yaxes(axis)


def pale(color: str, opacity: float) -> str:
    """A hex colour, partly transparent."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def figure_layout(title: str = "") -> dict[str, Any]:
    """plotly layout of all figures: calm grid, no frame, readable on light and dark pages.

    Backgrounds are transparent and text is a mid grey, so that a page may be either.

    Args:
        title: Figure title; empty for none.
    """
    axis = {
        "gridcolor": "rgba(127,127,127,0.22)",
        "zeroline": False,
        "linecolor": "rgba(127,127,127,0.55)",
        "ticks": "outside",
        "tickcolor": "rgba(127,127,127,0.55)",
        "ticklen": 4,
        "automargin": True,
    }
    return {
        "title": {"text": title, "x": 0, "xref": "paper", "font": {"size": 16}},
        "font": {
            "family": "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif",
            "size": 13,
            "color": "#767676",
        },
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": list(PALETTE),
        "margin": {"l": 60, "r": 20, "t": 56 if title else 24, "b": 52},
        "hovermode": "closest",
        "legend": {"bgcolor": "rgba(0,0,0,0)", "itemsizing": "constant"},
        "xaxis": dict(axis),
        "yaxis": dict(axis),
    }
