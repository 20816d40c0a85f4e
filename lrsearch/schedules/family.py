"""What a family is: its arguments, its search space, and how torch builds it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from lrsearch.errors import UsageError, did_you_mean, unknown
from lrsearch.schedules.args import Arg, Kind
from lrsearch.schedules.ranges import Dim

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

Interval = Literal["epoch", "step"]


@dataclass(frozen=True)
class Draw:
    """What the decoding of searched values into torch's arguments may look at.

    Args:
        lr: Peak rate.
        epochs: Epochs left after the warmup, at least 1.
        interval: When the scheduler will be stepped.
    """

    lr: float
    epochs: int
    interval: Interval


@dataclass(frozen=True)
class Job:
    """What building a torch scheduler may look at beside its arguments.

    Args:
        lr: Peak rate that the arguments were written for.
        rates: Peak rate of each parameter group.
        steps: Scheduler steps left after the warmup.
        steps_per_epoch: Scheduler steps in an epoch (1 when stepping per epoch).
        warmup: Scheduler steps of linear warmup.
        warmup_start: Factor it starts from.
        cycle_momentum: Whether the optimizer has a momentum (or beta1) above 0 to move.
    """

    lr: float
    rates: tuple[float, ...]
    steps: int
    steps_per_epoch: int
    warmup: int
    warmup_start: float
    cycle_momentum: bool

    def scaled(self, rate: float) -> list[float]:
        """An absolute ``rate`` for each group, in proportion to the group's own peak."""
        return [rate * (own / self.lr) for own in self.rates]

    def one_or_each(self, rates: list[float]) -> float | list[float]:
        """A single number where all groups agree, which keeps torch's own objects plain."""
        return rates[0] if all(rate == rates[0] for rate in rates) else rates


def _same(values: dict[str, Any], draw: Draw) -> dict[str, Any]:
    return values


@dataclass(frozen=True)
class Family:
    """A scheduler type that can be searched.

    Args:
        name: torch's class name, or a name of your own.
        summary: What it does, in a few words.
        args: What a schedule of it holds, in torch's names; durations in epochs.
        search: Budget in epochs -> what is searched (name -> range or choice).
        build: (optimizer, arguments in scheduler steps, job) -> scheduler. Durations have been
            multiplied and per-epoch factors rooted already.
        decode: (searched values, draw) -> arguments; by default they are the same.
        trap: What goes wrong when it is used carelessly, and what happens here instead.
        warmup: ``before`` (a linear warmup is put before it, by ``SequentialLR``, which takes
            neither a ``ChainedScheduler`` nor another of its kind), ``own`` (``build`` does that
            itself), ``no`` (it cannot carry one).
        interval: When it is stepped by default.
        min_epochs: Shortest budget it makes sense for when stepped per epoch.
        min_epochs_per_step: The same when stepped per step.
        needs_metric: Steps on a loss, so it has no trace.
        searched: Part of a search over all families.
        check: (arguments, budget after warmup) -> mistakes, beyond those of single arguments.

    Example:
        >>> from lrsearch.schedules import Arg, Family, Range
        >>> def build(optimizer, args, job):
        ...     from torch.optim.lr_scheduler import PolynomialLR
        ...     return PolynomialLR(optimizer, total_iters=job.steps, power=args["power"])
        >>> square = Family(
        ...     "SquareRoot", "polynomial below 1", {"power": Arg(low=0.1, high=1)},
        ...     search=lambda epochs: {"power": Range(0.2, 0.9)}, build=build)
    """

    name: str
    summary: str
    args: Mapping[str, Arg]
    search: Callable[[int], Mapping[str, Dim]]
    build: Callable[[Optimizer, dict[str, Any], Job], LRScheduler]
    decode: Callable[[dict[str, Any], Draw], dict[str, Any]] = field(default=_same)
    trap: str = ""
    warmup: Literal["before", "own", "no"] = "before"
    interval: Interval = "epoch"
    min_epochs: int = 1
    min_epochs_per_step: int = 1
    needs_metric: bool = False
    searched: bool = True
    check: Callable[[Mapping[str, Any], int], list[str]] | None = None

    @property
    def carries_warmup(self) -> bool:
        """Whether a warmup can come before it."""
        return self.warmup != "no"

    def shortest(self, interval: Interval) -> int:
        """Fewest epochs it makes sense for when stepped per ``interval``."""
        return self.min_epochs if interval == "epoch" else self.min_epochs_per_step


FAMILIES: dict[str, Family] = {}
"""Every family by name: torch's fifteen schedulers, ``Points``, and those a user registered."""


def register(family: Family) -> Family:
    """Add a family of your own; it is then searched, drawn and exported like the built-in ones.

    Args:
        family: Its name must be free.

    Raises:
        UsageError: The name is taken, or it is no family, or one with mistakes.
    """
    if not isinstance(family, Family):
        raise UsageError(f"register takes a Family, got {family!r:.60}")
    if family.name in FAMILIES:
        raise UsageError(
            f"a schedule family named {family.name!r} is there already; choose another name"
        )
    if mistakes := _mistakes(family):
        raise UsageError(f"schedule family {family.name!r}: {'; '.join(mistakes)}")
    FAMILIES[family.name] = family
    return family


def _mistakes(family: Family) -> list[str]:
    """What is wrong with a user's family, before anything is asked of it."""
    found = []
    if not str(family.name).isidentifier():
        found.append("its name must be a Python name, as it stands before the dot in parameters")
    words = {"warmup": ("before", "own", "no"), "interval": get_args(Interval)}
    for field_name, known in words.items():
        if (given := getattr(family, field_name)) not in known:
            found.append(f"{field_name} must be one of {', '.join(known)}, got {given!r:.60}")
    for field_name in ("search", "build", "decode"):
        if not callable(given := getattr(family, field_name)):
            found.append(f"{field_name} must be a function, got {given!r:.60}")
    args: Mapping[str, Any] = family.args
    for name, arg in args.items():
        if not isinstance(arg, Arg):
            found.append(f"argument {name} must be an Arg, got {arg!r:.60}")
        elif arg.kind not in get_args(Kind):
            kinds = ", ".join(get_args(Kind))
            found.append(f"argument {name}: kind must be one of {kinds}, got {arg.kind!r:.60}")
    return found


def get_family(name: str) -> Family:
    """The family of a name.

    Args:
        name: A key of :data:`FAMILIES`.

    Raises:
        UsageError: There is none; names the nearest.
    """
    if not isinstance(name, str) or name not in FAMILIES:
        raise unknown_family(name)
    return FAMILIES[name]


def stepping(interval: str, family: Family | None) -> str:
    """When to step a scheduler, as a call and an occasion.

    Args:
        interval: Of the schedule.
        family: Its family; None for one of the user's own that is not known here.
    """
    if interval == "step":
        return "scheduler.step() after every optimizer.step()"
    if family is not None and family.needs_metric:
        return "scheduler.step(val_loss) once an epoch, after the validation"
    return "scheduler.step() once an epoch, not after every optimizer.step()"


def unknown_family(name: Any) -> UsageError:
    """The error for a name that is no family: the nearest, or how one of the user's own comes."""
    hint = "lrsearch schedules lists all"
    if did_you_mean(str(name), FAMILIES) is None:
        hint += "; one of your own comes with --import FILE.py, in Python by importing its module"
    return unknown("schedule family", name, FAMILIES, hint)


def home(family: Family) -> str | None:
    """The file that another process imports to have the family; None if it has it, or cannot.

    Families of this package are there; one that a script registered, or a notebook, has no file
    that could be imported without running that again.
    """
    place = getattr(family.build, "__module__", None)
    if place is None or place == "__main__":
        return None
    file = getattr(sys.modules.get(place), "__file__", None)
    return None if file is None or is_builtin(family) else str(file)


def is_builtin(family: Family) -> bool:
    """Whether it is one of this package's."""
    return str(getattr(family.build, "__module__", "")).startswith("lrsearch.schedules.")
