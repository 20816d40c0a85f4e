"""The answer of a study in two sentences, as Markdown: for the page and for the dashboard."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping

from lrsearch.report import words
from lrsearch.report.command import confirming, typed
from lrsearch.report.confirmed import Confirmed
from lrsearch.report.confirmed_words import of_edges, of_lowest, of_winner
from lrsearch.report.edges import EDGE
from lrsearch.report.importance import LEAST_TRIALS, Importance, Shares
from lrsearch.report.robust_words import robust_sentence
from lrsearch.report.tables import Answer, StudyTable, TrialRow


def sentences(table: StudyTable, found: Answer | None, confirmed: Confirmed | None) -> list[str]:
    """What to do, and how sure that is; of what held in the winner's place before the winner.

    Args:
        table: The study.
        found: :func:`lrsearch.report.tables.answer` of it.
        confirmed: Its confirmation, if there is one.
    """
    if found is None:
        return _none(table)
    if confirmed is None or confirmed.winner.trial != found.best.number:
        ended = table.having("complete", "pruned", "diverged")
        if found.best.family and all_alike((t.value, t.lr) for t in ended):
            return _alike(table, found.best, len(ended))
        return [_what(found.chosen), _how_good(table, found), *_robust(table, found)]
    lines = [_what(found.best, confirmed), _how_good(table, found, confirmed)]
    if confirmed.held is not confirmed.winner:
        lines.insert(1, of_lowest(confirmed))
    else:
        lines.append(of_lowest(confirmed))
    if found.chosen is not found.best and not confirmed.decided:
        lines.insert(1, _undecided(found.chosen))
    return [line for line in [*lines, of_edges(confirmed)] if line]


def all_alike(ended: Iterable[tuple[float | None, float]]) -> bool:
    """Whether trials of several peak rates all came to one loss.

    Args:
        ended: Final loss (None where it was not trained to the end) and peak rate of each.
    """
    losses, rates = map(set, zip(*ended, strict=True))
    return None not in losses and len(losses) == 1 < len(rates)


def untrained(seed: str = "`--seed N --name ANOTHER`") -> str:
    """What that may mean, and what to do."""
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
    schedule = f"**{best.family}** at a peak learning rate of **{words.number(best.lr)}**"
    if confirmed is not None and confirmed.too_few:
        return f"{schedule} looked best in the search; too few fresh seeds have run to say more."
    if confirmed is not None and confirmed.held is not confirmed.winner:
        held, strongest = confirmed.held, confirmed.strongest
        assert strongest is not None  # it is what `held` is better than
        lr = words.number(float(held.schedule["lr"]))
        name = words.baselines([f"**{strongest.baseline}**"])
        better = f"**{held.schedule['family']}** at a peak learning rate of **{lr}**"
        return f"{better} is better than {name}; {schedule} only looked best."
    if confirmed is not None and not confirmed.stands and confirmed.unbeaten:
        named = words.baselines([f"**{arm.baseline}**" for arm in confirmed.unbeaten])
        recipes = sum(arm.baseline is not None for arm in confirmed.arms[1:])
        if 2 < len(confirmed.unbeaten) == recipes:
            named = "**any usual recipe**"
        recipe = best.baseline and not confirmed.beaten
        only = "was the best recipe in the search" if recipe else "only looked best"
        return f"Nothing found is surely better than {named}: {schedule} {only}."
    text = f"Train with {schedule}"
    if best.warmup:
        text += f" after {words.count(best.warmup, 'epoch')} of linear warmup"
    if own := words.settings(best):
        text += f" ({own})"
    return text + "."


def _undecided(chosen: TrialRow) -> str:
    """What to train with where fresh seeds have named nothing yet."""
    lr = words.number(chosen.lr)
    return (
        f"Until more seeds decide, train with **{chosen.family}** at a peak learning rate of "
        f"**{lr}** (trial {chosen.number}): it did best with its rates raised {EDGE:g} times."
    )


def _how_good(table: StudyTable, found: Answer, confirmed: Confirmed | None = None) -> str:
    trial = found.best if confirmed is not None else found.chosen
    value = words.loss(trial.value)
    strongest = found.strongest
    text = f"It reached a validation loss of **{value}**"
    if confirmed is not None:
        what = "it" if confirmed.decided and confirmed.held is confirmed.winner else "its winner"
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
    elif strongest is not None and strongest.value is not None and trial.value is not None:
        side = "below" if trial.value <= strongest.value else "above"
        by = words.below(trial.value, strongest.value)
        text += f", **{by} {side}** the best usual recipe, "
        text += f"{strongest.name} ({words.loss(strongest.value)})"
        theirs = strongest.trial.others
        if other := [words.code(k) for k, v in trial.others.items() if theirs.get(k) != v]:
            text += f", which ran with other values of {words.listing(other)}"
    if confirmed is None:
        settle = words.code(confirming(table.config, table.name, table.storage_url))
        settle = f"{settle} has settled it" if table.config else "your loop has run it on others"
        return f"{text} — measured with one seed, so not certain until {settle}."
    return f"{text}. {of_winner(confirmed)}"


def _robust(table: StudyTable, found: Answer) -> list[str]:
    if found.robust is None:
        return []
    export = typed("export", table.name, table.storage_url)
    return [robust_sentence(found.robust, found.best, export)]


def mattered_line(found: Importance, family: str) -> str:
    """What mattered, in a line: over all trials and within one family; "" with too few of them.

    Only what stands out is told (:meth:`Shares.clear`), with its spread.

    Args:
        found: The importance.
        family: Of the best schedule; of its own parameters, too, those that stand out are told.
    """
    if found.overall is None:
        return ""
    own = _own(found, family)
    if top := found.overall.clear():
        said = _parts(found.overall, {name: name for name in top})
        more = "; nothing else stands out" if len(top) < len(found.overall.share) else ""
        text = f"what mattered: {said} of the differences{more}"
    else:
        beyond = "over all trials" if own else "from chance"
        text = f"what mattered: nothing stands out {beyond} yet"
    if not own:
        return text
    parts = [f"{name} {_part(found.within[family], name)}" for name in own]
    return f"{text} · within {family}: {words.listing(parts)}"


def _own(found: Importance, family: str) -> list[str]:
    """Those of a family's own parameters that stand out."""
    own = found.own(family)
    return found.within[family].clear(own) if own else []


def _parts(found: Shares, names: Mapping[str, str]) -> str:
    """What parameters explain: ``lr explains 49 ± 23% and warmup 12 ± 3%``."""
    first, *rest = ((text, _part(found, name)) for name, text in names.items())
    return words.listing([" explains ".join(first), *map(" ".join, rest)])


def _part(found: Shares, name: str) -> str:
    """A share with its spread: ``49 ± 23%``."""
    return f"{100 * found.share[name]:.0f} ± {words.percent(found.spread.get(name, 0.0))}"


def mattered(found: Importance) -> list[str]:
    """What mattered, in words: over all trials, and among the better half."""
    if found.overall is None:
        if sum(found.counts.values()) < LEAST_TRIALS:
            needed = f"({LEAST_TRIALS} are needed)"
            return [f"Too few trials have finished to say what mattered {needed}."]
        return ["The trials came to nothing that family, rate or warmup could explain."]
    names = {"scheduler": "the scheduler", "lr": "the learning rate", "warmup": "warmup"}

    def parts(found: Shares) -> str:
        return _parts(found, {k: names.get(k, words.code(k)) for k in found.share})

    text = parts(found.overall)
    if not found.overall.clear():
        text = f"nothing stands out from chance yet: {text}"
    own = ", in the families' own parameters" if found.within or found.too_few else ""
    lines = [
        f"{text[0].upper()}{text[1:]} of the differences between {found.overall.trials:,} "
        f"trials; {words.percent(found.overall.rest)} lies in combinations of them{own} and in "
        "chance."
    ]
    if found.better is not None:
        chance = " nothing stands out from chance:" if not found.better.clear() else ","
        better = parts(found.better)
        lines.append(f"Among the better half of the trials{chance} {better}.")
    return lines


def to_html(markdown: str) -> str:
    """**bold** and `code` as HTML, everything else escaped."""
    text = html.escape(markdown)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)
