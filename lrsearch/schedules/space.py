"""The search space: families with ranges for a budget, and a trial's values as a schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from lrsearch.errors import ConfigError, UsageError, suggestion, unknown
from lrsearch.schedules.args import MAX_EPOCHS, MAX_LR, OPTIONAL, Arg
from lrsearch.schedules.asking import asking
from lrsearch.schedules.family import FAMILIES, Draw, Family, Interval, get_family, unknown_family
from lrsearch.schedules.ranges import Choice, Dim, Range, Trial, applies, as_number, override
from lrsearch.schedules.recipes import USUAL
from lrsearch.schedules.schedule import Schedule

WARMUP_SHARE = 0.1
"""Longest warmup searched, as a share of the budget."""

_BASELINES: dict[str, dict[str, Any]] = {
    "ConstantLR": {},
    "StepLR": USUAL["StepLR"],
    "CosineAnnealingLR": {"T_max": 1.0, "eta_min_ratio": 0.0},
    "OneCycleLR": USUAL["OneCycleLR"],
}


class Row(NamedTuple):
    """One line of ``lrsearch schedules``.

    Args:
        family: Name.
        summary: What it does.
        parameters: "name low to high" for each searched parameter.
        warmup: "0 to 3 epochs", or why there is none.
        interval: When it is stepped.
        trap: What goes wrong when it is used carelessly.
        note: Why it is left out of the space, or "".
    """

    family: str
    summary: str
    parameters: list[str]
    warmup: str
    interval: str
    trap: str
    note: str


@dataclass(frozen=True)
class Space:
    """What a study searches.

    Args:
        families: Names of ``FAMILIES``; None for all that fit the budget (``left_out`` says which
            do not, and why).
        epochs: Budget N of a full trial.
        lr: Lowest and highest peak rate, searched on a log scale.
        interval: ``auto`` (each family's own), or ``epoch`` or ``step`` for all.
        warmup: Search a linear warmup of 0 to 10% of N for families that can carry one; it starts
            at a tenth of the rate.
        overrides: A range, fixed value or choices in place of a default, by full name:
            ``{"StepLR.gamma": (0.1, 0.5), "warmup": 2}``.

    Attributes:
        names: The families searched, in order.
        dims: Full parameter name -> range or choice, by family.
        left_out: Families that do not fit, with the reason.

    Raises:
        ConfigError: All mistakes at once.

    Example:
        >>> from lrsearch.schedules import FixedParams
        >>> space = Space(["StepLR"], epochs=30, lr=(1e-3, 1.0))
        >>> params = {"scheduler": "StepLR", "lr": 0.1, "warmup": 0,
        ...           "StepLR.step_size": 10, "StepLR.gamma": 0.1}
        >>> space.suggest(FixedParams(params)).describe()
        'StepLR  step_size 10 gamma 0.1'
    """

    families: Sequence[str] | None
    epochs: int
    lr: tuple[float, float]
    interval: Literal["auto", "epoch", "step"] = "auto"
    warmup: bool = True
    overrides: Mapping[str, Any] = field(default_factory=dict, hash=False)
    names: tuple[str, ...] = field(init=False)
    dims: Mapping[str, Mapping[str, Dim]] = field(init=False, hash=False, repr=False)
    lr_dim: Range = field(init=False, repr=False)
    warmup_dim: Dim = field(init=False, repr=False)
    left_out: Mapping[str, str] = field(init=False, hash=False, repr=False)

    def __post_init__(self) -> None:
        mistakes: list[str] = []
        epochs = as_number(self.epochs)
        if epochs is None or epochs != int(epochs) or not 1 <= epochs <= MAX_EPOCHS:
            rule = f"must be whole, from 1 to {MAX_EPOCHS:,}"
            raise ConfigError([f"epochs: {rule}, got {self.epochs!r}"])
        if self.interval not in ("auto", "epoch", "step"):
            mistakes.append(f"interval: must be auto, epoch or step, got {self.interval!r}")
            raise ConfigError(mistakes)
        if self.warmup not in (True, False):
            mistakes.append(f"warmup: must be true or false, got {self.warmup!r:.60}")
        names, left_out = self._choose(int(epochs), mistakes)
        lr = override(
            "lr",
            Range(1e-9, MAX_LR, log=True, limits=(0, MAX_LR)),
            self.lr,
            mistakes.append,
        )
        most = math.floor(WARMUP_SHARE * int(epochs) + 0.5) if self.warmup else 0
        limits = (0, max(0, int(epochs) - 1))
        warmup: Dim = Range(0, most, integer=True, limits=limits, unit="epochs")
        dims = {name: dict(FAMILIES[name].search(int(epochs))) for name in names}
        for key, given in self.overrides.items():
            if key == "lr":
                lr = override(key, lr, given, mistakes.append)
            elif key == "warmup":
                warmup = override(key, warmup, given, mistakes.append)
            else:
                _apply(str(key), given, dims, left_out, mistakes)
        if not isinstance(lr, Range):
            given = self.overrides.get("lr", self.lr)
            mistakes.append(f"lr: needs the lowest and the highest rate, got {given!r:.60}")
            raise ConfigError(mistakes)
        if mistakes:
            raise ConfigError(mistakes)
        full = {
            name: {f"{name}.{param}": dim for param, dim in own.items()}
            for name, own in dims.items()
        }
        if self.families is not None:
            object.__setattr__(self, "families", tuple(names))
        values = {"epochs": int(epochs), "names": tuple(names), "dims": full, "lr_dim": lr}
        for name, value in (values | {"warmup_dim": warmup, "left_out": left_out}).items():
            object.__setattr__(self, name, value)

    def _choose(self, epochs: int, mistakes: list[str]) -> tuple[list[str], dict[str, str]]:
        """(families searched, families that do not fit and why)."""
        if self.families is None:
            wanted = [name for name, family in FAMILIES.items() if family.searched]
        elif isinstance(self.families, str):
            wanted = [name.strip() for name in self.families.split(",")]
        else:
            wanted = list(dict.fromkeys(self.families))
        if not wanted:
            mistakes.append("families: the list is empty; name at least one, or none for all")
        names, left_out = [], {}
        for name in wanted:
            try:
                family = get_family(name)
            except UsageError as error:
                mistakes.append(str(error))
                continue
            need, reason = family.shortest(self._interval(family)), ""
            if not family.searched and not family.search(epochs):
                reason = "has no parameters to search"
            elif epochs < need:
                reason = f"needs at least {need} epochs, the budget is {epochs}"
            if reason and self.families is not None:
                mistakes.append(
                    f"{name} {reason}; leave it out"
                    + (" or give it more" if need > epochs else "")
                )
            elif reason:
                left_out[name] = reason
            else:
                names.append(name)
        return names, left_out

    def _interval(self, family: Family) -> Interval:
        if self.interval == "auto" or family.needs_metric:
            return family.interval
        return self.interval

    def suggest(self, trial: Trial) -> Schedule:
        """Ask a trial for the next schedule.

        Names are ``scheduler``, ``lr``, ``warmup`` (only where the family carries one) and
        ``Family.parameter``; no distribution depends on another value.

        Args:
            trial: An Optuna trial, :class:`FixedParams` or :class:`RandomParams`.

        Raises:
            UsageError: Of known values one is missing, or names a family that is not searched.
            ConfigError: Known values make no schedule.
        """
        with asking(self):
            return self._suggest(trial)

    def _suggest(self, trial: Trial) -> Schedule:
        name = trial.suggest_categorical("scheduler", self.names)
        if name not in self.names:
            raise unknown("schedule family in this study", str(name), self.names)
        family = FAMILIES[name]
        lr = self.lr_dim.suggest(trial, "lr")
        warmup = 0
        if family.carries_warmup and self._has_warmup:
            warmup = int(self.warmup_dim.suggest(trial, "warmup"))
        values: dict[str, Any] = {}
        for full, dim in self.dims[name].items():
            if applies(dim.when, values):
                values[full.removeprefix(f"{name}.")] = dim.suggest(trial, full)
        interval = self._interval(family)
        draw = Draw(lr, self.epochs - warmup, interval)
        return Schedule(
            name, lr, self.epochs, family.decode(values, draw), warmup, interval=interval
        )

    def suggest_known(self, trial: Trial, schedule: Schedule) -> None:
        """Tell a trial of a schedule that is given, as far as this space has words for it.

        That is its family, where it is searched, and its rate, at the edge of the range where it
        lies outside; what is trained is the schedule itself.

        Args:
            trial: As for :meth:`suggest`; its values are those of :meth:`known`.
            schedule: Any, also of a family or with values that are not searched.
        """
        if schedule.family in self.names:
            trial.suggest_categorical("scheduler", self.names)
        self.lr_dim.suggest(trial, "lr")

    def known(self, schedule: Schedule) -> dict[str, Any]:
        """The values that :meth:`suggest_known` asks for."""
        return {"scheduler": schedule.family, "lr": self.lr_dim.clip(schedule.lr)}

    @property
    def _has_warmup(self) -> bool:
        dim = self.warmup_dim
        return isinstance(dim, Choice) or dim.high > 0

    def baselines(self, lr: float | None = None) -> dict[str, dict[str, Any]]:
        """The usual recipes among the families of this space, as full Optuna parameters.

        Args:
            lr: The task's usual rate; the middle of the range where there is none. Values outside
                a range are moved to its edge.

        Returns:
            Family name -> parameters that ``study.enqueue_trial`` takes.
        """
        middle = math.sqrt(self.lr_dim.low * self.lr_dim.high)
        out: dict[str, dict[str, Any]] = {}
        for name, recipe in _BASELINES.items():
            if name not in self.names:
                continue
            params: dict[str, Any] = {"scheduler": name}
            params["lr"] = self.lr_dim.clip(middle if lr is None else lr)
            if FAMILIES[name].carries_warmup and self._has_warmup:
                params["warmup"] = self.warmup_dim.clip(0)
            for full, dim in self.dims[name].items():
                param = full.removeprefix(f"{name}.")
                value = recipe.get(param)
                if isinstance(dim, Range) and dim.integer and isinstance(value, float):
                    value = max(1, round(value * self.epochs))
                params[full] = dim.clip(value if value is not None else _first(dim))
            out[name] = params
        return out

    def describe(self) -> list[Row]:
        """A row for each family searched, then for each left out."""
        rows = [self._row(name, "") for name in self.names]
        return rows + [self._row(name, reason) for name, reason in self.left_out.items()]

    def _row(self, name: str, note: str) -> Row:
        family = FAMILIES[name]
        dims = self.dims.get(name) or family.search(self.epochs)
        warmup = str(self.warmup_dim) if self._has_warmup else "none"
        return Row(
            name,
            family.summary,
            [f"{param.removeprefix(name + '.')} {dim}" for param, dim in dims.items()],
            warmup if family.carries_warmup else "none",
            self._interval(family),
            family.trap,
            note,
        )


def schedules_table(epochs: int, families: Iterable[str] | None = None) -> list[Row]:
    """The rows of ``lrsearch schedules``: every family with its default ranges for a budget.

    Args:
        epochs: Budget.
        families: Only these.

    Raises:
        UsageError: An unknown family, or a budget that is none.
    """
    space = Space(None, epochs, (1e-4, 1.0))
    wanted = None if families is None else {get_family(name).name for name in families}
    return [row for row in space.describe() if wanted is None or row.family in wanted]


def _first(dim: Dim) -> Any:
    return dim.low if isinstance(dim, Range) else dim.options[0]


def _apply(
    key: str,
    given: Any,
    dims: dict[str, dict[str, Dim]],
    left_out: Mapping[str, str],
    mistakes: list[str],
) -> None:
    """Put a user's range for ``Family.parameter`` in the place of the default."""
    name, _, param = key.partition(".")
    if not param:
        question = suggestion(key, ["lr", "warmup", *FAMILIES])
        mistakes.append(f"{key}: expected Family.parameter, lr or warmup{question}")
    elif name not in FAMILIES:
        mistakes.append(str(unknown_family(name)))
    elif name not in dims:
        mistakes.append(
            f"{key}: {name} is not searched ({left_out.get(name, 'not among the families')})"
        )
    elif param in dims[name]:
        dims[name][param] = override(key, dims[name][param], given, mistakes.append)
    elif (arg := FAMILIES[name].args.get(param)) is not None and arg.default is OPTIONAL:
        dims[name][param] = override(key, _dim(arg), given, mistakes.append)
    else:
        searched = ", ".join(dims[name]) or "nothing"
        question = suggestion(param, dims[name])
        mistakes.append(f"{key}: unknown parameter{question} ({name} searches {searched})")


def _dim(arg: Arg) -> Dim:
    """The widest range of an argument that is not searched by default."""
    if arg.kind == "choice":
        return Choice(arg.choices)
    least = arg.low + 1e-4 if arg.above_low else arg.low
    most = arg.high - 1e-4 if arg.below_high else arg.high
    high = min(most, 1.0 if arg.kind == "number" else MAX_EPOCHS)
    return Range(least, high, integer=arg.kind == "epochs", limits=(least, most))
