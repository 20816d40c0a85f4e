"""Lightning: a schedule as what ``configure_optimizers`` returns, and pruning as a callback."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lrsearch.callback import PruningCallback as Pruning
from lrsearch.errors import LrsearchError, UsageError
from lrsearch.integrations.steps import build_for_steps
from lrsearch.objective import asked
from lrsearch.schedules.family import get_family

try:
    import lightning.pytorch as pl
except ImportError:
    try:
        import pytorch_lightning as pl
    except ImportError:
        raise LrsearchError(
            "Lightning is not installed: pip install 'lrsearch[lightning]'"
        ) from None

if TYPE_CHECKING:
    import optuna
    from torch.optim import Optimizer

    from lrsearch.schedules import Schedule


def configure(
    schedule: Schedule, optimizer: Optimizer, trainer: pl.Trainer, monitor: str = "val_loss"
) -> dict[str, Any]:
    """What ``LightningModule.configure_optimizers`` returns for a schedule.

    Args:
        schedule: From :func:`lrsearch.suggest` or :func:`lrsearch.load`; another budget than the
            trainer's ``max_epochs`` or ``max_steps``, whichever ends first, is rescaled to it.
        optimizer: The optimizer, with any rate.
        trainer: The trainer (``self.trainer``), which knows the steps of an epoch.
        monitor: Logged validation loss, for ReduceLROnPlateau.

    Raises:
        UsageError: The trainer does not know when it will end.

    Example:
        >>> def configure_optimizers(self):  # doctest: +SKIP
        ...     optimizer = torch.optim.SGD(self.parameters(), lr=1.0, momentum=0.9)
        ...     return configure(self.schedule, optimizer, self.trainer)
    """
    total = trainer.estimated_stepping_batches  # of the optimizer; -1 where it is not known
    epochs = _epochs(trainer) or trainer.max_epochs
    if schedule.interval == "epoch" and epochs is not None and epochs > 0:
        if epochs != schedule.epochs:
            schedule = schedule.rescaled(epochs)
        scheduler, interval = schedule.build(optimizer), "epoch"
    elif 0 < total < math.inf and not get_family(schedule.family).needs_metric:
        scheduler, interval = build_for_steps(schedule, optimizer, int(total)), "step"
    else:
        raise UsageError(
            "a schedule needs to know when the training ends: give "
            f"Trainer(max_epochs={schedule.epochs}), and max_steps for data without a length"
        )
    plan = {"scheduler": scheduler, "interval": interval, "monitor": monitor}
    return {"optimizer": optimizer, "lr_scheduler": plan}


def _epochs(trainer: pl.Trainer) -> int | None:
    """Epochs that will be run, which ``max_steps`` may end before; None where nothing says it."""
    total = trainer.estimated_stepping_batches
    batches = float(trainer.num_training_batches / trainer.accumulate_grad_batches)
    if 0 < total < math.inf and math.isfinite(batches):
        return math.ceil(float(total) / max(1, math.ceil(batches)))
    return None


class PruningCallback(pl.Callback):  # type: ignore[misc]
    """Reports the validation loss of every epoch to Optuna, and ends trials not worth more.

    As :class:`lrsearch.PruningCallback`: a loss that is not finite ends the trial as pruned. Of an
    epoch with several validations (``val_check_interval`` below 1) the last one counts. Where
    validations come every so many batches, whatever the epoch (``check_val_every_n_epoch=None``),
    each of them ends an epoch of the schedule: give :func:`lrsearch.suggest` their number.

    Args:
        trial: The Optuna trial.
        monitor: Name under which the module logs its validation loss.
        metric: Name of another logged number worth keeping, such as the accuracy.

    Raises:
        optuna.TrialPruned: Out of ``trainer.fit``, where the trial shall end.
        UsageError: The trainer runs another number of epochs than the schedule was suggested for,
            ``monitor`` is not logged, or no scheduler is stepped under manual optimization.

    Example:
        >>> pl.Trainer(max_epochs=30, callbacks=[PruningCallback(trial)])  # doctest: +SKIP
    """

    def __init__(
        self, trial: optuna.trial.BaseTrial, monitor: str = "val_loss", metric: str | None = None
    ) -> None:
        super().__init__()
        self._pruning = Pruning(trial)
        self._monitor = monitor
        self._metric = metric
        self._latest: tuple[float, float | None] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The rest of a curve that is not trained says nothing of how a trial will end."""
        schedule, runs = asked(self._pruning.trial), _epochs(trainer)
        counted = pl_module.automatic_optimization or trainer.max_steps < 0  # of each optimizer
        if schedule is None or runs is None or _by_batches(trainer) or not counted:
            return
        if runs != schedule.epochs:
            raise UsageError(
                f"the epochs of the trainer are {runs}, those of the schedule {schedule.epochs}: "
                f"give suggest(trial, epochs={runs})"
            )

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing is known of this epoch yet."""
        self._latest = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep what was logged: another validation of this epoch may follow."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        metric = None if self._metric is None else self._logged(trainer, self._metric)
        self._latest = self._logged(trainer, self._monitor), metric
        if _by_batches(trainer):
            self._report(trainer, pl_module, self._pruning.epoch + 1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the epoch's last validation."""
        epoch = trainer.current_epoch + 1
        if self._latest is not None and not _by_batches(trainer) and epoch > self._pruning.epoch:
            self._report(trainer, pl_module, epoch)

    def _report(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        """On every process the same decision."""
        import optuna

        assert self._latest is not None
        loss, metric = self._latest
        if epoch > 1 and not pl_module.automatic_optimization:
            _check_stepped(trainer)
        stop = trainer.is_global_zero and self._pruning.report(
            loss, epoch=epoch, val_metric=metric
        )
        if trainer.strategy.broadcast(stop):
            raise optuna.TrialPruned(f"stopped after epoch {epoch}")

    def _logged(self, trainer: pl.Trainer, name: str) -> float:
        if name not in trainer.callback_metrics:
            logged = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
            raise UsageError(
                f"the module does not log {name!r}: add self.log({name!r}, ...) to "
                f"validation_step (it logs {logged})"
            )
        return float(trainer.callback_metrics[name])


def _by_batches(trainer: pl.Trainer) -> bool:
    """Whether it validates every so many batches, also across epochs."""
    return trainer.check_val_every_n_epoch is None


def _check_stepped(trainer: pl.Trainer) -> None:
    """Under manual optimization Lightning steps no scheduler."""
    steps = [getattr(each.scheduler, "last_epoch", 1) for each in trainer.lr_scheduler_configs]
    if steps and not any(steps):
        raise UsageError(
            "no scheduler was stepped: under manual optimization call self.lr_schedulers().step() "
            "yourself, after every step of the optimizer or every epoch, as schedule.interval says"
        )
