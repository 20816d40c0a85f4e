"""What is searched for one parameter: a range or a choice, and a user's own in its place."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

from lrsearch.errors import UsageError, suggestion

When: TypeAlias = tuple[str, tuple[Any, ...]]
"""(name, values): the parameter exists only where parameter ``name`` has one of ``values``."""

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


class Trial(Protocol):
    """The part of an Optuna trial that a space needs."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int: ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included.

    Args:
        low: Smallest value searched.
        high: Largest value searched.
        log: Search its logarithm (needs ``low > 0``).
        integer: Whole numbers only.
        limits: What a user may widen it to; ``low`` of a log range is open at 0.
        zero_below: Values below it stand for 0, so that a log range may hold "none at all".
        when: Only where another parameter has one of these values.
        unit: For people: ``"epochs"``, ``"of lr"``, or nothing.

    Raises:
        UsageError: ``low`` is above ``high``, or is not above 0 where ``log``.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False
    limits: tuple[float, float] = (0.0, math.inf)
    zero_below: float = 0.0
    when: When | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise UsageError(
                f"a range needs low at most high, got low {self.low}, high {self.high}"
            )
        if self.log and not self.low > 0:
            raise UsageError(f"a range on a log scale needs low above 0, got {self.low}")

    def suggest(self, trial: Trial, name: str) -> float:
        """Ask ``trial`` for a value under ``name``; 0 where it is below ``zero_below``."""
        if self.integer:
            return trial.suggest_int(name, int(self.low), int(self.high))
        value = trial.suggest_float(name, self.low, self.high, log=self.log)
        return 0.0 if value < self.zero_below else value

    def clip(self, value: float) -> float:
        """The searched value nearest to ``value``."""
        near = min(max(value, self.low), self.high)
        return int(near) if self.integer else float(near)

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        zero = "0 or " if self.low < self.zero_below < self.high else ""
        low = self.zero_below if zero else self.low
        if self.high < self.zero_below:
            return f"0{unit}"
        if low == self.high:
            return f"{low:.4g}{unit}"
        return f"{zero}{low:.4g} to {self.high:.4g}{unit}{', log' if self.log else ''}"


@dataclass(frozen=True)
class Choice:
    """One of a few values.

    Args:
        options: The values, in order.
        when: Only where another parameter has one of these values.

    Raises:
        UsageError: There is no option.
    """

    options: tuple[Any, ...]
    when: When | None = None

    def __post_init__(self) -> None:
        if not self.options:
            raise UsageError(f"a choice needs at least one option, got {self.options!r}")

    def suggest(self, trial: Trial, name: str) -> Any:
        """Ask ``trial`` for one of the options under ``name``."""
        return trial.suggest_categorical(name, self.options)

    def clip(self, value: Any) -> Any:
        """``value`` where it is an option, else the first option."""
        return value if value in self.options else self.options[0]

    def __str__(self) -> str:
        return ", ".join(str(option) for option in self.options)


Dim: TypeAlias = Range | Choice


def epochs_range(budget: int, low: float, high: float, when: When | None = None) -> Range:
    """Whole epochs from ``low * budget`` to ``high * budget``, rounded, at least 1.

    Args:
        budget: Epochs of a full trial.
        low: Smallest share of the budget, 0 to 1.
        high: Largest share.
        when: Only where another parameter has one of these values.

    Example:
        >>> str(epochs_range(30, 1 / 6, 1 / 2))
        '5 to 15 epochs'
    """
    first = max(1, math.floor(low * budget + 0.5))
    last = max(first, math.floor(high * budget + 0.5))
    return Range(first, last, integer=True, limits=(1, budget), when=when, unit="epochs")


def as_number(value: Any) -> float | int | None:
    """``value`` as a plain int or float; None where it is no finite number.

    YAML 1.1 reads ``1e-3`` as a string, so a string that spells a number is one. A bool is none.
    """
    if type(value) in (int, float):  # nearly always; the questions below take ten times as long
        return value if abs(value) < (2**63 if type(value) is int else math.inf) else None
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    if isinstance(value, numbers.Integral):
        return int(value) if abs(int(value)) < 2**63 else None
    return float(value) if math.isfinite(value) else None


def applies(when: When | None, values: Mapping[str, Any]) -> bool:
    """Whether a parameter with this ``when`` exists beside ``values``."""
    return when is None or values.get(when[0]) in when[1]


def override(name: str, dim: Dim, given: Any, mistake: Callable[[str], None]) -> Dim:
    """``dim`` with a user's own range, fixed value or choices in its place.

    Args:
        name: Full name, for messages.
        dim: The default.
        given: A number or word (fixed); two numbers or ``{"low": .., "high": ..}`` (a range);
            other lists or ``{"choices": [..]}`` (a choice). YAML has no tuples, so a list of two
            numbers is a range too.
        mistake: Called with one line for each mistake; ``dim`` is then returned unchanged.
    """
    choices, low, high = _read(given)
    if isinstance(dim, Choice):
        return _override_choice(name, dim, given, choices, mistake)
    if choices is not None:
        values = [_value(name, dim, choice, mistake) for choice in choices]
        good = tuple(value for value in values if value is not None)
        if not choices:
            mistake(f"{name}: the list of choices is empty; give at least one value")
        return Choice(good, dim.when) if good and len(good) == len(choices) else dim
    if low is None and high is None:
        mistake(f"{name}: expected a number, [low, high] or {{choices: [...]}}, got {given!r}")
        return dim
    first = _value(name, dim, dim.low if low is None else low, mistake)
    last = first
    if high is not low:
        last = _value(name, dim, dim.high if high is None else high, mistake)
    if first is None or last is None:
        return dim
    if first > last:
        mistake(f"{name}: low {first:g} is above high {last:g}; swap them")
        return dim
    log = dim.log
    if isinstance(given, Mapping) and "log" in given:
        log = given["log"]
        if log not in (True, False) or (log and dim.integer):
            rule = "false for whole numbers" if dim.integer else "true or false"
            mistake(f"{name}: log must be {rule}, got {log!r:.60}")
            return dim
    if first == last:
        return replace(dim, low=first, high=last, log=False, zero_below=0.0)
    if log and first <= 0:
        if not dim.zero_below or last <= dim.zero_below:
            mistake(f"{name}: low {first:g} must be above 0, it is searched on a log scale")
            return dim
        first = min(dim.low, dim.zero_below / 10)
    return replace(dim, low=first, high=last, log=log)


def _read(given: Any) -> tuple[list[Any] | None, Any, Any]:
    """(choices, low, high) of what a user wrote."""
    if isinstance(given, Mapping):
        if set(given) == {"choices"} and isinstance(given["choices"], (list, tuple)):
            return list(given["choices"]), None, None
        if set(given) <= {"low", "high", "log"}:
            return None, given.get("low"), given.get("high")
        return None, None, None
    if isinstance(given, (list, tuple)):
        if len(given) == 2 and all(as_number(value) is not None for value in given):
            return None, given[0], given[1]
        return list(given), None, None
    return None, given, given


def _value(name: str, dim: Range, given: Any, mistake: Callable[[str], None]) -> float | None:
    """``given`` as a number allowed in ``dim``, or None after saying why not."""
    value = as_number(given)
    low, high = dim.limits
    if value is None:
        mistake(f"{name}: expected a finite number, got {given!r}")
        return None
    if dim.integer:
        if value != int(value):
            unit = f" {dim.unit}" if dim.unit else " numbers"
            mistake(f"{name}: whole{unit} only, got {value:g}")
            return None
        value = int(value)
    open_low = dim.log and not dim.zero_below
    if value < low or value > high or (open_low and value <= low):
        upper = "" if math.isinf(high) else f" and at most {high:g}"
        rule = f"{'above' if open_low else 'at least'} {low:g}{upper}"
        unit = f" {dim.unit}" if dim.unit else ""
        mistake(f"{name}: must be {rule}{unit}, got {value:g}")
        return None
    return value


def _override_choice(
    name: str, dim: Choice, given: Any, choices: list[Any] | None, mistake: Callable[[str], None]
) -> Choice:
    wanted = choices if choices is not None else [given]
    good = True
    for value in wanted:
        if not any(type(value) is type(option) and value == option for option in dim.options):
            question = suggestion(str(value), [str(option) for option in dim.options])
            mistake(f"{name}: unknown choice {value!r}{question} (valid: {dim})")
            good = False
    if not wanted:
        mistake(f"{name}: the list of choices is empty; give at least one of {dim}")
        good = False
    return Choice(tuple(dict.fromkeys(wanted)), dim.when) if good else dim
