"""What a confirmation says, in words and as a table in a terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lrsearch.attributes import CONFIRM_SUFFIX
from lrsearch.report import words
from lrsearch.report.command import confirming, typed
from lrsearch.report.confirmed import Arm, Confirmed
from lrsearch.report.raised import RAISE
from lrsearch.stats import ENOUGH_SEEDS, Comparison, with_lost

if TYPE_CHECKING:
    from rich.console import Console

WINNER = "the search's winner"


def sentence(found: Confirmed) -> str:
    """Whether the winner is really better, and what else is, in plain sentences of Markdown."""
    return " ".join(findings(found))


def findings(found: Confirmed, best: int | None = None) -> list[str]:
    """The parts of :func:`sentence`, each on one thing; what holds is first.

    Args:
        found: The comparison.
        best: Trial that the reader takes for the winner: it is said where another was confirmed,
            as more trials were run since.
    """
    parts = [of_winner(found), of_lowest(found)]
    if found.held is not found.winner:
        parts.reverse()
    parts = [part for part in [*parts, of_edges(found)] if part]
    if best is not None and not found.is_of(best):
        again = words.code(_again(found))
        before = (
            f"What was confirmed is **{found.winner.name}**, the best before more trials were run"
            f"; {again} runs the new best on the same seeds."
        )
        return [before, *parts]
    return parts


def other(found: Confirmed, best: int) -> str:
    """Which schedule is the answer, where fresh seeds chose another, and how to get that one.

    Args:
        found: The comparison.
        best: Trial that is the best of the search; "" if it is not the one that was confirmed.
    """
    if not found.is_of(best) or found.lowest is found.winner:
        return ""
    export = typed("export", found.name.removesuffix(CONFIRM_SUFFIX), found.storage)
    if found.held is found.winner:
        number = found.lowest.trial
        return (
            f"This is the best of the search. On fresh seeds trial {number}, in confirmed.yaml, "
            f"came lower: {words.code(f'{export} --trial {number}')}."
        )
    return (
        f"This is trial {found.held.trial}, also in confirmed.yaml: it held on fresh seeds, and "
        f"the best of the search did not ({words.code(f'{export} --trial {best}')})."
    )


def _again(found: Confirmed, **numbers: int) -> str:
    """How the search is confirmed once more."""
    name = found.name.removesuffix(CONFIRM_SUFFIX)
    return confirming(found.config, name, found.storage, **numbers)


def of_lowest(found: Confirmed) -> str:
    """The arm that came lowest where that is not the winner, or nothing at all."""
    lowest = found.lowest
    if lowest is found.winner or len(lowest.losses) < 2:
        return ""

    def below(other: Arm) -> str:
        own, its = lowest.losses, other.losses
        common = set(own) & set(its)
        return f"on {sum(own[s] < its[s] for s in common)} of {len(common)}"

    mean = words.number(lowest.val.mean, 4)
    first = found.held is lowest  # nothing before it has said which seeds
    seeds = words.count(len(lowest.losses), "fresh seed") if first else "these seeds"
    of_search = "search's " if first else ""
    text = f"Lowest on {seeds}, in the mean{among(found)}, is **{lowest.name}**, {mean}: "
    text += f"below the {of_search}winner {below(found.winner)}"
    row = found.decision.lead
    if row is None:
        return f"{text}.{_failures(lowest)}"
    if (rival := found.arm(row.name)) is not found.winner:
        text += f", below {words.baselines([str(rival.baseline)])} {below(rival)}"
    if (apart := _apart(row)) is None:
        return f"{text}.{_failures(lowest)}"
    by, side, reach = apart
    # If higher: on a few seeds the other was far higher, and so is its mean.
    how = "by" if side == "lower" else "but typically higher by"
    return f"{text}, {how} {by} ({reach}).{_failures(lowest)}"


def _apart(row: Comparison) -> tuple[str, str, str] | None:
    """By how much, to which side, within which interval; None where there is no interval."""
    if row.low is None or row.high is None:
        return None
    side, says, ends = "lower", words.lower_by, (row.difference, row.low, row.high)
    if row.difference < 0:
        side, says, ends = "higher", words.higher_by, (-row.difference, -row.high, -row.low)
    by, low, high = (says(v, row.relative) for v in ends)
    return by, side, f"95% interval {low} to {high}"


def _usual(row: Comparison) -> str:
    """What kind of mean a difference is; the means of the table may lie on the other side."""
    if row.test != "wilcoxon":
        return " on average"
    return " typically" if row.lower + row.higher == row.n else ", where they differ, typically"


def among(found: Confirmed) -> str:
    """Of which arms the lowest is so: `` of those with no lost seeds``, or "" for all."""
    lost, parts = len(found.lowest.lost), []
    if any(len(arm.lost) > lost for arm in found.arms):
        parts.append(f"with {'the fewest' if lost else 'no'} lost seeds")
    excluded = found.decision.excluded
    if excluded and found.lowest not in excluded:
        parts.append(f"that bear {RAISE:g} times their rates")
    return f" of those {' and '.join(parts)}" if parts else ""


def of_edges(found: Confirmed) -> str:
    """Which arms lie near the edge of what the task bears, or nothing at all."""
    arms = [arm for arm in found.arms if arm.near_edge]
    if not arms:
        return ""
    came = [
        f"**{arm.name}** "
        + ("diverged" if arm.raised == math.inf else f"ended at {words.loss(arm.raised)}")
        for arm in arms
    ]
    its, lie = ("its", "it lies") if len(arms) == 1 else ("their", "they lie")
    return (
        f"At {RAISE:g} times {its} rates {words.listing(came)}: {lie} near the edge of what this "
        "task bears, and may fail on another seed."
    )


def _failures(arm: Arm) -> str:
    """On how many seeds it was lost, or did not train; " " first, or nothing at all."""
    text = ""
    if arm.lost:
        text = f" On {len(arm.lost)} of {len(arm.losses)} seeds it diverged or failed."
    if arm.untrained:
        text += f" On {len(arm.untrained)} of its {arm.val.n} seeds it did not train."
    return text


def of_winner(found: Confirmed) -> str:
    """The winner of the search against the baselines."""
    winner = found.winner
    named = found.held is not winner
    on, who = (f"The search's winner, {winner.name}: on", "it") if named else ("On", WINNER)
    seeds = words.count(len(winner.losses), "fresh seed")
    if len(winner.losses) < 2:
        return f"The search's winner was run again on {seeds} so far.{_more(found)}"
    baselines = [a for a in found.arms[1:] if a.baseline is not None]
    if found.too_few:
        return f"On {seeds} {_seen(found, baselines)}{_failures(winner)}{_more(found)}"
    groups: dict[str, list[str]] = {"better": [], "worse": [], "unclear": [], "equal": []}
    for arm in baselines:
        if (row := found.against(arm.key)) is not None:
            groups[row.verdict()].append(_counted(row, arm, winner))
    parts = []
    if groups["better"]:
        parts.append(f"beat {words.baselines(groups['better'])}")
    if groups["worse"]:
        parts.append(f"lost to {words.baselines(groups['worse'])}")
    unclear = groups["unclear"] + groups["equal"]
    if unclear:
        parts.append(f"is **not distinguishable** from {words.baselines(unclear)}")
    if not parts:
        return f"{on} {seeds} {_alone(found, baselines)}{_failures(winner)}"
    text = f"{on} {seeds}, paired, {who} {', and it '.join(parts)}"
    strongest = found.decision.strongest
    row = found.against(strongest.key) if strongest is not None else None
    apart = None if row is None or row.verdict() == "equal" else _apart(row)
    if strongest is None or row is None or apart is None:
        return f"{text}.{_failures(winner)}"
    by, side, reach = apart
    few = " So few seeds seldom tell: add some with `--seeds`." if unclear and row.n < 5 else ""
    return (
        f"{text}; against the strongest, {strongest.baseline}, its validation loss is"
        f"{_usual(row)} {by} {side} ({reach}).{_failures(winner)}{few}"
    )


def _counted(row: Comparison, arm: Arm, winner: Arm) -> str:
    """A baseline, and on how many seeds the winner is on the side of the difference."""
    if row.lower == row.higher == 0:
        return f"{arm.baseline} (equal)"
    side, seeds = ("better", row.lower) if row.difference > 0 else ("worse", row.higher)
    of = f" of {row.n}" if row.n != len(winner.losses) else ""
    same = row.n - row.lower - row.higher
    return f"{arm.baseline} ({side} on {seeds}{of}{f', equal on {same}' if same else ''})"


def _seen(found: Confirmed, baselines: list[Arm]) -> str:
    """Where the winner's mean lies among the baselines, and no word on how sure that is.

    Of the seeds that both were run on; a lost one counts as in the table's last column.
    """
    losses = with_lost({arm.key: arm.losses for arm in found.arms})
    own = losses[found.winner.key]
    sides: dict[str, list[str]] = {"lower than": [], "higher than": [], "equal to": []}
    for arm in baselines:
        its = losses[arm.key]
        if common := set(own) & set(its):
            d = math.fsum(its[seed] - own[seed] for seed in common)
            side = "lower than" if d > 0 else "higher than" if d < 0 else "equal to"
            sides[side].append(str(arm.baseline))
    parts = [f"{side} that of {words.baselines(names)}" for side, names in sides.items() if names]
    if not parts:
        return _alone(found, baselines)
    return f"the mean validation loss of {WINNER} was {', '.join(parts)}."


def _alone(found: Confirmed, baselines: list[Arm]) -> str:
    """Why there is nothing to compare the winner with."""
    if baselines:
        return "no baseline finished to compare it with."
    if found.winner.baseline is not None:
        return "no other usual recipe was there to compare it with."
    return "there is no usual recipe to compare it with: the search trained none to the end."


def _more(found: Confirmed) -> str:
    """So few seeds tell nothing; what to type for enough."""
    again = words.code(_again(found, seeds=ENOUGH_SEEDS))
    return (
        " So few seeds allow no interval and no test that would say anything: "
        f"{again} adds to them."
    )


def seeds_of(arm: Arm) -> str:
    """On how many seeds it was trained, and how many were lost: ``5 (+5 lost)``."""
    return f"{arm.val.n} (+{len(arm.lost)} lost)" if arm.lost else str(arm.val.n)


def interval(row: Comparison) -> str:
    """The 95% interval, or a dash."""
    if row.low is None or row.high is None:
        return "–"
    low, high = (words.lower_by(v, row.relative) for v in (row.low, row.high))
    return f"{low} to {high}"


def arm_cells(found: Confirmed, arm: Arm) -> list[str]:
    """An arm in a table: median, mean, the test metric where there is one, and the winner's lead.

    The last is one cell, or three where the seeds allow an interval; the winner's are empty.
    """
    cells = [words.loss(arm.val.median), words.loss_mean(arm.val)]
    if found.tested:
        test = arm.test
        cells.append("–" if test is None else words.metric_mean(test, found.metric_name))
    if (row := found.against(arm.key)) is None:  # it is the winner itself
        return cells + [""] * (1 if found.too_few else 3)
    cells.append(words.lower_by(row.difference, row.relative))
    return cells if found.too_few else [*cells, interval(row), words.p_value(row.p_corrected)]


def print_confirmed(found: Confirmed, console: Console) -> None:
    """Print the comparison for a person."""
    from lrsearch.report.terminal import print_rows, print_text

    uneven = len({seeds_of(arm) for arm in found.arms}) > 1 or any(a.lost for a in found.arms)
    heads = ["schedule", *(["seeds"] if uneven else []), "median", "val loss"]
    heads += [f"test {found.metric_name}"] if found.tested else []
    rows = [
        [arm.name, *([seeds_of(arm)] if uneven else []), *arm_cells(found, arm)]
        for arm in found.arms
    ]
    if found.loss:
        heads += ["lower by"] if found.too_few else ["lower by", "95% interval", "p"]
    rows = [row[: len(heads)] for row in rows]
    print_rows(console, heads, rows, right=range(1, len(heads)))
    if found.loss:
        what = "Lower by: how far the first one, the winner of the search, lies below this one."
        print_text(console, f"{what} {found.how}", style="dim")
    console.print()
    for part in findings(found):
        print_text(console, part.replace("**", "").replace("`", ""))
