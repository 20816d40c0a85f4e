"""Default search ranges relative to the budget, and searched values as torch's arguments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lrsearch.schedules.family import Draw
from lrsearch.schedules.ranges import Dim, Range, epochs_range

FINAL_RATIO = (1e-4, 0.5)
"""Last rate over first, for families that are searched by a factor per epoch."""

MAX_CYCLES = 1000
"""Most cycles of CyclicLR: torch's triangular2 halves each peak and overflows at 1,024."""

GAMMA_LIMITS = (0.0, 1.0)
FLOOR = Range(1e-6, 1e-1, log=True, limits=(0, 1), zero_below=1e-5, unit="of lr")


def per_epoch_factor(budget: int) -> Range:
    """The factor per epoch that ends at FINAL_RATIO after the budget."""
    low, high = (ratio ** (1 / budget) for ratio in FINAL_RATIO)
    return Range(low, high, log=True, limits=GAMMA_LIMITS, unit="per epoch")


def capped(values: dict[str, Any], name: str, most: int) -> dict[str, Any]:
    return values | {name: max(1, min(values[name], most))}


def floored(values: dict[str, Any], ratio: str, name: str, lr: float) -> dict[str, Any]:
    """``values`` with the rate ``name`` in place of its ratio to lr."""
    rest = {key: value for key, value in values.items() if key != ratio}
    return rest | {name: lr * values[ratio]}


def step(budget: int) -> dict[str, Dim]:
    return {
        "step_size": epochs_range(budget, 1 / 6, 1 / 2),
        "gamma": Range(0.05, 0.8, log=True, limits=GAMMA_LIMITS),
    }


def multi_step(budget: int) -> dict[str, Dim]:
    last = max(1, min(budget - 1, math.floor(0.95 * budget)))
    gap = epochs_range(budget, 0.05, 0.4)
    count = Range(1, min(3, last), integer=True, limits=(1, 3))
    return {
        "count": count,
        "first": Range(
            max(1, min(last, round(0.2 * budget))),
            last,
            integer=True,
            limits=(1, max(1, budget - 1)),
            unit="epochs",
        ),
        "gap_2": replace(gap, when=("count", (2, 3))),
        "gap_3": replace(gap, when=("count", (3,))),
        "gamma": Range(0.05, 0.5, log=True, limits=GAMMA_LIMITS),
    }


def decode_multi_step(values: dict[str, Any], draw: Draw) -> dict[str, Any]:
    """First milestone and gaps -> milestones, those after the end dropped."""
    last = max(1, draw.epochs - 1)
    milestones = [min(values["first"], last)]
    for gap in ("gap_2", "gap_3"):
        if gap in values:
            milestones.append(milestones[-1] + values[gap])
    kept = [milestone for milestone in milestones if milestone <= last]
    return {"milestones": kept, "gamma": values["gamma"]}


def restart_length(epochs: int, cycles: int, growth: int) -> int:
    """``T_0`` for ``cycles`` cycles, each ``growth`` times the one before, that end at ``epochs``.

    Cycles are whole epochs, so the last one is cut short where they do not fit exactly. Where more
    than a third of it would be cut, the run would end at a high rate: fewer cycles are taken then.

    Example:
        >>> restart_length(epochs=30, cycles=2, growth=2)
        10
    """
    for count in range(cycles, 1, -1):
        lengths = [growth**i for i in range(count)]  # in units of the first
        parts: int = sum(lengths)
        first = math.ceil(epochs / parts)
        last: int = first * lengths[-1]
        done = epochs - (first * parts - last)
        if first >= 2 and 3 * done >= 2 * last:
            return first
    return max(1, epochs)


def decode_restarts(values: dict[str, Any], draw: Draw) -> dict[str, Any]:
    out = {
        "T_0": restart_length(draw.epochs, values["cycles"], values["T_mult"]),
        "T_mult": values["T_mult"],
    }
    return out | {"eta_min": draw.lr * values["eta_min_ratio"]}


def decode_cyclic(values: dict[str, Any], draw: Draw) -> dict[str, Any]:
    """Whole cycles, so that the run ends in a trough."""
    cycles = values["cycles"]
    if draw.interval == "epoch":  # a half cycle of one epoch would end the run on the peak
        cycles = min(cycles, draw.epochs // 4)  # stepped so it needs 4 epochs
    cycle = draw.epochs / cycles
    out = {k: value for k, value in values.items() if k not in ("cycles", "base_lr_ratio")}
    if "step_size_down" in out:  # asked for by the user; the way up is the rest of the cycle
        out["step_size_down"] = min(out["step_size_down"], 0.9 * cycle)
    up = cycle - out.get("step_size_down", cycle / 2)
    return {"base_lr": draw.lr * values["base_lr_ratio"], "step_size_up": up} | out


def check_one_cycle(args: Mapping[str, Any], budget: int) -> list[str]:
    if args.get("total_steps", budget) >= budget:
        return []
    return [
        f"OneCycleLR.total_steps: {args['total_steps']} epochs end before the budget of {budget}, "
        f"and torch refuses to step on; write {budget} or leave it out"
    ]


def check_cyclic(args: Mapping[str, Any], budget: int) -> list[str]:
    up = args.get("step_size_up", budget)
    cycles = budget / (up + args.get("step_size_down", up))
    if cycles <= MAX_CYCLES:
        return []
    return [
        f"CyclicLR.step_size_up: {up:g} epochs make {cycles:,.0f} cycles, and at most "
        f"{MAX_CYCLES} are allowed; write more epochs"
    ]


def check_sequential(args: Mapping[str, Any], budget: int) -> list[str]:
    if args.get("hold", 1) < max(2, budget):
        return []
    return [
        f"SequentialLR.hold: {args['hold']} epochs leave none of {budget} for the decay; "
        f"write less than {budget}"
    ]


def check_trapezoid(args: Mapping[str, Any], budget: int) -> list[str]:
    if args.get("decay", 1) <= args.get("total_iters", budget):
        return []
    return [
        f"LambdaLR.decay: {args['decay']} epochs are more than the whole schedule of "
        f"{args['total_iters']}; write at most that"
    ]
