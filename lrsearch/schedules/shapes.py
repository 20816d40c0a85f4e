"""Curves that torch has no class for, as callable objects.

Each is a factor on the peak rate at scheduler step ``t = 0, 1, ...``. They are objects, not
functions, because ``LambdaLR.state_dict`` drops functions and keeps the attributes of objects.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass


@dataclass
class InverseSqrt:
    r"""``1 / sqrt(1 + t / timescale)``, the decay of the first Transformer (Vaswani et al. 2017).

    Args:
        timescale: Steps after which the rate has fallen to ``1 / sqrt(2)``, above 0.

    Example:
        >>> InverseSqrt(timescale=10)(30)
        0.5
    """

    timescale: float

    def __call__(self, t: int) -> float:
        return 1.0 / math.sqrt(1.0 + t / self.timescale)


@dataclass
class Trapezoid:
    """1, then a straight line to 0 over the last ``decay`` of ``total`` steps.

    With a warmup before it this is warmup-stable-decay (Hu et al. 2024, MiniCPM).

    Args:
        total: Step at which the factor reaches 0.
        decay: Length of the line to 0, at most ``total``.

    Example:
        >>> [Trapezoid(total=4, decay=2)(t) for t in range(4)]
        [1.0, 1.0, 1.0, 0.5]
    """

    total: int
    decay: int

    def __call__(self, t: int) -> float:
        return min(1.0, max(0.0, (self.total - t) / self.decay))


@dataclass
class Rex:
    """``(1 - z) / (1/2 + (1 - z) / 2)`` with ``z = t / total`` (Chen et al. 2021, REX).

    Args:
        total: Step at which the factor reaches 0.

    Example:
        >>> Rex(total=2)(1)
        0.6666666666666666
    """

    total: int

    def __call__(self, t: int) -> float:
        left = max(0.0, 1.0 - t / self.total)
        return left / (0.5 + 0.5 * left)


@dataclass
class Cosine:
    """``CosineAnnealingLR`` as a factor, for groups with floors of their own: torch has one.

    Args:
        period: Steps from 1 to the floor (``T_max``).
        floor: ``eta_min / lr``.
    """

    period: int
    floor: float

    def __call__(self, t: int) -> float:
        return self.floor + (1.0 - self.floor) * (1.0 + math.cos(math.pi * t / self.period)) / 2.0


@dataclass
class Restarts:
    """``CosineAnnealingWarmRestarts`` as a factor, for groups whose floors differ.

    Args:
        first: Steps of the first cycle (``T_0``).
        growth: How much longer each cycle is than the one before (``T_mult``).
        floor: ``eta_min / lr``.
    """

    first: int
    growth: int
    floor: float

    def __call__(self, t: int) -> float:
        length = self.first
        if self.growth == 1:
            t %= length
        while t >= length:
            t -= length
            length *= self.growth
        return Cosine(length, self.floor)(t)


@dataclass
class Ratio:
    """The same factor at every step after ``start``, for ``MultiplicativeLR``.

    Args:
        factor: What each step multiplies the rate by.
        start: Steps left alone first (the warmup).
    """

    factor: float
    start: int = 0

    def __call__(self, t: int) -> float:
        return self.factor if t > self.start else 1.0


@dataclass
class Polyline:
    """Straight lines between points, level before the first and after the last.

    Args:
        times: Epochs, rising.
        values: Factor at each of them.
        steps_per_epoch: Scheduler steps per epoch.

    Example:
        >>> Polyline([0, 10], [1.0, 0.0], steps_per_epoch=1)(5)
        0.5
    """

    times: list[float]
    values: list[float]
    steps_per_epoch: int

    def __call__(self, t: int) -> float:
        now = t / self.steps_per_epoch
        right = bisect.bisect_right(self.times, now)
        if right == 0 or right == len(self.times):
            return self.values[max(0, right - 1)]
        t0, t1 = self.times[right - 1], self.times[right]
        v0, v1 = self.values[right - 1], self.values[right]
        return v0 + (v1 - v0) * ((now - t0) / (t1 - t0))
