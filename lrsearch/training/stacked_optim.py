"""torch.optim's SGD, Adam and AdamW for n trials at once: one row of a matrix per trial.

Every trial has its own lr, momentum and step count; they enter as columns (n, 1). The formulas are
those of torch.optim, so that a row equals the same trial alone to float rounding. All updates are
in place, a handful of kernels for all parameters of all trials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lrsearch.errors import UsageError

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Columns = Sequence[Tensor]
"""What changes from step to step: tensors (n, 1)."""


@dataclass(frozen=True)
class SGD:
    """``g += wd w``, ``b = m b + g``, ``w -= lr b``; nesterov: ``w -= lr (g + m b)``.

    In a step without momentum, which a schedule may bring, ``b`` stays as it was.

    Attributes:
        kind: What a schedule's momentum means: this, or beta1 of Adam.
        states: torch.optim's names of the tensors that are kept for each parameter.
        momentum: Where the schedule leaves it alone.
    """

    kind: ClassVar[Literal["sgd"]] = "sgd"
    states: ClassVar[tuple[str, ...]] = ("momentum_buffer",)
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def columns(self, lr: Array, momentum: Array, first: IntArray) -> list[Array]:
        """Per-step factors from lr and momentum (n, steps), and earlier steps (n,).

        -lr; momentum, unless it is 0 throughout; and where some steps have none, which have.
        """
        has = momentum != 0
        if not has.any():
            return [-lr]
        return [-lr, momentum] if has.all() else [-lr, momentum, has.astype(np.float64)]

    def with_step(self, step: int, state: dict[str, Tensor]) -> dict[str, Any]:
        """A parameter's state after ``step`` steps, as torch.optim keeps it.

        A buffer of zeros is as good as none, and torch takes no mixture of the two.
        """
        return dict(state)

    def step(self, w: Tensor, g: Tensor, states: Sequence[Tensor], columns: Columns) -> None:
        """Update ``w`` (n, P) in place; ``g`` (n, P) is used up."""
        minus_lr, *rest = columns
        (buffer,) = states
        if self.weight_decay:
            g.add_(w, alpha=self.weight_decay)
        if not rest:
            w.addcmul_(g, minus_lr)
            return
        momentum, *has = rest
        ahead = torch.addcmul(g, buffer, momentum, out=None if has else buffer)
        if has:
            torch.where(has[0] > 0, ahead, buffer, out=buffer)
        if self.nesterov:
            w.addcmul_(g.addcmul_(ahead, momentum), minus_lr)
        else:
            w.addcmul_(ahead, minus_lr)


@dataclass(frozen=True)
class Adam:
    """``m += (1-b1)(g-m)``, ``v = b2 v + (1-b2) g²``, ``w -= lr/c1 m / (sqrt(v)/sqrt(c2) + eps)``.

    c1 = 1 - b1^t and c2 = 1 - b2^t. Weight decay: ``g += wd w``, or decoupled (AdamW)
    ``w *= 1 - lr wd``.
    """

    kind: ClassVar[Literal["adam"]] = "adam"
    states: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq")
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False

    @property
    def momentum(self) -> float:
        """beta1 where the schedule leaves it alone."""
        return self.betas[0]

    def columns(self, lr: Array, momentum: Array, first: IntArray) -> list[Array]:
        """-lr/c1, 1 - b1, sqrt(c2) and, for AdamW with decay, 1 - lr wd."""
        t = first[:, None] + np.arange(1, lr.shape[1] + 1)
        c1 = 1 - momentum**t
        c2 = 1 - self.betas[1] ** t
        columns = [-lr / c1, 1 - momentum, np.sqrt(c2)]
        return [*columns, 1 - lr * self.weight_decay] if self.decoupled else columns

    def with_step(self, step: int, state: dict[str, Tensor]) -> dict[str, Any]:
        """The moments and the step count."""
        return {"step": torch.tensor(float(step)), **state}

    def step(self, w: Tensor, g: Tensor, states: Sequence[Tensor], columns: Columns) -> None:
        """Update ``w`` (n, P) in place; ``g`` (n, P) is used up."""
        m, v = states
        beta2 = self.betas[1]
        if self.decoupled:
            w.mul_(columns[3])
        elif self.weight_decay:
            g.add_(w, alpha=self.weight_decay)
        m.lerp_(g, columns[1])
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        torch.sqrt(v, out=g)
        g.div_(columns[2]).add_(self.eps)
        torch.div(m, g, out=g)
        w.addcmul_(g, columns[0])


StackedOptimizer = SGD | Adam
"""An update rule for a matrix of parameters (n, P), one trial per row."""


def clip(g: Tensor, norm: float) -> None:
    """Scale each row of ``g`` (n, P) down to a norm, as ``clip_grad_norm_`` would."""
    norms = torch.linalg.vector_norm(g, dim=1, keepdim=True)
    g.mul_(norms.add_(1e-6).reciprocal_().mul_(norm).clamp_(max=1.0))


IGNORED = {"foreach", "fused", "capturable", "differentiable", "maximize", "amsgrad", "dampening"}
"""Arguments of torch.optim that change nothing here as long as they are off."""


def why_not(name: str, arguments: Mapping[str, Any]) -> str | None:
    """Why this optimizer cannot run stacked; None if it can.

    Args:
        name: Class name in torch.optim, in any case.
        arguments: Its arguments, without ``lr``.
    """
    known = {
        "sgd": {"momentum", "weight_decay", "nesterov"},
        "adam": {"betas", "eps", "weight_decay"},
        "adamw": {"betas", "eps", "weight_decay"},
    }
    if name.lower() not in known:
        return (
            f"optimizer {name.rpartition(':')[2]} has no stacked form (SGD, Adam and AdamW have)"
        )
    for key, value in arguments.items():
        if key in known[name.lower()] or (key in IGNORED and not value):
            continue
        if key not in {"foreach", "fused"}:
            return f"optimizer argument {key}={value!r} has no stacked form"
    return None


def build(name: str, arguments: Mapping[str, Any]) -> StackedOptimizer:
    """The stacked form of a torch optimizer.

    Args:
        name: ``"SGD"``, ``"Adam"`` or ``"AdamW"``, in any case.
        arguments: As torch.optim takes them, without ``lr``.

    Raises:
        UsageError: There is no stacked form, see :func:`why_not`.

    Example:
        >>> build("SGD", {"momentum": 0.9, "nesterov": True})
        SGD(momentum=0.9, weight_decay=0.0, nesterov=True)
    """
    reason = why_not(name, arguments)
    if reason:
        raise UsageError(f"{reason}: train with --fuse off")
    kept = {key: value for key, value in arguments.items() if key not in IGNORED}
    match name.lower():
        case "sgd":
            return SGD(**kept)
        case "adam":
            return Adam(**{**kept, "betas": tuple(kept.get("betas", (0.9, 0.999)))})
        case _:  # AdamW
            decay = kept.pop("weight_decay", 1e-2)
            betas = tuple(kept.pop("betas", (0.9, 0.999)))
            return Adam(betas=betas, weight_decay=decay, decoupled=True, **kept)
