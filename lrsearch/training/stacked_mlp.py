"""n copies of a small Linear net as one, with forward and backward written out by hand.

Activations are (n, B, F + 1) with a last column of ones, so that a layer's weights and bias are
one matrix (n, in + 1, out), its gradient one bmm, and the vectorized dimension of both a multiple
of the vector length where the layer's width is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from lrsearch.training.stacked_loss import LossGradient

_aten = torch.ops.aten
CHUNK_FLOATS = 1 << 19
"""Largest activation (floats) of a forward pass without gradients: stays in the cache."""


@dataclass(frozen=True)
class Activation:
    """An elementwise function whose derivative follows from its output.

    Args:
        forward: In place.
        backward: (d loss/d output, output) -> d loss/d input, in place of the first.
    """

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]


ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.ReLU: Activation(
        torch.relu_, lambda d, h: _aten.threshold_backward.grad_input(d, h, 0, grad_input=d)
    ),
    nn.Sigmoid: Activation(
        torch.sigmoid_, lambda d, h: _aten.sigmoid_backward.grad_input(d, h, grad_input=d)
    ),
    nn.Tanh: Activation(
        torch.tanh_, lambda d, h: _aten.tanh_backward.grad_input(d, h, grad_input=d)
    ),
}


@dataclass(frozen=True)
class Layer:
    """``h -> activation(W h + b)``; ``name`` is the Linear's name in the model."""

    name: str
    inputs: int
    outputs: int
    activation: Activation | None


def layers_of(model: nn.Module) -> list[Layer] | None:
    """The layers of a model that is nothing but Linear layers and activations, else None.

    Only a plain ``nn.Sequential`` (nested or not) qualifies: what another module does in its
    ``forward`` cannot be known.
    """
    layers: list[Layer] = []
    seen: set[int] = set()
    for name, module in _leaves(model):
        if module is None or module._forward_hooks or module._forward_pre_hooks:
            return None
        if type(module) is nn.Linear and _plain(module) and id(module) not in seen:
            layers.append(Layer(name, module.in_features, module.out_features, None))
        elif type(module) in ACTIVATIONS and layers and layers[-1].activation is None:
            last = layers.pop()
            activation = ACTIVATIONS[type(module)]
            layers.append(Layer(last.name, last.inputs, last.outputs, activation))
        elif not (isinstance(module, nn.Flatten) and module.start_dim == 1 and not layers):
            return None
        seen.add(id(module))
    fits = all(a.outputs == b.inputs for a, b in pairwise(layers))
    return layers if layers and fits else None


def _plain(linear: nn.Linear) -> bool:
    return linear.bias is not None and all(
        p.requires_grad and p.dtype == torch.float32 for p in linear.parameters()
    )


def _leaves(module: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module | None]]:
    """Leaves of nested Sequentials in order; (name, None) marks what is none."""
    if type(module) is not nn.Sequential:
        known = type(module) in {nn.Linear, nn.Flatten, *ACTIVATIONS}
        return [(prefix, module if known else None)]
    if module._forward_hooks or module._forward_pre_hooks:
        return [(prefix, None)]
    found: list[tuple[str, nn.Module | None]] = []
    for name, child in module.named_children():
        found += _leaves(child, f"{prefix}.{name}" if prefix else name)
    return found


class MLPStack:
    """The stacked form of a small Linear net.

    Args:
        layers: From :func:`layers_of`.
        loss: From :func:`lrsearch.training.stacked_loss.gradient_of`.
    """

    random = False

    def __init__(self, layers: list[Layer], loss: LossGradient) -> None:
        self.layers = layers
        self.loss = loss
        self.width = sum((layer.inputs + 1) * layer.outputs for layer in layers)

    def matrices(self, flat: Tensor) -> list[Tensor]:
        """W with b below it, of each layer, (n, in + 1, out), as views of (n, width)."""
        found: list[Tensor] = []
        start = 0
        for layer in self.layers:
            shape = (layer.inputs + 1, layer.outputs)
            found.append(flat.narrow(1, start, prod(shape)).view(len(flat), *shape))
            start += prod(shape)
        return found

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """The parameters by name, (n, *shape), as views of (n, width)."""
        found: dict[str, Tensor] = {}
        for layer, matrix in zip(self.layers, self.matrices(flat), strict=True):
            prefix = f"{layer.name}." if layer.name else ""
            found[f"{prefix}weight"] = matrix[:, :-1].transpose(1, 2)
            found[f"{prefix}bias"] = matrix[:, -1]
        return found

    def prepare(self, x: Tensor) -> Tensor:
        """Inputs (N, ...) with a 1 after the features of each: (N, in + 1)."""
        return nn.functional.pad(x.flatten(1).float(), (0, 1), value=1.0)

    def trainer(
        self, params: Tensor, grads: Tensor, buffers: dict[str, Tensor], batch: int
    ) -> MLPTrainer:
        """A step function bound to rows of parameters and gradients (n, width)."""
        return MLPTrainer(self, params, grads, batch)

    def outputs(self, params: Tensor, buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        """Outputs (n, N, C) of all rows for the same prepared inputs (N, in + 1)."""
        widest = max(layer.outputs for layer in self.layers)
        rows = max(1, CHUNK_FLOATS // (len(params) * widest))
        return torch.cat([self._forward(params, part) for part in torch.split(x, rows)], 1)

    def _forward(self, params: Tensor, x: Tensor) -> Tensor:
        h = x.expand(len(params), -1, -1)
        for i, (layer, matrix) in enumerate(zip(self.layers, self.matrices(params), strict=True)):
            h = torch.baddbmm(matrix[:, -1:], h, matrix[:, :-1]) if i else torch.bmm(h, matrix)
            if layer.activation:
                layer.activation.forward(h)
        return h


class MLPTrainer:
    """Forward, loss and backward of n trials; the tensors in between are made once."""

    def __init__(self, stack: MLPStack, params: Tensor, grads: Tensor, batch: int) -> None:
        n, layers = len(params), stack.layers
        self.count = n
        self.loss = stack.loss
        self.total: Tensor | None = None
        hidden = [params.new_ones(n, batch, layer.outputs + 1) for layer in layers[:-1]]
        outputs = [h[:, :, :-1] for h in hidden]
        outputs.append(params.new_empty(n, batch, layers[-1].outputs))
        weights, gradients = stack.matrices(params), stack.matrices(grads)
        activations = [layer.activation for layer in layers]
        self.first = (weights[0], outputs[0], activations[0], gradients[0])
        self.rest = list(zip(weights[1:], hidden, outputs[1:], activations[1:], strict=True))
        self.back = [
            (
                hidden[i - 1].transpose(1, 2),
                gradients[i],
                weights[i][:, :-1].transpose(1, 2),
                params.new_empty(n, batch, layers[i - 1].outputs),
                outputs[i - 1],
                activations[i - 1],
            )
            for i in range(len(layers) - 1, 0, -1)
        ]

    def step(self, x: Tensor, y: Tensor) -> None:
        """Write the gradients for one batch: x (n or 1, B, in + 1), y (n, B, ...)."""
        x = x.expand(self.count, -1, -1)
        weight, z, activation, first_gradient = self.first
        torch.bmm(x, weight, out=z)
        if activation:
            activation.forward(z)
        for weight, h, z, activation in self.rest:
            torch.bmm(h, weight, out=z)
            if activation:
                activation.forward(z)
        terms, d = self.loss(z, y)
        self.total = terms if self.total is None else self.total.add_(terms)
        if activation:
            d = activation.backward(d, z)
        for h_t, gradient, weight_t, d_below, z, activation in self.back:
            torch.bmm(h_t, d, out=gradient)
            d = torch.bmm(d, weight_t, out=d_below)
            if activation:
                activation.backward(d, z)
        torch.bmm(x.transpose(1, 2), d, out=first_gradient)

    def take_losses(self, steps: int) -> Tensor:
        """Mean loss (n,) of the last ``steps`` steps; starts a new sum."""
        total, self.total = self.total, None
        assert total is not None
        return total.flatten(1).mean(1).mul_(self.loss.sign / steps)
