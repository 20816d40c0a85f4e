"""Which trial is the answer of a study, and what is said of it, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable

from lrsearch.report import words
from lrsearch.report.command import confirming, from_python, typed
from lrsearch.report.confirmed import Confirmed
from lrsearch.report.confirmed_words import of_edges, of_lowest, of_winner
from lrsearch.report.raised import RAISE
from lrsearch.report.robust import spared
from lrsearch.report.robust_words import robust_sentence, spared_line
from lrsearch.report.tables import Answer, StudyTable, TrialRow
from lrsearch.stats import ALPHA, least_p


def trial_to_use(best: int, chosen: int, confirmed: Confirmed | None) -> tuple[int, str]:
    """Number of the trial to train with, and the file that has it.

    Args:
        best: Number of the best trial of the search.
        chosen: Number of the one that did best at higher rates; ``best`` where none was raised.
        confirmed: The confirmation; where fresh seeds have decided, the answer is theirs.
    """
    if confirmed is not None and confirmed.is_of(best) and confirmed.decision.decided:
        held = confirmed.held
        return held.trial, "best.yaml" if held is confirmed.winner else "confirmed.yaml"
    return chosen, "best.yaml" if chosen == best else "robust.yaml"


def trial_shown(table: StudyTable, found: Answer, confirmed: Confirmed | None) -> TrialRow:
    """The trial whose curve a report draws: that of :func:`trial_to_use`."""
    number, _ = trial_to_use(found.best.number, found.chosen.number, confirmed)
    return next((t for t in table.trials if t.number == number), found.best)


def sentences(table: StudyTable, found: Answer | None, confirmed: Confirmed | None) -> list[str]:
    """What to train with, and how sure that is.

    Where another schedule than the winner held on fresh seeds, it comes before the winner.

    Args:
        table: The study.
        found: :func:`lrsearch.report.tables.answer` of it.
        confirmed: Its confirmation, if there is one.
    """
    if found is None:
        return _none(table)
    if confirmed is None or not confirmed.is_of(found.best.number):
        ended = table.finished
        if found.best.family and all_alike((t.value, t.lr) for t in ended):
            return _alike(table, found.best, len(ended))
        return [_what(found.chosen), _how_good(table, found), *_robust(table, found)]
    lines = [_what(found.best, confirmed), _how_good(table, found, confirmed)]
    if confirmed.held is not confirmed.winner:
        lines.insert(1, of_lowest(confirmed))
    else:
        lines.append(of_lowest(confirmed))
    if found.chosen is not found.best and not confirmed.decision.decided:
        lines.insert(1, _undecided(found.chosen, confirmed))
    return [line for line in [*lines, of_edges(confirmed)] if line]


def all_alike(ended: Iterable[tuple[float | None, float]]) -> bool:
    """Whether trials of several peak rates all came to one loss.

    Args:
        ended: Final loss (None where it was not trained to the end) and peak rate of each.
    """
    losses, rates = map(set, zip(*ended, strict=True))
    return None not in losses and len(losses) == 1 < len(rates)


def untrained(seed: str = "`--seed N --name ANOTHER`") -> str:
    """What it may mean that all trials came to one loss, and what to do about it."""
    return (
        "If it is a poor one, the model learns nothing from its initial weights: look at the "
        f"model, or search with {seed}."
    )


def _alike(table: StudyTable, best: TrialRow, trials: int) -> list[str]:
    """What to say where no schedule made a difference."""
    loss = f"validation loss, **{words.loss(best.value)}**"
    said = f"No schedule made a difference: all {trials:,} trials came to the same {loss}."
    return [said, untrained() if table.config else untrained("another seed")]


def _none(table: StudyTable) -> list[str]:
    """What to say, and to do, where no trial was trained to the end."""
    if not table.trials:
        return ["No trial has run yet.", f"Start with {words.code('lrsearch run')}."]
    ended = table.having("pruned", "diverged", "failed")
    n = words.count(len(ended), "trial")
    if ended and all(trial.status == "diverged" for trial in ended):
        rates = [trial.lr for trial in ended if math.isfinite(trial.lr)]
        least = f", even at a peak learning rate of **{words.number(min(rates))}**"
        again = words.code("lrsearch run --lr LOW,HIGH --name ANOTHER")
        how = again if table.config else "in your loop"
        return [
            f"All {n} diverged{least if rates else ''}.",
            f"Look for NaN in the data, or search lower rates: {how}.",
        ]
    said = "No trial has been trained to the end"
    said += f"; {n} ended before." if ended else " yet."
    if running := table.having("running"):
        return [said, f"In training now: {words.count(len(running), 'trial')}."]
    if not table.config:
        return [said, "Run its own training loop again to go on."]
    if any(trial.status == "failed" for trial in ended):
        return [
            said,
            f"{words.code(typed('show', table.name, table.storage_url))} says why some failed.",
        ]
    if len(ended) >= (table.config.get("trials") or math.inf):
        return [said, "The study has all its trials: one with a larger `--trials` goes on."]
    return [said, "Run the same command again to go on."]


def _what(best: TrialRow, confirmed: Confirmed | None = None) -> str:
    if not best.family:
        return f"**Trial {best.number}** is the best; it has no schedule."
    schedule = words.schedule(best.family, best.lr)
    if confirmed is not None and (doubt := _doubt(schedule, best, confirmed)):
        return doubt
    text = f"Train with {schedule}"
    if best.warmup:
        text += f" after {words.count(best.warmup, 'epoch')} of linear warmup"
    if own := words.settings(best):
        text += f" ({own})"
    return text + "."


def _doubt(schedule: str, best: TrialRow, confirmed: Confirmed) -> str:
    """What fresh seeds say against the best of the search, in words ``schedule``; or nothing."""
    decision = confirmed.decision
    if confirmed.too_few:
        return f"{schedule} looked best in the search; too few fresh seeds have run to say more."
    if decision.held is not confirmed.winner:
        held, strongest = decision.held, decision.strongest
        assert strongest is not None  # it is what `held` is better than
        name = words.baselines([f"**{strongest.baseline}**"])
        better = words.schedule(held.schedule["family"], float(held.schedule["lr"]))
        only = "lies near the edge of what this task bears"
        only = only if decision.stands else "only looked best"
        return f"{better} is better than {name}; {schedule} {only}."
    if not decision.stands and decision.unbeaten:
        named = words.baselines([f"**{arm.baseline}**" for arm in decision.unbeaten])
        recipes = sum(arm.baseline is not None for arm in confirmed.arms[1:])
        if 2 < len(decision.unbeaten) == recipes:
            named = "**any usual recipe**"
        recipe = best.baseline and not decision.beaten
        only = "was the best recipe in the search" if recipe else "only looked best"
        rows = [row for arm in decision.unbeaten if (row := confirmed.against(arm.key))]
        if all(row.lower == row.n for row in rows):
            seeds = min(row.n for row in rows)
            few = least_p(seeds, among=len(confirmed.loss)) >= ALPHA
            why = "too few to be sure" if few else "by amounts too uneven to be sure"
            only = f"was lower on all {words.count(seeds, 'fresh seed')}, {why}"
        return f"Nothing found is surely better than {named}: {schedule} {only}."
    if decision.stands and not decision.decided:
        name = "the usual recipes"
        if decision.unbeaten and decision.strongest is not None:
            name = words.baselines([f"**{decision.strongest.baseline}**"])
        return f"{schedule} is better than {name}, but near the edge of what this task bears."
    return ""


def _undecided(chosen: TrialRow, confirmed: Confirmed) -> str:
    """What to train with where fresh seeds have named nothing that bears higher rates."""
    until = "To be safe" if confirmed.decision.stands else "Until more seeds decide"
    why = f"did best with its rates raised {RAISE:g} times"
    if chosen.baseline is not None:
        why = "is a usual recipe, and the finalist was no better in the mean"
    schedule = words.schedule(chosen.family, chosen.lr)
    return f"{until}, train with {schedule} (trial {chosen.number}): it {why}."


def _how_good(table: StudyTable, found: Answer, confirmed: Confirmed | None = None) -> str:
    trial = found.best if confirmed is not None else found.chosen
    value = words.loss(trial.value)
    strongest = found.strongest
    text = f"It reached a validation loss of **{value}**"
    if confirmed is not None:
        stays = confirmed.decision.decided and confirmed.held is confirmed.winner
        what = "it" if stays else "its winner"
        text = f"In the search, with one seed, {what} reached a validation loss of **{value}**"
    if found.best.baseline is not None and all(trial.baseline for trial in table.trials):
        recipe = found.best.baseline
        text = f"Only the usual recipes were run; of these {recipe} has the lowest "
        text += f"validation loss, **{value}**"
    elif found.best.baseline is not None:
        text = (
            f"That is the usual recipe, {found.best.baseline}: nothing else that "
            f"was tried got below its validation loss of **{value}**"
        )
    elif trial.baseline is not None:
        text = f"That is the usual recipe, {trial.baseline}, with a validation loss of **{value}**"
    elif strongest is not None and strongest.value is not None and trial.value is not None:
        side = "below" if trial.value <= strongest.value else "above"
        by = words.below(trial.value, strongest.value)
        text += f", **{by} {side}** the best usual recipe, "
        text += f"{strongest.baseline} ({words.loss(strongest.value)})"
        theirs = strongest.others
        if other := [words.code(k) for k, v in trial.others.items() if theirs.get(k) != v]:
            text += f", which ran with other values of {words.listing(other)}"
    if confirmed is None:
        settle = words.code(confirming(table.config, table.name, table.storage_url))
        settle = f"{settle} has settled it" if table.config else "your loop has run it on others"
        return f"{text} — measured with one seed, so not certain until {settle}."
    return f"{text}. {of_winner(confirmed)}"


def _robust(table: StudyTable, found: Answer) -> list[str]:
    lines, raised = [], {} if found.robust is None else found.robust.raised
    if found.robust is not None:
        export = typed("export", table.name, table.storage_url)
        lines.append(robust_sentence(found.robust, found.best, export))
    if spared(table, raised):
        line = spared_line(from_search=from_python(table.config))
        lines.append(f"{line[0].upper()}{line[1:]}.")
    return lines
