"""How a trial has ended, and what divergence is: how it is written down, from which loss on.

A trial has diverged where its loss is not finite; only that ends it. Losses of any size are
losses: those of a regression in raw units may be 1e7 all along. Whether a trial has blown up
without ever reaching infinity is seen from the losses of the others: see :func:`blown_up`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

DIVERGED_LOSS: Final = 1e30
"""What a trial reports whose loss is not finite: above any other, so that samplers learn."""
HUGE: Final = 1e6


def blown_up(losses: Iterable[float | None]) -> float:
    """The loss from which on a trial counts as diverged that has not run to its end.

    It is a million times the study's best loss, and at least a million.

    Args:
        losses: The last losses of its trials that have ended; None where one has none.

    Example:
        >>> blown_up([0.3, 0.12]), blown_up([3e7, math.inf, None])
        (1000000.0, 30000000000000.0)
    """
    best = min((v for v in losses if v is not None and math.isfinite(v)), default=1.0)
    return min(DIVERGED_LOSS, HUGE * max(1.0, best))


def last_loss(trial: FrozenTrial) -> float | None:
    """The loss that a trial ended with, or has come to; None before the first."""
    if trial.values:
        return float(trial.values[0])
    step = trial.last_step
    return None if step is None else trial.intermediate_values[step]


def status_of(trial: FrozenTrial, ceiling: float = DIVERGED_LOSS) -> str:
    """``complete``, ``pruned``, ``diverged``, ``failed``, ``running`` or ``waiting``.

    Args:
        trial: Of any study; a loop of the user's own may have said nothing but its losses.
        ceiling: :func:`blown_up` of the study.
    """
    state = trial.state.name
    if state not in ("COMPLETE", "PRUNED"):
        return "failed" if state == "FAIL" else state.lower()
    loss, limit = last_loss(trial), ceiling
    if state == "COMPLETE":  # at its end any finite loss is a result
        limit = DIVERGED_LOSS
    lost = loss is not None and not -math.inf < loss < limit
    lost = lost or trial.user_attrs.get("stopped") == "diverged"
    return "diverged" if lost else state.lower()
