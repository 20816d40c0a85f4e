"""One trial as a picture: its learning rate over the budget, and its loss, as SVG."""

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

    x, y = at(*usable[0])
    path = [f"M{x:.1f} {y:.1f}"]
    for point in usable[1:]:
        x, y = at(*point)
        path.append(f"H{x:.1f}V{y:.1f}" if level else f"L{x:.1f} {y:.1f}")
    high_text, low_text = words.number(high), words.number(low)
    return (
        f"{frame}"
        f'<path fill="none" stroke="{color}" stroke-width="2" d="{"".join(path)}"/>'
        f'<text x="{_LEFT - 6}" y="{top + 10}" text-anchor="end">{high_text}</text>'
        f'<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end">{low_text}</text>'
    )
