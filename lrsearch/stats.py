"""Paired comparison over seeds: is the difference more than chance?

All arms are run on the same seeds, so that what a seed does to every arm cancels in the
differences of the logarithms of their losses (of the losses themselves where one is not above 0).

A seed on which an arm was lost (diverged or failed) counts: its loss is infinite in what is given
here, and then stands above all others (:func:`with_lost`). Both lost is equal.

From :data:`RANKED` seeds on the test is Wilcoxon's signed-rank test (1945), exact, as Demšar
("Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006) advises: a seed on
which training fails has a high rank and no more, while in a t-test it outweighs all others.
Seeds on which both arms are equal are left out, as Wilcoxon does. Estimate and interval are those
of Hodges and Lehmann (1963), from the averages (dᵢ + dⱼ) / 2 of the differences. With fewer seeds
it is the paired t-test of all seeds, since ranks of so few cannot be significant: the smallest p
is 2¹⁻ⁿ, 0.0625 with 5 seeds; and so it is wherever that p, for all comparisons together, is not
below 0.025. Interval and p are Bonferroni's for all comparisons made together, so that the
interval leaves out 0 just where p is below 0.05.

Simulated with ``python -m tests.benchmarks.paired``: ratios of the losses on a seed as in the
digits runs of studies/winners, six comparisons together. *False*: how many of the six are found on
average where all arms are alike, and where each fails on 5% of the seeds (20,000 draws, standard
error 0.004); the chance that any is found is no higher. *Power*: chance to find an arm that is 1.5
standard deviations lower, and one that is so but fails on 5% of the seeds (4,000 draws, 0.01); and
the same by paired t-tests of the losses as they are.

=====  =====  ============  =====  ============  ======  =============
seeds  false  false, fails  power  power, fails  t-test  t-test, fails
=====  =====  ============  =====  ============  ======  =============
3      0.03   0.02          0.15   0.12          0.16    0.13
5      0.03   0.02          0.53   0.42          0.59    0.46
8      0.03   0.01          0.84   0.54          0.85    0.56
10     0.03   0.02          0.87   0.50          0.90    0.53
15     0.04   0.04          0.95   0.45          0.94    0.45
20     0.05   0.05          1.00   0.70          0.95    0.34
30     0.05   0.05          1.00   0.92          0.95    0.21
50     0.05   0.04          1.00   1.00          0.98    0.09
=====  =====  ============  =====  ============  ======  =============
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

ALPHA = 0.05
FEWEST_SEEDS = 3
"""With two, six t intervals together reach 54 standard deviations of the difference either way:
numbers that say nothing. Then neither they nor p-values are given. With three they reach 6.3."""
RANKED = 10
"""Fewest seeds that differ for the signed-rank test; with 8 or 9 all must agree, or nearly."""
ENOUGH_SEEDS = 10
"""With these the signed-rank test is used, and a failed one among them does no great harm."""
LOST = 10
"""Times the highest loss: what a lost seed counts as, where all losses are above 0."""


@dataclass(frozen=True)
class Summary:
    """Values of one arm over its seeds: number, mean, standard deviation (n-1) and median."""

    n: int
    mean: float
    sd: float | None
    median: float


@dataclass(frozen=True)
class Comparison:
    """How much lower a reference is than another arm, seed by seed.

    Attributes:
        name: The other arm.
        n: Seeds that both were run on.
        difference: Above 0, the reference is lower; a part of the other (0.1: 10% lower) where
            ``relative``. Hodges and Lehmann's estimate, of few seeds the mean.
        lower, higher: Seeds on which the reference is lower, and higher.
        relative: Whether it is of the logarithms.
        low, high: Its 95% interval, for all comparisons together; None with too few seeds.
        p: Two-sided; None with too few seeds.
        p_corrected: For all comparisons made together.
        test: ``wilcoxon`` or ``t``.
    """

    name: str
    n: int
    difference: float
    lower: int = 0
    higher: int = 0
    relative: bool = False
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_corrected: float | None = None
    test: str | None = None

    def verdict(self) -> str:
        """``better``, ``worse``, ``equal`` (the same value on each seed) or ``unclear``."""
        if self.p_corrected is None:
            return "unclear"
        if self.lower == self.higher == 0:
            return "equal"
        if self.p_corrected >= ALPHA:
            return "unclear"
        return "better" if self.difference > 0 else "worse"


def summary(values: Sequence[float]) -> Summary:
    """Mean, standard deviation and median.

    Example:
        >>> summary([1.0, 2.0, 6.0])
        Summary(n=3, mean=3.0, sd=2.6457513110645907, median=2.0)
    """
    n = len(values)
    if n == 0:
        return Summary(0, math.nan, None, math.nan)
    mean = math.fsum(values) / n
    median = statistics.median(values)
    if n < 2:
        return Summary(n, mean, None, median)
    sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    return Summary(n, mean, sd, median)


def paired(
    reference: Mapping[int, float],
    other: Mapping[int, float],
    name: str = "",
    *,
    relative: bool | None = None,
    among: int = 1,
) -> Comparison:
    """Compare two arms on the seeds that both were run on.

    Args:
        reference: Seed -> value, lower is better; infinite where the seed was lost.
        other: Seed -> value.
        name: Of the other arm.
        relative: Compare logarithms; None: where all values are above 0.
        among: Comparisons made together, for interval and corrected p.

    Example:
        >>> found = paired({1: 0.40, 2: 0.42, 3: 0.41}, {1: 0.45, 2: 0.46, 3: 0.47})
        >>> round(found.difference, 3), round(found.p, 3), found.test
        (0.109, 0.013, 't')
    """
    reference, other = with_lost({"a": reference, "b": other}).values()
    seeds = sorted(set(reference) & set(other))
    if relative is None:
        relative = all_positive(reference, other)
    a, b = (np.array([arm[s] for s in seeds], dtype=float) for arm in (reference, other))
    d = np.log(b) - np.log(a) if relative else b - a
    counts = int((a < b).sum()), int((a > b).sum())

    def shown(value: float) -> float:
        return -math.expm1(min(-value, 700.0)) if relative else value

    if len(d) < FEWEST_SEEDS:
        middle = float(d.mean()) if len(d) else math.nan
        return Comparison(name, len(d), shown(middle), *counts, relative)
    differ = d[d != 0]
    ranked = len(differ) >= RANKED and least_p(len(differ), among) < ALPHA / 2
    middle, low, high, p = _signed_rank(differ, among) if ranked else _t(d, among)
    return Comparison(
        name,
        len(d),
        shown(middle),
        *counts,
        relative,
        None if low is None else shown(low),
        None if high is None else shown(high),
        p,
        min(1.0, p * among),
        "wilcoxon" if ranked else "t",
    )


def least_p(seeds: int, among: int) -> float:
    """The smallest corrected p of ranks or signs: that of seeds which are all on one side.

    Example:
        >>> least_p(5, among=1), least_p(9, among=6)
        (0.0625, 0.0234375)
    """
    return among * 2.0 ** (1 - seeds)


def method(relative: bool, tests: Collection[str | None], equal: bool, lost: bool) -> str:
    """How arms are compared, in words.

    Args:
        relative: Whether it is the logarithms.
        tests: The test of each row.
        equal: Whether two arms are equal on any seed.
        lost: Whether any seed was lost.
    """
    of = "the losses' logarithms" if relative else "the losses"
    if "wilcoxon" not in tests:
        text = f"Interval and p: t-test of {of}, paired by seed"
    else:
        text = f"Interval and p: Wilcoxon signed-rank test of {of}, paired by seed"
        text += " (t-test where too few seeds differ)" if "t" in tests else ""
    text += ", for all comparisons together (Bonferroni)."
    if equal and "wilcoxon" in tests:
        where = " of the former" if "t" in tests else ""
        text += f" Seeds on which both are equal are left out{where}."
    return f"{text} {lost_counts(relative)}" if lost else text


def lost_counts(relative: bool) -> str:
    """What a lost seed counts as, in words."""
    above = f"{LOST} times the highest loss" if relative else "far above every other loss"
    return f"A lost seed counts as {above}."


def with_lost(arms: Mapping[str, Mapping[int, float]]) -> dict[str, dict[int, float]]:
    """The arms with a finite loss, above all others, in place of an infinite one.

    :data:`LOST` times the highest; where not all are above 0, it and so many times their range.

    Example:
        >>> with_lost({"a": {1: 0.2, 2: math.inf}, "b": {1: 0.3, 2: 0.1}})["a"]
        {1: 0.2, 2: 3.0}
    """
    finite = [v for values in arms.values() for v in values.values() if math.isfinite(v)]
    high, low = max(finite, default=1.0), min(finite, default=1.0)
    worst = LOST * high if low > 0 else high + LOST * ((high - low) or 1.0)
    return {
        name: {s: v if math.isfinite(v) else worst for s, v in values.items()}
        for name, values in arms.items()
    }


def all_positive(*arms: Mapping[int, float]) -> bool:
    """Whether every value has a logarithm."""
    return all(value > 0 for arm in arms for value in arm.values())


def _t(d: np.ndarray, among: int) -> tuple[float, float | None, float | None, float]:
    """(mean, low, high, p) of the t-test on differences (n,).

    Differences that are all the same tell nothing of their spread: p is that of their signs.
    """
    from scipy.special import stdtr, stdtrit  # scipy.stats has the same, and takes half a second

    mean, error = float(d.mean()), float(d.std(ddof=1)) / math.sqrt(len(d))
    if mean == error == 0:
        return 0.0, 0.0, 0.0, 1.0
    if error <= 1e-12 * abs(mean):
        p = least_p(len(d), among=1)
        low, high = (mean, mean) if p * among < ALPHA else (None, None)
        return mean, low, high, p
    freedom = len(d) - 1
    reach = -float(stdtrit(freedom, ALPHA / among / 2)) * error
    return mean, mean - reach, mean + reach, float(2 * stdtr(freedom, -abs(mean) / error))


def _signed_rank(d: np.ndarray, among: int) -> tuple[float, float | None, float | None, float]:
    """(estimate, low, high, p) of the exact signed-rank test on differences (n,), none 0."""
    averages = np.sort(((d[:, None] + d) / 2)[np.triu_indices(len(d))])  # (n (n + 1) / 2,)
    chance = np.ones(1)  # of each sum of the ranks that are positive
    for rank in range(1, len(d) + 1):
        chance = (np.pad(chance, (0, rank)) + np.pad(chance, (rank, 0))) / 2
    p_of = np.minimum(1.0, 2 * np.cumsum(chance))
    fewer = min(int((averages <= 0).sum()), int((averages >= 0).sum()))  # Tukey: the lesser sum
    reach = int((p_of * among < ALPHA).sum())  # sums that are significant: 0 to reach - 1
    low, high = (None, None) if reach == 0 else (averages[reach - 1], averages[-reach])
    return float(np.median(averages)), low, high, float(p_of[fewer])


def compare(
    reference: str, arms: Mapping[str, Mapping[int, float]], among: int | None = None
) -> list[Comparison]:
    """The reference against every other arm, all on one scale.

    Args:
        reference: Name of an arm.
        arms: Name -> seed -> value, lower is better; infinite where the seed was lost.
        among: Comparisons made together; None: these.

    Returns:
        One row per other arm, in the order of ``arms``; those without a common seed are left out.
        With fewer than :data:`FEWEST_SEEDS` a row has neither interval nor p.
    """
    arms = with_lost(arms)
    own = arms[reference]
    others = {k: v for k, v in arms.items() if k != reference and set(v) & set(own)}
    relative = all_positive(*arms.values())
    among = among or len(others)
    return [
        paired(own, values, name, relative=relative, among=among)
        for name, values in others.items()
    ]
