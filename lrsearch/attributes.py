"""What studies and trials keep in ``user_attrs``; another program may have written it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lrsearch.optuna_helpers import storage_of
from lrsearch.schedules.ranges import as_number

if TYPE_CHECKING:
    import optuna
    from optuna.trial import BaseTrial, FrozenTrial


STUDY_ATTR = "lrsearch"
"""A study's settings, plan, versions and ``uid``, as ``lrsearch run`` keeps them."""
LR_RANGE_ATTR = "lr_range_test"
"""The lr range test of a study that was run with ``lr: auto``."""
CONFIRM_ATTR = "lrsearch_confirm"
"""In the study ``NAME-confirm``: which search it is of, its arms, seeds and slots."""
CONFIRM_SUFFIX = "-confirm"
SHARED = ("scheduler", "lr", "warmup")
"""Parameters of every schedule; those of a family alone have its name before them."""
_OF_A_SCHEDULE = {"family", "lr", "epochs", "interval"}
"""What a stored schedule has at least; another program may have kept less."""


def confirmation_study(study: optuna.Study) -> optuna.Study | None:
    """The study ``NAME-confirm`` of the search ``NAME``; None where there is none."""
    import optuna

    name, storage = study.study_name + CONFIRM_SUFFIX, storage_of(study)
    try:
        again = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        return None
    return again if isinstance(again.user_attrs.get(CONFIRM_ATTR), Mapping) else None


def info_of(attrs: Mapping[str, Any]) -> Mapping[str, Any]:
    """What ``lrsearch run`` keeps in a study's attributes; empty where it did not make it."""
    kept = attrs.get(STUDY_ATTR)
    if not isinstance(kept, Mapping) or not isinstance(kept.get("config"), Mapping):
        return {}
    return kept if isinstance(kept.get("plan") or {}, Mapping) else {}


def schedule_of(trial: BaseTrial | FrozenTrial) -> Mapping[str, Any]:
    """Its schedule, as :meth:`Schedule.to_dict` gives it; empty where it has none."""
    kept = trial.user_attrs.get("schedule")
    if not isinstance(kept, Mapping) or not kept.keys() >= _OF_A_SCHEDULE:
        return {}
    return kept if isinstance(kept.get("params") or {}, Mapping) else {}


def budget_of(trial: BaseTrial | FrozenTrial) -> int | None:
    """Epochs of its schedule; None where it has none."""
    epochs = as_number(schedule_of(trial).get("epochs"))
    return None if epochs is None else int(epochs)


def other_params(trial: BaseTrial | FrozenTrial) -> dict[str, Any]:
    """What an objective of the user's own asked for beside the schedule: ``weight_decay``."""
    family = schedule_of(trial).get("family")
    if family is None:
        return {}
    return {
        name: value
        for name, value in trial.params.items()
        if name not in SHARED and not name.startswith(f"{family}.")
    }


def averaged_losses(trial: FrozenTrial) -> dict[int, float]:
    """Losses of the running average of its weights by step, NaN where one is no number.

    Empty where it keeps none, or not as many as it has reports.
    """
    listed, steps = trial.user_attrs.get("avg_val_losses"), sorted(trial.intermediate_values)
    if not isinstance(listed, (list, tuple)) or len(listed) != len(steps):
        return {}
    numbers = (as_number(value) for value in listed)
    each = (math.nan if value is None else float(value) for value in numbers)
    return dict(zip(steps, each, strict=True))
