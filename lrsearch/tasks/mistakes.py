"""What is wrong with a task, in one line: whatever the user's own functions may raise."""

from __future__ import annotations

import sysconfig
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lrsearch.errors import LrsearchError, brief
from lrsearch.tasks.task import Task

CPU = torch.device("cpu")
_OURS = Path(__file__).parents[1]
_LIBRARIES = ("site-packages", "dist-packages")
_PYTHON = sysconfig.get_path("stdlib")


def wrong(task: Task, why: str) -> LrsearchError:
    """The error that says so, by the task's name."""
    return LrsearchError(f"task {task.name}: {why}")


def with_place(error: BaseException) -> str:
    """:func:`brief`, and the last line of the user's own files that it went through.

    Example: ``KeyError: 'labels' (net.py, line 12)``.
    """
    lines = [
        f" ({Path(frame.f_code.co_filename).name}, line {line})"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if _is_the_users(Path(frame.f_code.co_filename))
    ]
    return brief(error) + "".join(lines[-1:])


def _is_the_users(file: Path) -> bool:
    """Whether a file is neither ours, nor Python's, nor that of an installed library."""
    installed = any(part in _LIBRARIES for part in file.parts) or file.is_relative_to(_PYTHON)
    return not installed and not file.is_relative_to(_OURS) and file.is_file()


def call(task: Task, what: str, function: Callable[..., Any], *args: Any) -> Any:
    """``function(*args)``; what it raises, and a silent broadcast of targets, is the user's."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Using a target size")
            return function(*args)
    except LrsearchError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise wrong(task, f"{what} fails: {with_place(error)}{_advice(error, what)}") from error


def here_or_there(attempt: Callable[[torch.device], object], device: torch.device) -> None:
    """Try something on the CPU, and where that fails on the device: some models run there alone.

    First on the CPU, since what is an error there, as a label out of range, takes CUDA down.

    Raises:
        LrsearchError: It fails on both; or on the CPU, which is the device.
    """
    try:
        attempt(CPU)
    except LrsearchError as error:
        if device.type == "cpu":
            raise
        here = error
    else:
        return
    try:
        attempt(device)
    except LrsearchError as there:
        raise here if "device-side assert" in str(there) else there from None


_AS_IT_IS = (
    "the model is called with x of a batch as it is, also a tuple or dict: let forward take one "
    "argument, and unpack it there"
)
_DERIVATIVES = (
    "take derivatives by the inputs in the model's forward, of x.detach().requires_grad_() inside "
    "torch.enable_grad(), as validation runs without gradients"
)
_ADVICE = {
    "Using a target size": "give the targets the shape of the outputs, such as y[:, None]; what "
    "are classes, convert with .long()",
    "target with class probabilities": "give the numbers of the classes, y.argmax(1), or floats",
    "1D target tensor expected": "give the numbers of the classes in one dimension, y.squeeze(1)",
    "expected target dtype to be Long": "convert the targets with .long()",
    "expected scalar type Long": "convert the targets with .long()",
    "desired output type Long": "convert the targets with .float()",
    "is out of bounds": "labels go from 0 to the model's outputs less one; what shall be ignored, "
    "say to torch.nn.CrossEntropyLoss(ignore_index=...)",
    "cross_entropy_loss(): argument 'input'": "the loss is cross-entropy where the task has none "
    "of its own: give it one, a function of (outputs, y)",
    "cross_entropy_loss(): argument 'target'": "give the numbers of the classes as a tensor; "
    "texts have them in numpy.unique(y, return_inverse=True)[1]",
    "same dtype": "convert the data with .float(), or in transform",
    "should be the same": "convert the data with .float(), or in transform",
    "expected m1 and m2": "convert the data with .float(), or in transform",
    "stack expects each tensor": "give a DataLoader whose collate_fn pads samples to one length",
    "default_collate": "let each sample be tensors, arrays or numbers (images by "
    "torchvision.transforms.v2.functional.pil_to_tensor), or give a DataLoader with a collate_fn",
    "targets should not be none": "a detector wants them beside the images: let x be (images, "
    "targets), and wrap it in a module whose forward gives the losses, in evaluation mode as well",
    "same device": "make tensors where the inputs are (x.new_zeros, device=x.device), or keep "
    "them with register_buffer",
    "required positional argument": _AS_IT_IS,
    "two bool tensors": "convert the targets with .float()",
    "numpy.ndarray": "give tensors in the batches, torch.as_tensor(array)",
    "does not require grad": _DERIVATIVES,
}
"""What torch says of the commonest mistakes -> what to do."""
_CONTAINERS = ("dict", "tuple", "list")


def _advice(error: Exception, what: str) -> str:
    said = str(error)
    found = next((tip for part, tip in _ADVICE.items() if part in said), "")
    inside = any(f"'{kind}' object" in said or f"not {kind}" in said for kind in _CONTAINERS)
    if what.startswith("the model ") and inside:  # a layer was given the whole batch
        found = _AS_IT_IS
    if what.startswith("making ") and found == _AS_IT_IS:
        found = "the model is made without arguments: give lambda: ...(...) with those it needs"
    return f"; {found}" if found else ""


def shape(value: Any) -> str:
    """``(64, 10) float32`` for messages."""
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return f"of type {type(value).__name__}"
