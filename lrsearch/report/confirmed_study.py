"""The study ``NAME-confirm`` -> the arms of a confirmation (:mod:`lrsearch.report.confirmed`)."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from lrsearch.report.confirmed import Arm, Confirmed
from lrsearch.report.raised import mean_first_loss, mean_loss, measured, raised_losses
from lrsearch.report.tables import StudyTable, TrialRow, load_confirmation
from lrsearch.schedules.ranges import as_number
from lrsearch.stats import compare

if TYPE_CHECKING:
    import optuna

FAR = 0.2
"""A run that did not train ends this far above the lowest median of an arm, as a share of it."""


def read_confirmed(study: optuna.Study) -> Confirmed | None:
    """The confirmation of a search, from the same database; None if there is none yet."""
    again, plan = load_confirmation(study)
    return None if again is None else confirmed_of(again, plan)


def confirmed_of(table: StudyTable, plan: Mapping[str, Any]) -> Confirmed | None:
    """The arms of a confirmation; None before any run of the winner is complete.

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
        arms.append(
            Arm(
                key=entry["key"],
                schedule=entry["schedule"],
                trial=int(entry["trial"]),
                baseline=entry.get("baseline"),
                val_loss={s: t.value for s, t in sorted(done.items()) if t.value is not None},
                test_loss=_attr(done, "test_loss"),
                test_metric=_attr(done, "test_metric"),
                lost=tuple(sorted(int(t.attrs["seed"]) for t in ended)),
                untrained=_untrained(table, done, good),
                raised=_raised(table, entry),
                first=mean_first_loss(done.values()),
                failed=tuple(sorted(int(t.attrs["seed"]) for t in ended if t.status == "failed")),
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
    """An arm's mean loss at higher rates; None for a baseline, or before such a run has ended."""
    if arm.get("baseline"):
        return None
    losses = measured([*raised_losses(table, arm["key"]).values()])
    return mean_loss(losses) if losses else None


def _lowest_median(table: StudyTable, arms: Collection[str]) -> float:
    """The lowest median loss of these arms; 0 without any losses."""
    values: dict[str, list[float]] = {}
    for trial in table.having("complete"):
        if trial.value is not None and (key := str(trial.attrs.get("arm"))) in arms:
            values.setdefault(key, []).append(trial.value)
    return min(map(statistics.median, values.values()), default=0.0)


def _untrained(table: StudyTable, done: Mapping[int, TrialRow], good: float) -> tuple[int, ...]:
    """Seeds on which the net died; ``good``: the lowest median loss of an arm."""

    def died(trial: TrialRow) -> bool:
        losses = table.history.of(trial.trial_id, "val_loss")
        last = trial.value or 0.0
        return len(losses) > 1 and last >= losses[0] and last - good > FAR * abs(good)

    return tuple(seed for seed, trial in sorted(done.items()) if died(trial))


def _attr(done: Mapping[int, Any], name: str) -> dict[int, float]:
    found = {s: t.attrs.get(name) for s, t in sorted(done.items())}
    return {s: float(v) for s, v in found.items() if as_number(v) is not None}
