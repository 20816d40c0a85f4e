"""The answer as a file: YAML that builds the scheduler again, or plain torch code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from lrsearch.attributes import CONFIRM_ATTR, info_of, other_params, schedule_of
from lrsearch.divergence import status_of
from lrsearch.errors import LrsearchError, UsageError
from lrsearch.files import write_text
from lrsearch.optuna_helpers import check_direction, label_of
from lrsearch.report import words
from lrsearch.report.answer import trial_to_use
from lrsearch.report.command import typed
from lrsearch.report.confirmed import Confirmed
from lrsearch.report.confirmed_study import read_confirmed
from lrsearch.report.confirmed_words import among, other
from lrsearch.report.raised import RAISE, plain_loss
from lrsearch.report.robust import Raised, Robust, robust_trial
from lrsearch.report.robust_words import robust_note
from lrsearch.schedules import FAMILIES, Schedule
from lrsearch.schedules.family import stepping
from lrsearch.schedules.ranges import as_number
from lrsearch.search.study import versions


def best_trial(study: optuna.Study, number: int | None = None) -> FrozenTrial:
    """The completed trial with the smallest loss, or the one asked for.

    Raises:
        LrsearchError: If no trial is complete.
        UsageError: If the trial asked for does not exist or has no schedule, or the study
            maximises.
    """
    check_direction(study)
    trials = study.get_trials(deepcopy=False)
    if number is not None:
        for trial in trials:
            if trial.number == number and schedule_of(trial):
                return trial
        raise UsageError(
            f"study {study.study_name!r} has no trial {number} with a schedule "
            f"(it has {len(trials)} trials)"
        )
    done = [t for t in trials if status_of(t) == "complete" and schedule_of(t)]
    if not done:
        raise LrsearchError(why_none(study))
    return min(done, key=lambda t: (t.value, t.number))


def why_none(study: optuna.Study) -> str:
    """Why a study has no completed trial, and what to do about it, in a line."""
    trials = study.get_trials(deepcopy=False)
    ended, ours = [t for t in trials if t.state.is_finished()], bool(info_of(study.user_attrs))
    if ended and all(status_of(t) == "diverged" for t in ended):
        rates = [s["lr"] for t in ended if "lr" in (s := schedule_of(t))]
        least = f", even at lr {min(rates):.3g}" if rates else ""
        how = "(--lr LOW,HIGH and another --name)" if ours else "in its own training loop"
        return (
            f"study {study.study_name!r}: all {words.count(len(ended), 'trial')} diverged{least}; "
            f"look for NaN in the data, or search lower rates {how}"
        )
    if ended and all(t.state == TrialState.FAIL for t in ended):
        why = f"{typed('show', study.study_name, label_of(study))} says why"
        if not ours:
            why = "an exception or a loss of NaN ended each, and the log of its loop says which"
        return f"study {study.study_name!r}: all {words.count(len(ended), 'trial')} failed; {why}"
    if any(t.state == TrialState.COMPLETE and not schedule_of(t) for t in trials):
        return (
            f"study {study.study_name!r} has no trial with a schedule: neither lrsearch run nor "
            "lrsearch.suggest made them"
        )
    return f"study {study.study_name!r} has no completed trial yet; run it a little longer"


def answer_trial(study: optuna.Study) -> FrozenTrial:
    """The trial that the report names: what alone held on fresh seeds, or is robust, or the best.

    Args:
        study: The search.

    Raises:
        LrsearchError: As of :func:`best_trial`.
    """
    number, _ = answer_of(study)
    return best_trial(study, number)


def answer_note(study: optuna.Study) -> str:
    """Why :func:`answer_trial` is not the best of the search, or came not lowest; or nothing."""
    best, (number, file) = best_trial(study).number, answer_of(study)
    if file == "robust.yaml":
        recipe = best_trial(study, number).user_attrs.get("baseline")
        export = typed("export", study.study_name, label_of(study))
        return robust_note(number, best, export, recipe)
    found = read_confirmed(study)
    return "" if found is None else other(found, best)


def answer_of(study: optuna.Study) -> tuple[int, str]:
    """Number of :func:`answer_trial`, and the file of a run that has it."""
    best = best_trial(study).number
    robust = robust_trial(study)
    found = read_confirmed(study)
    return trial_to_use(best, best if robust is None else robust, found)


def configuration(study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
    """Everything needed to use, repeat and cite a trial, as plain values.

    Of a study with its own training loop (:func:`lrsearch.suggest`) only the schedule, what else
    its objective asked for (``also``) and the results are known.
    """
    info = info_of(study.user_attrs)
    config = info.get("config", {})
    plan = info.get("plan", {})
    baselines = {
        t.user_attrs["baseline"]: t.value
        for t in study.get_trials(deepcopy=False)
        if "baseline" in t.user_attrs and status_of(t) == "complete"
    }
    result: dict[str, Any] = {"metric": "val_loss", "value": trial.value}
    if (metric := as_number(trial.user_attrs.get("val_metric"))) is not None:
        result[f"val_{plan.get('metric_name') or 'metric'}"] = metric
    named: dict[str, Any] = {}
    if config:
        named["optimizer"] = plan.get("optimizer", dict(config["optimizer"]))
        if plan.get("param_groups"):
            named["param_groups"] = plan["param_groups"]
        named["task"] = {
            "name": config["task"],
            **({"model": plan["model"]} if plan.get("model") else {}),
            **{
                key: config[key]
                for key in ("train_samples", "batch_size")
                if config.get(key) is not None
            },
        }
    others = {} if info else other_params(trial)
    # the runs of a confirmation have seeds of their own
    seed = {"seed": trial.user_attrs.get("seed", config["seed"])} if config else {}
    return {
        "schedule": dict(trial.user_attrs["schedule"]),
        **({"also": others} if others else {}),
        **named,
        "result": {**result, "baselines": baselines},
        "study": {"name": study.study_name, "trial": trial.number, **seed},
        "made_by": {**info.get("versions", {}), "device": trial.user_attrs.get("device")}
        if config
        else versions(),
    }


def export_text(
    study: optuna.Study,
    *,
    trial: int | None = None,
    python: bool = False,
    name: str | None = None,
) -> str:
    """The configuration of a trial as YAML or as Python code; of :func:`answer_trial` by default.

    Args:
        study: The study.
        trial: Its number.
        python: As code that needs torch alone.
        name: Of the file that it is for; None: of no file yet.

    Raises:
        LrsearchError: If there is no completed trial, or no such trial.
        UsageError: Of a confirmation, whose best run is but its luckiest seed, no trial is named.
    """
    if trial is None and (again := study.user_attrs.get(CONFIRM_ATTR)):
        raise UsageError(
            f"study {study.study_name!r} is a confirmation, and its best run the luckiest seed: "
            f"{typed('export', again['of'], label_of(study))}, with --trial N for another than "
            "the search's answer"
        )
    chosen = answer_trial(study) if trial is None else best_trial(study, trial)
    content = configuration(study, chosen)
    if python:
        from lrsearch.schedules.code import python_code

        schedule = Schedule.from_dict(content["schedule"])
        return python_code(schedule, content.get("optimizer"), content.get("param_groups", ()))
    value = content["result"]["value"]
    study_name = " ".join(study.study_name.split())
    loss = "none" if value is None else f"{value:#.4g}"
    seed = f" (seed {content['study']['seed']})" if "seed" in content["study"] else ""
    head = (
        f"# study {study_name} · trial {chosen.number} · validation loss {loss}{seed}\n"
        f"{_use(name, content['schedule'])}"
    )
    return head + _yaml(content)


def write_best(study: optuna.Study, path: Path) -> Path:
    """Write the best configuration of the search as YAML; returns ``path``."""
    write_text(path, export_text(study, trial=best_trial(study).number, name=path.name))
    return path


def write_robust(study: optuna.Study, found: Robust | None, path: Path) -> Path:
    """Write the schedule of a search that is the safest to train with as YAML; returns ``path``.

    Args:
        study: The search.
        found: That schedule; None: there is none but the best.
        path: The file.
    """
    trial = best_trial(study, None if found is None else found.trial.number)
    text = export_text(study, trial=trial.number, name=path.name)
    if found is not None and (found.raised or found.beside is not None):
        text += _yaml({"robust": robust_values(found)})
    write_text(path, text)
    return path


def robust_values(found: Robust) -> dict[str, Any]:
    """What finalists and a recipe came to at the end of a search, as plain values for a file."""
    out: dict[str, Any] = {}
    if found.raised:
        out |= {"times_the_rates": RAISE, "val_loss": plain_losses(found.raised)}
    if (beside := found.beside) is not None:
        both = {found.finalist.number: beside.finalist, beside.recipe.number: beside.loss}
        means = {number: plain_loss(loss) for number, loss in both.items()}
        out["own_rates"] = {"seeds": beside.seeds, "mean_val_loss": means}
    return out


def plain_losses(raised: Raised) -> dict[int, list[float | str]]:
    """What finalists came to, for a file: a loss, ``"diverged"`` or ``"failed"`` for each run."""
    return {number: list(map(plain_loss, losses)) for number, losses in raised.items()}


def write_confirmed(study: optuna.Study, found: Confirmed, path: Path) -> Path:
    """Write what came lowest on fresh seeds as YAML; returns ``path``.

    Args:
        study: The search.
        found: Its confirmation.
        path: The file.
    """
    arm = found.lowest
    losses, metric = arm.val, arm.test
    confirmed: dict[str, Any] = {
        "seeds": list(arm.val_loss),
        "lost_seeds": list(arm.lost),
        **({"failed_seeds": list(arm.failed)} if arm.failed else {}),  # the others diverged
        "val_loss": asdict(losses),
        **({} if metric is None else {f"test_{found.metric_name}": asdict(metric)}),
        "baselines": {a.baseline: a.val.mean for a in found.arms if a.baseline and a.val_loss},
    }
    if lost := {a.baseline: list(a.lost) for a in found.arms if a.baseline and a.lost}:
        confirmed["baselines_lost_seeds"] = lost  # the means are over the others
    content = {**configuration(study, best_trial(study, arm.trial)), "confirmed": confirmed}
    name = " ".join(study.study_name.split())
    on = f"{words.loss_mean(losses)} on {words.count(losses.n, 'fresh seed')}"
    head = (
        f"# study {name} · trial {arm.trial} · lowest validation loss{among(found)} when trained "
        f"again: {on}\n"
        f"{_use('confirmed.yaml', content['schedule'])}"
    )
    write_text(path, head + _yaml(content))
    return path


def _use(name: str | None, schedule: Mapping[str, Any]) -> str:
    """How to build a schedule from its file, if there is one yet, and when to step it."""
    family = FAMILIES.get(schedule["family"])
    saved = "" if name else "save this as FILE.yaml, then "
    return (
        f'# use it: {saved}scheduler = lrsearch.load("{name or "FILE.yaml"}").build(optimizer, '
        "steps_per_epoch=len(loader))\n"
        f"# step it: {stepping(schedule['interval'], family)}\n"
    )


def _yaml(content: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=100)
