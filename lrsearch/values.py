"""Raw values (text from a shell, YAML values) to checked ones; ValueError says the rule."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from lrsearch.errors import suggestion


def text(raw: Any) -> str:
    if not isinstance(raw, str) or not raw.strip():
        raise ValueError(f"needs a text, got {raw!r}")
    if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in raw):
        raise ValueError(f"has a control character: {raw!r}")
    return raw


def short_name(raw: Any) -> str:
    value = text(str(raw) if isinstance(raw, int) and not isinstance(raw, bool) else raw)
    if len(value) > 128:
        raise ValueError(f"is {len(value)} characters long; keep it under 129")
    if any("\ud800" <= c <= "\udfff" for c in value):  # bytes of a shell that are no UTF-8
        raise ValueError(f"has a character that no database can keep: {value!r}")
    if value.startswith("-"):
        raise ValueError(f"must not start with -, as options do, got {value!r}")
    return value


def integer(low: int, high: int) -> Callable[[Any], int]:
    def parse(raw: Any) -> int:
        try:
            value = int(raw) if isinstance(raw, str) else operator.index(raw)
        except (TypeError, ValueError):
            value = None
        if isinstance(raw, bool) or value is None:
            raise ValueError(f"needs a whole number, got {raw!r}")
        if not low <= value <= high:
            raise ValueError(f"must be from {low:,} to {high:,}, got {value!s:.60}")
        return value

    return parse


MOST_SEEDS = 10_000
"""Of a confirmation."""


def seeds(raw: Any) -> int:
    count = integer(0, MOST_SEEDS)(raw)
    if count == 1:
        raise ValueError("must be at least 2 to compare anything, or 0 for none, got 1")
    return count


def number(raw: Any) -> float:
    try:
        value = float(raw) if not isinstance(raw, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"needs a number, got {raw!r:.60}")
    return value


def gpu_share(raw: Any) -> float:
    """A share of a GPU, or a whole number of them."""
    value = number(raw)
    if value < 0 or (value > 1 and value != int(value)):
        raise ValueError(f"needs a number from 0 to 1, or a whole one, got {raw!r}")
    return value


def flag(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    known = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if isinstance(raw, str) and raw.lower() in known:
        return known[raw.lower()]
    raise ValueError(f"needs true or false, got {raw!r}")


def one_of(*names: str) -> Callable[[Any], str]:
    def parse(raw: Any) -> str:
        raw = "none" if raw is None and "none" in names else raw
        text = str(raw).lower()
        if text not in names:
            raise ValueError(f"{raw!r}{suggestion(text, names)} — one of {', '.join(names)}")
        return text

    return parse


def duration(raw: Any) -> float:
    """Seconds, or text such as ``90s``, ``15m``, ``2h``."""
    unit = 1.0
    text = raw
    if isinstance(raw, str) and raw[-1:] in ("s", "m", "h"):
        unit, text = {"s": 1.0, "m": 60.0, "h": 3600.0}[raw[-1]], raw[:-1]
    try:
        value = number(text) * unit
    except ValueError:
        value = math.inf
    if math.isinf(value):
        raise ValueError(f"needs a time such as 90s, 15m or 2h, got {raw!r:.60}")
    if value <= 0:
        raise ValueError(f"must be above 0, got {raw!r}")
    return value


def lr_range(raw: Any) -> tuple[float, float] | str:
    if isinstance(raw, str) and raw.lower() == "auto":
        return "auto"
    pair = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        raise ValueError(f"needs LOW,HIGH or auto, got {raw!r}")
    low, high = number(pair[0]), number(pair[1])
    if low <= 0:
        raise ValueError(f"low must be above 0, got {low:g}")
    if low > high:
        raise ValueError(f"low {low:g} is above high {high:g}")
    return (low, high)


def count_or_auto(*words: str) -> Callable[[Any], str]:
    def parse(raw: Any) -> str:
        raw = "off" if raw is False and "off" in words else raw  # YAML reads a bare off as False
        text = str(raw).lower()
        if text in words:
            return text
        if not text.isdecimal() or not 1 <= int(text) <= 4096:
            raise ValueError(f"needs {', '.join(words)} or a number from 1 to 4096, got {raw!r}")
        return str(int(text))

    return parse


def families(raw: Any) -> dict[str, dict[str, Any]]:
    """``A,B``, a list of families, or a mapping family -> {parameter: range}."""
    from lrsearch.schedules.family import FAMILIES, unknown_family

    if isinstance(raw, str):
        raw = [part.strip() for part in raw.split(",") if part.strip()]
    if isinstance(raw, (list, tuple)):
        if any(isinstance(name, Mapping) for name in raw):
            raise ValueError(
                "a list holds names only; to narrow a family, write a mapping for all: "
                f"{{StepLR: {{gamma: [0.1, 0.5]}}, OneCycleLR: null}}, got {raw!r:.60}"
            )
        raw = {str(name): None for name in raw}
    if not isinstance(raw, Mapping):
        raise ValueError(
            f"needs A,B,..., a list, or family: {{parameter: range}}, got {raw!r:.60}"
        )
    if not raw:
        raise ValueError("needs at least one family name (lrsearch schedules lists all)")
    mistakes: list[tuple[str, str]] = []
    by_lower = {name.lower(): name for name in FAMILIES}
    checked: dict[str, dict[str, Any]] = {}
    for family, ranges in raw.items():
        known = by_lower.get(str(family).lower())
        if known is None:
            mistakes.append((str(family), str(unknown_family(family))))
            continue
        if known in checked and (ranges or checked[known]):
            mistakes.append((str(family), f"{known} stands there twice; keep one"))
            continue
        if ranges is not None and not isinstance(ranges, Mapping):
            mistakes.append((known, f"needs parameter: range, got {ranges!r}"))
            continue
        checked[known] = {}
        for parameter, given in (ranges or {}).items():
            problem = _range_problem(given)
            if problem:
                mistakes.append((f"{family}.{parameter}", problem))
            checked[known][str(parameter)] = given
    if mistakes:
        raise MistakesError(mistakes)
    return checked


def overrides(families: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Any]:
    """The ranges of families as a ``Space`` takes them: ``{"StepLR.gamma": [0.1, 0.5]}``."""
    return {
        f"{family}.{parameter}": given
        for family, ranges in (families or {}).items()
        for parameter, given in ranges.items()
    }


def baselines(raw: Any) -> bool | dict[str, dict[str, Any]]:
    """True, false, or a mapping name -> recipe (:mod:`lrsearch.schedules.recipes`)."""
    if not isinstance(raw, Mapping):
        try:
            return flag(raw)
        except ValueError:
            raise ValueError(
                f"needs true, false, or name: {{family: ..., lr: ..., ...}}, got {raw!r:.60}"
            ) from None
    from lrsearch.schedules.recipes import checked_recipe

    mistakes: list[tuple[str, str]] = []
    checked: dict[str, dict[str, Any]] = {}
    for name, given in raw.items():
        try:
            short_name(name)
            if str(name).startswith("#"):
                raise ValueError(f"must not start with #, got {name!r}")
        except ValueError as error:
            mistakes.append((str(name), f"a baseline's name {error}"))
            continue
        checked[str(name)], found = checked_recipe(str(name), given)
        mistakes += [(f"{name}.{path}" if path else str(name), text) for path, text in found]
    if mistakes:
        raise MistakesError(mistakes)
    if not checked:
        raise ValueError("has no recipe; write false for none")
    return checked


def _range_problem(given: Any) -> str | None:
    """What is wrong with a parameter's range: a value, [low, high], or a list of choices.

    Two numbers to choose from are {choices: [a, b]}.
    """
    from lrsearch.schedules.ranges import as_number

    named = isinstance(given, Mapping) and set(given) == {"choices"}
    values = given["choices"] if named else given
    values = values if isinstance(values, (list, tuple)) else [values]
    if not values:
        return "is empty: give a value, [low, high], or a list of choices"
    for value in values:
        if not isinstance(value, (int, float, str, bool)):
            return (
                "needs a value, [low, high], a list of choices, or {choices: [a, b]}, "
                f"got {value!r:.60}"
            )
        if not isinstance(value, (str, bool)) and as_number(value) is None:
            return f"needs finite numbers, got {value!r:.60}"
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    if len(values) == 2 and numbers and values[0] > values[1] and not named:
        return f"low {values[0]:g} is above high {values[1]:g}"
    return None


def optimizer(raw: Any) -> dict[str, Any]:
    """A name, or a mapping of the optimizer's own arguments with ``name``; none is the task's."""
    if isinstance(raw, str):
        raw = {"name": raw}
    nested = isinstance(raw, Mapping) and any(isinstance(v, Mapping) for v in raw.values())
    if not isinstance(raw, Mapping) or nested or not isinstance(raw.get("name", ""), str):
        raise ValueError(f"needs a name, or {{name: sgd, momentum: 0.9}}, got {raw!r:.60}")
    if "lr" in raw:
        raise ValueError("lr is what is searched: give its range as the setting lr")
    for key, value in raw.items():
        plain = (int, float, str, bool, list, tuple, type(None))
        if not isinstance(key, str) or not isinstance(value, plain):
            raise ValueError(f"argument {key!r} needs a plain value, got {value!r}")
    return {key: _spelled_out(value) for key, value in raw.items()}


def _spelled_out(value: Any) -> Any:
    """Text that spells a number as that number: YAML 1.1 reads ``1e-4`` as text."""
    from lrsearch.schedules.ranges import as_number

    if isinstance(value, (list, tuple)):
        return [_spelled_out(each) for each in value]
    number = as_number(value) if isinstance(value, str) else None
    return value if number is None else number


class MistakesError(ValueError):
    """Several mistakes inside one setting, each with its path below that setting."""

    def __init__(self, rows: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{path}: {text}" for path, text in rows))
        self.rows = rows


def short_task_name(target: str) -> str:
    """The name of a task: of a user's own the last part, or its file's where that is ``task``.

    Example:
        >>> [short_task_name(t) for t in ("digits", "mine.py:Rose", "a/mine.py:task", "b.c:task")]
        ['digits', 'Rose', 'mine', 'c']
    """
    place, _, last = target.rpartition(":")
    if place and last.lower() == "task":
        return re.split(r"[./\\]", place.removesuffix(".py"))[-1]
    return last
