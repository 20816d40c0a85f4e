"""Schedules drawn without training: ``lrsearch curves StepLR gamma=0.5,0.9 step_size=10``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lrsearch.errors import UsageError
from lrsearch.files import write_text
from lrsearch.report.style import PALETTE, figure_layout
from lrsearch.schedules import Schedule

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MAX_LINES = 60
_FINE = 600  # points a line, for schedules that are stepped within an epoch


class Line(NamedTuple):
    """One schedule as a curve.

    Args:
        label: What sets it apart from the other lines, ``gamma 0.5``.
        x: Epochs; where a rate begins to be used, and the end of the last.
        y: Learning rate from there on.
        steps: Level until the next point (stepped per epoch), not a slope.
    """

    label: str
    x: list[float]
    y: list[float]
    steps: bool


def curve_lines(
    family: str,
    values: Mapping[str, Sequence[Any]],
    lr: float,
    epochs: int,
    warmup: int = 0,
    interval: Literal["auto", "epoch", "step"] | None = "auto",
) -> list[Line]:
    """One line for each combination of the listed values.

    Args:
        family: Name of a schedule family.
        values: Argument -> its values; a single value is no sequence of one line more.
        lr: Peak rate.
        epochs: Budget.
        warmup: Epochs of linear warmup.
        interval: When the scheduler is stepped; None or ``auto`` for the family's own.

    Raises:
        UsageError: A mistake in a value, too many lines, or a family without a curve of its own.

    Example:
        >>> lines = curve_lines("StepLR", {"gamma": [0.5, 0.9], "step_size": [10]}, 0.1, 30)
        >>> [line.label for line in lines]
        ['gamma 0.5', 'gamma 0.9']
    """
    count = math.prod(len(each) for each in values.values())
    if not 1 <= count <= MAX_LINES:
        raise UsageError(
            f"{count:,} lines are not 1 to {MAX_LINES}; give each value fewer choices"
        )
    varied = [name for name, each in values.items() if len(each) > 1]
    lines = []
    for combination in itertools.product(*values.values()):
        params = dict(zip(values, combination, strict=True))
        schedule = Schedule(family, lr, epochs, params, warmup, interval=interval or "auto")
        label = "  ".join(f"{name} {_word(params[name])}" for name in varied)
        lines.append(_line(label or schedule.describe(), schedule))
    return lines


def _line(label: str, schedule: Schedule) -> Line:
    per_step = schedule.interval == "step"
    fine = max(1, math.ceil(_FINE / schedule.epochs)) if per_step else 1
    rates = schedule.trace(fine).lr.tolist()
    x = [t / fine for t in range(len(rates))]
    return Line(label, [*x, float(schedule.epochs)], [*rates, rates[-1]], not per_step)


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def curves_figure(lines: Sequence[Line], title: str = "", log: bool = False) -> Figure:
    """The lines as one figure: learning rate against epochs.

    Args:
        lines: What :func:`curve_lines` gave.
        title: Of the figure.
        log: Logarithmic axis of the rate; rates of 0 are not drawn there.
    """
    import plotly.graph_objects as go

    figure = go.Figure(layout=figure_layout(title))
    colors = _colors(len(lines))
    for index, line in enumerate(lines):
        y = [rate if rate > 0 or not log else None for rate in line.y]
        figure.add_scatter(
            x=line.x,
            y=y,
            name=line.label,
            mode="lines",
            line={
                "color": colors[index],
                "width": 2.4,
                "shape": "hv" if line.steps else "linear",
            },
            hovertemplate="epoch %{x:.4~g}, lr %{y:.3~g}",
        )
    figure.update_layout(
        showlegend=len(lines) > 1, hovermode="x unified" if len(lines) <= 12 else "closest"
    )
    figure.update_xaxes(title="epoch", range=[0, max(line.x[-1] for line in lines)])
    if log:
        shown = [rate for line in lines for rate in line.y if rate > 0]
        decades = math.log10(max(shown) / min(shown)) if shown else 0.0
        figure.update_yaxes(title="learning rate", type="log", exponentformat="power")
        figure.update_yaxes(dtick=1 if decades > 2 else "D1")
    else:
        figure.update_yaxes(title="learning rate", rangemode="tozero", exponentformat="power")
    return figure


def _colors(count: int) -> list[str]:
    """Distinct hues for a few lines; a ramp that stays readable in grey for many."""
    if count <= len(PALETTE):
        return list(PALETTE[:count])
    from plotly.colors import sample_colorscale

    return list(
        sample_colorscale("Viridis", [0.18 + 0.74 * i / (count - 1) for i in range(count)])
    )


def write_curves(
    family: str,
    values: Mapping[str, Sequence[Any]],
    path: Path,
    *,
    lr: float,
    epochs: int,
    warmup: int = 0,
    interval: Literal["auto", "epoch", "step"] | None = None,
    log: bool = False,
) -> Path:
    """Draw the lines into one HTML file that needs no network; returns ``path``.

    Args:
        family: Name of a schedule family.
        values: Argument -> its values.
        path: File to write.
        lr: Peak rate.
        epochs: Budget.
        warmup: Epochs of linear warmup.
        interval: When the scheduler is stepped; None for the family's own.
        log: Logarithmic axis of the rate.
    """
    lines = curve_lines(family, values, lr, epochs, warmup, interval)
    fixed = [f"{name} {_word(each[0])}" for name, each in values.items() if len(each) == 1]
    title = ", ".join([family, f"lr {lr:g}", *fixed, *([f"warmup {warmup}"] if warmup else [])])
    page: str = curves_figure(lines, title, log).to_html(
        include_plotlyjs=True,
        config={"responsive": True, "displaylogo": False, "showSendToCloud": False},
        default_height="96vh",
    )
    style = (
        '<meta name="viewport" content="width=device-width"><title>lrsearch curves</title>'
        "<style>:root{color-scheme:light dark}body{margin:1.5vh 1vw}</style>"
    )
    write_text(path, page.replace("<head>", f"<head>{style}", 1))
    return path
