"""Paired statistics against scipy's own functions and against simulated truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from lrsearch.stats import ENOUGH_SEEDS, FEWEST_SEEDS, compare, holm, paired, summary

A = {1: 0.41, 2: 0.43, 3: 0.40, 4: 0.44, 5: 0.42}
B = {1: 0.45, 2: 0.46, 3: 0.45, 4: 0.46, 5: 0.47}


def test_paired_test_equals_scipys() -> None:
    found = paired(A, B)
    theirs = scipy_stats.ttest_rel(list(B.values()), list(A.values()))
    assert found.p == pytest.approx(theirs.pvalue)
    interval = theirs.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_only_common_seeds_are_compared() -> None:
    assert paired(A, {3: 0.5, 4: 0.5, 9: 0.1}).n == 2


def test_one_seed_gives_a_difference_and_no_p_value() -> None:
    found = paired({1: 0.4}, {1: 0.5})
    assert found.difference == pytest.approx(0.1)
    assert (found.p, found.low, found.verdict()) == (None, None, "unclear")


def test_summary_equals_numpy() -> None:
    values = [0.3, 0.9, 0.4, 0.8]
    found = summary(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.sd == pytest.approx(np.std(values, ddof=1))


@pytest.mark.parametrize(
    ("p_values", "corrected"),
    [
        ([], []),
        ([0.04], [0.04]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # R: p.adjust(p, "holm")
        ([0.6, 0.7], [1.0, 1.0]),
    ],
)
def test_holm_equals_r(p_values: list[float], corrected: list[float]) -> None:
    assert holm(p_values) == pytest.approx(corrected)


def test_arms_with_the_same_values_are_equal() -> None:
    (found,) = compare("a", {"a": A, "same": dict(A)})
    assert found.verdict() == "equal"


def test_a_constant_difference_is_a_difference() -> None:
    low = {seed: seed / 4 for seed in range(4)}
    (found,) = compare("a", {"a": low, "b": {seed: v + 0.25 for seed, v in low.items()}})
    assert found.verdict() == "better"


def _arms(rng: np.random.Generator, shift: float, seeds: int) -> dict[str, dict[int, float]]:
    """A reference and four others; the seed's effect is shared and five times the noise."""
    shared = rng.normal(0, 0.05, seeds)
    return {
        name: {s: 0.4 + d + shared[s] + rng.normal(0, 0.01) for s in range(seeds)}
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
    covered = [all(r.low < 0.02 < r.high for r in rows if r.low and r.high) for rows in found]
    assert 0.93 < np.mean(covered) < 0.99


def test_an_interval_that_leaves_out_zero_is_no_unclear_difference() -> None:
    rng = np.random.default_rng(4)
    for _ in range(200):
        for row in compare("best", _arms(rng, 0.02, 4)):
            assert row.low is not None
            if row.low > 0:
                assert row.verdict() == "better"


def test_two_seeds_give_a_difference_and_no_interval() -> None:
    low = {1: 0.1, 2: 0.1 + 1e-6}
    (found,) = compare("a", {"a": low, "b": dict.fromkeys(low, 0.5)})
    assert found.difference == pytest.approx(0.4, abs=1e-4)
    assert (found.low, found.high, found.p, found.p_corrected) == (None, None, None, None)
    assert found.verdict() == "unclear"


def test_the_widths_of_intervals_that_the_fewest_seeds_are_chosen_by() -> None:
    rng = np.random.default_rng(0)
    for seeds, reach in ((FEWEST_SEEDS, 6.3), (ENOUGH_SEEDS, 1.1)):
        rows = compare("a", {k: dict(enumerate(rng.normal(size=seeds))) for k in "abcdefg"})
        assert len(rows) == 6
        for row in rows:
            assert row.low is not None
            assert row.high is not None
            assert row.sd is not None
            assert (row.high - row.low) / 2 / row.sd == pytest.approx(reach, rel=0.05)
