"""The running average of the weights: the second signal of a trial."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lrsearch.errors import LrsearchError
from lrsearch.training.copies import copied, match_buffers, tensors_of

SHARE = 0.2
"""The horizon of the average is this share of the elapsed steps,"""
MOST_EPOCHS = 2
"""and at most so many epochs."""


def horizon(step: int, steps_per_epoch: int) -> float:
    """Steps that the average looks back after ``step`` optimizer steps.

    ``h(t) = clip(0.2 t, 1, 2 steps_per_epoch)``: the average forgets the start of the run, and in
    the long run becomes an exponential one over two epochs.

    Example:
        >>> [horizon(step, 100) for step in (1, 50, 5000)]
        [1.0, 10.0, 200.0]
    """
    return min(max(SHARE * step, 1.0), float(MOST_EPOCHS * steps_per_epoch))


class WeightAverage:
    """A copy of a model that follows its weights: ``average += (w - average) / h(t)``.

    Floating-point buffers (the statistics of batch norm) follow in the same way; other buffers,
    and sparse ones, are copied when the average is looked at. Tensors that a model replaces by new
    ones at every step are followed, too, and so are buffers that it makes when it first runs.

    Args:
        model: The model that is trained.
        steps_per_epoch: Bounds the horizon.
        twin: A model made like it, with the same weights, to hold the average; None = a copy,
            whose hooks and closures may go on to use the weights of the first.
    """

    def __init__(
        self, model: nn.Module, steps_per_epoch: int, twin: nn.Module | None = None
    ) -> None:
        self.source = model
        self.model = (copied(model) if twin is None else twin).eval()
        trained = set(map(id, model.parameters()))  # both may have a part that does not learn
        for parameter in self.model.parameters():
            if id(parameter) not in trained:
                parameter.requires_grad_(False).grad = None
        self.steps_per_epoch = steps_per_epoch
        self._replaces = True  # whether it did so at the last step
        self.refresh()

    def refresh(self) -> None:
        """Look up the tensors again, for models that replace one now and then."""
        self._pairs: tuple[list[Tensor], list[Tensor]] = ([], [])
        self._statistics: list[tuple[Tensor, Tensor]] = []
        self._others: list[tuple[Tensor, Tensor]] = []
        self._followed = tensors_of(self.source)
        self._shapes = [t.shape for t in self._followed]
        averages = tensors_of(self.model)
        trained = len([*self.source.parameters()])
        if len([*self.model.parameters()]) != trained:
            raise LrsearchError(
                "the model has other parameters now than when it was made, which the optimizer "
                "does not know; make all of them in __init__"
            )
        if [t.shape for t in averages] != self._shapes:
            match_buffers(self.model, self.source)
            averages = tensors_of(self.model)
        for i, (mine, theirs) in enumerate(zip(averages, self._followed, strict=True)):
            if mine is theirs:
                continue
            real = mine.is_floating_point() or mine.is_complex()
            if real and mine.layout is torch.strided:
                self._pairs[0].append(mine.detach())
                self._pairs[1].append(theirs.detach())
                if i >= trained:
                    self._statistics.append((mine, theirs))
            else:
                self._others.append((mine, theirs))

    def update(self, step: int) -> None:
        """Follow the model after optimizer step number ``step`` (from 1), without autograd."""
        if self._replaces:
            now = tensors_of(self.source)
            self._replaces = [*map(id, now)] != [*map(id, self._followed)]
            if self._replaces or [t.shape for t in now] != self._shapes:
                self.refresh()
        weight = 1.0 / horizon(step, self.steps_per_epoch)
        with torch.no_grad():
            torch._foreach_lerp_(*self._pairs, weight)

    def current(self) -> nn.Module:
        """The averaged model, in evaluation mode."""
        for mine, theirs in self._others:
            mine.copy_(theirs)
        for mine, theirs in self._statistics:  # an infinity, as in a mask, has no average
            mine.copy_(torch.where(theirs.isfinite(), mine, theirs))
        return self.model
