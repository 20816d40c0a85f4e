"""Samplers and pruners by name: ours, and Optuna's with what suits learning curves."""

from __future__ import annotations

from collections.abc import Callable

import optuna
from optuna.samplers import BaseSampler

from lrsearch.optuna_helpers import experiments_allowed
from lrsearch.search.pruning import SchedulePruner
from lrsearch.search.sampling import TraceSampler

#: Name -> how to make it from the study's seed and a seed of the trial's own. With the latter a
#: study that was interrupted goes on with the draws it would have had. CMA-ES and QMC keep a
#: sequence in the database, which only the study's seed belongs to.
#: The trace sampler draws by the trial's number, and keeps the curves it has read: it stays.
SAMPLERS: dict[str, Callable[[int, int], BaseSampler]] = {
    "trace": lambda seed, draw: TraceSampler(seed),
    "tpe": lambda seed, draw: optuna.samplers.TPESampler(seed=draw, multivariate=True, group=True),
    "random": lambda seed, draw: optuna.samplers.RandomSampler(seed=draw),
    "gp": lambda seed, draw: optuna.samplers.GPSampler(seed=draw),
    "cmaes": lambda seed, draw: optuna.samplers.CmaEsSampler(
        seed=seed,
        independent_sampler=optuna.samplers.RandomSampler(seed=draw),
    ),
    "qmc": lambda seed, draw: optuna.samplers.QMCSampler(
        seed=seed,
        scramble=True,
        independent_sampler=optuna.samplers.RandomSampler(seed=draw),
    ),
}

PRUNERS: dict[str, Callable[[int], optuna.pruners.BasePruner]] = {
    "schedule": lambda epochs: SchedulePruner(),
    "median": lambda epochs: optuna.pruners.MedianPruner(
        n_startup_trials=8, n_warmup_steps=max(1, epochs // 5)
    ),
    "asha": lambda epochs: optuna.pruners.SuccessiveHalvingPruner(
        min_resource=max(1, epochs // 16), reduction_factor=3
    ),
    "hyperband": lambda epochs: optuna.pruners.HyperbandPruner(
        min_resource=1, max_resource=epochs, reduction_factor=3
    ),
    "none": lambda epochs: optuna.pruners.NopPruner(),
}


def make_sampler(name: str, seed: int, slot: int) -> BaseSampler:
    """The sampler called ``name`` for the trial in a slot."""
    with experiments_allowed():
        return SAMPLERS[name](seed, (seed * 1_000_003 + slot) % 2**32)


def set_sampler(study: optuna.Study, name: str, seed: int, slot: int) -> None:
    """Give a study the sampler called ``name`` for the trial in a slot."""
    if name != "trace" or not isinstance(study.sampler, TraceSampler):
        study.sampler = make_sampler(name, seed, slot)
