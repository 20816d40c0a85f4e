"""What ``lrsearch confirm`` found: the arms on fresh seeds, and which of them is the answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lrsearch.report import words
from lrsearch.report.raised import is_near_edge, plain_loss
from lrsearch.stats import FEWEST_SEEDS, Comparison, Summary, compare, lost_counts, method, summary

HOW = "Mean ± standard deviation over seeds."
HOW_FEW = f"Mean ± standard deviation over seeds; no interval below {FEWEST_SEEDS} seeds."
"""The note under the table, before how arms are compared; the second where seeds are too few."""
_NO_LOSS = {"n": 0, "mean": None, "sd": None, "median": None}
"""The summary of an arm that lost all its seeds."""


@dataclass(frozen=True)
class Arm:
    """One schedule, trained on several seeds.

    Attributes:
        key: ``#`` and the number of the search's trial, or the baseline's name.
        schedule: ``Schedule.to_dict()``.
        trial: Number of the search's trial it is.
        baseline: Name of the usual recipe it is, or None.
        val_loss, test_loss, test_metric: Seed -> value.
        lost: Seeds on which it diverged or failed.
        untrained: Seeds on which the net died: the run ended no lower than after its first epoch,
            and far above the median of the best arm.
        raised: Loss at :data:`~lrsearch.report.raised.RAISE` times its rates, the mean of such
            runs; infinite if it diverged, None if no such run came to an end.
        first: Mean validation loss after the first epoch; None where it is not known.
        failed: Those of the lost seeds on which the run failed, other than by diverging.
    """

    key: str
    schedule: Mapping[str, Any]
    trial: int
    baseline: str | None
    val_loss: Mapping[int, float]
    test_loss: Mapping[int, float]
    test_metric: Mapping[int, float]
    lost: tuple[int, ...]
    untrained: tuple[int, ...] = ()
    raised: float | None = None
    first: float | None = None
    failed: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """Words for a person: family and rate, or the recipe's name."""
        family = str(self.schedule.get("family", ""))
        lr = words.number(float(self.schedule.get("lr", float("nan"))))
        if self.baseline is not None:
            return f"{self.baseline} baseline"
        return f"{family}, lr {lr}"

    @property
    def name(self) -> str:
        """The label, and the number of the trial that it was in the search."""
        return self.label if self.baseline is not None else f"{self.label} (#{self.trial})"

    @property
    def losses(self) -> dict[int, float]:
        """Seed -> validation loss, infinite where the seed was lost."""
        return {**self.val_loss, **dict.fromkeys(self.lost, math.inf)}

    @property
    def val(self) -> Summary:
        """Validation loss over the seeds that were not lost."""
        return summary(list(self.val_loss.values()))

    @property
    def near_edge(self) -> bool:
        """Whether it lies near the edge (:data:`~lrsearch.report.raised.EDGE_FACTOR`)."""
        if self.raised is None or not self.val_loss:
            return False
        return is_near_edge(self.raised, self.val.mean, self.first)

    @property
    def test(self) -> Summary | None:
        """Test metric over seeds, where there is one."""
        return summary(list(self.test_metric.values())) if self.test_metric else None


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


@dataclass(frozen=True, repr=False)
class Confirmed:
    """The arms on fresh seeds, the search's winner first.

    Attributes:
        name: Name of the study, ``NAME-confirm``.
        seeds: The seeds that are planned, and all that an arm was run on before.
        planned: How many runs are planned (arms times seeds), or have ended if these are more.
        finished: How many runs have ended.
        loss: The winner's validation loss compared with that of every other arm.
        file: The YAML file with :attr:`lowest`, where this call has written it.
        storage: The database, for the commands that a person is told.
        config: The stored configuration, for these commands too.
    """

    name: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    planned: int
    finished: int
    loss: tuple[Comparison, ...]
    metric_name: str
    file: Path | None = None
    storage: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        arms = "; ".join(
            f"{a.name} {words.loss(a.val.mean)}" + (f" (+{len(a.lost)} lost)" if a.lost else "")
            for a in self.arms
        )
        return f"{self.name}, {words.count(len(self.seeds), 'fresh seed')}: {arms}"

    def _repr_html_(self) -> str:
        """For notebooks."""
        from lrsearch.report.answer_html import confirmed_table
        from lrsearch.report.confirmed_words import sentence
        from lrsearch.report.html import in_notebook, to_html

        return in_notebook(f"<p>{to_html(sentence(self))}</p>{confirmed_table(self)}")

    @property
    def how(self) -> str:
        """The note under the table: how the numbers were computed."""
        if not self.loss:
            return HOW_FEW if self.too_few else HOW
        lost = any(arm.lost for arm in self.arms)
        if self.too_few:
            return f"{HOW_FEW} {lost_counts(self.loss[0].relative)}" if lost else HOW_FEW
        equal = any(row.lower + row.higher < row.n for row in self.loss)
        tests = {row.test for row in self.loss}
        return f"{HOW} {method(self.loss[0].relative, tests, equal, lost)}"

    @property
    def too_few(self) -> bool:
        """Whether the winner was run on too few seeds for any interval."""
        return len(self.winner.losses) < FEWEST_SEEDS

    @property
    def tested(self) -> bool:
        """Whether there is a test metric."""
        return any(arm.test_metric for arm in self.arms)

    @property
    def winner(self) -> Arm:
        """The best of the search: the first arm, chosen before these runs."""
        return self.arms[0]

    @property
    def lowest(self) -> Arm:
        """The arm that came lowest on these seeds (:class:`Decision`)."""
        return self.decision.lowest

    @property
    def held(self) -> Arm:
        """The arm that is the answer: the winner, or :attr:`lowest` in its place."""
        return self.decision.held

    @cached_property
    def decision(self) -> Decision:
        """Which arm is the answer, and why."""
        return decide(self.arms, self.loss, too_few=self.too_few)

    def is_of(self, best: int) -> bool:
        """Whether trial number ``best`` was confirmed; not where it was found afterwards."""
        return self.winner.trial == best

    def against(self, key: str) -> Comparison | None:
        """The comparison of the winner with one arm, on validation loss."""
        return next((row for row in self.loss if row.name == key), None)

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain values, for ``--json``.

        Of an arm, ``lost_seeds`` are those on which it diverged or failed, and ``failed_seeds``
        those of them on which it failed. ``raised_val_loss`` is ``"diverged"`` where it diverged
        at higher rates, and None where no such run came to an end.
        """
        return {
            "study": self.name,
            "seeds": list(self.seeds),
            "runs": {"planned": self.planned, "finished": self.finished},
            "winner": self.winner.key,
            "lowest": self.lowest.key,
            "held": self.held.key,
            "file": None if self.file is None else str(self.file),
            "arms": [
                {
                    "key": arm.key,
                    "label": arm.label,
                    "trial": arm.trial,
                    "baseline": arm.baseline,
                    "val_loss": asdict(arm.val) if arm.val_loss else _NO_LOSS,
                    "test_metric": None if arm.test is None else asdict(arm.test),
                    "lost_seeds": list(arm.lost),
                    "failed_seeds": list(arm.failed),
                    "untrained_seeds": list(arm.untrained),
                    "raised_val_loss": None if arm.raised is None else plain_loss(arm.raised),
                    "near_the_edge": arm.near_edge,
                }
                for arm in self.arms
            ],
            "comparisons": [asdict(row) | {"verdict": row.verdict()} for row in self.loss],
        }

    def arm(self, key: str) -> Arm:
        """An arm by its key."""
        return next(arm for arm in self.arms if arm.key == key)


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
