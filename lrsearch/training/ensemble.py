"""Up to k trials of one task in lock-step, as one stacked model.

Every trial sits in a row of the stacked tensors, with its own epoch, batch order, learning
rate, momentum and optimizer state; one that leaves makes room for the next at once. What a trial
does never depends on its neighbours: its history is that of the same trial alone, to rounding.
On an accelerator dropout draws other numbers where a model is stacked, those of seed and epoch.
Adam makes whole steps of a gradient that is rounding alone, as that of a bias before a batch norm
is; there losses have been up to 1% apart.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lrsearch.errors import LrsearchError, UsageError, brief
from lrsearch.measured import EpochResult
from lrsearch.schedules import Schedule
from lrsearch.schedules.family import get_family, is_builtin
from lrsearch.schedules.trace import LazyTrace, dummy
from lrsearch.tasks.optimizers import build_optimizer
from lrsearch.tasks.task import Split, Task, on_device
from lrsearch.training import device as devices
from lrsearch.training import stacked_optim
from lrsearch.training.averaging import MOST_EPOCHS, SHARE
from lrsearch.training.batches import epoch_seed, seeded_model
from lrsearch.training.fused_trial import FusedTrial
from lrsearch.training.loop import build_scheduler
from lrsearch.training.products import as_torch
from lrsearch.training.runner import next_validation
from lrsearch.training.stacked import Trainer, build_stack
from lrsearch.training.stacked_batches import StackedBatches
from lrsearch.training.stacked_rows import Rows, RowStates
from lrsearch.training.stacked_validation import StackedValidation
from lrsearch.training.stacked_vmap import quiet

Array = npt.NDArray[np.float64]


class EnsembleRunner:
    """Trains up to k trials at once (a :class:`~lrsearch.training.runner.Runner`).

    Args:
        task: One of which :func:`lrsearch.training.stacked.why_not_fused` says None.
        k: Slots, at least 1.
        optimizer: ``SGD``, ``Adam`` or ``AdamW``.
        optimizer_args: Its arguments, without ``lr``.
        seed: Of initial weights, batch order, augmentation and dropout.
        device: Where.
        precision: ``fp32`` or ``bf16`` (autocast).

    Raises:
        LrsearchError: The task or the optimizer cannot be fused.
    """

    def __init__(
        self,
        task: Task,
        *,
        k: int,
        optimizer: str,
        optimizer_args: Mapping[str, Any],
        seed: int,
        device: torch.device,
        precision: str = "fp32",
    ) -> None:
        task = on_device(task, device)
        assert isinstance(task.train, Split)
        devices.prepare(device)
        self.capacity = k
        self._task = task
        self._seed = seed
        self._device = device
        self._optimizer, self._optimizer_args = optimizer, dict(optimizer_args)
        self._rule = stacked_optim.build(optimizer, optimizer_args)
        self._model = seeded_model(task, seed).to(device)
        try:
            self._stack = build_stack(task, self._model, task.train.y, precision)
        except ValueError as error:
            raise LrsearchError(f"task {task.name} cannot be fused: {error}") from error
        self._batches = StackedBatches(
            task.train,
            batch_size=task.batch_size,
            drop_last=task.drop_last,
            seed=seed,
            transform=task.transform,
            augment=task.augment,
            prepare=self._stack.prepare,
            device=device,
        )
        self._validation = StackedValidation(task, self._stack, device, k)
        self._steps = self._batches.steps
        self._trials: list[FusedTrial] = []
        self._rows = Rows.allocate(
            k,
            self._stack.width,
            len(self._rule.states),
            dict(self._model.named_buffers()),
            device,
        )
        self._states = RowStates(self._model, self._stack, self._rule, self._rows)
        initial = {name: t.clone() for name, t in self._model.state_dict().items()}
        self._states.write(0, initial, initial)
        self._fresh = self._rows.take([0])
        self._grads = torch.zeros(k, self._stack.width, device=device)
        self._trainers: dict[int, dict[int, Trainer]] = {}

    @property
    def draws(self) -> bool:
        """Whether a trial draws random numbers, which it shares with those of the same epoch."""
        return self._stack.random or self._stack.dropout is not None

    # who is here

    def add(self, key: int, schedule: Schedule, state: dict[str, Any] | None = None) -> None:
        """Let trial ``key`` in, from the beginning or from a ``state`` saved earlier.

        Raises:
            UsageError: All slots are taken.
            LrsearchError: The state is not of this task and optimizer.
        """
        if len(self._trials) == self.capacity:
            raise UsageError(f"all {self.capacity} slots are taken; remove a trial first")
        trial, row = self._trial(key, schedule), len(self._trials)
        if state is None:
            self._rows.put([row], self._fresh)
        else:
            self._restore(row, trial, state)
        self._trials.append(trial)

    def remove(self, key: int) -> None:
        """Let the trial go; the last row moves into its place, so that no row is empty."""
        row = self._row(key)
        last = len(self._trials) - 1
        if row != last:
            self._rows.move(last, row)
            self._trials[row] = self._trials[last]
        self._trials.pop()

    def weights(self, key: int) -> dict[str, Tensor]:
        """The raw (not averaged) state_dict of the trial's model."""
        return self._states.read(self._row(key))

    def unsaved(self, key: int) -> dict[str, Tensor]:
        """Its buffers that a state_dict leaves out (``persistent=False``)."""
        return self._states.read_unsaved(self._row(key))[0]

    def state(self, key: int) -> dict[str, Any]:
        """All of the trial after its last validation, as ``SingleRunner`` gives and takes it.

        Of a scheduler only what a loss has driven is in it; the others follow from the epoch.
        """
        row = self._row(key)
        trial = self._trials[row]
        step = trial.epoch * self._steps
        optimizer = build_optimizer(
            self._optimizer, self._optimizer_args, self._model, lr=self._task.lr, trains=False
        )
        build_scheduler(trial.schedule, optimizer, self._steps, self._task.validate_every)
        state: dict[str, Any] = {
            "epoch": trial.epoch,
            "step": step,
            "lr": trial.last_lr,
            "model": _on_cpu(self._states.read(row)),
            "average": _on_cpu(self._states.read(row, averaged=True)),
            "unsaved": [_on_cpu(values) for values in self._states.read_unsaved(row)],
            "scheduler": None,
        }
        if trial.plateau is not None:
            optimizer.param_groups[0]["lr"] = trial.plateau_lr
            state["scheduler"] = trial.plateau.state_dict()
        state["optimizer"] = {
            "state": self._states.read_optimizer(row, step),
            "param_groups": [
                {**group, "params": list(range(len(group["params"])))}
                for group in optimizer.param_groups
            ],
        }
        return state

    def _row(self, key: int) -> int:
        for row, trial in enumerate(self._trials):
            if trial.key == key:
                return row
        raise KeyError(key)

    def _trial(self, key: int, schedule: Schedule) -> FusedTrial:
        family = get_family(schedule.family)
        if family.needs_metric:
            optimizer = dummy("sgd", 0.0)
            plateau = build_scheduler(schedule, optimizer, self._steps, self._task.validate_every)
            return FusedTrial(key, schedule, None, plateau)
        trace = LazyTrace(schedule, self._steps, self._rule.momentum, self._rule.kind)
        if not is_builtin(family):
            trace.span(0, schedule.epochs * self._steps)  # what fails, fails before it trains
        return FusedTrial(key, schedule, trace)

    def _restore(self, row: int, trial: FusedTrial, state: Mapping[str, Any]) -> None:
        """Set a row and its trial to a saved state."""
        try:
            self._states.write(row, state["model"], state["average"])
            self._states.write_unsaved(row, state.get("unsaved", ()))
            self._states.write_optimizer(row, state["optimizer"]["state"])
            trial.epoch, trial.last_lr = int(state["epoch"]), float(state["lr"])
            if state["step"] != trial.epoch * self._steps:
                raise ValueError(f"{state['step']} steps are not {trial.epoch} epochs")
            if trial.plateau is not None:
                trial.plateau.load_state_dict(state["scheduler"])
                (group,) = trial.plateau.optimizer.param_groups
                group["lr"] = state["optimizer"]["param_groups"][0]["lr"]
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            raise LrsearchError(
                f"a saved state does not fit the task and optimizer ({brief(error)})"
            ) from error

    # training

    def epoch(self) -> dict[int, EpochResult]:
        """Advance every resident trial to its next validation (``validate_every`` epochs)."""
        if not self._trials:
            return {}
        began = time.perf_counter()
        every = self._task.validate_every
        goals = [
            next_validation(trial.epoch, every, trial.schedule.epochs) for trial in self._trials
        ]
        with torch.no_grad(), as_torch(), quiet(), np.errstate(all="ignore"):
            while rows := [i for i, goal in enumerate(goals) if self._trials[i].epoch < goal]:
                self._advance(rows, min(goals[i] - self._trials[i].epoch for i in rows))
            numbers = self._validation(self._rows.head(len(self._trials)))
        seconds = time.perf_counter() - began
        return {
            trial.key: trial.result(row, seconds)
            for trial, row in zip(self._trials, numbers, strict=True)
        }

    def _advance(self, rows: Sequence[int], count: int) -> None:
        """Train some of the trials for some epochs."""
        if not self.draws:
            return self._advance_group(rows, count)
        groups: dict[int, list[int]] = {}  # of now: those of one epoch then come to the next
        for i in rows:
            groups.setdefault(self._trials[i].epoch, []).append(i)
        if self._stack.dropout is not None:
            numbers = [self._random_numbers(epoch) for epoch in groups]
            which = [list(groups).index(self._trials[i].epoch) for i in rows]
            self._stack.dropout.start(numbers, torch.tensor(which, device=self._device))
            return self._advance_group(rows, 1)
        for epoch, group in groups.items():
            with devices.random_seed(self._device, epoch_seed(self._seed, epoch)):
                torch.set_rng_state(self._batches.drawn(epoch))
                self._advance_group(group, 1)
        return None

    def _random_numbers(self, epoch: int) -> torch.Generator:
        """Those that a trial draws on the device in an epoch."""
        generator = torch.Generator(self._device)
        if self._device.type == "cpu":
            return generator.set_state(self._batches.drawn(epoch))
        return generator.manual_seed(epoch_seed(self._seed, epoch))

    def _advance_group(self, index: Sequence[int], count: int) -> None:
        trials = [self._trials[i] for i in index]
        if len(index) == len(self._trials):
            losses = self._train(self._rows.head(len(trials)), trials, count)
        else:
            part = self._rows.take(index)
            losses = self._train(part, trials, count, apart=True)
            self._rows.put(index, part)
        for trial, loss in zip(trials, losses.tolist(), strict=True):
            trial.epoch += count
            trial.loss += loss * count
            trial.counted += count

    def _train(
        self, rows: Rows, trials: Sequence[FusedTrial], count: int, apart: bool = False
    ) -> Tensor:
        """``count`` epochs of the trials in ``rows``; their mean losses (n,)."""
        n, steps = len(trials), count * self._steps
        grads = self._grads[:n]
        sizes = self._batches.sizes
        trainers = None if apart else self._trainers.get(n)
        if trainers is None:
            bound = rows.params, grads, rows.buffers
            trainers = {size: self._stack.trainer(*bound, size) for size in sizes}
            self._trainers = self._trainers if apart else {n: trainers}
        columns = self._columns(trials, steps)
        statistics = [
            (average, rows.buffers[name]) for name, average in rows.average_buffers.items()
        ]
        batches = self._batches([trial.epoch for trial in trials], count)
        for (x, y), (*factors, weight) in zip(batches, columns, strict=True):
            trainers[y.shape[1]].step(x, y)
            if self._task.clip_grad_norm is not None:
                stacked_optim.clip(grads, self._task.clip_grad_norm)
            self._rule.step(rows.params, grads, rows.optim, factors)
            rows.average.lerp_(rows.params, weight)
            for average, value in statistics:
                _follow(average, value, weight)
        samples = sum(size * times for size, times in sizes.items())
        shares = [  # of the mean over all samples
            trainers[size].take_losses(times * count).mul_(size * times / samples)
            for size, times in sizes.items()
        ]
        return torch.stack(shares).sum(0)

    def _columns(self, trials: Sequence[FusedTrial], steps: int) -> list[tuple[Tensor, ...]]:
        """For each step the optimizer's factors and the weight of the average, each (n, 1)."""
        first = np.array([trial.epoch * self._steps for trial in trials])
        lr = np.empty((len(trials), steps))
        momentum = np.empty((len(trials), steps))
        for i, trial in enumerate(trials):
            if trial.trace is None:
                lr[i], momentum[i] = trial.plateau_lr, self._rule.momentum
            else:
                lr[i], momentum[i] = trial.trace.span(first[i], first[i] + steps)
            trial.last_lr = float(lr[i, -1])
        elapsed = first[:, None] + np.arange(1, steps + 1)
        weight = 1 / np.clip(SHARE * elapsed, 1, MOST_EPOCHS * self._steps)
        columns = [*self._rule.columns(lr, momentum, first), weight]
        stacked = torch.from_numpy(np.stack(columns)).transpose(1, 2).unsqueeze(3).float()
        per_column = [column.unbind(0) for column in stacked.to(self._device).unbind(0)]
        return list(zip(*per_column, strict=True))


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to("cpu") for name, tensor in state.items()}


def _follow(average: Tensor, value: Tensor, weight: Tensor) -> None:
    """Running average of a buffer (n, ...); what is no float is taken over."""
    if average.is_floating_point():
        average.lerp_(value, weight.view(-1, *(1,) * (value.dim() - 1)))
    else:
        average.copy_(value)
