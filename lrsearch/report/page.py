"""The report as one self-contained HTML page that answers what a sceptical reader asks.

Nothing in it asks the network for anything; a content security policy says so. What it shows is
made in :mod:`lrsearch.report.report`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna

from lrsearch.files import write_text
from lrsearch.report import answer_html, sections, words
from lrsearch.report.command import command_line, from_python, typed
from lrsearch.report.confirmed_words import other
from lrsearch.report.csv_files import write_csv
from lrsearch.report.html import document, escape, figure
from lrsearch.report.lr_range import RANGE
from lrsearch.report.pictures import write_png
from lrsearch.report.report import Report, make_report
from lrsearch.report.robust_words import robust_note
from lrsearch.report.tables import StudyTable, families_table

NAVIGATION = (
    ("sure", "Is it sure?"),
    ("mattered", "What mattered?"),
    ("others", "The others"),
    ("stopped", "What was stopped?"),
    ("search", "The search"),
    ("trials", "Every trial"),
    ("use", "Use it"),
    ("again", "Do it again"),
)


def page(report: Report) -> str:
    """The report as HTML."""
    table = report.table
    drawn = {name: figure(name, *each) for name, each in report.figures.items()}
    drawn = defaultdict(str, drawn)  # nothing where a study has nothing to draw
    family = report.found.best.family if report.found is not None else ""
    head = answer_html.hero(report, drawn["winner"], drawn["scatter"])
    body = [
        answer_html.sure(report),
        sections.what_mattered(report.mattered, drawn["importance"], drawn["within"]),
        sections.others(
            families_table(table), report.best_curves, drawn["curves"], drawn["slices"], family
        ),
        sections.what_was_stopped(report.stopped, drawn["stops"], drawn["lines"]),
        _search(report, drawn),
        sections.trials_table(table),
        _use(report),
        _again(report),
    ]
    links = "".join(
        f'<a href="#{name}">{escape(label)}</a>'
        for name, label in NAVIGATION
        if any(part.startswith(f'<section id="{name}">') for part in body)
    )
    navigation = f'<nav aria-label="sections">{links}</nav>'
    title = f"{table.name} · lrsearch"
    content = f"<main>{head}{navigation}{''.join(body)}</main>"
    return document(title, content, scripts=("table.js",))


def _search(report: Report, drawn: Mapping[str, str]) -> str:
    """How did the search go?"""
    if not report.table.trials:
        return ""
    captions = {
        "range": f"The lr range test before the search. {RANGE}",
        "overview": "Every schedule that was tried, and its loss. Bold: the best. Dotted: the "
        "usual recipes. A line that ends in a dot was stopped there.",
        "history": "Final loss of each trial trained to the end, in order of number.",
        "paths": "The way the best of each family took: loss against the rate of that epoch. The "
        "large mark is the end.",
        "timeline": "When each trial ran.",
    }
    figures = [sections.figure_block(drawn[name], said) for name, said in captions.items()]
    return sections.section(
        "search", "How did the search go?", sections.text(_story(report)), *figures
    )


def _story(report: Report) -> str:
    table = report.table
    counts = report.stopped.counts
    config = table.config
    best = report.found.best if report.found is not None else None
    seconds = wall_seconds(table)
    trials = words.count(len(table.trials), "trial")
    parts = [f"{trials} of {words.count(len(table.families), 'family', 'families')}"]
    if config.get("sampler"):
        pruner = config.get("pruner", "none")
        ended = "none stopped early" if pruner == "none" else f"stopped by the pruner {pruner}"
        parts.append(f"proposed by the sampler {config['sampler']}, {ended}")
    said = ", ".join(parts)
    if seconds:
        said += f"; trained for {words.duration(seconds)} by the clock"
    if best is not None:
        said += f". The best was number {best.number}"
    open_ = counts["running"] + counts["waiting"]
    if open_:
        said += f". {words.count(open_, 'trial')} still open"
    if counts["failed"]:
        said += f". {words.count(counts['failed'], 'trial')} failed"
    return said + "."


def wall_seconds(table: StudyTable) -> float:
    """Seconds by the clock in which at least one trial was in training, up to its end.

    Trials that ran side by side, fused or in other processes, count once. Of a trial that was
    interrupted only the last part is known.
    """
    spans = sorted(
        (end - t.seconds, end)
        for t in table.trials
        if t.finished is not None and t.seconds > 0 and (end := t.finished.timestamp())
    )
    total, until = 0.0, -math.inf
    for start, end in spans:
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def _whose(report: Report) -> str:
    """Why the configuration is not that of the best trial, or another came lower; or nothing."""
    found, confirmed = report.found, report.confirmed
    if found is not None and report.file == "robust.yaml":
        export = typed("export", report.table.name, report.table.storage_url)
        chosen = found.chosen
        return robust_note(chosen.number, found.best.number, export, chosen.baseline)
    return "" if found is None or confirmed is None else other(confirmed, found.best.number)


def _use(report: Report) -> str:
    if not report.yaml:
        return ""
    name = report.file
    another = f"`lrsearch train {name} --epochs 100` trains it on another budget."
    if not report.table.config or from_python(report.table.config):
        another = f'On another budget it is `lrsearch.load("{name}").rescaled(100)`.'
    durations = "durations are in epochs, with their fraction of the budget beside them"
    parts = [
        sections.text(f"Save this as `{name}`; {durations}. {another}"),
        sections.snippet("yaml", name, report.yaml),
    ]
    if line := _whose(report):
        parts.insert(0, sections.text(line, kind="note"))
    if report.python:
        parts.append(sections.snippet("python", "the same in plain torch", report.python))
    return sections.section("use", "Use it", *parts)


def _again(report: Report) -> str:
    table = report.table
    versions: dict[str, Any] = dict(table.info.get("versions") or {})
    devices = Counter(t.device for t in table.trials if t.device)
    plan = table.plan
    started = [t.started for t in table.trials if t.started]
    finished = [t.finished for t in table.trials if t.finished]
    when = ""
    if started and finished:
        when = f"{min(started):%Y-%m-%d %H:%M} to {max(finished):%Y-%m-%d %H:%M}"
    optimizer = dict(plan.get("optimizer") or table.config.get("optimizer") or {})
    recipe = [
        words.optimizer(str(optimizer.pop("name", ""))),
        *(f"{k} {words.value(v)}" for k, v in optimizer.items()),
    ]
    rows = [
        ("task", str(plan.get("task") or table.config.get("task") or "")),
        ("optimizer", ", ".join(filter(None, recipe))),
        ("budget", words.count(table.budget, "epoch") if table.budget else ""),
        ("batch size", str(plan.get("batch_size") or table.config.get("batch_size") or "")),
        ("seed", str(table.config.get("seed", ""))),
        ("device", ", ".join(f"{d} ({n})" if len(devices) > 1 else d for d, n in devices.items())),
        ("versions", ", ".join(f"{k} {v}" for k, v in versions.items())),
        ("database", table.storage_url),
        ("when", when),
    ]
    parts = [sections.facts(rows)]
    if table.config:
        made = command_line(table.name, table.config)
        parts.insert(0, sections.snippet("command", "command", made))
    return sections.section("again", "Do it again", *parts)


def write_report(
    study: optuna.Study,
    path: Path,
    *,
    png: Path | None = None,
    csv: Path | None = None,
) -> list[Path]:
    """Write the report of a study as one HTML file that needs no network.

    Args:
        study: The study.
        path: The HTML file.
        png: Folder for the figures as pictures, which needs kaleido and a Chrome.
        csv: Folder for the tables.

    Returns:
        All files written, the page first.

    Raises:
        LrsearchError: A file cannot be written, or PNG is asked for and cannot be made.
    """
    report = make_report(study)
    write_text(path, page(report))
    written = [path]
    if csv is not None:
        written += write_csv(report, csv)
    if png is not None:
        written += write_png(report, png)
    return written
