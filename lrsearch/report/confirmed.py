"""What ``lrsearch confirm`` found: the arms on fresh seeds, and which of them is the answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
    def winner(self) -> Arm:
        """The best of the search: the first arm, chosen before these runs."""
        return self.arms[0]

    def is_of(self, best: int) -> bool:
        """Whether trial number ``best`` was confirmed; not where it was found afterwards."""
        return self.winner.trial == best

    def against(self, key: str) -> Comparison | None:
        """The comparison of the winner with one arm, on validation loss."""
        return next((row for row in self.loss if row.name == key), None)

    @property
    def strongest(self) -> Arm | None:
        """The baseline that :attr:`held` is measured by: the fewest lost, then the lowest mean."""
        return _strongest([a for a in self.arms if a is not self.held])

    @property
    def lowest(self) -> Arm:
        """The arm with the fewest lost seeds, then the lowest mean; the winner where equal.

        Only arms that were run on as many seeds as any other count. An arm that is
        :attr:`excluded` counts as having lost one seed more.
        """
        runs = [len(a.losses) for a in self.arms]
        rows = [a for a, n in zip(self.arms, runs, strict=True) if n == max(runs) and a.val_loss]
        excluded = self.excluded
        lost = {a.key: len(a.lost) + (a in excluded) for a in rows}
        return min(rows, key=lambda a: (lost[a.key], a.val.mean), default=self.winner)

    @property
    def excluded(self) -> list[Arm]:
        """Arms that cannot be the answer: those near the edge, unless all that were tried are."""
        tried = [a for a in self.arms if a.raised is not None and a.val_loss]
        near = [a for a in tried if a.near_edge]
        return near if len(near) < len(tried) else []

    @property
    def lead(self) -> Comparison | None:
        """:attr:`lowest` against the strongest baseline; None where it is one, or there is none.

        It was chosen on these very seeds. So its interval and p are corrected for as many
        comparisons as there are pairs of arms.
        """
        rival = _strongest(self.arms)
        return None if rival is None else self._lowest_against().get(rival.key)

    def _lowest_against(self) -> dict[str, Comparison]:
        """:attr:`lowest` against every baseline; empty where it is one."""
        arm = self.lowest
        if arm.baseline is not None or len(arm.losses) < 2:
            return {}
        arms = {a.key: a.losses for a in self.arms if len(a.losses) > 1}
        recipes = {a.key for a in self.arms if a.baseline is not None}
        rows = compare(arm.key, arms, math.comb(len(arms), 2))
        return {row.name: row for row in rows if row.name in recipes}

    @property
    def gain(self) -> Comparison | None:
        """:attr:`held` against the strongest baseline."""
        if self.held is not self.winner:
            return self.lead
        return None if self.strongest is None else self.against(self.strongest.key)

    @property
    def held(self) -> Arm:
        """The arm that is the answer: the winner of the search, or :attr:`lowest` in its place.

        That takes its place where the winner is not surely better than the baselines, and
        :attr:`lowest` is: better than the strongest of them, and worse than none.
        """
        if self.too_few or (self.stands and self.winner not in self.excluded):
            return self.winner
        lead = self.lead
        better = lead is not None and lead.verdict() == "better"
        worse = any(row.verdict() == "worse" for row in self._lowest_against().values())
        return self.lowest if better and not worse else self.winner

    @property
    def decided(self) -> bool:
        """Whether fresh seeds have decided what to train with; it is :attr:`held`, then."""
        sure = not self.too_few and self.stands and self.winner not in self.excluded
        return sure or self.held is not self.winner

    @property
    def stands(self) -> bool:
        """Whether the winner is surely better than the strongest baseline, and worse than none."""
        verdicts = self._verdicts()
        rival = _strongest(self.arms[1:])
        named = verdicts.values() if rival is None else [verdicts.get(rival.key)]
        return "better" in named and not self.beaten

    @property
    def unbeaten(self) -> list[Arm]:
        """The baselines that the winner is not surely better than."""
        verdicts = self._verdicts()
        return [a for a in self.arms if verdicts.get(a.key, "better") != "better"]

    @property
    def beaten(self) -> bool:
        """Whether the winner is surely worse than a baseline."""
        return "worse" in self._verdicts().values()

    def _verdicts(self) -> dict[str, str]:
        """Baseline -> verdict of the winner's comparison with it."""
        rows = {a.key: self.against(a.key) for a in self.arms[1:] if a.baseline is not None}
        return {key: row.verdict() for key, row in rows.items() if row is not None}

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


def _strongest(arms: Sequence[Arm]) -> Arm | None:
    """The baseline with the fewest lost seeds, then the lowest mean."""
    rows = [a for a in arms if a.baseline is not None and a.val_loss and len(a.losses) > 1]
    return min(rows, key=lambda a: (len(a.lost), a.val.mean), default=None)
