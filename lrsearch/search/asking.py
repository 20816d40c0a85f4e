"""Which trial comes next: the one of a claimed slot, with its parameters, stored."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from lrsearch.schedules import Schedule, Space
from lrsearch.search.draft import Draft
from lrsearch.search.study import set_sampler
from lrsearch.storage import trials
from lrsearch.storage.cache import put
from lrsearch.storage.engine import Storage
from lrsearch.storage.trials import Claim


class ImpossibleTrialError(Exception):
    """A user queued parameters that make no schedule: the trial is there, and is to fail."""

    def __init__(self, trial_id: int, cause: ValueError) -> None:
        super().__init__(str(cause))
        self.trial_id = trial_id
        self.cause = cause


@dataclass(frozen=True)
class Asker:
    """Makes the trials of one worker.

    Args:
        study: The study.
        storage: Its database.
        space: What is searched.
        sampler: Name in :data:`lrsearch.search.study.SAMPLERS`.
        seed: The study's seed.
        baselines: The usual recipes; they take the first slots.
    """

    study: optuna.Study
    storage: Storage
    space: Space
    sampler: str
    seed: int
    baselines: Mapping[str, dict[str, Any] | Schedule]

    def trial(self, claim: Claim) -> FrozenTrial:
        """The trial of a slot, with its parameters, as it is in the database.

        It may be one to go on with, a baseline, one that a user queued, or the sampler's choice.

        Raises:
            LostTrialError: The slot was taken over by another worker.
            ImpossibleTrialError: A user queued impossible parameters.
        """
        names = list(self.baselines)
        name = names[claim.slot] if claim.slot < len(names) else None
        trial_id = claim.trial_id
        if trial_id is None and name is None:
            trial_id = self._queued(claim)
        if trial_id is None:
            trial = trials.start_trial(self.storage, claim)
        else:
            trial = self.storage.get_trial(trial_id)
        if "schedule" in trial.user_attrs:
            return trial
        set_sampler(self.study, self.sampler, self.seed, claim.slot, self.space)
        attrs: dict[str, Any] = {} if name is None else {"baseline": name}
        recipe = None if name is None else self.baselines[name]
        try:
            if isinstance(recipe, Schedule):
                draft = Draft(self.study, trial, self.space.known(recipe))
                self.space.suggest_known(draft, recipe)
                attrs["schedule"] = recipe.to_dict()
            else:
                draft = Draft(self.study, trial, recipe)
                attrs["schedule"] = self.space.suggest(draft).to_dict()
        except ValueError as error:
            raise ImpossibleTrialError(trial._trial_id, error) from error
        trials.fill_trial(
            self.storage,
            trial._trial_id,
            params=draft.params,
            distributions=draft.distributions,
            user_attrs=attrs,
        )
        trial.user_attrs.update(attrs)
        put(self.study, copy.deepcopy(trial))
        return trial

    def _queued(self, claim: Claim) -> int | None:
        """A trial that a user queued (``study.enqueue_trial``), now in our slot."""
        for waiting in self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            if trials.adopt(self.storage, claim, waiting._trial_id):
                return waiting._trial_id
        return None
