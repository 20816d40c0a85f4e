"""What is random: made the same again, for each pass through data and for each model."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

_INSIDE = (
    "sampler",
    "batch_sampler",
    "collate_fn",
    "dataset",  # a Subset has one, too
    "datasets",
    "transform",
    "target_transform",
    "transforms",
)
"""Attributes under which a loader, a data set or a transform has others."""


@contextmanager
def host_kept() -> Iterator[None]:
    """Random numbers of torch's CPU, numpy and Python come back after as they were.

    So a program's own draws go on as if nothing had been.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def set_host_seed(seed: int) -> None:
    """Random numbers of torch's CPU, numpy and Python from ``seed`` on.

    ``torch.manual_seed`` would ask backends that are not there, which takes longer than a step.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


@contextmanager
def host_seeded(seed: int) -> Iterator[None]:
    """Both: random numbers from ``seed`` on, and after it the caller's."""
    with host_kept():
        set_host_seed(seed)
        yield


def host_states() -> tuple[Any, ...]:
    """What is another when random numbers of Python or numpy were drawn.

    numpy keeps every other normal number, too.
    """
    return random.getstate(), pickle.dumps(np.random.get_state())


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """As :func:`host_seeded`, and what is made or drawn on any device; that is not taken back."""
    with host_seeded(seed):
        torch.manual_seed(seed)
        yield


def begin(data: Any, seed: int, epoch: int) -> None:
    """Set the generators of a loader, and of all that it is made of, for a pass through it.

    Workers that persist start anew: what they drew in earlier epochs would decide what they draw.

    Args:
        data: The loader.
        seed: Of the generators.
        epoch: Its number, which those with ``set_epoch`` are told.
    """
    if getattr(data, "persistent_workers", False):
        data._iterator = None
    parts = inside(data)
    set_generators(generators(parts), seed)
    for part in parts:
        set_epoch = getattr(part, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)


def inside(data: Any) -> list[Any]:
    """A loader or data set, its samplers, data sets and transforms, each once."""
    found: dict[int, Any] = {}
    waiting = [data]
    while waiting:
        part = waiting.pop(0)
        if part is None or id(part) in found:
            continue
        found[id(part)] = part
        for name in _INSIDE:
            inner = getattr(part, name, None)
            waiting += inner if isinstance(inner, (list, tuple)) else [inner]
    return list(found.values())


def generators(parts: Iterable[Any]) -> list[Any]:
    """The generators of torch, numpy or Python that are attributes of these objects."""
    kinds = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
    return [
        value
        for part in parts
        for value in getattr(part, "__dict__", {}).values()
        if isinstance(value, kinds)
    ]


def generator_states(found: Iterable[Any]) -> list[Any]:
    """What is another when something was drawn from these generators."""
    return [
        value.get_state().tolist() if isinstance(value, torch.Generator) else pickle.dumps(value)
        for value in found
    ]


def set_generators(found: Iterable[Any], seed: int) -> None:
    """Set generators; a kind of the user's own is left as it is."""
    for generator in found:
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
        elif isinstance(generator, np.random.Generator):
            bits = generator.bit_generator
            bits.state = type(bits)(seed).state
        elif isinstance(generator, np.random.RandomState):
            generator.seed(seed % (1 << 32))
        elif type(generator) is random.Random:
            generator.seed(seed)
