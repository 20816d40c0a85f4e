"""A schedule that only luck may have put behind the best, and that is gentler."""

from __future__ import annotations

import math

import numpy as np

from lrsearch.report.courses import sampled
from lrsearch.report.tables import StudyTable, TrialRow
from lrsearch.surrogate import cap, fit, trace_features

LEAST = 8
"""Complete trials that tell how much of a loss is luck."""
MOST = 100
"""Of these, the best that are asked."""


def gentler(table: StudyTable) -> TrialRow | None:
    """Of the trials that only luck may have put behind the best, the one with the lowest peak.

    The lowest of hundreds of losses has been lucky, and luck favours high rates, which may fail on
    another seed. So this is the one-standard-error rule (Breiman, Friedman, Olshen and Stone,
    *Classification and Regression Trees*, 1984): of all that are as good within the error, the
    simplest; here, the gentlest. The error is sigma (1 + sqrt(2 ln n)): sqrt(2 ln n) is about the
    luck of the luckiest of n equal trials, 1 that of another, and sigma the noise of a Gaussian
    process from the curves to the log losses. What it is worth is in ``studies/winners``.

    Returns:
        A complete trial that is no baseline; None where it is the best itself, that is a baseline,
        or fewer than :data:`LEAST` trials are complete.
    """
    complete = [t for t in table.complete if t.schedule and math.isfinite(t.value or 0.0)][:MOST]
    if len(complete) < LEAST or complete[0].baseline is not None:
        return None
    best = complete[0]
    losses = np.array([t.value for t in complete], dtype=np.float64)
    losses = np.log(losses) if losses[0] > 0 else losses
    curves = np.array([sampled(table, t) for t in complete])
    sigma = fit(trace_features(curves), np.minimum(losses, cap(losses)), steps=30).noise
    tried = len(table.having("complete", "pruned", "diverged"))
    alike = losses <= losses[0] + sigma * (1.0 + math.sqrt(2.0 * math.log(tried)))
    peaks = curves.max(axis=1)
    others = [
        i
        for i, t in enumerate(complete)
        if alike[i] and t.baseline is None and t.others == best.others
    ]
    found = complete[min(others, key=lambda i: (peaks[i], i))]
    return None if found is best else found
