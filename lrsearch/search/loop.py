"""The worker loop: claim a slot, ask, train, report and prune, tell; one trial or K fused."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
import torch
from optuna.pruners import HyperbandPruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial, TrialState

from lrsearch.divergence import DIVERGED_LOSS
from lrsearch.errors import LrsearchError, brief
from lrsearch.measured import EpochResult
from lrsearch.schedules import Schedule
from lrsearch.schedules.ranges import as_number
from lrsearch.search.ask import Asker
from lrsearch.search.checkpoints import Checkpoints
from lrsearch.search.context import Context
from lrsearch.search.interrupt import Interrupted
from lrsearch.search.plan import Plan
from lrsearch.search.study import uid_of
from lrsearch.search.tracker_thread import TrackerThread
from lrsearch.storage import history, slots, trials
from lrsearch.storage.cache import cache_of
from lrsearch.storage.owners import Heartbeat, new_owner
from lrsearch.storage.slot_rows import Claim, Ending
from lrsearch.training.products import as_torch
from lrsearch.training.runner import Runner

FAILURES_IN_A_ROW = 5
WAIT_SECONDS = 0.5
"""Who has no trial looks so often whether one comes back to the queue; at first more often."""
FIRST_WAIT_SECONDS = 0.02


@dataclass
class Resident:
    """A trial that is being trained by this worker."""

    trial: FrozenTrial
    started: float
    saved: float
    alone: bool
    last: EpochResult | None = None


@dataclass
class Worker:
    """Runs trials of one study until its target is met, it is interrupted, or time is up.

    Args:
        study: The study, with its pruner set.
        plan: What is searched, and how.
        context: The run that it works for.
        runner: Trains; may hold several trials at once.
        fallback: Makes a runner for so many trials at once, for when that for more fails.
        target: Finished trials the study shall have.
        baselines: Name -> a recipe's Optuna parameters or its schedule; they come first.
        checkpoints: Of the trials.
        device: Text for the record of each trial.
        tracker: Optuna callback that is told of every trial this worker ends.
        owner: Unique name of this worker.
    """

    study: optuna.Study
    plan: Plan
    context: Context
    runner: Runner
    fallback: Callable[[int], Runner]
    target: int
    baselines: Mapping[str, dict[str, Any] | Schedule]
    checkpoints: Checkpoints
    device: str
    tracker: Callable[[optuna.Study, FrozenTrial], None] | None = None
    owner: str = field(default_factory=new_owner)
    residents: dict[int, Resident] = field(default_factory=dict)
    endings: list[Ending] = field(default_factory=list)
    failures: int = 0
    uid: str | None = None
    tracker_thread: TrackerThread = field(init=False)

    def run(self) -> None:
        """Work until nothing is left to do.

        Raises:
            Interrupted: On Ctrl-C or SIGTERM, after the running trials were saved and handed back.
            LrsearchError: After several failing trials in a row.
        """
        self.uid = uid_of(self.context.storage, self.study._study_id)
        self.tracker_thread = TrackerThread(self.tracker, self.study, self.context.note)
        wait = FIRST_WAIT_SECONDS
        with Heartbeat(self.context.storage, self.owner), as_torch(), self.tracker_thread:
            try:
                while True:
                    self.context.interrupt.check()
                    self._fill()
                    if self.residents:
                        self._advance()
                        wait = FIRST_WAIT_SECONDS
                    elif self._others_at_work():
                        self.context.interrupt.sleep(wait)
                        wait = min(1.2 * wait, WAIT_SECONDS)
                    else:
                        self._tidy()
                        self.tracker_thread.finish(self.context.interrupt)
                        return
            except BaseException:
                self._hand_back()
                raise

    def _timed_out(self) -> bool:
        return self.context.time_is_up()

    def _others_at_work(self) -> bool:
        """Whether a trial may still come back to the queue, so that leaving now is too early."""
        if self._timed_out():
            return False
        return slots.count_running(self.context.storage, self.study._study_id, self.target) > 0

    # ask

    def _fill(self) -> None:
        """Take trials until the runner is full or none is left."""
        with cache_of(self.study).frozen():
            while (free := self._free()) > 0 and not self._timed_out():
                claims = slots.claim_some(
                    self.context.storage,
                    self.study._study_id,
                    self.target,
                    self.owner,
                    free,
                    suspects=not self.residents,
                )
                if not claims:
                    return
                for claim, trial in self._ask(claims):
                    resumed = claim.trial_id is not None
                    self._admit(trial, resumed=resumed, alone=claim.suspect)

    def _free(self) -> int:
        """How many more trials may come in now."""
        alone = any(resident.alone for resident in self.residents.values())
        return 0 if alone else self.runner.capacity - len(self.residents)

    def _ask(self, claims: Sequence[Claim]) -> list[tuple[Claim, FrozenTrial]]:
        """The trials of some slots, with their parameters."""
        asker = Asker(self.study, self.context.storage, self.plan, self.baselines)
        asked, impossible = asker.trials(claims)
        for trial_id, error in impossible:
            self._fail(trial_id, error)
        return asked

    def _admit(self, trial: FrozenTrial, *, resumed: bool, alone: bool) -> None:
        """Start a trial, or go on with one from its checkpoint."""
        now = time.monotonic()
        key = trial._trial_id
        state = self.checkpoints.read(trial) if resumed else None
        if resumed:
            epoch = 0 if state is None else int(state["epoch"])
            history.forget_epochs(self.context.storage, key, epoch)
            for step in [s for s in trial.intermediate_values if s > epoch]:
                del trial.intermediate_values[step]
        try:
            schedule = Schedule.from_dict(trial.user_attrs["schedule"])
            self.runner.add(key, schedule, state)
            self.residents[key] = Resident(trial, now, now, alone)
        except Exception as error:  # noqa: BLE001 - a user's family or model may raise anything
            self._fail(key, error)

    # train, report, prune, tell

    def _advance(self) -> None:
        """One epoch (to the next validation) of every resident trial."""
        try:
            with self.context.interrupt.may_break():
                results = self.runner.epoch()
        except Interrupted:
            raise
        except Exception as error:  # noqa: BLE001 - the user's model may raise anything
            if self.runner.capacity == 1:
                self._fail(next(iter(self.residents)), error)
                return
            many, reason = isinstance(error, torch.OutOfMemoryError), brief(error)
        else:
            self._record(results)
            return
        # Out here the error is gone, and what its traceback kept of the failed step.
        self._unfuse(reason, self.runner.capacity // 2 if many else 1)

    def _record(self, results: Mapping[int, EpochResult]) -> None:
        lost = history.record_epochs(self.context.storage, list(results.items()), owner=self.owner)
        if lost and uid_of(self.context.storage, self.study._study_id) != self.uid:
            self.residents.clear()  # a study that is made next on SQLite has the same numbers
            raise LrsearchError(f"study {self.study.study_name!r} was deleted; start it again")
        with cache_of(self.study).frozen():
            for key, result in results.items():
                self._judge(key, result, lost=key in lost)
        self._tell()

    def _judge(self, key: int, result: EpochResult, *, lost: bool) -> None:
        """Finish a trial, or let it go on."""
        resident = self.residents[key]
        resident.last = result
        if lost:
            self.context.note(f"trial {resident.trial.number} was taken over by another worker")
            self._drop(key)
            return
        value = DIVERGED_LOSS if result.diverged else result.val_loss
        resident.trial.intermediate_values[result.epoch] = value
        self.failures = 0
        if result.diverged or result.epoch >= self.plan.epochs:
            state = TrialState.PRUNED if result.diverged else TrialState.COMPLETE
            self._finish(key, state, "diverged" if result.diverged else "completed")
            self._tell()  # those that are judged after it look at what it came to
        elif self._should_prune(resident):
            self._finish(key, TrialState.PRUNED, "pruned")
        elif self.checkpoints.due(resident.saved, len(self.residents)):
            self._save(key)

    def _should_prune(self, resident: Resident) -> bool:
        if "baseline" in resident.trial.user_attrs:
            return False  # the answer is "how much better than the usual recipe"
        if isinstance(self.study.pruner, (SuccessiveHalvingPruner, HyperbandPruner)):
            # They note on the stored trial which rungs it has passed.
            attrs = self.context.storage.get_trial_system_attrs(resident.trial._trial_id)
            resident.trial.system_attrs = attrs
        return self.study.pruner.prune(self.study, resident.trial)

    def _finish(self, key: int, state: TrialState, stopped: str) -> None:
        resident = self.residents[key]
        result = resident.last
        assert result is not None
        value = DIVERGED_LOSS if result.diverged else result.val_loss
        attrs: dict[str, Any] = {
            "stopped": stopped,
            "epochs": result.epoch,
            "seconds": round(time.monotonic() - resident.started, 3),
            "device": self.device,
        }
        if not result.diverged:
            attrs["val_metric"] = as_number(result.val_metric)  # NaN is none
            attrs["avg_val_loss"] = result.avg_val_loss
        self.study.sampler.after_trial(self.study, resident.trial, state, [value])
        self.endings.append(Ending(key, state, value, attrs))
        self._drop(key)

    def _tell(self) -> None:
        """Store the endings that are not yet stored."""
        endings, self.endings = self.endings, []
        mine = trials.finish_all(self.context.storage, endings, self.owner)
        for key in (ending.trial_id for ending in endings if ending.trial_id in mine):
            self.checkpoints.forget(key)
            self.tracker_thread.add(key)

    def _fail(self, key: int, error: Exception) -> None:
        """Record a trial that raised; several in a row end the study."""
        resident = self.residents.get(key)
        text = f"{type(error).__name__}: {error}"[:2000]
        attrs = {
            "stopped": "failed",
            "error": text,
            "traceback": "".join(traceback.format_exception(error))[-4000:],
            "device": self.device,
        }
        ending = Ending(key, TrialState.FAIL, None, attrs)
        mine = trials.finish_all(self.context.storage, [ending], self.owner)
        if resident is not None:
            self._drop(key)
        self.failures += 1
        number = self.context.storage.get_trial(key).number
        self.context.note(f"trial {number} failed: {text.splitlines()[0]}")
        if mine:  # and not of a worker that has taken it over
            self.checkpoints.forget(key)
            self.tracker_thread.add(key)
        if self.failures >= FAILURES_IN_A_ROW:
            raise LrsearchError(
                f"{self.failures} trials in a row failed, the last with {text.splitlines()[0]}. "
                "Mend the cause, then run the same command again"
            ) from error

    def _unfuse(self, reason: str, count: int) -> None:
        """The stacked model failed: go on with the same trials, ``count`` at a time."""
        fewer = "one trial" if count == 1 else f"{count} trials"
        self.context.note(f"fused training failed ({reason}); going on with {fewer} at a time")
        slots.release(self.context.storage, self.owner)
        self.residents.clear()
        del self.runner  # the other may need its memory
        self.runner = self.fallback(count)

    def _drop(self, key: int) -> None:
        del self.residents[key]
        self.runner.remove(key)

    # saving

    def _save(self, key: int) -> None:
        resident, began = self.residents[key], time.monotonic()
        state = self.runner.state(key)
        recorded = 0 if resident.last is None else resident.last.epoch
        if int(state["epoch"]) != recorded or recorded >= self.plan.epochs:
            return  # going on from there would leave a gap in the history: the older file stays
        self.checkpoints.write(key, state)
        resident.saved = time.monotonic()
        self.checkpoints.seconds = resident.saved - began

    def _hand_back(self) -> None:
        """Save what stands at an epoch's end and give all trials back to the queue."""
        try:
            if not self.context.interrupt.broke:
                for key in self.residents:
                    self._save(key)
        except LrsearchError as error:
            self.context.note(str(error))
        except Exception as error:  # noqa: BLE001 - a device that failed may not be read any more
            self.context.note(f"the running trials could not be saved ({brief(error)})")
        try:
            slots.release(self.context.storage, self.owner)
        except LrsearchError as error:  # others take them when our heart has stopped
            self.context.note(f"the running trials could not be handed back: {error}")

    def _tidy(self) -> None:
        """Remove what workers that were killed left of trials that have ended."""
        ended = {
            t._trial_id for t in self.study.get_trials(deepcopy=False) if t.state.is_finished()
        }
        running = slots.count_running(self.context.storage, self.study._study_id)
        self.checkpoints.tidy(ended, half_written=not running)
