"""What ``lrsearch confirm`` found: its study -> a table of arms, and what may be said of it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lrsearch.report import words
from lrsearch.report.tables import StudyTable, load
from lrsearch.stats import (
    ALPHA,
    ENOUGH_SEEDS,
    FEWEST_SEEDS,
    Comparison,
    Summary,
    compare,
    summary,
)

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

ATTR = "lrsearch_confirm"
SUFFIX = "-confirm"
HOW = (
    "Mean ± standard deviation over seeds; paired t-tests on the validation loss, p corrected "
    "after Holm, intervals for all comparisons together."
)
"""What stands under the table."""
HOW_FEW = f"Mean ± standard deviation over seeds; no interval below {FEWEST_SEEDS} seeds."
"""The same where the winner was run on too few."""


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
    """

    key: str
    schedule: Mapping[str, Any]
    trial: int
    baseline: str | None
    val_loss: Mapping[int, float]
    test_loss: Mapping[int, float]
    test_metric: Mapping[int, float]
    lost: tuple[int, ...]

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
    def val(self) -> Summary:
        """Validation loss over seeds."""
        return summary(list(self.val_loss.values()))

    @property
    def test(self) -> Summary | None:
        """Test metric over seeds, where there is one."""
        return summary(list(self.test_metric.values())) if self.test_metric else None


@dataclass(frozen=True, repr=False)
class Confirmed:
    """The arms on fresh seeds, the search's winner first.

    Attributes:
        planned: Runs that are planned, arms times seeds.
        finished: Runs that ended.
        loss: The winner's validation loss against every other arm.
        metric: The winner's test metric against every other arm; above 0: the winner is better.
    """

    name: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    planned: int
    finished: int
    loss: tuple[Comparison, ...]
    metric: tuple[Comparison, ...]
    metric_name: str

    def __repr__(self) -> str:
        arms = "; ".join(f"{a.name} {words.loss(a.val.mean)}" for a in self.arms)
        return f"{self.name}, {words.count(len(self.seeds), 'fresh seed')}: {arms}"

    def _repr_html_(self) -> str:
        """For notebooks."""
        from lrsearch.report.answer import to_html
        from lrsearch.report.confirmed_html import confirmed_table
        from lrsearch.report.html import in_notebook

        return in_notebook(f"<p>{to_html(sentence(self))}</p>{confirmed_table(self)}")

    @property
    def how(self) -> str:
        """How the numbers were come by, for under the table."""
        return HOW_FEW if self.too_few else HOW

    @property
    def too_few(self) -> bool:
        """Whether the winner was run on too few seeds for any interval."""
        return len(self.winner.val_loss) < FEWEST_SEEDS

    @property
    def winner(self) -> Arm:
        """The best of the search: the first arm, chosen before these runs."""
        return self.arms[0]

    def against(self, key: str) -> Comparison | None:
        """The comparison of the winner with one arm, on validation loss."""
        return next((row for row in self.loss if row.name == key), None)

    @property
    def strongest(self) -> Arm | None:
        """The baseline with the lowest mean validation loss, other than the winner."""
        rows = [a for a in self.arms[1:] if a.baseline is not None and len(a.val_loss) > 1]
        return min(rows, key=lambda a: a.val.mean, default=None)

    @property
    def lowest(self) -> Arm:
        """The arm that came lowest on these seeds: the fewest lost, then the lowest mean.

        Of those that were run on as many as any other; the winner of the search where equal.
        """
        runs = [len(a.val_loss) + len(a.lost) for a in self.arms]
        rows = [a for a, n in zip(self.arms, runs, strict=True) if n == max(runs) and a.val_loss]
        return min(rows, key=lambda a: (len(a.lost), a.val.mean), default=self.winner)

    @property
    def lead(self) -> Comparison | None:
        """:attr:`lowest` against the strongest baseline; None where it is one, or there is none.

        It was chosen on these very seeds: interval and p are as for all pairs of arms together.
        """
        arm, rival = self.lowest, self.strongest
        if arm.baseline is not None or rival is None or len(arm.val_loss) < 2:
            return None
        arms = {a.key: a.val_loss for a in self.arms if len(a.val_loss) > 1}
        rows = compare(arm.key, arms, 1 - ALPHA / len(arms))
        row = next(row for row in rows if row.name == rival.key)
        p = row.p_corrected
        return row if p is None else replace(row, p_corrected=min(1.0, p * len(arms)))

    @property
    def beaten(self) -> list[Arm]:
        """Baselines that the winner is better than, beyond chance."""
        rows = [(a, self.against(a.key)) for a in self.arms[1:] if a.baseline is not None]
        return [a for a, row in rows if row is not None and row.verdict() == "better"]

    def arm(self, key: str) -> Arm:
        """An arm by its key."""
        return next(arm for arm in self.arms if arm.key == key)


def read_confirmed(storage: BaseStorage, study_name: str) -> Confirmed | None:
    """The confirmation of a study, from the same database; None if there is none yet."""
    import optuna

    try:
        study = optuna.load_study(study_name=study_name + SUFFIX, storage=storage)
    except KeyError:
        return None
    plan = study.user_attrs.get(ATTR)
    return confirmed_of(load(study, storage), plan) if isinstance(plan, Mapping) else None


def confirmed_of(table: StudyTable, plan: Mapping[str, Any]) -> Confirmed | None:
    """The table of a confirmation; None before any run of the winner is finished.

    Args:
        table: The confirmation's study; its trials have the user attributes ``arm`` and ``seed``.
        plan: Its user attribute: ``arms`` (key, schedule, trial, baseline) and ``seeds``.
    """
    arms = []
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
            )
        )
    if not arms or not arms[0].val_loss:
        return None
    key = arms[0].key
    metric = {a.key: {s: -v for s, v in a.test_metric.items()} for a in arms if a.test_metric}
    runs = sum(len(a.val_loss) + len(a.lost) for a in arms)
    return Confirmed(
        name=table.name,
        arms=tuple(arms),
        seeds=tuple(int(s) for s in plan["seeds"]),
        planned=len(plan["arms"]) * len(plan["seeds"]),
        finished=runs,
        loss=tuple(compare(key, {a.key: a.val_loss for a in arms})),
        metric=tuple(compare(key, metric)) if key in metric else (),
        metric_name=table.metric_name,
    )


def _attr(done: Mapping[int, Any], name: str) -> dict[int, float]:
    found = {s: t.attrs.get(name) for s, t in sorted(done.items())}
    return {s: float(v) for s, v in found.items() if isinstance(v, (int, float))}


def sentence(found: Confirmed, best: int | None = None) -> str:
    """Whether the winner is really better, and what else is, in plain sentences of Markdown.

    Args:
        found: The comparison.
        best: Trial that the reader takes for the winner: it is said where another was confirmed,
            as more trials were run since.
    """
    text = ""
    if best not in (None, found.winner.trial):
        name = shlex.quote(found.name.removesuffix(SUFFIX))
        text = (
            f"What was confirmed is **{found.winner.name}**, the best before more trials were run"
            f"; `lrsearch confirm {name}` runs the new best on the same seeds. "
        )
    return text + _of_winner(found) + _of_lowest(found)


def _of_lowest(found: Confirmed) -> str:
    """The arm that came lowest where that is not the winner; " " first, or nothing at all."""
    lowest, rival = found.lowest, found.strongest
    if lowest is found.winner or len(lowest.val_loss) < 2:
        return ""

    def below(other: Arm) -> str:
        common = set(lowest.val_loss) & set(other.val_loss)
        won = sum(lowest.val_loss[s] < other.val_loss[s] for s in common)
        return f"on {won} of {len(common)}"

    text = f" Lowest on these seeds is **{lowest.name}**, {words.number(lowest.val.mean, 4)}: "
    text += f"below the winner {below(found.winner)}"
    row = found.lead
    if rival is None or row is None:
        return f"{text}."
    text += f", below {words.baseline(str(rival.baseline))} {below(rival)}"
    if row.low is None or row.high is None:
        return f"{text}."
    interval = f"{words.number(row.low, 2)} to {words.number(row.high, 2)}"
    return f"{text}, by {words.number(row.difference, 2)} (95% interval {interval})."


def _of_winner(found: Confirmed) -> str:
    """The winner of the search against the baselines."""
    seeds = words.count(len(found.winner.val_loss), "fresh seed")
    if len(found.winner.val_loss) < 2:
        return f"It was run again on {seeds} so far.{_more(found)}"
    baselines = [a for a in found.arms[1:] if a.baseline is not None]
    if found.too_few:
        return f"On {seeds} {_seen(found, baselines)}{_more(found)}"
    groups: dict[str, list[str]] = {"better": [], "worse": [], "unclear": [], "equal": []}
    for arm in baselines:
        row = found.against(arm.key)
        if row is not None:
            groups[row.verdict()].append(words.baseline(str(arm.baseline)))
    parts = []
    if groups["better"]:
        parts.append(f"it beat {words.listing(groups['better'])}")
    if groups["worse"]:
        parts.append(f"it lost to {words.listing(groups['worse'])}")
    unclear = groups["unclear"] + groups["equal"]
    if unclear:
        parts.append(f"it is **not distinguishable** from {words.listing(unclear)}")
    if not parts:
        return f"On {seeds} no baseline finished to compare it with."
    text = f"On {seeds}, paired, {', and '.join(parts)}"
    strongest = found.strongest
    row = found.against(strongest.key) if strongest is not None else None
    if strongest is None or row is None or row.low is None or row.high is None:
        return text + "."
    name = words.baseline(str(strongest.baseline))
    low, high = (row.low, row.high) if row.difference >= 0 else (-row.high, -row.low)
    few = " So few seeds seldom tell: add some with `--seeds`." if unclear and row.n < 5 else ""
    return (
        f"{text}; against the strongest, {name}, its validation loss is "
        f"{words.number(abs(row.difference), 2)} {'lower' if row.difference >= 0 else 'higher'} "
        f"(95% interval {words.number(low, 2)} to {words.number(high, 2)}).{few}"
    )


def _seen(found: Confirmed, baselines: list[Arm]) -> str:
    """Where the winner's mean lies among the baselines, and no word on how sure that is."""
    sides: dict[str, list[str]] = {"lower than": [], "higher than": [], "equal to": []}
    for arm in baselines:
        if (row := found.against(arm.key)) is not None:
            d = row.difference
            side = "lower than" if d > 0 else "higher than" if d < 0 else "equal to"
            sides[side].append(words.baseline(str(arm.baseline)))
    parts = [f"{side} that of {words.listing(names)}" for side, names in sides.items() if names]
    if not parts:
        return "no baseline finished to compare it with."
    return f"its mean validation loss was {', '.join(parts)}."


def _more(found: Confirmed) -> str:
    """So few seeds tell nothing; what to type for enough."""
    name = shlex.quote(found.name.removesuffix(SUFFIX))
    return (
        " So few seeds allow no interval and no test that would say anything: "
        f"`lrsearch confirm {name} --seeds {ENOUGH_SEEDS}` adds to them."
    )


def print_confirmed(found: Confirmed) -> None:
    """Print the comparison for a person."""
    from lrsearch.report.terminal import print_rows, print_text, to_stdout

    console = to_stdout()
    test = any(arm.test for arm in found.arms)
    heads = ["schedule", "seeds", "val loss"] + ([f"test {found.metric_name}"] if test else [])
    rows = []
    for arm in found.arms:
        cells = [arm.name, str(arm.val.n), words.loss_mean(arm.val)]
        if test:
            cells.append(
                "–" if arm.test is None else words.metric_mean(arm.test, found.metric_name)
            )
        row = found.against(arm.key)
        if row is None:
            cells += ["winner"]
        elif found.too_few:
            cells += [words.number(row.difference, 2)]
        elif row.low is None or row.high is None or row.p_corrected is None:
            cells += [words.number(row.difference, 2), "–", "–"]
        else:
            interval = f"{words.number(row.low, 2)} to {words.number(row.high, 2)}"
            cells += [words.number(row.difference, 2), interval, words.p_value(row.p_corrected)]
        rows.append(cells)
    heads += ["lower by"] if found.too_few else ["lower by", "95% interval", "p"]
    print_rows(console, heads, rows, right=range(1, len(heads)))
    print_text(console, f"Lower by: the winner than this one. {found.how}", style="dim")
    print_text(console, sentence(found).replace("**", "").replace("`", ""))
