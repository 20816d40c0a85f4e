"""How a study uses its machine: trials fused in a worker, workers, threads of each, precision.

Measured on one core, CPU time of a trial with the best number of trials fused, as a share of that
of ``SingleRunner``: Linear nets of 9 thousand parameters 16%, 26 thousand 29%, 85 thousand 60%,
235 thousand 74%, 300 thousand 89%; convolutional nets 130 to 260% (grouped convolutions leave the
cache), which gain from a second worker of one thread instead. On a GPU, and for nets of other
kinds, a few steps of both ways are timed on the spot.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lrsearch.errors import brief
from lrsearch.schedules import Schedule
from lrsearch.tasks.task import Data, Split, Task, fresh_model
from lrsearch.training import device as devices
from lrsearch.training.runner import Runner
from lrsearch.training.stacked import why_not_fused
from lrsearch.training.stacked_mlp import layers_of

THREADS = 1
"""Of a worker; two that shared busy cores were up to 7 times slower than one."""
FIT_BYTES = 1 << 22
"""Weights, gradients, momentum and average of all fused trials: more of it measured no faster."""
LARGE_PARAMETERS = 250_000
"""A Linear net of this size keeps a core busy alone."""
MOST_FUSED = 64
LEAST_FIT = 4
"""Fused at least, however large the net: fewer gain less than they share."""
FIRST_TRIALS = 8
"""A study's first trials are baselines and random ones, which need not wait for each other."""
TRIALS_PER_SLOT = 8
"""A sampler that has seen less than this many trials per running one hardly steers."""
LEAST_GAIN = 1.25
"""Fuse only where it measures at least this much faster."""
TIMED_STEPS = 4
"""Steps of an epoch that is timed on a CPU, which a few of them keep busy."""
TIMED_STEPS_AWAY = 20
"""The same on an accelerator, where what surrounds a short epoch would count too much."""
TIMED_FUSED = 16
"""Trials fused in it on a CPU."""
TIMED_FUSED_AWAY = (4, 16, 64)
"""The same on an accelerator, of which small nets fill only a part."""
LONG_STEP = 5e-3
"""Seconds of a step on a CPU from which on fusing is not tried: it saves some 1 ms of a step. An
encoder of 13 ms gained 0.8 to 1.2 times, and to see that took 4 CPU seconds."""
GROUPS = 1.5
"""A search has k fused trials at so many times sqrt(k) different epochs (3, 4, 6 of 4, 8, 16)."""
WORKER_SECONDS = 20.0
"""Work (CPU seconds) that repays the start of one more process."""
STEP_SECONDS = 1e-4
"""Time of a small step on a CPU, whatever its size."""
FLOPS = 5e10
"""Floating-point operations per second of one core, on small matrices."""


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Args:
        fuse: Trials trained as one stacked model in each worker; 1 = one at a time.
        workers: Processes.
        threads: CPU threads of each.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        why: One line for the user.
    """

    fuse: int
    workers: int
    threads: int
    precision: str
    why: str


def choose(
    task: Task,
    device: torch.device,
    optimizer: str,
    trials: int,
    fuse: int | str = "auto",
    workers: int | str = "auto",
    precision: str = "auto",
    optimizer_args: Mapping[str, Any] | None = None,
    cores: int | None = None,
) -> Choice:
    """Choose what was left to ``auto``; what cannot be fused is not, and ``why`` says so.

    Args:
        task: What is trained.
        device: Where.
        optimizer: Class name in torch.optim.
        trials: The study's target.
        fuse: ``auto``, ``off``, or trials per worker from 1 up.
        workers: ``auto``, or processes from 1 up.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        optimizer_args: Arguments of the optimizer, without ``lr``; None = the task's own.
        cores: CPU cores; None = those this process may use.

    Raises:
        UsageError: As of :func:`lrsearch.training.device.resolve_precision`.

    Example:
        >>> choose(load_task("digits"), torch.device("cpu"), "SGD", trials=200, cores=2)
        Choice(fuse=16, workers=1, threads=1, precision='fp32', why='16 trials fused (small ...')
    """
    cores = cores or usable_cores()
    wanted_fuse = None if fuse == "auto" else 1 if fuse == "off" else int(fuse)
    wanted_workers = None if workers == "auto" else int(workers)
    model = fresh_model(task)
    chosen_precision = devices.resolve_precision(precision, device, task)
    small = layers_of(model) is not None and chosen_precision == "fp32"
    share = trials // (wanted_workers or 1)
    most = max(1, min(MOST_FUSED, share, max(FIRST_TRIALS, share // TRIALS_PER_SLOT)))

    if wanted_fuse == 1:
        count, reason = 1, "not fused, as asked"
    elif wanted_fuse is None and device.type == "cpu" and _has_convolution(model):
        count, reason = 1, "not fused: convolutions lose from it on a CPU"
    elif why := why_not_fused(task, optimizer, optimizer_args, chosen_precision, device):
        count, reason = 1, f"not fused: {why}"
    elif wanted_fuse:
        count, reason = min(wanted_fuse, max(1, trials)), "as asked"
    elif device.type == "cpu" and small:
        count, reason = _fuse_small(task, most)
    else:
        count, reason = _fuse_measured(
            task, device, optimizer, optimizer_args, chosen_precision, most
        )

    count_workers = wanted_workers or _workers(task, device, trials, count, small, cores)
    fused = f"{count} trials fused ({reason})" if count > 1 else reason
    many = f"{count_workers} worker{'s' * (count_workers > 1)} of {THREADS} thread"
    why = f"{fused}, {many}, {chosen_precision}"
    return Choice(count, count_workers, THREADS, chosen_precision, why)


def usable_cores() -> int:
    """CPU cores this process may use: affinity, and the quota of its container."""
    counted = getattr(os, "process_cpu_count", os.cpu_count)() or 1
    if hasattr(os, "sched_getaffinity"):
        counted = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            counted = min(counted, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return counted


def _has_convolution(model: nn.Module) -> bool:
    return any(isinstance(m, nn.modules.conv._ConvNd) for m in model.modules())


def _fuse_small(task: Task, most: int) -> tuple[int, str]:
    """As many trials as stay in the cache."""
    if task.parameters > LARGE_PARAMETERS:
        return 1, "not fused: the net is large enough to keep a core busy"
    fit = FIT_BYTES // (4 * 4 * max(1, task.parameters))
    count = min(most, max(LEAST_FIT, _power_of_two(fit)))
    return (count, "small Linear net") if count > 1 else (1, "not fused: too few trials to share")


def _power_of_two(number: int) -> int:
    return 1 << max(0, number.bit_length() - 1)


def _workers(
    task: Task, device: torch.device, trials: int, fuse: int, small: bool, cores: int
) -> int:
    """One on a GPU; on a CPU one per core, where the work repays their start."""
    if device.type != "cpu":
        return 1
    most = max(1, min(cores, trials // max(1, fuse)))
    if not small or not isinstance(task.train, Split):
        return most
    steps = trials * task.epochs * task.steps_per_epoch
    work = 6 * task.parameters * task.batch_size / FLOPS + STEP_SECONDS / fuse
    return max(1, min(most, int(steps * work / WORKER_SECONDS)))


def _fuse_measured(
    task: Task,
    device: torch.device,
    optimizer: str,
    optimizer_args: Mapping[str, Any] | None,
    precision: str,
    most: int,
) -> tuple[int, str]:
    """Time a few steps of one trial, and of some fused ones."""
    from lrsearch.training.ensemble import EnsembleRunner
    from lrsearch.training.loop import SingleRunner

    if most == 1:
        return 1, "not fused: too few trials to share"
    here = device.type == "cpu"
    tried = (TIMED_FUSED,) if here else TIMED_FUSED_AWAY
    settings: dict[str, Any] = {
        "optimizer": optimizer,
        "optimizer_args": task.optimizer_args if optimizer_args is None else optimizer_args,
        "seed": 0,
        "device": device,
        "precision": precision,
    }
    part = replace(
        task,
        train=_first(task.train, (TIMED_STEPS if here else TIMED_STEPS_AWAY) * task.batch_size),
        validation=_first(task.validation, task.batch_size),
        validate_every=1,
    )
    gains: dict[int, float] = {}
    with devices.random_numbers_kept(device), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a metric may warn of so few samples, at every step
        try:
            alone = _seconds(SingleRunner(part, **settings), 1, part)
            if here and alone > LONG_STEP * TIMED_STEPS:
                return 1, "not fused: its steps keep a core busy"
            for count in sorted({min(most, many) for many in tried}):
                together = _seconds(EnsembleRunner(part, k=count, **settings), count, part)
                gains[count] = count * alone / together
        except Exception as error:  # noqa: BLE001 - the user's model may raise anything
            if not gains:  # more may be too many, for memory or for a kernel
                return 1, f"not fused: trying it failed ({brief(error)})"
    devices.give_back(device)
    count = max(gains, key=lambda many: gains[many])
    if gains[count] < LEAST_GAIN:
        return 1, f"not fused: {count} at once measured {gains[count]:.1f} times the speed"
    return count, f"measured {gains[count]:.1f} times the speed"


def _first(split: Data, count: int) -> Split:
    assert isinstance(split, Split)
    return Split(split.x[:count], split.y[:count])


def _seconds(runner: Runner, count: int, task: Task) -> float:
    """Wall seconds of one short epoch of ``count`` trials, the first one left out.

    Trials that share an epoch's random numbers are spread over epochs as in a search.
    """
    apart = round(GROUPS * math.sqrt(count)) if getattr(runner, "draws", False) else 1
    schedule = Schedule("ConstantLR", task.lr / 10, apart + 3)
    for key in range(count):
        if key and key * apart // count > (key - 1) * apart // count:
            runner.epoch()
        runner.add(key, schedule)
    runner.epoch()
    return min(next(iter(runner.epoch().values())).seconds for _ in range(2))
