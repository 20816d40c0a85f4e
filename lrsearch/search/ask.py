"""Which trials come next, with their parameters: claimed slots, filled by the study's sampler."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from lrsearch.errors import LrsearchError, UsageError, suggestion
from lrsearch.optuna_helpers import experiments_allowed
from lrsearch.schedules import Schedule
from lrsearch.schedules.ranges import as_number
from lrsearch.search.methods import set_sampler
from lrsearch.search.plan import Plan
from lrsearch.search.sampling import TraceSampler
from lrsearch.storage import trials
from lrsearch.storage.cache import cache_of
from lrsearch.storage.engine import Storage
from lrsearch.storage.slot_rows import Claim

MOST_LOOKS = 3
"""How often what others have proposed meanwhile is looked at, before proposals are stored."""


@dataclass(frozen=True)
class Asker:
    """Makes the trials of one worker.

    Args:
        study: The study.
        storage: Its database.
        plan: What is searched, and how.
        baselines: The usual recipes; they take the first slots.
    """

    study: optuna.Study
    storage: Storage
    plan: Plan
    baselines: Mapping[str, dict[str, Any] | Schedule]

    def trials(
        self, claims: Sequence[Claim]
    ) -> tuple[list[tuple[Claim, FrozenTrial]], list[tuple[int, Exception]]]:
        """The trials of some slots, with their parameters, as they are in the database.

        Each is a trial to resume, a baseline, a trial that a user queued, or the sampler's
        choice, which sees the trials before it, and is made again where another worker has stored
        the same meanwhile. Slots that another worker has taken over since are left out.

        Returns:
            The trials with their slots; and the ids of trials for which a user queued parameters
            that make no schedule, with the error that each is to fail with.
        """
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        started = trials.start_trials(
            self.storage, claims, [t._trial_id for t in waiting], reserved=len(self.baselines)
        )
        asked: list[tuple[Claim, FrozenTrial]] = []
        impossible: list[tuple[int, Exception]] = []
        new: dict[int, FrozenTrial] = {}  # by slot
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
                cache_of(self.study).put(self.study._study_id, trial)
                new[claim.slot] = trial
            asked.append((claim, trial))
        if self.plan.config.sampler == "trace" and new and any(claim.others for claim in claims):
            self._ask_again(new)
        trials.fill_trials(self.storage, list(new.values()))
        return asked, impossible

    def _ask_again(self, new: Mapping[int, FrozenTrial]) -> None:
        """Ask anew for what another worker has stored since we looked.

        From the same trials follow the same proposals, so two that ask for many at once would
        make many twice.
        """
        for _ in range(MOST_LOOKS):
            known = {t._trial_id for t in self._with_schedules()}
            cache_of(self.study).look_again(self.study._study_id)
            stored = [t for t in self._with_schedules() if t._trial_id not in known]
            taken = [t.user_attrs["schedule"] for t in stored]
            same = {slot: t for slot, t in new.items() if t.user_attrs["schedule"] in taken}
            for slot, trial in same.items():
                if slot >= len(self.baselines) and "fixed_params" not in trial.system_attrs:
                    trial.params, trial.distributions = {}, {}
                    self._ask(slot, trial)
                    cache_of(self.study).put(self.study._study_id, trial)
            if not same:
                return

    def _with_schedules(self) -> list[FrozenTrial]:
        return [t for t in self.study.get_trials(deepcopy=False) if "schedule" in t.user_attrs]

    def _ask(self, slot: int, trial: FrozenTrial) -> None:
        """Give a trial its parameters and its schedule."""
        space, config = self.plan.space, self.plan.config
        set_sampler(self.study, config.sampler, config.seed, slot)
        names = list(self.baselines)
        recipe = None
        if slot < len(names):
            trial.user_attrs["baseline"] = names[slot]
            recipe = self.baselines[names[slot]]
        if isinstance(recipe, Schedule):
            space.suggest_known(Draft(self.study, trial, space.known(recipe)), recipe)
            schedule = recipe
        else:
            schedule = space.suggest(Draft(self.study, trial, recipe))
        trial.user_attrs["schedule"] = schedule.to_dict()


class Searched(optuna.Study):
    """A study as Optuna's samplers see it: without baselines of families that are not searched.

    Such a trial has a rate and no other parameter. GP and CMA-ES draw a parameter that not every
    trial has at random, and TPE models it apart from the others: one such trial would spoil both.

    Args:
        study: The study; all but the list of its trials is shared with it.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.__dict__.update(study.__dict__)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        trials = super()._get_trials(deepcopy, states, use_cache)
        return [t for t in trials if "baseline" not in t.user_attrs or "scheduler" in t.params]


class Draft:
    """Looks like an Optuna trial to :meth:`Space.suggest`, and writes no parameters.

    Optuna's own trial stores every suggested parameter in a transaction of its own. Here the
    sampler is asked exactly as Optuna asks it, and ``params`` and ``distributions`` go to the
    database together.

    Args:
        study: The study; its sampler proposes.
        trial: The stored RUNNING trial they are for: some samplers (TPE, CMA-ES, GP) write
            attributes to it. Parameters that it has already (a user queued them) are kept.
        fixed: Values that are not asked for (a baseline's).

    Raises:
        UsageError: By ``suggest_...``: a value that a user queued is none that is searched.
    """

    def __init__(
        self, study: optuna.Study, trial: FrozenTrial, fixed: dict[str, Any] | None = None
    ) -> None:
        self._study = study if isinstance(study.sampler, TraceSampler) else Searched(study)
        self._fixed = {**trial.system_attrs.get("fixed_params", {}), **(fixed or {})}
        self._frozen = trial
        self._relative: dict[str, Any] = {}
        if not fixed:
            # Samplers read the trials through a cache that only ask() and tell() ever empty.
            study._thread_local.cached_all_trials = None
            sampler, study = study.sampler, self._study
            with experiments_allowed():
                sampler.before_trial(study, self._frozen)
                space = sampler.infer_relative_search_space(study, self._frozen)
                self._relative = sampler.sample_relative(study, self._frozen, space)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """As :meth:`optuna.trial.Trial.suggest_float`."""
        return float(self._suggest(name, FloatDistribution(low, high, log=log)))

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """As :meth:`optuna.trial.Trial.suggest_int`."""
        return int(self._suggest(name, IntDistribution(low, high, log=log)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """As :meth:`optuna.trial.Trial.suggest_categorical`."""
        return self._suggest(name, CategoricalDistribution(choices))

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        params = self._frozen.params
        if name in params:
            return params[name]
        if name in self._fixed:
            value = _queued_value(name, self._fixed[name], distribution)
        elif name in self._relative and distribution._contains(
            distribution.to_internal_repr(self._relative[name])
        ):
            value = self._relative[name]
        else:
            value = self._study.sampler.sample_independent(
                self._study, self._frozen, name, distribution
            )
        params[name] = value
        self._frozen.distributions[name] = distribution
        return value


def _queued_value(name: str, value: Any, distribution: BaseDistribution) -> Any:
    """A value that a user queued, as its distribution stores it.

    Raises:
        UsageError: The distribution does not contain it.
    """
    advice = "; queue another"
    if isinstance(distribution, CategoricalDistribution):
        try:
            return distribution.to_external_repr(distribution.to_internal_repr(value))
        except ValueError:
            choices = [str(choice) for choice in distribution.choices]
        advice = suggestion(str(value), choices) or advice
        allowed = ("one of " if len(choices) > 1 else "") + ", ".join(choices)
    else:
        assert isinstance(distribution, (FloatDistribution, IntDistribution))
        number = as_number(value)
        if number is not None and distribution._contains(number):
            return distribution.to_external_repr(float(number))
        kind = "a number" if isinstance(distribution, FloatDistribution) else "a whole number"
        allowed = f"{kind} from {distribution.low:.6g} to {distribution.high:.6g}"
    raise UsageError(
        f"the queued {name} must be {allowed} in this study, got {value!r:.60}{advice}"
    )
