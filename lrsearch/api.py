"""The Python API: the commands of the command line as functions, with the same words.

```python
result = lrsearch.search("digits", trials=50)  # the same study as: lrsearch run --trials 50
result.schedule.build(optimizer, steps_per_epoch=len(loader))
result.figures["scatter"]                      # plotly figures, which a notebook shows
```
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsearch import config as configs
from lrsearch.errors import UsageError
from lrsearch.optuna_helpers import optuna_logs_errors_only, storage_of
from lrsearch.settings import SETTINGS, default_storage

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from torch.optim import Optimizer

    from lrsearch.report.confirmed import Confirmed
    from lrsearch.result import Result
    from lrsearch.storage import Storage
    from lrsearch.tasks import Task

    TaskLike = str | Task | type | Callable[[], Any] | Mapping[str, Any]


def search(
    task: TaskLike | None = None,
    *,
    study_file: str | Path | None = None,
    model: str | None = None,
    name: str | None = None,
    trials: int | None = None,
    epochs: int | None = None,
    schedules: str | Sequence[str] | Mapping[str, Mapping[str, Any] | None] | None = None,
    lr: tuple[float, float] | str | None = None,
    warmup: bool | None = None,
    interval: str | None = None,
    baselines: bool | Mapping[str, Mapping[str, Any] | None] | None = None,
    optimizer: str | type[Optimizer] | Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    train_samples: int | None = None,
    seed: int | None = None,
    sampler: str | None = None,
    pruner: str | None = None,
    timeout: float | str | None = None,
    robust: bool | None = None,
    confirm: int | None = None,
    storage: str | None = None,
    data_dir: str | Path | None = None,
    out: str | Path | None = None,
    device: str | None = None,
    precision: str | None = None,
    fuse: str | int | None = None,
    workers: str | int | None = None,
    launcher: str | None = None,
    gpus_per_worker: float | None = None,
    compile: bool | None = None,
    log: str | None = None,
    quiet: bool = False,
) -> Result:
    """Search schedules for a task, as ``lrsearch run`` does, until the study has its trials.

    Calling it again with the same words completes what is missing; with another task, or other
    data, model or loss in it, it needs another ``name``. All settings are those of the command
    line (``lrsearch run --help``); None means its default.

    Args:
        task: A built-in task; ``"file.py:name"`` or ``"package.module:name"`` of your own; or a
            :class:`Task`, or a function, class or dict that makes one.
        study_file: YAML file with any of the settings below, which come before it.
        model: The task's network.
        name: The study's name; None for the task's, or that of its model where it has none.
        trials: Finished trials that the study shall have in all.
        epochs: Budget: epochs of one full trial.
        schedules: Families to search, with ranges if you like
            (``{"StepLR": {"gamma": [0.1, 0.5]}}``).
        lr: Range of the peak learning rate, or ``"auto"``.
        warmup: Also search a linear warmup, which starts at a tenth of the rate.
        interval: When ``scheduler.step()`` is called: ``auto``, ``epoch`` or ``step``.
        baselines: Run the usual recipes first; or your own, as
            ``{"mine": {"family": "StepLR", "lr": 0.1, "step_size": 10, "gamma": 0.1}}``.
        optimizer: A class of ``torch.optim``, or its name; or
            ``{"name": "SGD", "momentum": 0.9}``.
        batch_size: Samples a step.
        train_samples: Train on a stratified part of the training set.
        seed: Of initial weights, batch order and the sampler.
        sampler: How trials are proposed.
        pruner: How trials are stopped.
        timeout: Stop asking for new trials after so many seconds, or ``"15m"``.
        robust: Afterwards train the finalists at 1.7 times their rates, for
            :attr:`Result.robust`; None: as far as that costs at most a fifth of the search.
        confirm: Afterwards train the best and the usual recipes on so many fresh seeds
            (:func:`confirm`); 0 for none.
        storage: Database URL; None = ``$LRSEARCH_STORAGE``, else ``sqlite:///lrsearch.db``.
        data_dir: Where data sets lie.
        out: Folder for results.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        fuse: Train so many trials as one stacked model; ``auto`` or ``off``.
        workers: Processes that train; ``auto``. A task that is a Python object has one.
        launcher: Where they run: ``local``, or ``ray`` on the nodes of a Ray cluster.
        gpus_per_worker: With ``launcher="ray"``: GPUs of each worker, such as 0.25.
        compile: Use ``torch.compile``, where trials are not fused.
        log: Also log finished trials: ``tensorboard:DIR``, ``mlflow:URI`` or ``wandb:PROJECT``.
        quiet: Show no progress.

    Returns:
        The study, with its best schedule and its figures.

    Raises:
        LrsearchError: On anything you can mend: settings, data, the task, the database.
        KeyboardInterrupt: On Ctrl-C; what is finished is kept.

    Example:
        >>> result = search("digits", trials=20, epochs=10, storage="sqlite:///try.db")
        >>> result.schedule.describe()  # doctest: +SKIP
        'CosineAnnealingLR  T_max 9 eta_min 0.00012  warmup 1'
    """
    given = {k: v for k, v in locals().items() if k in SETTINGS and v is not None}
    if isinstance(optimizer, type):
        from lrsearch.tasks.optimizers import optimizer_name

        given["optimizer"] = optimizer_name("optimizer", optimizer)
    for key in ("data_dir", "out"):
        if key in given:
            given[key] = str(given[key])
    own = _object(task)
    if own is not None:
        from lrsearch.tasks import FROM_PYTHON

        given["task"] = f"{FROM_PYTHON}{own.name}"
        if study_file is None and own.name == "task" and own.model_name != "model":
            given.setdefault("name", own.model_name)  # neither of the two says anything
    config = configs.make(given) if study_file is None else configs.load(study_file, given)
    if own is not None and (config.workers not in ("auto", "1") or config.launcher != "local"):
        asked = "launcher ray" if config.launcher != "local" else f"workers {config.workers}"
        raise UsageError(
            f"{asked}: a task given as a Python object cannot be sent to other processes; put it "
            "in a file and give task='file.py:name'"
        )
    from lrsearch.confirm import after_run
    from lrsearch.result import Result
    from lrsearch.search.display import make_display
    from lrsearch.search.interrupt import Interrupt
    from lrsearch.search.run import run

    with _as_in_a_script():
        outcome = run(config, task=own, quiet=quiet, interrupt=Interrupt(leaves=False))
        note, interrupt = make_display(quiet=quiet).note, Interrupt(leaves=False)
        outcome = after_run(outcome, config, task=own, note=note, interrupt=interrupt)
    return Result(outcome.study, outcome.storage, tuple(outcome.files))


def report(study: str | optuna.Study, *, storage: str | None = None) -> Result:
    """What a study found, as ``lrsearch report`` shows it; also while it runs.

    Args:
        study: Its name; or any Optuna study whose trials come from :func:`suggest`.
        storage: Database URL, where ``study`` is a name; as for :func:`search`.

    Returns:
        The study, with its best schedule and its figures; ``.write()`` makes the page.

    Raises:
        LrsearchError: There is no such database or study.

    Example:
        >>> report("digits").write()  # doctest: +SKIP
        [PosixPath('lrsearch-results/digits/report.html')]
    """
    from lrsearch.result import Result

    return Result(*_study(study, storage))


def confirm(
    study: str | optuna.Study,
    *,
    storage: str | None = None,
    task: TaskLike | None = None,
    top: int = 3,
    seeds: int = 5,
    device: str | None = None,
    data_dir: str | Path | None = None,
    precision: str | None = None,
    fuse: str | int | None = None,
    workers: str | int | None = None,
    quiet: bool = False,
) -> Confirmed:
    """Train the best schedules and the usual recipes again on fresh seeds, and look at test data.

    The search chose the luckiest of many trials; this says whether it is really better, as
    ``lrsearch confirm`` does. Calling it again goes on with what is missing.

    Args:
        study: Its name, or the study of a :class:`Result`.
        storage: Database URL, where ``study`` is a name; as for :func:`search`.
        task: The task, where the search was given a Python object.
        top: Schedules besides the recipes; 0 for the recipes only.
        seeds: Seeds, at least 2.
        device: As for :func:`search`; None as in the search.
        data_dir: As for :func:`search`.
        precision: As for :func:`search`.
        fuse: As for :func:`search`.
        workers: As for :func:`search`.
        quiet: Say nothing meanwhile.

    Returns:
        The comparison: ``.winner``, ``.lowest``, ``.against("CosineAnnealingLR")``, ``.arms``.

    Raises:
        LrsearchError: On anything you can mend.

    Example:
        >>> confirm("digits", seeds=5).winner.val.mean  # doctest: +SKIP
        0.0712
    """
    from lrsearch.confirm import confirm as run_confirm
    from lrsearch.search.display import make_display
    from lrsearch.search.interrupt import Interrupt
    from lrsearch.storage import Storage

    found, place = _study(study, storage)
    if not isinstance(place, Storage):
        raise UsageError(
            f"study {found.study_name!r} has a training loop of its own, which lrsearch cannot "
            "repeat: train its best schedule on other seeds there (result.schedule)"
        )
    machine = {"device": device, "precision": precision, "fuse": fuse, "workers": workers}
    machine["data_dir"] = None if data_dir is None else str(data_dir)
    display = make_display(quiet=quiet)
    with _as_in_a_script():
        return run_confirm(
            found,
            place,
            top=top,
            seeds=seeds,
            task=_object(task),
            overrides=machine | ({"task": task} if isinstance(task, str) else {}),
            note=display.note,
            interrupt=Interrupt(leaves=False),
        )


def open_storage(url: str | None = None) -> Storage:
    """The database for a study of your own, as ``lrsearch run`` opens it.

    Any storage of Optuna will do; this one is several times faster on SQLite, safe with several
    processes, and waits for a server that went away.

    Args:
        url: ``sqlite:///FILE``, ``postgresql://...`` or ``mysql://...``; made where it is missing.
            None = ``$LRSEARCH_STORAGE``, else ``sqlite:///lrsearch.db``.

    Returns:
        What ``optuna.create_study(storage=...)`` takes.

    Raises:
        LrsearchError: It cannot be reached, read or written, or is no database.

    Example:
        >>> import optuna
        >>> storage = open_storage("sqlite:///mine.db")
        >>> study = optuna.create_study(storage=storage, study_name="mine", load_if_exists=True)
    """
    from lrsearch import storage as stores

    with optuna_logs_errors_only():
        return stores.open_storage(default_storage() if url is None else url)


def _object(task: TaskLike | None) -> Task | None:
    """The task that was given as a Python object; None for one that was named."""
    if task is None or isinstance(task, str):
        return None
    from lrsearch.tasks.custom import as_task

    return as_task(task, str(getattr(task, "__name__", "task")))


def _study(study: str | optuna.Study, url: str | None) -> tuple[optuna.Study, BaseStorage]:
    """A study and its storage, by name or as it is."""
    from lrsearch import storage as stores
    from lrsearch.search.study import load_study

    if isinstance(study, str):
        with optuna_logs_errors_only():
            storage = stores.open_storage(default_storage() if url is None else url, create=False)
            return load_study(storage, study), storage
    if not hasattr(study, "study_name"):
        raise UsageError(f"expected a study or its name, got {study!r:.60}")
    return study, storage_of(study)


@contextmanager
def _as_in_a_script() -> Iterator[None]:
    """A run inside a program that goes on: Ctrl-C as Python's own, torch's threads as before."""
    import torch

    from lrsearch.search.interrupt import Interrupted

    threads = torch.get_num_threads()
    try:
        with optuna_logs_errors_only():
            yield
    except Interrupted:
        raise KeyboardInterrupt(
            "stopped; what is finished is kept: call it again to go on"
        ) from None
    finally:
        torch.set_num_threads(threads)
