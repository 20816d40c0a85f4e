"""n copies of a small Linear net as one, with forward and backward written out by hand.

Activations are (n, B, F + 1) with a last column of ones, so that a layer's weights and bias are
one matrix (n, in + 1, out), its gradient one product, and the vectorized dimension of both a
multiple of the vector length where the layer's width is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from lrsearch.training.products import multiplier, product
from lrsearch.training.stacked_loss import LossGradient

_aten = torch.ops.aten
CHUNK_FLOATS = 1 << 17
"""Largest activation (floats) of a forward pass without gradients on a CPU: it stays in the cache,
and its matrices are small ones; 64 times as many on an accelerator."""


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
    ``forward`` cannot be known. No two layers may share their weights.
    """
    layers: list[Layer] = []
    seen: set[Tensor] = set()
    for name, module in _leaves(model):
        if module._forward_hooks or module._forward_pre_hooks:
            return None
        if type(module) is nn.Linear and _plain(module) and seen.isdisjoint(module.parameters()):
            seen.update(module.parameters())
            layers.append(Layer(name, module.in_features, module.out_features, None))
        elif type(module) in ACTIVATIONS and layers and layers[-1].activation is None:
            last = layers.pop()
            activation = ACTIVATIONS[type(module)]
            layers.append(Layer(last.name, last.inputs, last.outputs, activation))
        elif not (type(module) is nn.Flatten and module.start_dim == 1 and not layers):
            return None
    fits = all(a.outputs == b.inputs for a, b in pairwise(layers))
    return layers if layers and fits else None


def _plain(linear: nn.Linear) -> bool:
    return linear.bias is not None and all(
        p.requires_grad and p.dtype == torch.float32 for p in linear.parameters()
    )


def _leaves(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Leaves of nested Sequentials in order; one that has hooks is a leaf itself."""
    if type(module) is not nn.Sequential or module._forward_hooks or module._forward_pre_hooks:
        yield prefix, module
        return
    for name, child in module._modules.items():  # named_children leaves out repetitions
        assert child is not None  # a Sequential of None cannot run
        yield from _leaves(child, f"{prefix}.{name}" if prefix else name)


class MLPStack:
    """The stacked form of a small Linear net.

    Args:
        layers: From :func:`layers_of`.
        loss: From :func:`lrsearch.training.stacked_loss.gradient_of`.
    """

    dropout = None
    random = False
    dependent = False

    def __init__(self, layers: list[Layer], loss: LossGradient) -> None:
        self.layers = layers
        self.loss = loss
        self._hidden: list[Tensor] = []
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
        """Outputs (n, N, C) of all rows for the same prepared inputs (N, in + 1).

        They lie as (n, C, N) in memory, as losses and metrics want them.
        """
        n, count = len(params), len(x)
        most = CHUNK_FLOATS * (1 if params.device.type == "cpu" else 64)
        chunks = -(-n * count * max(layer.outputs for layer in self.layers) // most)
        rows = -(-count // min(count, chunks))  # equal ones: the last is not left with a few
        if not self._hidden or self._hidden[0].shape[:2] != (n, rows):
            self._hidden = self.hidden(params, rows)
        outputs = params.new_empty(n, self.layers[-1].outputs, count).transpose(1, 2)
        inputs = [x.expand(n, -1, -1), *self._hidden]
        results = [*(h[:, :, :-1] for h in self._hidden), outputs]
        bound = []
        for layer, h, w, z in zip(
            self.layers, inputs, self.matrices(params), results, strict=True
        ):
            multiply, given = multiplier(z[:, :rows], layer.inputs + 1)
            bound.append((multiply, given(h), given(w), given(z), layer.activation, z))
        for start in range(0, count, rows):
            part = slice(start, min(start + rows, count))
            here = slice(0, part.stop - start)
            spans = pairwise([part, *(here for _ in self._hidden), part])
            for (multiply, h, w, out, activation, z), (a, b) in zip(bound, spans, strict=True):
                multiply(h[:, a], w, out=out[:, b])
                if activation:
                    activation.forward(z[:, b])
        return outputs

    def hidden(self, params: Tensor, rows: int) -> list[Tensor]:
        """Room for the activations (n, rows, F + 1) between the layers, each with its ones."""
        return [
            params.new_ones(len(params), rows, layer.outputs + 1) for layer in self.layers[:-1]
        ]


class MLPTrainer:
    """Forward, loss and backward of n trials; the tensors in between are made once.

    The outputs and their gradient lie as (n, C, B) in memory, as the losses want them.
    """

    def __init__(self, stack: MLPStack, params: Tensor, grads: Tensor, batch: int) -> None:
        n, layers = len(params), stack.layers
        self.count = n
        self.loss = stack.loss
        self.total: Tensor | None = None
        self.z, self.d = params.new_empty(2, n, layers[-1].outputs, batch).transpose(2, 3)
        hidden = stack.hidden(params, batch)
        outputs = [*(h[:, :, :-1] for h in hidden), self.z]
        below = [params.new_empty(n, batch, layer.outputs) for layer in layers[:-1]] + [self.d]
        weights, gradients = stack.matrices(params), stack.matrices(grads)
        activations = [layer.activation for layer in layers]
        self.multiply, self.given = multiplier(outputs[0], layers[0].inputs + 1)
        self.first = tuple(map(self.given, (weights[0], outputs[0], below[0], gradients[0])))
        self.lowest = outputs[0]
        self.ends = activations[0], activations[-1]
        upper = range(1, len(layers))
        self.forward = [
            (product(hidden[i - 1], weights[i], outputs[i]), activations[i], outputs[i])
            for i in upper
        ]
        self.back = [
            (
                product(hidden[i - 1].transpose(1, 2), below[i], gradients[i]),
                _down(below[i], weights[i][:, :-1], below[i - 1]),
                activations[i - 1],
                below[i - 1],
                outputs[i - 1],
            )
            for i in reversed(upper)
        ]

    def step(self, x: Tensor, y: Tensor) -> None:
        """Write the gradients for one batch: x (n or 1, B, in + 1), y (n, B, ...)."""
        weight, z, d, gradient = self.first
        first, last = self.ends
        inputs = self.given(x.expand(self.count, -1, -1))
        self.multiply(inputs, weight, out=z)
        if first:
            first.forward(self.lowest)
        for multiply, activation, z in self.forward:
            multiply()
            if activation:
                activation.forward(z)
        terms = self.loss(self.z, y, self.d)
        self.total = terms if self.total is None else self.total.add_(terms)
        if last:
            last.backward(self.d, self.z)
        for multiply, down, activation, d_below, z in self.back:
            multiply()
            down()
            if activation:
                activation.backward(d_below, z)
        self.multiply(inputs.swapaxes(1, 2), d, out=gradient)

    def take_losses(self, steps: int) -> Tensor:
        """Mean loss (n,) of the last ``steps`` steps; starts a new sum."""
        total, self.total = self.total, None
        assert total is not None
        return total.flatten(1).mean(1).mul_(self.loss.sign / steps)


def _down(d: Tensor, w: Tensor, out: Tensor) -> Callable[[], Any]:
    """A function that computes ``out = d @ w.T``."""
    if d.stride(2) != 1:  # numpy is only slow where the second factor alone lies transposed
        return product(d, w.transpose(1, 2), out)
    return partial(torch.bmm, d, w.transpose(1, 2), out=out)
