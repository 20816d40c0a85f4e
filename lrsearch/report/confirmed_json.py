"""What a confirmation found as plain values, for ``--json``."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from lrsearch.report.confirmed import Confirmed

NO_LOSS = {"n": 0, "mean": None, "sd": None, "median": None}
"""The summary of an arm that lost all its seeds."""


def results(found: Confirmed) -> dict[str, Any]:
    """The comparison as plain values, for ``--json``."""
    return {
        "study": found.name,
        "seeds": list(found.seeds),
        "runs": {"planned": found.planned, "finished": found.finished},
        "winner": found.winner.key,
        "lowest": found.lowest.key,
        "held": found.held.key,
        "file": None if found.file is None else str(found.file),
        "arms": [
            {
                "key": arm.key,
                "label": arm.label,
                "trial": arm.trial,
                "baseline": arm.baseline,
                "val_loss": asdict(arm.val) if arm.val_loss else NO_LOSS,
                "test_metric": None if arm.test is None else asdict(arm.test),
                "lost_seeds": list(arm.lost),
                "untrained_seeds": list(arm.untrained),
                "raised_val_loss": None if arm.raised == math.inf else arm.raised,
                "near_the_edge": arm.near_edge,
            }
            for arm in found.arms
        ],
        "comparisons": [asdict(row) | {"verdict": row.verdict()} for row in found.loss],
    }
