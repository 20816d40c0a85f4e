"""What a run leaves, and how its end is told: to a person, and as one JSON object."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from lrsearch.attributes import schedule_of
from lrsearch.report import words
from lrsearch.report.command import data_option, import_options
from lrsearch.search.plan import Plan
from lrsearch.search.progress import Progress, TrialProgress
from lrsearch.settings import default_storage
from lrsearch.storage import Storage
from lrsearch.storage.urls import option

if TYPE_CHECKING:
    import optuna
    from rich.console import Console

    from lrsearch.report.confirmed import Confirmed
    from lrsearch.report.importance import Importance
    from lrsearch.report.robust import Robust


@dataclass(frozen=True)
class Outcome:
    """What a run leaves.

    Attributes:
        study: The study.
        storage: Its database.
        plan: What was run.
        progress: The state at the end.
        files: Result files written.
        mattered: What mattered, over all trials and within each family.
        robust: The schedule that is the safest to train with; None where there is only the best.
        left_out: Which training of the finalists was left out, and how to have it; "" for none.
    """

    study: optuna.Study
    storage: Storage
    plan: Plan
    progress: Progress
    files: list[Path]
    mattered: Importance
    robust: Robust | None
    left_out: str = ""

    @property
    def timed_out(self) -> bool:
        """Whether time was up before the study had its target of trials."""
        config = self.plan.config
        return config.timeout is not None and self.progress.finished < config.trials

    @property
    def waiting(self) -> int:
        """Trials still queued, which a larger target would run."""
        return len(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    @property
    def repeated(self) -> int:
        """Trials with the same schedule as an earlier one, as in a space that holds only a few."""
        told = (TrialState.COMPLETE, TrialState.PRUNED)
        ended = self.study.get_trials(deepcopy=False, states=told)
        texts = [json.dumps(s, sort_keys=True) for s in map(schedule_of, ended) if s]
        return len(texts) - len(set(texts))


def outcome_dict(outcome: Outcome, found: Confirmed | None = None) -> dict[str, Any]:
    """The end of a run, and what fresh seeds said, as plain values for ``--json``."""
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
        "robust": _robust(outcome, found),
        "baselines": progress.baselines,
        "importance": {} if overall is None else dict(overall.share),
        "importance_spread": {} if overall is None else dict(overall.spread),
        "files": [str(path) for path in written_files(outcome, found)],
        **({} if found is None else {"confirmation": found.to_dict()}),
    }


def written_files(outcome: Outcome, found: Confirmed | None) -> list[Path]:
    """What was written, the answer first."""
    confirmed = None if found is None else found.file
    return [*([] if confirmed is None else [confirmed]), *outcome.files]


def file_to_train(study: optuna.Study, folder: Path, found: Confirmed | None) -> Path:
    """Which of the files of a run to train with: that of the schedule that ``export`` gives.

    Args:
        study: The search.
        folder: Where the files are.
        found: What fresh seeds said.
    """
    from lrsearch.export import answer_of

    number, name = answer_of(study)
    return folder / (
        "confirmed.yaml" if found is not None and found.lowest.trial == number else name
    )


def print_outcome(
    outcome: Outcome,
    found: Confirmed | None = None,
    imports: Sequence[str] = (),
) -> None:
    """Print the end of a run, and what fresh seeds said of it, for a person.

    Args:
        outcome: The run.
        found: What fresh seeds said.
        imports: What ``--import`` brought, which the next commands need, too.
    """
    from rich.console import Console

    from lrsearch.report.answer import all_alike, untrained
    from lrsearch.report.confirmed_words import print_confirmed
    from lrsearch.report.importance_words import importance_line
    from lrsearch.report.terminal import print_next, print_text

    progress, study = outcome.progress, outcome.study
    best = progress.best
    assert best is not None
    assert best.value is not None
    console = Console(file=sys.stdout, highlight=False, markup=False)
    _print_schedule(console, "\nBest schedule  ", best)
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
    written = written_files(outcome, found)
    names = "  ".join(_named(path, outcome, found) for path in written)
    print_text(console, f"Files   {written[0].parent}/  {names}", indent=8)
    name = shlex.quote(study.study_name)
    where = option(outcome.plan.config.storage, default_storage())
    bring = import_options(imports)
    tested = "" if outcome.plan.task.test is None else ", test data"
    asked = (f"confirm {name}{where}{bring}", f"is it really better? fresh seeds{tested}")
    again = f"--epochs {4 * outcome.plan.epochs}{data_option(outcome.plan.config.data_dir)}{bring}"
    answer = file_to_train(study, written[0].parent, found)
    steps = (
        *([asked] if found is None else []),
        (f"report {name}{where}", "everything on one page"),
        (f"dashboard {name}{where}", "every trial, in the browser"),
        (f"train {shlex.quote(str(answer))} {again}", "a longer run"),
    )
    print_next(console, steps)


def _robust(outcome: Outcome, confirmed: Confirmed | None) -> dict[str, Any] | None:
    """The schedule that is the safest to train with, as plain values; as in robust.yaml now."""
    from lrsearch.export import plain_losses

    found = _robust_now(outcome, confirmed)
    if found is None:
        return None
    trial = found.trial
    return {
        "trial": trial.number,
        "value": trial.value,
        "metric": trial.metric,
        "schedule": dict(trial.schedule),
        "raised": plain_losses(found.raised),
    }


def _robust_now(outcome: Outcome, confirmed: Confirmed | None) -> Robust | None:
    """What robust.yaml has now: a confirmation has trained finalists at higher rates, too."""
    from lrsearch.report.robust import robust
    from lrsearch.report.tables import load

    if confirmed is None:
        return outcome.robust
    return robust(load(outcome.study), outcome.study)


def _named(path: Path, outcome: Outcome, confirmed: Confirmed | None) -> str:
    """A file's name, and that robust.yaml has the schedule of best.yaml, where that is so."""
    best = outcome.progress.best
    if path.name != "robust.yaml" or best is None:
        return path.name
    found = _robust_now(outcome, confirmed)
    same = found is None or found.trial.number == best.number
    return f"{path.name} (as best.yaml)" if same else path.name


def _print_robust(console: Console, outcome: Outcome, found: Robust, best: int) -> None:
    """The schedule that is the safest to train with, and why."""
    from lrsearch.report.robust_words import robust_line
    from lrsearch.report.terminal import print_text

    line = robust_line(found, best)
    if found.trial.number != best and found.did_best:
        row = next(row for row in outcome.progress.rows if row.number == found.trial.number)
        _print_schedule(console, "Train with     ", row)
        line = f"val loss {words.loss(found.trial.value)}, {line}"
    elif found.trial.number != best:
        console.print("Train with     best.yaml", style="bold")
    print_text(console, f"  {line}", indent=4)


def _print_schedule(console: Console, head: str, row: TrialProgress) -> None:
    """A line with a schedule and its parameters."""
    from rich.text import Text

    text = Text(head, style="bold")
    text.append(f"{row.family}, lr {row.lr:.4g}", style="bold green")
    text.append(f"  {row.description}" if row.description else "", style="")
    console.print(text, soft_wrap=not console.is_terminal)


def _metric(outcome: Outcome, best: TrialProgress) -> str:
    """``, accuracy 97.3%``, where the task has a metric."""
    task = outcome.plan.task
    if best.metric is None or not task.metric_name:
        return ""
    return f", {task.metric_name} {words.metric(best.metric, task.metric_name)}"
