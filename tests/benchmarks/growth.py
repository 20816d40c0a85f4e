"""What one ask, report, prune and tell cost as a study grows, on SQLite and PostgreSQL.

A study of random schedules from the whole space is filled with finished trials (half of them
pruned), then the calls of the worker loop are timed in a process that has read it once, next to
what Optuna's own ``study.ask``, ``trial.report`` and ``study.tell`` cost there.

    python -m tests.benchmarks.growth --sizes 10,100,1000,10000 -o growth.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.storages._rdb.models import TrialIntermediateValueModel, TrialValueModel
from optuna.trial import TrialState
from sqlalchemy import insert

from lrsearch.schedules import Space
from lrsearch.search.ask import Draft
from lrsearch.search.methods import PRUNERS, set_sampler
from lrsearch.search.progress import read_progress
from lrsearch.storage import Storage, history, new_owner, open_storage, slots, trials
from lrsearch.storage.cache import Cache, cache_of
from lrsearch.storage.schema import (
    HISTORY,
    INTERMEDIATE,
    PARAMS,
    SLOTS,
    TRIAL_VALUES,
    TRIALS,
    USER_ATTRIBUTES,
)
from tests.servers import Postgres
from tests.storage_worker import Result

EPOCHS = 30
SPACE = Space(families=None, epochs=EPOCHS, lr=(1e-3, 1.0))
FUSED = 16


def fill(storage: Storage, study: optuna.Study, start: int, stop: int) -> None:
    """Finished trials ``start`` to ``stop - 1``, as a real run leaves them."""
    rng = np.random.default_rng(start)
    source = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=start))
    finite = TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
    for first in range(start, stop, 500):
        numbers = range(first, min(first + 500, stop))
        rows: dict[Any, list[dict[str, Any]]] = {
            t: [] for t in (PARAMS, USER_ATTRIBUTES, HISTORY, INTERMEDIATE, TRIAL_VALUES, SLOTS)
        }
        with storage.engine.begin() as connection:
            for number in numbers:
                drawn = source.ask()
                schedule = SPACE.suggest(drawn)
                pruned = rng.random() < 0.5
                epochs = int(rng.integers(3, 15)) if pruned else EPOCHS
                state = TrialState.PRUNED if pruned else TrialState.COMPLETE
                made = connection.execute(
                    insert(TRIALS).values(study_id=study._study_id, number=number, state=state)
                )
                assert made.inserted_primary_key is not None
                key = made.inserted_primary_key[0]
                rows[PARAMS] += [
                    {
                        "trial_id": key,
                        "param_name": name,
                        "param_value": drawn.distributions[name].to_internal_repr(value),
                        "distribution_json": distribution_to_json(drawn.distributions[name]),
                    }
                    for name, value in drawn.params.items()
                ]
                attrs = {
                    "schedule": schedule.to_dict(),
                    "stopped": "pruned" if pruned else "completed",
                    "epochs": epochs,
                    "val_metric": 0.5,
                    "avg_val_loss": 0.5,
                    "seconds": 1.5,
                    "device": "cpu",
                }
                rows[USER_ATTRIBUTES] += [
                    {"trial_id": key, "key": k, "value_json": json.dumps(v)}
                    for k, v in attrs.items()
                ]
                losses = rng.random() + 1 / np.arange(1, epochs + 1)
                for epoch, loss in enumerate(losses.tolist(), 1):
                    values = dict.fromkeys(history._VALUES, loss)
                    rows[HISTORY].append({"trial_id": key, "epoch": epoch, **values})
                    rows[INTERMEDIATE].append(
                        {
                            "trial_id": key,
                            "step": epoch,
                            "intermediate_value": loss,
                            "intermediate_value_type": finite,
                        }
                    )
                rows[TRIAL_VALUES].append(
                    {
                        "trial_id": key,
                        "objective": 0,
                        "value": float(losses[-1]),
                        "value_type": TrialValueModel.TrialValueType.FINITE,
                    }
                )
                rows[SLOTS].append(
                    {
                        "study_id": study._study_id,
                        "slot": number,
                        "trial_id": key,
                        "owner": "x",
                        "beat": 0.0,
                        "epoch": epochs,
                        "finished": 1,
                    }
                )
            for table, values in rows.items():
                connection.execute(insert(table), values)


def milliseconds(call: Callable[[], object], repeats: int) -> float:
    """Median of ``repeats`` calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return round(1000 * statistics.median(times), 3)


def measure(url: str, size: int, repeats: int) -> dict[str, float]:
    """All calls at one size of the study."""
    storage = open_storage(url)
    start = time.perf_counter()
    study = optuna.load_study(study_name="growth", storage=Cache(storage))
    study.get_trials(deepcopy=False)
    found = {"join (s)": round(time.perf_counter() - start, 3)}
    target = 10**9
    owner = new_owner()
    study_id = study._study_id
    claims: list[slots.Claim] = []
    running: list[int] = []

    def claim() -> None:
        claims.extend(slots.claim_some(storage, study_id, target, owner, 1))

    def ask(sampler: str) -> None:
        claim()
        claimed = claims[-1]
        trial = trials.start_trials(storage, [claimed])[claimed.slot]
        set_sampler(study, sampler, 0, claimed.slot)
        trial.user_attrs["schedule"] = SPACE.suggest(Draft(study, trial)).to_dict()
        trials.fill_trials(storage, [trial])
        running.append(trial._trial_id)

    for name in ("random", "trace", "tpe"):
        found[f"ask, {name}"] = milliseconds(lambda name=name: ask(name), repeats)  # type: ignore[misc]
    while len(running) < FUSED:
        ask("random")
    epoch = itertools.cycle(range(1, 11))

    def report(count: int) -> None:
        result = Result(next(epoch))
        history.record_epochs(storage, [(key, result) for key in running[:count]], owner=owner)

    found["report, 1 trial"] = milliseconds(lambda: report(1), repeats)
    found[f"report, each of {FUSED}"] = round(
        milliseconds(lambda: report(FUSED), repeats) / FUSED, 3
    )

    def finish() -> None:
        key = running.pop()
        attrs = {"stopped": "completed", "epochs": 3, "seconds": 1.0, "device": "cpu"}
        finish(storage, key, TrialState.PRUNED, 0.5, attrs, owner=owner)

    for name in ("schedule", "median", "asha"):
        pruner = PRUNERS[name](EPOCHS)
        times = []
        for _ in range(5):
            finish()  # something new to learn from
            while len(running) < FUSED:
                ask("random")
            for at in range(1, 11):
                result = Result(at)
                rows = [(key, result) for key in running]
                history.record_epochs(storage, rows, owner=owner)
            judged = [storage.get_trial(key) for key in running]
            start = time.perf_counter()
            with cache_of(study).frozen():
                for trial in judged:
                    pruner.prune(study, trial)
            times.append((time.perf_counter() - start) / FUSED)
        found[f"prune, {name}, each of {FUSED}"] = round(1000 * statistics.median(times), 3)
    found["display"] = milliseconds(lambda: read_progress(study, target, EPOCHS), min(repeats, 5))
    found["tell"] = milliseconds(finish, min(repeats, FUSED))
    found["history of all (s)"] = round(
        milliseconds(lambda: history.load_history(storage, study_id), 1) / 1000, 3
    )
    while running:
        finish()

    theirs: list[optuna.Trial] = []
    set_sampler(study, "tpe", 0, 0)

    def their_ask() -> None:
        theirs.append(study.ask())
        SPACE.suggest(theirs[-1])

    found["Optuna ask, tpe"] = milliseconds(their_ask, min(repeats, 10))
    steps = iter(range(1, 10_000))
    found["Optuna report"] = milliseconds(lambda: theirs[0].report(0.5, next(steps)), repeats)
    found["Optuna tell"] = milliseconds(lambda: study.tell(theirs.pop(), 0.5), len(theirs))
    storage.close()
    return found


def run(url: str, sizes: list[int], repeats: int) -> dict[str, dict[str, float]]:
    """One database through all sizes; every size starts from a fresh copy of the study."""
    results = {}
    for size in sizes:
        storage = open_storage(url)
        for known in storage.get_all_studies():
            optuna.delete_study(study_name=known.study_name, storage=storage)
        study = optuna.create_study(storage=storage, study_name="growth")
        fill(storage, study, 0, size)
        if storage.engine.dialect.name == "postgresql":
            with storage.engine.connect() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql(
                    "ANALYZE"
                )
        storage.close()
        results[str(size)] = measure(url, size, repeats)
        print(storage.engine.dialect.name, size, json.dumps(results[str(size)]), flush=True)
    return results


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """The results as Markdown; milliseconds unless a row says seconds."""
    columns = [(name, size) for name, by_size in results.items() for size in by_size]
    rows = list(next(iter(next(iter(results.values())).values())))
    lines = [
        "| ms | " + " | ".join(f"{name} {int(size):,}" for name, size in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for row in rows:
        cells = (f"{results[name][size][row]:.3g}" for name, size in columns)
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="10,100,1000,10000")
    parser.add_argument("--databases", default="sqlite,postgresql")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("-o", "--output", help="write the record as JSON")
    args = parser.parse_args()
    sizes = [int(size) for size in args.sizes.split(",")]
    results = {}
    with tempfile.TemporaryDirectory(prefix="lrgrow") as folder:
        for name in args.databases.split(","):
            server = Postgres(Path(folder) / "pg") if name == "postgresql" else None
            try:
                url = server.new_database() if server else f"sqlite:///{folder}/growth.db"
                results[name] = run(url, sizes, args.repeats)
            finally:
                if server is not None:
                    server.end()
    versions = {"optuna": optuna.__version__, "sqlalchemy": sqlalchemy.__version__}
    record = {"machine": platform.platform(), "versions": versions, "results": results}
    if args.output:
        Path(args.output).write_text(json.dumps(record, indent=1), encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
