"""What is said of the schedule that is the safest to train with."""

from __future__ import annotations

import math

from lrsearch.report import words
from lrsearch.report.raised import RAISE, mean_loss
from lrsearch.report.robust import Robust
from lrsearch.report.tables import TrialRow

_RAISED = f"with its rates raised {RAISE:g} times"
_FAILED = f"diverged or failed {_RAISED}"


def robust_line(found: Robust, best: int) -> str:
    """Why it is the robust one, in a line for a terminal.

    Args:
        found: The robust schedule.
        best: Number of the best trial of the search.
    """
    trial, many = found.trial, f"of {len(found.raised)} finalists"
    if not found.raised:
        what = f"{trial.family}, lr {trial.lr:.4g}, val loss {words.loss(trial.value)}"
        return f"robust.yaml has a gentler one, perhaps behind by luck alone: {what}"
    if found.lost:
        return f"near the edge of what the task bears: each {many} {_FAILED}"
    how = f"did {_best(found)} {many} {_RAISED}, {_seeds(found)} (robust.yaml)"
    if not found.bears:
        return f"near the edge of what the task bears: {how}"
    return f"robust, too: {how}" if trial.number == best else how


def robust_sentence(found: Robust, best: TrialRow, export: str) -> str:
    """The same as Markdown, for below the answer: ``found.trial`` if it did best, or the best.

    Args:
        found: The robust schedule, and why it is.
        best: The best trial of the search.
        export: The command that writes a schedule of the study.
    """
    trial, raised = found.trial, found.raised
    luck = "Luck favours high rates, which may fail on another seed."
    if not raised:
        return (
            f"Gentler: {_what(trial)} has the lowest peak of all that only luck may have put "
            f"behind the best. {luck} {_writes(export, trial)}"
        )
    many = f"of {len(raised)} finalists"
    if found.lost:
        return (
            f"It lies near the edge of what this task bears: each {many} {_FAILED}, "
            f"{_seeds(found)}. {luck}"
        )
    how = f"did {_best(found)} {_RAISED}, {_seeds(found)}"
    near = "" if found.bears else " Even so, it lies near the edge of what this task bears."
    if trial.number == best.number:
        came = words.loss(mean_loss(raised[trial.number]))
        head = f"It is robust, too: {many}" if found.bears else many.capitalize()
        return f"{head} it {how} ({came} there).{near}"
    both = min(len(raised[best.number]), len(raised[trial.number]))  # seeds
    own, its = (mean_loss(raised[t.number][:both]) for t in (trial, best))
    ended = "diverged" if math.isinf(its) else f"came to {words.loss(its)}"
    return (
        f"The lowest loss of the search, {words.loss(best.value)}, is that of {_what(best)}. "
        f"But {many} the one above {how}: it came to {words.loss(own)} there, and that one "
        f"{ended}.{near} {luck} {_writes(export, best)}"
    )


def robust_note(trial: int, best: int, export: str) -> str:
    """Why the answer is not the best trial, and how to get that one, as Markdown.

    Args:
        trial: Number of the answer.
        best: Number of the best trial of the search.
        export: The command that writes a schedule of the study.
    """
    return (
        f"This is trial {trial}, also in robust.yaml: it did best {_RAISED}. "
        f"The best of the search is in best.yaml ({words.code(f'{export} --trial {best}')})."
    )


def _best(found: Robust) -> str:
    return "best" if found.bears else "least badly"


def _seeds(found: Robust) -> str:
    """On how many seeds the finalists were raised, where that was too dear for a second."""
    return "on fresh seeds" if max(map(len, found.raised.values())) > 1 else "on one fresh seed"


def _what(trial: TrialRow) -> str:
    """A schedule by its family and rate, its trial and loss."""
    schedule = f"**{trial.family}** at a peak learning rate of **{words.number(trial.lr)}**"
    return f"{schedule} (trial {trial.number}, {words.loss(trial.value)})"


def _writes(export: str, trial: TrialRow) -> str:
    return f"{words.code(f'{export} --trial {trial.number}')} writes it."
