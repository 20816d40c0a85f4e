"""Dropout of stacked trials that stand at different epochs: each draws what it would draw alone.

What a trial drops depends on the seed, the epoch and the step. Trials of one epoch therefore share
what they drop, and each epoch has a generator. torch stacks dropout with one generator for all;
so it is drawn here, in place of the functions that ``torch.nn``'s modules and functions call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Noise = Callable[[Tensor, float, bool], Tensor]
"""(what is dropped from, share that is dropped, whole channels?) -> 0 or 1 / (1 - share) each."""


@dataclass(frozen=True)
class _Draw:
    """One dropout of a forward pass.

    Args:
        lies: Shape of what is drawn, as it lies in memory.
        dims: Where each dimension is in it.
        share: That is dropped.
        dtype: Of the noise.
    """

    lies: tuple[int, ...]
    dims: tuple[int, ...]
    share: float
    dtype: torch.dtype


class StackedDropout:
    """What stacked trials drop.

    The first forward pass for inputs of a shape draws one after the other; what it has drawn is
    known then, and the next ones draw all before they begin. To give each trial its own inside of
    vmap takes ten times as long as outside.

    Args:
        orders: Samples of a batch -> for each dropout of a forward pass, in their order, the
            dimensions of its input as they lie in memory where a trial trains alone: torch draws
            in that order.
    """

    def __init__(self, orders: Mapping[int, Sequence[Sequence[int]]]) -> None:
        self._orders = orders
        self._now: Sequence[Sequence[int]] = ()
        self._known: dict[tuple[int, ...], list[_Draw]] = {}
        self._generators: Sequence[torch.Generator] = ()
        self._which = torch.empty(0)
        self._mine = torch.empty(0)
        self._ready: tuple[Tensor, ...] = ()
        self._seen: list[_Draw] = []

    def start(self, generators: Sequence[torch.Generator], which: Tensor) -> None:
        """Begin an epoch of each trial.

        Args:
            generators: One for each epoch, on the device.
            which: The generator of each trial, (n,) int64, on the device.
        """
        self._generators, self._which = generators, which

    def noise(self, shape: tuple[int, ...]) -> list[Tensor]:
        """What a forward pass for inputs of this shape needs to know, each (n, ...).

        First the place of each trial's generator; then, where it is known, what it drops.
        """
        which = self._which
        drawn = (self._drawn(draw, which.device) for draw in self._known.get(shape, ()))
        return [which, *(each.index_select(0, which) for each in drawn)]

    @contextmanager
    def drawing(self, shape: tuple[int, ...]) -> Iterator[None]:
        """Within it dropout is drawn here."""
        self._now = self._orders[shape[0]]
        with _in_place_of_torch(self._noise):
            yield
        self._known[shape] = self._seen

    def begin(self, mine: Tensor, *ready: Tensor) -> None:
        """Begin the forward pass, inside of vmap, with what :meth:`noise` gives of a trial."""
        self._mine, self._ready, self._seen = mine, ready, []

    def _noise(self, x: Tensor, share: float, channels: bool) -> Tensor:
        order = self._now[len(self._seen)]
        shape = _shape(x, channels)
        lies = tuple(shape[i] for i in order)
        dims = tuple(order.index(i) for i in range(len(order)))
        self._seen.append(draw := _Draw(lies, dims, share, x.dtype))
        if self._ready:
            return self._ready[len(self._seen) - 1]
        return self._drawn(draw, x.device)[self._mine.view(1)].squeeze(0)

    def _drawn(self, draw: _Draw, device: torch.device) -> Tensor:
        """A row for each generator."""
        keep = 1 - draw.share
        noise = torch.empty(len(self._generators), *draw.lies, dtype=draw.dtype, device=device)
        for each, generator in zip(noise.unbind(0), self._generators, strict=True):
            each.bernoulli_(keep, generator=generator)
        return noise.div_(keep).permute(0, *(1 + i for i in draw.dims))


@contextmanager
def orders_seen() -> Iterator[list[list[int]]]:
    """The ``orders`` of the dropouts within, of a trial alone."""
    orders: list[list[int]] = []

    def noise(x: Tensor, share: float, channels: bool) -> Tensor:
        like = x.new_empty(_shape(x, channels)) if channels else torch.empty_like(x)
        strides = like.stride()
        orders.append(sorted(range(x.dim()), key=lambda i: -strides[i]))
        return torch.ones_like(x)

    with _in_place_of_torch(noise):
        yield orders


def _shape(x: Tensor, channels: bool) -> list[int]:
    """Of what is drawn for x; of whole channels one number each, as torch draws it."""
    return [*x.shape[:2], *(1,) * (x.dim() - 2)] if channels else [*x.shape]


@contextmanager
def _in_place_of_torch(noise: Noise) -> Iterator[None]:
    """Let the functions of ``torch.nn.functional`` drop by ``noise``."""
    own = {name: vars(F)[name] for name in ("_VF", "scaled_dot_product_attention")}
    functions, attention = own.values()
    ours = _Functions(functions, noise), partial(_attention, noise, attention)
    vars(F).update(zip(own, ours, strict=True))
    try:
        yield
    finally:
        vars(F).update(own)


class _Functions:
    """torch's functions, of which those that drop do so by ``noise``."""

    def __init__(self, own: Any, noise: Noise) -> None:
        self._own = own
        self._noise = noise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def dropout(self, x: Tensor, share: float, train: bool) -> Tensor:
        return self._dropped(x, share, train, False)

    def feature_dropout(self, x: Tensor, share: float, train: bool) -> Tensor:
        return self._dropped(x, share, train, True)

    def dropout_(self, x: Tensor, share: float, train: bool) -> Tensor:
        return self._dropped(x, share, train, False, x.mul_)

    def feature_dropout_(self, x: Tensor, share: float, train: bool) -> Tensor:
        return self._dropped(x, share, train, True, x.mul_)

    def _dropped(
        self,
        x: Tensor,
        share: float,
        train: bool,
        channels: bool,
        times: Callable[[Any], Tensor] | None = None,
    ) -> Tensor:
        if not train or share == 0 or not x.numel():
            return x
        return (times or x.mul)(0.0 if share == 1 else self._noise(x, share, channels))


def _attention(
    noise: Noise,
    own: Callable[..., Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **more: Any,
) -> Tensor:
    """``scaled_dot_product_attention``; with dropout as torch computes it on a CPU."""
    if not 0 < dropout_p < 1 or more.get("enable_gqa"):
        given = {"attn_mask": attn_mask, "dropout_p": dropout_p, "is_causal": is_causal}
        return own(query, key, value, scale=scale, **given, **more)
    factor = math.sqrt(1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    scores = (query * factor) @ (key * factor).transpose(-2, -1)
    if is_causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    elif attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    nothing = scores.isneginf().all(-1, keepdim=True)  # who sees nothing gets zeros
    weights = scores.masked_fill(nothing, 0.0).softmax(-1).masked_fill(nothing, 0.0)
    return (weights * noise(weights, dropout_p, False)) @ value
