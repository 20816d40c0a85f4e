"""Hugging Face ``Trainer``: a schedule in place of its own, and a search with its ``hp_space``."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lrsearch.callback import PruningCallback
from lrsearch.errors import LrsearchError, UsageError
from lrsearch.integrations.steps import build_for_steps
from lrsearch.objective import suggest
from lrsearch.schedules.family import get_family

try:
    from transformers import Trainer
    from transformers.trainer_utils import default_compute_objective
except ImportError:
    raise LrsearchError(
        "transformers is not installed: pip install 'lrsearch[transformers]'"
    ) from None

if TYPE_CHECKING:
    import optuna
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from lrsearch.schedules import Schedule


class ScheduleMixin:
    """Makes any ``Trainer`` class train with a schedule of ours: put it before the class.

    Attributes:
        schedule: The schedule; None leaves the trainer its own. Another budget than
            ``num_train_epochs`` or ``max_steps`` is rescaled to it.

    Example:
        >>> class MyTrainer(ScheduleMixin, Seq2SeqTrainer):  # doctest: +SKIP
        ...     pass
    """

    schedule: Schedule | None
    args: Any
    optimizer: Any
    lr_scheduler: Any
    _pruning: PruningCallback | None = None

    def __init__(self, *args: Any, schedule: Schedule | None = None, **kwargs: Any) -> None:
        self.schedule = schedule
        super().__init__(*args, **kwargs)

    def create_scheduler(
        self, num_training_steps: int, optimizer: Optimizer | None = None
    ) -> LRScheduler:
        """The schedule's torch scheduler, which the trainer steps after every optimizer step."""
        schedule = self.schedule
        if schedule is None:
            own: LRScheduler = super().create_scheduler(num_training_steps, optimizer)  # type: ignore[misc]
            return own
        optimizer = optimizer or self.optimizer
        if get_family(schedule.family).needs_metric:
            _step_on_the_loss(schedule.family, self.args)
            made = schedule.rescaled(_validations(self)).build(optimizer)
        else:
            made = build_for_steps(schedule, optimizer, num_training_steps)
        self.lr_scheduler = made
        return made

    def _report_to_hp_search(self, trial: Any, step: int, metrics: dict[str, float]) -> None:
        """In epochs, where the trainer's own reports in steps; a loss of NaN ends the trial."""
        if self._pruning is None or self._pruning.trial is not trial:
            super()._report_to_hp_search(trial, step, metrics)  # type: ignore[misc]
            return
        import optuna

        self.objective = self.compute_objective(metrics.copy())  # type: ignore[attr-defined]
        state = self.state  # type: ignore[attr-defined]
        if self.args.eval_strategy == "steps":
            epoch = math.ceil(state.global_step / state.eval_steps)  # the trainer ends with one
        else:
            epoch = max(1, math.ceil(state.epoch - 1e-6))
        if epoch > self._pruning.epoch and self._pruning.report(self.objective, epoch=epoch):
            raise optuna.TrialPruned(f"stopped after epoch {epoch}")


class ScheduleTrainer(ScheduleMixin, Trainer):  # type: ignore[misc]
    """A ``Trainer`` with a schedule of ours.

    Args:
        *args: As ``Trainer``.
        schedule: The schedule; None leaves the trainer its own.
        **kwargs: As ``Trainer``.

    Example:
        >>> schedule = lrsearch.load("best.yaml")  # doctest: +SKIP
        >>> trainer = ScheduleTrainer(model, args, schedule=schedule)  # doctest: +SKIP
    """


def _validations(trainer: Any) -> int:
    """The budget of a search: an epoch is from one validation to the next."""
    args, steps = trainer.args, int(trainer.args.max_steps)
    by_steps = args.eval_strategy == "steps"
    if steps <= 0 and not by_steps:
        return max(1, math.ceil(float(args.num_train_epochs)))
    try:
        batches = len(trainer.get_train_dataloader())
        per_epoch = math.ceil(batches / int(args.gradient_accumulation_steps))
    except TypeError:  # a stream: the trainer takes max_steps for an epoch
        per_epoch = max(1, steps)
    if steps <= 0:
        steps = math.ceil(float(args.num_train_epochs) * per_epoch)
    if not by_steps:
        return math.ceil(steps / per_epoch)
    every = float(args.eval_steps)  # or a share of the training
    return math.ceil(steps / (int(every) if every >= 1 else math.ceil(steps * every)))


def _step_on_the_loss(family: str, args: Any) -> None:
    """Settings with which the trainer steps a scheduler on the evaluation loss, as for its own."""
    if args.eval_strategy == "no":
        raise UsageError(
            f"{family} steps on the evaluation loss: give TrainingArguments(eval_strategy='epoch')"
        )
    if args.metric_for_best_model is None:
        args.metric_for_best_model, args.greater_is_better = "loss", False
    elif args.greater_is_better:
        raise UsageError(
            f"{family} steps on the evaluation loss, and the trainer would step it on "
            f"{args.metric_for_best_model}: give metric_for_best_model='eval_loss'"
        )


def hp_space(
    trainer: ScheduleMixin, **space: Any
) -> Callable[[optuna.trial.BaseTrial], dict[str, Any]]:
    """The ``hp_space`` of ``trainer.hyperparameter_search`` that searches schedules.

    Search with ``backend="optuna"``, ``direction="minimize"``, ``compute_objective=eval_loss`` and
    an evaluation every epoch (``eval_strategy="epoch"``), or every so many steps
    (``eval_strategy="steps"``), which then count as an epoch each. With ``storage`` and
    ``study_name`` the study is kept, and :func:`lrsearch.report` shows it.

    Trials come one after the other, as a trainer has one model. For several at once give no
    ``n_jobs``, but start as many processes with the same ``storage`` and ``study_name``, and
    ``load_if_exists=True``.

    Args:
        trainer: A :class:`ScheduleTrainer` with ``model_init``.
        **space: As for :func:`lrsearch.suggest`: ``schedules``, ``lr``, ``warmup``.

    Raises:
        UsageError: The trainer takes no schedule. At the first trial: ``n_jobs`` is above 1, or
            it would be judged by the sum of its metrics, which is the trainer's own objective.

    Example:
        >>> trainer.hyperparameter_search(  # doctest: +SKIP
        ...     hp_space(trainer, lr=(1e-5, 1e-2)), compute_objective=eval_loss, n_trials=20,
        ...     direction="minimize", backend="optuna")
    """
    if not isinstance(trainer, ScheduleMixin):
        raise UsageError(
            f"a {type(trainer).__name__} takes no schedule: use ScheduleTrainer, or put "
            "ScheduleMixin before your own class"
        )

    thread = threading.get_ident()  # with n_jobs above 1 all trials run in others

    def suggested(trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        if threading.get_ident() != thread:
            raise UsageError(
                "a trainer has one model, which trials in threads cannot share: search with "
                "n_jobs=1, in the thread that called hp_space; for several at once start as many "
                "processes, with the same storage and study_name"
            )
        judge = getattr(trainer, "compute_objective", None)
        if judge is default_compute_objective and getattr(trainer, "compute_metrics", None):
            raise UsageError(
                "with compute_metrics the trainer's own objective is the sum of the metrics, no "
                "loss: give hyperparameter_search(compute_objective=eval_loss)"
            )
        trainer.schedule = suggest(trial, _validations(trainer), **space)
        trainer._pruning = PruningCallback(trial)
        return {"learning_rate": trainer.schedule.lr}

    return suggested


def eval_loss(metrics: dict[str, float]) -> float:
    """The ``compute_objective`` that a search of schedules needs: the evaluation loss.

    Args:
        metrics: What ``Trainer.evaluate`` gives.

    Example:
        >>> eval_loss({"eval_loss": 0.5, "eval_accuracy": 0.9})
        0.5
    """
    return metrics["eval_loss"]
