"""Which arm of a confirmation is the answer: the rule, from the losses on fresh seeds down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lrsearch.stats import Comparison, compare

if TYPE_CHECKING:
    from lrsearch.report.confirmed import Arm


@dataclass(frozen=True)
class Decision:
    """What fresh seeds say of the arms. A baseline is one of the usual recipes.

    Attributes:
        beaten: Whether the winner of the search is surely worse than a baseline.
        unbeaten: The baselines that the winner is not surely better than.
        stands: Whether the winner is surely better than the strongest baseline, and worse than
            none.
        excluded: Arms that cannot be the answer: those near the edge, unless all that were tried
            are.
        lowest: The arm with the fewest lost seeds, then the lowest mean; the winner where equal.
            Only arms that were run on as many seeds as any other count. An arm that is
            ``excluded`` counts as having lost one seed more.
        lead: ``lowest`` against the strongest baseline; None where it is one, or there is none.
            It was chosen on these very seeds. So its interval and p are corrected for as many
            comparisons as there are pairs of arms.
        held: The arm that is the answer: the winner, or ``lowest`` in its place. That takes its
            place where the winner is not surely better than the baselines, and ``lowest`` is:
            better than the strongest of them, and worse than none.
        decided: Whether fresh seeds have decided what to train with; it is ``held``, then.
        strongest: The baseline that ``held`` is measured by: the fewest lost, then the lowest
            mean.
        gain: ``held`` against it.
    """

    beaten: bool
    unbeaten: tuple[Arm, ...]
    stands: bool
    excluded: tuple[Arm, ...]
    lowest: Arm
    lead: Comparison | None
    held: Arm
    decided: bool
    strongest: Arm | None
    gain: Comparison | None


def decide(arms: Sequence[Arm], of_winner: Sequence[Comparison], *, too_few: bool) -> Decision:
    """The decision between arms on fresh seeds.

    Args:
        arms: The winner of the search first.
        of_winner: The winner compared with the others.
        too_few: Whether the winner was run on too few seeds for any interval.
    """
    winner, others = arms[0], arms[1:]
    rows = {row.name: row for row in of_winner}
    verdicts = {
        a.key: rows[a.key].verdict() for a in others if a.baseline is not None and a.key in rows
    }
    rival = _strongest(others)
    beaten = "worse" in verdicts.values()
    named = verdicts.values() if rival is None else [verdicts.get(rival.key)]
    stands = "better" in named and not beaten

    tried = [a for a in arms if a.raised is not None and a.val_loss]
    near = [a for a in tried if a.near_edge]
    excluded = near if len(near) < len(tried) else []
    most = max(len(a.losses) for a in arms)
    lowest = min(
        (a for a in arms if len(a.losses) == most and a.val_loss),
        key=lambda a: (len(a.lost) + (a in excluded), a.val.mean),
        default=winner,
    )
    of_lowest = _against_baselines(lowest, arms)
    strongest = _strongest(arms)
    lead = None if strongest is None else of_lowest.get(strongest.key)

    sure = not too_few and stands and winner not in excluded
    held = winner
    if not too_few and not sure and lead is not None and lead.verdict() == "better":
        worse = any(row.verdict() == "worse" for row in of_lowest.values())
        held = winner if worse else lowest
    strongest = _strongest([a for a in arms if a is not held])
    gain = lead
    if held is winner:
        gain = None if strongest is None else rows.get(strongest.key)
    return Decision(
        beaten=beaten,
        unbeaten=tuple(a for a in others if verdicts.get(a.key, "better") != "better"),
        stands=stands,
        excluded=tuple(excluded),
        lowest=lowest,
        lead=lead,
        held=held,
        decided=sure or held is not winner,
        strongest=strongest,
        gain=gain,
    )


def _strongest(arms: Sequence[Arm]) -> Arm | None:
    """The baseline with the fewest lost seeds, then the lowest mean."""
    rows = [a for a in arms if a.baseline is not None and a.val_loss and len(a.losses) > 1]
    return min(rows, key=lambda a: (len(a.lost), a.val.mean), default=None)


def _against_baselines(arm: Arm, arms: Sequence[Arm]) -> dict[str, Comparison]:
    """An arm that was chosen among all, against every baseline; empty where it is one."""
    if arm.baseline is not None or len(arm.losses) < 2:
        return {}
    run = {a.key: a.losses for a in arms if len(a.losses) > 1}
    baselines = {a.key for a in arms if a.baseline is not None}
    rows = compare(arm.key, run, math.comb(len(run), 2))
    return {row.name: row for row in rows if row.name in baselines}
