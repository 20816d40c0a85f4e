"""Lightning, Hugging Face and accelerate train at exactly the rates that the schedule says."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import optuna
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import lrsearch
from lrsearch.divergence import DIVERGED_LOSS
from lrsearch.errors import UsageError
from lrsearch.integrations.steps import build_for_steps
from lrsearch.schedules import Schedule

EPOCHS, STEPS = 3, 4
SCHEDULES = [
    Schedule("StepLR", 0.1, EPOCHS, {"step_size": 1, "gamma": 0.5}),
    Schedule("CosineAnnealingLR", 0.1, EPOCHS, warmup=1, interval="step"),
    Schedule("OneCycleLR", 0.1, EPOCHS),
    Schedule("SequentialLR", 0.1, EPOCHS, {"hold": 1, "decay": "LinearLR", "end_factor": 0.1}),
]
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # the frameworks' own
    pytest.mark.usefixtures("in_tmp", "quiet_optuna"),
]


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8 * STEPS, 4, generator=generator)
    return TensorDataset(x, (x.sum(1) > 0).long())


# Lightning


def lightning_model(
    schedule: Schedule, loss: Callable[[int], float] | None = None, name: str = "val_loss"
) -> Any:
    """A module that remembers the rate of each step; ``loss`` may replace the validation loss."""
    pl = pytest.importorskip("lightning.pytorch")
    from lrsearch.integrations.lightning import configure

    class Module(pl.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Linear(4, 2)
            self.rates: list[float] = []

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            self.rates.append(self.optimizers().param_groups[0]["lr"])
            return F.cross_entropy(self.network(batch[0]), batch[1])

        def validation_step(self, batch: list[Tensor], index: int) -> None:
            value = F.cross_entropy(self.network(batch[0]), batch[1])
            self.log(name, value if loss is None else loss(self.current_epoch + 1))
            self.log("accuracy", 0.5)

        def configure_optimizers(self) -> dict[str, Any]:
            optimizer = torch.optim.SGD(self.parameters(), lr=1.0, momentum=0.9)
            return configure(schedule, optimizer, self.trainer)

    return Module()


QUIET = {
    "max_epochs": EPOCHS,
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def fit(module: Any, *callbacks: Any, **words: Any) -> Any:
    pl = pytest.importorskip("lightning.pytorch")
    trainer = pl.Trainer(**QUIET | words, callbacks=list(callbacks))
    trainer.fit(module, DataLoader(data(), 8), DataLoader(data(), 32))
    return trainer


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.family)
def test_lightning_trains_at_the_rates_of_the_trace(schedule: Schedule) -> None:
    module = lightning_model(schedule)
    fit(module)
    assert module.rates == schedule.trace(STEPS).lr.tolist()


def test_lightning_rescales_to_its_own_epochs_and_steps_plateau_on_the_loss() -> None:
    schedule = SCHEDULES[0]
    module = lightning_model(schedule.rescaled(30))
    fit(module)
    assert module.rates == schedule.trace(STEPS).lr.tolist()
    params = {"factor": 0.5, "patience": 0, "threshold": 0.0}
    module = lightning_model(Schedule("ReduceLROnPlateau", 0.1, 4, params), loss=lambda epoch: 1.0)
    fit(module, max_epochs=4)
    assert module.rates[::STEPS] == pytest.approx([0.1, 0.1, 0.05, 0.025])


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        ({"max_steps": 10}, 10),  # ends in the third epoch
        ({"max_steps": 5, "max_epochs": 30}, 5),  # long before the last epoch
        ({"max_steps": 10, "max_epochs": -1}, 10),
        ({"max_epochs": 5}, 20),
    ],
)
@pytest.mark.parametrize("family", ["OneCycleLR", "CosineAnnealingLR"])
def test_lightning_schedule_is_over_with_the_last_step(
    family: str, words: dict[str, int], steps: int
) -> None:
    schedule = Schedule(family, 0.1, 4, interval="step")
    module = lightning_model(schedule)
    fit(module, **words)
    assert len(module.rates) == steps
    assert module.rates == pytest.approx(schedule.rescaled(steps).trace(1).lr.tolist())


@pytest.mark.parametrize("steps", [1_000_000, 1_000_001, 7_654_321])
def test_a_training_may_have_millions_of_steps(steps: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler: Any = build_for_steps(Schedule("OneCycleLR", 0.1, 7), optimizer, steps)
    assert steps <= scheduler.total_steps <= steps * (1 + 2e-6)


def test_a_training_without_steps_has_no_schedule() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(UsageError, match="must be whole, from 1 to 1,000,000, got 0"):
        build_for_steps(SCHEDULES[0], optimizer, 0)


def test_lightning_steps_an_epoch_schedule_over_the_epochs_that_are_run() -> None:
    module = lightning_model(SCHEDULES[0].rescaled(30))
    fit(module, max_epochs=30, max_steps=10)
    assert module.rates == pytest.approx(SCHEDULES[0].trace(STEPS).lr[:10].tolist())


def test_lightning_reports_epochs_and_prunes() -> None:
    pytest.importorskip("lightning")
    from lrsearch.integrations.lightning import PruningCallback

    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=1.5))
    trial = study.ask()
    schedule = lrsearch.suggest(trial, EPOCHS)
    module = lightning_model(schedule, loss=lambda epoch: float(epoch))
    with pytest.raises(optuna.TrialPruned, match="stopped after epoch 2"):
        fit(module, PruningCallback(trial, metric="accuracy"))
    stored = study.trials[0]
    assert stored.intermediate_values == {1: 1.0, 2: 2.0}
    assert stored.user_attrs["stopped"] == "pruned"
    assert stored.user_attrs["val_metric"] == 0.5
    assert len(module.rates) == 2 * STEPS


def test_lightning_reports_the_last_validation_of_an_epoch() -> None:
    pytest.importorskip("lightning")
    from lrsearch.integrations.lightning import PruningCallback

    losses = iter([9.0, 1.0, 8.0, 2.0, 7.0, 3.0])
    study = optuna.create_study()
    trial = study.ask()
    module = lightning_model(lrsearch.suggest(trial, EPOCHS), loss=lambda epoch: next(losses))
    callback = PruningCallback(trial)
    trainer = fit(module, callback, val_check_interval=0.5, num_sanity_val_steps=0)
    assert study.trials[0].intermediate_values == {1: 1.0, 2: 2.0, 3: 3.0}
    assert study.trials[0].user_attrs["stopped"] == "completed"
    losses = iter([5.0])
    trainer.validate(module, DataLoader(data(), 32), verbose=False)  # of no epoch
    assert list(study.trials[0].intermediate_values) == [1, 2, 3]
    assert len(module.rates) == EPOCHS * STEPS


def test_lightning_counts_validations_that_come_every_so_many_batches() -> None:
    pytest.importorskip("lightning")
    from lrsearch.integrations.lightning import PruningCallback

    losses = iter([1.0, 2.0, 3.0, 4.0, 5.0])
    words = {"val_check_interval": 3, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0}
    study = optuna.create_study()
    trial = study.ask()
    module = lightning_model(lrsearch.suggest(trial, 4), loss=lambda epoch: next(losses))
    trainer = fit(module, PruningCallback(trial), **words)
    assert study.trials[0].intermediate_values == {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}
    assert study.trials[0].user_attrs["stopped"] == "completed"
    trainer.validate(module, DataLoader(data(), 32), verbose=False)  # of no epoch
    assert len(study.trials[0].intermediate_values) == 4
    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=1.5))
    trial, losses = study.ask(), iter([1.0, 2.0])
    module = lightning_model(lrsearch.suggest(trial, 4), loss=lambda epoch: next(losses))
    with pytest.raises(optuna.TrialPruned, match="stopped after epoch 2"):
        fit(module, PruningCallback(trial), **words)
    assert len(module.rates) == 6


def test_lightning_runs_the_epochs_that_the_schedule_was_suggested_for() -> None:
    pytest.importorskip("lightning")
    from lrsearch.integrations.lightning import PruningCallback

    for epochs, words in ((EPOCHS + 1, {}), (2, {}), (EPOCHS, {"max_steps": 2 * STEPS})):
        trial = optuna.create_study().ask()
        module = lightning_model(lrsearch.suggest(trial, epochs))
        runs = 2 if words else EPOCHS
        with pytest.raises(
            UsageError, match=f"trainer are {runs}, those of the schedule {epochs}"
        ):
            fit(module, PruningCallback(trial), **words)
        assert not module.rates


def test_lightning_notices_a_scheduler_that_manual_optimization_never_steps() -> None:
    pl = pytest.importorskip("lightning.pytorch")
    from lrsearch.integrations.lightning import PruningCallback, configure

    class Manual(pl.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, schedule: Schedule, steps: bool) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.network, self.schedule, self.steps = nn.Linear(4, 2), schedule, steps

        def training_step(self, batch: list[Tensor], index: int) -> None:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(F.cross_entropy(self.network(batch[0]), batch[1]))
            optimizer.step()
            if self.steps:
                self.lr_schedulers().step()

        def validation_step(self, batch: list[Tensor], index: int) -> None:
            self.log("val_loss", 1.0)

        def configure_optimizers(self) -> dict[str, Any]:
            optimizer = torch.optim.SGD(self.parameters(), lr=1.0, momentum=0.9)
            return configure(self.schedule, optimizer, self.trainer)

    study = optuna.create_study()
    for steps in (True, False):
        trial = study.ask()
        module = Manual(lrsearch.suggest(trial, EPOCHS, schedules="StepLR"), steps)
        if steps:
            fit(module, PruningCallback(trial))
        else:
            with pytest.raises(UsageError, match=r"call self.lr_schedulers\(\).step\(\) yourself"):
                fit(module, PruningCallback(trial))
    assert [len(t.intermediate_values) for t in study.trials] == [EPOCHS, 1]


def test_lightning_ends_a_diverged_trial_and_completes_a_good_one() -> None:
    pytest.importorskip("lightning")
    from lrsearch.integrations.lightning import PruningCallback

    study = optuna.create_study()
    trial = study.ask()
    module = lightning_model(lrsearch.suggest(trial, EPOCHS), loss=lambda epoch: math.nan)
    with pytest.raises(optuna.TrialPruned):
        fit(module, PruningCallback(trial))
    assert study.trials[0].intermediate_values == {1: DIVERGED_LOSS}
    trial = study.ask()
    fit(lightning_model(lrsearch.suggest(trial, EPOCHS)), PruningCallback(trial))
    assert study.trials[1].user_attrs["stopped"] == "completed"
    assert list(study.trials[1].intermediate_values) == [1, 2, 3]


def test_lightning_mistakes_are_named() -> None:
    pytest.importorskip("lightning")
    from lrsearch.integrations import lightning
    from lrsearch.integrations.lightning import PruningCallback

    trial = optuna.create_study().ask()
    schedule = lrsearch.suggest(trial, EPOCHS)
    with pytest.raises(UsageError, match=r"does not log 'val_loss'.*it logs accuracy, loss"):
        fit(lightning_model(schedule, name="loss"), PruningCallback(trial))
    pl = pytest.importorskip("lightning.pytorch")
    endless = pl.Trainer(**QUIET | {"max_epochs": -1})
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(UsageError, match=r"give Trainer\(max_epochs=3\)"):
        lightning.configure(schedule, optimizer, endless)


def test_lightning_of_a_stream_needs_the_number_of_its_steps() -> None:
    pl = pytest.importorskip("lightning.pytorch")

    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(data())

    schedule = SCHEDULES[2]
    for words in ({"max_epochs": 2}, {"max_epochs": 2, "max_steps": 6}):
        trainer = pl.Trainer(**QUIET | words)
        module = lightning_model(dataclasses.replace(schedule, interval="step"))
        loaders = DataLoader(Stream(), 8), DataLoader(data(), 32)
        if "max_steps" not in words:
            with pytest.raises(UsageError, match="max_steps for data without a length"):
                trainer.fit(module, *loaders)
        else:
            trainer.fit(module, *loaders)
            assert module.rates == pytest.approx(schedule.rescaled(6).trace(1).lr.tolist())


# Hugging Face


class Rows(Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return 8 * STEPS

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        x, y = data()[i]
        return {"x": x, "labels": y}


class Classifier(nn.Module):
    """As a transformers model answers: a loss and logits."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Linear(4, 2)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.network(x)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def trainer(schedule: Schedule | None, **words: Any) -> Any:
    """A trainer, and the rates of each of its steps in ``trainer.rates``."""
    transformers = pytest.importorskip("transformers")
    from lrsearch.integrations.transformers import ScheduleTrainer

    class Rates(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
        def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            made.rates.append(more["optimizer"].param_groups[0]["lr"])

    settings = {
        "output_dir": "out",
        "num_train_epochs": EPOCHS,
        "per_device_train_batch_size": 8,
        "eval_strategy": "epoch",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "learning_rate": 0.1,
        "log_level": "error",
    }
    made = ScheduleTrainer(
        model_init=Classifier,
        args=transformers.TrainingArguments(**settings | words),
        train_dataset=Rows(),
        eval_dataset=Rows(),
        schedule=schedule,
        callbacks=[Rates()],
    )
    made.rates = []
    return made


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.family)
def test_trainer_trains_at_the_rates_of_the_trace(schedule: Schedule) -> None:
    made = trainer(schedule)
    made.train()
    per_step = Schedule(
        schedule.family, 0.1, EPOCHS, schedule.params, schedule.warmup, interval="step"
    )
    assert made.rates == pytest.approx(per_step.trace(STEPS).lr.tolist(), rel=1e-12)


def test_trainer_rescales_accumulates_and_steps_plateau_on_the_loss() -> None:
    schedule = SCHEDULES[2]
    made = trainer(schedule.rescaled(30), gradient_accumulation_steps=2)
    made.train()
    assert made.rates == pytest.approx(schedule.trace(STEPS // 2).lr.tolist())


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        ({"max_steps": 10}, 10),
        ({"max_steps": 20, "num_train_epochs": 1}, 20),
        ({"num_train_epochs": 2.5}, 10),
        ({"num_train_epochs": 1}, 4),
    ],
)
def test_trainer_schedule_is_over_with_the_last_step(words: dict[str, float], steps: int) -> None:
    """One epoch of a language model, or max_steps: no share of the curve is left out or lost."""
    schedule = Schedule("StepLR", 0.1, 30, {"step_size": 15, "gamma": 0.1})
    made = trainer(schedule, **words)
    made.train()
    half = steps // 2
    assert made.rates == pytest.approx([0.1] * half + [0.01] * half)


def one_trial(made: Any, family: str) -> Any:
    """Search one trial with a trainer, kept as study ``steps``."""
    from lrsearch.integrations.transformers import eval_loss, hp_space

    return made.hyperparameter_search(
        hp_space(made, schedules=family, warmup=False),
        compute_objective=eval_loss,
        n_trials=1,
        direction="minimize",
        backend="optuna",
        study_name="steps",
        storage=lrsearch.open_storage(),
    )


def test_trainer_that_evaluates_every_so_many_steps_counts_these_as_epochs() -> None:
    made = trainer(None, eval_strategy="steps", eval_steps=2, max_steps=10, num_train_epochs=1)
    study = one_trial(made, "CosineAnnealingLR")
    assert study.objective > 0
    (trial,) = lrsearch.report("steps").trials
    assert (trial.status, trial.epochs, trial.schedule["epochs"]) == ("complete", 5, 5)
    expected = Schedule.from_dict(trial.schedule).trace(2).lr.tolist()
    assert made.rates == pytest.approx(expected)


@pytest.mark.parametrize(("every", "epochs"), [(4, 3), (0.35, 3), (20, 1)])
def test_trainer_whose_last_evaluation_comes_early_reports_it_as_the_last_epoch(
    every: float, epochs: int
) -> None:
    made = trainer(None, eval_strategy="steps", eval_steps=every, max_steps=10)
    flow = made.callback_handler.callbacks[0]
    if "at the end" not in inspect.getsource(type(flow).on_step_end):
        pytest.skip("this transformers does not evaluate after the last step")
    one_trial(made, "ConstantLR")
    (trial,) = lrsearch.report("steps").study.trials
    assert trial.user_attrs["schedule"]["epochs"] == epochs
    assert list(trial.intermediate_values) == list(range(1, epochs + 1))
    assert trial.intermediate_values[epochs] == trial.value


def test_trainer_steps_plateau_on_the_evaluation_loss() -> None:
    params = {"factor": 0.5, "patience": 0, "threshold": 0.99}
    plateau = Schedule("ReduceLROnPlateau", 0.1, EPOCHS, params)
    for given in ({}, {"metric_for_best_model": "eval_loss"}):
        made = trainer(plateau, num_train_epochs=4, **given)
        made.train()
        assert made.rates[::STEPS] == pytest.approx([0.1, 0.1, 0.05, 0.025])
    for words, message in (
        ({"eval_strategy": "no"}, "give TrainingArguments\\(eval_strategy='epoch'\\)"),
        ({"metric_for_best_model": "accuracy"}, "would step it on accuracy"),
    ):
        with pytest.raises(UsageError, match=message):
            trainer(plateau, **words).train()


def test_trainer_without_a_schedule_is_as_before() -> None:
    made = trainer(None)
    made.train()
    linear = [0.1 * (1 - step / (EPOCHS * STEPS)) for step in range(EPOCHS * STEPS)]
    assert made.rates == pytest.approx(linear)


def test_trainer_searches_with_its_own_hp_space() -> None:
    made = trainer(None)
    from lrsearch.integrations.transformers import eval_loss, hp_space

    storage = lrsearch.open_storage()
    made.hyperparameter_search(
        hp_space(made, lr=(1e-3, 1.0), schedules="StepLR,OneCycleLR"),
        compute_objective=eval_loss,
        n_trials=6,
        direction="minimize",
        backend="optuna",
        study_name="trainer",
        storage=storage,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=2),
    )
    result = lrsearch.report("trainer")
    assert {trial.family for trial in result.trials} <= {"StepLR", "OneCycleLR"}
    assert all(0 < trial.epochs <= EPOCHS for trial in result.trials)
    assert sum(result.counts.values()) == 6
    epochs = sum(trial.epochs for trial in result.trials)
    assert len(made.rates) == epochs * STEPS
    first = Schedule.from_dict(result.trials[0].schedule)
    assert made.rates[: EPOCHS * STEPS] == pytest.approx(first.trace(STEPS).lr.tolist())


def test_trainer_that_would_be_judged_by_the_sum_of_its_metrics_is_told_so() -> None:
    made = trainer(None)
    from lrsearch.integrations.transformers import eval_loss, hp_space

    made.compute_metrics = lambda prediction: {"accuracy": 0.5}
    words = {"n_trials": 1, "direction": "minimize", "backend": "optuna"}
    with pytest.raises(UsageError, match=r"sum of the metrics, no loss: give .*=eval_loss"):
        made.hyperparameter_search(hp_space(made), **words)
    assert not made.rates
    best = made.hyperparameter_search(hp_space(made), compute_objective=eval_loss, **words)
    assert best.objective != 0.5


def test_trainer_is_not_shared_by_trials_that_run_at_once() -> None:
    """Each would train the model of the other, at its rates, and be judged by its loss."""
    from lrsearch.integrations.transformers import eval_loss, hp_space

    made = trainer(None)
    with pytest.raises(
        UsageError, match="search with n_jobs=1, in the thread that called hp_space; for several"
    ):
        made.hyperparameter_search(
            hp_space(made),
            compute_objective=eval_loss,
            n_trials=4,
            direction="minimize",
            backend="optuna",
            n_jobs=2,
        )


def test_trainer_of_another_class_is_told_what_to_use() -> None:
    transformers = pytest.importorskip("transformers")
    from lrsearch.integrations.transformers import ScheduleMixin, hp_space

    with pytest.raises(UsageError, match="a Trainer takes no schedule: use ScheduleTrainer"):
        hp_space(transformers.Trainer(Classifier()))

    class Own(ScheduleMixin, transformers.Trainer):  # type: ignore[misc, name-defined]
        pass

    own = Own(Classifier(), transformers.TrainingArguments("out", num_train_epochs=4))
    trial = optuna.create_study().ask()
    words = hp_space(own, lr=(0.1, 0.2))(trial)
    assert words == {"learning_rate": own.schedule.lr}
    assert own.schedule.epochs == 4


# accelerate


def test_accelerate_steps_a_schedule_that_was_built_before_preparing() -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    model, loader = accelerator.prepare(model, DataLoader(data(), 8))
    for schedule in SCHEDULES:
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
        scheduler = schedule.build(optimizer, steps_per_epoch=len(loader))
        prepared = accelerator.prepare(optimizer)
        rates = []
        for _ in range(EPOCHS):
            for x, y in loader:
                rates.append(prepared.param_groups[0]["lr"])
                accelerator.backward(F.cross_entropy(model(x), y))
                prepared.step()
                prepared.zero_grad()
                if schedule.interval == "step":
                    scheduler.step()
            if schedule.interval == "epoch":
                scheduler.step()
        assert rates == schedule.trace(STEPS).lr.tolist()
