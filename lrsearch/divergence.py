"""Divergence: how it is written down, and from which loss on a trial counts as diverged.

A trial has diverged where its loss is not finite; only that ends it. Losses of any size are
losses: those of a regression in raw units may be 1e7 all along. Whether a trial has blown up
without ever reaching infinity is seen from the losses of the others: see :func:`blown_up`.
"""

from __future__ import annotations

import math
from typing import Final

DIVERGED_LOSS: Final = 1e30
"""What a trial reports whose loss is not finite: above any other, so that samplers learn."""
HUGE: Final = 1e6


def blown_up(best: float) -> float:
    """The loss from which on a trial of a study counts as diverged, whatever it did.

    It is a million times the study's best loss, and at least a million.

    Args:
        best: The lowest final loss of the study; not finite where there is none.

    Example:
        >>> blown_up(0.12), blown_up(3e7)
        (1000000.0, 30000000000000.0)
    """
    return min(DIVERGED_LOSS, HUGE * max(1.0, best if math.isfinite(best) else 1.0))
