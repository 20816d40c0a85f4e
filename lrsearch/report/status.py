"""The state of a study, and the studies of a database: rows for a terminal, plain values."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.study import StudyDirection

from lrsearch.attributes import CONFIRM_ATTR, confirmation_study, info_of
from lrsearch.report import words
from lrsearch.report.confirmed_study import confirmed_of, read_confirmed
from lrsearch.report.confirmed_words import findings
from lrsearch.report.robust import robust
from lrsearch.report.tables import (
    ENDED,
    StudyTable,
    TrialRow,
    answer,
    families_table,
    finite,
    load,
    pruning,
)
from lrsearch.storage.engine import Storage
from lrsearch.storage.schema import TRIAL_VALUES, TRIALS, USER_ATTRIBUTES

NEWEST_RUNNING = 12


def study_status(study: optuna.Study) -> dict[str, Any]:
    """A study at this moment, as plain values.

    Args:
        study: The study.

    Returns:
        ``study``, ``of`` (the search whose schedules it trains again, if any), ``task``,
        ``target``, ``trials`` (by how they ended), ``epochs``, ``best``, ``robust`` (where that is
        another), ``baselines``, ``families``, ``running`` and ``confirmed`` (what it ``says`` is
        one line a finding).
    """
    table = load(study)
    stopped = pruning(table)
    again = study.user_attrs.get(CONFIRM_ATTR)  # many seeds: the lowest loss says nothing
    raised = confirmation_study(study) is not None  # some of its finalists, perhaps
    found = None
    if again is None:
        found = answer(table, robust(table, study) if raised else None)
    status: dict[str, Any] = {
        "study": table.name,
        "of": None if again is None else again["of"],
        "task": table.plan.get("task") or table.config.get("task"),
        "target": table.config.get("trials"),
        "trials": {"all": len(table.trials), **stopped.counts},
        "epochs": {
            "budget": table.budget,
            "run": stopped.epochs_run,
            "saved": stopped.saved,
        },
        "best": None if found is None else _trial(found.best, table),
        "robust": None
        if found is None or found.chosen is found.best
        else _trial(found.chosen, table),
        "baselines": {} if found is None else {t.baseline: t.value for t in found.baselines},
        "families": [
            {
                "family": row.family,
                "best": None if row.best is None else row.best.value,
                **{status: getattr(row, status) for status in ENDED},
            }
            for row in families_table(table)
        ],
        "running": [_trial(t, table) for t in table.having("running")],
        "failures": sorted({_why(t) for t in table.having("failed")}),
        "storage": table.storage_url,
    }
    confirmed = read_confirmed(study) if again is None else confirmed_of(table, again)
    status["confirmed"] = (
        None
        if confirmed is None
        else {
            "study": confirmed.name,
            "finished": confirmed.finished,
            "planned": confirmed.planned,
            "says": "\n".join(
                findings(confirmed, None if found is None else found.best.number)
            ).replace("**", ""),
        }
    )
    return status


def _why(trial: TrialRow) -> str:
    """Why a trial failed, in a line; of a loop of the user's own Optuna keeps no reason."""
    return next(iter(trial.stopped.splitlines()), "an exception or a loss of NaN in its own loop")


def _trial(trial: TrialRow, table: StudyTable) -> dict[str, Any]:
    rates = finite(table.history.of(trial.trial_id, "lr")[-1:])
    return {
        "number": trial.number,
        "family": trial.family,
        "baseline": trial.baseline,
        "lr": trial.lr if math.isfinite(trial.lr) else None,
        "warmup": trial.warmup,
        "params": dict(trial.schedule.get("params") or {}),
        "epoch": trial.epochs,
        "lr_now": rates[-1] if rates else None,
        "val_loss": finite([trial.loss])[0] if trial.loss is not None else None,
        "val_metric": trial.metric,
        "settings": words.settings(trial),
    }


def studies(storage: Storage) -> list[dict[str, Any]]:
    """The studies of a database, the latest first, as plain values.

    Returns:
        ``study``, ``trials``, ``complete``, ``running``, ``best`` (validation loss), ``last``
        (when its latest trial began or ended, in UTC) and ``ours`` of each.
    """
    # as report.read_study leaves them out: trials that another program added to a study of ours
    there = storage.get_all_studies()
    ours = [study._study_id for study in there if info_of(study.user_attrs)]
    with_schedule = sa.select(USER_ATTRIBUTES.c.trial_id).where(
        USER_ATTRIBUTES.c.key == "schedule", USER_ATTRIBUTES.c.value_json.like('{%"family"%')
    )
    counted = sa.or_(
        TRIALS.c.state.not_in(("COMPLETE", "PRUNED")),
        TRIALS.c.study_id.not_in(ours),
        TRIALS.c.trial_id.in_(with_schedule),
    )
    counts_query = (
        sa.select(
            TRIALS.c.study_id,
            TRIALS.c.state,
            sa.func.count().label("n"),
            sa.func.max(TRIALS.c.datetime_start).label("started"),
            sa.func.max(TRIALS.c.datetime_complete).label("ended"),
        )
        .where(counted)
        .group_by(TRIALS.c.study_id, TRIALS.c.state)
    )
    best_query = (
        sa.select(TRIALS.c.study_id, sa.func.min(TRIAL_VALUES.c.value))
        .join_from(TRIALS, TRIAL_VALUES, TRIALS.c.trial_id == TRIAL_VALUES.c.trial_id)
        .where(TRIALS.c.state == "COMPLETE", counted)
        .group_by(TRIALS.c.study_id)
    )

    def work(connection: sa.engine.Connection) -> tuple[list[Any], list[Any]]:
        return (
            list(connection.execute(counts_query).all()),
            list(connection.execute(best_query).all()),
        )

    counts, best_rows = storage.transact(work, read=True)
    best = {row[0]: row[1] for row in best_rows}
    minimised = [StudyDirection.MINIMIZE]  # of another direction no loss is the best
    listed = []
    for study in there:
        mine = [row for row in counts if row.study_id == study._study_id]
        states = {row.state.name: row.n for row in mine}
        times = [t for row in mine for t in (row.started, row.ended) if t is not None]
        listed.append(
            {
                "study": study.study_name,
                "trials": sum(states.values()),
                "complete": states.get("COMPLETE", 0),
                "pruned": states.get("PRUNED", 0),
                "failed": states.get("FAIL", 0),
                "running": states.get("RUNNING", 0),
                "waiting": states.get("WAITING", 0),
                "best": best.get(study._study_id) if study.directions == minimised else None,
                "last": max(times).isoformat(timespec="seconds") if times else None,
                "ours": study._study_id in ours,
            }
        )
    return sorted(listed, key=lambda row: row["last"] or "", reverse=True)


# terminal


def print_status(status: dict[str, Any]) -> None:
    """Print what :func:`study_status` gave."""
    from lrsearch.report.terminal import print_rows, print_text, to_stdout

    console = to_stdout()
    trials, epochs = status["trials"], status["epochs"]
    done = sum(trials[status] for status in ENDED)
    target = f"/{status['target']}" if status["target"] else ""
    ended = ", ".join(f"{trials[status]:,} {status}" for status in ENDED if trials[status])
    print_text(console, f"{status['study']}  {status['task'] or ''}")
    if status["of"]:
        print_text(console, f"schedules of {status['of']}, trained again on fresh seeds")
    ending = f"{done:,}{target} trials" if target else words.count(done, "trial")
    print_text(
        console,
        f"{ending} ended" + (f" ({ended})" if ended else "")
        + (f", {trials['running']} running" if trials["running"] else "")
        + (f", {trials['waiting']} waiting" if trials["waiting"] else "")
        + (f"; {words.percent(epochs['saved'])} of epochs saved" if epochs["saved"] > 0 else ""),
    )  # fmt: skip
    for failure in status["failures"][:3]:
        print_text(console, f"failed: {failure[:160]}", indent=8)
    best = status["best"]
    if best is not None:
        console.print()
        against = "   ".join(
            f"{name} {words.against(best['val_loss'], value)}"
            for name, value in status["baselines"].items()
            if value is not None and name != best["baseline"]
        )
        recipe = f" ({best['baseline']} baseline)" if best["baseline"] else ""
        print_text(console, f"best    #{best['number']} {_what(best)}{recipe}", indent=8)
        print_text(
            console, f"        val loss {words.loss(best['val_loss'])}   {against}", indent=8
        )
    if (robust := status["robust"]) is not None:
        what = f"{_what(robust)}, val loss {words.loss(robust['val_loss'])}"
        best_at = "did best with its rates raised (robust.yaml)"
        if robust["baseline"]:
            best_at = "a usual recipe, better than the finalist beside it (robust.yaml)"
        print_text(console, f"robust  #{robust['number']} {what}, {best_at}", indent=8)
    if status["confirmed"] is not None:
        says = status["confirmed"]["says"].replace("`", "").split("\n")
        for head, line in zip(("sure?", *[""] * len(says)), says, strict=False):
            print_text(console, f"{head:<7} {line}", indent=8)
    if status["running"]:
        console.print()
        rows = []
        for row in status["running"][-NEWEST_RUNNING:]:
            lr_now = row["lr_now"] if row["lr_now"] is not None else row["lr"]
            rows.append(
                [
                    f"#{row['number']}",
                    f"{row['family']} {row['settings']}",
                    f"{row['epoch']}/{epochs['budget'] or '–'}",
                    words.number(lr_now),
                    words.loss(row["val_loss"]),
                ]
            )
        heads = ("running", "schedule", "epoch", "lr", "val loss")
        print_rows(console, heads, rows, right=(2, 3, 4))


def _what(trial: dict[str, Any]) -> str:
    """A schedule with its parameters: ``StepLR  lr 0.1, warmup 2, step_size 10``."""
    parts = [
        trial["family"] and f"{trial['family']}  lr {words.number(trial['lr'])}",
        f"warmup {trial['warmup']}" if trial["warmup"] else "",
        trial["settings"],
    ]
    return ", ".join(filter(None, parts))


def print_studies(rows: list[dict[str, Any]], url: str) -> None:
    """Print what :func:`studies` gave."""
    from lrsearch.report.terminal import print_rows, print_text, to_stdout

    console = to_stdout()
    if not rows:
        print_text(console, f"{url} has no study yet. Start one with lrsearch run")
        return
    cells = []
    for row in rows:
        best = words.loss(row["best"]) if row["ours"] else words.number(row["best"], 4)
        cells.append(
            [
                row["study"],
                f"{row['trials']:,}",
                f"{row['complete']:,}",
                f"{row['running']:,}" if row["running"] else "",
                best,
                _ago(row["last"]) + ("" if row["ours"] else "  (not by lrsearch run)"),
            ]
        )
    heads = ("study", "trials", "complete", "running", "best val loss", "last")
    print_rows(console, heads, cells, right=range(1, 5))


def _ago(last: str | None) -> str:
    if last is None:
        return "never"
    then = datetime.fromisoformat(last).replace(tzinfo=UTC)
    seconds = (datetime.now(UTC) - then).total_seconds()
    if seconds < 60:
        return "just now"
    if seconds < 3600 * 48:
        return f"{words.duration(seconds)} ago"
    return f"{seconds / 86400:.0f} days ago"
