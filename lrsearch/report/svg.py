"""Drawings as SVG: a family's mark, the shape of a rate, how trials ended, and one trial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from lrsearch.report import words
from lrsearch.report.learning_curves import LearningCurve
from lrsearch.report.style import family_style

WIDTH, HEIGHT = 480, 300
_LEFT, _RIGHT = 56.0, 468.0
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#5b5f66}.t{font-size:14px;fill:#1d1e21}"
    ".g{stroke:#8885;stroke-width:1}@media(prefers-color-scheme:dark){text{fill:#b0b3ba}"
    ".t{fill:#ecebe7}}"
)


def _regular(corners: int, turn: float = -90.0, inner: float = 1.0) -> list[tuple[float, float]]:
    """Corners of a regular polygon, or of a star where ``inner`` is below 1."""
    n = corners if inner == 1.0 else 2 * corners
    points = []
    for i in range(n):
        r = 5.4 * (inner if inner < 1.0 and i % 2 else 1.0)
        a = math.radians(turn + 360 * i / n)
        points.append((r * math.cos(a), r * math.sin(a)))
    return points


_SHAPES: dict[str, Sequence[tuple[float, float]]] = {
    "square": [(-4.4, -4.4), (4.4, -4.4), (4.4, 4.4), (-4.4, 4.4)],
    "diamond": _regular(4),
    "triangle-up": _regular(3),
    "triangle-down": _regular(3, 90),
    "pentagon": _regular(5),
    "hexagon": _regular(6),
    "octagon": _regular(8),
    "star": _regular(5, inner=0.45),
    "hexagram": _regular(6, inner=0.6),
    "star-diamond": _regular(4, inner=0.5),
    "star-square": _regular(4, -45, inner=0.5),
    "hourglass": [(-4.6, -4.6), (4.6, -4.6), (-4.6, 4.6), (4.6, 4.6)],
    "bowtie": [(-4.6, -4.6), (4.6, 4.6), (4.6, -4.6), (-4.6, 4.6)],
    "cross": [
        (-1.8, -5), (1.8, -5), (1.8, -1.8), (5, -1.8), (5, 1.8), (1.8, 1.8),
        (1.8, 5), (-1.8, 5), (-1.8, 1.8), (-5, 1.8), (-5, -1.8), (-1.8, -1.8),
    ],
}  # fmt: skip


def mark(family: str) -> str:
    """The mark of a family, as it is in every figure."""
    style = family_style(family)
    symbol = style.symbol
    turn = ""
    if symbol == "x":
        symbol, turn = "cross", ' transform="rotate(45)"'
    points = _SHAPES.get(symbol)
    if points is None:
        body = f'<circle r="4.9" fill="{style.color}"/>'
    else:
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        body = f'<polygon points="{text}" fill="{style.color}"{turn}/>'
    return f'<svg class="mark" viewBox="-7 -7 14 14" aria-hidden="true">{body}</svg>'


def sparkline(x: Sequence[float], y: Sequence[float], level: bool, family: str) -> str:
    """The shape of a rate over its budget, from 0 to its peak."""
    if not x or max(y) <= 0:
        return ""
    width, height, pad = 120.0, 30.0, 2.0
    end, top = x[-1] or 1.0, max(y)
    points = [
        (pad + (width - 2 * pad) * a / end, height - pad - (height - 2 * pad) * b / top)
        for a, b in zip(x, y, strict=True)
    ]
    line = _path(points, level)
    area = f"{line}V{height - pad:.1f}H{points[0][0]:.1f}Z"
    color = family_style(family).color
    return (
        f'<svg class="spark" viewBox="0 0 {width:.0f} {height:.0f}" aria-hidden="true">'
        f'<path d="{area}" fill="{color}" opacity="0.14"/>'
        f'<path d="{line}" fill="none" stroke="{color}" stroke-width="1.6" '
        'stroke-linejoin="round"/></svg>'
    )


def _path(points: Sequence[tuple[float, float]], level: bool) -> str:
    """A line through points; ``level``: it stays level until the next."""
    steps = ((f"H{x:.1f}V{y:.1f}" if level else f"L{x:.1f} {y:.1f}") for x, y in points[1:])
    return f"M{points[0][0]:.1f} {points[0][1]:.1f}" + "".join(steps)


def shares_bar(parts: Sequence[tuple[str, int]]) -> str:
    """A bar cut into classed parts, for counts such as (complete, 12), (pruned, 30)."""
    total = sum(n for _, n in parts)
    if not total:
        return ""
    at = 0.0
    pieces = []
    for name, n in parts:
        width = 100 * n / total
        if n:
            pieces.append(
                f'<rect class="{name}" x="{at:.2f}" y="0" width="{width:.2f}" height="8"/>'
            )
        at += width
    label = ", ".join(f"{n} {name}" for name, n in parts if n)
    return (
        f'<svg class="parts" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}"><title>{label}</title>{"".join(pieces)}</svg>'
    )


def trial_picture(curve: LearningCurve) -> str:
    """The rate of a trial above, its validation loss below, over the same epochs.

    Args:
        curve: From :func:`lrsearch.report.learning_curves.thinned_curves`.
    """
    trial = curve.trial
    title = f"#{trial.number} {trial.family}, lr {words.number(trial.lr)}"
    if settings := words.settings(trial):
        title += f", {settings}"
    end = curve.x[-1] if curve.x else float(max(trial.budget, 1))
    color = family_style(trial.family).color
    losses = [(float(e), v) for e, v in zip(curve.epoch, curve.loss, strict=True) if v is not None]
    rates = list(zip(curve.x, curve.lr, strict=True))
    parts = [
        f'<text class="t" x="10" y="20">{escape(title[:64])}</text>',
        _panel(rates, 34.0, 150.0, end, color, "lr", level=curve.level, zero=True),
        _panel(losses, 172.0, 272.0, end, color, "val loss", level=False, zero=False),
        f'<text x="{_LEFT}" y="292" text-anchor="middle">0</text>',
        f'<text x="{_RIGHT}" y="292" text-anchor="end">epoch {end:g}</text>',
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}"><style>{_STYLE}</style>{"".join(parts)}</svg>'
    )


def _panel(
    points: Sequence[tuple[float, float]],
    top: float,
    bottom: float,
    end: float,
    color: str,
    label: str,
    *,
    level: bool,
    zero: bool,
) -> str:
    """One curve with its frame and the values at its ends."""
    usable = [(x, y) for x, y in points if math.isfinite(y)]
    frame = (
        f'<path class="g" fill="none" d="M{_LEFT} {top}V{bottom}H{_RIGHT}"/>'
        f'<text x="{_LEFT - 6}" y="{(top + bottom) / 2 + 4}" text-anchor="end">{label}</text>'
    )
    if not usable:
        return frame
    values = [y for _, y in usable]
    low, high = (0.0 if zero else min(values)), max(values)
    span = high - low or abs(high) or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (_RIGHT - _LEFT) * x / (end or 1.0),
            bottom - (bottom - top - 6) * (y - low) / span,
        )

    path = _path([at(*point) for point in usable], level)
    high_text, low_text = words.number(high), words.number(low)
    return (
        f"{frame}"
        f'<path fill="none" stroke="{color}" stroke-width="2" d="{path}"/>'
        f'<text x="{_LEFT - 6}" y="{top + 10}" text-anchor="end">{high_text}</text>'
        f'<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end">{low_text}</text>'
    )
