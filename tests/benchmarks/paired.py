"""What the test of ``lrsearch.stats`` finds, and finds wrongly: with and without failed seeds.

    python -m tests.benchmarks.paired

Prints the table of that module's docstring. Losses of two arms are drawn: their ratios on a seed
like those of the digits runs in ``studies/winners``, and 2.303, a net that guesses, where one
fails.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
from scipy.stats import ttest_rel

from lrsearch.stats import ALPHA, paired

RECORD = Path(__file__).resolve().parents[2] / "studies" / "winners" / "record.json"
SEEDS = (3, 5, 8, 10, 15, 20, 30, 50)
DRAWS = 4000
ALIKE = 20_000
"""Draws of arms that are alike: what is counted there is rare."""
AMONG = 6
"""Comparisons made together: two more schedules and four recipes."""
FAILED = 2.303
RATE = 0.05
EFFECT = 1.5
"""In standard deviations of the logarithms."""


def log_ratios() -> np.ndarray:
    """Of any two arms that never fail, on each seed, about their median."""
    found = []
    for row in json.loads(RECORD.read_text())["winners"]["rows"]:
        arms = [np.log(a["losses"]) for a in row["arms"] if max(a["losses"]) < 1]
        if row["task"] == "digits":
            found += [a - b - np.median(a - b) for a, b in itertools.permutations(arms, 2)]
    return np.concatenate(found)


def significant(
    rng: np.random.Generator,
    pool: np.ndarray,
    n: int,
    effect: float,
    fails: tuple[float, float],
    draws: int,
) -> tuple[float, float]:
    """Share of draws found: by ours, and by a t-test on the losses as they are."""
    ours = plain = 0
    for _ in range(draws):
        other = 0.16 * np.exp(rng.normal(0, 0.08, n))
        own = other * np.exp(rng.choice(pool, n) - effect * pool.std())
        for arm, rate in zip((own, other), fails, strict=True):
            arm[rng.random(n) < rate] = FAILED
        row = paired(dict(enumerate(own)), dict(enumerate(other)), among=AMONG)
        right = effect == 0 or row.difference > 0
        ours += right and row.verdict() != "unclear"
        found = ttest_rel(other, own)
        plain += found.pvalue * AMONG < ALPHA and (effect == 0 or found.statistic > 0)
    return ours / draws, plain / draws


def main() -> None:
    """Print a row for each number of seeds."""
    alike_rng, rng, pool = np.random.default_rng(1), np.random.default_rng(0), log_ratios()
    print("seeds   alike  both fail | lower  and fails |  t on losses: alike  lower  and fails")
    for n in SEEDS:
        (alike, t), (both, _) = (
            significant(alike_rng, pool, n, 0.0, (rate, rate), ALIKE) for rate in (0.0, RATE)
        )
        (lower, t_lower), (failing, t_failing) = (
            significant(rng, pool, n, EFFECT, (rate, 0.0), DRAWS) for rate in (0.0, RATE)
        )
        print(
            f"{n:5}  {alike * AMONG:6.3f}  {both * AMONG:6.3f}     {lower:5.2f}  {failing:5.2f}"
            f"          {t * AMONG:6.3f}  {t_lower:5.2f}  {t_failing:5.2f}"
        )


if __name__ == "__main__":
    main()
