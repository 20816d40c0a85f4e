"""The rates of a schedule by formula: what :mod:`lrsearch.schedules.trace` finds step by step.

The real torch scheduler says what a trial does. A search looks at a hundred candidates for each
trial that it runs, and for those a formula is enough: the same rates but for rounding (a test
compares all families), at a tenth of the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lrsearch.schedules.convert import in_steps
from lrsearch.schedules.family import get_family, is_builtin

if TYPE_CHECKING:
    from lrsearch.schedules.schedule import Schedule

Array = npt.NDArray[np.float64]
Args = Mapping[str, Any]


def rates(schedule: Schedule, steps_per_epoch: int) -> Array | None:
    """The ``lr`` of :meth:`Schedule.trace`; None where there is no formula.

    Args:
        schedule: Of a built-in family, but for ``ReduceLROnPlateau`` and ``Points``.
        steps_per_epoch: Optimizer steps in an epoch.
    """
    family = get_family(schedule.family)
    if family.name not in _FORMULAS or not is_builtin(family):
        return None
    k = steps_per_epoch if schedule.interval == "step" else 1
    warmup = schedule.warmup * k
    t = np.arange(schedule.epochs * k - warmup, dtype=np.float64)
    args = in_steps(family, schedule.params, k)
    lr: Array = _FORMULAS[family.name](schedule.lr, t, args)
    if warmup:
        start = schedule.warmup_start
        rise = start + (1 - start) * np.arange(warmup) / warmup
        lr = np.concatenate([schedule.lr * rise, lr])
    return lr if k == steps_per_epoch else np.repeat(lr, steps_per_epoch)


# Each: (peak rate, scheduler steps since the warmup (n,), arguments in steps) -> (n,)


def _constant(lr: float, t: Array, args: Args) -> Any:
    return np.where(t < args["total_iters"], lr * args["factor"], lr)


def _step(lr: float, t: Array, args: Args) -> Any:
    return lr * args["gamma"] ** (t // args["step_size"])


def _multi_step(lr: float, t: Array, args: Args) -> Any:
    return lr * args["gamma"] ** np.searchsorted(args["milestones"], t, side="right")


def _exponential(lr: float, t: Array, args: Args) -> Any:
    return lr * args["gamma"] ** t


def _linear(lr: float, t: Array, args: Args) -> Any:
    done = np.minimum(t / args["total_iters"], 1)
    return lr * (args["start_factor"] + (args["end_factor"] - args["start_factor"]) * done)


def _polynomial(lr: float, t: Array, args: Args) -> Any:
    return lr * (1 - np.minimum(t / args["total_iters"], 1)) ** args["power"]


def _cosine(lr: float, t: Array, args: Args) -> Any:
    return _between(lr, args["eta_min"], t / args["T_max"])


def _between(high: float, low: float, part: Array) -> Array:
    """Half a cosine from ``high`` at 0 to ``low`` at 1."""
    return low + (high - low) * (1 + np.cos(np.pi * part)) / 2


def _restarts(lr: float, t: Array, args: Args) -> Any:
    growth = args["T_mult"]
    length = np.full(len(t), float(args["T_0"]))  # of the cycle that each step is in
    within = t % args["T_0"] if growth == 1 else t.copy()
    while (later := within >= length).any():
        within[later] -= length[later]
        length[later] *= growth
    return _between(lr, args["eta_min"], within / length)


def _one_cycle(lr: float, t: Array, args: Args) -> Any:
    low = lr / args["div_factor"]
    last = args["total_steps"] - 1
    top = args["pct_start"] * args["total_steps"] - 1
    if top == 0:
        top = args["pct_start"] * (1 + 1e-9) * args["total_steps"] - 1  # as it is built
    up, down = t / top, (t - top) / (last - top)
    floor = low / args["final_div_factor"]
    if args.get("anneal_strategy") == "linear":
        return np.where(t <= top, low + (lr - low) * up, lr + (floor - lr) * down)
    return np.where(t <= top, _between(low, lr, up), _between(lr, floor, down))


def _cyclic(lr: float, t: Array, args: Args) -> Any:
    up, base = args["step_size_up"], args["base_lr"]
    total = up + args.get("step_size_down", up)
    cycle = np.floor(1 + t / total)
    x = 1 + t / total - cycle
    height = np.where(x <= up / total, x / (up / total), (x - 1) / (up / total - 1))
    scale: Array | float = 1.0
    if args["mode"] == "triangular2":
        scale = 0.5 ** (cycle - 1)
    elif args["mode"] == "exp_range":
        scale = args["gamma"] ** t
    return base + (lr - base) * height * scale


def _lambda(lr: float, t: Array, args: Args) -> Any:
    match args["lr_lambda"]:
        case "inverse_sqrt":
            return lr / np.sqrt(1 + t / args["timescale"])
        case "trapezoid":
            return lr * np.clip((args["total_iters"] - t) / args["decay"], 0, 1)
        case _:
            left = np.maximum(0, 1 - t / args["total_iters"])
            return lr * left / (0.5 + 0.5 * left)


def _multiplicative(lr: float, t: Array, args: Args) -> Any:
    return lr * args["factor"] ** t


def _sequential(lr: float, t: Array, args: Args) -> Any:
    hold, end = args["hold"], args["end_factor"]
    left = max(1, len(t) - hold)
    done = np.maximum(t - hold, 0) / left
    match args["decay"]:
        case "CosineAnnealingLR":
            return _between(lr, lr * end, done)
        case "LinearLR":
            return lr * (1 + (end - 1) * done)
        case _:
            return lr * np.exp(math.log(end) * done)


def _chained(lr: float, t: Array, args: Args) -> Any:
    return np.where(t < args["total_iters"], args["factor"], 1.0) * _exponential(lr, t, args)


_FORMULAS: dict[str, Callable[[float, Array, Args], Any]] = {
    "ConstantLR": _constant,
    "StepLR": _step,
    "MultiStepLR": _multi_step,
    "ExponentialLR": _exponential,
    "LinearLR": _linear,
    "PolynomialLR": _polynomial,
    "CosineAnnealingLR": _cosine,
    "CosineAnnealingWarmRestarts": _restarts,
    "OneCycleLR": _one_cycle,
    "CyclicLR": _cyclic,
    "LambdaLR": _lambda,
    "MultiplicativeLR": _multiplicative,
    "SequentialLR": _sequential,
    "ChainedScheduler": _chained,
}
