"""What mattered, shown: a line for a terminal, sentences and figures for the page."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lrsearch.attributes import SHARED
from lrsearch.report import words
from lrsearch.report.importance import LEAST_TRIALS, Importance, Shares
from lrsearch.report.style import BLUE, LEGEND_ABOVE, SKY, family_style, figure_layout, pale

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FAINT = "rgba(127,127,127,0.55)"
NAMES = {"scheduler": "scheduler", "lr": "learning rate", "warmup": "warmup"}


def importance_line(found: Importance, family: str) -> str:
    """What mattered, in one line for a terminal; "" with too few trials.

    Only what stands out is told (:meth:`Shares.clear`), with its spread: over all trials, and
    within one family.

    Args:
        found: The importance.
        family: That of the best schedule.
    """
    if found.overall is None:
        return ""
    own = _own(found, family)
    if top := found.overall.clear():
        said = _parts(found.overall, {name: name for name in top})
        more = "; nothing else stands out" if len(top) < len(found.overall.share) else ""
        text = f"what mattered: {said} of the differences{more}"
    else:
        beyond = "over all trials" if own else "from chance"
        text = f"what mattered: nothing stands out {beyond} yet"
    if not own:
        return text
    parts = [f"{name} {_part(found.within[family], name)}" for name in own]
    return f"{text} · within {family}: {words.listing(parts)}"


def _own(found: Importance, family: str) -> list[str]:
    """Those of a family's own parameters that stand out."""
    shares = found.within.get(family)
    return [] if shares is None else shares.clear(shares.share.keys() - SHARED)


def _parts(found: Shares, names: Mapping[str, str]) -> str:
    """What parameters explain: ``lr explains 49 ± 23% and warmup 12 ± 3%``."""
    first, *rest = ((text, _part(found, name)) for name, text in names.items())
    return words.listing([" explains ".join(first), *map(" ".join, rest)])


def _part(found: Shares, name: str) -> str:
    """A share with its spread: ``49 ± 23%``."""
    return f"{100 * found.share[name]:.0f} ± {words.percent(found.spread.get(name, 0.0))}"


def importance_sentences(found: Importance) -> list[str]:
    """What mattered, as Markdown for the page: over all trials, and among the better half."""
    if found.overall is None:
        if found.trials < LEAST_TRIALS:
            needed = f"({LEAST_TRIALS} are needed)"
            return [f"Too few trials have finished to say what mattered {needed}."]
        return ["The trials came to nothing that family, rate or warmup could explain."]
    names = {"scheduler": "the scheduler", "lr": "the learning rate", "warmup": "warmup"}

    def parts(found: Shares) -> str:
        return _parts(found, {k: names.get(k, words.code(k)) for k in found.share})

    text = parts(found.overall)
    if not found.overall.clear():
        text = f"nothing stands out from chance yet: {text}"
    own = ", in the families' own parameters" if found.within or found.too_few else ""
    lines = [
        f"{text[0].upper()}{text[1:]} of the differences between {found.overall.trials:,} "
        f"trials; {words.percent(found.overall.rest)} lies in combinations of them{own} and in "
        "chance."
    ]
    if found.better is not None:
        chance = " nothing stands out from chance:" if not found.better.clear() else ","
        better = parts(found.better)
        lines.append(f"Among the better half of the trials{chance} {better}.")
    return lines


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
        legend=LEGEND_ABOVE | {"traceorder": "reversed"},
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
