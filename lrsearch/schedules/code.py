"""A schedule as plain torch code, for people who want no dependency on lrsearch."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from lrsearch.errors import UsageError
from lrsearch.schedules import shapes
from lrsearch.schedules.family import Family, get_family, is_builtin, stepping
from lrsearch.schedules.schedule import Schedule

_PER_EPOCH = "steps_per_epoch"
_MOMENTA = """\
    groups = optimizer.param_groups  # momentum is cycled only where there is one
    momenta = [group.get("betas", [group.get("momentum", 0)])[0] for group in groups]"""
_SHARES = """\
    peak = max(group["lr"] for group in optimizer.param_groups)
    shares = [group["lr"] / peak for group in optimizer.param_groups]"""
_CYCLE = {"cycle_momentum": "all(momenta)"}
_IMPORTS = {
    shapes.Polyline: ["import bisect"],
    shapes.InverseSqrt: ["import math"],
    shapes.Cosine: ["import math"],
    shapes.Restarts: ["import math"],
}

Groups = Sequence[Mapping[str, Any]]
Legs = tuple[list[str], set[str], type | None]
"""Schedulers one after the other as source, torch classes used, curve of our own."""


def python_code(
    schedule: Schedule, optimizer: Mapping[str, Any] | None = None, groups: Groups = ()
) -> str:
    """A module with ``make_scheduler``, which needs torch alone and gives the same trace.

    Args:
        schedule: Of a built-in family.
        optimizer: ``name`` and arguments of the one it was found with; None if not known.
        groups: Its parameter groups, without the parameters; all with their ``lr`` or none. Each
            follows the whole curve from its own rate, as in the search.

    Raises:
        UsageError: A family of the user's own: its code is not known here.
    """
    family = get_family(schedule.family)
    groups = _scaled(groups, schedule.lr)
    differ = len({group["lr"] for group in groups}) > 1
    args = _sources(family, schedule)
    found = _legs(schedule, args)
    scaled = _each(schedule, args, found)
    legs, classes, shape = scaled if differ else found
    lines = [f'"""{schedule.describe()}, lr {schedule.lr!r}, {schedule.epochs} epochs."""', ""]
    if shape is not None:
        lines += [*_IMPORTS.get(shape, []), "from dataclasses import dataclass", ""]
    first = "optimizer" if schedule.interval == "epoch" else "optimizer, steps_per_epoch"
    body = _compose(schedule, legs)
    used = sorted(classes | {name for name in ("SequentialLR", "LinearLR") if name in body})
    lines += [f"from torch.optim.lr_scheduler import {', '.join(used)}", ""]
    if shape is shapes.Restarts:
        lines += ["", inspect.getsource(shapes.Cosine).rstrip(), ""]
    if shape is not None:
        lines += ["", inspect.getsource(shape).rstrip(), ""]
    lines += ["", f"def make_scheduler({first}):"]
    when = stepping(schedule.interval, family)
    needs = _needs(schedule, optimizer, groups, one_rate=scaled != found)
    lines += [f'    """To be stepped: {when}.', "", *(f"    {line}" for line in needs), '    """']
    if _CYCLE["cycle_momentum"] in body:
        lines += [_MOMENTA]
    if "in shares" in body:
        lines += [_SHARES]
    lines += [f"    return {body}", "", "", *_usage(schedule, first, optimizer, groups)]
    return "\n".join(lines) + "\n"


def _needs(
    schedule: Schedule, optimizer: Mapping[str, Any] | None, groups: Groups, *, one_rate: bool
) -> list[str]:
    """What the code expects of the optimizer and of who steps, a line each.

    Args:
        schedule: The schedule.
        optimizer: As for :func:`python_code`; where it is None, its groups are not known either.
        groups: Its parameter groups, with their rates.
        one_rate: Whether the code names a rate, which is then that of all groups.
    """
    rates = [group["lr"] for group in groups]
    lines = [f"The optimizer must have been made with lr={schedule.lr!r}."]
    if len(set(rates)) > 1:
        lines = [f"The optimizer's groups must have the rates {', '.join(map(repr, rates))}."]
    elif optimizer is None:
        told = "use lrsearch.load: this code has one rate." if one_rate else "this is the highest."
        lines.append(f"Where its parameter groups have rates of their own, {told}")
    if schedule.interval == "step":
        fewer = "fewer than batches where gradients are accumulated."
        lines.append(f"{_PER_EPOCH} counts optimizer steps: {fewer}")
    return lines


def _scaled(groups: Groups, lr: float) -> list[dict[str, Any]]:
    """The groups at the rates that the schedule gives them: the largest at ``lr``."""
    own = [float(group.get("lr", lr)) for group in groups]
    top = max(own, default=lr)
    return [{**g, "lr": lr * (rate / top)} for g, rate in zip(groups, own, strict=True)]


def _each(schedule: Schedule, args: dict[str, str], plain: Legs) -> Legs:
    """The legs for groups of different rates: those that name a rate name one for each group.

    torch's cosines have one floor for all groups, so they become a curve of our own, unless the
    floor is 0.
    """

    def each(rate: str) -> str:
        return f"[{rate} * share for share in shares]"

    params: Any = schedule.params
    legs, classes, shape = plain
    match schedule.family:
        case "OneCycleLR" | "CyclicLR" as name:
            named = {"max_lr": repr(schedule.lr), **args}
            rates = {k: each(named[k]) for k in ("max_lr", "base_lr") if k in named}
            return [_call(name, named | rates | _CYCLE)], classes, shape
        case "ReduceLROnPlateau" if params["min_lr"]:
            return (
                [_call(schedule.family, args | {"min_lr": each(args["min_lr"])})],
                classes,
                shape,
            )
        case "CosineAnnealingLR" if params["eta_min"]:
            floor = params["eta_min"] / schedule.lr
            leg = f"LambdaLR(optimizer, Cosine({args['T_max']}, {floor!r}))"
            return [leg], {"LambdaLR"}, shapes.Cosine
        case "CosineAnnealingWarmRestarts" if params["eta_min"]:
            floor = params["eta_min"] / schedule.lr
            leg = f"LambdaLR(optimizer, Restarts({args['T_0']}, {args['T_mult']}, {floor!r}))"
            return [leg], {"LambdaLR"}, shapes.Restarts
        case "SequentialLR" if params["decay"] == "CosineAnnealingLR" and params["end_factor"]:
            left = _times(max(1, schedule.epochs - schedule.warmup - params["hold"]), schedule)
            leg = f"LambdaLR(optimizer, Cosine({left}, {params['end_factor']!r}))"
            return [legs[0], leg], classes - {"CosineAnnealingLR"} | {"LambdaLR"}, shapes.Cosine
    return legs, classes, shape


def _usage(
    schedule: Schedule, first: str, optimizer: Mapping[str, Any] | None, groups: Groups
) -> list[str]:
    call = f"scheduler = make_scheduler({first.replace('steps_per_epoch', 'len(loader)')})"
    args = dict(optimizer or {"name": "YourOptimizer"})
    name = str(args.pop("name"))
    made = f"torch.optim.{name}" if optimizer and ":" not in name else name.rpartition(":")[2]
    given = ", ".join(f"{key}={value!r}" for key, value in {"lr": schedule.lr, **args}.items())
    lines = []
    if groups:
        lines = ["# groups = [", *map(_group, groups), "# ]"]
    lines += [f"# optimizer = {made}({'groups' if groups else 'model.parameters()'}, {given})"]
    lines += [f"# {call}", f"# for epoch in range({schedule.epochs}):"]
    if schedule.interval == "step":
        lines += ["#     for x, y in loader:", "#         ...", "#         optimizer.step()"]
        return [*lines, "#         scheduler.step()"]
    metric = "validation_loss" if get_family(schedule.family).needs_metric else ""
    return [*lines, "#     ...  # train for an epoch", f"#     scheduler.step({metric})"]


def _group(group: Mapping[str, Any]) -> str:
    """``#     {"params": ..., "lr": 0.01},  # 1,200 parameters``."""
    own = "".join(f', "{key}": {v!r}' for key, v in group.items() if key != "parameters")
    return f'#     {{"params": ...{own}}},  # {group["parameters"]:,} parameters'


def _times(value: float, schedule: Schedule) -> str:
    """Epochs as source that counts scheduler steps."""
    return repr(value) if schedule.interval == "epoch" else f"{value!r} * {_PER_EPOCH}"


def _sources(family: Family, schedule: Schedule) -> dict[str, str]:
    """Each argument as source that counts scheduler steps."""
    out: dict[str, str] = {}
    for name, value in schedule.params.items():
        arg = family.args[name]
        if arg.kind in ("epochs", "span"):
            out[name] = _times(value, schedule)
        elif arg.kind == "milestones":
            out[name] = f"[{', '.join(_times(each, schedule) for each in value)}]"
        elif arg.per_epoch and schedule.interval == "step" and value != 1.0:
            out[name] = f"{value!r} ** (1 / {_PER_EPOCH})"
        else:
            out[name] = repr(value)
    if schedule.family == "OneCycleLR":
        share, epochs = schedule.params["pct_start"], schedule.params["total_steps"]
        k = 1 if schedule.interval == "epoch" else round(1 / max(share * epochs, 1e-12))
        if share * (epochs * k) == 1:  # a rise of one step: torch would divide by zero
            out["pct_start"] = repr(share * (1 + 1e-9))
    return out


def _call(name: str, args: dict[str, str]) -> str:
    words = ", ".join(["optimizer", *(f"{key}={value}" for key, value in args.items())])
    return f"{name}({words})"


def _legs(schedule: Schedule, args: dict[str, str]) -> Legs:
    match schedule.family:
        case "OneCycleLR" | "CyclicLR" as name:
            return [_call(name, {"max_lr": repr(schedule.lr)} | args | _CYCLE)], {name}, None
        case "LambdaLR":
            shape, source = _lambda(args)
            return [f"LambdaLR(optimizer, {source})"], {"LambdaLR"}, shape
        case "MultiplicativeLR":
            start = _times(schedule.warmup, schedule)
            ratio = f"Ratio({args['factor']}, start={start})"
            leg = f"MultiplicativeLR(optimizer, {ratio})"
            names = {"MultiplicativeLR"} | ({"ChainedScheduler"} if schedule.warmup else set())
            return [leg], names, shapes.Ratio
        case "SequentialLR":
            return _hold(schedule)
        case "ChainedScheduler":
            constant = {key: args[key] for key in ("factor", "total_iters")}
            both = [
                _call("ConstantLR", constant),
                _call("ExponentialLR", {"gamma": args["gamma"]}),
            ]
            names = {"ChainedScheduler", "ConstantLR", "ExponentialLR"}
            return [f"ChainedScheduler([{', '.join(both)}], optimizer=optimizer)"], names, None
        case "Points":
            times = [epoch for epoch, _ in schedule.params["points"]]
            factors = [lr / schedule.lr for _, lr in schedule.params["points"]]
            steps = "1" if schedule.interval == "epoch" else _PER_EPOCH
            source = f"Polyline({times!r}, {factors!r}, {steps})"
            return [f"LambdaLR(optimizer, {source})"], {"LambdaLR"}, shapes.Polyline
    if not is_builtin(get_family(schedule.family)):
        import torch

        if not hasattr(torch.optim.lr_scheduler, schedule.family):
            raise UsageError(
                f"{schedule.family} is a family of your own, so there is no plain torch code for "
                "it; export YAML and use lrsearch.load"
            )
    return [_call(schedule.family, args)], {schedule.family}, None


def _lambda(args: dict[str, str]) -> tuple[type, str]:
    if "timescale" in args:
        return shapes.InverseSqrt, f"InverseSqrt({args['timescale']})"
    if "decay" in args:
        return shapes.Trapezoid, f"Trapezoid({args['total_iters']}, {args['decay']})"
    return shapes.Rex, f"Rex({args['total_iters']})"


def _hold(schedule: Schedule) -> Legs:
    params: Any = schedule.params
    epochs = max(1, schedule.epochs - schedule.warmup - params["hold"])
    left, end = _times(epochs, schedule), params["end_factor"]
    hold = _call("ConstantLR", {"factor": "1.0", "total_iters": _times(params["hold"], schedule)})
    decay = {
        "CosineAnnealingLR": {"T_max": left, "eta_min": repr(schedule.lr * end)},
        "LinearLR": {"start_factor": "1.0", "end_factor": repr(end), "total_iters": left},
        "ExponentialLR": {
            "gamma": f"{end!r} ** (1 / {left})"
            if " " not in left
            else f"{end!r} ** (1 / ({left}))"
        },
    }[params["decay"]]
    legs = [hold, _call(params["decay"], decay)]
    return legs, {"ConstantLR", params["decay"], "SequentialLR"}, None


def _compose(schedule: Schedule, legs: list[str]) -> str:
    """One expression: the legs, behind a warmup where there is one."""
    milestones = []
    if schedule.family == "SequentialLR":
        milestones = [schedule.warmup + schedule.params["hold"]]
    if schedule.warmup:
        warmup = {"start_factor": repr(schedule.warmup_start)}
        warmup["total_iters"] = _times(schedule.warmup, schedule)
        legs = [_call("LinearLR", warmup), *legs]
        milestones = [schedule.warmup, *milestones]
    if len(legs) == 1:
        return legs[0]
    inner = ",\n".join(f"            {leg}" for leg in legs)
    if schedule.family == "MultiplicativeLR":
        head = "ChainedScheduler(\n        [\n"
        return f"{head}{inner},\n        ],\n        optimizer=optimizer,\n    )"
    at = ", ".join(_times(each, schedule) for each in milestones)
    head = "SequentialLR(\n        optimizer,\n        [\n"
    return f"{head}{inner},\n        ],\n        milestones=[{at}],\n    )"
