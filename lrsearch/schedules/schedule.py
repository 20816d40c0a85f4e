"""A schedule: one chosen member of a family, which torch can build and a file can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lrsearch.errors import ConfigError, UsageError
from lrsearch.schedules.args import MAX_EPOCHS, MAX_LR, MIN_DIVISOR, check_args, unknown_keys
from lrsearch.schedules.build import behind_warmup, remember
from lrsearch.schedules.convert import (
    has_momentum,
    in_steps,
    rescaled,
    round_half_up,
    set_rates,
    whole_steps,
)
from lrsearch.schedules.family import Family, Job, get_family, is_builtin
from lrsearch.schedules.ranges import as_number

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from lrsearch.schedules.trace import Kind, Trace

_KEYS = ("family", "lr", "warmup", "params", "fractions", "interval", "epochs")
_WARMUP_KEYS = ("epochs", "fraction", "start_factor")


@dataclass(frozen=True)
class Schedule:
    """A learning-rate schedule for a budget of epochs.

    Args:
        family: A key of ``FAMILIES``: torch's class name, or ``Points``.
        lr: Peak learning rate, above 0, at most 1e6.
        epochs: Budget, at least 1.
        params: The family's arguments in torch's names. Durations are epochs counted from the end
            of the warmup, rates are absolute, factors per epoch are per epoch. Defaults are filled
            in (a whole-budget duration such as ``T_max`` may be left out).
        warmup: Epochs of linear warmup from ``warmup_start * lr`` to ``lr``; 0 for none.
        warmup_start: 1e-9 to 1.
        interval: When the scheduler is stepped: after every ``epoch`` or every ``step`` of the
            optimizer; ``auto`` takes the family's own (step for OneCycleLR and CyclicLR). The
            curve is the same, finer.

    Raises:
        UsageError: There is no such family.
        ConfigError: All other mistakes at once.

    Example:
        >>> schedule = Schedule("CosineAnnealingLR", lr=0.1, epochs=20, warmup=1)
        >>> schedule.params
        {'T_max': 19, 'eta_min': 0.0}
        >>> Schedule.from_dict(schedule.to_dict()) == schedule
        True
    """

    family: str
    lr: float
    epochs: int
    params: Mapping[str, Any] = field(default_factory=dict, hash=False)
    warmup: int = 0
    warmup_start: float = 0.1
    interval: Literal["auto", "epoch", "step"] = "auto"

    def __post_init__(self) -> None:
        family = get_family(self.family)
        mistakes: list[str] = []
        lr, epochs = as_number(self.lr), as_number(self.epochs)
        if lr is None or not 0 < lr <= MAX_LR:
            rule = f"must be a finite number above 0 and at most {MAX_LR:g}"
            mistakes.append(f"lr: {rule}, got {self.lr!r:.60}")
            lr = None
        if epochs is None or epochs != int(epochs) or not 1 <= epochs <= MAX_EPOCHS:
            rule = f"must be whole epochs from 1 to {MAX_EPOCHS:,}"
            mistakes.append(f"epochs: {rule}, got {self.epochs!r:.60}")
            epochs = None
        warmup, start = self._check_warmup(family, epochs, mistakes)
        interval = self._check_interval(family, mistakes)
        given: Any = self.params  # a file may hold anything
        params: dict[str, Any] = {}
        left = int(epochs or 1) - warmup
        if isinstance(given, Mapping):
            top = float(lr or math.inf)
            params, found = check_args(family.name, family.args, given, top, left)
            mistakes += found
        else:
            mistakes.append(f"params: expected names and values, got {given!r:.60}")
        if mistakes or lr is None or epochs is None:
            raise ConfigError(mistakes)
        if family.check is not None:
            mistakes = family.check(params, left)
        if family.name == "Points" and not mistakes:
            top = max(point[1] for point in params["points"])
            if not math.isclose(top, float(lr), rel_tol=1e-9):
                mistakes.append(f"lr {lr:g} is not the highest of the points; write lr {top:g}")
        if mistakes:
            raise ConfigError(mistakes)
        values = {"lr": float(lr), "epochs": int(epochs), "params": params, "warmup": warmup}
        for name, value in (values | {"warmup_start": start, "interval": interval}).items():
            object.__setattr__(self, name, value)

    def _check_warmup(
        self, family: Family, epochs: float | None, mistakes: list[str]
    ) -> tuple[int, float]:
        warmup, start = as_number(self.warmup), as_number(self.warmup_start)
        if warmup is None or warmup != int(warmup) or warmup < 0:
            mistakes.append(f"warmup: must be whole epochs, at least 0, got {self.warmup!r:.60}")
            warmup = 0
        if epochs is not None and warmup >= epochs and warmup > 0:
            mistakes.append(f"warmup: {warmup:g} epochs leave nothing of a budget of {epochs:g}")
        if warmup and not family.carries_warmup:
            mistakes.append(f"warmup: {family.name} cannot carry one; write 0")
        if start is None or not MIN_DIVISOR <= start <= 1:
            rule = f"must be at least {MIN_DIVISOR:g} and at most 1 (torch refuses 0)"
            mistakes.append(f"warmup start_factor: {rule}, got {self.warmup_start!r:.60}")
            start = 0.1
        return int(warmup), float(start)

    def _check_interval(self, family: Family, mistakes: list[str]) -> str:
        if self.interval == "auto":
            return family.interval
        if self.interval not in ("epoch", "step"):
            mistakes.append(f"interval: must be epoch, step or auto, got {self.interval!r:.60}")
        elif self.interval == "step" and family.needs_metric:
            mistakes.append(
                f"interval: {family.name} steps on a loss, once per epoch; write epoch"
            )
        return self.interval

    def to_dict(self) -> dict[str, Any]:
        """The ``schedule:`` block of best.yaml: plain values that YAML and JSON give back exactly.

        ``fractions`` and ``warmup.fraction`` are durations over the budget, for people; reading
        takes the epochs.
        """
        args = get_family(self.family).args
        fractions: dict[str, Any] = {}
        for name, value in self.params.items():
            if args[name].kind in ("epochs", "span"):
                fractions[name] = round(value / self.epochs, 6)
            elif args[name].kind == "milestones":
                fractions[name] = [round(each / self.epochs, 6) for each in value]
        return {
            "family": self.family,
            "lr": self.lr,
            "warmup": {
                "epochs": self.warmup,
                "fraction": round(self.warmup / self.epochs, 6),
                "start_factor": self.warmup_start,
            },
            "params": {
                name: [list(x) if isinstance(x, list) else x for x in value]
                if isinstance(value, list)
                else value
                for name, value in self.params.items()
            },
            "fractions": fractions,
            "interval": self.interval,
            "epochs": self.epochs,
        }

    @classmethod
    def from_dict(cls, data: Any, source: str | None = None) -> Schedule:
        """The schedule of a ``schedule:`` block, checked throughout; nothing in it is executed.

        Args:
            data: What :meth:`to_dict` gave, perhaps edited by hand.
            source: File name for messages.

        Raises:
            ConfigError: All mistakes at once.
        """
        if not isinstance(data, Mapping):
            raise ConfigError([f"schedule: expected keys and values, got {data!r:.60}"], source)
        mistakes = unknown_keys("schedule", data, _KEYS)
        mistakes += [
            f"schedule.{key}: missing" for key in ("family", "lr", "epochs") if key not in data
        ]
        warmup = data.get("warmup")
        if warmup is None:
            warmup = {}
        elif not isinstance(warmup, Mapping):
            warmup = {"epochs": warmup}
        mistakes += unknown_keys("schedule.warmup", warmup, _WARMUP_KEYS)
        if mistakes:
            raise ConfigError(mistakes, source)
        params = data.get("params")
        try:
            return cls(
                data["family"],
                data["lr"],
                data["epochs"],
                {} if params is None else params,
                warmup.get("epochs", 0),
                warmup.get("start_factor", 0.1),
                data.get("interval", "auto"),
            )
        except ConfigError as error:
            raise ConfigError(error.mistakes, source) from None
        except UsageError as error:
            raise ConfigError([str(error)], source) from None

    @classmethod
    def from_points(
        cls, points: Any, epochs: int, interval: Literal["epoch", "step"] = "epoch"
    ) -> Schedule:
        """A schedule of straight lines between (epoch, lr) points; lr is level outside of them.

        Args:
            points: Pairs, epochs rising; the highest lr becomes the peak.
            epochs: Budget.
            interval: When the scheduler is stepped.

        Raises:
            ConfigError: All mistakes at once.

        Example:
            >>> Schedule.from_points([(0, 0.01), (5, 0.1), (30, 0.0)], epochs=30).lr
            0.1
        """
        args = get_family("Points").args
        checked, mistakes = check_args("Points", args, {"points": points}, math.inf, epochs)
        if mistakes:
            raise ConfigError(mistakes)
        top = max(point[1] for point in checked["points"])
        return cls("Points", top, epochs, checked, interval=interval)

    def describe(self) -> str:
        """One short line for screens, without the rate.

        Example:
            >>> Schedule("MultiStepLR", 0.1, 20, {"milestones": [9, 16], "gamma": 0.1}).describe()
            'MultiStepLR  [9, 16] gamma 0.1'
        """
        args = get_family(self.family).args
        words = []
        for name, value in self.params.items():
            if args[name].shown:
                plain = isinstance(value, list) or args[name].kind == "choice"
                words.append(str(value) if plain else f"{name} {_short(value)}")
        warmup = f"warmup {self.warmup}" if self.warmup else ""
        return "  ".join(part for part in (self.family, " ".join(words), warmup) if part)

    def rescaled(self, epochs: int) -> Schedule:
        """The same curve over another budget.

        Durations keep their share of the budget (in whole epochs, at least 1), factors per epoch
        keep their effect over the whole run.

        Args:
            epochs: New budget, at least 1.

        Raises:
            UsageError: It is no whole number from 1 to 1,000,000.
        """
        target = as_number(epochs)
        if target is None or target != int(target) or not 1 <= target <= MAX_EPOCHS:
            raise UsageError(f"epochs must be whole, from 1 to {MAX_EPOCHS:,}, got {epochs!r:.60}")
        epochs = int(target)
        warmup = 0
        if self.warmup:
            warmup = min(max(1, round_half_up(self.warmup * epochs / self.epochs)), epochs - 1)
        params = rescaled(
            get_family(self.family), self.params, self.epochs - self.warmup, epochs - warmup
        )
        return Schedule(
            self.family, self.lr, epochs, params, warmup, self.warmup_start, self.interval
        )

    def build(
        self, optimizer: Optimizer, steps_per_epoch: int | None = None, keep_lr: bool = False
    ) -> LRScheduler:
        """The torch scheduler, attached to a fresh optimizer, whose rates it sets.

        Groups of one rate get ``lr``; groups of different rates keep their ratios, and the largest
        becomes ``lr``. Every group follows the whole curve from its own rate, floors included.
        To resume: build optimizer, build this, load the optimizer's state, load the scheduler's.

        Step it as ``interval`` says, whatever ``steps_per_epoch`` is. ``step``: call
        ``scheduler.step()`` after every ``optimizer.step()``. ``epoch``: once an epoch, after its
        last ``optimizer.step()``; of ``ReduceLROnPlateau`` ``scheduler.step(val_loss)``, after the
        validation.

        Args:
            optimizer: Any ``torch.optim`` optimizer.
            steps_per_epoch: Optimizer steps in an epoch, at least 1, such as ``len(loader)``
                (of gradients accumulated over k batches, ``math.ceil(len(loader) / k)``);
                needed where ``interval`` is ``step``, without effect where it is ``epoch``.
            keep_lr: Leave the optimizer's rates as they are.

        Raises:
            UsageError: Not an optimizer, all its rates are 0, or no ``steps_per_epoch``.
        """
        family = get_family(self.family)
        if steps_per_epoch is None and self.interval == "step":
            raise UsageError(  # a guess would end the schedule far too early
                "this schedule is stepped after every optimizer step: give "
                "steps_per_epoch=len(loader)"
            )
        steps_per_epoch = 1 if steps_per_epoch is None else whole_steps(steps_per_epoch)
        rates = set_rates(optimizer, self.lr, keep_lr)
        k = steps_per_epoch if self.interval == "step" else 1
        job = Job(
            lr=self.lr,
            rates=rates,
            steps=(self.epochs - self.warmup) * k,
            steps_per_epoch=k,
            warmup=self.warmup * k,
            warmup_start=self.warmup_start,
            cycle_momentum=has_momentum(optimizer),
        )
        args = in_steps(family, self.params, k)
        if family.warmup == "before":
            scheduler = behind_warmup(
                optimizer, args, job, family.build, own=not is_builtin(family)
            )
        else:
            scheduler = family.build(optimizer, args, job)
        remember(self, scheduler, k)
        return scheduler

    def trace(self, steps_per_epoch: int = 1, momentum: float = 0.9, kind: Kind = "sgd") -> Trace:
        """Rate and momentum of every optimizer step, from the real scheduler on a dummy optimizer.

        Args:
            steps_per_epoch: Optimizer steps in an epoch, at least 1.
            momentum: The optimizer's own momentum, or beta1; 0 to below 1.
            kind: ``sgd`` (has ``momentum``), ``adam`` (has ``betas``).

        Raises:
            UsageError: ReduceLROnPlateau, which needs the loss; ``steps_per_epoch`` is below 1.
        """
        from lrsearch.schedules.trace import trace

        return trace(self, whole_steps(steps_per_epoch), momentum, kind)


def _short(value: Any) -> str:
    """Two digits, and more of a factor that is not quite 1: 0.997 is far from it over 2,000."""
    if not isinstance(value, float):
        return str(value)
    digits = next((d for d in range(2, 7) if value == 1 or f"{value:.{d}g}" != "1"), 6)
    return f"{value:.{digits}g}"
