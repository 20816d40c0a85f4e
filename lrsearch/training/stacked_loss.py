"""Losses and metrics of n trials at once, with the slow cases of small nets on a CPU made fast.

torch takes 20 times longer for a softmax over 10 contiguous classes than for one over a strided
axis; the usual losses therefore look at (n, B, C) as (n, C, B).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrsearch.tasks.batch import scored
from lrsearch.tasks.task import LossFn, MetricFn, accuracy
from lrsearch.training.evaluation import scalar

_log_softmax_backward = torch._log_softmax_backward_data


class CrossEntropyGradient:
    """d/dz of the mean cross-entropy: ``(softmax(z) - onehot(y)) / B``."""

    sign = -1.0

    def __call__(self, z: Tensor, y: Tensor, out: Tensor) -> Tensor:
        """The terms are the log-probabilities of the labels."""
        log_p = torch.log_softmax(z.transpose(1, 2), 1)
        label = y.unsqueeze(1)  # (n, 1, B)
        upper = torch.zeros_like(log_p).scatter_(1, label, -1 / z.shape[1])
        _log_softmax_backward(upper, log_p, 1, z.dtype, out=out.transpose(1, 2))
        return log_p.gather(1, label)


class SquaredErrorGradient:
    """d/dz of the mean squared error: ``2 (z - y) / (B C)``."""

    sign = 1.0

    def __call__(self, z: Tensor, y: Tensor, out: Tensor) -> Tensor:
        """The terms are the squared errors."""
        terms = torch.sub(z, y, out=out).square()
        out.mul_(2 / (z.shape[1] * z.shape[2]))
        return terms


class AnyGradient:
    """Any loss of (outputs, y), by autograd."""

    sign = 1.0

    def __init__(self, loss: LossFn) -> None:
        self.losses = torch.func.vmap(loss)

    def __call__(self, z: Tensor, y: Tensor, out: Tensor) -> Tensor:
        """The terms are the losses themselves."""
        outputs = z.detach().contiguous().requires_grad_()  # a loss may call view
        with torch.enable_grad():
            losses = self.losses(outputs, y)
            (gradient,) = torch.autograd.grad(losses.sum(), outputs)
        out.copy_(gradient)
        return losses.detach().unsqueeze(1)


LossGradient = CrossEntropyGradient | SquaredErrorGradient | AnyGradient
"""Outputs z (n, B, C) and targets y (n, B, ...) -> terms (n, ...), and d loss/dz into ``out``.

The loss of a trial is ``sign * mean(terms)``.
"""


def is_cross_entropy(loss: object, y: Tensor) -> bool:
    """Whether the loss is the plain mean cross-entropy with class numbers y (n,)."""
    plain = loss is F.cross_entropy or (
        type(loss) is nn.CrossEntropyLoss
        and loss.weight is None
        and loss.reduction == "mean"
        and loss.label_smoothing == 0
        and loss.ignore_index < 0  # classes are not
    )
    return plain and y.dim() == 1 and y.dtype == torch.int64 and int(y.min()) >= 0


def is_squared_error(loss: object, y: Tensor) -> bool:
    """Whether the loss is the mean squared error with targets y (n, C)."""
    plain = loss is F.mse_loss or (type(loss) is nn.MSELoss and loss.reduction == "mean")
    return plain and y.dim() == 2


def gradient_of(loss: LossFn, y: Tensor, features: int) -> LossGradient:
    """The fastest right way to differentiate a loss.

    Args:
        loss: (outputs (B, C), y (B, ...)) -> scalar.
        y: All targets, to see what kind they are.
        features: C.
    """
    if is_cross_entropy(loss, y):
        return CrossEntropyGradient()
    if is_squared_error(loss, y) and y.shape[1] == features:
        return SquaredErrorGradient()
    return AnyGradient(loss)


PerTrial = Callable[[Tensor, Tensor], Tensor]
"""Outputs (n, N, ...) of n trials and targets y (N, ...) of all -> one number each, (n,)."""


def losses_of(loss: LossFn, y: Tensor) -> PerTrial:
    """A loss of each of n trials.

    Args:
        loss: (outputs, y) -> scalar.
        y: All targets, to see what kind they are.
    """
    labels = is_cross_entropy(loss, y)

    def losses(outputs: Tensor, y: Tensor) -> Tensor:
        if labels and outputs.dim() == 3:
            log_p = torch.log_softmax(outputs.transpose(1, 2), 1)
            return -log_p.gather(1, y.expand(len(outputs), 1, -1)).mean((1, 2))
        each = outputs.contiguous()  # a loss may call view
        return torch.stack([torch.as_tensor(loss(z, y)).reshape(()) for z in each])

    return losses


def metrics_of(metric: MetricFn, y: Tensor) -> PerTrial:
    """A metric of each of n trials; ``y`` as for :func:`losses_of`."""
    labels = metric is accuracy and y.dim() == 1 and int(y.min()) >= 0

    def metrics(outputs: Tensor, y: Tensor) -> Tensor:
        if labels and outputs.dim() == 3:
            return (outputs.transpose(1, 2).max(1).indices == y).float().mean(1)
        each = outputs.contiguous()  # a metric may call view
        return torch.stack([scalar(scored(metric, z, y), z.device) for z in each])

    return metrics
