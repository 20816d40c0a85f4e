"""Which trials come next: those of claimed slots, with their parameters, stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from lrsearch.errors import LrsearchError
from lrsearch.schedules import Schedule, Space
from lrsearch.search.draft import Draft
from lrsearch.search.study import set_sampler
from lrsearch.storage import trials
from lrsearch.storage.cache import put
from lrsearch.storage.engine import Storage
from lrsearch.storage.trials import Claim


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

    def trials(
        self, claims: Sequence[Claim]
    ) -> tuple[list[tuple[Claim, FrozenTrial]], list[tuple[int, Exception]]]:
        """The trials of some slots, with their parameters, as they are in the database.

        Each may be one to go on with, a baseline, one that a user queued, or the sampler's choice,
        which sees those before it. Those of slots that another worker has taken over are missing.

        Returns:
            The trials with their slots; and those for which a user queued parameters that make no
            schedule: they are there, and are to fail with the error.
        """
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        started = trials.start_trials(
            self.storage, claims, [t._trial_id for t in waiting], reserved=len(self.baselines)
        )
        asked: list[tuple[Claim, FrozenTrial]] = []
        impossible: list[tuple[int, Exception]] = []
        new = []
        for claim in claims:
            trial = started.get(claim.slot)
            if trial is None:
                continue
            if "schedule" not in trial.user_attrs:
                try:
                    self._ask(claim.slot, trial)
                except (ValueError, TypeError, LrsearchError) as error:
                    impossible.append((trial._trial_id, error))
                    continue
                put(self.study, trial)
                new.append(trial)
            asked.append((claim, trial))
        trials.fill_trials(self.storage, new)
        return asked, impossible

    def _ask(self, slot: int, trial: FrozenTrial) -> None:
        """Give a trial its parameters and its schedule."""
        set_sampler(self.study, self.sampler, self.seed, slot, self.space)
        names = list(self.baselines)
        recipe = None
        if slot < len(names):
            trial.user_attrs["baseline"] = names[slot]
            recipe = self.baselines[names[slot]]
        if isinstance(recipe, Schedule):
            self.space.suggest_known(Draft(self.study, trial, self.space.known(recipe)), recipe)
            schedule = recipe
        else:
            schedule = self.space.suggest(Draft(self.study, trial, recipe))
        trial.user_attrs["schedule"] = schedule.to_dict()
