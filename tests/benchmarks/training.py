"""CPU seconds of a trained epoch, without sampling or storing, in one of three ways.

python -m tests.benchmarks.training --task digits --way plain
python -m tests.benchmarks.training --task digits --way single
python -m tests.benchmarks.training --task digits --way 16

On a GPU what counts is ``images_per_second``, of the wall clock; only ``plain`` needs Optuna:

python -m tests.benchmarks.training --task cifar10 --data-dir DIR --device cuda --way single
python -m tests.benchmarks.training --task cifar10 --data-dir DIR --device cuda --way 16

Where CIFAR-10 is not at hand, images as many and as large take as long:

python -c "from tests.datafiles import *; write_cifar10(Path('made'), 10_000)"  # --data-dir made
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch

from lrsearch.schedules import Schedule
from lrsearch.tasks import Split, Task, load_task
from lrsearch.training import device as devices
from lrsearch.training import loop
from lrsearch.training.averaging import WeightAverage
from lrsearch.training.ensemble import EnsembleRunner
from lrsearch.training.loop import SingleRunner
from lrsearch.training.runner import Runner

CPU = torch.device("cpu")


def plain(task: Task, device: torch.device) -> Callable[[], int]:
    """The loop of the plain script: a function that trains on and tells how many epochs."""
    from tests.benchmarks.plain_optuna import loaders, train_epoch, validate

    train, valid = loaders(task)
    model = task.model().to(device)
    rule = getattr(torch.optim, task.optimizer)
    optimizer = rule(model.parameters(), lr=task.lr / 2, **task.optimizer_args)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)

    def advance() -> int:
        for _ in range(task.validate_every):
            train_epoch(task, model, train, optimizer, scheduler, "epoch", device)
        validate(task, model, valid, device)
        return task.validate_every

    return advance


def ours(
    task: Task, k: int, average: bool = True, device: torch.device = CPU
) -> Callable[[], int]:
    """K fused trials, or one alone for 0; perhaps without the running average of the weights."""
    half = not k or device.type != "cpu"
    precision = devices.resolve_precision("auto", device, task) if half else "fp32"
    settings: dict[str, Any] = {
        "optimizer": task.optimizer,
        "optimizer_args": task.optimizer_args,
        "seed": 0,
        "device": device,
        "precision": precision,
    }
    count = max(1, k)
    runner: Runner = EnsembleRunner(task, k=k, **settings) if k else SingleRunner(task, **settings)
    if not average:
        without_average(runner)
    budget = 10**5 // task.steps_per_epoch + 1
    for key in range(count):
        runner.add(key, Schedule("ConstantLR", task.lr * (key + 1) / count, budget))

    def advance() -> int:
        runner.epoch()
        return count * task.validate_every

    return advance


def without_average(runner: Runner) -> None:
    """Leave out the running average of the weights and its validation; its numbers are the raw."""
    if isinstance(runner, EnsembleRunner):
        torch.Tensor.lerp_ = lambda self, *rest: self  # type: ignore[method-assign, assignment]
        stack, real, latest = runner._stack, runner._stack.outputs, list[Any]()

        def in_pairs(*given: Any) -> Any:
            if latest:
                return latest.pop()
            latest.append(real(*given))
            return latest[0]

        stack.outputs = in_pairs  # type: ignore[method-assign]
        return
    WeightAverage.update = lambda self, step: None  # type: ignore[method-assign]
    WeightAverage.current = lambda self: self.source  # type: ignore[method-assign]
    measured, known = loop.measure, list[Any]()

    def once(*given: Any) -> Any:
        if known:
            return known.pop()
        known.append(measured(*given))
        return known[0]

    loop.measure = once


def main() -> None:
    """Train for some seconds; print one JSON object."""
    parser = argparse.ArgumentParser(description="Cost of a trained epoch.")
    parser.add_argument("--task", default="digits")
    parser.add_argument("--way", default="16", help="plain, single, or trials fused")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--data-dir")
    parser.add_argument("--train-samples", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-average", action="store_true", help="to see what it costs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    task = load_task(args.task, data_dir=args.data_dir, train_samples=args.train_samples)
    k = 0 if args.way == "single" else int(args.way) if args.way.isdecimal() else None
    device = devices.resolve(args.device)
    advance = plain(task, device) if k is None else ours(task, k, not args.no_average, device)
    advance()
    began, start, epochs, wall = time.process_time(), time.perf_counter(), 0, 0.0
    while not epochs or wall < args.seconds:
        epochs += advance()
        wall = time.perf_counter() - start
    cpu = time.process_time() - began
    images = len(task.train) * epochs if isinstance(task.train, Split) else 0
    told = {"ms_per_epoch": 1e3 * cpu / epochs, "epochs": epochs}
    told |= {"images_per_cpu_second": images / cpu, "images_per_second": images / wall}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
