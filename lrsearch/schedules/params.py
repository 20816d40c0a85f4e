"""Stand-ins for an Optuna trial: values that are known, and values at random."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lrsearch.errors import UsageError, did_you_mean
from lrsearch.schedules.ranges import as_number

if TYPE_CHECKING:
    import numpy as np


class FixedParams:
    """A trial whose values are known: the schedule of a stored trial, or of a baseline.

    Args:
        params: Full Optuna parameters.
    """

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.params = dict(params)

    def _get(self, name: str) -> Any:
        if name not in self.params:
            near = did_you_mean(name, self.params)
            question = f"; did you mean {near}?" if near else ""
            raise UsageError(f"parameter {name!r} is missing{question}")
        return self.params[name]

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """The known value."""
        value = as_number(self._get(name))
        if value is None:
            raise UsageError(f"parameter {name!r} must be a number, got {self._get(name)!r}")
        return float(value)

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """The known value."""
        value = as_number(self._get(name))
        if value is None or value != int(value):
            raise UsageError(f"parameter {name!r} must be whole, got {self._get(name)!r}")
        return int(value)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """The known value."""
        return self._get(name)


class RandomParams:
    """A trial with random values, which it keeps in ``params``.

    Args:
        rng: numpy generator, or a seed.
    """

    def __init__(self, rng: np.random.Generator | int) -> None:
        import numpy as np

        self.rng = np.random.default_rng(rng)
        self.params: dict[str, Any] = {}

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Uniform, or log-uniform, in [low, high]."""
        a, b = (math.log(low), math.log(high)) if log else (low, high)
        value = a + (b - a) * self.rng.random()  # what rng.uniform does, in a third of its time
        value = math.exp(value) if log else value
        self.params[name] = min(max(value, low), high)
        return float(self.params[name])

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Uniform in low..high."""
        self.params[name] = int(self.rng.integers(low, high + 1))
        return int(self.params[name])

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of ``choices``."""
        self.params[name] = choices[int(self.rng.integers(len(choices)))]
        return self.params[name]
