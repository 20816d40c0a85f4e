"""``lrsearch confirm``: is the winner really better? Fresh seeds, paired, and the test data.

The best schedule of a search, the robust one, others that differ as curves, and every baseline
are trained again on seeds that the search has not seen, the same for all. Each (schedule, seed) is
one trial of a study ``NAME-confirm`` in the same database, so that it is resumed, shared and shown
like any other. This and ``lrsearch train`` are the only places that look at test data.

What the search found is trained once more at higher rates (:mod:`lrsearch.report.raised`), where
the search itself has not done that (:mod:`lrsearch.search.raise_finalists`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import scipy.special  # noqa: F401 - before torch: its BLAS waits for ever for memory

from lrsearch import __version__
from lrsearch.attributes import CONFIRM_ATTR, CONFIRM_SUFFIX, STUDY_ATTR
from lrsearch.callable_module import make_callable
from lrsearch.config import StudyConfig, make
from lrsearch.errors import LrsearchError, UsageError
from lrsearch.export import best_trial, write_confirmed, write_robust
from lrsearch.files import results_folder
from lrsearch.report import words
from lrsearch.report.command import typed
from lrsearch.report.confirmed import Confirmed
from lrsearch.report.confirmed_study import confirmed_of, read_confirmed
from lrsearch.report.finalists import choose_arms
from lrsearch.report.raised import RAISE, arm_at
from lrsearch.report.robust import robust
from lrsearch.report.tables import load, load_confirmation
from lrsearch.search.confirm_study import FIRST_SEED, open_confirmation
from lrsearch.search.confirm_worker import train_confirmation
from lrsearch.search.context import Context
from lrsearch.search.interrupt import Interrupt
from lrsearch.search.plan import Plan, make_plan
from lrsearch.search.study import changed, stored_config
from lrsearch.search.workers import resting
from lrsearch.settings import SETTINGS
from lrsearch.values import MOST_SEEDS

if TYPE_CHECKING:
    from lrsearch.search.forked import Forked
    from lrsearch.search.outcome import Outcome
    from lrsearch.storage.engine import Storage

make_callable(__name__)

OF_THE_MACHINE = ("device", "precision", "data_dir", "fuse", "workers")
"""Settings that may be given anew."""
OF_A_RUN = ("storage", "name", "timeout", "workers", "launcher", "gpus_per_worker", "imports")
"""Settings of one run, not taken over: they may differ each time, or are there already."""

Note = Callable[[str], None]


def confirm(
    study: optuna.Study,
    storage: Storage,
    *,
    top: int = 3,
    seeds: int = 5,
    overrides: Mapping[str, Any] | None = None,
    task: Any = None,
    note: Note = lambda line: None,
    interrupt: Interrupt | None = None,
    spares: list[Forked] | None = None,
) -> Confirmed:
    """Train the best distinct schedules and every baseline again on fresh seeds.

    Those that are no baseline are run once more, on the first of the seeds, at 1.7 times their
    rates: what ends there above thrice its mean lies near the edge, and is not called the lowest.

    The same call goes on with what is missing; a greater ``top`` or ``seeds`` adds runs.

    Args:
        study: The search.
        storage: Its database.
        top: Schedules besides the baselines; 0 for the baselines only.
        seeds: Seeds, at least 2.
        overrides: Settings instead of the stored ones: :data:`OF_THE_MACHINE`, and ``out``.
        task: The task, where the search was given a Python object.
        note: Called with one line for the user.
        interrupt: Takes the signals; None: one whose second signal ends the process.
        spares: Processes that wait to be workers (:mod:`lrsearch.search.forked`).

    Returns:
        The comparison. Its ``lowest`` is in ``confirmed.yaml``, beside the search's ``best.yaml``.

    Raises:
        UsageError: ``top`` or ``seeds`` is out of range.
        LrsearchError: No trial of the search is complete, or every run of the winner failed.
        Interrupted: On Ctrl-C or SIGTERM; running trials were handed back.
    """
    for name, value in (("top", top), ("seeds", seeds)):
        if not isinstance(value, int):
            raise UsageError(f"--{name} must be a whole number, got {value!r:.60}")
    if top < 0:
        raise UsageError(f"--top must be at least 0 (the baselines only), got {top}")
    if seeds < 2:
        raise UsageError(f"--seeds must be at least 2 to compare anything, got {seeds}")
    if seeds > MOST_SEEDS:
        raise UsageError(f"--seeds must be at most {MOST_SEEDS:,}, got {seeds:,}")
    if CONFIRM_ATTR in study.user_attrs:
        more = typed("confirm", study.user_attrs[CONFIRM_ATTR]["of"], storage.label)
        raise UsageError(
            f"study {study.study_name!r} is a confirmation itself: {more} --seeds N adds seeds "
            "to it"
        )
    best_trial(study)  # where there is none, it says why
    table = load(study)
    found = robust(table, study)
    arms = choose_arms(table, top, None if found is None else found.finalist)
    own = [arm for arm in arms if arm["baseline"] is None]
    config = _config(study, storage.url, overrides or {}, len(arms) * seeds + len(own))
    fresh = [config.seed + FIRST_SEED + i for i in range(seeds)]
    interrupt = interrupt or Interrupt()
    storage.on_wait = note
    interrupt.hurry.append(storage.hurry)
    with interrupt.listening():
        plan = make_plan(config, task)
        _same_task(study, plan, note)
        raised = [(arm_at(arm, RAISE), fresh[0]) for arm in own]
        before = read_confirmed(study)
        again = open_confirmation(study, storage, plan, raised, arms, fresh, top)
        for line in _announced(study.study_name, arms, seeds, before, raised=bool(raised)):
            note(line)
        context = Context(storage, interrupt, note, task=task, spares=spares or [])
        with resting(context):
            train_confirmation(plan, again, context)
    confirmed = read_confirmed(study)
    if confirmed is None:
        raise LrsearchError(
            f"no run of the best schedule of {study.study_name!r} came to its end on fresh seeds; "
            f"{typed('show', study.study_name + CONFIRM_SUFFIX, storage.label)} tells why"
        )
    folder = results_folder(plan.config.out, study.study_name)
    write_robust(study, robust(table, study), folder / "robust.yaml")  # more may be known now
    file = write_confirmed(study, confirmed, folder / "confirmed.yaml")
    return dataclasses.replace(confirmed, file=file)


def _announced(
    name: str,
    arms: Sequence[Mapping[str, Any]],
    seeds: int,
    before: Confirmed | None,
    *,
    raised: bool,
) -> list[str]:
    """What is trained now, a line for each arm."""
    there = 0 if before is None else max(len(arm.losses) for arm in before.arms)
    on = f", {seeds} fresh seeds each"
    if there > seeds:
        on = f"; {seeds} fresh seeds were asked for, {there} were run before: all are told"
    more = f"; those found once more with rates raised {RAISE:g} times" if raised else ""
    lines = [f"confirm {name}: {words.count(len(arms), 'schedule')}{on}{more}"]
    for arm in arms:
        what = f"{arm['schedule']['family']}, lr {arm['schedule']['lr']:.4g}"
        of = "baseline" if arm["baseline"] is not None else f"trial {arm['trial']}"
        if arm is arms[0] and arm["baseline"] is None:
            of += ", the best of the search"
        lines.append(f"  {arm['key']:<18} {what}  ({of})")
    return lines


def after_run(
    outcome: Outcome,
    config: StudyConfig,
    *,
    task: Any = None,
    note: Note,
    interrupt: Interrupt | None = None,
    spares: list[Forked] | None = None,
) -> Outcome:
    """A run with what fresh seeds say of it: as many as ``--confirm`` asks for; at 0 as known.

    Raises:
        LrsearchError: As of :func:`confirm`.
    """
    found: Confirmed | None
    if not config.confirm:
        found = known(outcome)
    else:
        here = {key: getattr(config, key) for key in OF_THE_MACHINE}
        task_file = _seen_from(outcome.plan.cwd, config.task)
        here |= {"out": outcome.plan.config.out, "task": task_file}
        if config.launcher != "local":
            here["workers"] = "auto"  # so many are for the cluster; this is one machine
        found = confirm(
            outcome.study,
            outcome.storage,
            seeds=config.confirm,
            overrides=here,
            task=task,
            note=note,
            interrupt=interrupt,
            spares=spares,
        )
    if found is None:
        return outcome
    files = [*filter(None, [found.file]), *outcome.files]
    now = robust(load(outcome.study), outcome.study)  # it has raised finalists, too
    return dataclasses.replace(outcome, confirmed=found, files=files, robust=now)


def known(outcome: Outcome) -> Confirmed | None:
    """What fresh seeds said before of what a run has found; None where ``confirm`` has more to do.

    ``confirmed.yaml`` is written beside the other files of the run.
    """
    study = outcome.study
    again, planned = load_confirmation(study)
    found = None if again is None else confirmed_of(again, planned)
    if found is None or found.finished < found.planned:
        return None
    if not found.is_of(best_trial(study).number):
        return None
    chosen = None if outcome.robust is None else outcome.robust.finalist
    arms = choose_arms(load(study), planned["top"], chosen)
    if not {arm["key"] for arm in arms} <= {arm.key for arm in found.arms}:
        return None
    folder = results_folder(outcome.plan.config.out, study.study_name)
    file = write_confirmed(study, found, folder / "confirmed.yaml")
    return dataclasses.replace(found, file=file)


def _seen_from(cwd: Path, task: str) -> str:
    """The file of a task by its whole name, where the task itself has gone to another folder."""
    file, colon, name = task.rpartition(":")
    return task if cwd == Path.cwd() or not file.endswith(".py") else f"{cwd / file}{colon}{name}"


def _same_task(study: optuna.Study, plan: Plan, note: Callable[[str], None]) -> None:
    """Refuse a task that is no more what was searched with; data may be drawn anew each time.

    Raises:
        UsageError: The task has changed.
    """
    made = study.user_attrs[STUDY_ATTR].get("plan") or {}
    made = {key: value for key, value in made.items() if key != "lr"}
    data = {key: value for key, value in made.items() if key != "initial_loss"}
    if rows := changed(data, plan.to_dict()):
        raise UsageError(
            f"the task has changed since study {study.study_name!r} was made with "
            f"{'; '.join(rows)}. Put it back, or search anew with another --name"
        )
    if rows := changed(made, plan.to_dict()):
        note(
            f"study {study.study_name!r} was made with {rows[0]}: this is of the task as it is now"
        )


def _config(study: optuna.Study, url: str, overrides: Mapping[str, Any], runs: int) -> StudyConfig:
    """The search's configuration, for this machine."""
    stored = {k: v for k, v in stored_config(study).items() if k not in OF_A_RUN}
    given = {k: v for k, v in overrides.items() if v is not None}
    if strange := [key for key in stored if key not in SETTINGS]:
        raise LrsearchError(
            f"study {study.study_name!r} was made with {strange[0]}, which lrsearch {__version__} "
            "does not know: confirm it with the version that made it"
        )
    config = make({**stored, "lr": None, **given})
    return dataclasses.replace(config, name=study.study_name, storage=url, trials=runs)
