"""How torch builds each family: (optimizer, arguments in scheduler steps, job) -> scheduler.

torch's own object wherever it can do it. Only a floor that differs between parameter groups
(``eta_min`` is one number in torch) is built as a ``LambdaLR`` of the same curve.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lrsearch.schedules import shapes
from lrsearch.schedules.convert import set_rate
from lrsearch.schedules.family import Job

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from lrsearch.schedules.schedule import Schedule

Args = dict[str, Any]
Build = Callable[["Optimizer", Args, Job], "LRScheduler"]


def warmup(optimizer: Optimizer, job: Job) -> LRScheduler:
    """The linear warmup: ``warmup_start`` of the peak to the peak in ``job.warmup`` steps."""
    from torch.optim.lr_scheduler import LinearLR

    return LinearLR(optimizer, start_factor=job.warmup_start, total_iters=job.warmup)


def behind_warmup(
    optimizer: Optimizer, args: Args, job: Job, build: Build, own: bool
) -> LRScheduler:
    """``build``'s scheduler, after a warmup where there is one.

    Args:
        optimizer: The optimizer.
        args: Arguments in scheduler steps.
        job: What else there is to know.
        build: Of the family.
        own: It is one of the user's own, whose scheduler may go on from the rate that it finds.
    """
    if not job.warmup:
        return build(optimizer, args, job)
    first = warmup(optimizer, job)
    then = build(optimizer, args, job)
    return sequential(optimizer, [first, then], [job.warmup], from_peak=own)


def sequential(
    optimizer: Optimizer, legs: list[LRScheduler], milestones: list[int], from_peak: bool = False
) -> LRScheduler:
    """torch's ``SequentialLR``, without the warning that torch 2.8 to 2.10 give at each switch.

    ``from_peak``: a leg finds the peak rate when it begins, as it would alone, not the rate with
    which the one before it ended.
    """
    from torch.optim.lr_scheduler import LRScheduler, SequentialLR

    if hasattr(LRScheduler, "_update_lr") and not from_peak:
        return SequentialLR(optimizer, legs, milestones)

    # As numbers: torch 2.8 writes the rates of a tensor over the initial ones.
    peaks = [float(group["initial_lr"]) for group in optimizer.param_groups]

    class Own(SequentialLR):
        def step(self) -> None:  # type: ignore[override]
            if self.last_epoch + 1 not in self._milestones:
                return super().step()
            if from_peak:
                for group, peak in zip(self.optimizer.param_groups, peaks, strict=True):
                    set_rate(group, peak)
            with warnings.catch_warnings():  # torch itself uses the argument it deprecates
                warnings.filterwarnings("ignore", message="The epoch parameter")
                return super().step()

    return Own(optimizer, legs, milestones)


def plain(name: str) -> Build:
    """torch's class of that name, with the arguments as they are."""

    def build(optimizer: Optimizer, args: Args, job: Job) -> LRScheduler:
        from torch.optim import lr_scheduler

        made: LRScheduler = getattr(lr_scheduler, name)(optimizer, **args)
        return made

    return build


def cosine(optimizer: Optimizer, args: Args, job: Job) -> LRScheduler:
    from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

    eta_min = job.one_or_each(job.scaled(args["eta_min"]))
    if isinstance(eta_min, list):
        return LambdaLR(optimizer, shapes.Cosine(args["T_max"], args["eta_min"] / job.lr))
    return CosineAnnealingLR(optimizer, T_max=args["T_max"], eta_min=eta_min)


def warm_restarts(optimizer: Optimizer, args: Args, job: Job) -> LRScheduler:
    from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LambdaLR

    eta_min = job.one_or_each(job.scaled(args["eta_min"]))
    if isinstance(eta_min, list):
        shape = shapes.Restarts(args["T_0"], args["T_mult"], args["eta_min"] / job.lr)
        return LambdaLR(optimizer, shape)
    return CosineAnnealingWarmRestarts(optimizer, args["T_0"], args["T_mult"], eta_min)


def one_cycle(optimizer: Optimizer, args: Args, job: Job) -> LRScheduler:
    from torch.optim.lr_scheduler import OneCycleLR

    if args["pct_start"] * args["total_steps"] == 1:  # torch would divide by zero
        args = args | {"pct_start": args["pct_start"] * (1 + 1e-9)}
    max_lr = job.one_or_each(list(job.rates))
    return OneCycleLR(optimizer, max_lr, cycle_momentum=job.cycle_momentum, **args)


def cyclic(optimizer: Optimizer, args: Args, job: Job) -> LRScheduler:
    from torch.optim.lr_scheduler import CyclicLR

    base_lr = job.one_or_each(job.scaled(args["base_lr"]))
    max_lr = job.one_or_each(list(job.rates))
    rest = args | {"base_lr": base_lr, "max_lr": max_lr}
    return CyclicLR(optimizer, cycle_momentum=job.cycle_momentum, **rest)


def lambda_lr(optimizer: Optimizer, args: Args, job: Job) -> LRScheduler:
    from torch.optim.lr_scheduler import LambdaLR

    shape: shapes.InverseSqrt | shapes.Trapezoid | shapes.Rex
    match args["lr_lambda"]:
        case "inverse_sqrt":
            shape = shapes.InverseSqrt(args["timescale"])
        case "trapezoid":
            shape = shapes.Trapezoid(args["total_iters"], args["decay"])
        case _:
            shape = shapes.Rex(args["total_iters"])
    return LambdaLR(optimizer, shape)


def multiplicative(optimizer: Optimizer, args: Args, job: Job) -> LRScheduler:
    from torch.optim.lr_scheduler import ChainedScheduler, MultiplicativeLR

    if not job.warmup:
        return MultiplicativeLR(optimizer, shapes.Ratio(args["factor"]))
    first = warmup(optimizer, job)
    then = MultiplicativeLR(optimizer, shapes.Ratio(args["factor"], start=job.warmup))
    return ChainedScheduler([first, then], optimizer=optimizer)


def plateau(optimizer: Optimizer, args: Args, job: Job) -> LRScheduler:
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    rest = args | {"min_lr": job.one_or_each(job.scaled(args["min_lr"]))}
    return ReduceLROnPlateau(optimizer, **rest)


def hold_then_decay(optimizer: Optimizer, args: Args, job: Job) -> LRScheduler:
    from torch.optim.lr_scheduler import ConstantLR, ExponentialLR, LinearLR

    hold, end, left = args["hold"], args["end_factor"], max(1, job.steps - args["hold"])
    legs: list[LRScheduler] = [ConstantLR(optimizer, factor=1.0, total_iters=hold)]
    if args["decay"] == "CosineAnnealingLR":
        legs.append(cosine(optimizer, {"T_max": left, "eta_min": job.lr * end}, job))
    elif args["decay"] == "LinearLR":
        legs.append(LinearLR(optimizer, start_factor=1.0, end_factor=end, total_iters=left))
    else:
        legs.append(ExponentialLR(optimizer, gamma=end ** (1 / left)))
    milestones = [hold]
    if job.warmup:
        legs.insert(0, warmup(optimizer, job))
        milestones = [job.warmup, job.warmup + hold]
    return sequential(optimizer, legs, milestones)


def chained(optimizer: Optimizer, args: Args, job: Job) -> LRScheduler:
    from torch.optim.lr_scheduler import ChainedScheduler, ConstantLR, ExponentialLR

    first = ConstantLR(optimizer, factor=args["factor"], total_iters=args["total_iters"])
    return ChainedScheduler([first, ExponentialLR(optimizer, args["gamma"])], optimizer=optimizer)


def points(optimizer: Optimizer, args: Args, job: Job) -> LRScheduler:
    from torch.optim.lr_scheduler import LambdaLR

    times = [epoch for epoch, _ in args["points"]]
    factors = [lr / job.lr for _, lr in args["points"]]
    return LambdaLR(optimizer, shapes.Polyline(times, factors, job.steps_per_epoch))


# what was built, so that a forgotten scheduler.step() is noticed

_BUILT: dict[int, tuple[weakref.ref[Any], weakref.ref[LRScheduler], int]] = {}


def remember(schedule: Schedule, scheduler: LRScheduler, per_epoch: int) -> None:
    """Note, as long as both live, that ``scheduler`` is stepped ``per_epoch`` times an epoch."""
    key = id(schedule)
    alive = weakref.ref(schedule, lambda _: _BUILT.pop(key, None))
    _BUILT[key] = alive, weakref.ref(scheduler), per_epoch


def steps_taken(schedule: Schedule) -> tuple[int, int] | None:
    """Steps that the scheduler built last from this very object has taken, and its steps an epoch.

    None where none was built, or where it does not count its steps.
    """
    entry = _BUILT.get(id(schedule))
    scheduler: Any = entry[1]() if entry is not None else None
    if entry is None or scheduler is None:
        return None
    members = getattr(scheduler, "_schedulers", None)  # ChainedScheduler has no count of its own
    count = getattr(scheduler, "last_epoch", None)
    if count is None and members:
        count = getattr(members[0], "last_epoch", None)
    return (int(count), entry[2]) if count is not None else None
