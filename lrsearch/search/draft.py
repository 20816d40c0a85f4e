"""A trial before it exists: asks the sampler for all parameters, then is stored at once."""

from __future__ import annotations

import warnings
from collections.abc import Container, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from lrsearch.errors import UsageError, did_you_mean
from lrsearch.schedules.ranges import as_number
from lrsearch.search.sampling import TraceSampler


class Searched(optuna.Study):
    """A study as Optuna's samplers see it: without recipes of families that are not searched.

    Such a trial has a rate and no other parameter, and what is not a parameter of every trial GP
    and CMA-ES leave to chance, and TPE models apart from the others.

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
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                sampler.before_trial(study, self._frozen)
                space = sampler.infer_relative_search_space(study, self._frozen)
                self._relative = sampler.sample_relative(study, self._frozen, space)

    @property
    def params(self) -> dict[str, Any]:
        """The values suggested so far."""
        return self._frozen.params

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The distributions they came from."""
        return self._frozen.distributions

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
        if name in self.params:
            return self.params[name]
        if name in self._fixed:
            value = _searched(name, self._fixed[name], distribution)
        elif name in self._relative and distribution._contains(
            distribution.to_internal_repr(self._relative[name])
        ):
            value = self._relative[name]
        else:
            value = self._study.sampler.sample_independent(
                self._study, self._frozen, name, distribution
            )
        self.params[name] = value
        self.distributions[name] = distribution
        return value


def _searched(name: str, value: Any, distribution: BaseDistribution) -> Any:
    """A value that a user queued, as its distribution has it: another could not be stored."""
    near = None
    if isinstance(distribution, CategoricalDistribution):
        try:
            return distribution.to_external_repr(distribution.to_internal_repr(value))
        except ValueError:
            choices = [str(choice) for choice in distribution.choices]
        near = did_you_mean(str(value), choices)
        allowed = ("one of " if len(choices) > 1 else "") + ", ".join(choices)
    else:
        assert isinstance(distribution, (FloatDistribution, IntDistribution))
        number = as_number(value)
        if number is not None and distribution._contains(number):
            return distribution.to_external_repr(float(number))
        kind = "a number" if isinstance(distribution, FloatDistribution) else "a whole number"
        allowed = f"{kind} from {distribution.low:.6g} to {distribution.high:.6g}"
    advice = f" — did you mean {near}?" if near else "; queue another"
    raise UsageError(
        f"the queued {name} must be {allowed} in this study, got {value!r:.60}{advice}"
    )
