"""One dry batch through a task: what is wrong with it is said before the first trial."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sized
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lrsearch.divergence import DIVERGED_LOSS
from lrsearch.errors import LrsearchError, UsageError
from lrsearch.schedules.convert import set_rates
from lrsearch.tasks.batch import as_float, elements, evaluation_size, joined, scored, to_device
from lrsearch.tasks.check_loss import (
    called,
    check_functions,
    check_labels,
    check_targets,
    is_float,
    versions,
)
from lrsearch.tasks.check_model import Twin, alike, detached, made, same
from lrsearch.tasks.mistakes import CPU, call, here_or_there, shape, wrong
from lrsearch.tasks.optimizers import without_compiler
from lrsearch.tasks.passes import begin, generators, seeded, set_generators
from lrsearch.tasks.task import Data, Split, Task, on_device


def check(task: Task, device: torch.device = CPU) -> None:
    """Try one training step and one validation batch of a task.

    Args:
        task: The task.
        device: Where. Data and model are moved there.

    Raises:
        LrsearchError: The first mistake found: no model, models that share what they train or
            begin with other weights, a model that does not fit the data, parameter groups that no
            optimizer takes, a loss that is no finite scalar or does not depend on the model, an
            empty loader, batches that are no (x, y), labels out of range, a metric that is no
            number.

    Example:
        >>> check(load_task("digits"))
    """
    task = on_device(task, device)
    targets = [data.y for data in (task.train, task.validation) if isinstance(data, Split)]
    before = versions(targets)
    with seeded(0):
        model = made(task, device)
        twin = Twin(task, model, device)
        check_functions(task)
        x, y = _batch(task, task.train, "train", device)
        _check_groups(task, model)
        check_targets(task, y)
        twin.takes(x)
        with seeded(0):
            set_generators(generators(model.modules()), 0)
            outputs = _outputs(task, model, x, task.train, "train")
        twin.sees(outputs)
        loss = _scalar(task, "loss", task.loss, outputs, y, _culprit("train", x=x, y=y))
        if not loss.requires_grad:
            raise wrong(
                task,
                "the loss does not depend on the model's parameters (is a detach() "
                "or no_grad() in the way?)",
            )
        call(task, "the backward pass", loss.backward)
        twin.after_step(model)
        twin.runs()
        check_labels(task, outputs)
        _check_last(task, model, x)
        _evaluate(task, model, task.validation, "validation", device)
    if versions(targets) != before:
        raise wrong(
            task,
            "the loss or the metric changes its targets in place, and with them the data; let it "
            "make new ones (y - 1, not y -= 1)",
        )
    _check_length(task)


def load_test(task: Task, device: torch.device = CPU) -> Data | None:
    """The test part of a task, tried on one batch: before hours of training, not after them.

    Args:
        task: The task.
        device: Where it will be measured.

    Returns:
        None for a task without one.

    Raises:
        LrsearchError: It cannot be loaded, or does not fit the model.
    """
    if task.test is None:
        return None
    data: Data = call(task, "loading the test data", task.test)

    def attempt(where: torch.device) -> None:
        with seeded(0):
            _evaluate(on_device(task, where), made(task, where), data, "test", where)

    here_or_there(attempt, device)
    return data


@torch.no_grad()
def _evaluate(task: Task, model: nn.Module, data: Data, part: str, device: torch.device) -> None:
    """One batch as it is evaluated."""
    model.eval()
    x, y = _batch(task, data, part, device)
    outputs = _outputs(task, model, x, data, part)
    _check_size(task, model, data, part, x, outputs)
    _check_joined(task, model, data, part, device)
    name = "validation_loss" if task.validation_loss else "loss"
    culprit = _culprit(part, x=x, y=y)
    _scalar(task, name, task.validation_loss or task.loss, outputs, y, culprit)
    if task.metric is not None:
        few = (
            f"it is taken of the first batch of {part}, {shape(y)}, and is averaged over batches; "
            "with validation_loss (your loss will do) it sees all samples at once"
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some warn of so few samples
            metric = partial(scored, task.metric)
            _scalar(task, "metric", metric, outputs, y, "" if task.validation_loss else few)


def _batch(task: Task, data: Data, part: str, device: torch.device) -> tuple[Any, Any]:
    """The first batch on the device, transformed."""
    if isinstance(data, Split):
        x, y = data.x[: task.batch_size], data.y[: task.batch_size]
        if task.augment is not None and part == "train" and x.dim() != 4:
            raise wrong(task, f"augment needs images (n, C, H, W), got x {tuple(data.x.shape)}")
    else:
        batch = _first(task, data, part)
        if batch is None:
            dataset = getattr(data, "dataset", None)
            short = isinstance(dataset, Sized) and len(dataset) > 0
            few = "; has it fewer samples than a batch, and drop_last?" if short else ""
            raise wrong(task, f"{part} is empty: its {type(data).__name__} gives no batch{few}")
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            kind = type(batch).__name__
            size = f" of {len(batch)}" if isinstance(batch, Sized) else ""
            fix = "make pairs of them in the Dataset or its collate_fn, such as ((a, b), y)"
            if isinstance(batch, Tensor) or size == " of 1":
                fix = "where the loss needs no targets, give the inputs for y, too"
            raise wrong(
                task,
                f"{part} must give batches (x, y), got a {kind}{size}; {fix}, or keep your own "
                "loop and use lrsearch.suggest",
            )
        before = detached(batch)
        if not alike(before, _first(task, data, part)):
            raise wrong(
                task,
                f"{part} gives other numbers when it is gone through again with the same seed, so "
                "trials would differ by more than the schedule; draw with the functions of torch, "
                "numpy or random, or by a generator that is an attribute of the Dataset or its "
                "transform; change no stored sample in place; and count epochs by set_epoch; or "
                "keep your own loop and use lrsearch.suggest",
            )
        x, y = batch
    x, y = to_device((x, y), device)
    if task.transform is not None:
        what = f"transform of {shape(x)}"
        given, x = x, _unchanged(task, what, task.transform, x, data)
        if isinstance(data, Split) and not same(x, call(task, what, task.transform, given)):
            raise wrong(
                task,
                "transform gives something else when it is called again, and samples that are "
                "tensors are transformed once; what is random belongs into augment or a Dataset",
            )
    return x, y


def _first(task: Task, data: Data, part: str) -> Any:
    """The first batch of a loader as a trial sees it; None where there is none."""
    with seeded(0):
        begin(data, 0, 0)
        batches = iter(call(task, f"going through {part}", iter, data))
        return call(task, f"loading the first batch of {part}", next, batches, None)


def _outputs(task: Task, model: nn.Module, x: Any, data: Data, part: str, note: str = "") -> Any:
    what = f"the model {type(model).__name__} on a {part} batch {shape(x)}{note}"
    return as_float(_unchanged(task, what, model, x, data))


def _unchanged(task: Task, what: str, function: Callable[[Any], Any], x: Any, data: Data) -> Any:
    """``function(x)``, which would change the data themselves in every epoch if it changed x.

    A DataLoader gives copies of them.
    """
    if not isinstance(x, Tensor) or isinstance(data, DataLoader):
        return call(task, what, function, x)
    given = x.clone()
    result = call(task, what, function, given)
    if not same(given, x):
        raise wrong(
            task,
            f"{what} changes its inputs in place; let it make new ones (x - 1, not x -= 1 or "
            "x.sub_(1))",
        )
    return result


def _scalar(
    task: Task,
    name: str,
    function: Callable[..., Any],
    outputs: Any,
    y: Any,
    culprit: str = "look at the data and the model",
) -> Tensor:
    value = called(task, name, function, outputs, y)
    if isinstance(value, (int, float)) and name == "metric":
        value = torch.tensor(float(value))
    if not isinstance(value, Tensor):
        raise wrong(task, f"{name} must give a scalar tensor, got a {type(value).__name__}")
    if value.numel() != 1 or value.dim() > 1:
        mean = "; take its mean over the batch" if "loss" in name else ""
        raise wrong(task, f"{name} must be a scalar, got shape {tuple(value.shape)}{mean}")
    what = f"the {name} of outputs {shape(outputs)} and targets {shape(y)}"
    number = call(task, what, value.item)  # what failed on a device is said here
    if not math.isfinite(number) and culprit:  # of a part it says nothing without one
        raise wrong(task, f"the first {name} is {number}; {culprit}")
    if "loss" in name and number >= DIVERGED_LOSS:
        raise wrong(
            task,
            f"the first {name} is {number:.3g}; from {DIVERGED_LOSS:g} on a loss counts as "
            "diverged: scale the targets, or divide the loss",
        )
    return value


def _culprit(part: str, **tensors: Any) -> str:
    """Where a loss that is not finite comes from."""
    for name, value in tensors.items():
        if is_float(value) and not bool(torch.isfinite(value).all()):
            return f"{part} {name} holds NaN or infinity: clean the data"
    return "look at the data and the model"


def _check_groups(task: Task, model: nn.Module) -> None:
    """What an optimizer would refuse in every trial, and groups of another model's parameters."""
    if task.param_groups is None:
        return
    groups = call(task, "param_groups", task.param_groups, model)
    optimizer: Any = without_compiler(torch.optim.SGD)
    built = call(task, "an optimizer of param_groups", optimizer, groups, task.lr)
    try:
        set_rates(built, task.lr, keep_lr=False)
    except UsageError as error:
        raise wrong(task, f"param_groups: {error}") from error
    own = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    if not any(id(p) in own for group in built.param_groups for p in group["params"]):
        raise wrong(
            task,
            "param_groups gives none of the model's trainable parameters; take them from the "
            "model that it is called with",
        )


def _check_last(task: Task, model: nn.Module, x: Any) -> None:
    """The last batch of an epoch may be one sample, on which batch norm does not train."""
    data = task.train
    samples: Any = data
    size, keeps = task.batch_size, isinstance(data, Split) and not task.drop_last
    if isinstance(data, DataLoader):
        samples, size, keeps = data.sampler, data.batch_size or 1, not data.drop_last
    if not keeps or not isinstance(samples, Sized) or len(samples) % size != 1:
        return
    if isinstance(x, Tensor):
        what = (
            "the last batch of train has one sample (give its DataLoader, or the task, "
            f"drop_last=True, or another batch size), and the model {type(model).__name__} on it"
        )
        with torch.no_grad():
            call(task, what, model, x[:1])


def _check_size(task: Task, model: nn.Module, data: Data, part: str, x: Any, outputs: Any) -> None:
    """Samples that are tensors are validated in batches of other sizes than in training."""
    if not isinstance(data, Split):
        return
    each = elements(outputs) // len(x)
    size = evaluation_size(task.batch_size, x[0].numel(), each, x.device)
    if {min(size, len(data)), len(data) % size} - {0} != {task.batch_size}:
        other = torch.cat([x, x])[: 2 if task.batch_size == 3 else 3]
        note = ", which may have any number of samples whatever training has,"
        _outputs(task, model, other, data, part, note)


def _check_joined(
    task: Task, model: nn.Module, data: Data, part: str, device: torch.device
) -> None:
    """The first two batches of a loader become one, where all samples are seen at once."""
    if isinstance(data, Split) or task.validation_loss is None:
        return
    outputs, targets = [], []
    for x, y in call(task, f"loading two batches of {part}", list, itertools.islice(data, 2)):
        x, y = to_device((x, y), device)
        x = x if task.transform is None else task.transform(x)
        outputs.append(_outputs(task, model, x, data, part))
        targets.append(y)
    try:
        joined(outputs, "outputs")
        joined(targets, "targets")
    except LrsearchError as error:
        raise wrong(task, str(error)) from None


def _check_length(task: Task) -> None:
    if task.steps_per_epoch < 1:
        raise wrong(task, f"train is empty: its {type(task.train).__name__} has length 0")
