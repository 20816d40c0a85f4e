"""Optimizers by name, with arguments that are checked before training starts."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from functools import cache, partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lrsearch.errors import LrsearchError, UsageError, brief, suggestion, unknown
from lrsearch.schedules.ranges import as_number
from lrsearch.schedules.trace import without_training
from lrsearch.tasks.check_optimizer import RATE, check_own
from lrsearch.tasks.plain import checked, plain

USUAL: dict[str, dict[str, Any]] = {"SGD": {"momentum": 0.9, "nesterov": True}}
"""Arguments that an optimizer gets when nothing else is said: torch's own SGD has no momentum."""

USUAL_LR = 0.1
"""The rate that recipes give SGD; other optimizers have the default of their class."""
OTHER_LR = 1e-3
"""The same where a class has none."""

REFUSED = {
    "LBFGS": "it calls a closure several times a step, and has no learning-rate schedule; try SGD "
    "or AdamW",
    "Rprop": "its first step alone has the rate, and no schedule changes the others; try SGD or "
    "AdamW",
}
FUSED: dict[str, tuple[str, ...]] = {
    "SGD": ("cpu", "cuda", "mps"),
    "Adam": ("cpu", "cuda", "mps"),
    "AdamW": ("cpu", "cuda", "mps"),
    "Adagrad": ("cpu",),
}
"""Optimizers with one kernel for a whole step, by device type; 2 to 4 times faster on a CPU."""

_KEPT_FROM_COMPILER = ("add_param_group", "state_dict", "load_state_dict", "zero_grad")
_NOT_ARGUMENTS = ("self", "params", "lr")


def optimizer_names() -> list[str]:
    """Classes of ``torch.optim`` that can be searched with."""
    return [
        name
        for name, found in sorted(vars(torch.optim).items())
        if inspect.isclass(found)
        and issubclass(found, Optimizer)
        and found is not Optimizer
        and name not in REFUSED
    ]


def optimizer_class(name: str | type[Optimizer]) -> type[Optimizer]:
    """The class for a name, in any case, or for ``package.module:Class`` or ``file.py:Class``.

    A class stands for itself.

    Raises:
        UsageError: There is none, or it cannot be used here; the nearest name is given.
    """
    if not isinstance(name, str):
        return name
    if ":" in name:
        return _own_class(name)
    names = optimizer_names()
    by_lower = {each.lower(): each for each in [*names, *REFUSED]}
    found = by_lower.get(name.lower())
    if found in REFUSED:
        raise UsageError(f"optimizer {found} cannot be used: {REFUSED[found]}")
    if found is None:
        raise unknown("optimizer", name, names)
    chosen: type[Optimizer] = getattr(torch.optim, found)
    return chosen


def _own_class(name: str) -> type[Optimizer]:
    from lrsearch.tasks.modules import import_module

    place, _, attribute = name.rpartition(":")
    module = import_module(place, "optimizer")
    found = getattr(module, attribute, None)
    if found is None:
        question = suggestion(attribute, [each for each in vars(module) if each[0] != "_"])
        raise UsageError(f"optimizer {name}: {place} has no {attribute!r}{question}")
    if not (inspect.isclass(found) and issubclass(found, Optimizer)):
        raise UsageError(f"optimizer {name} is no subclass of torch.optim.Optimizer")
    if not takes(found, "lr"):
        raise UsageError(f"optimizer {name} has no argument lr, the rate that a schedule sets")
    step, why = inspect.signature(found.step).parameters.get("closure"), ""
    if step is not None and step.default is inspect.Parameter.empty:
        why = "its step needs a closure"
    elif all(callable(getattr(found, method, None)) for method in ("train", "eval")):
        why = "its train() and eval() are for a training loop to call (schedule-free?)"
    if why:
        raise UsageError(
            f"optimizer {name} cannot be used: {why}; keep your own loop and use lrsearch.suggest"
        )
    return found


def optimizer_name(said: str, given: Any) -> str:
    """How an optimizer is called everywhere else: its name in torch.optim, or its place."""
    if isinstance(given, str):
        return given
    if isinstance(given, (list, tuple, Mapping)):
        raise UsageError(
            f"{said} must be a class such as torch.optim.AdamW, or its name, got a "
            f"{type(given).__name__}; one optimizer trains a task, several in a loop of your own "
            "(lrsearch.suggest)"
        )
    if not (isinstance(given, type) and issubclass(given, Optimizer)):
        kind = f"{type(given).__name__} already made"
        got = kind if isinstance(given, Optimizer) else f"{given!r:.80}"
        raise UsageError(
            f"{said} must be a class such as torch.optim.AdamW, or its name, got {got}; "
            "its arguments go to optimizer_args, groups to param_groups"
        )
    name = str(given.__name__)
    known = getattr(torch.optim, name, None) is given
    return name if known else f"{given.__module__}:{given.__qualname__}"


def usual_lr(optimizer: str | type[Optimizer]) -> float:
    """The rate that recipes give an optimizer: 0.1 for SGD, for others the default of their class.

    Args:
        optimizer: A class, or its name.

    Raises:
        UsageError: As for :func:`optimizer_class`.

    Example:
        >>> usual_lr("SGD"), usual_lr("AdamW")
        (0.1, 0.001)
    """
    chosen = optimizer_class(optimizer)
    if issubclass(chosen, torch.optim.SGD):
        return USUAL_LR
    parameter = inspect.signature(chosen.__init__).parameters.get("lr")
    rate = as_number(getattr(parameter, "default", None))
    return rate if rate is not None and rate > 0 else OTHER_LR


def usual_range(optimizer: str | type[Optimizer], lr: float) -> tuple[float, float]:
    """Where to search around a usual rate: from a hundredth of it to 10 times it, or 100 times.

    SGD diverges not far above the rate of its recipes; optimizers that scale their steps go on to
    train well above their defaults.

    Example:
        >>> usual_range("SGD", 0.1)
        (0.001, 1.0)
    """
    chosen = optimizer_class(optimizer)
    most = 10 if issubclass(chosen, torch.optim.SGD) else 100
    return lr / 100, lr * most


def resolve_optimizer(
    name: str, args: Mapping[str, Any], device: torch.device | None = None
) -> tuple[str, dict[str, Any]]:
    """The exact class name and the full arguments, tried in a step or a few.

    Args:
        name: A class of ``torch.optim`` in any case, or ``package.module:Class``,
            ``file.py:Class``.
        args: Arguments without ``lr``; those of :data:`USUAL` are added.
        device: Where it will train; None = the CPU.

    Raises:
        UsageError: An unknown name or argument (the nearest is given), a value that the optimizer
            refuses, or one of the user's own that does not work.

    Example:
        >>> resolve_optimizer("sgd", {"weight_decay": 5e-4})
        ('SGD', {'momentum': 0.9, 'nesterov': True, 'weight_decay': 0.0005})
    """
    chosen: Any = optimizer_class(name)
    exact = name if ":" in name else chosen.__name__
    known = inspect.signature(chosen.__init__).parameters
    valid = [each for each in known if each not in _NOT_ARGUMENTS]
    for key in args:
        if key == "lr":
            raise UsageError("optimizer argument lr is what is searched; give --lr LOW,HIGH")
        if key == "maximize" and args[key]:
            raise UsageError("optimizer argument maximize would raise the loss; leave it out")
        if key in _NOT_ARGUMENTS or not takes(chosen, key):
            question = suggestion(key, valid)
            raise UsageError(
                f"optimizer {exact} has no argument {key!r}{question} (valid: {', '.join(valid)})"
            )
    args = {key: plain(f"{exact} {key}", value) for key, value in args.items()}
    if ":" not in name:
        args = {key: checked(f"{exact} {key}", known[key].default, args[key]) for key in args}
    full = {key: tuple(v) if isinstance(v, list) else v for key, v in args.items()}
    full = USUAL.get(exact, {}) | full
    if (
        exact == "SGD"
        and "nesterov" not in args
        and (not full["momentum"] or full.get("dampening"))
    ):
        del full["nesterov"]
    if ":" in name:
        check_own(exact, partial(chosen, lr=RATE, **full), device)
        return exact, full
    try:
        _try_step(name, full, device, sparse=issubclass(chosen, torch.optim.SparseAdam))
    except Exception as error:  # torch's optimizers raise many kinds
        raise UsageError(f"optimizer {exact} refuses its arguments: {error}") from error
    return exact, full


def _try_step(
    name: str, args: Mapping[str, Any], device: torch.device | None, *, sparse: bool
) -> None:
    """A step of one parameter, whose gradient is sparse or not."""
    tried: Any = optimizer_class(name)
    tried = tried if ":" in name else without_compiler(tried)
    parameter = nn.Parameter(torch.zeros(1, 1, device=device))
    gradient = torch.zeros_like(parameter)
    parameter.grad = gradient.to_sparse(1) if sparse else gradient
    tried([parameter], lr=0.1, **args).step()


def check_gradients(name: str, args: Mapping[str, Any], model: nn.Module) -> None:
    """Make sure that an optimizer takes sparse gradients, or others (:class:`LrsearchError`)."""
    kinds = (nn.Embedding, nn.EmbeddingBag)
    tables = {id(m.weight) for m in model.modules() if isinstance(m, kinds) and m.sparse}
    if not tables and not issubclass(optimizer_class(name), torch.optim.SparseAdam):
        return
    for sparse in {id(p) in tables for p in model.parameters() if p.requires_grad}:
        try:
            _try_step(name, args, None, sparse=sparse)
        except Exception as error:  # as above
            raise LrsearchError(
                f"optimizer {name} does not take the {'sparse' if sparse else 'dense'} gradients "
                f"of {type(model).__name__} ({brief(error)}); SGD and Adagrad take both kinds, "
                "SparseAdam sparse ones only"
            ) from error


def takes(optimizer: str | type[Optimizer], argument: str) -> bool:
    """Whether a class, or the one of that name, has an argument of this name, or takes any.

    Raises:
        UsageError: As for :func:`optimizer_class`.

    Example:
        >>> takes("SGD", "momentum"), takes(torch.optim.AdamW, "momentum")
        (True, False)
    """
    chosen = optimizer_class(optimizer)
    known = inspect.signature(chosen.__init__).parameters
    return argument in known or any(p.kind is p.VAR_KEYWORD for p in known.values())


def build_optimizer(
    name: str,
    args: Mapping[str, Any],
    model: nn.Module,
    *,
    lr: float,
    groups: Iterable[Any] | None = None,
    trains: bool = True,
) -> Optimizer:
    """A fresh optimizer for a model, in its fastest form on the model's device.

    Args:
        name: Name or path of the class.
        args: Arguments without ``lr``.
        model: Its trainable parameters are optimized.
        lr: Rate, for groups without their own.
        groups: Parameter groups; None = one.
        trains: False for one that only holds rates and arguments.

    Raises:
        LrsearchError: The optimizer refuses the model's parameters.
    """
    chosen: Any = optimizer_class(name)
    if not trains:
        chosen = without_training(chosen)
    elif ":" not in name:
        chosen = without_compiler(chosen)
    trainable = [p for p in model.parameters() if p.requires_grad]
    args = dict(args)
    kinds = {p.device.type for p in trainable}
    if (
        not {"foreach", "fused", "differentiable"} & set(args)
        and len(kinds) == 1
        and kinds.pop() in FUSED.get(name, ())
        and all(p.is_floating_point() for p in trainable)
        and not any(getattr(module, "sparse", False) for module in model.modules())
    ):
        args["fused"] = True
    try:
        optimizer: Optimizer = chosen(trainable if groups is None else groups, lr=lr, **args)
    except (TypeError, ValueError, RuntimeError) as error:
        raise LrsearchError(
            f"optimizer {name} does not take the parameters of {type(model).__name__}: {error}"
        ) from error
    with_buffers = name == "SGD" and args.get("momentum") and not args.get("dampening")
    if trains and args.get("fused") and with_buffers:
        # torch's fused SGD takes no parameter that begins later than others (no gradient yet);
        # a buffer of zeros is as good as none
        for parameter in trainable:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


@cache
def without_compiler(optimizer: type[Optimizer]) -> type[Optimizer]:
    """An optimizer class of torch that trains as it is, without torch's compiler.

    torch's own imports the compiler for the first object, to keep it out of these methods: 1.3 CPU
    seconds of every process.
    """
    plain = inspect.unwrap(optimizer.step)

    def step(self: Optimizer, closure: Any = None) -> Any:
        with torch.set_grad_enabled(self.defaults.get("differentiable", False)):
            return plain(self, closure)

    kept = {name: inspect.unwrap(getattr(optimizer, name)) for name in _KEPT_FROM_COMPILER}
    return type(optimizer.__name__, (optimizer,), {**kept, "step": step})
