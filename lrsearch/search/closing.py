"""The end of a run: for a person, and as one JSON object."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lrsearch.report import words
from lrsearch.report.command import data_option, import_options
from lrsearch.report.confirmed import Confirmed
from lrsearch.report.confirmed_json import results
from lrsearch.search.progress import Row
from lrsearch.search.run import Outcome
from lrsearch.settings import default_storage
from lrsearch.storage.urls import option


def summary(outcome: Outcome, found: Confirmed | None = None) -> dict[str, Any]:
    """The end of a run, and what fresh seeds said, as one JSON object."""
    progress = outcome.progress
    best = progress.best
    assert best is not None
    overall = outcome.mattered.overall
    trials = outcome.study.get_trials(deepcopy=False)
    return {
        "study": outcome.study.study_name,
        "trials": progress.finished,
        "target": progress.target,
        "timed_out": outcome.timed_out,
        "completed": progress.count("completed"),
        "pruned": progress.count("pruned"),
        "diverged": progress.count("diverged"),
        "failed": progress.count("failed"),
        "repeated": outcome.repeated,
        "epochs": progress.epochs_run,
        "epochs_saved": round(progress.saved, 4),
        "best": {
            "trial": best.number,
            "value": best.value,
            "metric": best.metric,
            "schedule": trials[best.number].user_attrs["schedule"],
        },
        "gentler": None
        if (milder := outcome.gentler) is None
        else {
            "trial": milder.number,
            "value": milder.value,
            "metric": milder.metric,
            "schedule": dict(milder.schedule),
        },
        "baselines": progress.baselines,
        "importance": {} if overall is None else dict(overall.share),
        "importance_spread": {} if overall is None else dict(overall.spread),
        "files": [str(path) for path in files(outcome, found)],
        **({} if found is None else {"confirmation": results(found)}),
    }


def files(outcome: Outcome, found: Confirmed | None) -> list[Path]:
    """What was written, the answer first."""
    confirmed = None if found is None else found.file
    return [*([] if confirmed is None else [confirmed]), *outcome.files]


def closing(
    outcome: Outcome,
    found: Confirmed | None = None,
    stream: Any = None,
    imports: Sequence[str] = (),
) -> None:
    """The end of a run, and what fresh seeds said of it, for a person.

    Args:
        outcome: The run.
        found: What fresh seeds said.
        stream: Where it is told; None: stdout.
        imports: What ``--import`` brought, which the next commands need, too.
    """
    from rich.console import Console
    from rich.text import Text

    from lrsearch.report.answer import all_alike, mattered_line, untrained
    from lrsearch.report.confirmed_words import print_confirmed
    from lrsearch.report.terminal import print_next, print_text

    progress, study = outcome.progress, outcome.study
    best = progress.best
    assert best is not None
    assert best.value is not None
    console = Console(file=stream or sys.stdout, highlight=False, markup=False)
    head = Text("\nBest schedule  ", style="bold")
    head.append(f"{best.family}, lr {best.lr:.4g}", style="bold green")
    head.append(f"  {best.description}" if best.description else "", style="")
    console.print(head, soft_wrap=not console.is_terminal)
    print_text(console, f"  val loss {words.loss(best.value)}{_metric(outcome, best)}", indent=2)
    against = [
        f"{name} {words.against(best.value, value)}"
        for name, value in progress.baselines.items()
        if name != best.baseline
    ]
    rows = [row for row in progress.rows if row.stopped not in ("failed", "running")]
    alike = all_alike((r.value if r.stopped == "completed" else None, r.lr) for r in rows)
    if alike:
        same = f"  All {len(rows):,} trials came to this loss: no schedule made a difference. "
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
    if found is None and not alike and (milder := outcome.gentler) is not None:
        text = f"  gentler, and behind by no more than luck: {milder.family}, lr {milder.lr:.4g}, "
        print_text(console, f"{text}val loss {words.loss(milder.value)} (gentler.yaml)", indent=4)
    ended = ", ".join(
        f"{n} {name}"
        for name in ("completed", "pruned", "diverged", "failed")
        if (n := progress.count(name))
    )
    counted = f"{words.count(progress.finished, 'trial')} ({ended})"
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
    if line := mattered_line(outcome.mattered, best.family):
        print_text(console, f"  {line}", indent=4)
    console.print()
    if found is not None:
        print_confirmed(found, console)
        console.print()
    written = files(outcome, found)
    names = "  ".join(path.name for path in written)
    print_text(console, f"Files   {written[0].parent}/  {names}", indent=8)
    name = shlex.quote(study.study_name)
    where = option(outcome.plan.config.storage, default_storage())
    bring = import_options(imports)
    asked = (f"confirm {name}{where}{bring}", "is it really better? fresh seeds, test data")
    again = f"--epochs {4 * outcome.plan.epochs}{data_option(outcome.plan.config.data_dir)}{bring}"
    steps = (
        *([asked] if found is None else []),
        (f"report {name}{where}", "everything on one page"),
        (f"dashboard {name}{where}", "every trial, in the browser"),
        (f"train {shlex.quote(str(written[0]))} {again}", "a longer run"),
    )
    print_next(console, steps)


def _metric(outcome: Outcome, best: Row) -> str:
    """``, accuracy 97.3%``, where the task has a metric."""
    task = outcome.plan.task
    if best.metric is None or not task.metric_name:
        return ""
    return f", {task.metric_name} {words.metric(best.metric, task.metric_name)}"
