"""Schedules inside your own Optuna objective: ask a trial for one, run the usual recipes first.

```python
def objective(trial):
    schedule = lrsearch.suggest(trial, epochs=30)
    scheduler = schedule.build(optimizer, steps_per_epoch=len(loader))
    pruning = lrsearch.PruningCallback(trial)
    ...
```
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from lrsearch import values
from lrsearch.errors import ConfigError, UsageError
from lrsearch.optuna_helpers import check_direction
from lrsearch.schedules import FAMILIES, Schedule, Space
from lrsearch.schedules.ranges import Choice, Range, as_number

if TYPE_CHECKING:
    import optuna

    Families = str | Sequence[str] | Mapping[str, Mapping[str, Any] | None]

LR: Final = (1e-4, 1.0)
"""Range of the peak rate where none is given: wide enough for SGD and for Adam."""

_ASKED: dict[int, tuple[weakref.ref[Any], Space, Schedule]] = {}
_ONE_AT_A_TIME = threading.RLock()  # so that threads (``n_jobs``) see what others are to train


def asked(trial: Any) -> Schedule | None:
    """The schedule that this very trial was given, while it lives."""
    entry = _ASKED.get(id(trial))
    return None if entry is None else entry[2]


def suggest(
    trial: optuna.trial.BaseTrial,
    epochs: int,
    *,
    schedules: Families | None = None,
    lr: tuple[float, float] = LR,
    warmup: bool = True,
    interval: Literal["auto", "epoch", "step"] = "step",
) -> Schedule:
    """Ask a trial of any Optuna study for the learning-rate schedule to train with.

    The schedule is kept as the trial's user attribute ``schedule``, so that report, export,
    importance, :class:`TraceSampler` and :class:`SchedulePruner` work on the study. All trials of
    a study need the same arguments. A trial has one schedule, which may be built for several
    optimizers.

    Args:
        trial: An Optuna trial, of a study that minimises one validation loss.
        epochs: Budget of a full trial, at least 1. A loop that counts iterations has an epoch
            from one validation to the next.
        schedules: Families to search, with ranges if you like: ``"StepLR,CosineAnnealingLR"``, a
            list, or ``{"StepLR": {"gamma": [0.1, 0.5]}}``; None for all but ReduceLROnPlateau,
            which wants ``scheduler.step(val_loss)`` once per epoch.
        lr: Lowest and highest peak rate, searched on a log scale.
        warmup: Also search a linear warmup of 0 to 10% of the budget, from a tenth of the rate.
        interval: When you call ``scheduler.step()``: after every ``step`` of the optimizer (not
            every batch, where gradients are accumulated), or after every ``epoch``; ``auto`` lets
            each family have its own (``schedule.interval`` says which).

    Returns:
        The schedule; ``.build(optimizer, steps_per_epoch=len(loader))`` makes the torch scheduler.

    Raises:
        ConfigError: An unknown family or an impossible range, all mistakes at once.
        UsageError: No trial; its study maximises, has several objectives, or was searched with
            other families; the trial was asked for another schedule before, or for an ``lr``,
            ``warmup`` or ``scheduler`` of its objective's own, or has queued values that make
            none.

    Example:
        >>> import optuna
        >>> trial = optuna.create_study().ask()
        >>> suggest(trial, epochs=30, lr=(0.01, 1.0)).epochs
        30
    """
    check_trial(trial)
    check_direction(getattr(trial, "study", None))
    space = _space(epochs, schedules, lr, warmup, interval)
    key = id(trial)  # a finished trial (``study.best_trial``) has no hash
    if key in _ASKED and _ASKED[key][1] != space:
        raise UsageError(
            "this trial was asked for a schedule with other arguments before, and has but one: "
            "build that one for each optimizer"
        )
    if key not in _ASKED:
        _check_names(trial, space)
    with _ONE_AT_A_TIME:
        schedule = _suggested(trial, space)
        trial.set_user_attr("schedule", schedule.to_dict())
    _ASKED[key] = weakref.ref(trial, lambda _: _ASKED.pop(key, None)), space, schedule
    return schedule


def _check_names(trial: Any, space: Space) -> None:
    """Optuna would give what the objective asked for before, of whatever range, with a warning."""
    if not hasattr(trial, "study") or "schedule" in trial.user_attrs:
        return  # finished or fixed, or asked already, by another process
    ours: dict[str, Range | Choice] = {
        "scheduler": Choice(space.names),
        "lr": space.lr_dim,
        "warmup": space.warmup_dim,
    }
    for name, given in trial.distributions.items():
        if name in ours and not _same(given, ours[name]):
            raise UsageError(
                f"the objective asks for {name!r} itself, in a range of its own: leave that out, "
                "as the schedule brings one, or give it another name"
            )


def _same(given: Any, dim: Range | Choice) -> bool:
    """Whether Optuna's distribution is that of a range or choice of ours."""
    if isinstance(dim, Choice):
        return bool(getattr(given, "choices", None) == dim.options)
    range_ = [getattr(given, key, None) for key in ("low", "high", "log")]
    return range_ == [dim.low, dim.high, dim.log]


def _suggested(trial: optuna.trial.BaseTrial, space: Space) -> Schedule:
    try:
        return space.suggest(trial)
    except (ValueError, TypeError, ConfigError) as error:
        if "dynamic value space" in str(error) or "distribution kind" in str(error):
            raise UsageError(
                "this study was searched with other families or choices (another epochs= or "
                "schedules=?): ask as before, or give the new search a study_name of its own"
            ) from error
        if not (queued := getattr(trial, "_fixed_params", None)):
            raise
        raise UsageError(f"the queued values {queued} make no schedule: {error}") from error


def enqueue_baselines(
    study: optuna.Study,
    epochs: int,
    *,
    usual_lr: float | None = None,
    schedules: Families | None = None,
    lr: tuple[float, float] = LR,
    warmup: bool = True,
    interval: Literal["auto", "epoch", "step"] = "step",
) -> list[str]:
    """Let a study run the usual recipes first, so that its report can say what is gained.

    They are a constant rate, StepLR (times 0.1 after each third), cosine and one-cycle, as far as
    these families are searched, and are never pruned. Those that the study has already are not
    queued again, unless they failed.

    Args:
        study: The study, before ``study.optimize``.
        epochs: As for :func:`suggest`, like all arguments but the next.
        usual_lr: Peak rate of the recipes, moved into ``lr`` where it lies outside; None for the
            middle of ``lr``.
        schedules: As for :func:`suggest`.
        lr: As for :func:`suggest`.
        warmup: As for :func:`suggest`.
        interval: As for :func:`suggest`.

    Returns:
        The names of the recipes queued.

    Raises:
        ConfigError: As :func:`suggest`; or ``usual_lr`` is no rate.
        UsageError: No study; or as :func:`suggest`.

    Example:
        >>> import optuna
        >>> enqueue_baselines(optuna.create_study(), epochs=30, usual_lr=0.1)
        ['ConstantLR', 'StepLR', 'CosineAnnealingLR', 'OneCycleLR']
    """
    if not hasattr(study, "enqueue_trial"):
        raise UsageError(f"study must be an Optuna study, got {study!r:.60}")
    check_direction(study)
    if usual_lr is not None and not (as_number(usual_lr) or 0) > 0:
        raise ConfigError([f"usual_lr: must be a finite number above 0, got {usual_lr!r:.60}"])
    recipes = _space(epochs, schedules, lr, warmup, interval).baselines(usual_lr)
    trials = study.get_trials(deepcopy=False)
    there = {t.user_attrs.get("baseline") for t in trials if t.state.name != "FAIL"}
    new = [name for name in recipes if name not in there]
    for name in new:
        study.enqueue_trial(recipes[name], user_attrs={"baseline": name})
    return new


def _space(
    epochs: int,
    schedules: Families | None,
    lr: tuple[float, float],
    warmup: bool,
    interval: Literal["auto", "epoch", "step"],
) -> Space:
    families: Mapping[str, Mapping[str, Any]] | None = None
    if schedules is not None:
        try:
            families = values.families(schedules)
        except values.MistakesError as error:
            raise ConfigError(f"schedules.{path}: {text}" for path, text in error.rows) from None
        except ValueError as error:
            raise ConfigError([f"schedules: {error}"]) from None
    names: tuple[str, ...] | None = None if families is None else tuple(families)
    if names is None:  # a loop that calls scheduler.step() suits all others
        fitting = Space(None, epochs, lr, interval, warmup).names
        names = tuple(name for name in fitting if not FAMILIES[name].needs_metric)
    return Space(
        families=names,
        epochs=epochs,
        lr=lr,
        interval=interval,
        warmup=warmup,
        overrides=values.overrides(families),
    )


def check_trial(trial: Any) -> None:
    """Make sure that it is a trial (:class:`UsageError`)."""
    if not hasattr(trial, "suggest_float"):
        raise UsageError(f"trial must be an Optuna trial, got {trial!r:.60}; call it in objective")
