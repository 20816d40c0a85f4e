"""A plan: a configuration with everything resolved that needs the task and the machine."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lrsearch.attributes import LR_RANGE_ATTR, STUDY_ATTR
from lrsearch.config import StudyConfig
from lrsearch.errors import ConfigError, UsageError
from lrsearch.schedules import FixedParams, Schedule, Space
from lrsearch.schedules.family import Family, get_family, home
from lrsearch.schedules.recipes import make_recipe
from lrsearch.tasks import TASKS, Task, load_task, tried
from lrsearch.tasks.custom import as_task
from lrsearch.tasks.fingerprint import fingerprint
from lrsearch.tasks.kept import with_samples_kept
from lrsearch.tasks.optimizers import (
    build_optimizer,
    check_gradients,
    resolve_optimizer,
    usual_lr,
    usual_range,
)
from lrsearch.training import device as devices
from lrsearch.training.auto import Choice, choose
from lrsearch.training.lr_range import lr_range_test
from lrsearch.values import overrides

if TYPE_CHECKING:  # without Optuna and a database, which lrsearch train does not need
    import optuna

    from lrsearch.storage import Storage


@dataclass(frozen=True)
class Plan:
    """What a worker needs to run trials.

    Attributes:
        config: The configuration as given; where the task has gone to another folder at import,
            storage and results stay where they were meant.
        task: Model, data, loss.
        space: What is searched.
        optimizer: Class name in ``torch.optim``.
        optimizer_args: Its arguments without ``lr``.
        device: Where tensors live.
        choice: Trials fused, workers, threads and precision, and why.
        cwd: The folder that the task was loaded in, for other processes that load it.
    """

    config: StudyConfig
    task: Task
    space: Space
    optimizer: str
    optimizer_args: dict[str, Any]
    device: torch.device
    choice: Choice
    cwd: Path

    @property
    def epochs(self) -> int:
        """The budget: epochs of one full trial."""
        return self.space.epochs

    @cached_property
    def _fingerprint(self) -> dict[str, Any]:
        """What shows that a task of the user's own is still the same."""
        return {} if self.config.task in TASKS else fingerprint(self.task)

    @property
    def families(self) -> list[Family]:
        """Those that are searched, and those of the study's own recipes."""
        given = self.config.baselines
        recipes = given.values() if isinstance(given, Mapping) else ()
        names = [*self.space.names, *(recipe["family"] for recipe in recipes)]
        return [get_family(name) for name in dict.fromkeys(names)]

    @property
    def homes(self) -> dict[str, str]:
        """Families of the user's own -> the files that other processes import to have them."""
        return {each.name: file for each in self.families if (file := home(each)) is not None}

    @property
    def imports(self) -> list[str]:
        """Those files as ``--import`` takes them, seen from ``cwd``; without the task's own."""
        task = (self.cwd / self.config.task.rpartition(":")[0]).resolve()
        files = sorted({Path(file) for file in self.homes.values()} - {task})
        return [
            str(file.relative_to(self.cwd) if file.is_relative_to(self.cwd) else file)
            for file in files
        ]

    def to_dict(self) -> dict[str, Any]:
        """What is kept with the study, as plain values."""
        return {
            "task": self.task.describe(),
            "model": self.task.model_name,
            "parameters": self.task.parameters,
            "metric_name": self.task.metric_name if self.task.metric else None,
            "epochs": self.epochs,
            "steps_per_epoch": self.task.steps_per_epoch,
            "batch_size": self.task.batch_size,
            "validate_every": self.task.validate_every,
            "lr": list(self.space.lr),
            "usual_lr": self.task.lr,
            "optimizer": {"name": self.optimizer, **self.optimizer_args},
            **({"param_groups": self.task.groups} if self.task.groups else {}),
            **({"clip_grad_norm": clip} if (clip := self.task.clip_grad_norm) else {}),
            **self._fingerprint,
        }


def make_plan(config: StudyConfig, task: Any = None) -> Plan:
    """Load the task and resolve every "default" and "auto" but ``lr: auto``.

    Args:
        config: What was asked for.
        task: A task given as a Python object (a :class:`Task` or what makes one); ``config.task``
            is then only its name.

    Raises:
        LrsearchError: On an unknown task, model, device, optimizer; missing data; a budget too
            short for a family asked for.
    """
    device = devices.resolve(config.device)
    devices.prepare(device)  # first: what a task puts on "cuda" goes there
    cwd = Path.cwd()
    task = with_samples_kept(_task(config, task, device), device)
    config = _placed(config, cwd)
    given = dict(config.optimizer)
    name = given.pop("name", None)
    if name is None or name.lower() == task.optimizer.lower():
        own = dict(task.optimizer_args)
        if given.get("momentum") == 0 or given.get("dampening"):
            own.pop("nesterov", None)  # torch refuses it then, and nobody asked for it
        name, given = task.optimizer, {**own, **given}
    optimizer, arguments = resolve_optimizer(name, given, device)
    _check_model(task, optimizer, arguments)
    if name.lower() != task.optimizer.lower() and not any("lr" in each for each in task.groups):
        usual = usual_lr(optimizer)  # the task's is for another optimizer
        task = dataclasses.replace(task, lr=usual, lr_range=usual_range(optimizer, usual))
    lr = task.lr_range if config.lr is None or isinstance(config.lr, str) else config.lr
    epochs = config.epochs or task.epochs
    if epochs % task.validate_every and epochs > task.validate_every:
        raise UsageError(
            f"--epochs {epochs}: task {task.name} validates every {task.validate_every} epochs; "
            f"give a multiple of {task.validate_every}"
        )
    every = min(epochs, task.validate_every)
    task = dataclasses.replace(task, epochs=epochs, validate_every=every)
    space = Space(
        families=None if config.schedules is None else tuple(config.schedules),
        epochs=epochs,
        lr=lr,
        interval=config.interval,
        warmup=config.warmup,
        overrides=overrides(config.schedules),
    )
    return Plan(
        config=config,
        task=task,
        space=space,
        optimizer=optimizer,
        optimizer_args=arguments,
        device=device,
        cwd=cwd,
        choice=choose(
            task,
            device,
            optimizer,
            config.trials,
            config.fuse,
            config.workers,
            config.precision,
            arguments,
        ),
    )


def _check_model(task: Task, optimizer: str, arguments: Mapping[str, Any]) -> None:
    """The optimizer takes the model's parameters; else no trial of the study could be trained."""
    with torch.random.fork_rng(devices=[]):
        model = task.model()
        groups = None if task.param_groups is None else task.param_groups(model)
    build_optimizer(optimizer, arguments, model, lr=task.lr, groups=groups, trains=False)
    check_gradients(optimizer, arguments, model)


def baselines_of(plan: Plan) -> dict[str, dict[str, Any] | Schedule]:
    """The recipes that a study runs first, whatever it searches.

    The usual ones are parameters, those of families that are not searched, and a study's own,
    schedules.

    Raises:
        UsageError: It states more of its own than it has trials.
        ConfigError: A recipe does not fit the budget.
    """
    given, config = plan.config.baselines, plan.config
    if not isinstance(given, Mapping):
        return _usual(plan) if given else {}
    if config.trials < len(given):
        raise UsageError(
            f"trials {config.trials}: the study states {len(given)} baselines, which come first; "
            f"write at least trials {len(given)}"
        )
    made: dict[str, dict[str, Any] | Schedule] = {}
    mistakes: list[str] = []
    for name, recipe in given.items():
        try:
            made[name] = make_recipe(
                recipe, epochs=plan.epochs, lr=plan.task.lr, interval=config.interval
            )
        except ConfigError as error:
            mistakes += [f"baselines.{name}: {text}" for text in error.mistakes]
    if mistakes:
        raise ConfigError(mistakes)
    return made


def _usual(plan: Plan) -> dict[str, dict[str, Any] | Schedule]:
    """The usual recipes: those of families that are searched first, then the others."""
    space, lr = plan.space, plan.task.lr
    searched = space.baselines(lr)
    ends = (space.lr_dim.low, space.lr_dim.high)
    others = Space(None, plan.epochs, ends, space.interval)  # all that fit the budget
    made = {
        name: others.suggest(FixedParams(params))
        for name, params in others.baselines(lr).items()
        if name not in searched
    }
    return {**searched, **made}


def _placed(config: StudyConfig, cwd: Path) -> StudyConfig:
    """The configuration, whose storage and folders for results are seen from ``cwd``."""
    if Path.cwd() == cwd:
        return config
    from lrsearch.storage.urls import parse_storage_url, sqlite_file

    url = parse_storage_url(config.storage)
    storage, file = config.storage, sqlite_file(url)
    if file is not None:
        storage = url.set(database=str(cwd / file)).render_as_string(hide_password=False)
    out = str(cwd / os.path.expanduser(config.out))
    kind, _, where = (config.log or "").partition(":")
    log = f"{kind}:{cwd / os.path.expanduser(where)}" if kind == "tensorboard" else config.log
    return dataclasses.replace(config, storage=storage, out=out, log=log)


def _task(config: StudyConfig, given: Any, device: torch.device) -> Task:
    if given is None:
        return load_task(
            config.task,
            model=config.model,
            data_dir=config.data_dir,
            train_samples=config.train_samples,
            batch_size=config.batch_size,
            device=device,
        )
    if config.model is not None:
        raise UsageError(f"a task given as an object has one model; leave out {config.model!r}")
    task = as_task(given, str(getattr(given, "__name__", type(given).__name__)))
    return tried(task, config.train_samples, config.batch_size, device)


def ordered(plan: Plan, study: optuna.Study) -> Plan:
    """The plan with the families in the order in which the study has them.

    Samplers of Optuna take the same families in another order for another parameter.
    """
    stored = study.user_attrs[STUDY_ATTR]["identity"]["schedules"]
    if stored is None or tuple(stored) == plan.space.families:
        return plan
    return dataclasses.replace(plan, space=dataclasses.replace(plan.space, families=tuple(stored)))


def with_lr_range(plan: Plan, study: optuna.Study, storage: Storage) -> tuple[Plan, str]:
    """The plan with ``lr: auto`` resolved, and a line that says how; other plans as they are.

    The range test runs when the study begins, and the first to end is kept with it, so that all
    workers search the same range.
    """
    if plan.config.lr != "auto":
        return plan, ""
    stored = study.user_attrs.get(LR_RANGE_ATTR)
    if stored is None:
        from lrsearch.storage.study_attributes import set_once

        found = lr_range_test(
            plan.task,
            optimizer=plan.optimizer,
            optimizer_args=plan.optimizer_args,
            seed=plan.config.seed,
            device=plan.device,
            precision=plan.choice.precision,
        )
        stored = set_once(storage, study._study_id, LR_RANGE_ATTR, dataclasses.asdict(found))
    low, high = float(stored["low"]), float(stored["high"])
    at = stored["diverges_at"]
    seen = f"diverges above {at:.2g}" if at is not None else "nothing diverges up to 10"
    space = dataclasses.replace(plan.space, lr=(low, high))
    line = f"lr range test: {seen}, searching {low:.2g} to {high:.2g}"
    return dataclasses.replace(plan, space=space), line
