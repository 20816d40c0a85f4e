"""Inputs of several tensors, given to a model as the numbers of their samples.

Batches, stacked trials and devices then have one tensor to handle, whatever a sample is made of.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from lrsearch.errors import LrsearchError
from lrsearch.tasks.batch import parts_of, to_device
from lrsearch.tasks.check_model import alike
from lrsearch.tasks.passes import seeded
from lrsearch.tasks.reading import KEPT_BYTES, leaves, mapped


class Inputs:
    """The inputs of all samples, by their numbers.

    Args:
        columns: Tuples, lists and dicts of tensors (n, ...).
    """

    def __init__(self, columns: Any) -> None:
        self._columns = columns
        self._there: dict[torch.device, Any] = {}
        self._inside = False

    def __deepcopy__(self, memo: Any) -> Inputs:
        return self  # of all copies of a model

    def __call__(self, numbers: Tensor) -> Any:
        """The samples with these numbers (B,), as a loader puts them together: copies."""
        device = numbers.device
        if device not in self._there:
            self._there[device] = to_device(self._columns, device)
        return mapped(self._there[device], partial(_rows, numbers))

    def read_by(self, make: Callable[[], nn.Module]) -> nn.Module:
        """The model that ``make`` makes, which also takes numbers of samples for its inputs.

        Raises:
            LrsearchError: It has hooks, which would see the numbers.
        """
        model = make()
        if model._forward_pre_hooks or model._forward_hooks:
            raise LrsearchError(f"{type(model).__name__} has hooks that see its inputs")
        model.forward = partial(self._forward, model.forward)
        return model

    @torch.no_grad()
    def serve(self, make: Callable[[], nn.Module], device: torch.device) -> bool:
        """Whether a model gives the same for numbers as for the inputs with these numbers."""
        numbers = torch.arange(2, device=device)
        for mode in (True, False):
            outputs = []
            for x in (numbers, self(numbers)):
                with seeded(0):
                    outputs.append(self.read_by(make).to(device).train(mode)(x))
            if not alike(*outputs):
                return False
        return True

    def _forward(self, forward: Callable[[Any], Any], x: Any) -> Any:
        if self._inside:  # a model may call itself
            return forward(x)
        numbers = isinstance(x, Tensor) and x.dim() == 1 and x.dtype == torch.int64
        self._inside = True
        try:
            return forward(self(x) if numbers else x)
        finally:
            self._inside = False


def _rows(numbers: Tensor, column: Tensor) -> Tensor:
    """``column[numbers]``, by the one of torch's functions that is fast inside of vmap, too."""
    flat = column.reshape(len(column), prod(column.shape[1:]))
    return torch.embedding(flat, numbers).view(*numbers.shape, *column.shape[1:])


def numbered(first: Any, second: Any) -> tuple[Inputs, Tensor, Tensor] | None:
    """Inputs of two parts of the data together, and the numbers of the samples of each.

    Args:
        first: Tuples, lists and dicts of tensors (n, ...).
        second: The same of the other part, (m, ...).

    Returns:
        None where the parts are made of other tensors, or of too many.
    """
    parts = leaves(first), leaves(second)
    if _kinds(first) != _kinds(second) or any(map(_too_large, parts)):
        return None
    joined = iter([torch.cat(pair).contiguous() for pair in zip(*parts, strict=True)])
    n, m = (len(columns[0]) for columns in parts)
    numbers = torch.arange(n + m)
    return Inputs(mapped(first, lambda _: next(joined))), numbers[:n], numbers[n:]


def _kinds(columns: Any) -> Any:
    """What two parts have in common of which a model can take either."""
    if isinstance(columns, Tensor):
        return type(columns), columns.dtype, columns.device, columns.shape[1:]
    names = list(columns) if isinstance(columns, dict) else None
    return type(columns), names, [*map(_kinds, parts_of(columns))]


def _too_large(columns: list[Tensor]) -> bool:
    """Whether a loader's batches fit where all of them may not."""
    return sum(column.nbytes for column in columns) > KEPT_BYTES
