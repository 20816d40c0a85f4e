"""What ``lrsearch confirm`` found: its study -> a table of arms, and what may be said of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsearch.attributes import CONFIRM_ATTR, confirmation_study
from lrsearch.report import words
from lrsearch.report.raised import is_near_edge, mean_loss, raised_losses
from lrsearch.report.tables import StudyTable, TrialRow, load
from lrsearch.schedules.ranges import as_number
from lrsearch.stats import FEWEST_SEEDS, Comparison, Summary, compare, lost_counts, method, summary

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

FAR = 0.2
"""How far above the lowest median of an arm a run that did not train ends, as a part of it."""
HOW = "Mean ± standard deviation over seeds."
HOW_FEW = f"Mean ± standard deviation over seeds; no interval below {FEWEST_SEEDS} seeds."
"""What stands under the table before how arms are compared; the second where seeds are too few."""


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
        untrained: Seeds on which it ended no lower than it was after its first epoch, and far
            above the median of the best arm: the net has died.
        raised: Loss at :data:`~lrsearch.report.raised.RAISE` times its rates, the mean of such
            runs; infinite if it failed, None if it was not run.
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

    @property
    def label(self) -> str:
        """Words for a person: family and rate, or the recipe's name."""
        family = str(self.schedule.get("family", ""))
        lr = words.number(float(self.schedule.get("lr", float("nan"))))
        if self.baseline is not None:
            return f"{words.baseline(self.baseline)} baseline"
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
        """Whether its loss at higher rates is above three times its mean loss."""
        if self.raised is None or not self.val_loss:
            return False
        return is_near_edge(self.raised, self.val.mean)

    @property
    def test(self) -> Summary | None:
        """Test metric over seeds, where there is one."""
        return summary(list(self.test_metric.values())) if self.test_metric else None


@dataclass(frozen=True, repr=False)
class Confirmed:
    """The arms on fresh seeds, the search's winner first.

    Attributes:
        seeds: Those planned, and all that an arm was run on before.
        planned: Runs that are planned, arms times seeds, or all that ended if these are more.
        finished: Runs that ended.
        loss: The winner's validation loss against every other arm.
        file: Where :attr:`lowest` was written as YAML; None where it was but read.
        storage: The database, for commands that are told.
        config: The configuration that is kept with it, likewise.
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
        """How the numbers were come by, for under the table."""
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
        """The arm that came lowest on these seeds: the fewest lost, then the lowest mean.

        Of those that were run on as many as any other; the winner of the search where equal. To
        be :attr:`excluded` counts as a lost seed.
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

        It was chosen on these very seeds: interval and p are as for all pairs of arms together.
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
        """The arm that is the answer: :attr:`lowest` where only that is better than the recipes.

        Better than the strongest of them, that is, and worse than none. Else the winner of the
        search, whatever became of it.
        """
        if self.too_few or (self.stands and self.winner not in self.excluded):
            return self.winner
        lead = self.lead
        better = lead is not None and lead.verdict() == "better"
        worse = any(row.verdict() == "worse" for row in self._lowest_against().values())
        return self.lowest if better and not worse else self.winner

    @property
    def decided(self) -> bool:
        """Whether fresh seeds have surely named what to train with: :attr:`held`."""
        sure = not self.too_few and self.stands and self.winner not in self.excluded
        return sure or self.held is not self.winner

    @property
    def stands(self) -> bool:
        """Whether the winner is surely better than the strongest other recipe, worse than none."""
        verdicts = self._verdicts()
        rival = _strongest(self.arms[1:])
        named = verdicts.values() if rival is None else [verdicts.get(rival.key)]
        return "better" in named and not self.beaten

    @property
    def unbeaten(self) -> list[Arm]:
        """The other recipes that the winner is not surely better than."""
        verdicts = self._verdicts()
        return [a for a in self.arms if verdicts.get(a.key, "better") != "better"]

    @property
    def beaten(self) -> bool:
        """Whether the winner is surely worse than another recipe."""
        return "worse" in self._verdicts().values()

    def _verdicts(self) -> dict[str, str]:
        """Of the winner against every other baseline."""
        rows = {a.key: self.against(a.key) for a in self.arms[1:] if a.baseline is not None}
        return {key: row.verdict() for key, row in rows.items() if row is not None}

    def arm(self, key: str) -> Arm:
        """An arm by its key."""
        return next(arm for arm in self.arms if arm.key == key)


def _strongest(arms: Sequence[Arm]) -> Arm | None:
    """Of the baselines that of the fewest lost seeds, then of the lowest mean."""
    rows = [a for a in arms if a.baseline is not None and a.val_loss and len(a.losses) > 1]
    return min(rows, key=lambda a: (len(a.lost), a.val.mean), default=None)


def read_confirmed(storage: BaseStorage, study_name: str) -> Confirmed | None:
    """The confirmation of a study, from the same database; None if there is none yet."""
    study = confirmation_study(storage, study_name)
    if study is None:
        return None
    return confirmed_of(load(study, storage), study.user_attrs[CONFIRM_ATTR])


def confirmed_of(table: StudyTable, plan: Mapping[str, Any]) -> Confirmed | None:
    """The table of a confirmation; None before any run of the winner is finished.

    Args:
        table: The confirmation's study; its trials have the user attributes ``arm`` and ``seed``.
        plan: Its user attribute: ``arms`` (key, schedule, trial, baseline) and ``seeds``.
    """
    arms = []
    good = _lowest_median(table, {entry["key"] for entry in plan["arms"]})
    for entry in plan["arms"]:
        rows = [t for t in table.trials if t.attrs.get("arm") == entry["key"]]
        done = {int(t.attrs["seed"]): t for t in rows if t.status == "complete"}
        ended = [t for t in rows if t.status in ("diverged", "failed", "pruned")]
        values = {s: t.value for s, t in sorted(done.items()) if t.value is not None}
        arms.append(
            Arm(
                entry["key"],
                entry["schedule"],
                int(entry["trial"]),
                entry.get("baseline"),
                values,
                _attr(done, "test_loss"),
                _attr(done, "test_metric"),
                tuple(sorted(int(t.attrs["seed"]) for t in ended)),
                _untrained(table, done, good),
                _raised(table, entry),
            )
        )
    if not arms or not arms[0].val_loss:
        return None
    runs = sum(len(a.losses) for a in arms)
    return Confirmed(
        name=table.name,
        arms=tuple(arms),
        seeds=tuple(sorted({int(s) for s in plan["seeds"]}.union(*(a.losses for a in arms)))),
        planned=max(runs, len(plan["arms"]) * len(plan["seeds"])),
        finished=runs,
        loss=tuple(compare(arms[0].key, {a.key: a.losses for a in arms})),
        metric_name=table.metric_name,
        storage=table.storage_url,
        config=table.config,
    )


def _raised(table: StudyTable, arm: Mapping[str, Any]) -> float | None:
    """What an arm came to at higher rates; None for a recipe, and before such a run has ended."""
    losses = [] if arm.get("baseline") else raised_losses(table, arm["key"])
    return mean_loss(losses) if losses else None


def _lowest_median(table: StudyTable, arms: Collection[str]) -> float:
    """Of these arms' losses; 0 without any."""
    values: dict[str, list[float]] = {}
    for trial in table.having("complete"):
        if trial.value is not None and (key := str(trial.attrs.get("arm"))) in arms:
            values.setdefault(key, []).append(trial.value)
    return min(map(statistics.median, values.values()), default=0.0)


def _untrained(table: StudyTable, done: Mapping[int, TrialRow], good: float) -> tuple[int, ...]:
    def died(trial: TrialRow) -> bool:
        losses = table.history.of(trial.trial_id, "val_loss")
        last = trial.value or 0.0
        return len(losses) > 1 and last >= losses[0] and last - good > FAR * abs(good)

    return tuple(seed for seed, trial in sorted(done.items()) if died(trial))


def _attr(done: Mapping[int, Any], name: str) -> dict[int, float]:
    found = {s: t.attrs.get(name) for s, t in sorted(done.items())}
    return {s: float(v) for s, v in found.items() if as_number(v) is not None}
