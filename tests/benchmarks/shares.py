"""Where the CPU seconds of a study go: imports, training, asking, pruning, storing, results.

python -m tests.benchmarks.shares --task digits --trials 200
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
import time
from typing import Any


class Meter:
    """CPU seconds of this thread inside some functions, each without those inside another."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner: list[float] = []

    def watch(self, owner: Any, name: str, label: str) -> None:
        """Count the calls of ``owner.name`` under a label."""
        real = getattr(owner, name)

        @functools.wraps(real)
        def watched(*args: Any, **options: Any) -> Any:
            began = time.thread_time()
            self._inner.append(0.0)
            try:
                return real(*args, **options)
            finally:
                spent = time.thread_time() - began
                own = spent - self._inner.pop()
                self.seconds[label] = self.seconds.get(label, 0.0) + own
                if self._inner:
                    self._inner[-1] += spent

        setattr(owner, name, watched)


def main() -> None:
    """Run one study in this process; print one JSON object."""
    parser = argparse.ArgumentParser(description="Where the CPU seconds of a study go.")
    parser.add_argument("--task", default="digits")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    from lrsearch.imports import uncollected

    with uncollected():
        from lrsearch.config import StudyConfig
        from lrsearch.search import run as module
        from lrsearch.search.pruning import SchedulePruner
        from lrsearch.search.sampling import TraceSampler
        from lrsearch.storage import history, slots, trials
        from lrsearch.storage.cache import Cache
        from lrsearch.training.ensemble import EnsembleRunner
    imports = time.process_time()
    meter = Meter()
    for owner, name, label in (
        (EnsembleRunner, "epoch", "training"),
        (EnsembleRunner, "add", "training"),
        (TraceSampler, "_draw", "sampling"),
        (SchedulePruner, "prune", "pruning"),
        (slots, "claim_some", "storing"),
        (trials, "start_trials", "storing"),
        (trials, "fill_trials", "storing"),
        (trials, "finish_all", "storing"),
        (history, "record_epochs", "storing"),
        (history, "load_history", "storing"),
        (Cache, "_read_trials_from_remote_storage", "storing"),
        (module, "open_storage", "storing"),
        (module, "write_results", "results"),
    ):
        meter.watch(owner, name, label)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"storage": f"sqlite:///{folder}/a.db", "out": folder, "workers": 1}
        module.run(
            StudyConfig(task=args.task, trials=args.trials, seed=args.seed, **settings)  # type: ignore[arg-type]
        )
    whole = time.process_time()
    parts = {"imports": imports, **meter.seconds}
    print(json.dumps({**parts, "the rest": whole - sum(parts.values())}))


if __name__ == "__main__":
    main()
