"""What torch's scheduler arguments may be, checked before torch sees them.

torch accepts much that cannot be meant: ``step_size=2.5``, a milestone twice, ``eta_min`` above
the rate. Each argument of a family has an :class:`Arg`; all are checked at once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lrsearch.errors import suggestion
from lrsearch.schedules.ranges import When, applies, as_number

MAX_EPOCHS = 1_000_000
"""Longest budget: a schedule file from a stranger must not keep the machine busy for ever."""
MAX_POINTS = 10_000
MAX_LR = 1e6
MIN_DIVISOR = 1e-9

REQUIRED = object()
"""Default of an argument that has to be given."""
OPTIONAL = object()
"""Default of an argument that is left to torch where it is not given."""
BUDGET = object()
"""Default of a duration that fills the budget (after the warmup)."""

Kind = Literal[
    "epochs", "span", "count", "number", "rate", "choice", "flag", "milestones", "points"
]


@dataclass(frozen=True)
class Arg:
    """One argument of a family.

    Args:
        kind: ``epochs`` (whole epochs), ``span`` (epochs, fractions allowed), ``count`` (whole
            number), ``number``, ``rate`` (absolute learning rate, 0 to the peak), ``choice``,
            ``flag``, ``milestones`` (rising whole epochs), ``points`` (epoch, lr pairs).
        low: Smallest value allowed.
        high: Largest value allowed.
        above_low: ``low`` itself is not allowed.
        below_high: ``high`` itself is not allowed.
        default: A value, or REQUIRED, OPTIONAL, BUDGET.
        choices: The words of a ``choice``.
        per_epoch: A factor applied once per epoch: stepping ``k`` times per epoch takes its
            ``k``-th root.
        when: Exists only where another argument has one of these values.
        shown: Part of the one-line description.
    """

    kind: Kind = "number"
    low: float = 0.0
    high: float = math.inf
    above_low: bool = False
    below_high: bool = False
    default: Any = REQUIRED
    choices: tuple[str, ...] = ()
    per_epoch: bool = False
    when: When | None = None
    shown: bool = True

    @property
    def rule(self) -> str:
        """The rule in words: "above 0 and at most 1"."""
        low = f"{'above' if self.above_low else 'at least'} {self.low:g}"
        if math.isinf(self.high):
            return low
        return f"{low} and {'below' if self.below_high else 'at most'} {self.high:g}"


def epochs_arg(default: Any = REQUIRED, low: int = 1, **more: Any) -> Arg:
    """An argument that is a duration in whole epochs.

    Args:
        default: A value, or REQUIRED, OPTIONAL, BUDGET.
        low: Smallest number of epochs.
        **more: As for :class:`Arg`.
    """
    return Arg("epochs", low=low, high=MAX_EPOCHS, default=default, **more)


def factor_arg(default: Any = REQUIRED, **more: Any) -> Arg:
    """An argument that is a factor above 0 and at most 1.

    Args:
        default: A value, or REQUIRED, OPTIONAL, BUDGET.
        **more: As for :class:`Arg`, such as ``per_epoch=True``.
    """
    return Arg("number", low=0.0, high=1.0, above_low=True, default=default, **more)


def divisor_arg(default: Any = REQUIRED, **more: Any) -> Arg:
    """A factor that torch also divides by, so it must not vanish."""
    return Arg("number", low=MIN_DIVISOR, high=1.0, default=default, **more)


def check_args(
    family: str, args: Mapping[str, Arg], given: Mapping[str, Any], lr: float, budget: int
) -> tuple[dict[str, Any], list[str]]:
    """``given`` in torch's types with defaults filled in, and the mistakes in it.

    Args:
        family: For messages.
        args: What the family takes.
        given: What was written.
        lr: Peak rate; no absolute rate may be above it.
        budget: Epochs left after the warmup; fills BUDGET defaults.

    Returns:
        (arguments in the order of ``args``, mistakes, one line each).
    """
    mistakes: list[str] = []
    for name in given:
        if name not in args:
            question = suggestion(str(name), args)
            valid = ", ".join(args) or "none"
            mistakes.append(f"{family} has no parameter {str(name)!r}{question} (valid: {valid})")
    out: dict[str, Any] = {}
    for name, arg in args.items():
        full = f"{family}.{name}"
        if not applies(arg.when, out):
            if name in given and arg.when is not None:
                only = " or ".join(str(value) for value in arg.when[1])
                mistakes.append(f"{full} is only for {arg.when[0]} {only}; leave it out")
        elif name in given:
            value, mistake = _check(full, arg, given[name], lr)
            if mistake:
                mistakes.append(mistake)
            else:
                out[name] = value
        elif arg.default is REQUIRED:
            hint = f" ({', '.join(arg.choices)})" if arg.choices else f" ({arg.rule})"
            mistakes.append(f"{family} needs {name}{hint if arg.kind != 'points' else ''}")
        elif arg.default is BUDGET:
            out[name] = budget
        elif arg.default is not OPTIONAL:
            out[name] = arg.default
    return out, mistakes


def unknown_keys(where: str, data: Mapping[Any, Any], valid: tuple[str, ...]) -> list[str]:
    """A line for each key of a block of a file that means nothing there."""
    out = []
    for key in data:
        if key not in valid:
            hint = suggestion(str(key), valid) or f" — valid: {', '.join(valid)}"
            out.append(f"{where}.{key}: unknown key{hint}")
    return out


def _check(name: str, arg: Arg, given: Any, lr: float) -> tuple[Any, str | None]:
    """(value in torch's type, None) or (None, mistake)."""
    match arg.kind:
        case "choice":
            if isinstance(given, str) and given in arg.choices:
                return given, None
            question = suggestion(str(given), arg.choices)
            valid = ", ".join(arg.choices)
            return None, f"{name}: unknown choice {given!r}{question} (valid: {valid})"
        case "flag":
            if isinstance(given, bool):
                return given, None
            return None, f"{name}: expected true or false, got {given!r:.60}"
        case "milestones":
            return _check_milestones(name, given)
        case "points":
            return _check_points(name, given)
        case _:
            return _check_number(name, arg, given, lr)


def _check_number(name: str, arg: Arg, given: Any, lr: float) -> tuple[Any, str | None]:
    value = as_number(given)
    if value is None:
        return None, f"{name}: expected a finite number, got {given!r:.60}"
    if arg.kind in ("epochs", "count"):
        if value != int(value):
            what = "whole epochs" if arg.kind == "epochs" else "a whole number"
            near = f"{math.floor(value)} or {math.ceil(value)}"
            return None, f"{name}: must be {what}, got {value:g}; write {near}"
        value = int(value)
    else:
        value = float(value)
    if arg.kind == "rate" and value > lr:
        return None, f"{name}: {value:g} is above lr {lr:g}; a floor must be at most lr"
    too_low = value <= arg.low if arg.above_low else value < arg.low
    too_high = value >= arg.high if arg.below_high else value > arg.high
    if too_low or too_high:
        return None, f"{name}: must be {arg.rule}, got {value:g}"
    return value, None


def _check_milestones(name: str, given: Any) -> tuple[Any, str | None]:
    if not isinstance(given, (list, tuple)) or not given:
        return None, f"{name}: expected a list of epochs such as [10, 20], got {given!r:.60}"
    out: list[int] = []
    for milestone in given:
        value = as_number(milestone)
        if value is None or value != int(value):
            return None, f"{name}: must be whole epochs, got {milestone!r:.60}, which never fires"
        if not 1 <= value <= MAX_EPOCHS:
            return None, f"{name}: must be from 1 to {MAX_EPOCHS:,}, got {value:g}"
        out.append(int(value))
    twice = [value for value, count in Counter(out).items() if count > 1]
    if twice:
        shown = min(twice)
        return None, f"{name}: {shown} stands twice and would decay twice; give each epoch once"
    return sorted(out), None


def _check_points(name: str, given: Any) -> tuple[Any, str | None]:
    if not isinstance(given, (list, tuple)) or not 1 <= len(given) <= MAX_POINTS:
        return None, f"{name}: expected 1 to {MAX_POINTS:,} [epoch, lr] pairs, got {given!r:.60}"
    out: list[list[float]] = []
    for point in given:
        pair = [as_number(value) for value in point] if isinstance(point, (list, tuple)) else []
        if len(pair) != 2 or pair[0] is None or pair[1] is None:
            return None, f"{name}: expected [epoch, lr] pairs, got {point!r:.60}"
        epoch, lr = float(pair[0]), float(pair[1])
        if epoch < 0 or lr < 0:
            return None, f"{name}: epoch and lr must be at least 0, got [{epoch:g}, {lr:g}]"
        if out and epoch <= out[-1][0]:
            return None, f"{name}: epochs must rise, got {epoch:g} after {out[-1][0]:g}"
        out.append([epoch, lr])
    if max(lr for _, lr in out) == 0:
        return None, f"{name}: every lr is 0; at least one must be above 0"
    return out, None
