"""``lrsearch delete``: a study goes, with its confirmation and its checkpoints; its files stay."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.trial import TrialState

from lrsearch.attributes import CONFIRM_ATTR, CONFIRM_SUFFIX, info_of
from lrsearch.errors import LrsearchError
from lrsearch.report import words
from lrsearch.search.study import folder_of, load_study, study_names
from lrsearch.storage import Storage, slots


def with_confirmations(storage: Storage, names: Sequence[str]) -> list[optuna.Study]:
    """The studies of these names, each with its confirmation; none twice.

    Raises:
        UsageError: There is none of a name.
        LrsearchError: A worker of one of them is at work.
    """
    found: dict[str, optuna.Study] = {}
    there = set(study_names(storage))
    for name in names:
        found[name] = load_study(storage, name)
        if (again := name + CONFIRM_SUFFIX) in there:
            confirmation = load_study(storage, again)
            if confirmation.user_attrs.get(CONFIRM_ATTR, {}).get("of") == name:
                found[again] = confirmation
    for name, study in found.items():
        if running := _at_work(storage, study):
            raise LrsearchError(
                f"study {name!r} has {words.count(running, 'trial')} running: stop its workers "
                "(Ctrl-C), then delete it"
            )
    return list(found.values())


def _at_work(storage: Storage, study: optuna.Study) -> int:
    """Trials that a worker of ours trains now; those of dead ones are set free."""
    if not storage.has_history:
        return 0
    slots.sweep(storage, study._study_id)
    return slots.count_running(storage, study._study_id)


def told(study: optuna.Study) -> str:
    """A study by its name and what it holds.

    Example:
        >>> told(optuna.create_study(study_name="mine"))
        'mine (0 trials)'
    """
    trials = study.get_trials(deepcopy=False)
    running = sum(t.state == TrialState.RUNNING for t in trials)
    more = f", {running:,} of them running" if running else ""
    return f"{study.study_name} ({words.count(len(trials), 'trial')}{more})"


def delete(study: optuna.Study, storage: Storage) -> Path | None:
    """Delete a study and its checkpoints.

    Returns:
        The folder with its other results, which stays; None where there is none.
    """
    made = info_of(study.user_attrs)
    folder = folder_of(study)
    storage.delete_study(study._study_id)
    if "uid" in made:
        shutil.rmtree(folder / "checkpoints" / made["uid"], ignore_errors=True)
    return folder if folder.is_dir() else None
