"""Lightning: a schedule as what ``configure_optimizers`` returns, and pruning as a callback."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lrsearch.callback import PruningCallback as Pruning
from lrsearch.errors import LrsearchError, UsageError
from lrsearch.integrations.steps import build_for_steps
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
    batches = trainer.num_training_batches / trainer.accumulate_grad_batches
    epochs = trainer.max_epochs
    if 0 < total < math.inf and math.isfinite(batches):
        epochs = math.ceil(total / max(1, math.ceil(batches)))  # max_steps may end it before
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


class PruningCallback(pl.Callback):  # type: ignore[misc]
    """Reports the validation loss of every epoch to Optuna, and ends trials not worth more.

    As :class:`lrsearch.PruningCallback`: a loss that is not finite ends the trial as pruned. Of an
    epoch with several validations (``val_check_interval`` below 1) the last one counts.

    Args:
        trial: The Optuna trial.
        monitor: Name under which the module logs its validation loss.
        metric: Name of another logged number worth keeping, such as the accuracy.

    Raises:
        optuna.TrialPruned: Out of ``trainer.fit``, where the trial shall end.

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

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing is known of this epoch yet."""
        self._latest = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep what was logged: another validation of this epoch may follow."""
        if not trainer.sanity_checking:
            metric = None if self._metric is None else self._logged(trainer, self._metric)
            self._latest = self._logged(trainer, self._monitor), metric

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the epoch's last validation; on every process the same decision."""
        import optuna

        epoch = trainer.current_epoch + 1
        if self._latest is None or epoch <= self._pruning.epoch:
            return
        loss, metric = self._latest
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
