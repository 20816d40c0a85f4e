"""Numbers and schedules as a person writes them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lrsearch.imports import MODULE_OF_A_FILE

if TYPE_CHECKING:
    from lrsearch.report.tables import TrialRow
    from lrsearch.stats import Summary

MOST_HIGHER = 10
"""Times the other loss: what is further above it is told as over 1,000% higher."""


def number(value: float | None, digits: int = 3) -> str:
    """A number with ``digits`` significant digits; tiny and huge ones as 2e-05.

    Example:
        >>> number(0.21), number(4.1e-5), number(12345.6), number(-2.5), number(None)
        ('0.21', '4.1e-05', '12,346', '−2.5', '–')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if value < 0:
        return "−" + number(-value, digits)
    if math.isinf(value):
        return "∞"
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits}g}"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def p_value(value: float | None) -> str:
    """A p with three decimals; one that would round to nothing as ``<0.001``."""
    return "–" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def loss(value: float | None) -> str:
    """A loss with four significant digits, zeros kept, so that losses line up.

    Example:
        >>> loss(0.412), loss(0.0531), loss(-2.31)
        ('0.4120', '0.05310', '−2.310')
    """
    if value is None or not math.isfinite(value):
        return number(value)
    if value < 0:
        return "−" + loss(-value)
    if value == 0 or not 1e-4 <= abs(value) < 1e4:
        return f"{value:.3e}" if value else "0"
    decimals = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def loss_mean(found: Summary) -> str:
    """A loss over seeds: mean ± standard deviation, which one failed seed can carry away."""
    if not math.isfinite(found.mean) or found.sd is None:
        return loss(found.mean)
    return f"{loss(found.mean)} ± {number(found.sd, 2)}"


def lower_by(value: float | None, relative: bool) -> str:
    """How much lower: a part as a percentage, else a plain number; two digits, a real minus.

    Example:
        >>> lower_by(0.0123, True), lower_by(-0.42, True), lower_by(-0.042, False)
        ('1.2%', '−42%', '−0.042')
        >>> lower_by(0.9999, True), lower_by(1.0, True), lower_by(-238.4, True)
        ('99.9%', '99.9%', 'under −1,000%')
    """
    if value is None:
        return "–"
    if relative and value < -MOST_HIGHER:
        return f"under −{100 * MOST_HIGHER:,}%"
    if relative and value > 0.99:  # nearly all is not all, also where it is rounded to 1
        return percent(min(value, 0.9999), 1)
    text = number(abs(100 * value if relative else value), 2) + ("%" if relative else "")
    return f"−{text}" if value < 0 else text


def higher_by(value: float | None, relative: bool) -> str:
    """How much higher: what :func:`lower_by` says of the other side, without the minus.

    Example:
        >>> higher_by(0.993, True), higher_by(-0.05, True), higher_by(238.4, True)
        ('99%', '−5%', 'over 1,000%')
    """
    if value is None:
        return "–"
    text = lower_by(-value, relative)
    if value < 0:
        return f"−{text}"
    return text.replace("under −", "over ").replace("−", "")


def metric(value: float, name: str) -> str:
    """A metric; accuracies in percent.

    Example:
        >>> metric(0.987, "accuracy"), metric(-0.25, "mae")
        ('98.7%', '−0.25')
    """
    return percent(value, 1) if name == "accuracy" else number(value, 4)


def metric_mean(found: Summary, name: str) -> str:
    """A metric over seeds: mean ± standard deviation; accuracies in percent."""
    if name != "accuracy":
        mean = number(found.mean, 4)
        return mean if found.sd is None else f"{mean} ± {number(found.sd, 2)}"
    mean = f"{100 * found.mean:.1f}"
    return f"{mean}%" if found.sd is None else f"{mean} ± {100 * found.sd:.1f}%"


def percent(part: float | None, digits: int = 0, sign: bool = False) -> str:
    """A part of one as a percentage, with a real minus sign.

    Example:
        >>> percent(0.514), percent(-0.0589, 1, sign=True)
        ('51%', '−5.9%')
        >>> percent(0.99999, 1), percent(-1e-6, 1, sign=True)
        ('99.9%', '±0.0%')
    """
    if part is None or not math.isfinite(part):
        return "–"
    text = f"{abs(part) * 100:.{digits}f}%"
    if abs(part) < 1 and text.startswith("100"):  # nearly all is not all
        text = f"{100 - 10.0**-digits:.{digits}f}%"
    nothing = not text.strip("0.%")
    if part < 0 and not nothing:
        return f"−{text}"
    return text if not sign else f"±{text}" if nothing else f"+{text}"


def against(value: float, other: float) -> str:
    """How far a loss lies from another: in percent, or as a difference where one is not above 0.

    Example:
        >>> against(0.3, 0.4), against(-4.812, -4.771), against(0.2, -0.1)
        ('−25.0%', '−0.041', '+0.3')
        >>> against(2e5, 0.1)
        'over +1,000%'
    """
    if value > 0 and other > 0:
        return change(value / other - 1)
    return difference(value - other)


def change(part: float) -> str:
    """A change as a part of what it was, with its sign.

    Example:
        >>> change(-0.25), change(12.5)
        ('−25.0%', 'over +1,000%')
    """
    much = part > MOST_HIGHER
    return f"over +{100 * MOST_HIGHER:,}%" if much else percent(part, 1, sign=True)


def difference(value: float) -> str:
    """A difference of two losses, with its sign.

    Example:
        >>> difference(0.3), difference(-0.041), difference(0.0)
        ('+0.3', '−0.041', '±0')
    """
    return ("±" if value == 0 else "+" if value > 0 else "") + number(value)


def below(value: float, other: float) -> str:
    """How much lower a loss is than another, as :func:`against` without the sign."""
    return against(value, other).lstrip("−+±")


def count(n: int, singular: str, plural: str | None = None) -> str:
    """``1 trial``, ``1,200 trials``."""
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def duration(seconds: float) -> str:
    """Seconds as ``43 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def listing(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    parts = list(parts)
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def value(raw: Any) -> str:
    """Any parameter's value, short."""
    if isinstance(raw, bool) or raw is None:
        return str(raw).lower()
    if isinstance(raw, float):
        near_one = next((d for d in range(3, 7) if raw == 1 or f"{raw:.{d}g}" != "1"), 6)
        return number(raw, near_one)
    if isinstance(raw, int):
        return f"{raw}"
    if isinstance(raw, Mapping):
        return " ".join(f"{k} {value(v)}" for k, v in raw.items())
    if isinstance(raw, Sequence) and not isinstance(raw, str):
        return f"[{', '.join(map(value, raw))}]"
    return str(raw)


def schedule(family: str, lr: float) -> str:
    """A schedule in a sentence of Markdown.

    Example:
        >>> schedule("StepLR", 0.1)
        '**StepLR** at a peak learning rate of **0.1**'
    """
    return f"**{family}** at a peak learning rate of **{number(lr)}**"


def settings(trial: TrialRow) -> str:
    """What was free in a trial beside the rate: ``T_max 19, eta_min 0.0004``."""
    own = trial.schedule.get("params") or trial.own_params
    told = [(name, raw) for name, raw in own.items() if _told(trial, name)]
    return ", ".join(f"{name} {value(raw)}" for name, raw in (*told, *trial.others.items()))


def _told(trial: TrialRow, name: str) -> bool:
    """Whether a parameter says something, and is no constant of its family."""
    from lrsearch.schedules import FAMILIES

    family = FAMILIES.get(trial.family)
    argument = None if family is None else family.args.get(name)
    return argument is None or argument.shown


def optimizer(name: str) -> str:
    """An optimizer's name; a class of a task's file by that of the file, not of its module.

    Example:
        >>> optimizer("SGD"), optimizer("lrsearch_task_train_my:Sign")
        ('SGD', 'train_my:Sign')
    """
    return name.removeprefix(MODULE_OF_A_FILE)


def arguments(given: Mapping[str, Any]) -> str:
    """Arguments of an optimizer; a flag that is set by its name alone.

    Example:
        >>> arguments({"momentum": 0.9, "nesterov": True})
        'momentum 0.9, nesterov'
    """
    return ", ".join(k if value is True else f"{k} {value}" for k, value in given.items())


def baselines(names: Sequence[str]) -> str:
    """Baselines in a sentence, where a bare name could be that of a schedule the search found.

    Example:
        >>> baselines(["StepLR"]), baselines(["StepLR", "OneCycleLR"])
        ('the baseline StepLR', 'the baselines StepLR and OneCycleLR')
    """
    return f"the baseline{'' if len(names) == 1 else 's'} {listing(names)}"


def markdown(line: str) -> str:
    """A line of ours for a reader of all of Markdown and HTML: only its bold and code remain so.

    Example:
        >>> print(markdown("**a** is better than my_<b>, see `x | y`"))
        **a** is better than my\\_\\<b\\>, see `x | y`
    """
    parts = re.split(r"(`[^`]+`|\*\*)", line)
    parts[::2] = [re.sub(r"([\\`*_\[\]<>|~$&])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def code(text: str) -> str:
    """Text as Markdown code, whatever is in it."""
    return f"`{' '.join(text.split()).replace('`', '’')}`"
