"""How much of a trained epoch is bare arithmetic, and how near that is to what a core can do.

    python -m tests.benchmarks.limits --task digits
    python -m tests.benchmarks.limits --task cifar10 --data-dir DIR --train-samples 2000

The matrix products (of 16 fused trials) or the convolutions (of a single trial) of one epoch with
its validation are done alone, in the same shapes and precision; then a whole epoch; then a large
product, which shows the peak. In turn, again and again, in CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lrsearch.tasks import Split, Task, load_task
from lrsearch.tasks.batch import EVALUATION_ELEMENTS
from lrsearch.training import device as devices
from lrsearch.training.products import as_torch, product
from lrsearch.training.stacked_mlp import CHUNK_FLOATS, layers_of
from tests.benchmarks.training import CPU, ours

FUSED = 16
PEAK_SIZE = 1024
LEAST_SECONDS = 0.3
Work = list[tuple[Callable[[], Any], float, int]]
"""Calls, the floating-point operations of each, and how often an epoch makes it."""


def products(task: Task) -> Work:
    """The matrix products of an epoch of fused trials."""
    assert isinstance(task.validation, Split)
    layers = layers_of(task.model())
    assert layers is not None
    work: Work = []
    batch, every = task.batch_size, FUSED * 2.0
    widest = max(layer.outputs for layer in layers)
    rows = min(len(task.validation), CHUNK_FLOATS // (FUSED * widest))
    for i, layer in enumerate(layers):
        w = torch.randn(FUSED, layer.inputs + 1, layer.outputs)
        for count, passes in (
            (batch, task.steps_per_epoch),
            (rows, 2 * len(task.validation) // rows),
        ):
            h = torch.randn(FUSED, count, layer.inputs + 1)
            z = torch.empty(FUSED, count, layer.outputs + 1)[:, :, :-1]
            work.append((product(h, w, z), every * count * w[0].numel(), passes))
        h, d = h.new_ones(FUSED, batch, layer.inputs + 1), h.new_ones(FUSED, batch, layer.outputs)
        flops, steps = every * batch * w[0].numel(), task.steps_per_epoch
        work.append((product(h.transpose(1, 2), d, torch.empty_like(w)), flops, steps))
        if i:
            down = partial(torch.bmm, d, w[:, :-1].transpose(1, 2), out=h[:, :, :-1].clone())
            work.append((down, flops, steps))
    return work


def convolutions(task: Task, dtype: torch.dtype) -> Work:
    """The convolutions of an epoch of one trial."""
    assert isinstance(task.train, Split)
    assert isinstance(task.validation, Split)
    model = devices.place(task, task.model(), CPU)
    large = EVALUATION_ELEMENTS // task.train.x[0].numel()
    work: Work = []

    def note(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        x, out = (t.detach().to(dtype) for t in (inputs[0], output))
        w = module.weight.detach().to(dtype)
        flops = 2.0 * out.numel() * w[0].numel()
        forward = partial(
            nn.functional.conv2d,
            x,
            w,
            None,
            module.stride,
            module.padding,  # type: ignore[arg-type]
        )
        if len(x) == large:
            work.append((forward, flops, 2 * len(task.validation) // large))
            return
        below = module.in_channels != task.train.x.shape[1]
        places = (module.stride, module.padding, module.dilation)
        back = partial(
            torch.ops.aten.convolution_backward, out, x, w, None, *places, False, [0, 0], 1,
            [below, True, False],
        )  # fmt: skip
        work.append((forward, flops, task.steps_per_epoch))
        work.append((back, flops * (1 + below), task.steps_per_epoch))

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)  # type: ignore[arg-type]
    for size in (task.batch_size, large):
        x = task.train.x[:size]
        model(task.transform(x) if task.transform else x.float())
    return work


def spent(call: Callable[[], Any], times: int) -> float:
    """CPU seconds."""
    began = time.process_time()
    for _ in range(times):
        call()
    return time.process_time() - began


def main() -> None:
    """Measure in turn; print one JSON object with medians and ranges."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--task", default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--train-samples", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    task = load_task(args.task, data_dir=args.data_dir, train_samples=args.train_samples)
    fused = layers_of(task.model()) is not None
    dtype = torch.float32
    if devices.resolve_precision("auto", CPU, task) == "bf16":
        dtype = torch.bfloat16
    large = torch.randn(PEAK_SIZE, PEAK_SIZE, dtype=dtype)
    found: dict[str, list[float]] = {}
    with torch.no_grad(), as_torch():
        work = products(task) if fused else convolutions(task, dtype)
        flops = sum(each * times for _, each, times in work)
        whole = ours(task, FUSED if fused else 0)
        train = torch.enable_grad()(whole)
        for call in (train, *(call for call, _, _ in work), partial(torch.mm, large, large)):
            call()
        epochs = max(1, round(LEAST_SECONDS / spent(train, 1)))
        for _ in range(args.rounds):
            alone = sum(spent(call, times * epochs) for call, _, times in work) / epochs
            epoch = spent(train, epochs) / epochs
            peak = 2 * PEAK_SIZE**3 * 4 / spent(partial(torch.mm, large, large), 4)
            told = {
                "epoch: CPU ms": 1e3 * epoch,
                "arithmetic alone: CPU ms": 1e3 * alone,
                "arithmetic: share of the epoch": alone / epoch,
                "arithmetic: GFLOP/s": 1e-9 * flops / alone,
                "large product: GFLOP/s": 1e-9 * peak,
            }
            for name, value in told.items():
                found.setdefault(name, []).append(value)
    rows = {
        name: [round(f(values), 3) for f in (statistics.median, min, max)]
        for name, values in found.items()
    }
    print(json.dumps({"n": args.rounds, "precision": str(dtype), **rows}, indent=1))


if __name__ == "__main__":
    main()
