"""Paired comparison over seeds: is the difference more than chance?

All arms are run on the same seeds, so that what a seed does to every arm cancels in the
differences dₛ = bₛ - aₛ. Reported are their mean, the t interval mean ± t(n-1) sd/√n, wide enough
for all comparisons together (Bonferroni), and the paired t-test, its p-values corrected for
several comparisons after Holm (1979).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

ALPHA = 0.05
FEWEST_SEEDS = 3
"""With two, six intervals together reach 54 standard deviations of the difference either way:
numbers that say nothing. Then neither they nor p-values are given. With three they reach 6.3."""
ENOUGH_SEEDS = 10
"""With these they reach 1.1 standard deviations."""


@dataclass(frozen=True)
class Summary:
    """Values of one arm over its seeds: their number, mean and standard deviation (n-1)."""

    n: int
    mean: float
    sd: float | None


@dataclass(frozen=True)
class Comparison:
    """How much smaller a reference is than another arm, seed by seed.

    Attributes:
        name: The other arm.
        n: Seeds that both have.
        difference: Mean of (other - reference): above 0, the reference is lower.
        sd: Standard deviation of the differences; None with one seed.
        low, high: Confidence interval of the difference; None with too few seeds.
        p: Two-sided paired t-test; None with too few seeds.
        p_corrected: After Holm, over all comparisons made together.
    """

    name: str
    n: int
    difference: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_corrected: float | None = None

    def verdict(self, alpha: float = ALPHA) -> str:
        """``better``, ``worse``, ``equal`` (the same value on each seed) or ``unclear``."""
        if self.p_corrected is None:
            return "unclear"
        if self.sd == 0 and self.difference == 0:
            return "equal"
        if self.p_corrected >= alpha:
            return "unclear"
        return "better" if self.difference > 0 else "worse"


def summary(values: Sequence[float]) -> Summary:
    """Mean and standard deviation.

    Example:
        >>> summary([1.0, 2.0, 3.0])
        Summary(n=3, mean=2.0, sd=1.0)
    """
    n = len(values)
    mean = math.fsum(values) / n if n else math.nan
    if n < 2:
        return Summary(n, mean, None)
    return Summary(n, mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)))


def paired(
    reference: Mapping[int, float],
    other: Mapping[int, float],
    name: str = "",
    confidence: float = 0.95,
) -> Comparison:
    """Compare two arms on the seeds that both have.

    Args:
        reference: Seed -> value, lower is better.
        other: Seed -> value.
        name: Of the other arm.
        confidence: Of the interval, between 0 and 1.

    Example:
        >>> found = paired({1: 0.40, 2: 0.42, 3: 0.41}, {1: 0.45, 2: 0.46, 3: 0.47})
        >>> round(found.difference, 3), round(found.p, 3)
        (0.05, 0.013)
    """
    from scipy.stats import t as student

    seeds = sorted(set(reference) & set(other))
    found = summary([other[s] - reference[s] for s in seeds])
    if found.sd is None:
        return Comparison(name, found.n, found.mean)
    error = found.sd / math.sqrt(found.n)
    reach = float(student.ppf((1 + confidence) / 2, found.n - 1)) * error
    if error > 0:
        p = float(2 * student.sf(abs(found.mean) / error, found.n - 1))
    else:
        p = 1.0 if found.mean == 0 else 0.0
    return Comparison(
        name, found.n, found.mean, found.sd, found.mean - reach, found.mean + reach, p
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrected p-values: the k-th smallest of m is multiplied by m - k + 1, never decreasing.

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, p_values[i] * (len(p_values) - rank)))
        corrected[i] = highest
    return corrected


def compare(
    reference: str, arms: Mapping[str, Mapping[int, float]], confidence: float = 0.95
) -> list[Comparison]:
    """The reference against every other arm, p-values corrected together.

    Args:
        reference: Name of an arm.
        arms: Name -> seed -> value, lower is better.
        confidence: Of all intervals together: each is Bonferroni's, wider the more there are.

    Returns:
        One row per other arm, in the order of ``arms``; those without a common seed are left out.
        With fewer than :data:`FEWEST_SEEDS` a row has neither interval nor p.
    """
    others = {
        name: values
        for name, values in arms.items()
        if name != reference and set(values) & set(arms[reference])
    }
    each = 1 - (1 - confidence) / max(1, len(others))
    rows = [paired(arms[reference], values, name, each) for name, values in others.items()]
    rows = [
        row if row.n >= FEWEST_SEEDS else replace(row, low=None, high=None, p=None) for row in rows
    ]
    tested = [row for row in rows if row.p is not None]
    corrected = iter(holm([row.p for row in tested if row.p is not None]))
    return [
        replace(row, p_corrected=next(corrected)) if row.p is not None else row for row in rows
    ]
