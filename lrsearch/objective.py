"""Schedules inside your own Optuna objective: ask a trial for one, report each epoch's loss.

```python
def objective(trial):
    schedule = lrsearch.suggest(trial, epochs=30)
    scheduler = schedule.build(optimizer, steps_per_epoch=len(loader))
    pruning = lrsearch.PruningCallback(trial)
    ...
```
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from lrsearch import values
from lrsearch.divergence import DIVERGED_LOSS
from lrsearch.errors import ConfigError, UsageError
from lrsearch.schedules import FAMILIES, Schedule, Space
from lrsearch.schedules.built import steps_taken
from lrsearch.schedules.ranges import as_number

if TYPE_CHECKING:
    import optuna
    from torch import nn
    from torch.optim import Optimizer

    Families = str | Sequence[str] | Mapping[str, Mapping[str, Any] | None]

LR: Final = (1e-4, 1.0)
"""Range of the peak rate where none is given: wide enough for SGD and for Adam."""

_ASKED: weakref.WeakKeyDictionary[Any, Schedule] = weakref.WeakKeyDictionary()
"""Trial -> the schedule that it was given."""


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
    importance and :class:`SchedulePruner` work on the study. All trials of a study need the same
    arguments.

    Args:
        trial: An Optuna trial, of a study that minimises one validation loss.
        epochs: Budget of a full trial, at least 1. A loop that counts iterations has an epoch
            from one validation to the next.
        schedules: Families to search, with ranges if you like: ``"StepLR,CosineAnnealingLR"``, a
            list, or ``{"StepLR": {"gamma": [0.1, 0.5]}}``; None for all but ReduceLROnPlateau,
            which wants ``scheduler.step(val_loss)`` once per epoch.
        lr: Lowest and highest peak rate, searched on a log scale.
        warmup: Also search a linear warmup of 0 to 10% of the budget.
        interval: When you call ``scheduler.step()``: after every ``step`` of the optimizer, or
            after every ``epoch``; ``auto`` lets each family have its own
            (``schedule.interval`` says which).

    Returns:
        The schedule; ``.build(optimizer, steps_per_epoch=len(loader))`` makes the torch scheduler.

    Raises:
        ConfigError: An unknown family or an impossible range, all mistakes at once.
        UsageError: No trial; or its study maximises, has several objectives, or was searched with
            other families.

    Example:
        >>> import optuna
        >>> trial = optuna.create_study().ask()
        >>> suggest(trial, epochs=30, lr=(0.01, 1.0)).epochs
        30
    """
    _check_trial(trial)
    check_direction(getattr(trial, "study", None))
    space = _space(epochs, schedules, lr, warmup, interval)
    try:
        schedule = space.suggest(trial)
    except ValueError as error:
        if "dynamic value space" not in str(error) and "distribution kind" not in str(error):
            raise
        raise UsageError(
            "this study was searched with other families or choices (another epochs= or "
            "schedules=?): ask as before, or give the new search a study_name of its own"
        ) from error
    trial.set_user_attr("schedule", schedule.to_dict())
    _ASKED[trial] = schedule
    return schedule


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

    They are a constant rate, StepLR (times 0.1 after each third), cosine and one-cycle, and are
    never pruned. Those that the study has already are not queued again, unless they failed.

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
        overrides={
            f"{family}.{parameter}": given
            for family, ranges in (families or {}).items()
            for parameter, given in ranges.items()
        },
    )


def _check_trial(trial: Any) -> None:
    if not hasattr(trial, "suggest_float"):
        raise UsageError(f"trial must be an Optuna trial, got {trial!r:.60}; call it in objective")


def check_direction(study: Any) -> None:
    """Make sure that a study minimises one number.

    Raises:
        UsageError: It maximises, or has several objectives.
    """
    directions = [d.name for d in getattr(study, "directions", None) or ()]
    if directions and directions != ["MINIMIZE"]:
        shown = " and ".join(name.lower() for name in directions)
        raise UsageError(
            f"a study of schedules minimises one validation loss, this one has {shown}; make it "
            "with optuna.create_study(direction='minimize') and return the loss (or 1 - accuracy)"
        )


def _one_number(value: Any, name: str) -> float:
    """``value`` as a float; a metric of the wrong kind must not fail only in the last epoch."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        shape = getattr(value, "shape", None)
        got = f"{value!r:.60}" if shape is None else f"shape {tuple(shape)}; take its mean"
        raise UsageError(f"{name} must be one number, got {got}") from None


def _epochs_finished(value: Any, before: int) -> int:
    epoch = as_number(value)
    if epoch is None or epoch != int(epoch) or epoch <= before:
        raise UsageError(
            f"epoch counts the epochs finished, from 1, and rises: got {value!r:.60} after "
            f"{before}; leave it out, or give epoch + 1 in a loop from 0"
        )
    return int(epoch)


class PruningCallback:
    """Reports each epoch's validation loss to Optuna, and ends a trial that is not worth more.

    Call it once after every validation. A loss that is not finite ends the trial as pruned, with
    1e30 for its loss: the sampler learns from it, where NaN would make the trial fail. A finite
    loss of any size is a loss; reports show as diverged what ended a million times above the
    study's best (and above a million). Baselines (:func:`enqueue_baselines`) are never pruned.

    Args:
        trial: The Optuna trial. Its schedule is that of :func:`suggest`.

    Raises:
        UsageError: It is no trial.

    Example:
        >>> import optuna
        >>> trial = optuna.create_study().ask()
        >>> schedule = suggest(trial, epochs=3)
        >>> pruning = PruningCallback(trial)
        >>> for epoch in range(3):
        ...     pruning(val_loss=1.0)  # raises optuna.TrialPruned where it is time to stop
        >>> trial.user_attrs["stopped"]
        'completed'
    """

    def __init__(self, trial: optuna.trial.BaseTrial) -> None:
        _check_trial(trial)
        self.trial = trial
        self.epoch = 0
        self._average: Any = None
        self._averaged_losses: list[float] = []

    def __call__(
        self,
        val_loss: float,
        *,
        epoch: int | None = None,
        val_metric: float | None = None,
        avg_val_loss: float | None = None,
    ) -> None:
        """Report an epoch, and raise where the trial shall end.

        Args:
            val_loss: Mean validation loss; a number or a tensor of one element.
            epoch: Epochs finished, from 1. Left out, it is one more than at the last call.
            val_metric: Another number worth keeping, such as the accuracy.
            avg_val_loss: Validation loss of :attr:`averaged`, a second signal for
                :class:`SchedulePruner`.

        Raises:
            optuna.TrialPruned: The pruner says stop, or the loss is not finite.
        """
        import optuna

        if self.report(val_loss, epoch=epoch, val_metric=val_metric, avg_val_loss=avg_val_loss):
            reason = self.trial.user_attrs.get("stopped", "pruned")
            raise optuna.TrialPruned(f"{reason} after epoch {self.epoch}")

    def report(
        self,
        val_loss: float,
        *,
        epoch: int | None = None,
        val_metric: float | None = None,
        avg_val_loss: float | None = None,
    ) -> bool:
        """As calling, but says whether to stop; then raise ``optuna.TrialPruned`` yourself.

        Args:
            val_loss: As for calling, like the others.
            epoch: Epochs finished, from 1.
            val_metric: Another number worth keeping.
            avg_val_loss: Validation loss of :attr:`averaged`.

        Raises:
            UsageError: ``epoch`` does not rise or is beyond the schedule's budget, a value is not
                one number, or the scheduler was not stepped as its schedule says.
        """
        self.epoch = self.epoch + 1 if epoch is None else _epochs_finished(epoch, self.epoch)
        loss = _one_number(val_loss, "val_loss")
        if val_metric is not None:
            val_metric = _one_number(val_metric, "val_metric")
        self._check_steps()
        diverged = not math.isfinite(loss)
        if avg_val_loss is not None:
            averaged = avg_val_loss = _one_number(avg_val_loss, "avg_val_loss")
            self._averaged_losses.append(averaged if math.isfinite(averaged) else DIVERGED_LOSS)
            self.trial.set_user_attr("avg_val_losses", self._averaged_losses)
        self.trial.report(DIVERGED_LOSS if diverged else min(loss, DIVERGED_LOSS), self.epoch)
        attrs = self.trial.user_attrs
        done = self.epoch >= (attrs.get("schedule") or {}).get("epochs", math.inf)
        stop = diverged or (not done and "baseline" not in attrs and self.trial.should_prune())
        if stop or done:
            stopped = "diverged" if diverged else "pruned" if stop else "completed"
            self._end(stopped, val_metric, avg_val_loss)
        return stop

    def _check_steps(self) -> None:
        """A schedule that is not stepped, or too seldom, would win under a false name."""
        schedule = _ASKED.get(self.trial)
        if schedule is None:
            return
        if self.epoch > schedule.epochs:
            raise UsageError(
                f"this is epoch {self.epoch} of a schedule of {schedule.epochs}: give "
                f"suggest(trial, epochs=...) the number of epochs that the loop runs"
            )
        taken, per_epoch = steps_taken(schedule) or (None, 1)
        due = self.epoch * per_epoch
        if taken is not None and abs(taken - due) > max(1.0, 0.1 * due):
            after = "step of the optimizer" if schedule.interval == "step" else "epoch"
            raise UsageError(
                f"scheduler.step() was called {taken} times up to epoch {self.epoch}, expected "
                f"{due}: call it after every {after}, or give suggest and build the interval and "
                "steps_per_epoch of your loop"
            )

    def _end(self, stopped: str, val_metric: float | None, avg_val_loss: float | None) -> None:
        kept: dict[str, Any] = {"stopped": stopped, "epochs": self.epoch}
        if stopped != "diverged":
            kept |= {"val_metric": val_metric, "avg_val_loss": avg_val_loss}
        for key, value in kept.items():
            if value is not None:
                self.trial.set_user_attr(key, value)

    def average(self, model: nn.Module, optimizer: Optimizer, steps_per_epoch: int) -> None:
        """Keep a running average of the weights from now on, in :attr:`averaged`.

        Mid-run its loss often says more about where a schedule ends than the raw loss, which a
        rate that is still high keeps up. It follows every ``optimizer.step()`` by itself:
        ``average += (w - average) / h`` with ``h = clip(0.2 step, 1, 2 steps_per_epoch)``.

        Args:
            model: The model that is trained.
            optimizer: Its optimizer.
            steps_per_epoch: Optimizer steps in an epoch, at least 1.

        Raises:
            UsageError: ``steps_per_epoch`` is no whole number, or below 1.
        """
        from lrsearch.training.averaging import WeightAverage

        if not isinstance(steps_per_epoch, int) or steps_per_epoch < 1:
            raise UsageError(
                f"steps_per_epoch must be a whole number, at least 1, got {steps_per_epoch!r:.60}"
            )
        average = WeightAverage(model, steps_per_epoch)
        steps = 0

        def follow(*_: Any) -> None:
            nonlocal steps
            steps += 1
            average.update(steps)

        optimizer.register_step_post_hook(follow)
        self._average = average

    @property
    def averaged(self) -> nn.Module:
        """The model with averaged weights, in evaluation mode.

        Raises:
            UsageError: :meth:`average` was not called.
        """
        if self._average is None:
            raise UsageError(
                "no average is kept: call average(model, optimizer, steps_per_epoch) first"
            )
        model: nn.Module = self._average.current()
        return model
