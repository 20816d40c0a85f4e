"""What the README claims is what the records in studies/ say."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrsearch.report.edges import EDGE
from lrsearch.search.pruning import SHARE
from tests.benchmarks import across
from tests.benchmarks import stress as bench

ROOT = Path(__file__).resolve().parents[1]
README = " ".join((ROOT / "README.md").read_text().split())


def record(name: str) -> Any:
    return json.loads((ROOT / "studies" / name / "record.json").read_text())


def confirmed() -> str:
    """The gain over the strongest recipe in the search, and on fresh seeds."""
    found = record("digits")
    searched, arms = found["search"], found["confirm"]["arms"]
    recipes = searched["baselines"]
    name = min(recipes, key=lambda each: float(recipes[each]))
    in_search = 1 - searched["best"]["val_loss"] / recipes[name]
    recipe = min(arms[name]["mean"] for name in recipes)
    winner = arms[found["confirm"]["winner_of_search"]]
    assert winner["mean"] > max(arms[r]["mean"] for r in recipes)
    ran = (ROOT / "studies" / "digits" / "run.txt").read_text()
    (robust,) = (
        arm
        for key, arm in arms.items()
        if key not in recipes
        and f"Train with     {arm['schedule']['family']}, lr {arm['schedule']['lr']:.4g} " in ran
    )
    seeds = len(found["confirm"]["seeds"])
    return (
        f"How much of the {in_search:.0%} below the best recipe, {name}, is real? None, says "
        f"`lrsearch confirm digits --seeds {seeds}`: on fresh seeds this winner is worse than "
        "every recipe. The lowest of many losses was a lucky one, and luck favours high rates, "
        f"which fail on another seed. So a run ends by training its finalists at {EDGE:g} times "
        "their rates, and `robust.yaml` has the one that bears it best: here "
        f"{1 - robust['mean'] / recipe:.0%} below the best recipe"
    )


def winners() -> str:
    parts = ("stress, robust", "stress, robust, fresh searches")
    looked, fresh = (record("winners")[part]["rows"] for part in parts)
    choices = ("winner of the search", "robust.yaml", "the same, of those that bear 1.7 times")

    def gains(task: str, *some: list[Any]) -> list[float]:
        found = [bench.judged(row) for part in some for row in part if row["task"] == task]
        return [100 * np.mean([np.mean(each[name][0]) for each in found]) for name in choices]

    searches = sum(row["task"] == "digits" for part in (looked, fresh) for row in part)
    bare, robust, held = (f"{abs(gain):.0f}%" for gain in gains("digits", looked, fresh))
    new = [f"{-gain:.0f}%" for gain in gains("digits", fresh)]
    few = [f"{gain:.0f}%" for gain in gains("few digits", looked)]
    assert robust == held
    others = [gains(task, looked) for task in ("wrong digits", "fashion-mnist", "cifar10")]
    return (
        f"In {searches} searches of digits the bare winner lay {bare} above the best recipe, "
        f"`robust.yaml` and `confirmed.yaml` {robust} below it ({new[0]}, {new[1]} and {new[2]} "
        f"below in the last {len(fresh)}, which had no part in any choice); on 300 digits only, "
        f"{few[0]}, {few[1]} and {few[2]} above; on three other tasks no choice is more than "
        f"{-min(map(min, others)):.1f}% below it"
    )


def replayed(pruner: str, signal: str) -> dict[str, dict[str, Any]]:
    rows = record("pruning")["replay"]["rows"]
    return {r["record"]: r for r in rows if (r["pruner"], r["signal"]) == (pruner, signal)}


def pruner() -> str:
    ours = replayed(f"ours:{SHARE:g}", "both")
    orders = len(ours["digits"]["regrets"])
    return (
        f"Replayed on {orders} orders of 100 recorded trials of two tasks it takes "
        f"{ours['digits']['epochs']:.0%} and {ours['fashion']['epochs']:.0%} of the epochs and "
        f"ends {ours['digits']['regret']:.1%} and {ours['fashion']['regret']:.1%} above the best."
    )


def pruner_live() -> str:
    rows = record("pruning")["live pruners"]["rows"]

    def figures(arm: str, name: str, form: str) -> list[str]:
        own = [row for row in rows if row["arm"] == arm]
        tasks = dict.fromkeys(row["task"] for row in own)
        means = [statistics.mean(row[name] for row in own if row["task"] == t) for t in tasks]
        return [f"{100 * mean:{form}}" for mean in means]

    def above(arm: str) -> float:
        return statistics.mean(float(each) for each in figures(arm, "best", ".1f"))

    assert min(("median", "asha", "hyperband"), key=above) == "hyperband"
    ours, nearest = (
        f"{', '.join(figures(arm, 'epochs', '.0f'))}% of the epochs and ends "
        f"{', '.join(figures(arm, 'best', '.1f'))}% above"
        for arm in ("schedule", "hyperband")
    )
    nearest = nearest.replace(" of the epochs", "")
    return f"it takes {ours} full training; Hyperband, nearest of Optuna's, takes {nearest}"


def pruner_answer() -> str:
    rows = record("pruning")["answers, 400 trials"]["rows"]
    some = [row["arms"] for row in rows if row["task"] == "digits:100"]
    gains = [np.mean(arms["on"]["answer"]) / np.mean(arms["off"]["answer"]) - 1 for arms in some]
    used = np.mean([arms["on"]["epochs"] / arms["off"]["epochs"] for arms in some])
    error = np.std(gains, ddof=1) / len(gains) ** 0.5
    gain = f"{100 * np.mean(gains):.1f} ± {100 * error:.1f}%".replace("-", "−")
    return (
        f"Of 400 trials of 100 epochs of digits it takes {used:.0%}, for an answer as good on "
        f"fresh seeds ({gain})"
    )


def pruner_elsewhere() -> str:
    rows = record("pruning")["other tasks"]["rows"]
    verdicts = [
        across.clear(np.array(row["regrets"]) - own)
        for row in rows
        if not across.is_ours(row)
        and (own := across.same_epochs(across.ours_of(rows, row["record"]), row)) is not None
    ]
    assert verdicts.count(1) > len(verdicts) / 4
    assert -1 not in verdicts
    tasks = len({row["record"] for row in rows})
    return (
        f"on none of {tasks} other tasks is a pruner of Optuna's clearly better at the same epochs"
    )


def sampler() -> str:
    rows = record("sampling")["samplers"]["rows"]
    for row in rows:  # JSON has no infinity, as which a trial without an end counts
        row["values"] = [math.inf if value is None else value for value in row["values"]]
    best: dict[Any, float] = {}
    for row in rows:
        key = row["task"], row["seed"]
        best[key] = min(best.get(key, float("inf")), *row["values"])

    def regret(arm: str, trials: int) -> dict[str, float]:
        tasks: dict[str, list[float]] = {}
        for row in (r for r in rows if r["arm"] == arm):
            lost = min(row["values"][:trials]) / best[row["task"], row["seed"]] - 1
            tasks.setdefault(row["task"], []).append(lost)
        return {task: statistics.mean(values) for task, values in tasks.items()}

    seeds, last = len({row["seed"] for row in rows}), len(rows[0]["values"])
    mean = {}
    for trials in (20, 40, last):
        ours = regret("trace", trials)
        for arm in ("tpe (group)", "tpe", "random"):
            assert all(value > ours[task] for task, value in regret(arm, trials).items())
        mean[trials] = statistics.mean(ours.values())
    grouped = [statistics.mean(regret("tpe (group)", n).values()) for n in (20, last)]
    return (
        f"{seeds} seeds each, its best lies {mean[20]:.1%} above the best known after 20 trials "
        f"and {mean[last]:.1%} after {last}; grouped TPE's {grouped[0]:.1%} and {grouped[1]:.1%}"
    )


def speed() -> str:
    found = record("speed")
    runs = found["study digits"]["runs"]
    pairs = list(zip(runs["plain"], runs["lrsearch"], strict=True))
    study = statistics.median(plain["cpu"] / ours["cpu"] for plain, ours in pairs)
    assert statistics.median(plain["best"] / ours["best"] for plain, ours in pairs) > 0.98

    def times(task: str) -> float:
        rows = found[f"training {task}"]["rows"]
        both = zip(rows["plain"], rows["16"], strict=True)
        return statistics.median(a["ms_per_epoch"] / b["ms_per_epoch"] for a, b in both)

    return (
        f"Training takes {times('digits'):.0f} times fewer CPU seconds on digits, "
        f"{times('square'):.0f} on the square net; a whole study of {runs['plain'][0]['trials']} "
        f"trials {study:.1f} times fewer than a plain Optuna script"
    )


@pytest.mark.parametrize(
    "sentence",
    [confirmed, winners, pruner, pruner_live, pruner_answer, pruner_elsewhere, sampler, speed],
    ids=lambda made: made.__name__,
)
def test_numbers_of_the_readme_follow_from_the_records(sentence: Callable[[], str]) -> None:
    assert sentence() in README


def test_asha_on_averaged_losses_beats_us_on_one_task_and_is_far_worse_on_the_other() -> None:
    ours, asha = replayed("ours:0.5", "both"), replayed("asha:2,2", "averaged")
    assert asha["digits"]["regret"] < ours["digits"]["regret"]
    assert asha["fashion"]["regret"] > 3 * ours["fashion"]["regret"]


def test_the_readme_fits_in_200_lines() -> None:
    assert (ROOT / "README.md").read_text().count("\n") < 200
