"""Paired statistics against scipy's own functions and against simulated truth."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats as scipy_stats

from lrsearch.stats import FEWEST_SEEDS, RANKED, Summary, compare, paired, summary, with_lost

A = {1: 0.41, 2: 0.43, 3: 0.40, 4: 0.44, 5: 0.42}
B = {1: 0.45, 2: 0.46, 3: 0.45, 4: 0.46, 5: 0.47}


def drawn(seeds: int, shift: float = 0.1) -> tuple[dict[int, float], dict[int, float]]:
    rng = np.random.default_rng(seeds)
    low = rng.lognormal(-1.8, 0.1, seeds)
    return dict(enumerate(low)), dict(enumerate(low * np.exp(rng.normal(shift, 0.2, seeds))))


def logs(arm: dict[int, float]) -> np.ndarray:
    return np.log(list(arm.values()))


@pytest.mark.parametrize("seeds", [3, 5, RANKED - 1])
def test_with_few_seeds_it_is_scipys_t_test_of_the_logarithms(seeds: int) -> None:
    a, b = drawn(seeds)
    found = paired(a, b)
    theirs = scipy_stats.ttest_rel(logs(b), logs(a))
    assert found.test == "t"
    assert found.p == pytest.approx(theirs.pvalue)
    interval = theirs.confidence_interval(0.95)
    expected = (1 - np.exp(-interval.low), 1 - np.exp(-interval.high))
    assert (found.low, found.high) == pytest.approx(expected)


def test_a_comparison_leaves_most_of_scipy_alone() -> None:
    """Every command about a study with a confirmation makes some."""
    program = (
        "import sys; from lrsearch.stats import paired\n"
        f"assert paired({A}, {B}).test == 't'\n"
        "assert 'scipy.stats' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("seeds", [RANKED, 17, 20, 50])
@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_from_ten_seeds_on_it_is_scipys_exact_signed_rank_test(seeds: int, shift: float) -> None:
    a, b = drawn(seeds, shift)
    found = paired(a, b, among=6)
    p = scipy_stats.wilcoxon(logs(b), logs(a), method="exact").pvalue
    assert found.test == "wilcoxon"
    assert found.p == pytest.approx(p)
    assert found.p_corrected == pytest.approx(min(1, 6 * p))


def test_the_interval_holds_just_what_the_test_does_not_refuse() -> None:
    """Of differences as they are: one value is below 0, so that there are no logarithms."""
    a = {s: v - 0.15 for s, v in drawn(14)[0].items()}
    b = {s: v - 0.15 for s, v in drawn(14)[1].items()}
    found = paired(a, b, among=3)
    assert not found.relative
    assert found.low is not None
    assert found.high is not None
    for edge, inside in ((found.low, 1e-9), (found.high, -1e-9)):
        for step, refused in ((inside, False), (-inside, True)):
            moved = {s: v - edge - step for s, v in b.items()}
            assert (scipy_stats.wilcoxon(
                np.array(list(moved.values())) - list(a.values()), method="exact"
            ).pvalue * 3 < 0.05) == refused  # fmt: skip


def test_interval_and_p_never_disagree() -> None:
    rng = np.random.default_rng(5)
    for _ in range(300):
        n = int(rng.integers(3, 30))
        low = rng.lognormal(0, 0.3, n).round(2)  # rounded, so that there are ties
        high = (low * rng.lognormal(0.1, 0.2, n)).round(2)
        row = paired(dict(enumerate(low)), dict(enumerate(high)), among=4)
        if row.p_corrected is None or row.low is None or row.high is None:
            continue
        assert (row.p_corrected < 0.05) == (row.low > 0 or row.high < 0)


# 20 seeds of the digits study, of which one winner's run ended as if untrained
WINNER = [
    0.239, 0.27, 0.433, 0.168, 0.243, 0.175, 0.461, 0.175, 0.235, 0.606,
    0.183, 2.303, 0.122, 0.222, 0.169, 0.131, 0.235, 0.256, 0.163, 0.161,
]  # fmt: skip
STEP_DECAY = [
    0.156, 0.153, 0.148, 0.168, 0.153, 0.153, 0.156, 0.165, 0.191, 0.164,
    0.16, 0.185, 0.16, 0.155, 0.152, 0.151, 0.145, 0.17, 0.141, 0.171,
]  # fmt: skip


def test_one_failed_seed_does_not_empty_the_test() -> None:
    winner, recipe = dict(enumerate(WINNER)), dict(enumerate(STEP_DECAY))
    assert scipy_stats.ttest_rel(WINNER, STEP_DECAY).pvalue > 0.09  # as it was
    found = paired(winner, recipe, among=6)
    assert (found.verdict(), found.lower, found.higher) == ("worse", 3, 16)
    better = paired({s: v * 0.9 for s, v in recipe.items()} | {7: 2.303}, recipe, among=6)
    assert (better.verdict(), better.lower) == ("better", 19)
    assert better.difference == pytest.approx(0.1)


def test_seeds_that_are_equal_for_both_are_left_out() -> None:
    """Half of the nets are dead whatever the schedule."""
    a, b = drawn(12)
    dead = dict.fromkeys(range(100, 115), 1.983)
    both, alive = paired(a | dead, b | dead), paired(a, b)
    assert (both.p, both.low, both.n) == (alive.p, alive.low, 27)


def test_only_common_seeds_are_compared() -> None:
    assert paired(A, {3: 0.5, 4: 0.5, 9: 0.1}).n == 2


def test_one_seed_gives_a_difference_and_no_p_value() -> None:
    found = paired({1: 0.4}, {1: 0.5})
    assert found.difference == pytest.approx(0.2)  # 0.4 is 20% lower than 0.5
    assert (found.p, found.low, found.verdict()) == (None, None, "unclear")


def test_arms_without_a_common_seed_are_not_compared() -> None:
    assert compare("a", {"a": A, "b": {9: 0.1}}) == []
    assert math.isnan(paired(A, {9: 0.1}).difference)


def test_one_value_has_no_standard_deviation() -> None:
    assert summary([0.3]) == Summary(1, 0.3, None, 0.3)


def test_summary_equals_numpy() -> None:
    values = [0.3, 0.9, 0.4, 0.8]
    found = summary(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.sd == pytest.approx(np.std(values, ddof=1))
    assert found.median == pytest.approx(np.median(values))


def test_arms_with_the_same_values_are_equal() -> None:
    (found,) = compare("a", {"a": A, "same": dict(A)})
    assert (found.verdict(), found.p, found.difference) == ("equal", 1.0, 0.0)


def test_a_constant_difference_is_a_difference() -> None:
    low = {seed: seed / 4 for seed in range(8)}
    (found,) = compare("a", {"a": low, "b": {seed: v + 0.25 for seed, v in low.items()}})
    assert found.verdict() == "better"


def _arms(rng: np.random.Generator, shift: float, seeds: int) -> dict[str, dict[int, float]]:
    """A reference and four others; the seed's effect is shared and five times the noise."""
    shared = rng.normal(0, 0.05, seeds)
    return {
        name: {s: np.exp(d + shared[s] + rng.normal(0, 0.01)) for s in range(seeds)}
        for name, d in {"best": 0.0, "a": shift, "b": shift, "c": shift, "d": shift}.items()
    }


def test_planted_ties_are_called_better_in_at_most_five_percent_of_families() -> None:
    rng = np.random.default_rng(1)
    families = 400
    wrong = sum(
        any(row.verdict() != "unclear" for row in compare("best", _arms(rng, 0.0, 5)))
        for _ in range(families)
    )
    assert wrong / families < 0.08  # 0.05 and three standard errors


def test_planted_differences_are_found_with_five_seeds() -> None:
    rng = np.random.default_rng(2)
    found = [row.verdict() for _ in range(100) for row in compare("best", _arms(rng, 0.05, 5))]
    assert found.count("better") / len(found) > 0.9
    assert "worse" not in found


def test_the_intervals_cover_the_truth_together_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    found = [compare("best", _arms(rng, 0.02, 5)) for _ in range(500)]
    true = 1 - np.exp(-0.02)
    covered = [all(r.low < true < r.high for r in rows if r.low and r.high) for rows in found]
    assert 0.93 < np.mean(covered) < 0.99


def test_two_seeds_give_a_difference_and_no_interval() -> None:
    low = {1: 0.1, 2: 0.1 + 1e-6}
    (found,) = compare("a", {"a": low, "b": dict.fromkeys(low, 0.5)})
    assert found.difference == pytest.approx(0.8, abs=1e-4)
    assert (found.low, found.high, found.p, found.p_corrected) == (None, None, None, None)
    assert found.verdict() == "unclear"


def test_the_width_of_intervals_that_the_fewest_seeds_are_chosen_by() -> None:
    rng = np.random.default_rng(0)
    arms = {k: dict(enumerate(rng.normal(size=FEWEST_SEEDS))) for k in "abcdefg"}
    for row in compare("a", arms):
        d = [arms[row.name][s] - arms["a"][s] for s in arms["a"]]
        assert row.low is not None
        assert row.high is not None
        assert (row.high - row.low) / 2 / np.std(d, ddof=1) == pytest.approx(6.3, rel=0.05)


def test_a_lost_seed_counts_as_above_all_others() -> None:
    a, b = drawn(12)
    one = a | {3: math.inf}
    kept = max(v for s, v in (*a.items(), *b.items()) if (s, v) != (3, a[3]))
    assert paired(one, b) == paired(a | {3: 10 * kept}, b)
    both = paired(one, b | {3: math.inf})
    assert (both.n, both.lower + both.higher) == (12, 11)
    (row,) = compare("a", {"a": a, "b": dict.fromkeys(a, math.inf)})
    assert (row.verdict(), row.lower, row.n) == ("better", 12, 12)


def test_a_lost_seed_counts_as_far_above_losses_that_may_be_negative() -> None:
    arms = {"a": {1: -1.0, 2: math.inf}, "b": {1: 1.0, 2: 0.0}}
    assert with_lost(arms)["a"] == {1: -1.0, 2: 1.0 + 10 * 2.0}
    assert with_lost({"a": {1: -1.0, 2: math.inf}})["a"][2] > -1.0


def test_ranks_are_used_where_they_can_be_significant() -> None:
    """Ten seeds that differ, and no more comparisons than 2 ** -9 allows."""
    a, b = drawn(10)
    assert paired(a, b, among=12).test == "wilcoxon"
    assert paired(a, b, among=13).test == "t"
    equal = dict.fromkeys(range(100, 105), 1.0)
    nine, others = drawn(9)
    assert paired(nine | equal, others | equal).test == "t"
    assert paired(a | equal, b | equal).test == "wilcoxon"


def test_averages_of_zero_count_on_both_sides() -> None:
    d = [-1.0, *range(1, 11)]  # the averages at or below 0: (-1 - 1) / 2 and (-1 + 1) / 2
    found = paired(dict.fromkeys(range(11), 0.0), dict(enumerate(d)))
    assert found.p == pytest.approx(2 * 3 / 2**11)


def test_equal_seeds_count_in_the_t_test() -> None:
    """Errors of 100 samples are often equal: three of eight that differ alike prove nothing."""
    a = {1: 0.05, 2: 0.06, 3: 0.05, 4: 0.05, 5: 0.04, 6: 0.05, 7: 0.03, 8: 0.04}
    b = a | {1: 0.06, 4: 0.06, 5: 0.05}
    found = paired(a, b, relative=False, among=6)
    d = [b[s] - a[s] for s in a]
    assert found.p == pytest.approx(scipy_stats.ttest_1samp(d, 0).pvalue)
    assert (found.difference, found.verdict()) == (pytest.approx(0.00375), "unclear")


def test_equal_arms_are_seldom_told_apart_however_coarse_their_losses() -> None:
    """Errors of 100 samples, most of them common to both arms: half of the seeds are equal."""
    rng, told = np.random.default_rng(3), 0
    for _ in range(1000):
        common = rng.binomial(100, 0.1, 8)
        a, b = ((common + rng.binomial(2, 0.15, 8) + 1) / 100 for _ in range(2))
        told += paired(dict(enumerate(a)), dict(enumerate(b))).verdict() in ("better", "worse")
    assert told < 50  # 5%; it was 90 when the equal ones were left out


@pytest.mark.parametrize(
    ("seeds", "among", "verdict"), [(5, 1, "unclear"), (7, 1, "better"), (7, 4, "unclear")]
)
@pytest.mark.parametrize("low", [0.0, 0.5])  # of the losses, and of their logarithms
def test_differences_that_are_all_the_same_are_judged_by_their_signs(
    seeds: int, among: int, verdict: str, low: float
) -> None:
    arms = dict.fromkeys(range(seeds), low), dict.fromkeys(range(seeds), 1.0)
    found = paired(*arms, among=among)
    assert (found.p, found.verdict()) == (2.0 ** (1 - seeds), verdict)
    assert (found.low is None) == (found.high is None) == (verdict == "unclear")


def test_a_difference_beyond_all_numbers_is_still_one() -> None:
    found = paired({1: 1e-3, 2: 1e-3, 3: 1e-3}, {1: 1e-3, 2: 2e-3, 3: 1e200}, among=6)
    assert math.isfinite(found.difference)
