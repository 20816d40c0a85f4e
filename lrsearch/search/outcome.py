"""What a run leaves: its files, which of them to train with, and all of it as plain values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from lrsearch.attributes import schedule_of
from lrsearch.search.plan import Plan
from lrsearch.search.progress import Progress
from lrsearch.storage import Storage

if TYPE_CHECKING:
    import optuna

    from lrsearch.report.confirmed import Confirmed
    from lrsearch.report.importance import Importance
    from lrsearch.report.robust import Robust


@dataclass(frozen=True)
class Outcome:
    """What a run leaves.

    Attributes:
        study: The study.
        storage: Its database.
        plan: What was run.
        progress: The state at the end.
        files: Result files written, the answer first.
        mattered: What mattered, over all trials and within each family.
        robust: The schedule that is the safest to train with; None where there is only the best.
        left_out: Which training of the finalists was left out, and how to have it; "" for none.
        confirmed: What fresh seeds said of it; None where there were none.
    """

    study: optuna.Study
    storage: Storage
    plan: Plan
    progress: Progress
    files: list[Path]
    mattered: Importance
    robust: Robust | None
    left_out: str = ""
    confirmed: Confirmed | None = None

    @property
    def timed_out(self) -> bool:
        """Whether time was up before the study had its target of trials."""
        config = self.plan.config
        return config.timeout is not None and self.progress.finished < config.trials

    @property
    def waiting(self) -> int:
        """Trials still queued, which a larger target would run."""
        return len(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    @property
    def repeated(self) -> int:
        """Trials with the same schedule as an earlier one, as in a space that holds only a few."""
        told = (TrialState.COMPLETE, TrialState.PRUNED)
        ended = self.study.get_trials(deepcopy=False, states=told)
        texts = [json.dumps(s, sort_keys=True) for s in map(schedule_of, ended) if s]
        return len(texts) - len(set(texts))


def outcome_dict(outcome: Outcome) -> dict[str, Any]:
    """The end of a run as plain values for ``--json``."""
    progress, confirmed = outcome.progress, outcome.confirmed
    best = progress.best
    assert best is not None
    overall = outcome.mattered.overall
    return {
        "study": outcome.study.study_name,
        "trials": progress.finished,
        "target": progress.target,
        "timed_out": outcome.timed_out,
        "completed": progress.count("complete"),
        "pruned": progress.count("pruned"),
        "diverged": progress.count("diverged"),
        "failed": progress.count("failed"),
        "repeated": outcome.repeated,
        "epochs": progress.epochs_run,
        "epochs_saved": round(progress.saved, 4),
        "best": {
            "trial": best.number,
            "value": best.value,
            "metric": best.metric,
            "schedule": dict(best.schedule),
        },
        "robust": None if outcome.robust is None else _robust(outcome.robust),
        "baselines": progress.baselines,
        "importance": {} if overall is None else dict(overall.share),
        "importance_spread": {} if overall is None else dict(overall.spread),
        "files": [str(path) for path in outcome.files],
        **({} if confirmed is None else {"confirmation": confirmed.to_dict()}),
    }


def file_to_train(study: optuna.Study, folder: Path, found: Confirmed | None) -> Path:
    """Which of the files of a run to train with: that of the schedule that ``export`` gives.

    Args:
        study: The search.
        folder: Where the files are.
        found: What fresh seeds said.
    """
    from lrsearch.export import answer_of

    number, name = answer_of(study)
    return folder / (
        "confirmed.yaml" if found is not None and found.lowest.trial == number else name
    )


def _robust(found: Robust) -> dict[str, Any]:
    """The schedule that is the safest to train with, as plain values."""
    from lrsearch.export import plain_losses, robust_values

    trial = found.trial
    return {
        "trial": trial.number,
        "value": trial.value,
        "metric": trial.metric,
        "schedule": dict(trial.schedule),
        "raised": plain_losses(found.raised),
        "own_rates": robust_values(found).get("own_rates"),
    }
