"""n copies of any module as one, through torch.func: for all that is no plain MLP.

``vmap`` turns each operator into its batched form (a convolution into a grouped one); autograd
runs on the result, so each trial's gradient lands in its own row. Running statistics of batch norm
are stacked like the parameters.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lrsearch.tasks.batch import as_float
from lrsearch.tasks.task import LossFn
from lrsearch.training.stacked_dropout import StackedDropout
from lrsearch.training.stacked_loss import is_cross_entropy

CHUNK_FLOATS = 1 << 25
"""Inputs (floats, over all trials) of one forward pass without gradients, at most."""
CHUNK_BATCHES = 4
"""Training batches of one such pass, at most: outputs may be far larger than inputs."""


class VmapStack:
    """The stacked form of a module.

    Args:
        model: A module on the device; its values do not matter, but parameters that need no
            gradient are used as they are by all trials.
        loss: (outputs, y) -> scalar of one trial.
        y: All targets, to see what kind they are.
        autocast: Makes the context for the forward pass.
        batch: Samples of a training batch.

    Attributes:
        dropout: What its trials drop, where that is all that a training step draws at random.
        random: Whether it draws other random numbers, which only trials of one epoch can share.
        dependent: Whether in evaluation mode a sample's outputs depend on what is beside it:
            statistics are taken of them, or random numbers are drawn one after the other.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: LossFn,
        y: Tensor,
        autocast: Callable[[], AbstractContextManager[Any]],
        batch: int,
    ) -> None:
        if any(parameter.is_cuda for parameter in model.parameters()):
            norms_in_float(model)
        paddings_fixed(model)
        self.model = model
        self._places = places(model)
        self.autocast = autocast
        self.most = CHUNK_BATCHES * batch
        self.shapes = {k: p.shape for k, p in model.named_parameters() if p.requires_grad}
        self.width = sum(prod(shape) for shape in self.shapes.values())
        self.dropout: StackedDropout | None = None
        self.random = False
        self.dependent = False
        self.labels = is_cross_entropy(loss, y)
        self.loss = loss

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """The parameters by name, (n, *shape), as views of (n, width)."""
        found: dict[str, Tensor] = {}
        start = 0
        for name, shape in self.shapes.items():
            found[name] = flat.narrow(1, start, prod(shape)).view(len(flat), *shape)
            start += prod(shape)
        return found

    def prepare(self, x: Tensor) -> Tensor:
        """Inputs as the module wants them: unchanged."""
        return x

    def trainer(
        self, params: Tensor, grads: Tensor, buffers: dict[str, Tensor], batch: int
    ) -> VmapTrainer:
        """A step function bound to rows of parameters and gradients (n, width)."""
        return VmapTrainer(self, params, grads, buffers)

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Losses (n,) of outputs (n, B, ...) and targets y (n, B, ...)."""
        if self.labels and outputs.dim() == 3:
            flat = nn.functional.cross_entropy(
                outputs.flatten(0, 1), y.flatten(), reduction="none"
            )
            return flat.view(y.shape).mean(1)
        losses: Tensor = vmap(self.loss)(outputs, y)
        return losses

    def forward(self, params: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        """Outputs (n, B, ...) for x (n, B, ...), or (1, B, ...) which all trials share."""
        shared, shape = len(x) == 1, tuple(x.shape[1:])
        dropout = self.dropout if self.model.training else None
        noise = dropout.noise(shape) if dropout else []

        def one(
            p: dict[str, Tensor], b: dict[str, Tensor], inputs: Tensor, *noise: Tensor
        ) -> Tensor:
            if dropout:
                dropout.begin(*noise)
            here = {place: t for k, t in (p | b).items() for place in self._places[k]}
            outputs: Tensor = functional_call(self.model, here, (inputs,), tie_weights=False)
            return outputs

        dims = (0, 0, None if shared else 0, *(0 for _ in noise))
        randomness = "same" if self.random or dropout else "error"
        stacked = vmap(one, in_dims=dims, randomness=randomness)
        with self.autocast(), dropout.drawing(shape) if dropout else nullcontext():
            outputs = as_float(stacked(params, buffers, x[0] if shared else x, *noise))
        if not isinstance(outputs, Tensor) or outputs.dim() < 2:
            raise ValueError("its outputs are not one tensor with a row for each sample")
        return outputs

    def outputs(self, params: Tensor, buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        """Outputs (n, N, ...) of all rows for the same inputs (N, ...), in evaluation mode.

        Where they are ``dependent`` on one another all inputs go in at once, as those of a trial
        alone do; who asks limits the rows of parameters then (:func:`at_once`).
        """
        self.model.eval()
        rows = CHUNK_FLOATS // (len(params) * max(1, x[0].numel()))
        rows = len(x) if self.dependent else max(1, min(rows, self.most))
        views = self.views(params)
        with torch.no_grad():
            parts = [self.forward(views, buffers, part[None]) for part in torch.split(x, rows)]
        return torch.cat(parts, 1)


def at_once(x: Tensor) -> int:
    """Trials that may see all of these inputs in one forward pass without gradients."""
    return max(1, CHUNK_FLOATS // max(1, x.numel()))


class VmapTrainer:
    """Forward and backward of n trials by autograd."""

    def __init__(
        self, stack: VmapStack, params: Tensor, grads: Tensor, buffers: dict[str, Tensor]
    ) -> None:
        self.stack = stack
        self.grads = grads
        self.buffers = buffers
        self.total: Tensor | None = None
        self.leaves = {
            name: view.detach().requires_grad_() for name, view in stack.views(params).items()
        }

    def step(self, x: Tensor, y: Tensor) -> None:
        """Write the gradients for one batch: x (n or 1, B, ...), y (n, B, ...)."""
        if not self.stack.model.training:
            self.stack.model.train()
        with torch.enable_grad():
            outputs = self.stack.forward(self.leaves, self.buffers, x)
            losses = self.stack.losses(outputs, y)
            found = torch.autograd.grad(losses.sum(), list(self.leaves.values()))
        torch.cat([gradient.flatten(1) for gradient in found], 1, out=self.grads)
        terms = losses.detach()
        self.total = terms if self.total is None else self.total.add_(terms)

    def take_losses(self, steps: int) -> Tensor:
        """Mean loss (n,) of the last ``steps`` steps; starts a new sum."""
        total, self.total = self.total, None
        assert total is not None
        return total.div_(steps)


def places(model: nn.Module) -> dict[str, list[str]]:
    """Where each parameter and buffer is: its name -> the names under which modules have it.

    ``functional_call`` finds them, too, but takes a module with two names for two modules, and
    leaves what it had put there in the second.
    """
    names: dict[Tensor, list[str]] = {}
    for prefix, module in model.named_modules():
        for name, value in (*module._parameters.items(), *module._buffers.items()):
            if value is not None:
                names.setdefault(value, []).append(f"{prefix}.{name}" if prefix else name)
    return {found[0]: found for found in names.values()}


def norms_in_float(model: nn.Module) -> None:
    """Let the batch norms of a model see float32 inputs that are contiguous.

    On CUDA vmap's rule for batch norm takes no others: of inputs in channels last it refuses to
    ask for the format, of half precision it demands that the running statistics were half, too.
    Outputs come in the precision of the inputs.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.forward = partial(_in_float, module.forward)  # type: ignore[method-assign]


def _in_float(norm: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return norm(x.float().contiguous()).to(x.dtype)


def paddings_fixed(model: nn.Module) -> None:
    """Let embeddings take no gradient for the row of their ``padding_idx``, without torch's help.

    torch leaves it out for the first trial alone, where trials have other inputs.
    """
    for module in model.modules():
        if not isinstance(module, nn.Embedding) or module.padding_idx is None:
            continue
        if type(module) is nn.Embedding and module.max_norm is None and not module.sparse:
            forward = partial(_padded, module, module.padding_idx)
            module.forward = forward  # type: ignore[method-assign]


def _padded(table: nn.Embedding, padding: int, x: Tensor) -> Tensor:
    row = torch.arange(table.num_embeddings, device=x.device)[:, None] == padding
    weight = torch.where(row, table.weight.detach(), table.weight)
    return nn.functional.embedding(x, weight, scale_grad_by_freq=table.scale_grad_by_freq)


@contextmanager
def quiet() -> Iterator[None]:
    """torch warns of an operator that it stacks by a loop, and asks for an issue on GitHub."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        yield
