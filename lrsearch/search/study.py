"""A study in the database: made once, joined by anyone with the same configuration."""

from __future__ import annotations

import math
import platform
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection

from lrsearch import __version__
from lrsearch.attributes import STUDY_ATTR, info_of
from lrsearch.config import StudyConfig, difference
from lrsearch.errors import LrsearchError, UsageError, suggestion
from lrsearch.files import results_folder
from lrsearch.optuna_helpers import experiments_allowed
from lrsearch.report.command import typed
from lrsearch.storage import Storage, redact
from lrsearch.storage.cache import Cache
from lrsearch.storage.study_attributes import set_once
from lrsearch.tasks import FROM_PYTHON
from lrsearch.tracking import METRIC


def study_names(storage: Storage) -> list[str]:
    """The names of all studies in a database."""
    return [s.study_name for s in storage.get_all_studies()]


def load_study(storage: Storage, name: str) -> optuna.Study:
    """An existing study.

    Raises:
        UsageError: If there is none of that name; says which there are.
    """
    try:
        name.encode()
        return optuna.load_study(study_name=name, storage=Cache(storage))
    except (KeyError, UnicodeEncodeError):  # a name of bytes that are no UTF-8 is none of ours
        names = study_names(storage)
    question = suggestion(name, names)
    if not names:
        raise UsageError(
            f"no study {name!r}: {storage.label} has none yet. Start one with lrsearch run"
        )
    listed = [" ".join(each.split())[:60] or repr(each) for each in names[:20]]
    more = f" and {len(names) - 20:,} more" if len(names) > 20 else ""
    raise UsageError(
        f"no study {name!r:.80} in {storage.label}{question} (it has: {', '.join(listed)}{more})"
    )


def open_study(
    storage: Storage,
    config: StudyConfig,
    plan: Mapping[str, Any],
    imports: Sequence[str] = (),
) -> optuna.Study:
    """Create the study of a configuration, or join it if it is there.

    Args:
        storage: The database.
        config: What was asked for; kept with the study.
        plan: What it was resolved to (optimizer, model, budget, ...), plain values; kept as well.
        imports: What ``--import`` must bring to run it again; kept with the configuration.

    Raises:
        UsageError: If a study of that name was made with another configuration, or its task has
            changed since.
    """
    with experiments_allowed():
        study = optuna.create_study(
            study_name=config.study_name,
            storage=Cache(storage),
            direction="minimize",
            load_if_exists=True,
        )
        stored = info_of(study.user_attrs)
        ours = "identity" in stored
        if STUDY_ATTR not in study.user_attrs:
            ours = not study.get_trials(deepcopy=False)
        if not ours or study.directions != [StudyDirection.MINIMIZE]:
            raise UsageError(
                f"study {config.study_name!r} exists and was not made by lrsearch run; "
                "choose another --name"
            )
        if not stored:
            study.set_metric_names([METRIC])
            made = study_info(config, redact(config.storage), plan, imports)
            made["identity"] = config.identity()
            stored = set_once(storage, study._study_id, STUDY_ATTR, made)
    before, now, old = stored["identity"], config.identity(), stored.get("plan") or {}
    if before.get("lr") is None and now.get("lr") is not None and old.get("lr") == plan.get("lr"):
        now["lr"] = None  # the default range that it was made with, in so many words
    rows = difference(before, now) or changed(old, plan)
    if rows:
        name = "name=..." if config.task.startswith(FROM_PYTHON) else "--name"
        files = [str(task).rpartition(":")[0] for task in (before.get("task"), config.task)]
        moved = files[0] != files[1] and Path(files[0]).name == Path(files[1]).name
        where = " (the same file? run it from the folder of the first run)" if moved else ""
        raise UsageError(
            f"study {config.study_name!r} was made with {'; '.join(rows)}{where}. "
            f"Keep what it has, choose another {name}, or "
            f"{typed('delete', config.study_name, storage.label)}"
        )
    if config.trials > stored["config"]["trials"]:  # it goes on, to more
        kept = {**stored["config"], "trials": config.trials}
        study.set_user_attr(STUDY_ATTR, {**stored, "config": kept})
    return study


def study_info(
    config: StudyConfig, storage: str, plan: Mapping[str, Any], imports: Sequence[str]
) -> dict[str, Any]:
    """What is kept with a new study, as its attribute :data:`~lrsearch.attributes.STUDY_ATTR`.

    Args:
        config: What was asked for.
        storage: Its database, as it may be shown.
        plan: What the configuration was resolved to.
        imports: What ``--import`` must bring to run it again.
    """
    kept = {**config.to_dict(), "storage": storage}
    kept |= {"imports": list(imports)} if imports else {}
    uid = uuid.uuid4().hex[:12]
    return {"config": kept, "plan": dict(plan), "versions": versions(), "uid": uid}


def uid_of(storage: Storage, study_id: int) -> str | None:
    """What no other study has, whatever its number; None where there is no study of ours."""
    try:
        stored = storage.get_study_user_attrs(study_id)
    except KeyError:  # it was deleted
        return None
    uid: str | None = info_of(stored).get("uid")
    return uid


def changed(stored: Mapping[str, Any], plan: Mapping[str, Any]) -> list[str]:
    """What a task is now and was not when its study was made, a line each.

    Args:
        stored: The plan that is kept with the study.
        plan: That of now.
    """
    apart = ("task", "initial_loss")  # a text, and numbers that rounding changes
    rows = difference({k: v for k, v in stored.items() if k not in apart}, plan)
    old, now = (each.get("initial_loss") or {} for each in (stored, plan))
    other = [
        f"a {part} loss of {old[part]:.5g} before any training, now {now[part]:.5g} "
        "(other data, model or loss; what is random in them needs a seed)"
        for part in old
        if part in now and not math.isclose(old[part], now[part], rel_tol=1e-4, abs_tol=1e-6)
    ]
    return rows or other[:1]


def stored_config(study: optuna.Study) -> Mapping[str, Any]:
    """The configuration a study was made with.

    Raises:
        LrsearchError: If the study is not one of ours.
    """
    stored = info_of(study.user_attrs)
    if not stored:
        raise LrsearchError(
            f"study {study.study_name!r} was not made by lrsearch run, so its training cannot be "
            "repeated here: train its best schedule on other seeds where it was made"
        )
    config: Mapping[str, Any] = stored["config"]
    return config


def folder_of(study: optuna.Study) -> Path:
    """The folder of a study's results; that of a study of the user's own beside the others."""
    out = info_of(study.user_attrs).get("config", {}).get("out") or StudyConfig.out
    return results_folder(out, study.study_name)


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    import torch

    return {
        "lrsearch": __version__,
        "torch": str(torch.__version__),
        "optuna": optuna.__version__,
        "python": platform.python_version(),
    }
