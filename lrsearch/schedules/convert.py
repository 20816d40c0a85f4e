"""Arguments for another unit of time, another budget, or an optimizer with rates of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lrsearch.errors import UsageError
from lrsearch.schedules.args import MAX_EPOCHS
from lrsearch.schedules.family import Family
from lrsearch.schedules.ranges import as_number

if TYPE_CHECKING:
    from torch.optim import Optimizer


def whole_steps(given: Any) -> int:
    """``steps_per_epoch`` as an int, from any whole number from 1 up (:class:`UsageError`)."""
    number = None if isinstance(given, str) else as_number(given)
    if number is None or number != int(number) or number < 1:
        raise UsageError(f"steps_per_epoch must be a whole number, at least 1, got {given!r:.60}")
    return int(number)


def in_steps(family: Family, params: Mapping[str, Any], k: int) -> dict[str, Any]:
    """Arguments counted in epochs -> arguments counted in scheduler steps, ``k`` to the epoch."""
    out: dict[str, Any] = {}
    for name, value in params.items():
        arg = family.args[name]
        if arg.kind in ("epochs", "span"):
            value = value * k
        elif arg.kind == "milestones":
            value = [each * k for each in value]
        elif arg.per_epoch:
            value = value ** (1 / k)
        out[name] = value
    return out


def rescaled(family: Family, params: Mapping[str, Any], old: int, new: int) -> dict[str, Any]:
    """``params`` for ``new`` epochs after the warmup instead of ``old``."""
    ratio = new / old
    out: dict[str, Any] = {}
    for name, value in params.items():
        arg = family.args[name]
        if arg.kind == "epochs":
            scaled = round_half_up(value * ratio)
            if (family.name, name) == ("CosineAnnealingWarmRestarts", "T_0"):
                # a first cycle rounded down would restart once more at the very end
                scaled = math.ceil(value * ratio - 1e-9)
            elif (family.name, name) == ("StepLR", "step_size"):
                scaled = _step_size(value, old, new)
            least = max(int(arg.low), min(value, 1))  # a patience of 0 is another rule than 1
            value = int(min(max(least, scaled), arg.high, MAX_EPOCHS))
        elif arg.kind == "span":
            value = min(value * ratio, arg.high)
        elif arg.kind == "milestones":
            value = _milestones(value, old, new)
        elif arg.kind == "points":
            value = [[epoch * ratio, lr] for epoch, lr in value]
        elif arg.per_epoch:
            value = max(value ** (1 / ratio), 1e-300)
        out[name] = value
    if family.name == "SequentialLR":
        out["hold"] = max(1, min(out["hold"], new - 1))
    return out


def _step_size(size: int, old: int, new: int) -> int:
    """The whole step nearest to ``size`` of ``old`` epochs that decays as often in ``new``."""
    exact = size * new / old
    near = max(1, math.floor(exact)), max(1, math.ceil(exact - 1e-9))
    decays = (old - 1) // size
    return min(near, key=lambda each: (abs((new - 1) // each - decays), abs(each - exact)))


def _milestones(milestones: list[int], old: int, new: int) -> list[int]:
    """Those within the old budget, within the new; one beyond it where there is none.

    Rounding must not make two into one, or move the last past the end: a decay would be lost.
    """
    rising: list[int] = []
    for each in milestones:
        if each < old:
            after = rising[-1] if rising else 0
            rising.append(max(after + 1, round_half_up(each * new / old)))
    count = len(rising)
    kept = [min(each, new - count + i) for i, each in enumerate(rising)]
    kept = [each for each in kept if each >= 1]
    return kept or [min(max(1, round_half_up(milestones[0] * new / old)), MAX_EPOCHS)]


def round_half_up(value: float) -> int:
    return math.floor(value + 0.5)


def set_rates(optimizer: Optimizer, lr: float, keep_lr: bool) -> tuple[float, ...]:
    """Peak rate of each group, written into the optimizer as if it were new."""
    groups = getattr(optimizer, "param_groups", None)
    if not groups:
        raise UsageError(f"expected a torch optimizer, got {type(optimizer).__name__}")
    own = [
        float(group["lr"] if keep_lr else group.get("initial_lr", group["lr"])) for group in groups
    ]
    top = max(own)
    if not all(math.isfinite(rate) and rate >= 0 for rate in own) or top == 0:
        raise UsageError(f"the optimizer's learning rates must be finite and not all 0, got {own}")
    # lr * (rate / top) is exactly lr where rate is top
    rates = own if keep_lr else [lr * (rate / top) for rate in own]
    for group, rate in zip(groups, rates, strict=True):
        set_rate(group, rate)
        group.pop("initial_lr", None)  # set once by torch, later changes of lr are ignored
    return tuple(rates)


def set_rate(group: dict[str, Any], rate: Any) -> None:
    """Write the rate of a group."""
    is_tensor = hasattr(group["lr"], "clone")  # Adam(lr=tensor, capturable=True)
    group["lr"] = group["lr"].detach().clone().fill_(rate) if is_tensor else rate


def has_momentum(optimizer: Optimizer) -> bool:
    """Whether every group has momentum or beta1 above 0, so that cycling it changes no method."""
    if "betas" in optimizer.defaults:
        return all(float(group["betas"][0]) > 0 for group in optimizer.param_groups)
    if "momentum" in optimizer.defaults:
        return all(float(group["momentum"]) > 0 for group in optimizer.param_groups)
    return False
