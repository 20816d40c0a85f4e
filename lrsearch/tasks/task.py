"""A task: the model, its three splits, its loss and metric, and the defaults of a recipe."""

from __future__ import annotations

import contextlib
import copy
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from lrsearch.errors import LrsearchError, UsageError
from lrsearch.tasks.images import Augment
from lrsearch.tasks.optimizers import optimizer_name, usual_lr, usual_range
from lrsearch.tasks.plain import own_number, whole_number

LossFn = Callable[[Tensor, Tensor], Tensor]
MetricFn = Callable[[Tensor, Tensor], Tensor]
TransformFn = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Split:
    """Samples as tensors, so that they can live on the device.

    Args:
        x: Inputs, shape (n, ...). Images may stay uint8 (n, C, H, W): ``Task.transform`` makes
            floats of them on the device.
        y: Targets, shape (n, ...).

    Raises:
        UsageError: ``x`` and ``y`` differ in length, or are empty.
    """

    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise UsageError(
                f"a split needs one y for each x, got {len(self.x)} x, {len(self.y)} y"
            )
        if len(self.x) == 0:
            raise UsageError("a split needs at least one sample, got 0")

    def __len__(self) -> int:
        return len(self.x)


Data = Split | Iterable[Any]
"""A :class:`Split`, or the user's own loader that yields (x, y) batches."""


def accuracy(outputs: Tensor, y: Tensor, ignore: int = -100) -> Tensor:
    """Share of samples whose largest logit is the label; logits (B, classes, ...), y (B, ...).

    Of targets that are shares of the classes, (B, classes, ...), the largest is the label. Labels
    that are ``ignore``, as cross-entropy ignores them, do not count.
    """
    labels = y.argmax(dim=1) if y.dim() == outputs.dim() else y
    kept = labels != ignore
    return ((outputs.argmax(dim=1) == labels) & kept).sum() / kept.sum().clamp(min=1)


def auto_loss(outputs: Tensor, y: Tensor) -> Tensor:
    """Stands for "by the targets": mean squared error for floats, cross-entropy for classes."""
    return F.mse_loss(outputs, y) if y.is_floating_point() else F.cross_entropy(outputs, y)


def auto_metric(outputs: Tensor, y: Tensor) -> Tensor:
    """Stands for "by the loss": accuracy beside cross-entropy, none beside any other."""
    return accuracy(outputs, y)


@dataclass(frozen=True)
class Task:
    """What is trained. Only the schedule varies between the trials of a study; this stays.

    Args:
        name: Name for the screen, and for a study made from Python; ``lrsearch run`` calls the
            study after the object or its file, or by ``--name``.
        model: Makes a fresh model; called under a fixed seed (of torch, numpy and Python), so all
            trials start alike. Generators that it keeps are set for each epoch.
        train: Training samples: a :class:`Split`, or any iterable (DataLoader) of (x, y) batches.
            x goes to the model as it is, y to the loss; both may be tensors, tuples or dicts
            (``examples/dict_batches.py``). Where the loss needs no targets, y is x again;
            two views of a sample are one x, (a, b). A DataLoader's workers start anew for each
            epoch, ``persistent_workers`` or not, and generators that it, a Dataset or a transform
            keeps as an attribute are set, so that what is drawn at random is the same in all
            trials. What counts its epochs needs ``set_epoch``, which is called with them. Samples
            of a Dataset in a plain DataLoader without workers are kept in memory, where two
            readings show that nothing of them is random, and they take less than 256 MB and ten
            seconds. Pairs of tensors are then trained like a Split, in the order of the loader.
        validation: Validation samples, likewise. The search judges by their loss.
        test: Loads the test samples; only ``confirm`` and ``train`` call it. None = no test part.
        model_name: Name for the screen.
        loss: (outputs, y) -> scalar, the mean over the batch: validation, too, is done in batches
            whose size is ours to choose. By default cross-entropy, or mean squared error where a
            Split has targets of floats. It keeps nothing from call to call. Batches weigh by their
            samples, which the first dimension of the targets counts; where padding is not to
            count, give ``validation_loss`` as well.
        validation_loss: (outputs, y) -> scalar over *all* validation outputs at once, for which
            padded batches need one length; None = the mean of ``loss``.
        metric: (outputs, y) -> scalar, the mean over the batch, larger is better; None = none. By
            default accuracy beside cross-entropy, none beside any other loss. What is no mean
            over samples, such as F1 or AUC: give ``validation_loss`` as well, which may be the
            loss, and the metric sees all outputs at once, too. An object with ``reset``, as those
            of torchmetrics, is reset before each call.
        metric_name: Its name for the screen; by default that of the function.
        batch_size: Samples per step, for a Split.
        drop_last: Whether the last batch of an epoch, where it is smaller, is left out; a
            DataLoader has its own.
        epochs: Budget of one full trial.
        validate_every: Epochs between validations.
        optimizer: A class of ``torch.optim``, or its name; or a subclass of ``Optimizer`` of your
            own, or its place as ``package.module:Class``.
        optimizer_args: Its arguments, without ``lr``; those left out are the usual ones
            (:data:`lrsearch.tasks.optimizers.USUAL`). Another optimizer (``--optimizer``) gets
            none of them.
        lr: The rate a usual recipe has; the baselines run at it. None = the highest of the groups
            where ``param_groups`` gives each a rate, else the optimizer's
            (:func:`lrsearch.tasks.optimizers.usual_lr`).
        lr_range: Bounds of the search for the peak rate, low < high. None = around ``lr``
            (:func:`lrsearch.tasks.optimizers.usual_range`).
        transform: Applied to inputs on the device, a batch or all at once, in training and
            validation; it draws no random numbers.
        augment: Applied before it, in training only; needs a Split of images (n, C, H, W).
        param_groups: model -> parameter groups for the optimizer, each may have its own ``lr``
            (kept in proportion); None = one group.
        clip_grad_norm: The gradient of all parameters together is scaled down to this norm, as
            ``torch.nn.utils.clip_grad_norm_`` does; None = it is not.
        unit: What one sample is called on the screen.

    Raises:
        UsageError: A number out of range, or an optimizer that is none.

    Example:
        >>> x, y = torch.randn(256, 8), torch.randint(0, 2, (256,))
        >>> task = Task("mine", lambda: nn.Linear(8, 2), Split(x, y), Split(x, y), batch_size=32)
        >>> task.steps_per_epoch
        8
    """

    name: str
    model: Callable[[], nn.Module]
    train: Data
    validation: Data
    test: Callable[[], Data] | None = None
    model_name: str = "model"
    loss: LossFn = auto_loss
    validation_loss: LossFn | None = None
    metric: MetricFn | None = auto_metric
    metric_name: str = ""
    batch_size: int = 64
    drop_last: bool = True
    epochs: int = 30
    validate_every: int = 1
    optimizer: str = "SGD"
    optimizer_args: Mapping[str, Any] = field(default_factory=dict)
    lr: float = cast(Any, None)  # a number once it is made
    lr_range: tuple[float, float] = cast(Any, None)
    transform: TransformFn | None = None
    augment: Augment | None = None
    param_groups: Callable[[nn.Module], Iterable[Any]] | None = None
    clip_grad_norm: float | None = None
    unit: str = "samples"

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "validate_every"):
            value = whole_number(f"task {self.name}: {name}", getattr(self, name))
            object.__setattr__(self, name, value)
        for name in ("lr", "clip_grad_norm"):
            object.__setattr__(self, name, own_number(getattr(self, name)))
        if not isinstance(self.optimizer_args, Mapping):
            raise UsageError(
                f"task {self.name}: optimizer_args must be a dict such as {{'momentum': 0.9}}, "
                f"got {self.optimizer_args!r:.80}"
            )
        optimizer, lr, lr_range = cast(Any, (self.optimizer, self.lr, self.lr_range))
        object.__setattr__(
            self, "optimizer", optimizer_name(f"task {self.name}: optimizer", optimizer)
        )
        if lr is None:
            object.__setattr__(self, "lr", _highest_rate(self) or usual_lr(optimizer))
        if not _is_number(self.lr) or not self.lr > 0:
            raise UsageError(f"task {self.name}: lr must be a number above 0, got {self.lr!r}")
        if lr_range is None:
            object.__setattr__(self, "lr_range", usual_range(optimizer, self.lr))
        bounds = self.lr_range
        if not isinstance(bounds, (tuple, list)) or [*map(_is_number, bounds)] != [True, True]:
            raise UsageError(f"task {self.name}: lr_range must be (low, high), got {bounds!r}")
        low, high = bounds
        if not 0 < low < high:
            raise UsageError(
                f"task {self.name}: lr_range needs 0 < low < high, got {low:g} and {high:g}"
            )
        clip = self.clip_grad_norm
        if clip is not None and (not _is_number(clip) or not clip > 0):
            raise UsageError(
                f"task {self.name}: clip_grad_norm must be a number above 0, got {clip!r:.60}"
            )
        if self.loss is auto_loss:
            floats = isinstance(self.train, Split) and self.train.y.is_floating_point()
            object.__setattr__(self, "loss", F.mse_loss if floats else F.cross_entropy)
        if self.metric is auto_metric:
            classes = self.loss is F.cross_entropy or isinstance(self.loss, nn.CrossEntropyLoss)
            ignore = getattr(self.loss, "ignore_index", -100)
            beside = accuracy if ignore == -100 else partial(accuracy, ignore=ignore)
            object.__setattr__(self, "metric", beside if classes else None)
            object.__setattr__(self, "metric_name", self.metric_name or "accuracy")
        if self.metric is None:
            object.__setattr__(self, "metric_name", "")
        elif not self.metric_name:
            name = getattr(self.metric, "__name__", "metric")
            object.__setattr__(self, "metric_name", "metric" if name == "<lambda>" else name)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one epoch."""
        if isinstance(self.train, Split):
            return batches_per_epoch(len(self.train), self.batch_size, self.drop_last)
        # A loader of an IterableDataset has __len__ in name only.
        with contextlib.suppress(TypeError):
            return len(self.train)  # type: ignore[arg-type]
        what, lacks, unit = f"a {type(self.train).__name__}", "it", "batches"
        if isinstance(self.train, DataLoader) and isinstance(self.train.dataset, IterableDataset):
            lacks = type(self.train.dataset).__name__
            what += f" of {lacks}"
            unit = unit if self.train.batch_size is None else "samples"
        raise LrsearchError(
            f"task {self.name}: train is {what}, which has no length; give {lacks} __len__ "
            f"({unit} per epoch), so that schedules know the steps of an epoch"
        )

    @cached_property
    def parameters(self) -> int:
        """Number of trainable parameters of the model."""
        return sum(p.numel() for p in fresh_model(self).parameters() if p.requires_grad)

    @cached_property
    def groups(self) -> list[dict[str, Any]]:
        """What the parameter groups differ in, as plain values; nothing without ``param_groups``.

        Each has the rates and arguments that its dict has, and ``parameters``, their number.
        """
        plain = [_plain(group) for group in _groups(self) if isinstance(group, Mapping)]
        usual = {"lr": self.lr} if any("lr" in group for group in plain) else {}
        return [usual | group for group in plain]

    def describe(self) -> str:
        """One line: ``convnet 0.15 M parameters, 45,000 train / 5,000 validation images``."""
        train, validation = (_count(data) for data in (self.train, self.validation))
        counts = f"{train or '?'} train / {validation or '?'} validation {self.unit}"
        return f"{self.model_name} {_short(self.parameters)} parameters, {counts}"


def fresh_model(task: Task) -> nn.Module:
    """A model with new weights; what was drawn for them changes no random number drawn later."""
    with torch.random.fork_rng(devices=[]):
        return task.model()


def on_device(task: Task, device: torch.device) -> Task:
    """The task with those of its functions on the device that are modules, with class weights."""
    names = ("loss", "validation_loss", "metric", "transform")
    moved: dict[str, Any] = {
        name: copy.deepcopy(found).to(device)
        for name in names
        if isinstance(found := getattr(task, name), nn.Module)
        and (device.type != "cpu" or _is_elsewhere(found))
    }
    return replace(task, **moved) if moved else task


def _is_elsewhere(module: nn.Module) -> bool:
    """Whether something of it is not on the CPU, where a user has put it on a device."""
    return any(t.device.type != "cpu" for t in (*module.parameters(), *module.buffers()))


def batches_per_epoch(samples: int, batch_size: int, drop_last: bool) -> int:
    """Batches of an epoch, at least 1.

    Example:
        >>> batches_per_epoch(450, 256, True), batches_per_epoch(450, 256, False)
        (1, 2)
    """
    return max(1, samples // batch_size) if drop_last else -(-samples // batch_size)


def _groups(task: Task) -> list[Any]:
    """The parameter groups of a fresh model; none without ``param_groups``."""
    if task.param_groups is None:
        return []
    with torch.random.fork_rng(devices=[]):
        return list(task.param_groups(task.model()))


def _highest_rate(task: Task) -> float | None:
    """Of the parameter groups; None where one of them has none of its own."""
    try:
        rates = [float(group["lr"]) for group in _groups(task)]
        return max(rates) if rates and all(map(math.isfinite, rates)) else None
    except Exception:  # noqa: BLE001 - also what is wrong with them, which the check will say
        return None


def _plain(group: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter group without its tensors."""
    given = group["params"]
    tensors = [given] if isinstance(given, Tensor) else list(given)
    named = [t[1] if isinstance(t, tuple) else t for t in tensors]  # as named_parameters gives
    plain = {
        key: value if isinstance(value, (bool, int, float, str)) else json.loads(_json(value))
        for key, value in group.items()
        if key != "params"
    }
    return plain | {"parameters": sum(t.numel() for t in named)}


def _json(value: Any) -> str:
    """Lists, numbers and None as JSON; a tensor by its value, anything else by its words."""
    return json.dumps(value, default=lambda x: x.tolist() if isinstance(x, Tensor) else str(x))


def _is_number(value: Any) -> bool:
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return plain and math.isfinite(value)


def _count(data: Data) -> str | None:
    """Samples in a split or loader, as text with thousands separated; None if unknown."""
    if isinstance(data, Split):
        return f"{len(data):,}"
    dataset = getattr(data, "dataset", None)
    return f"{len(dataset):,}" if isinstance(dataset, Sized) else None


def _short(n: int) -> str:
    """``148_234`` -> ``0.15 M``, ``8_970`` -> ``9.0 k``, ``112`` -> ``112``."""
    if n >= 100_000:
        return f"{n / 1e6:.2f} M"
    return f"{n / 1e3:.1f} k" if n >= 1000 else str(n)
