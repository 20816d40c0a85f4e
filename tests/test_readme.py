"""What the README claims, and the summary of studies/pruning, is what the records say."""

from __future__ import annotations

import json
import math
import shutil
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrsearch.report.raised import RAISE
from lrsearch.search.pruning import SHARE
from tests.benchmarks import across
from tests.benchmarks import stress as bench

ROOT = Path(__file__).resolve().parents[1]
LOOKED = "stress, robust"
FRESH = (
    "stress, robust, fresh searches",
    "stress, robust, 2026-11-29",
    "stress, robust, 2026-11-30",
    "stress, robust, beside the recipe",
)
"""Parts of the record of studies/winners: searches that made the rule, and others."""
LEARNT_NOTHING = 0.9 * math.log(10)
CI_LINE = 'python -m pip install -e ".[dev]" && python -m pytest      # all tests'


def text_of(name: str) -> str:
    """A document of the repository, its lines joined."""
    return " ".join((ROOT / name).read_text().split())


def record(name: str) -> Any:
    return json.loads((ROOT / "studies" / name / "record.json").read_text())


def searches(part: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = record("winners")[part]["rows"]
    return rows


def fresh() -> str:
    """What the first search's winner, and the schedule to train with, are on fresh seeds."""
    found = record("digits")
    recipes, arms = found["search"]["baselines"], found["confirm"]["arms"]
    name = min(recipes, key=lambda each: float(recipes[each]))
    recipe = min(arms[name]["mean"] for name in recipes)
    assert arms[name]["mean"] == recipe
    ran = (ROOT / "studies" / "digits" / "run.txt").read_text()
    (robust,) = (
        arm
        for key, arm in arms.items()
        if key not in recipes
        and f"Train with     {arm['schedule']['family']}, lr {arm['schedule']['lr']:.4g} " in ran
    )
    winner = arms[found["confirm"]["winner_of_search"]]
    lost = sum(float(loss) > LEARNT_NOTHING for loss in winner["val_loss"].values())
    assert lost == 1
    return (
        f"{winner['mean'] / recipe - 1:.0%} above {name}, for it learns nothing on one of them; "
        f"the one to train with is {1 - robust['mean'] / recipe:.0%} below"
    )


def confirmed() -> str:
    """What to trust: in many searches, and in the first one."""
    found = record("digits")
    run, seeds = found["search"], len(found["confirm"]["seeds"])
    recipes = run["baselines"]
    name = min(recipes, key=lambda each: float(recipes[each]))
    in_search = 1 - run["best"]["val_loss"] / recipes[name]
    assert 5 < run["wall_seconds"] < 15  # "about ten seconds"
    rows = [row for part in (LOOKED, *FRESH) for row in searches(part) if row["task"] == "digits"]
    judged = [bench.judged(row) for row in rows]
    robust, winner = (
        np.array([np.mean(each[name][0]) for each in judged])
        for name in ("robust.yaml", "winner of the search")
    )
    assert round(float(winner.max())) + 1 == 10
    return (
        "A run ends by training its best few schedules on fresh seeds, with their rates raised "
        f"{RAISE:g} times. What bears that best and the best recipe are trained once more; the "
        f"better one is in `robust.yaml`. In {len(rows)} such searches of digits it was better "
        "than the best recipe "
        f"{(robust < 0).sum()} times, by {-robust.mean():.0%} on average. - **Best schedule** had "
        f"the lowest of {run['trials']} losses, {in_search:.0%} below {name}, the best recipe. "
        "But all trials share one seed, and the lowest of many losses is a lucky one: "
        f"{(winner > 0).sum()} of the {len(rows)} were worse than the best recipe on other seeds, "
        f"by up to ten times. So is this one: on {seeds} fresh seeds (`lrsearch confirm digits "
        f"--seeds {seeds}`) it is {fresh()}"
    )


def signed(percents: list[float]) -> str:
    """``+21%``, or the range ``0 to +2%`` of several."""
    low, high = (f"{round(f(percents)):+d}".replace("+0", "0") for f in (min, max))
    return f"{low}%" if low == high else f"{low} to {high}%"


def winners() -> str:
    looked, fresh = searches(LOOKED), [row for part in FRESH for row in searches(part)]
    choices = ("winner of the search", "robust.yaml", "the same, of those that bear 1.7 times")
    named = {
        "digits": (["digits"], looked + fresh),
        "digits, without the searches that the rule was made on": (["digits"], fresh),
        "digits, 300 images only": (["few digits"], looked + fresh),
        "three other tasks": (["wrong digits", "fashion-mnist", "cifar10"], looked),
    }
    lines = []
    for name, (tasks, rows) in named.items():
        judged = {t: [bench.judged(row) for row in rows if row["task"] == t] for t in tasks}
        gains = [
            signed(
                [100 * float(np.mean([np.mean(each[c][0]) for each in judged[t]])) for t in tasks]
            )
            for c in choices
        ]
        count = sum(map(len, judged.values()))
        lines.append(f"| {name} | {count} | " + " | ".join(gains) + " |")
    return " ".join(lines).replace("-", "−")


def replayed(pruner: str, signal: str) -> dict[str, dict[str, Any]]:
    rows = record("pruning")["replay"]["rows"]
    return {r["record"]: r for r in rows if (r["pruner"], r["signal"]) == (pruner, signal)}


def pruner() -> str:
    ours = replayed(f"ours:{SHARE:g}", "both")
    orders = len(ours["digits"]["regrets"])
    return (
        f"replayed in {orders} orders of 100 recorded trials, it trains "
        f"{ours['digits']['epochs']:.0%} and {ours['fashion']['epochs']:.0%} of the epochs, and "
        f"ends {ours['digits']['regret']:.1%} and {ours['fashion']['regret']:.1%} above the best"
    )


def pruner_live() -> str:
    rows = record("pruning")["live pruners"]["rows"]

    def means(arm: str, name: str) -> list[float]:
        own = [row for row in rows if row["arm"] == arm]
        tasks = dict.fromkeys(row["task"] for row in own)
        return [100 * statistics.mean(r[name] for r in own if r["task"] == t) for t in tasks]

    def told(arm: str) -> tuple[str, str]:
        epochs, above = means(arm, "epochs"), means(arm, "best")
        return (
            f"{min(epochs):.0f} to {max(epochs):.0f}%",
            f"ends {min(above):.1f} to {max(above):.1f}% above",
        )

    optunas = ("median", "asha", "hyperband")
    nearest = min(optunas, key=lambda arm: statistics.mean(means(arm, "best")))
    assert nearest == "hyperband"
    (ours, ends), (theirs, their_ends) = told("schedule"), told("hyperband")
    return (
        f"train {ours} of the epochs, and their best value {ends} that of a full search. "
        f"Hyperband, the nearest of Optuna's pruners, trains {theirs} and {their_ends}."
    )


def pruner_answer() -> str:
    rows = record("pruning")["answers, 400 trials"]["rows"]
    some = [row["arms"] for row in rows if row["task"] == "digits:100"]
    gains = [np.mean(arms["on"]["answer"]) / np.mean(arms["off"]["answer"]) - 1 for arms in some]
    used = np.mean([arms["on"]["epochs"] / arms["off"]["epochs"] for arms in some])
    error = np.std(gains, ddof=1) / len(gains) ** 0.5
    gain = f"{100 * np.mean(gains):+.1f} ± {100 * error:.1f}%".replace("-", "−")
    return (
        f"Of 400 trials of 100 epochs of digits it takes {used:.0%}, for an answer as good on "
        f"fresh seeds ({gain})"
    )


def pruner_elsewhere() -> str:
    rows = record("pruning")["other tasks"]["rows"]
    verdicts = [
        (row["record"], across.clear(np.array(row["regrets"]) - own))
        for row in rows
        if not across.is_ours(row)
        and (own := across.same_epochs(across.ours_of(rows, row["record"]), row)) is not None
    ]
    assert sum(verdict == 1 for _, verdict in verdicts) > len(verdicts) / 4
    tasks, lost = ({r["record"] for r in rows}, {task for task, v in verdicts if v == -1})
    return (
        f"On {len(tasks - lost)} of {len(tasks)} other tasks no pruner of Optuna's is clearly "
        "better at the same epochs"
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
        f"{seeds} seeds each, its best value after {last} trials lies {mean[last]:.1%} above the "
        f"best known, that of Optuna's grouped TPE {grouped[1]:.1%}"
    )


def speed() -> str:
    found = record("speed")
    runs = found["study digits"]["runs"]
    pairs = list(zip(runs["plain"], runs["lrsearch"], strict=True))
    study = statistics.median(plain["cpu"] / ours["cpu"] for plain, ours in pairs)
    higher = np.log([ours["best"] / plain["best"] for plain, ours in pairs])
    assert higher.mean() < 0.02  # and so no more than its error
    assert higher.mean() < higher.std(ddof=1) / len(pairs) ** 0.5

    def times(task: str) -> float:
        rows = found[f"training {task}"]["rows"]
        both = zip(rows["plain"], rows["16"], strict=True)
        return statistics.median(a["ms_per_epoch"] / b["ms_per_epoch"] for a, b in both)

    return (
        f"Training takes {times('digits'):.0f} times fewer CPU seconds on digits; a whole study "
        f"of {runs['plain'][0]['trials']} trials takes {study:.1f} times fewer than a plain "
        "Optuna script"
    )


@pytest.mark.parametrize(
    "sentence",
    [confirmed, winners, pruner_answer, pruner_elsewhere, sampler, speed],
    ids=lambda made: made.__name__,
)
def test_numbers_of_the_readme_follow_from_the_records(sentence: Callable[[], str]) -> None:
    assert sentence() in text_of("README.md")


@pytest.mark.parametrize("name", ["studies/README.md", "studies/digits/README.md"])
def test_the_studies_say_of_the_first_search_what_the_readme_says(name: str) -> None:
    assert fresh() in text_of(name)


@pytest.mark.parametrize("sentence", [pruner, pruner_live], ids=lambda made: made.__name__)
def test_numbers_of_the_page_of_pruning_follow_from_its_record(
    sentence: Callable[[], str],
) -> None:
    assert sentence() in text_of("studies/pruning/README.md")


def test_asha_on_averaged_losses_beats_us_on_one_task_and_is_far_worse_on_the_other() -> None:
    ours, asha = replayed("ours:0.5", "both"), replayed("asha:2,2", "averaged")
    assert asha["digits"]["regret"] < ours["digits"]["regret"]
    assert asha["fashion"]["regret"] > 3 * ours["fashion"]["regret"]


def test_the_readme_fits_in_200_lines() -> None:
    assert (ROOT / "README.md").read_text().count("\n") < 200


@pytest.mark.parametrize(("lines", "told"), [([], "none"), ([CI_LINE, CI_LINE], CI_LINE)])
def test_the_checks_fail_at_once_where_the_readme_has_not_one_line_with_the_tests(
    lines: list[str], told: str, tmp_path: Path
) -> None:
    assert (ROOT / "README.md").read_text().splitlines().count(CI_LINE) == 1
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    (tmp_path / "README.md").write_text("\n".join(["python -m pytest", *lines, ""]))
    done = subprocess.run([tmp_path / ".ci/run"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("README.md needs exactly one line")
    assert told in done.stderr
