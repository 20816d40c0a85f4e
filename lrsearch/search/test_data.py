"""The test split, which ``confirm`` and ``train`` alone look at."""

from __future__ import annotations

from lrsearch.search.plan import Plan
from lrsearch.tasks.check import load_test
from lrsearch.training.evaluation import evaluate
from lrsearch.training.runner import Runner


class TestData:
    """The test split of a task."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._data = load_test(plan.task, plan.device)

    def __call__(self, runner: Runner, key: int, seed: int) -> dict[str, float]:
        """``test_loss`` and ``test_metric`` of a model; nothing for a task without test data."""
        plan = self._plan
        if self._data is None:
            return {}
        loss, metric = evaluate(
            plan.task,
            runner.weights(key),
            self._data,
            device=plan.device,
            precision=plan.choice.precision,
            unsaved=runner.unsaved(key),
            seed=seed,
        )
        return {"test_loss": loss} | ({} if metric is None else {"test_metric": metric})
