"""The sections of the report, each from tables to HTML; figures come in ready-made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lrsearch.report import words
from lrsearch.report.html import as_json, breakable, escape, to_html
from lrsearch.report.importance import LEAST_TRIALS, Importance
from lrsearch.report.importance_shown import importance_sentences
from lrsearch.report.learning_curves import LearningCurve
from lrsearch.report.svg import mark, shares_bar, sparkline
from lrsearch.report.tables import ENDED, FamilyRow, PruningTable, StudyTable, rounded


def section(name: str, question: str, *parts: str) -> str:
    """One section with its heading."""
    return f'<section id="{name}"><h2>{escape(question)}</h2>{"".join(parts)}</section>'


def text(*lines: str, kind: str = "") -> str:
    """Paragraphs of Markdown."""
    attribute = f' class="{kind}"' if kind else ""
    return "".join(f"<p{attribute}>{to_html(line)}</p>" for line in lines if line)


def figure_block(drawing: str, caption: str) -> str:
    """A figure with its caption."""
    if not drawing:
        return ""
    return f"<figure>{drawing}<figcaption>{to_html(caption)}</figcaption></figure>"


def what_mattered(found: Importance, overall: str, within: str) -> str:
    """What mattered? Two levels."""
    lines = importance_sentences(found)
    how = (
        "Measured with Optuna's fANOVA over all finished trials of the families searched: a "
        "pruned one counts with the loss that is predicted for its end, a diverged one as the "
        "worst; what a shuffled copy of a parameter explains is taken off. Shares are of all "
        "differences, chance included; of few trials, and where most were pruned, they are rather "
        "too low. "
        "Whiskers, and ±: how far the trees of the forest differ, which is more than studies with "
        "other seeds do."
    )
    parts = [text(*lines), figure_block(overall, how) if overall else ""]
    if within:
        parts.append("<h3>Within each family</h3>")
        parts.append(
            figure_block(
                within,
                "Each family's own parameters, beside learning rate and warmup. Full bars: all "
                "its trials; pale bars: their better half.",
            )
        )
    if found.too_few:
        names = words.listing(found.too_few)
        parts.append(
            text(f"Too few trials (under {LEAST_TRIALS}) to look inside {names}.", kind="note")
        )
    return section("mattered", "What mattered?", *parts)


def others(
    rows: Sequence[FamilyRow],
    best_curves: Mapping[str, LearningCurve],
    curves: str,
    slices: str,
    name: str,
) -> str:
    """How did the other families go?"""
    if not rows:
        return ""
    body = []
    best = next((r.best.value for r in rows if r.best is not None), None)
    for row in rows:
        curve = best_curves.get(row.family)
        shape = sparkline(curve.x, curve.lr, curve.level, row.family) if curve else ""
        value = row.best.value if row.best is not None else None
        behind = ""
        if best is not None and value is not None and value > best:
            behind = words.against(value, best)
        counts = [(status, getattr(row, status)) for status in ENDED]
        settings = words.settings(row.best) if row.best is not None else ""
        rate = f"lr {words.number(row.best.lr)}" if row.best is not None else ""
        body.append(
            f'<tr><th scope="row">{mark(row.family)}{breakable(escape(row.family))}'
            f"<small>{escape(', '.join(filter(None, [rate, settings])))}</small></th>"
            f"<td>{shape}</td><td class=num>{words.loss(value)}</td>"
            f"<td class=num>{behind}</td><td class=num>{row.trials:,}</td>"
            f"<td>{shares_bar(counts)}</td></tr>"
        )
    legend = "".join(
        f'<span class="{s}"><i></i>{"trained to the end" if s == "complete" else s}</span>'
        for s in ENDED
    )
    listing = (
        '<div class="wide"><table class="plain families"><thead><tr><th scope="col">family</th>'
        '<th scope="col">its best curve</th><th scope="col" class=num>best loss</th>'
        '<th scope="col" class=num>behind</th><th scope="col" class=num>trials</th>'
        f'<th scope="col">how they ended</th></tr></thead><tbody>{"".join(body)}</tbody></table>'
        f'</div><p class="key note">{legend}</p>'
    )
    parts = [listing, figure_block(curves, "The best trial of each family over its epochs.")]
    if slices:
        parts.append(f"<h3>Inside {escape(name)}</h3>")
        parts.append(
            figure_block(slices, "Trials of the winning family that were trained to the end.")
        )
    return section("others", "How did the others go?", *parts)


def what_was_stopped(rows: PruningTable, drawn: str, lines: str) -> str:
    """What was stopped, and what did that save?"""
    pruned, diverged = rows.counts["pruned"], rows.counts["diverged"]
    if not pruned and not diverged:
        if not rows.counts["complete"]:
            return ""
        say = "No trial was stopped: every one was trained to the end."
        return section("stopped", "What was stopped?", text(say))
    ended = rows.finished
    say = (
        f"{words.count(pruned, 'trial')} {'was' if pruned == 1 else 'were'} pruned and "
        f"{diverged:,} diverged, of {ended:,}. "
        f"That took {rows.epochs_run:,} of {rows.epochs_full:,} epochs"
        + (f": **{words.percent(rows.saved)} saved**." if rows.saved > 0 else ".")
    )
    return section(
        "stopped",
        "What was stopped, and what did that save?" if rows.saved > 0 else "What was stopped?",
        text(say),
        figure_block(drawn, "Trials stopped after each epoch, and the part still in training."),
        figure_block(
            lines,
            "Validation loss over the epochs, coloured by family; pale lines were stopped. "
            "A high rate holds the loss up until it comes down: a line above the others may be a "
            "better schedule half-way.",
        ),
    )


def trials_table(table: StudyTable) -> str:
    """All trials, drawn by table.js as they scroll into view."""
    if not table.trials:
        return ""
    families = table.families
    index = {name: i for i, name in enumerate(families)}
    statuses = [*ENDED, "running", "waiting"]
    rows = table.trials
    data: dict[str, Any] = {
        "families": families,
        "marks": [mark(f) for f in families],
        "statuses": statuses,
        "metric": table.metric_name if any(t.metric is not None for t in rows) else None,
        "columns": {
            "number": [t.number for t in rows],
            "family": [index.get(t.family, -1) for t in rows],
            "lr": [rounded(t.lr, 5) for t in rows],
            "warmup": [t.warmup for t in rows],
            "params": [words.settings(t) for t in rows],
            "status": [statuses.index(t.status) for t in rows],
            "loss": [rounded(t.loss, 5) for t in rows],
            "metric": [rounded(t.metric, 5) for t in rows],
            "epochs": [t.epochs for t in rows],
            "seconds": [rounded(t.seconds, 5) for t in rows],
            "note": [t.baseline or "" for t in rows],
        },
    }
    return section(
        "trials",
        "Every trial",
        '<div class="tools"><input type="search" id="filter" placeholder="filter: StepLR, pruned" '
        'aria-label="filter trials"><span id="shown" class="note" aria-live="polite"></span></div>'
        '<div class="scroll" id="grid" tabindex="0" role="region" aria-label="trials"></div>'
        f'<script type="application/json" id="rows">{as_json(data)}</script>',
    )


def snippet(name: str, label: str, content: str) -> str:
    """Text to copy, with a button."""
    of = f"{name}-of"  # three buttons say copy: a screen reader tells what
    return (
        f'<div class="snippet"><div class="bar"><span id="{of}">{escape(label)}</span>'
        f'<button type="button" data-copy="{name}" aria-describedby="{of}">copy</button></div>'
        f'<pre id="{name}" tabindex="0">{escape(content)}</pre></div>'
    )


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values, a row each."""
    return (
        '<table class="plain facts"><tbody>'
        + "".join(
            f'<tr><th scope="row">{escape(k)}</th><td>{escape(v)}</td></tr>' for k, v in rows if v
        )
        + "</tbody></table>"
    )
