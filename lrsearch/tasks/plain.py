"""Numbers of a task, and arguments of optimizers, as plain values that a file can hold."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from torch import Tensor

from lrsearch.errors import UsageError
from lrsearch.schedules.ranges import as_number


def own_number(given: Any) -> Any:
    """A number of numpy, or a tensor of one element, as Python's own; all else as it is."""
    one = isinstance(given, np.generic) or (isinstance(given, Tensor) and given.numel() == 1)
    return given.item() if one else given


def whole_number(what: str, given: Any) -> int:
    """A whole number from 1 up, also one of numpy (:class:`UsageError`)."""
    number = own_number(given)
    if not isinstance(number, int):
        raise UsageError(f"{what} must be a whole number, got {number!r}")
    if number < 1:
        raise UsageError(f"{what} must be at least 1, got {number}")
    return number


def plain(argument: str, given: Any) -> Any:
    """What a file can hold, with numbers as Python's own.

    Args:
        argument: ``Adam betas``, for the message.
        given: The value.

    Raises:
        UsageError: It is something else, such as a class or a function.

    Example:
        >>> plain("Adam betas", (np.float64(0.9), 0.99))
        [0.9, 0.99]
    """
    if isinstance(given, (list, tuple)):
        return [plain(argument, each) for each in given]
    given = own_number(given)
    try:
        json.dumps(given)
    except (TypeError, ValueError):
        raise UsageError(
            f"optimizer {argument} must be a number, a text, or a list or dict of them, which a "
            f"file can hold, got {given!r:.60}; a subclass of the optimizer can set anything else"
        ) from None
    return given


def checked(argument: str, default: Any, given: Any) -> Any:
    """``given`` in the type of the default: torch looks only when it takes the first step.

    Raises:
        UsageError: It is of another type.
    """
    if isinstance(default, bool) and not isinstance(given, bool):
        raise UsageError(f"optimizer {argument} must be true or false, got {given!r}")
    if type(default) in (int, float) and as_number(given) is None:
        raise UsageError(f"optimizer {argument} must be a finite number, got {given!r}")
    if isinstance(default, tuple):
        many = given if isinstance(given, list) else []
        if len(many) != len(default) or any(
            as_number(each) is None and (each is not None or usual is not None)
            for each, usual in zip(many, default, strict=True)
        ):
            usually = json.dumps(default)[1:-1]
            raise UsageError(
                f"optimizer {argument} must be {len(default)} numbers such as {usually}, "
                f"got {given!r:.60}"
            )
        return [float(each) if type(each) is int else each for each in many]
    return given
