"""Small drawings in the text: a family's mark, and the shape of a rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lrsearch.report.style import family_style


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
    path = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for px, py in points[1:]:
        path.append(f"H{px:.1f}V{py:.1f}" if level else f"L{px:.1f} {py:.1f}")
    line = "".join(path)
    area = f"{line}V{height - pad:.1f}H{points[0][0]:.1f}Z"
    color = family_style(family).color
    return (
        f'<svg class="spark" viewBox="0 0 {width:.0f} {height:.0f}" aria-hidden="true">'
        f'<path d="{area}" fill="{color}" opacity="0.14"/>'
        f'<path d="{line}" fill="none" stroke="{color}" stroke-width="1.6" '
        'stroke-linejoin="round"/></svg>'
    )


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
