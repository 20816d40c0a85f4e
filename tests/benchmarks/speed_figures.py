"""The figures of the speed record, as SVG."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

Runs = dict[str, list[dict[str, Any]]]
NAMES = {"lrsearch": "lrsearch", "plain": "plain script", "ray": "Ray Tune"}
COLORS = {"lrsearch": "#0072B2", "plain": "#999999", "ray": "#E69F00"}
WORDS = {
    "speed.svg": "CPU seconds and best value of each arm",
    "growth.svg": "CPU seconds of a study by its number of trials",
}


def drawings(record: dict[str, Any]) -> dict[str, str]:
    """File name -> SVG, of the parts that are there."""
    kinds = {"speed.svg": ("study digits", bars), "growth.svg": ("growth digits", growth)}
    return {
        name: draw(record[part]["runs"]) for name, (part, draw) in kinds.items() if part in record
    }


def bars(runs: Runs) -> str:
    """CPU seconds and best value of each arm, one dot a round, as SVG."""
    width, left, row = 720, 120, 44
    height = 60 + row * len(runs)
    panels = (("cpu", "CPU seconds of the study", left), ("best", "best value", 440))
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for key, title, x0 in panels:
        values = [cost[key] for found in runs.values() for cost in found]
        low = 0.0 if key == "cpu" else min(values) - 0.1 * (max(values) - min(values))
        high = 1.05 * max(values) if key == "cpu" else max(values) + 0.05 * (max(values) - low)
        span = (high - low) or 1.0
        out.append(f'<text x="{x0}" y="24" fill="#222">{title}</text>')
        for i, (arm, found) in enumerate(runs.items()):
            y = 56 + row * i
            if key == "cpu":
                out.append(f'<text x="8" y="{y + 4}" fill="#222">{NAMES[arm]}</text>')
            out.append(f'<line x1="{x0}" x2="{x0 + 220}" y1="{y}" y2="{y}" stroke="#ddd"/>')
            for cost in found:
                x = x0 + 220 * (cost[key] - low) / span
                dot = f'<circle cx="{x:.1f}" cy="{y}" r="5" fill="{COLORS[arm]}" opacity="0.7"/>'
                out.append(dot)
            middle = statistics.median(cost[key] for cost in found)
            label = f'<text x="{x0 + 228}" y="{y + 4}" fill="#222">{middle:.3g}</text>'
            out.append(label)
    return "\n".join([*out, "</svg>"]) + "\n"


def growth(runs: Runs) -> str:
    """CPU seconds of a study by its trials, both on a log scale; a line through the medians."""
    width, height, left, low = 720, 330, 70, 280
    costs = [cost for found in runs.values() for cost in found]
    xs = _decades([cost["trials"] for cost in costs])
    ys = _decades([cost["cpu"] for cost in costs])

    def place(trials: float, seconds: float) -> tuple[float, float]:
        right, up = (
            (math.log10(value) - ends[0]) / (ends[-1] - ends[0])
            for value, ends in ((trials, xs), (seconds, ys))
        )
        return left + 500 * right, low - 240 * up

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="13" fill="#222">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="24">CPU seconds of the study</text>',
        f'<text x="{left + 250}" y="{low + 42}" text-anchor="middle">trials</text>',
    ]
    for k in ys:
        _, y = place(10 ** xs[0], 10**k)
        out.append(
            f'<line x1="{left}" x2="{left + 500}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        )
        out.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**k:g}</text>')
    for k in xs:
        x, _ = place(10**k, 10 ** ys[0])
        out.append(f'<text x="{x:.1f}" y="{low + 20}" text-anchor="middle">{10.0**k:,.0f}</text>')
    for arm, found in runs.items():
        by_size: dict[int, list[float]] = {}
        for cost in found:
            by_size.setdefault(cost["trials"], []).append(cost["cpu"])
            x, y = place(cost["trials"], cost["cpu"])
            out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{COLORS[arm]}"/>')
        middles = [place(n, statistics.median(each)) for n, each in sorted(by_size.items())]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in middles)
        out.append(f'<polyline points="{points}" fill="none" stroke="{COLORS[arm]}"/>')
        x, y = middles[-1]
        out.append(f'<text x="{x + 10:.1f}" y="{y + 4:.1f}">{NAMES[arm]}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def _decades(values: Sequence[float]) -> list[int]:
    """Exponents of ten, from below the least value to above the largest.

    Example:
        >>> _decades([3.0, 250.0])
        [0, 1, 2, 3]
    """
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return list(range(low, max(high, low + 1) + 1))
