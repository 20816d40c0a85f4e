"""What mattered, in words: a line for a terminal, sentences for the page."""

from __future__ import annotations

from collections.abc import Mapping

from lrsearch.attributes import SHARED
from lrsearch.report import words
from lrsearch.report.importance import LEAST_TRIALS, Importance, Shares


def importance_line(found: Importance, family: str) -> str:
    """What mattered, in one line for a terminal; "" with too few trials.

    Only what stands out is told (:meth:`Shares.clear`), with its spread: over all trials, and
    within one family.

    Args:
        found: The importance.
        family: That of the best schedule.
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
    shares = found.within.get(family)
    return [] if shares is None else shares.clear(shares.share.keys() - SHARED)


def _parts(found: Shares, names: Mapping[str, str]) -> str:
    """What parameters explain: ``lr explains 49 ± 23% and warmup 12 ± 3%``."""
    first, *rest = ((text, _part(found, name)) for name, text in names.items())
    return words.listing([" explains ".join(first), *map(" ".join, rest)])


def _part(found: Shares, name: str) -> str:
    """A share with its spread: ``49 ± 23%``."""
    return f"{100 * found.share[name]:.0f} ± {words.percent(found.spread.get(name, 0.0))}"


def importance_sentences(found: Importance) -> list[str]:
    """What mattered, as Markdown for the page: over all trials, and among the better half."""
    if found.overall is None:
        if found.trials < LEAST_TRIALS:
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
