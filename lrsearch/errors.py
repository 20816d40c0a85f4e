"""What a user can fix: one line with the rule, the value and the next step."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LrsearchError(Exception):
    """Something failed for a reason the user can act on; ends with exit code 1."""

    exit_code = 1


class UsageError(LrsearchError):
    """What the user typed or wrote is wrong; ends with exit code 2."""

    exit_code = 2


class ConfigError(UsageError):
    """One or more mistakes in a configuration, collected and raised together.

    Args:
        mistakes: One line each.
        source: The file they are in, if any.
    """

    def __init__(self, mistakes: Iterable[str], source: str | None = None) -> None:
        self.mistakes = list(mistakes)
        if len(self.mistakes) == 1:
            text = f"{source}: {self.mistakes[0]}" if source else self.mistakes[0]
        else:
            head = f"{source or 'configuration'}: {len(self.mistakes)} mistakes"
            text = "\n".join([head, *(f"  {mistake}" for mistake in self.mistakes)])
        super().__init__(text)


def printable(text: str) -> str:
    """``text`` with control characters spelled out: no name in a database steers a terminal.

    Example:
        >>> print(printable("red \\x1b[31m"))
        red \\x1b[31m
    """
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def did_you_mean(name: str, valid: Iterable[str]) -> str | None:
    """The valid name nearest to ``name``, or that it is a part of; None if there is none.

    Case does not count, nor does the "LR" that torch's schedulers end with.

    Example:
        >>> did_you_mean("cosine", ["StepLR", "CosineAnnealingLR"])
        'CosineAnnealingLR'
    """
    by_lower = {str(v).lower(): str(v) for v in valid}
    typed = str(name).lower()
    near = difflib.get_close_matches(typed, list(by_lower), n=1, cutoff=0.6)
    part = typed.removesuffix("lr")
    near = near or [each for each in by_lower if len(part) > 2 and part in each]
    return by_lower[near[0]] if near else None


def suggestion(name: str, valid: Iterable[str]) -> str:
    """What to say behind an unknown name: :func:`did_you_mean`, or "" where nothing is near.

    Example:
        >>> suggestion("medain", ["median", "none"]), suggestion("x", ["median"])
        (' — did you mean median?', '')
    """
    near = did_you_mean(name, valid)
    return f" — did you mean {near}?" if near else ""


def unknown(kind: str, name: str, valid: Iterable[str], hint: str = "") -> UsageError:
    """The error for a name that is in no registry: nearest match, or the valid names.

    Example:
        >>> str(unknown("pruner", "medain", ["median", "none"]))
        "unknown pruner 'medain' — did you mean median? (valid: median, none)"
    """
    names = list(valid)
    hint = hint or f"valid: {', '.join(names)}"
    return UsageError(f"unknown {kind} {name!r}{suggestion(name, names)} ({hint})")


def first_line(error: BaseException) -> str:
    """The first line of what an error says that is not empty; its kind where it says nothing.

    Example:
        >>> first_line(ValueError("\\n no.\\nreally")), first_line(KeyError())
        ('no.', 'KeyError')
    """
    lines = filter(None, map(str.strip, str(error).splitlines()))
    return next(lines, type(error).__name__)


def brief(error: BaseException) -> str:
    """``ValueError: first line of it``, without a full stop; the name alone where it is empty.

    Example:
        >>> brief(KeyError()), brief(ValueError("no.\\nreally"))
        ('KeyError', 'ValueError: no')
    """
    text = next(iter(str(error).splitlines()), "").rstrip(". ")
    return ": ".join(filter(None, (type(error).__name__, text)))[:300]
