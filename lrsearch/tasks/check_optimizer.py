"""What is wrong with an optimizer of the user's own: tried in a few steps of small parameters."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lrsearch.errors import UsageError

RATE = 0.1
STEPS = 8
"""More than lie between two steps of slow weights, which are usually 5 or 6."""


def check_own(name: str, make: Any, device: torch.device | None) -> None:
    """Make sure that an optimizer steps, by the rate of a schedule, and can be interrupted.

    Args:
        name: What it is called.
        make: Parameters -> the optimizer, with a rate of :data:`RATE`.
        device: Where it will train; None = the CPU.

    Raises:
        UsageError: It fails, has a rate of its own, or keeps something outside of its state_dict.
    """
    from lrsearch.tasks.mistakes import with_place

    own_loop = "or keep your own loop and use lrsearch.suggest"
    with torch.random.fork_rng(devices=[]):
        try:
            one = _stepped(make, device)
        except Exception as error:  # the user's code may raise anything
            raise UsageError(
                f"optimizer {name} fails when it steps: {with_place(error)}; mend it, {own_loop}"
            ) from error
        try:
            other = make(_of(one))
            other.load_state_dict(copy.deepcopy(one.state_dict()))
        except Exception as error:  # as above
            raise UsageError(
                f"optimizer {name} fails when its state is saved and loaded, as after an "
                f"interruption: {with_place(error)}; mend that, {own_loop}"
            ) from error
        slow = make(_of(one))
        slow.load_state_dict(copy.deepcopy(one.state_dict()))
        for group in slow.param_groups:
            group["lr"] = RATE / 8
        for seed in range(STEPS):
            for optimizer in (one, other, slow):
                _step(optimizer, seed)
        if not all(map(torch.allclose, _values(one), _values(other))):
            raise UsageError(
                f"optimizer {name} goes on otherwise when its state is saved and loaded, as after "
                "an interruption: let state_dict and load_state_dict hold all that it keeps, such "
                "as slow weights or an optimizer inside it"
            )
        if all(map(torch.equal, _values(other), _values(slow))):
            raise UsageError(
                f"optimizer {name} steps as far at another rate: let its step use group['lr'] of "
                "its param_groups, which is what a schedule sets"
            )


def _stepped(make: Any, device: torch.device | None) -> Optimizer:
    """It, after some steps of a matrix and a vector, or of a matrix alone where it takes no other.

    Raises:
        Exception: What it raises of both.
    """
    try:
        return _of_shapes(make, device, [(2, 2), (2,)])
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        try:
            return _of_shapes(make, device, [(2, 2)])
        except Exception:  # noqa: BLE001 - likewise
            raise error from None


def _of_shapes(
    make: Any, device: torch.device | None, shapes: Sequence[tuple[int, ...]]
) -> Optimizer:
    optimizer: Optimizer = make([nn.Parameter(torch.ones(s, device=device)) for s in shapes])
    for seed in range(STEPS):
        _step(optimizer, seed)
    return optimizer


def _step(optimizer: Optimizer, seed: int) -> None:
    """A step of random gradients, sparse where it takes no others."""
    torch.manual_seed(seed)
    sparse = isinstance(optimizer, torch.optim.SparseAdam)
    for parameter in _parameters(optimizer):
        gradient = torch.randn(parameter.shape).to(parameter.device)
        parameter.grad = gradient.to_sparse(1) if sparse else gradient
    optimizer.step()


def _parameters(optimizer: Optimizer) -> list[Any]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _values(optimizer: Optimizer) -> list[Tensor]:
    return [parameter.detach() for parameter in _parameters(optimizer)]


def _of(optimizer: Optimizer) -> list[nn.Parameter]:
    """Copies of its parameters."""
    return [nn.Parameter(value.clone()) for value in _values(optimizer)]
