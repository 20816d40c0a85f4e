"""Light studies in memory, made of rows: what Optuna's plots and evaluators are given."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from lrsearch.optuna_helpers import optuna_logs_errors_only
from lrsearch.report.learning_curves import thin
from lrsearch.report.tables import StudyTable, TrialRow

_THEN = datetime(2000, 1, 1)  # Optuna wants a time; nobody sees this one
_STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "diverged": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "running": TrialState.RUNNING,
    "waiting": TrialState.WAITING,
}


class LightStudy(optuna.Study):
    """A study whose trials are a list, not copied at every look (3 ms per 100 trials)."""

    def __init__(self, name: str, trials: Iterable[FrozenTrial]) -> None:
        storage = optuna.storages.InMemoryStorage()
        storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], name)
        super().__init__(name, storage)
        self._rows = list(trials)

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials; nothing may change them."""
        return [t for t in self._rows if states is None or t.state in states]


def study_of(trials: Iterable[FrozenTrial], name: str = "light") -> optuna.Study:
    """A study in memory with these trials, to be minimised."""
    with optuna_logs_errors_only():
        return LightStudy(name, trials)


def frozen(
    number: int,
    value: float | None,
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    state: TrialState = TrialState.COMPLETE,
    **rest: Any,
) -> FrozenTrial:
    """One finished trial."""
    fields: dict[str, Any] = {
        "datetime_start": _THEN,
        "datetime_complete": _THEN,
        "user_attrs": {},
        "system_attrs": {},
        "intermediate_values": {},
        "trial_id": number,
    }
    return FrozenTrial(
        number=number,
        state=state,
        value=value,
        params=dict(params),
        distributions=dict(distributions),
        **{**fields, **rest},
    )


def as_study(
    table: StudyTable,
    keep: Callable[[TrialRow], bool] = lambda trial: True,
    *,
    steps: int = 0,
) -> optuna.Study:
    """Trials of a study, as a light study for ``optuna.visualization``.

    Args:
        keep: Which trials.
        steps: With their validation losses as intermediate values, about so many at most.
    """
    rows = []
    for trial in table.trials:
        if not keep(trial):
            continue
        values: dict[int, float] = {}
        if steps:
            epochs = table.history.of(trial.trial_id, "epoch")
            losses = table.history.of(trial.trial_id, "val_loss")
            values = {int(epochs[i]): float(losses[i]) for i in thin(len(epochs), steps)}
        rows.append(
            frozen(
                trial.number,
                trial.value,
                trial.params,
                trial.distributions,
                _STATES[trial.status],
                datetime_start=trial.started,
                datetime_complete=trial.finished,
                intermediate_values=values,
            )
        )
    return study_of(rows, table.name)
