"""What is said of the schedule that is the safest to train with."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lrsearch.report import words
from lrsearch.report.raised import RAISE, mean_loss, measured
from lrsearch.report.robust import Beside, Robust
from lrsearch.report.tables import TrialRow

_RAISED = f"with its rates raised {RAISE:g} times"


def robust_line(found: Robust, best: int) -> str:
    """Why it is the robust one, in a line for a terminal.

    Args:
        found: The robust schedule.
        best: Number of the best trial of the search.
    """
    trial, many = found.finalist, f"of {len(found.raised)} finalists"
    what = f"{trial.family}, lr {trial.lr:.4g}"
    if found.beside is not None and found.beside.better:
        which = f"the {_best(found)} {many}, {what}" if found.raised else what
        return f"a usual recipe: {_over(found.beside)}, it beat {which} (robust.yaml)"
    if not found.raised and found.beside is not None:
        return f"it beat {_recipe(found.beside)} {_over(found.beside)} (robust.yaml)"
    if not found.raised:
        loss = words.loss(trial.value)
        return (
            f"robust.yaml has a gentler one, perhaps behind by luck alone: {what}, val loss {loss}"
        )
    if not found.did_best:
        near = "near the edge of what the task bears: " if found.diverged else ""
        return f"{near}{_lost(found)} {_RAISED}"
    beside = found.beside
    where = _seeds(found) if beside is None else f"and beat {_recipe(beside)} {_over(beside)}"
    how = f"did {_best(found)} {many} {_RAISED}, {where} (robust.yaml)"
    if not found.bears:
        return f"near the edge of what the task bears, or unlucky in its seeds: {how}"
    return f"robust, too: {how}" if trial.number == best else how


def robust_sentence(found: Robust, best: TrialRow, export: str) -> str:
    """The same as Markdown, for below the answer: ``found.trial`` if it did best, or the best.

    Args:
        found: The robust schedule, and why it is.
        best: The best trial of the search.
        export: The command that writes a schedule of the study.
    """
    trial, raised = found.finalist, found.raised
    luck = "Luck favours high rates, which may fail on another seed."
    if found.beside is not None and found.beside.better:
        return _of_recipe(found, found.beside, best, export)
    if not raised and found.beside is not None:
        return f"It {_beat(found.beside)}."
    if not raised:
        return (
            f"Gentler: {_what(trial)} has the lowest peak of all that only luck may have put "
            f"behind the best. {luck} {_writes(export, trial)}"
        )
    many = f"of {len(raised)} finalists"
    if not found.did_best:
        ended = f"{_lost(found)} {_RAISED}, {_seeds(found)}"
        if not found.diverged:
            return f"How near it lies to the edge of what this task bears is not known: {ended}."
        return f"It lies near the edge of what this task bears: {ended}. {luck}"
    how = f"did {_best(found)} {_RAISED}, {_seeds(found)}"
    near = " Even so, it lies near the edge of what this task bears, or its seeds were unlucky."
    near = "" if found.bears else near
    if found.beside is not None:
        near = f" And it {_beat(found.beside)}.{near}"
    if trial.number == best.number:
        came = words.loss(mean_loss(measured(raised[trial.number])))
        head = f"It is robust, too: {many}" if found.bears else many.capitalize()
        return f"{head} it {how} ({came} there).{near}"
    both = min(len(raised[best.number]), len(raised[trial.number]))  # seeds
    own, its = (measured(raised[t.number][:both]) for t in (trial, best))
    return (
        f"The lowest loss of the search, {words.loss(best.value)}, is that of {_what(best)}. "
        f"But {many} the one above {how}: it {_came(own)} there, and that one "
        f"{_came(its)}.{near} {luck} {_writes(export, best)}"
    )


def spared_line(*, from_search: bool) -> str:
    """That no finalist was trained at higher rates, as that would be too dear, as Markdown.

    Args:
        from_search: Whether the study was made by a call of ``lrsearch.search``.
    """
    how = "`robust=True`" if from_search else "`--robust`"
    return (
        f"no finalist was trained {_RAISED}, as that costs more than a fifth of the search: "
        f"{how} does it"
    )


def failed_line(show: str) -> str:
    """That every run at higher rates failed, as Markdown.

    Args:
        show: The command that tells why.
    """
    return f"every run of a finalist {_RAISED} failed: {words.code(show)} tells why"


def _of_recipe(found: Robust, beside: Beside, best: TrialRow, export: str) -> str:
    """That a usual recipe is the answer, and what was less, as Markdown."""
    own, its = _losses(beside)
    name = words.baselines([f"**{beside.recipe.baseline}**"])
    text = f"The lowest loss of the search, {words.loss(best.value)}, is that of {_what(best)}. "
    if found.raised:
        text += f"Of {len(found.raised)} finalists "
        text += "it" if found.finalist.number == best.number else _what(found.finalist)
        text += f" did {_best(found)} {_RAISED}, {_seeds(found)}. "
    return (
        f"{text}But {_over(beside)}, at their own rates, {name} came to {own} and that one to "
        f"{its}. {_writes(export, found.finalist)}"
    )


def robust_note(trial: int, best: int, export: str, recipe: str | None = None) -> str:
    """Why the answer is not the best trial, and how to get that one, as Markdown.

    Args:
        trial: Number of the answer.
        best: Number of the best trial of the search.
        export: The command that writes a schedule of the study.
        recipe: Name of the recipe that the answer is, if it is one.
    """
    why = f"it did best {_RAISED}"
    if recipe is not None:
        why = f"it is the usual recipe {recipe}, and the finalist beside it was no better"
    return (
        f"This is trial {trial}, also in robust.yaml: {why}. "
        f"The best of the search is in best.yaml ({words.code(f'{export} --trial {best}')})."
    )


def _beat(beside: Beside) -> str:
    """That the finalist is better than the best recipe."""
    its, own = _losses(beside)
    return f"beat {_recipe(beside)} {_over(beside)}, {own} for {its}"


def _recipe(beside: Beside) -> str:
    return words.baselines([str(beside.recipe.baseline)])


def _over(beside: Beside) -> str:
    """Over which seeds; on that of the search each finalist is lower, else it would be none.

    So it proves little. Where a finalist beat the recipe in this way (searches of
    ``studies/winners``, each with five fresh seeds in turn) its mean on 15 other seeds was lower,
    too, in 94% of 805 cases of digits, 19% of 204 of few digits, 83% of 114 of wrong digits, 64%
    of 103 of Fashion-MNIST and 58% of 79 of CIFAR-10.
    """
    return f"over {beside.seeds} seeds, one of them the search's"


def _losses(beside: Beside) -> tuple[str, str]:
    """Mean losses of the recipe and of the finalist."""
    its, own = (
        words.loss(loss) if math.isfinite(loss) else "divergence"
        for loss in (beside.loss, beside.finalist)
    )
    return its, own


def _lost(found: Robust) -> str:
    """How the finalists ended, where none was trained to the end at higher rates."""
    many = len(found.raised)
    if found.diverged == many:
        return f"each of {many} finalists diverged"
    if found.failed == many:
        return f"the run of each of {many} finalists failed"
    ended = {"diverged": found.diverged, "failed": found.failed}
    return f"of {many} finalists {words.listing([f'{n} {how}' for how, n in ended.items() if n])}"


def _came(losses: Sequence[float]) -> str:
    """What the runs of one finalist at higher rates came to."""
    if not losses:
        return "failed"
    return "diverged" if math.inf in losses else f"came to {words.loss(mean_loss(losses))}"


def _best(found: Robust) -> str:
    return "best" if found.bears else "least badly"


def _seeds(found: Robust) -> str:
    """On how many seeds the finalists were raised, where that was too dear for a second."""
    return "on fresh seeds" if max(map(len, found.raised.values())) > 1 else "on one fresh seed"


def _what(trial: TrialRow) -> str:
    """A schedule by its family and rate, its trial and loss."""
    schedule = words.schedule(trial.family, trial.lr)
    return f"{schedule} (trial {trial.number}, {words.loss(trial.value)})"


def _writes(export: str, trial: TrialRow) -> str:
    return f"{words.code(f'{export} --trial {trial.number}')} writes it."
