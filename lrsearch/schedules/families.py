"""The fifteen schedulers of torch and ``Points``: what each takes, and what of it is searched.

Ranges are relative to the budget N and follow common recipes. How each is built is in ``build``.
"""

from __future__ import annotations

from dataclasses import replace

from lrsearch.schedules import build, searches
from lrsearch.schedules.args import (
    BUDGET,
    MAX_EPOCHS,
    OPTIONAL,
    Arg,
    divisor_arg,
    epochs_arg,
    factor_arg,
)
from lrsearch.schedules.family import Family, register
from lrsearch.schedules.ranges import Choice, Range, epochs_range

_TOTAL = epochs_arg(BUDGET, shown=False)

register(
    Family(
        "ConstantLR",
        "no schedule: the same rate throughout",
        {
            "factor": divisor_arg(1.0, shown=False),
            "total_iters": _TOTAL,
        },
        search=lambda budget: {},
        build=build.plain("ConstantLR"),
        trap="torch's default starts at lr/3 for 5 steps; here the rate is lr from the start",
    )
)
register(
    Family(
        "StepLR",
        "times gamma every step_size epochs",
        {"step_size": epochs_arg(), "gamma": factor_arg(per_epoch=False)},
        search=searches.step,
        decode=lambda values, draw: searches.capped(values, "step_size", draw.epochs),
        build=build.plain("StepLR"),
        trap="whole epochs only: torch takes a step_size of 2.5, and then lowers the rate every 5",
        min_epochs=2,
        min_epochs_per_step=2,
    )
)
register(
    Family(
        "MultiStepLR",
        "times gamma at each milestone",
        {"milestones": Arg("milestones"), "gamma": factor_arg()},
        search=searches.multi_step,
        decode=searches.decode_multi_step,
        build=build.plain("MultiStepLR"),
        trap="whole epochs only: torch skips a milestone of 2.5, and counts a repeated one twice",
        min_epochs=2,
        min_epochs_per_step=2,
    )
)
register(
    Family(
        "ExponentialLR",
        "times gamma every epoch",
        {"gamma": factor_arg(per_epoch=True)},
        search=lambda budget: {"gamma": searches.per_epoch_factor(budget)},
        build=build.plain("ExponentialLR"),
        trap="over 100 epochs 0.95 ends at 0.6% of lr, 0.999 at 90%: the budget sets its range",
        min_epochs=2,
    )
)
register(
    Family(
        "LinearLR",
        "a straight line down",
        {
            "start_factor": divisor_arg(1.0, shown=False),
            "end_factor": Arg("number", high=1.0),
            "total_iters": _TOTAL,
        },
        search=lambda budget: {"end_factor": Range(0.0, 0.1, limits=(0, 1), unit="of lr")},
        build=build.plain("LinearLR"),
        trap="torch's default rises from lr/3 to lr in 5 steps; here it falls over the whole run",
        min_epochs=2,
    )
)
register(
    Family(
        "PolynomialLR",
        "(1 - t/N)^power",
        {"total_iters": _TOTAL, "power": Arg("number", high=100.0, above_low=True)},
        search=lambda budget: {"power": Range(0.5, 4.0, log=True, limits=(0, 100))},
        build=build.plain("PolynomialLR"),
        trap="torch's default is at 0 after 5 steps, and stays there; here it takes the whole run",
        min_epochs=2,
    )
)
register(
    Family(
        "CosineAnnealingLR",
        "half a cosine down to eta_min",
        {"T_max": epochs_arg(BUDGET), "eta_min": Arg("rate", default=0.0)},
        search=lambda budget: {
            "T_max": epochs_range(budget, 0.5, 1.0),
            "eta_min_ratio": searches.FLOOR,
        },
        decode=lambda values, draw: searches.floored(
            searches.capped(values, "T_max", draw.epochs), "eta_min_ratio", "eta_min", draw.lr
        ),
        build=build.cosine,
        trap="after T_max epochs the rate rises again, and with eta_min above lr at once",
        min_epochs=2,
    )
)
register(
    Family(
        "CosineAnnealingWarmRestarts",
        "cosines that start again at the peak",
        {
            "T_0": epochs_arg(),
            "T_mult": Arg("count", low=1, high=100, default=1),
            "eta_min": Arg("rate", default=0.0),
        },
        search=lambda budget: {
            "cycles": Range(1, max(1, min(4, budget // 2)), integer=True, limits=(1, 99)),
            "T_mult": Range(1, 2, integer=True, limits=(1, 100)),
            "eta_min_ratio": searches.FLOOR,
        },
        decode=searches.decode_restarts,
        build=build.warm_restarts,
        trap="a restart just before the end leaves the rate high; here cycles end with the run",
        min_epochs=4,
        min_epochs_per_step=4,
    )
)
register(
    Family(
        "OneCycleLR",
        "up, then down to almost 0, momentum the other way",
        {
            "total_steps": _TOTAL,
            "pct_start": Arg("number", high=1.0, below_high=True, default=0.3),
            "div_factor": Arg("number", low=1.0, high=1e9, default=25.0),
            "final_div_factor": Arg("number", low=1.0, high=1e12, default=1e4),
            "anneal_strategy": Arg("choice", choices=("cos", "linear"), default=OPTIONAL),
            "base_momentum": Arg("number", high=1.0, below_high=True, default=OPTIONAL),
            "max_momentum": Arg("number", high=1.0, below_high=True, default=OPTIONAL),
        },
        search=lambda budget: {
            "pct_start": Range(0.1, 0.45, limits=(0, 0.99)),
            "div_factor": Range(5.0, 50.0, log=True, limits=(1, 1e9)),
            "final_div_factor": Range(1e2, 1e4, log=True, limits=(1, 1e12)),
        },
        build=build.one_cycle,
        trap="torch fails at a step after the last, and (not here) where the rise is one step",
        warmup="no",
        interval="step",
        min_epochs=3,
        check=searches.check_one_cycle,
    )
)
register(
    Family(
        "CyclicLR",
        "triangles between base_lr and lr",
        {
            "base_lr": Arg("rate"),
            "step_size_up": Arg("span", high=MAX_EPOCHS, above_low=True),
            "step_size_down": Arg("span", high=MAX_EPOCHS, above_low=True, default=OPTIONAL),
            "mode": Arg(
                "choice", choices=("triangular", "triangular2", "exp_range"), default="triangular"
            ),
            "gamma": factor_arg(1.0, per_epoch=True, when=("mode", ("exp_range",))),
            "base_momentum": Arg("number", high=1.0, below_high=True, default=OPTIONAL),
            "max_momentum": Arg("number", high=1.0, below_high=True, default=OPTIONAL),
        },
        search=lambda budget: {
            "cycles": Range(1, max(1, min(4, budget // 2)), integer=True, limits=(1, budget)),
            "base_lr_ratio": Range(0.1, 1 / 3, log=True, limits=(0, 1), unit="of lr"),
            "mode": Choice(("triangular", "triangular2")),
        },
        decode=searches.decode_cyclic,
        check=searches.check_cyclic,
        build=build.cyclic,
        trap="sets the optimizer's lr and momentum itself; here the run ends at the lowest rate",
        warmup="no",
        interval="step",
        min_epochs=4,
    )
)
register(
    Family(
        "LambdaLR",
        "a named function: inverse square root, trapezoid (warmup-stable-decay) or REX",
        {
            "lr_lambda": Arg("choice", choices=("inverse_sqrt", "trapezoid", "rex")),
            "timescale": Arg(
                "span", high=MAX_EPOCHS, above_low=True, when=("lr_lambda", ("inverse_sqrt",))
            ),
            "decay": epochs_arg(when=("lr_lambda", ("trapezoid",))),
            "total_iters": epochs_arg(
                BUDGET, when=("lr_lambda", ("trapezoid", "rex")), shown=False
            ),
        },
        search=lambda budget: {
            "lr_lambda": Choice(("inverse_sqrt", "trapezoid", "rex")),
            "timescale": Range(
                budget / 100,
                budget / 3,
                log=True,
                limits=(0, 100 * budget),
                when=("lr_lambda", ("inverse_sqrt",)),
                unit="epochs",
            ),
            "decay": epochs_range(budget, 0.1, 0.6, when=("lr_lambda", ("trapezoid",))),
        },
        decode=lambda values, draw: (
            searches.capped(values, "decay", draw.epochs) if "decay" in values else values
        ),
        build=build.lambda_lr,
        trap="torch does not save plain functions with a checkpoint; the ones here are saved",
        min_epochs=2,
        check=searches.check_trapezoid,
    )
)
register(
    Family(
        "MultiplicativeLR",
        "times a factor every epoch",
        {"factor": factor_arg(per_epoch=True)},
        search=lambda budget: {"factor": searches.per_epoch_factor(budget)},
        build=build.multiplicative,
        trap="after a warmup torch's SequentialLR starts it below the peak; here at the peak",
        warmup="own",
        min_epochs=2,
    )
)
register(
    Family(
        "ReduceLROnPlateau",
        "times factor when the loss has stopped falling",
        {
            "factor": Arg("number", high=1.0, above_low=True, below_high=True),
            "patience": epochs_arg(low=0),
            "min_lr": Arg("rate", default=0.0),
            "cooldown": epochs_arg(OPTIONAL, low=0),
            "threshold": Arg("number", high=1.0, below_high=True, default=OPTIONAL),
            # torch's 1e-8 is absolute: small rates would stop following the larger ones
            "eps": Arg("number", high=1.0, default=0.0, shown=False),
        },
        search=lambda budget: {
            "factor": Range(0.1, 0.5, log=True, limits=(0, 0.99)),
            "patience": replace(epochs_range(budget, 0.03, 0.15), limits=(0, budget - 1)),
            "min_lr_ratio": replace(searches.FLOOR, high=1e-2),
        },
        decode=lambda values, draw: searches.floored(values, "min_lr_ratio", "min_lr", draw.lr),
        build=build.plateau,
        trap="follows the validation loss, so its curve is not known before it has run",
        warmup="no",
        min_epochs=4,
        min_epochs_per_step=4,
        needs_metric=True,
    )
)
register(
    Family(
        "SequentialLR",
        "hold the peak, then decay",
        {
            "hold": epochs_arg(),
            "decay": Arg("choice", choices=("CosineAnnealingLR", "LinearLR", "ExponentialLR")),
            "end_factor": factor_arg(),
        },
        search=lambda budget: {
            "hold": replace(epochs_range(budget, 0.1, 0.7), limits=(1, max(1, budget - 1))),
            "decay": Choice(("CosineAnnealingLR", "LinearLR", "ExponentialLR")),
            "end_factor": Range(1e-4, 1e-1, log=True, limits=(0, 1), unit="of lr"),
        },
        decode=lambda values, draw: searches.capped(values, "hold", draw.epochs - 1),
        build=build.hold_then_decay,
        trap="in torch a SequentialLR inside another is one epoch off; here one has all the parts",
        warmup="own",
        min_epochs=3,
        min_epochs_per_step=2,
        check=searches.check_sequential,
    )
)
register(
    Family(
        "ChainedScheduler",
        "ConstantLR(factor, total_iters) times ExponentialLR(gamma)",
        {
            "factor": divisor_arg(),
            "total_iters": epochs_arg(),
            "gamma": factor_arg(per_epoch=True),
        },
        search=lambda budget: {
            "factor": Range(0.05, 0.5, log=True, limits=(0, 1)),
            "total_iters": epochs_range(budget, 0.01, 0.1),
            "gamma": searches.per_epoch_factor(budget),
        },
        build=build.chained,
        trap="some of torch's schedulers overwrite the others; these multiply, and begin low",
        warmup="no",
        min_epochs=3,
        min_epochs_per_step=2,
    )
)
register(
    Family(
        "Points",
        "straight lines between (epoch, lr) points",
        {"points": Arg("points", shown=False)},
        search=lambda budget: {},
        build=build.points,
        trap="a schedule you draw yourself; not searched",
        warmup="no",
        searched=False,
    )
)
