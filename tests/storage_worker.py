"""A worker without training, for load and crash tests: claims, reports epochs, finishes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from sqlalchemy import select
from sqlalchemy.engine import Connection

from lrsearch.measured import EpochResult
from lrsearch.storage import history, new_owner, slots, trials
from lrsearch.storage.engine import Storage
from lrsearch.storage.schema import HISTORY, INTERMEDIATE, SLOTS, upsert
from lrsearch.storage.slot_rows import Ending

EPOCHS = 3


@dataclass(frozen=True)
class Result:
    """One epoch of a made-up trial, the same whoever runs it."""

    epoch: int
    lr: float = 0.1
    train_loss: float = 1.0
    val_loss: float = 1.0
    val_metric: float | None = 0.5
    avg_val_loss: float = 1.0
    avg_val_metric: float | None = None
    seconds: float = 0.01
    diverged: bool = False


def result(x: float, epoch: int) -> Result:
    """The result of epoch ``epoch`` of the trial with parameter ``x``."""
    return Result(epoch=epoch, lr=x / epoch, train_loss=x + 1 / epoch, val_loss=x + 2 / epoch)


class SlotCounts(NamedTuple):
    """Slots of a study: finished (trials in a final state), running, and waiting for a worker."""

    finished: int
    running: int
    waiting: int


def count_slots(storage: Storage, study_id: int) -> SlotCounts:
    """How many of a study there are of each kind."""
    rows = select(SLOTS.c.finished, SLOTS.c.owner).where(SLOTS.c.study_id == study_id)
    found = storage.transact(lambda connection: connection.execute(rows).all(), read=True)
    finished = sum(row.finished for row in found)
    waiting = sum(not row.finished and row.owner is None for row in found)
    return SlotCounts(finished, len(found) - finished - waiting, waiting)


def claim_one(
    storage: Storage, study_id: int, target: int, owner: str, **options: Any
) -> slots.Claim | None:
    """One slot, or None if there is nothing to do now."""
    found = slots.claim_some(storage, study_id, target, owner, 1, **options)
    return found[0] if found else None


def create_trial(storage: Storage, claim: slots.Claim) -> int:
    """The number in the database of the trial of a claimed slot."""
    return trials.start_trials(storage, [claim])[claim.slot]._trial_id


def fill_trial(storage: Storage, trial_id: int, params: Mapping[str, float], **attrs: Any) -> None:
    """Store parameters between 0 and 1, and attributes."""
    trial = storage.get_trial(trial_id)
    trial.params = dict(params)
    trial.distributions = {name: FloatDistribution(0.0, 1.0) for name in params}
    trial.user_attrs = attrs
    trials.fill_trials(storage, [trial])


def record(storage: Storage, trial_id: int, result: EpochResult) -> None:
    """Write an epoch of a trial that has no slot."""

    def work(connection: Connection) -> None:
        rows = [history._history_row(trial_id, result)], [history._optuna_row(trial_id, result)]
        upsert(connection, HISTORY, ("trial_id", "epoch"), rows[0])
        upsert(connection, INTERMEDIATE, ("trial_id", "step"), rows[1])

    storage.transact(work)


def finish(
    storage: Storage,
    trial_id: int,
    state: TrialState,
    value: float | None,
    attrs: Mapping[str, Any] | None = None,
    *,
    owner: str,
) -> bool:
    """End a trial; True if it is finished by ``owner``, now or before."""
    ending = Ending(trial_id, state, value, attrs or {})
    return bool(trials.finish_all(storage, [ending], owner))


def work(storage: Storage, name: str, target: int, pause: float = 0.0, stops: bool = False) -> int:
    """Run trials until the study has its target; the number of those finished here.

    It may stop after its first epoch, as a suspended machine does, until it gets a SIGCONT.
    """
    study = optuna.load_study(study_name=name, storage=storage)
    study_id = study._study_id
    owner = new_owner()
    done = 0
    while True:
        claim = claim_one(storage, study_id, target, owner)
        if claim is None:
            if count_slots(storage, study_id).finished >= target:
                return done
            time.sleep(0.05)
            continue
        trial_id = claim.trial_id or create_trial(storage, claim)
        trial = storage.get_trial(trial_id)
        if "x" not in trial.params:
            fill_trial(storage, trial_id, {"x": 1.0 / (1 + claim.slot)}, slot=claim.slot)
        x = 1.0 / (1 + claim.slot)
        lost = False
        for epoch in range(max(trial.intermediate_values, default=0) + 1, EPOCHS + 1):
            time.sleep(pause)
            lost = bool(
                history.record_epochs(storage, [(trial_id, result(x, epoch))], owner=owner)
            )
            if stops:
                stops = False
                os.kill(os.getpid(), signal.SIGSTOP)
            if lost:
                break
        if not lost:
            attrs = {"stopped": "completed", "owner": owner}
            value = result(x, EPOCHS).val_loss
            done += finish(storage, trial_id, TrialState.COMPLETE, value, attrs, owner=owner)
