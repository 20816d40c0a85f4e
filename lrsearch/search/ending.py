"""The end of a run, and of a confirmation, as it is told to a person."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import optuna
from rich.console import Console
from rich.text import Text

from lrsearch.export import best_trial
from lrsearch.report import words
from lrsearch.report.answer import all_alike, untrained
from lrsearch.report.command import data_option, import_options, storage_option
from lrsearch.report.confirmed import Confirmed
from lrsearch.report.confirmed_words import print_confirmed
from lrsearch.report.importance_shown import importance_line
from lrsearch.report.robust import Robust
from lrsearch.report.robust_words import robust_line
from lrsearch.report.tables import TrialRow
from lrsearch.report.terminal import print_next, print_text, to_stdout
from lrsearch.search.outcome import Outcome, file_to_train
from lrsearch.search.progress import described
from lrsearch.search.study import stored_config


def print_outcome(outcome: Outcome, imports: Sequence[str]) -> None:
    """Print the end of a run, and what fresh seeds said of it, for a person.

    Args:
        outcome: The run.
        imports: What ``--import`` brought, which the next commands need, too.
    """
    progress, found = outcome.progress, outcome.confirmed
    best = progress.best
    assert best is not None
    console = Console(file=sys.stdout, highlight=False, markup=False)
    rows = [row for row in progress.rows if row.status not in ("failed", "running")]
    alike = all_alike((row.value, row.lr) for row in rows)
    _print_best(console, outcome, best, len(rows) if alike else 0)
    _print_trials(console, outcome)
    if line := importance_line(outcome.mattered, best.family):
        print_text(console, f"  {line}", indent=4)
    if found is None and not alike and outcome.robust is not None:
        _print_robust(console, outcome, outcome.robust, best.number)
    if found is None and not alike and outcome.left_out:
        print_text(console, f"  {outcome.left_out.replace('`', '')}", indent=4)
    console.print()
    if found is not None:
        print_confirmed(found, console)
        console.print()
    names = "  ".join(_named(path, outcome) for path in outcome.files)
    print_text(console, f"Files   {outcome.files[0].parent}/  {names}", indent=8)
    print_next(console, _next_steps(outcome, imports))


def _print_best(console: Console, outcome: Outcome, best: TrialRow, alike: int) -> None:
    """The best schedule, and what its loss is beside those of the others.

    Args:
        console: Where to.
        outcome: The run.
        best: Its best trial.
        alike: How many trials all came to its loss; 0 where they differ.
    """
    progress = outcome.progress
    assert best.value is not None
    _print_schedule(console, "\nBest schedule  ", best)
    print_text(console, f"  val loss {words.loss(best.value)}{_metric(outcome, best)}", indent=2)
    against = [
        f"{name} {words.against(best.value, value)}"
        for name, value in progress.baselines.items()
        if name != best.baseline
    ]
    if alike:
        same = f"  All {alike:,} trials came to this loss: no schedule made a difference. "
        print_text(console, same + untrained().replace("`", ""), indent=2)
    elif all(row.baseline for row in progress.rows):
        only = "  Only the usual recipes were run: a larger --trials searches, too."
        print_text(console, only, indent=2)
    elif best.baseline:
        recipe = f"  It is the baseline {best.baseline}: nothing tried was better."
        print_text(console, recipe, indent=2)
    if against:
        print_text(
            console, f"  against the baselines, on this seed: {', '.join(against)}", indent=4
        )
    elif not best.baseline and any(row.baseline for row in progress.rows):
        none = "  no usual recipe came to its end: nothing to compare it with"
        print_text(console, none, indent=4)


def _print_trials(console: Console, outcome: Outcome) -> None:
    """How many trials there were, and how they ended."""
    progress = outcome.progress
    counted = f"{words.count(progress.finished, 'trial')} ({', '.join(progress.ends)})"
    saved = f", {words.percent(progress.saved)} of epochs saved" if progress.saved > 0 else ""
    print_text(console, f"  {counted}{saved}", indent=4)
    if outcome.timed_out:
        up = f"time was up after {words.duration(outcome.plan.config.timeout or 0)}"
        left = f"{progress.finished:,} of {words.count(progress.target, 'trial')} have ended"
        print_text(console, f"  {up}: {left}; the same command goes on", indent=4)
    elif waiting := outcome.waiting:
        queued = f"{words.count(waiting, 'trial')} still queued: a larger --trials goes on"
        print_text(console, f"  {queued}", indent=4)
    if repeated := outcome.repeated:
        again = f"{words.count(repeated, 'trial')} repeated the schedule of an earlier one"
        tried = words.count(progress.finished - progress.count("failed") - repeated, "schedule")
        print_text(console, f"  {again}: {tried} tried in all", indent=4)


def _next_steps(outcome: Outcome, imports: Sequence[str]) -> list[tuple[str, str]]:
    """What to type next, each with what it is for."""
    study, found = outcome.study, outcome.confirmed
    name = shlex.quote(study.study_name)
    where = storage_option(outcome.plan.config.storage)
    bring = import_options(imports)
    tested = "" if outcome.plan.task.test is None else ", test data"
    asked = (f"confirm {name}{where}{bring}", f"is it really better? fresh seeds{tested}")
    again = f"--epochs {4 * outcome.plan.epochs}{data_option(outcome.plan.config.data_dir)}{bring}"
    answer = file_to_train(study, outcome.files[0].parent, found)
    return [
        *([asked] if found is None else []),
        (f"report {name}{where}", "everything on one page"),
        (f"dashboard {name}{where}", "every trial, in the browser"),
        (f"train {shlex.quote(str(answer))} {again}", "a longer run"),
    ]


def print_confirmation(
    found: Confirmed,
    study: optuna.Study,
    *,
    storage: str,
    data_dir: str | None,
    imports: Sequence[str],
) -> None:
    """Print the end of ``lrsearch confirm`` for a person.

    Args:
        found: What fresh seeds said, and its file.
        study: The search.
        storage: Its database, as it was typed.
        data_dir: Where data lie, if that was given anew.
        imports: What ``--import`` brought, which the next commands need, too.
    """
    assert found.file is not None
    console = to_stdout()
    print_confirmed(found, console)
    sys.stdout.write(f"\nFiles   {found.file}\n")
    file, why = found.file, "what came lowest on these seeds"
    if (best := file_to_train(study, file.parent, found)) != file and best.exists():
        file, why = best, "until more seeds decide"
        if not found.is_of(best_trial(study).number):  # --top 0: it is none of the arms
            why = "the answer of the search"
        elif found.decision.decided:
            why = "the winner held"
    data = data_option(data_dir or stored_config(study).get("data_dir"))
    report = f"report {shlex.quote(study.study_name)}{storage_option(storage)}"
    train = f"train {shlex.quote(str(file))}{data}{import_options(imports)}"
    print_next(console, ((report, "everything on one page"), (train, why)))


def _named(path: Path, outcome: Outcome) -> str:
    """A file's name, and that robust.yaml has the schedule of best.yaml, where that is so."""
    best, found = outcome.progress.best, outcome.robust
    if path.name != "robust.yaml" or best is None:
        return path.name
    same = found is None or found.trial.number == best.number
    return f"{path.name} (as best.yaml)" if same else path.name


def _print_robust(console: Console, outcome: Outcome, found: Robust, best: int) -> None:
    """The schedule that is the safest to train with, and why."""
    line = robust_line(found, best)
    if found.trial.number != best and found.decided:
        _print_schedule(console, "Train with     ", found.trial)
        line = f"val loss {words.loss(found.trial.value)}, {line}"
    elif found.trial.number != best:
        console.print("Train with     best.yaml", style="bold")
    print_text(console, f"  {line}", indent=4)


def _print_schedule(console: Console, head: str, row: TrialRow) -> None:
    """A line with a schedule and its parameters."""
    text = Text(head, style="bold")
    text.append(f"{row.family}, lr {row.lr:.4g}", style="bold green")
    text.append(f"  {what}" if (what := described(row)) else "", style="")
    console.print(text, soft_wrap=not console.is_terminal)


def _metric(outcome: Outcome, best: TrialRow) -> str:
    """``, accuracy 97.3%``, where the task has a metric."""
    task = outcome.plan.task
    if best.metric is None or not task.metric_name:
        return ""
    return f", {task.metric_name} {words.metric(best.metric, task.metric_name)}"
