"""Each epoch's validation loss, from a training loop of your own to the pruner."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lrsearch.attributes import budget_of
from lrsearch.divergence import DIVERGED_LOSS
from lrsearch.errors import UsageError
from lrsearch.objective import asked, check_trial
from lrsearch.schedules.build import steps_taken
from lrsearch.schedules.convert import whole_steps
from lrsearch.schedules.ranges import as_number

if TYPE_CHECKING:
    import optuna
    from torch import nn
    from torch.optim import Optimizer


def _one_number(value: Any, name: str) -> float:
    """``value`` as a float; a metric of the wrong kind must not fail only in the last epoch."""
    try:
        return float(value.detach() if hasattr(value, "detach") else value)  # else torch warns
    except (TypeError, ValueError, RuntimeError) as error:
        shape = getattr(value, "shape", None)
        if isinstance(error, RuntimeError) and shape is not None and math.prod(shape) == 1:
            raise  # what went wrong on a device before, which is told when a number is read
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
    study's best (and above a million). Baselines (:func:`lrsearch.enqueue_baselines`) are never
    pruned.

    Args:
        trial: The Optuna trial. Its schedule is that of :func:`lrsearch.suggest`.

    Raises:
        UsageError: It is no trial.

    Example:
        >>> import optuna
        >>> from lrsearch import suggest
        >>> trial = optuna.create_study().ask()
        >>> schedule = suggest(trial, epochs=3)
        >>> pruning = PruningCallback(trial)
        >>> for epoch in range(3):
        ...     pruning(val_loss=1.0)  # raises optuna.TrialPruned where it is time to stop
        >>> trial.user_attrs["stopped"]
        'completed'
    """

    def __init__(self, trial: optuna.trial.BaseTrial) -> None:
        check_trial(trial)
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
            UsageError: As of :meth:`report`.
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
        budget, baseline = budget_of(self.trial), "baseline" in self.trial.user_attrs
        done = budget is not None and self.epoch >= budget
        stop = diverged or (not done and not baseline and self.trial.should_prune())
        if stop or done:
            stopped = "diverged" if diverged else "pruned" if stop else "completed"
            self._end(stopped, val_metric, avg_val_loss)
        return stop

    def _check_steps(self) -> None:
        """A schedule that is not stepped, or too seldom, would win under a false name."""
        schedule = asked(self.trial)
        if schedule is None:
            return
        if self.epoch > schedule.epochs:
            raise UsageError(
                f"this is epoch {self.epoch} of a schedule of {schedule.epochs}: give "
                "suggest(trial, epochs=...) the number of epochs that the loop runs (of several "
                "trainings in one trial, as in cross-validation, report their mean, or nothing)"
            )
        taken, per_epoch = steps_taken(schedule) or (None, 1)
        due = self.epoch * per_epoch
        if taken is not None and abs(taken - due) > max(1.0, 0.1 * due):
            fewer = schedule.interval == "step" and 0 < taken < due
            accumulated = " (of gradients accumulated, fewer than len(loader))" if fewer else ""
            after = "step of the optimizer" if schedule.interval == "step" else "epoch"
            raise UsageError(
                f"scheduler.step() was called {taken} times up to epoch {self.epoch}, expected "
                f"{due}: call it after every {after}, or give suggest and build the interval and "
                f"steps_per_epoch of your loop{accumulated}"
            )

    def _end(self, stopped: str, val_metric: float | None, avg_val_loss: float | None) -> None:
        kept: dict[str, Any] = {"stopped": stopped, "epochs": self.epoch}
        if stopped != "diverged":
            kept |= {"val_metric": val_metric, "avg_val_loss": avg_val_loss}
        for key, value in kept.items():
            if isinstance(value, str) or as_number(value) is not None:
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

        average = WeightAverage(model, whole_steps(steps_per_epoch))
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
