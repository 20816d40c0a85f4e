"""`lrsearch run`: open or join a study, work until its target is met, write the results."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import scipy.special  # noqa: F401 - before torch: its BLAS waits for ever for memory

from lrsearch.config import StudyConfig
from lrsearch.errors import LrsearchError
from lrsearch.files import check_folder, results_folder
from lrsearch.optuna_helpers import label_of
from lrsearch.report.command import typed
from lrsearch.search.beginning import announced
from lrsearch.search.context import Context, deadline_in
from lrsearch.search.display import Display, make_display, watching
from lrsearch.search.forked import Forked, dismiss
from lrsearch.search.interrupt import Interrupt, Interrupted
from lrsearch.search.make import make_crew, make_worker
from lrsearch.search.methods import PRUNERS
from lrsearch.search.outcome import Outcome
from lrsearch.search.plan import Plan, baselines_of, make_plan, ordered, with_lr_range
from lrsearch.search.progress import Progress, read_progress
from lrsearch.search.ray_launcher import joined
from lrsearch.search.study import load_study, open_study
from lrsearch.search.workers import resting
from lrsearch.storage import check_storage, open_storage
from lrsearch.tracking import check_log

if TYPE_CHECKING:
    from lrsearch.report.importance import Importance
    from lrsearch.report.tables import StudyTable


def run(
    config: StudyConfig,
    *,
    task: Any = None,
    quiet: bool = True,
    display: Display | None = None,
    interrupt: Interrupt | None = None,
    spares: list[Forked] | None = None,
) -> Outcome:
    """Search schedules as a configuration says, until the study has its target of trials.

    Running the same configuration again completes what is missing.

    Args:
        config: What to search.
        task: A task given as a Python object; None loads ``config.task``.
        quiet: Show nothing while it runs.
        display: Shows progress; None chooses by ``quiet`` and the terminal.
        interrupt: Takes the signals; None: one whose second signal ends the process.
        spares: Processes that wait to be workers (:mod:`lrsearch.search.forked`).

    Raises:
        LrsearchError: On anything a user can mend; the study keeps what is finished.
        Interrupted: On Ctrl-C or SIGTERM; running trials were handed back.
    """
    interrupt = interrupt or Interrupt()
    with interrupt.listening(), joined(config) as cluster:
        with interrupt.may_break():  # it may ask for a key, or wait for a server
            check_log(config.log)
        check_folder(results_folder(config.out, config.study_name), "--out")
        check_storage(config.storage)
        plan = make_plan(config if cluster is None else cluster.planned(config), task)
        baselines_of(plan)  # their mistakes, before anything is made
        config = dataclasses.replace(config, storage=plan.config.storage, out=plan.config.out)
        display = display or make_display(quiet=quiet)
        storage = open_storage(config.storage, on_wait=display.note)
        interrupt.hurry.append(storage.hurry)
        study = open_study(storage, config, plan.to_dict(), plan.imports)
        study.pruner = PRUNERS[config.pruner](plan.epochs)
        plan, ranged = with_lr_range(ordered(plan, study), study, storage)
        for line in announced(
            plan,
            config,
            study,
            cluster,
            alone=task is not None,
            ranged=ranged,
            warnings=storage.warnings,
        ):
            display.note(line)
        interrupt.check()
        deadline = deadline_in(config.timeout)
        ready = [] if spares is None else spares
        context = Context(storage, interrupt, display.note, cluster, task, deadline, ready)
        with resting(context):
            progress = _train(plan, study, context, display)
            if progress.best is None:
                raise LrsearchError(_why_none(study, progress))
            return _conclude(plan, study, context, progress)


def _train(plan: Plan, study: optuna.Study, context: Context, display: Display) -> Progress:
    """Run the trials that are missing, shown meanwhile; returns the state at the end."""
    # With a cache of its own the display leaves the worker's view of the study alone.
    shown = load_study(context.storage, study.study_name)

    def read() -> Progress:
        return read_progress(shown, plan.config.trials, plan.epochs)

    with watching(read, display, context.interrupt.at_once):
        crew = make_crew(plan, context)
        if crew is not None:
            crew.run()
        else:
            dismiss(context.spares)
            make_worker(plan, study, context).run()
    return read()


def _conclude(plan: Plan, study: optuna.Study, context: Context, progress: Progress) -> Outcome:
    """Write what was found; where the study has its target, its finalists are raised before."""
    from lrsearch.export import write_robust
    from lrsearch.report.robust import robust
    from lrsearch.report.tables import load
    from lrsearch.search.raise_finalists import raise_finalists

    config, table, left_out = plan.config, load(study), ""
    folder = results_folder(config.out, config.study_name)
    files, mattered = write_results(study, table, folder)
    if config.robust is not False and progress.finished >= config.trials:
        try:
            left_out = raise_finalists(plan, study, table, context)
        except Interrupted:  # what is known by now; the file may be of an earlier run
            write_robust(study, robust(table, study), folder / "robust.yaml")
            raise
        except LrsearchError as error:  # the search is done, and is told
            context.note(f"the finalists were not all trained at higher rates: {error}")
    found = robust(table, study)
    files.insert(1, write_robust(study, found, folder / "robust.yaml"))
    return Outcome(study, context.storage, plan, progress, files, mattered, found, left_out)


def _why_none(study: optuna.Study, progress: Progress) -> str:
    """Why no trial is complete, for the user."""
    from lrsearch.export import why_none

    errors = [row.stopped.splitlines()[0] for row in progress.rows if row.attrs.get("error")]
    if not errors:
        return why_none(study)
    return f"study {study.study_name!r}: no trial ran to its end; the last error was {errors[-1]}"


def write_results(
    study: optuna.Study, table: StudyTable, folder: Path
) -> tuple[list[Path], Importance]:
    """Write best.yaml and the figures; returns them and what mattered.

    Raises:
        LrsearchError: If the folder cannot be written; the study is safe in the database.
    """
    from lrsearch.export import write_best
    from lrsearch.report.run_figures import write_figures

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LrsearchError(
            f"results could not be written to {folder} ({error.strerror or error}); the study is "
            f"safe in its database: {typed('export', study.study_name, label_of(study))} -o FILE"
        ) from None
    best = write_best(study, folder / "best.yaml")
    files, mattered = write_figures(study, table, folder)
    return [best, *files], mattered
