"""Where training runs. Everything that differs between devices is in this module."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lrsearch.errors import UsageError, unknown
from lrsearch.tasks.batch import as_float, to_device
from lrsearch.tasks.passes import host_kept, set_host_seed
from lrsearch.tasks.task import Split, Task, fresh_model, on_device

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
LARGE_PARAMETERS = 1_000_000
"""Without convolutions, a model gains from half precision from about this size on. Measured on one
core with AMX, batch 64: 0.01 M parameters 0.45 times the speed, 0.12 M 0.7, 0.27 M 1.0, 1.9 M 1.4;
small convolutional nets 2.0 to 2.6 times."""
KEEP_BYTES = 1 << 30
OLD_LIMIT_BYTES = 1 << 25
"""The largest threshold that older C libraries take."""


def available() -> list[str]:
    """The devices of this machine, by the names that ``--device`` takes."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = ["cpu", *(f"cuda:{i}" for i in range(gpus))]
    return [*found, "mps"] if torch.backends.mps.is_available() else found


def resolve(name: str) -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    ``auto`` takes the first CUDA device, else MPS, else the CPU.

    Raises:
        UsageError: No such device here; those that are here are listed.

    Example:
        >>> resolve("cpu")
        device(type='cpu')
    """
    here = available()
    if name == "auto":
        name = "cuda" if "cuda:0" in here else "mps" if "mps" in here else "cpu"
    if name == "cuda" and "cuda:0" in here:
        name = "cuda:0"
    if name in here:
        return torch.device(name)
    if not re.fullmatch(r"cpu|cuda(:\d+)?|mps", name):
        valid = f"valid: auto, cpu, cuda, cuda:N, mps; here: {', '.join(here)}"
        raise UsageError(f"unknown device {name!r} ({valid})")
    raise UsageError(f"device {name} is not here; this machine has {', '.join(here)} (or auto)")


def describe(device: torch.device, precision: str = "fp32") -> str:
    """The device for the screen: ``cuda:0 (NVIDIA H200), bf16``, ``cpu (Intel Xeon, 1 thread)``.

    The precision of a forward pass is named where it is not that of the weights.
    """
    half = "" if precision == "fp32" else f", {precision}"
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)}){half}"
    threads = torch.get_num_threads()
    count = f"{threads} thread{'s' if threads > 1 else ''}"
    named = f"{device} ({_cpu_name()}, {count})" if device.type == "cpu" else str(device)
    return named + half


@cache
def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text(errors="replace") if info.is_file() else ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    name = match[1] if match else platform.processor() or platform.machine()
    return re.sub(r"\((R|TM)\)|\bProcessor\b|\bCPU\b.*", "", name).strip() or "CPU"


def has_bf16(device: torch.device) -> bool:
    """Whether the device has units for bfloat16, so that it is faster than float32 there."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, lambda: False)() for name in asked)
    return False


def resolve_precision(name: str, device: torch.device, task: Task) -> str:
    """``fp32``, ``bf16`` or ``fp16`` for a task on a device.

    ``auto`` takes bf16 where the device has units for it, and the model gains and bears it: it has
    convolutions, or at least :data:`LARGE_PARAMETERS`, and does not mix number formats by hand.
    Weights always stay float32.

    Raises:
        UsageError: An unknown precision, or one that the device does not have.
    """
    if name not in PRECISIONS:
        raise unknown("precision", name, PRECISIONS)
    if name == "auto":
        if not has_bf16(device) or not _gains(task):
            return "fp32"
        kept = memory_format(task, fresh_model(task), device)
        fails = not _bears(task, device, "bf16", kept) and _bears(task, device, "fp32", kept)
        return "fp32" if fails else "bf16"
    if name == "fp16" and device.type == "cpu":
        raise UsageError("precision fp16 needs a GPU; on the cpu take bf16 or fp32")
    if name == "bf16" and device.type == "cuda" and not has_bf16(device):
        raise UsageError(f"precision bf16 is not on {describe(device)}; take fp16 or fp32")
    return name


def _gains(task: Task) -> bool:
    model = fresh_model(task)
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return task.parameters >= LARGE_PARAMETERS or any(
        isinstance(module, convolutions) for module in model.modules()
    )


def _bears(task: Task, device: torch.device, precision: str, kept: torch.memory_format) -> bool:
    """Whether it trains and evaluates: ``out[mask] = layer(x)``, say, fails in half precision."""
    with random_seed(device, 0), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            task = on_device(task, device)
            model, data = task.model().to(device).to(memory_format=kept).train(), task.train
            if isinstance(data, Split):
                data = [(data.x[: task.batch_size], data.y[: task.batch_size])]
            x, y = to_device(next(iter(data)), device)
            x = x if task.transform is None else task.transform(x)
            with autocast(device, precision):
                outputs = model(x)
            torch.autograd.backward(task.loss(as_float(outputs), y))
            with torch.no_grad(), autocast(device, precision):
                model.eval()(x)
        except Exception:  # noqa: BLE001 - the user's model may raise anything
            return False
    return True


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context in which a forward pass runs; nothing for fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


def device_of(model: nn.Module) -> torch.device:
    """Where a model is."""
    return next(model.parameters()).device


def memory_format(task: Task, model: nn.Module, device: torch.device) -> torch.memory_format:
    """Channels last for models with 2-d convolutions: 1.3 to 1.6 times faster on a CPU.

    Not for those that do not run so, as with ``x.view(len(x), -1)`` behind a convolution.
    """
    last, usual = torch.channels_last, torch.contiguous_format
    if device.type == "mps" or not any(isinstance(m, nn.Conv2d) for m in model.modules()):
        return usual
    key = id(task.model), device
    if key not in _FORMATS:
        fails = not _bears(task, device, "fp32", last) and _bears(task, device, "fp32", usual)
        _FORMATS[key] = task.model, usual if fails else last
    return _FORMATS[key][1]


_FORMATS: dict[tuple[int, torch.device], tuple[Any, torch.memory_format]] = {}
"""What was found, with the function whose ``id`` is in the key, so that no other has it."""


def place(task: Task, model: nn.Module, device: torch.device) -> nn.Module:
    """A model of the task on the device, in the memory format that suits all three."""
    return model.to(device).to(memory_format=memory_format(task, model, device))


def grad_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler | None:
    """The loss scale that fp16 needs; None for other precisions."""
    return torch.amp.GradScaler(device.type) if precision == "fp16" else None


def prepare(device: torch.device) -> None:
    """Settings of this process that make training faster.

    On a CPU: freed memory stays with the process. By default the C library gives activations back
    after each step and takes the page faults again in the next: 25% of a step of the convnet.
    On CUDA: convolutions are timed once per shape and the fastest is used, so that two processes
    may differ by rounding; what a task puts on "cuda" is put on this device.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True
    elif device.type == "cpu":
        _keep_freed_memory()


@contextmanager
def in_float32() -> Iterator[None]:
    """Convolutions of float32 numbers as they are: CUDA rounds them to 10 bits (TF32) by default.

    Nor are they timed, as :func:`prepare` asks, for a step that is taken once.
    """
    cudnn: Any = torch.backends.cudnn
    named_anew = hasattr(cudnn, "conv")  # from torch 2.9 on; who uses both names gets errors
    exact = (cudnn.conv, "fp32_precision", "ieee") if named_anew else (cudnn, "allow_tf32", False)
    settings = [exact, (cudnn, "benchmark", False)]
    before = [getattr(place, name) for place, name, _ in settings]
    for place, name, value in settings:
        setattr(place, name, value)
    try:
        yield
    finally:
        for (place, name, _), value in zip(settings, before, strict=True):
            setattr(place, name, value)


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is the one whose memory we manage."""
    here = sys.platform.startswith("linux") and platform.libc_ver()[0] == "glibc"
    return ctypes.CDLL(None) if here else None


@cache
def _keep_freed_memory() -> None:
    chosen = "MALLOC_MMAP_THRESHOLD_" in os.environ or "MALLOC_TRIM_THRESHOLD_" in os.environ
    chosen = chosen or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    library = _glibc()
    if library is None or chosen:
        return
    mmap_threshold, trim_threshold = -3, -1  # from malloc.h
    if not library.mallopt(mmap_threshold, KEEP_BYTES):
        library.mallopt(mmap_threshold, OLD_LIMIT_BYTES)
    library.mallopt(trim_threshold, KEEP_BYTES)


def random_numbers_kept(device: torch.device) -> AbstractContextManager[Any]:
    """What is drawn inside, on the CPU or the device, changes no random number drawn later."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


@contextmanager
def random_seed(device: torch.device, seed: int) -> Iterator[None]:
    """As :func:`~lrsearch.tasks.passes.host_seeded`, and those of ``device``, likewise."""
    on_device = None
    if device.type == "cuda":
        on_device = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        on_device = torch.mps.get_rng_state()
    try:
        with host_kept():
            set_seed(device, seed)
            yield
    finally:
        if on_device is not None and device.type == "cuda":
            torch.cuda.set_rng_state(on_device, device)
        elif on_device is not None:
            torch.mps.set_rng_state(on_device)


def set_seed(device: torch.device, seed: int) -> None:
    """Random numbers of the host and of the device from ``seed`` on, within such a context.

    To keep what was before takes 90 us, to set it anew 7.
    """
    set_host_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def give_back(device: torch.device) -> None:
    """Let other processes have the memory that is kept for the next tensors of this one."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "cpu" and (library := _glibc()) is not None:
        library.malloc_trim(0)
