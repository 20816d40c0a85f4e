"""Schedules drawn without training, by family or as saved in files.

``lrsearch curves StepLR gamma=0.5,0.9 step_size=10``, ``lrsearch curves best.yaml robust.yaml``
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lrsearch.errors import UsageError
from lrsearch.files import write_text
from lrsearch.report.pictures import write_pictures
from lrsearch.report.style import PALETTE, figure_layout
from lrsearch.saved import load
from lrsearch.schedules import Schedule
from lrsearch.schedules.trace import without_training

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MAX_LINES = 60
_FINE = 600  # points a line, for schedules that are stepped within an epoch
_LONG = 40  # characters of a label


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
    lr: float | Sequence[float],
    epochs: int,
    warmup: int = 0,
    interval: Literal["auto", "epoch", "step"] = "auto",
) -> list[Line]:
    """One line for each combination of the listed values, and for each rate of several.

    Args:
        family: Name of a schedule family.
        values: Argument -> its values, one or several.
        lr: Peak rate; several are those of the parameter groups of one optimizer.
        epochs: Budget.
        warmup: Epochs of linear warmup.
        interval: When the scheduler is stepped; ``auto`` for the family's own.

    Raises:
        UsageError: A mistake in a value, too many lines, or a family without a curve of its own.

    Example:
        >>> lines = curve_lines("StepLR", {"gamma": [0.5, 0.9], "step_size": [10]}, 0.1, 30)
        >>> [line.label for line in lines]
        ['gamma 0.5', 'gamma 0.9']
    """
    rates = [lr] if isinstance(lr, (int, float)) else list(lr)
    count = math.prod(len(each) for each in values.values()) * len(rates)
    if not 1 <= count <= MAX_LINES:
        raise UsageError(
            f"{count:,} lines are not 1 to {MAX_LINES}; give each value fewer choices"
        )
    varied = [name for name, each in values.items() if len(each) > 1]
    lines = []
    for combination in itertools.product(*values.values()):
        params = dict(zip(values, combination, strict=True))
        schedule = Schedule(family, max(rates), epochs, params, warmup, interval=interval)
        words = [f"{name} {_word(params[name])}" for name in varied]
        own = [[*words, f"lr {rate:g}"] if len(rates) > 1 else words for rate in rates]
        labels = ["  ".join(each) or schedule.describe() for each in own]
        lines += _lines(schedule, labels, rates)
    return lines


def saved_lines(files: Sequence[Path]) -> list[Line]:
    """One line for each file that ``lrsearch run`` or ``lrsearch export`` wrote.

    Raises:
        UsageError: A file that is missing or damaged, or a schedule without a curve of its own.
    """
    lines = []
    names = [file.name for file in files]
    for file in files:
        schedule = load(file)
        name = file.name if names.count(file.name) == 1 else str(file)
        label = f"{name}: {schedule.describe()}  lr {schedule.lr:.4g}"
        lines += _lines(schedule, [label], [schedule.lr])
    return lines


def _lines(schedule: Schedule, labels: Sequence[str], rates: Sequence[float]) -> list[Line]:
    """The lines of a schedule, one for each parameter group."""
    per_step = schedule.interval == "step"
    fine = max(1, math.ceil(_FINE / schedule.epochs)) if per_step else 1
    x = [t / fine for t in range(schedule.epochs * fine)]
    return [
        Line(label, [*x, float(schedule.epochs)], [*y, y[-1]], not per_step)
        for label, y in zip(labels, _traces(schedule, rates, fine), strict=True)
    ]


def _traces(schedule: Schedule, rates: Sequence[float], fine: int) -> list[list[float]]:
    """The rate of each parameter group at every scheduler step."""
    alone = schedule.trace(fine).lr.tolist()
    if len(rates) == 1:
        return [alone]
    import torch

    groups = [{"params": [torch.nn.Parameter(torch.zeros(()))], "lr": rate} for rate in rates]
    optimizer = without_training(torch.optim.SGD)(groups, momentum=0.9)
    scheduler = schedule.build(optimizer, fine)
    out: list[list[float]] = [[] for _ in rates]
    for _ in range(schedule.epochs * fine):
        for line, group in zip(out, optimizer.param_groups, strict=True):
            line.append(float(group["lr"]))
        optimizer.step()
        scheduler.step()
    return out


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
    if max(len(line.label) for line in lines) > _LONG:  # above the plot, which has its width then
        figure.update_layout(legend={"x": 0, "y": 1.02, "yanchor": "bottom"})
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


def curves_title(
    family: str, values: Mapping[str, Sequence[Any]], lr: float | Sequence[float], warmup: int = 0
) -> str:
    """What all the lines of :func:`curve_lines` share."""
    fixed = [f"{name} {_word(each[0])}" for name, each in values.items() if len(each) == 1]
    rate = [f"lr {lr:g}"] if isinstance(lr, (int, float)) else []
    return ", ".join([family, *rate, *fixed, *([f"warmup {warmup}"] if warmup else [])])


def write_curves(lines: Sequence[Line], path: Path, *, title: str = "", log: bool = False) -> None:
    """Draw the lines into one file: HTML that needs no network, SVG or PNG.

    Args:
        lines: Of :func:`curve_lines` or :func:`saved_lines`.
        path: File to write; ``.svg`` and ``.png`` need kaleido.
        title: Of the figure.
        log: Logarithmic axis of the rate.

    Raises:
        UsageError: The name of the file says no format of ours.
    """
    if path.suffix not in ("", ".html", ".htm", ".svg", ".png"):
        raise UsageError(f"curves {path}: the name must end in .html, .svg or .png")
    figure = curves_figure(lines, title, log)
    if path.suffix in (".svg", ".png"):
        write_pictures([figure], [path], width=800)
        return
    page: str = figure.to_html(
        include_plotlyjs=True,
        config={"responsive": True, "displaylogo": False, "showSendToCloud": False},
        default_height="96vh",
    )
    style = (
        '<meta name="viewport" content="width=device-width"><title>lrsearch curves</title>'
        "<style>:root{color-scheme:light dark}body{margin:1.5vh 1vw}</style>"
    )
    write_text(path, page.replace("<head>", f"<head>{style}", 1))
