"""What ``lrsearch confirm`` found: the arms on fresh seeds, and which of them is the answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lrsearch.report import words
from lrsearch.report.decision import Decision, decide
from lrsearch.report.raised import is_near_edge, plain_loss
from lrsearch.stats import FEWEST_SEEDS, Comparison, Summary, lost_counts, method, summary

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
        from lrsearch.report.confirmed_html import confirmed_table
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
