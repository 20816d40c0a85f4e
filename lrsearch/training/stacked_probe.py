"""A stacked step of two trials beside a plain one: whether a model is stacked rightly."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from copy import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lrsearch.tasks.batch import as_float, parts_of
from lrsearch.tasks.passes import generator_states, generators, host_states
from lrsearch.tasks.task import Split, Task, on_device
from lrsearch.training import device as devices
from lrsearch.training.batches import batch_sizes
from lrsearch.training.copies import attributes, copied
from lrsearch.training.stacked_dropout import StackedDropout, orders_seen
from lrsearch.training.stacked_vmap import VmapStack, quiet

if TYPE_CHECKING:
    from lrsearch.training.stacked import Stack

TOLERANCE = 0.05
"""How far a stacked step may lie from a plain one, in float32, by their norms."""
PROBE_SAMPLES = 4
"""Samples of the step that shows whether a module can be stacked."""
ROUNDING = 1e-5
"""Gradients that differ by so little, for the whole gradient's norm, differ by rounding.

The gradient of a bias before a batch norm is nothing else: some 3e-7 of the whole.
"""


def probe(task: Task, model: nn.Module, stack: Stack, y: Tensor, precision: str) -> list[float]:
    """How far losses, gradients and buffers of a stacked step lie from a plain one's, relatively.

    Also finds out whether the model draws random numbers. The step is compared with a plain one in
    float32: half precision alone moves the gradient of a deep net by a third, CUDA's TF32 by a
    tenth. On an accelerator dropout draws other numbers where it is stacked, so a model with
    random numbers is compared on the CPU.
    """
    # as a trial alone has it, and before torch.func leaves its tensors in modules that keep some
    plain = devices.place(task, copied(model), devices.device_of(model))
    count = min(PROBE_SAMPLES, len(y))
    x, y = sample_inputs(task, model, count), y[:count]
    try:
        _stacked_step(stack, model, x, y, shared=False)
    except Exception as error:
        if "random" not in str(error) or not isinstance(stack, VmapStack):
            raise
        stack.dropout = _dropout(task, stack, plain, x, y)
        stack.random = stack.dropout is None
        _stacked_step(stack, model, x, y, shared=False)
    if isinstance(stack, VmapStack):
        stack.dependent = _depend(copied(plain), x)  # some keep a count of their calls
    stepped = _stacked_step(stack, model, x, y)
    draws = stack.random or stack.dropout is not None
    apart = draws and devices.device_of(model).type != "cpu"
    if apart or precision != "fp32":
        assert isinstance(stack, VmapStack)
        if not all(bool(torch.isfinite(part).all()) for part in stepped[:2]):
            raise ValueError(f"its step in {precision} overflows")
        stack = copy(stack)
        stack.autocast = nullcontext
        if apart:
            plain, task = plain.cpu(), on_device(task, torch.device("cpu"))
            stack.model, stack.loss = copied(plain), task.loss
        stepped = _stacked_step(stack, stack.model, x, y)
    buffers = [value.clone() for value in plain.buffers()]
    expected = _plain_step(task, stack, plain, x, y)
    with torch.no_grad():
        for value, before in zip(plain.buffers(), buffers, strict=True):
            value.copy_(before)
    again = _plain_step(task, stack, plain, x, y)
    if not torch.allclose(again[0], expected[0], equal_nan=True):
        raise ValueError("its loss is another one when it is called again")
    if reason := _shared(task, stack, plain, x, y, draws):
        raise ValueError(reason)
    return _distances(expected, stepped, len(buffers))


def _dropout(
    task: Task, stack: VmapStack, plain: nn.Module, x: Tensor, y: Tensor
) -> StackedDropout | None:
    """How trials of several epochs drop; None where a step draws other random numbers, too."""
    device, cpu = devices.device_of(plain), torch.device("cpu")
    stack, task, plain = copy(stack), on_device(task, cpu), copied(plain).cpu()
    stack.model, stack.loss, stack.autocast = copied(plain), task.loss, nullcontext
    try:
        torch.Generator(device)  # some devices have none but their own
        stack.dropout = StackedDropout(_orders(task, plain, len(x)))
        stepped = _stacked_step(stack, stack.model, x, y, shared=False)
    except Exception:  # noqa: BLE001 - the user's model may raise anything
        return None
    expected = _plain_step(task, stack, plain, x, y)
    distances = _distances(expected, stepped, len([*plain.buffers()]))
    return stack.dropout if max(distances) <= TOLERANCE else None


def _orders(task: Task, plain: nn.Module, probed: int) -> dict[int, list[list[int]]]:
    """In what order dropouts draw, by the samples of a batch that a stack may see."""
    assert isinstance(task.train, Split)
    sizes = batch_sizes(len(task.train), task.batch_size, task.drop_last)
    found = {}
    for count in {probed, *sizes}:
        model = copied(plain).train()
        x = sample_inputs(task, model, count)
        with orders_seen() as orders, torch.no_grad(), devices.random_numbers_kept(x.device):
            model(x)
        found[count] = orders
    return found


def _distances(expected: list[Tensor], stepped: list[Tensor], buffers: int) -> list[float]:
    """Between a plain step and the second trial of a stacked one."""
    last = len(expected) - buffers
    whole = float(torch.cat([gradient.flatten() for gradient in expected[1:last]]).norm())
    return [
        _apart(one, stacked[1], max(1e-7, ROUNDING * whole) if 0 < i < last else 1e-7)
        for i, (one, stacked) in enumerate(zip(expected, stepped, strict=True))
    ]


@torch.no_grad()
def _depend(model: nn.Module, x: Tensor) -> bool:
    """Whether in evaluation mode outputs change with the samples that are beside a sample."""
    device = devices.device_of(model.eval())
    if len(x) < 2:
        return False
    with devices.random_numbers_kept(device):
        few, more = (as_float(model(part.to(device))) for part in (x[: len(x) // 2], x))
    return not torch.allclose(few, more[: len(few)], rtol=1e-3, atol=1e-5, equal_nan=True)


_READERS = {
    getattr(Tensor, name)
    for name in ("item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__")
}


class _Reads(TorchFunctionMode):
    """Sees whether the value of a tensor is read, to decide by it.

    A ``TorchDispatchMode`` would see it, too, and import torch's compiler: a CPU second.
    """

    any = False
    padding = False
    """Whether there is an embedding of which a row has no gradient."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.any |= func in _READERS
        self.padding |= func is F.embedding and (kwargs or {}).get("padding_idx") is not None
        return func(*args, **(kwargs or {}))


class _Strays(TorchFunctionMode):
    """Sees whether a stacked step computes with weights of the model that are not the stacked."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.weights = {id(tensor) for tensor in (*trained, *model.buffers())}
        self.any = False

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, (int, float, torch.Size, torch.dtype, torch.device)):
            for given in (*args, *(kwargs or {}).values()):
                parts = given if isinstance(given, (list, tuple)) else [given]
                self.any |= any(id(part) in self.weights for part in parts)
        return result


def _shared(
    task: Task, stack: Stack, model: nn.Module, x: Tensor, y: Tensor, draws: bool
) -> str | None:
    """What a step does in Python, where all stacked trials are one; None if nothing."""
    numbers, tensors = _numbers(model.train()), _tensors(model)
    own = generators(model.modules())
    drawn = host_states(), generator_states(own)
    with _Reads() as reads:
        _plain_step(task, stack, model, x, y)
    for (name, key), value in _numbers(model).items():
        if numbers.get((name, key)) != value:
            return f"it keeps a number from batch to batch ({name}.{key})".replace("(.", "(")
    for (name, key), tensor in _tensors(model).items():  # one of the batch itself is the same now
        before = tensors.get((name, key))
        if before is None or not torch.equal(before.nan_to_num(), tensor.nan_to_num()):
            return f"it keeps a tensor from batch to batch ({name}.{key})".replace("(.", "(")
    if drawn != (host_states(), generator_states(own)):
        return "it draws random numbers of Python or numpy"
    if reads.padding:  # torch stacks it wrongly, see paddings_fixed
        return "it has an embedding with padding_idx that torch stacks wrongly"
    if draws and reads.any:  # what it skips at one step has no gradient
        return "it decides by random numbers"
    return None


def _numbers(model: nn.Module) -> dict[tuple[str, str], float]:
    """The numbers that modules keep as Python's own."""
    return {
        (name, key): value
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, (int, float))
    }


def _tensors(model: nn.Module) -> dict[tuple[str, str], Tensor]:
    """What modules of the user's own keep as plain attributes, tensors and numbers in a row."""
    return {
        (name, key): torch.cat([part.to_dense().flatten() for part in _parts(value)])
        for name, module in model.named_modules()
        for key, value in attributes(module).items()
    }


def _parts(value: Any) -> list[Tensor]:
    """The tensors and numbers of a tensor, a number, or a tuple, list or dict of them."""
    parts = parts_of(value) if isinstance(value, (tuple, list, dict)) else []
    return [t for part in parts for t in _parts(part)] or [torch.as_tensor(value)]


def _apart(one: Tensor, other: Tensor, rounding: float = 1e-7) -> float:
    """Relative distance, by norms: a ReLU that rounding turns over may move a number by much."""
    distance = float((other.float() - one.float()).norm())
    return 0.0 if distance <= rounding else distance / max(float(one.float().norm()), 1e-30)


def sample_inputs(task: Task, model: nn.Module, count: int) -> Tensor:
    """Inputs of the model, where it is: a transform may be a module with tensors of its own."""
    assert isinstance(task.train, Split)
    x = task.train.x[:count].to(devices.device_of(model))
    return task.transform(x) if task.transform else x


def _stacked_step(
    stack: Stack, model: nn.Module, x: Tensor, y: Tensor, shared: bool = True
) -> list[Tensor]:
    """Losses, gradients and buffers of two equal trials after a step.

    They share their inputs, as trials at one epoch do, or each has its own.
    """
    device = devices.device_of(model)
    x, y = stack.prepare(x.to(device)), y.to(device)
    values = dict(model.named_parameters())
    params = torch.empty(2, stack.width, device=device)
    grads = torch.empty_like(params)
    with torch.no_grad():
        for name, view in stack.views(params).items():
            view.copy_(values[name])
    buffers = {k: torch.stack([b.clone(), b.clone()]) for k, b in model.named_buffers()}
    with devices.random_numbers_kept(device):
        torch.manual_seed(0)
        drawn = torch.get_rng_state()
        if stack.dropout is not None:
            numbers = [torch.Generator(device).manual_seed(0) for _ in range(2)]
            stack.dropout.start(numbers, torch.tensor([0, 1], device=device))
        trainer = stack.trainer(params, grads, buffers, len(x))
        with quiet(), _Strays(model) as strays:
            trainer.step(x.expand(1 if shared else 2, *x.shape), y.expand(2, *y.shape))
            if strays.any:
                raise ValueError("it uses weights that it keeps in a list or a closure")
            if stack.dropout is not None and not torch.equal(drawn, torch.get_rng_state()):
                raise ValueError("it draws other random numbers than for dropout")
            if not shared:
                stack.outputs(params, buffers, x)  # in evaluation mode a model may do other things
    return [trainer.take_losses(1), *stack.views(grads).values(), *buffers.values()]


def _plain_step(task: Task, stack: Stack, model: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    """The same of one trial, without stacking."""
    device = devices.device_of(model.train())
    x, y = x.to(device), y.to(device)
    with devices.random_numbers_kept(device):
        torch.manual_seed(0)
        loss = task.loss(as_float(model(x)), y)
        values = dict(model.named_parameters())
        names = stack.views(torch.empty(1, stack.width, device="meta"))
        grads = torch.autograd.grad(loss, [values[name] for name in names])
    return [loss.detach(), *grads, *(b.clone() for _, b in model.named_buffers())]
