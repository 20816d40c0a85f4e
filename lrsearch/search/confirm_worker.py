"""The worker of a confirmation: given schedules on given seeds, then test data."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import optuna
import torch
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, TrialState

from lrsearch.attributes import CONFIRM_ATTR
from lrsearch.report import words
from lrsearch.search.checkpoints import Checkpoints
from lrsearch.search.context import Context
from lrsearch.search.loop import Resident, Worker
from lrsearch.search.make import make_crew
from lrsearch.search.plan import Plan
from lrsearch.search.runners import make_runner
from lrsearch.search.test_data import TestData
from lrsearch.storage import trials
from lrsearch.storage.slot_rows import Claim
from lrsearch.training import device as devices
from lrsearch.training.runner import Runner


def make_confirm_worker(plan: Plan, study: optuna.Study, context: Context) -> Worker:
    """The worker of this process; it trains the arms of one seed together where that is faster."""
    made, note = study.user_attrs[CONFIRM_ATTR], context.note
    order, arms = made["slots"], {arm["key"]: arm for arm in made["all_arms"]}
    together = len(made["arms"]) or max(Counter(seed for _, seed in order).values())
    fuse = max(1, min(plan.choice.fuse, together))
    choice = dataclasses.replace(plan.choice, fuse=fuse)

    def of_seed(seed: int, count: int | None = None) -> Runner:
        config = dataclasses.replace(plan.config, seed=seed)
        return make_runner(dataclasses.replace(plan, config=config, choice=choice), count, note)

    torch.set_num_threads(plan.choice.threads)
    test = TestData(plan) if made["arms"] else None  # what is of a search never sees any
    seed = int(order[0][1])
    return ConfirmWorker(
        study=study,
        plan=plan,
        context=context,
        runner=of_seed(seed),
        fallback=partial(of_seed, seed),
        target=len(order),
        baselines={},
        checkpoints=Checkpoints.of_study(study, plan.config.out, note),
        device=devices.describe(plan.device, plan.choice.precision),
        seed=seed,
        order=order,
        arms=arms,
        of_seed=of_seed,
        test=test,
    )


def train_confirmation(plan: Plan, study: optuna.Study, context: Context) -> None:
    """Run the slots of a confirmation that are not done, in this process or by a crew.

    Args:
        plan: What its trials are trained with.
        study: The study ``NAME-confirm``.
        context: The run that it belongs to.

    Raises:
        Interrupted: On Ctrl-C or SIGTERM; running trials were handed back.
    """
    crew = make_crew(plan, context, confirms=study.study_name)
    (crew or make_confirm_worker(plan, study, context)).run()


@dataclass(kw_only=True)
class ConfirmWorker(Worker):
    """A worker whose trials are given: every (arm, seed) of a list, test data at the end.

    Args:
        seed: Of the runner.
        order: (key of the arm, seed) of each slot.
        arms: Key -> arm.
        of_seed: Makes a runner for a seed, for so many trials at once or as the plan says.
        test: The test data; None where nothing is to be tested.
    """

    seed: int
    order: Sequence[Sequence[Any]]
    arms: Mapping[str, Mapping[str, Any]]
    of_seed: Callable[..., Runner]
    test: TestData | None
    held: tuple[FrozenTrial, dict[str, Any]] | None = None
    most: int | None = None

    def _fill(self) -> None:
        """Take trials; one of another seed waits until the runner is empty."""
        if self.held is not None and not self.residents:
            (trial, how), self.held = self.held, None
            self._admit(trial, **how)
        super()._fill()

    def _timed_out(self) -> bool:
        return self.held is not None or super()._timed_out()

    def _admit(self, trial: FrozenTrial, **how: Any) -> None:
        seed = int(trial.user_attrs["seed"])
        if seed != self.seed:
            if self.residents:
                self.held = (trial, how)
                return
            del self.runner  # the next one may need its memory
            self.seed, self.runner = seed, self.of_seed(seed, self.most)
            self.fallback = partial(self.of_seed, seed)
        super()._admit(trial, **how)

    def _free(self) -> int:
        return min(1, super()._free())

    def _ask(self, claims: Sequence[Claim]) -> list[tuple[Claim, FrozenTrial]]:
        started = trials.start_trials(self.context.storage, claims)
        new = {s: t for s, t in started.items() if "schedule" not in t.user_attrs}
        for slot, trial in new.items():
            key, seed = self.order[slot]
            arm = self.arms[key]
            trial.user_attrs = {"schedule": arm["schedule"], "arm": key, "seed": seed}
            if arm.get("baseline") is not None:
                trial.user_attrs["baseline"] = arm["baseline"]
            trial.params = {"seed": seed}
            trial.distributions = {"seed": IntDistribution(0, 2**31 - 1)}
        trials.fill_trials(self.context.storage, list(new.values()))
        return [(claim, started[claim.slot]) for claim in claims if claim.slot in started]

    def _should_prune(self, resident: Resident) -> bool:
        return False

    def _unfuse(self, reason: str, count: int) -> None:
        self.held, self.most = None, count  # it goes back to the queue like the others
        super()._unfuse(reason, count)

    def _finish(self, key: int, state: TrialState, stopped: str) -> None:
        resident = self.residents[key]
        assert resident.last is not None
        of_search = "of" in self.arms[str(resident.trial.user_attrs["arm"])]
        if state is TrialState.COMPLETE and self.test is not None and not of_search:
            found = self.test(self.runner, key, self.seed)
            finite = {k: v for k, v in found.items() if np.isfinite(v)}
            trials.set_user_attrs(self.context.storage, key, finite)
        attrs = resident.trial.user_attrs
        last = resident.last
        ended = "loss not finite" if last.diverged else f"val loss {words.loss(last.val_loss)}"
        self.context.note(f"{attrs['arm']:<18} seed {attrs['seed']}  {stopped}  {ended}")
        super()._finish(key, state, stopped)
