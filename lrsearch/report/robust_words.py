"""What is said of the schedule that is the safest to train with."""

from __future__ import annotations

import math

from lrsearch.report import words
from lrsearch.report.edges import EDGE, together
from lrsearch.report.robust import Robust
from lrsearch.report.tables import TrialRow


def robust_line(found: Robust, best: int) -> str:
    """Why it is the robust one, in a line for a terminal.

    Args:
        found: The robust schedule.
        best: Number of the best trial of the search.
    """
    trial, many = found.trial, f"of {len(found.raised)} finalists"
    if not found.raised:
        what = f"{trial.family}, lr {trial.lr:.4g}, val loss {words.loss(trial.value)}"
        return f"gentler, and behind by no more than luck: {what} (robust.yaml)"
    how = f"{many} it bears {EDGE:g} times its rates best, on fresh seeds (robust.yaml)"
    if not found.bears:
        how = f"{many} none bears {EDGE:g} times its rates, on fresh seeds; it did least badly"
        how += " (robust.yaml)"
    return f"robust, too: {how}" if trial.number == best and found.bears else how


def robust_sentence(found: Robust, best: TrialRow, export: str) -> str:
    """The same as Markdown, of the robust one if that is not the answer, else of the best.

    Args:
        found: The robust schedule, and why it is.
        best: The best trial of the search.
        export: The command that writes a schedule of the study.
    """
    trial, raised = found.trial, found.raised
    luck = "Luck favours high rates, which may fail on another seed."
    where = f"at {EDGE:g} times their rates, on fresh seeds"
    near = "" if found.bears else " All of them lie near the edge of what this task bears."
    if found.raised and trial.number == best.number:
        came = words.loss(together(raised[trial.number]))
        head = "It is robust, too: of" if found.bears else "Of"
        return f"{head} {len(raised)} finalists {where} it did best ({came}).{near}"
    if found.raised:
        both = min(len(raised[best.number]), len(raised[trial.number]))  # seeds
        own, its = (together(raised[t.number][:both]) for t in (trial, best))
        ended = "diverged" if math.isinf(its) else f"came to {words.loss(its)}"
        return (
            f"The lowest loss of the search, {words.loss(best.value)}, is that of {_what(best)}. "
            f"But of {len(raised)} finalists {where} the one above did best: it came to "
            f"{words.loss(own)}, where that one {ended}.{near} {luck} {_writes(export, best)}"
        )
    return (
        f"Gentler: {_what(trial)} has the lowest peak of all that only luck may have put behind "
        f"the best. {luck} {_writes(export, trial)}"
    )


def robust_note(trial: int, best: int, export: str) -> str:
    """Why the answer is not the best trial, and how to get that one, as Markdown.

    Args:
        trial: Number of the answer.
        best: Number of the best trial of the search.
        export: The command that writes a schedule of the study.
    """
    return (
        f"This is trial {trial}, also in robust.yaml: at {EDGE:g} times its rates it did best. "
        f"The best of the search is in best.yaml ({words.code(f'{export} --trial {best}')})."
    )


def _what(trial: TrialRow) -> str:
    """A schedule by its family and rate, its trial and loss."""
    schedule = f"**{trial.family}** at a peak learning rate of **{words.number(trial.lr)}**"
    return f"{schedule} (trial {trial.number}, {words.loss(trial.value)})"


def _writes(export: str, trial: TrialRow) -> str:
    return f"{words.code(f'{export} --trial {trial.number}')} writes it."
