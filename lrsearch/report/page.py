"""The report: one self-contained HTML page that answers what a sceptical reader asks.

``write_report(study, storage, path)`` reads the study once, makes the tables, then the figures,
then the page. Nothing in it asks the network for anything; a content security policy says so.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsearch.errors import LrsearchError
from lrsearch.files import write_text
from lrsearch.report import (
    answer_html,
    figures,
    importance_figures,
    optuna_figures,
    overview,
    sections,
    words,
)
from lrsearch.report.command import command_line, from_python, typed
from lrsearch.report.confirmed import Confirmed
from lrsearch.report.confirmed_study import read_confirmed
from lrsearch.report.confirmed_words import other
from lrsearch.report.csv_files import write_csv
from lrsearch.report.html import document, escape, figure
from lrsearch.report.importance import Importance, importance
from lrsearch.report.learning_curves import (
    LearningCurve,
    best_curves,
    learning_curves_figure,
    paths_figure,
    thinned_curves,
    winner_figure,
)
from lrsearch.report.pictures import write_png
from lrsearch.report.robust import answer_of, robust
from lrsearch.report.robust_words import robust_note
from lrsearch.report.tables import (
    Answer,
    PruningTable,
    StudyTable,
    answer,
    families_table,
    load,
    pruning,
)

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from plotly.graph_objects import Figure

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


@dataclass(frozen=True)
class Report:
    """Everything a report shows, before it becomes HTML, PNG or CSV."""

    table: StudyTable
    found: Answer | None
    confirmed: Confirmed | None
    mattered: Importance
    stopped: PruningTable
    best: dict[str, LearningCurve]
    figures: dict[str, tuple[Figure, str]]
    yaml: str
    python: str


def make_report(study: optuna.Study, storage: BaseStorage | None = None) -> Report:
    """Read a study once and make all tables and figures of its report.

    Args:
        study: The study.
        storage: Its database, where history and confirmation lie; the study's own if left out.
    """
    table = load(study, storage)
    found = answer(table)
    if found is not None:
        found = replace(found, robust=robust(table, storage or study._storage))
    confirmed = read_confirmed(storage or study._storage, table.name)
    mattered = importance(table)
    stopped = pruning(table)
    best = best_curves(table, 16)
    of_family = {c.trial.family: c for c in best}
    drawn: dict[str, tuple[Figure, str]] = {}
    if found is not None and found.best.family:
        rows = thinned_curves(table, [answer_html.shown(table, found, confirmed)])
        if found.strongest is not None and found.strongest.trial is not found.best:
            rows += thinned_curves(table, [found.strongest.trial])
        drawn["winner"] = (winner_figure(rows), "learning rate of the best schedule")
    if any(math.isfinite(t.lr) for t in table.having("complete", "pruned", "diverged")):
        drawn["scatter"] = (
            figures.lr_vs_val_loss_figure(figures.lr_vs_val_loss_table(table)),
            "peak learning rate against validation loss, a mark per trial",
        )
    if mattered.overall is not None:
        drawn["importance"] = (importance_figures.importance_figure(mattered), "importance")
    if mattered.within:
        drawn["within"] = (
            importance_figures.within_figure(mattered),
            "importance within each family",
        )
    if best:
        drawn["curves"] = (learning_curves_figure(best[:8]), "rate and loss over epochs")
        if any(rate is not None for curve in best for rate in curve.epoch_lr):
            drawn["paths"] = (paths_figure(best[:6]), "loss against rate, epoch by epoch")
        drawn["history"] = (optuna_figures.history_figure(table), "best loss over the trials")
        sliced = optuna_figures.slice_figure(table, best[0].trial.family)
        if sliced is not None:
            drawn["slices"] = (sliced, "loss against each parameter of the winning family")
    if stopped.counts["pruned"] or stopped.counts["diverged"]:
        drawn["stops"] = (figures.pruning_figure(stopped), "trials stopped after each epoch")
    if stopped.counts["pruned"]:
        drawn["lines"] = (optuna_figures.epochs_figure(table), "validation loss over epochs")
    if table.having("complete", "pruned", "diverged"):
        everything = overview.overview_figure(overview.overview_table(table))
        drawn["overview"] = (everything, "rate and loss of all trials over the epochs")
    timeline = optuna_figures.timeline_figure(table)
    if timeline is not None:
        drawn["timeline"] = (timeline, "when each trial ran")
    yaml = python = ""
    if found is not None:  # of this very trial: others may have ended since
        number, file = answer_of(found.best.number, found.chosen.number, confirmed)
        yaml, python = _exports(study, number, file)
    return Report(table, found, confirmed, mattered, stopped, of_family, drawn, yaml, python)


def _exports(study: optuna.Study, trial: int, name: str) -> tuple[str, str]:
    """The configuration of a trial as YAML and as Python; empty where it has no schedule."""
    from lrsearch.export import export_text

    texts = []
    for python in (False, True):
        try:
            texts.append(export_text(study, trial=trial, python=python, name=name))
        except LrsearchError:
            texts.append("")
    return texts[0], texts[1]


def page(report: Report) -> str:
    """The report as HTML."""
    table = report.table
    parts = {name: figure(name, *drawn) for name, drawn in report.figures.items()}

    def drawn(name: str) -> str:
        return parts.get(name, "")

    family = report.found.best.family if report.found is not None else ""
    search = sections.section(
        "search",
        "How did the search go?",
        sections.text(_story(report)),
        sections.figure_block(
            drawn("overview"),
            "Every schedule that was tried, and its loss. Bold: the best. Dotted: the usual "
            "recipes. A line that ends in a dot was stopped there.",
        ),
        sections.figure_block(
            drawn("history"), "Final loss of each trial trained to the end, in order of number."
        ),
        sections.figure_block(
            drawn("paths"),
            "The way the best of each family took: loss against the rate of that epoch. The large "
            "mark is the end.",
        ),
        sections.figure_block(drawn("timeline"), "When each trial ran."),
    )
    head = answer_html.hero(
        table,
        report.found,
        report.confirmed,
        report.stopped,
        drawn("winner"),
        drawn("scatter"),
    )
    body = [
        answer_html.sure(table, report.found, report.confirmed),
        sections.what_mattered(report.mattered, drawn("importance"), drawn("within")),
        sections.others(
            families_table(table), report.best, drawn("curves"), drawn("slices"), family
        ),
        sections.what_was_stopped(report.stopped, drawn("stops"), drawn("lines")),
        search if table.trials else "",
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


def _story(report: Report) -> str:
    table = report.table
    counts = report.stopped.counts
    config = table.config
    best = report.found.best if report.found is not None else None
    seconds = wall_seconds(table)
    trials = words.count(len(table.trials), "trial")
    parts = [f"{trials} of {words.count(len(table.families), 'family', 'families')}"]
    if config.get("sampler"):
        parts.append(f"proposed by {config['sampler']}, stopped by {config.get('pruner', 'none')}")
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


def _whose(report: Report, name: str) -> str:
    """Why the configuration is not that of the best trial, or another came lower; or nothing."""
    found, confirmed = report.found, report.confirmed
    if found is not None and name == "robust.yaml":
        export = typed("export", report.table.name, report.table.storage_url)
        return robust_note(found.chosen.number, found.best.number, export)
    return "" if found is None or confirmed is None else other(confirmed, found.best.number)


def _use(report: Report) -> str:
    if not report.yaml or report.found is None:
        return ""
    best, chosen = report.found.best.number, report.found.chosen.number
    _, name = answer_of(best, chosen, report.confirmed)
    another = f"`lrsearch train {name} --epochs 100` trains it on another budget."
    if not report.table.config or from_python(report.table.config):
        another = f'On another budget it is `lrsearch.load("{name}").rescaled(100)`.'
    durations = "durations are in epochs, with their fraction of the budget beside them"
    parts = [
        sections.text(f"Save this as `{name}`; {durations}. {another}"),
        sections.snippet("yaml", name, report.yaml),
    ]
    if line := _whose(report, name):
        parts.insert(0, sections.text(line, kind="note"))
    if report.python:
        parts.append(sections.snippet("python", "the same in plain torch", report.python))
    return sections.section("use", "Use it", *parts)


def _again(report: Report) -> str:
    table = report.table
    versions: dict[str, Any] = dict(table.info.get("versions") or {})
    devices = Counter(t.device for t in table.trials if t.device)
    plan: dict[str, Any] = dict(table.info.get("plan") or {})
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
    storage: BaseStorage | None,
    path: Path,
    *,
    png: Path | None = None,
    csv: Path | None = None,
) -> list[Path]:
    """Write the report of a study as one HTML file that needs no network.

    Args:
        study: The study.
        storage: Its database.
        path: The HTML file.
        png: Folder for the figures as pictures, which needs kaleido and a Chrome.
        csv: Folder for the tables.

    Returns:
        All files written, the page first.

    Raises:
        LrsearchError: A file cannot be written, or PNG is asked for and cannot be made.
    """
    report = make_report(study, storage)
    write_text(path, page(report))
    written = [path]
    if csv is not None:
        written += write_csv(report, csv)
    if png is not None:
        written += write_png(report, png)
    return written
