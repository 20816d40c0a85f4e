"""Trains one trial at a time with plain torch.optim and the real torch scheduler."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lrsearch.errors import LrsearchError, UsageError, brief
from lrsearch.measured import EpochResult
from lrsearch.schedules import Schedule
from lrsearch.tasks.batch import as_float, count
from lrsearch.tasks.optimizers import build_optimizer
from lrsearch.tasks.passes import generators, set_generators
from lrsearch.tasks.task import Task, on_device
from lrsearch.training import device as devices
from lrsearch.training.averaging import WeightAverage
from lrsearch.training.batches import (
    epoch_seed,
    evaluation_batches,
    seeded_model,
    training_batches,
)
from lrsearch.training.copies import (
    constants,
    lay_out,
    left_out,
    load_state,
    made_alike,
    snapshot,
)
from lrsearch.training.evaluation import measure
from lrsearch.training.runner import next_validation


@dataclass
class Trial:
    """A trial in training.

    Args:
        schedule: Its schedule.
        model: The model; ``run`` calls it, compiled where that was asked for.
        average: The running average of its weights.
        optimizer: Fresh for each trial.
        scheduler: Built by the schedule on that optimizer.
        fastest: Its parameter group with the highest rate, which the history shows.
        fixed: Large tensors of model and average as they were made, which no state holds.
        scaler: Loss scale, for fp16.
        epoch: Epochs finished.
        step: Optimizer steps taken.
        lr: Rate of the last step.
    """

    schedule: Schedule
    model: nn.Module
    run: Any
    average: WeightAverage
    optimizer: Optimizer
    scheduler: LRScheduler
    fastest: int
    fixed: dict[int, tuple[Tensor, int]]
    scaler: torch.amp.GradScaler | None = None
    epoch: int = 0
    step: int = 0
    lr: float = math.nan


class SingleRunner:
    """Trains trials one by one (a :class:`~lrsearch.training.runner.Runner`).

    No host synchronisation within an epoch; data, augmentation and losses stay on the device.
    Initial weights and, per epoch, batch order, augmentation and what is drawn, also by generators
    of the model, depend on ``seed`` only: all trials share them, and a trial that goes on from a
    saved state is the undisturbed one (bit for bit on a CPU).

    Args:
        task: What is trained.
        optimizer: Class name in ``torch.optim``.
        optimizer_args: Its arguments without ``lr``.
        seed: See above.
        device: Where.
        precision: ``fp32``, ``bf16`` or ``fp16`` (autocast; weights stay float32).
        compile: Run the training step's model through ``torch.compile``.

    Example:
        >>> runner = SingleRunner(load_task("digits"), optimizer="SGD", optimizer_args={},
        ...                       seed=0, device=torch.device("cpu"))
        >>> runner.add(0, Schedule("CosineAnnealingLR", lr=0.1, epochs=30))
        >>> runner.epoch()[0].epoch
        1
    """

    capacity = 1

    def __init__(
        self,
        task: Task,
        *,
        optimizer: str,
        optimizer_args: Mapping[str, Any],
        seed: int,
        device: torch.device,
        precision: str = "fp32",
        compile: bool = False,
    ) -> None:
        devices.prepare(device)
        self._task = task = on_device(task, device)
        self._optimizer = optimizer
        self._optimizer_args = dict(optimizer_args)
        self._seed = seed
        self._device = device
        self._precision = precision
        self._compile = compile
        self._batches = training_batches(task, seed, device)
        self._validation = evaluation_batches(task, task.validation, device)
        self._trials: dict[int, Trial] = {}
        self._compiled: tuple[nn.Module, Any] | None = None

    # who is here

    def add(self, key: int, schedule: Schedule, state: dict[str, Any] | None = None) -> None:
        """Let trial ``key`` in, from the beginning or from a ``state`` saved earlier.

        Raises:
            UsageError: The runner is full.
            LrsearchError: The state is not of this task and optimizer.
        """
        if len(self._trials) >= self.capacity:
            raise UsageError(f"this runner holds {self.capacity} trial; remove one first")
        model, run = self._model()
        task = self._task
        groups = None if task.param_groups is None else task.param_groups(model)
        optimizer = build_optimizer(
            self._optimizer, self._optimizer_args, model, lr=task.lr, groups=groups
        )
        rates = [group["lr"] for group in optimizer.param_groups]  # some schedulers change them
        scheduler = build_scheduler(schedule, optimizer, self._batches.steps, task.validate_every)
        twin = devices.place(task, seeded_model(task, self._seed), self._device)
        average = WeightAverage(model, self._batches.steps, twin)
        trial = Trial(
            schedule=schedule,
            model=model,
            run=run,
            average=average,
            optimizer=optimizer,
            scheduler=scheduler,
            fastest=rates.index(max(rates)),
            fixed=constants(model, average.model),
            scaler=devices.grad_scaler(self._device, self._precision),
        )
        if state is not None:
            _restore(trial, state)
        self._trials[key] = trial

    def remove(self, key: int) -> None:
        """Let the trial go and free its memory."""
        del self._trials[key]

    def state(self, key: int) -> dict[str, Any]:
        """All of the trial after its last validation; ``add`` goes on from it."""
        trial = self._trials[key]
        state = {
            "epoch": trial.epoch,
            "step": trial.step,
            "lr": trial.lr,
            "model": trial.model.state_dict(),
            "average": trial.average.current().state_dict(),
            "unsaved": [left_out(m, trial.fixed) for m in (trial.model, trial.average.model)],
            "optimizer": trial.optimizer.state_dict(),
            "scheduler": trial.scheduler.state_dict(),
        }
        if trial.scaler is not None:
            state["scaler"] = trial.scaler.state_dict()
        copied: dict[str, Any] = snapshot(state)
        return copied

    def weights(self, key: int) -> dict[str, Tensor]:
        """The raw (not averaged) state_dict of the trial's model."""
        copied: dict[str, Tensor] = snapshot(dict(self._trials[key].model.state_dict()))
        return copied

    def unsaved(self, key: int) -> dict[str, Any]:
        """What a state_dict leaves out: non-persistent buffers, plain tensors, counters."""
        copied: dict[str, Any] = snapshot(left_out(self._trials[key].model))
        return copied

    def _model(self) -> tuple[nn.Module, Any]:
        """A model with the initial weights, and what runs it."""
        fresh = devices.place(self._task, seeded_model(self._task, self._seed), self._device)
        if not self._compile:
            return fresh, fresh
        if self._compiled is None:
            self._compiled = fresh, torch.compile(fresh)
        else:  # compiling takes far longer than copying
            made_alike(self._compiled[0], fresh)
        return self._compiled

    # training

    def epoch(self) -> dict[int, EpochResult]:
        """Advance every resident trial to its next validation (``validate_every`` epochs)."""
        return {key: self._advance(trial) for key, trial in self._trials.items()}

    def _advance(self, trial: Trial) -> EpochResult:
        began = time.perf_counter()
        goal = next_validation(trial.epoch, self._task.validate_every, trial.schedule.epochs)
        total, samples = torch.zeros((), device=self._device), 0
        while trial.epoch < goal:
            seed = epoch_seed(self._seed, trial.epoch)
            with devices.random_seed(self._device, seed):
                set_generators(generators(trial.model.modules()), seed)
                samples += self._train(trial, total)
            trial.epoch += 1
        models = trial.model, trial.average.current()
        measured = measure(self._task, models, self._validation, self._device, self._precision)
        train_loss, *numbers = torch.stack([total / max(samples, 1), *measured]).tolist()
        raw, averaged = numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]
        if isinstance(trial.scheduler, ReduceLROnPlateau):
            trial.scheduler.step(raw[0])
        return EpochResult(
            epoch=trial.epoch,
            lr=trial.lr,
            train_loss=train_loss,
            val_loss=raw[0],
            val_metric=raw[1] if len(raw) > 1 else None,
            avg_val_loss=averaged[0],
            avg_val_metric=averaged[1] if len(averaged) > 1 else None,
            seconds=time.perf_counter() - began,
        )

    def _train(self, trial: Trial, total: Tensor) -> int:
        """One epoch; adds loss times samples to ``total`` and gives the number of samples."""
        loss_of, run, scaler = self._task.loss, trial.run, trial.scaler
        clip = self._task.clip_grad_norm
        optimizer, scheduler, average = trial.optimizer, trial.scheduler, trial.average
        parameters = [p for p in trial.model.parameters() if p.requires_grad]
        group = optimizer.param_groups[trial.fastest]
        every_step = trial.schedule.interval == "step"
        device, precision, half = self._device, self._precision, self._precision != "fp32"
        samples, stepped = 0, 0
        trial.model.train()
        average.refresh()
        with _quiet() if scaler is not None else nullcontext():
            for x, y in self._batches.epoch(trial.epoch):
                if half:
                    with devices.autocast(device, precision):
                        outputs = run(x)
                else:
                    outputs = run(x)
                loss = loss_of(as_float(outputs), y)
                if scaler is None:
                    torch.autograd.backward(loss)
                    if clip is not None:
                        nn.utils.clip_grad_norm_(parameters, clip)
                    optimizer.step()
                else:
                    torch.autograd.backward(scaler.scale(loss))
                    if clip is not None:
                        scaler.unscale_(optimizer)
                        nn.utils.clip_grad_norm_(parameters, clip)
                    scaler.step(optimizer)
                    scaler.update()
                for parameter in parameters:
                    parameter.grad = None
                trial.step += 1
                average.update(trial.step)
                size = count(y, outputs)
                samples += size
                total.add_(loss.detach().reshape(()), alpha=size)
                if every_step and stepped < self._batches.steps:
                    trial.lr = group["lr"]
                    scheduler.step()
                    stepped += 1
        if not samples:
            raise LrsearchError(f"task {self._task.name}: train gave no batch in this epoch")
        if every_step:  # a loader may give more or fewer batches than it says
            for _ in range(stepped, self._batches.steps):
                scheduler.step()
        else:
            trial.lr = group["lr"]
            if not isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step()
        return samples


def build_scheduler(
    schedule: Schedule, optimizer: Optimizer, steps_per_epoch: int, validate_every: int
) -> LRScheduler:
    """The schedule's torch scheduler, as training steps it.

    ``ReduceLROnPlateau`` counts its patience and cooldown in epochs but sees one loss every
    ``validate_every`` epochs: here it counts validations.
    """
    scheduler = schedule.build(optimizer, steps_per_epoch)
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.patience //= validate_every
        scheduler.cooldown //= validate_every
    return scheduler


def _restore(trial: Trial, state: Mapping[str, Any]) -> None:
    """Set a fresh trial to a saved state.

    Optimizer, scheduler, the optimizer's state, the scheduler's: the only order that is right for
    all schedulers.
    """
    try:
        copied = snapshot(dict(state))  # optimizers keep the tensors that they are given
        unsaved_of_model, unsaved_of_average = copied.get("unsaved") or ({}, {})
        load_state(trial.model, copied["model"], unsaved_of_model)
        load_state(trial.average.model, copied["average"], unsaved_of_average)
        trial.optimizer.load_state_dict(copied["optimizer"])
        lay_out(trial.optimizer)
        if copied["scheduler"] is not None:
            trial.scheduler.load_state_dict(copied["scheduler"])
        else:  # a fused trial has a trace for a scheduler: go through it up to here
            trial.optimizer.step()  # without gradients; torch warns when a scheduler goes first
            for _ in range(copied["step" if trial.schedule.interval == "step" else "epoch"]):
                trial.scheduler.step()
        if trial.scaler is not None:
            trial.scaler.load_state_dict(copied["scaler"])
        trial.epoch, trial.step, trial.lr = (copied[name] for name in ("epoch", "step", "lr"))
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise LrsearchError(
            f"a saved state does not fit the task and optimizer ({brief(error)})"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """fp16 skips steps that overflow; torch takes that for a wrong order of calls."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of .lr_scheduler.step")
        yield
