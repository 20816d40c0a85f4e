"""A record for the README beside it: tables as Markdown, and a figure.

The figure has the rates of its schedules, and what they came to on each seed.
"""

from __future__ import annotations

import html
import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lrsearch.report import words
from lrsearch.report.figures import log_ticks, loss_axis
from lrsearch.report.learning_curves import trace_points
from lrsearch.report.style import PALETTE, family_style, lay_out
from lrsearch.report.tables import ENDED
from lrsearch.stats import method

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST = 8
MOST_POINTS = 250


def record_block(record: Mapping[str, Any], name: str) -> str:
    """The Markdown between the markers of a README: tables, and how they were made."""
    lines = [f"<!-- {name} -->", *_facts(record), ""]
    confirm = record.get("confirm")
    if confirm is None:
        lines += _search_lines(record["search"])
    else:
        lines += [*_arm_lines(confirm), "", *_pair_lines(confirm)]
    return "\n".join([*lines, f"<!-- /{name} -->"])


def _facts(record: Mapping[str, Any]) -> list[str]:
    versions = record["versions"]
    made = ", ".join(
        f"{k} {versions[k]}" for k in ("lrsearch", "torch", "optuna") if k in versions
    )
    search = record["search"]
    ended = ", ".join(f"{search[status]} {status}" for status in ENDED if status in search)
    return [
        f"{record['date']}, {'; '.join(record['hardware']['devices'])}, {made}. "
        f"Search: {words.count(search['trials'], 'trial')} ({ended}), "
        f"{words.duration(search['wall_seconds'] or 0)} from start to end."
    ]


def _search_lines(search: Mapping[str, Any]) -> list[str]:
    best = search["best"]
    name = f"{best['schedule']['family']}, lr {words.number(best['schedule']['lr'])}"
    rows = [(f"**{name}** (best of the search)", best["val_loss"])]
    rows += [(words.markdown(str(key)), value) for key, value in search["baselines"].items()]
    head = ["| schedule | validation loss, one seed |", "|---|---|"]
    return head + [f"| {name} | {words.loss(value)} |" for name, value in rows]


def _arm_lines(confirm: Mapping[str, Any]) -> list[str]:
    arms = confirm["arms"]
    tests = sorted({k for arm in arms.values() for k in arm if k.startswith("test_")})
    tests = [k for k in tests if k != "test_loss"]
    head = ["schedule", "seeds", "validation loss: median", "mean", "sd"]
    head += [key.replace("_", " ") for key in tests]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    order = sorted(arms, key=lambda k: (arms[k]["median"] is None, arms[k]["median"]))
    for key in order:
        arm = arms[key]
        cells = [_name(arms, key), str(arm["n"]), words.loss(arm["median"])]
        cells += [words.loss(arm["mean"]), words.number(arm["sd"], 2)]
        cells += [
            f"{words.number(arm[t]['mean'], 4)} ± {words.number(arm[t]['sd'], 2)}"
            if t in arm
            else "–"
            for t in tests
        ]
        if arm["lost_seeds"]:
            cells[1] += f" (+{len(arm['lost_seeds'])} lost)"
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _name(arms: Mapping[str, Any], key: str) -> str:
    label = words.markdown(str(arms[key]["label"]))
    return f"{label} ({key})" if key.startswith("#") else label


def _pair_lines(confirm: Mapping[str, Any]) -> list[str]:
    lines = [
        "| a | b | a is lower by | 95% interval | p | seeds: a lower, equal, b lower |",
        "|---" * 6 + "|",
    ]
    arms = confirm["arms"]
    for row in confirm["comparisons"]:
        by, low, high = (
            words.lower_by(row[key], row["relative"]) for key in ("difference", "low", "high")
        )
        cells = [_name(arms, row["a"]), _name(arms, row["b"]), by]
        cells += ["–" if row["low"] is None else f"{low} to {high}"]
        cells += [words.p_value(row["p_corrected"])]
        cells += [f"{row['a_lower']}, {row['equal']}, {row['b_lower']}"]
        lines.append(f"| {' | '.join(cells)} |")
    if rows := confirm["comparisons"]:
        tests, equal = {row["test"] for row in rows}, any(row["equal"] for row in rows)
        lost = any(arm["lost_seeds"] for arm in arms.values())
        lines += ["", method(rows[0]["relative"], tests, equal, lost)]
    return lines


def record_figure(record: Mapping[str, Any]) -> Figure:
    """Left the rate over the epochs, right the losses: of each seed, or of the search's trials."""
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.16, subplot_titles=_titles(record))
    lay_out(figure, height=400, margin_t=40, showlegend=False)
    arms = [(html.escape(name), schedule, losses) for name, schedule, losses in _arms(record)]
    for color, (name, schedule, _) in zip(PALETTE, arms, strict=False):
        x, y, level = _thinned(*trace_points(schedule, [], []))
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            name=name,
            line={"color": color, "width": 2, "shape": "hv" if level else "linear"},
            row=1,
            col=1,
        )
    figure.update_xaxes(title="epoch", row=1, col=1)
    figure.update_yaxes(rangemode="tozero", nticks=6, row=1, col=1)
    if "confirm" in record:
        _strips(figure, arms)
    else:
        _trials(figure, record["search"])
    return figure


def _thinned(x: list[float], y: list[float], level: bool) -> tuple[list[float], list[float], bool]:
    """Only the points at which the rate changes, and of those some hundreds."""
    kept = [i for i in range(len(x)) if i in (0, len(x) - 1) or y[i] != y[i - 1]]
    if len(kept) > MOST_POINTS:
        kept = [*kept[:: -(-len(kept) // MOST_POINTS)], kept[-1]]
        level = False
    return [round(x[i], 3) for i in kept], [float(f"{y[i]:.4g}") for i in kept], level


def _titles(record: Mapping[str, Any]) -> tuple[str, str]:
    if "confirm" not in record:
        return "learning rate", "validation loss of each trial, by its peak rate"
    n = len(record["confirm"]["seeds"])
    return "learning rate", f"validation loss on {words.count(n, 'fresh seed')}; bars: medians"


def _arms(record: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], list[float]]]:
    """(name, schedule, losses) of each line, the best first."""
    confirm = record.get("confirm")
    if confirm is None:
        best = record["search"]["best"]
        return [(f"best: {best['schedule']['family']}", best["schedule"], [])]
    rows = [
        (str(arm["label"]), arm["schedule"], list(arm["val_loss"].values()))
        for arm in confirm["arms"].values()
        if arm["n"]
    ]
    return sorted(rows, key=lambda row: statistics.median(row[2]))[:MOST]


def _strips(figure: Figure, arms: list[tuple[str, Mapping[str, Any], list[float]]]) -> None:
    """A dot for each seed, spread by its place among the seeds, and the median as a bar."""
    for place, (color, (name, _, losses)) in enumerate(zip(PALETTE, arms, strict=False)):
        n = len(losses)
        figure.add_scatter(
            x=[float(f"{value:.4g}") for value in losses],
            y=[place + (0.5 * i / (n - 1) - 0.25 if n > 1 else 0.0) for i in range(n)],
            mode="markers",
            name=name,
            marker={"color": color, "size": 5, "opacity": 0.55},
            row=1,
            col=2,
        )
        middle = statistics.median(losses)
        figure.add_scatter(
            x=[middle, middle],
            y=[place - 0.38, place + 0.38],
            mode="lines",
            name=name,
            line={"color": color, "width": 3},
            row=1,
            col=2,
        )
    names = [
        f'<span style="color:{color}">{_broken(name)}</span>'
        for color, (name, *_) in zip(PALETTE, arms, strict=False)
    ]
    places = list(range(len(names)))
    figure.update_yaxes(
        tickvals=places, ticktext=names, autorange="reversed", showgrid=False, row=1, col=2
    )
    every = [value for *_, losses in arms for value in losses]
    ticks = loss_axis(every)
    if ticks and max(every) > 200 * min(every):
        ticks["dtick"] = 1  # side by side there is less room
    figure.update_xaxes(**ticks, row=1, col=2)


def _broken(name: str) -> str:
    """A long name on two lines."""
    return name.replace(", ", "<br>").replace(" baseline", "<br>baseline")


def _trials(figure: Figure, search: Mapping[str, Any]) -> None:
    """A dot for each trial of the search, hollow where it was stopped."""
    rows = [dict(zip(search["columns"], row, strict=True)) for row in search["runs"]]
    rows = [row for row in rows if row["last val_loss"] is not None and row["lr"] is not None]
    styles = [family_style(row["family"]) for row in rows]
    figure.add_scatter(
        x=[row["lr"] for row in rows],
        y=[row["last val_loss"] for row in rows],
        mode="markers",
        marker={
            "color": [style.color for style in styles],
            "symbol": [
                style.symbol + ("" if row["status"] == "complete" else "-open")
                for style, row in zip(styles, rows, strict=True)
            ],
            "size": 7,
        },
        row=1,
        col=2,
    )
    figure.update_xaxes(title="peak learning rate", **log_ticks([r["lr"] for r in rows]), col=2)
    losses = [row["last val_loss"] for row in rows]
    figure.update_yaxes(**loss_axis(losses), row=1, col=2)
