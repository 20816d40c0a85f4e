"""Studies that look like real ones and cost nothing: for reports, from 1 to 10,000 trials.

Losses follow a small model of training: the rate times its time buys progress, a high rate at the
end keeps the loss up, a rate far too high diverges; a median pruner stops trials on the way. So
mid-run losses mislead just as they do in real studies.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import optuna
import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from lrsearch.divergence import DIVERGED_LOSS

Rng = np.random.Generator
START = datetime(2026, 11, 20, 9, 30)


@dataclass
class Fake:
    """One synthetic trial."""

    params: dict[str, Any]
    distributions: dict[str, BaseDistribution]
    schedule: dict[str, Any]
    lrs: np.ndarray  # (epochs,)
    losses: np.ndarray  # (epochs run,)
    state: TrialState = TrialState.COMPLETE
    stopped: str = "completed"
    baseline: str | None = None
    attrs: dict[str, Any] = field(default_factory=dict)


def _fraction(low: float, high: float, log: bool = False) -> FloatDistribution:
    return FloatDistribution(low, high, log=log)


FAMILIES: dict[str, Callable[[int], dict[str, BaseDistribution]]] = {
    "ConstantLR": lambda n: {},
    "StepLR": lambda n: {
        "step_size": IntDistribution(max(1, n // 6), max(1, n // 2)),
        "gamma": _fraction(0.05, 0.8, log=True),
    },
    "MultiStepLR": lambda n: {
        "first": _fraction(0.2, 0.6),
        "second": _fraction(0.6, 0.95),
        "gamma": _fraction(0.05, 0.5, log=True),
    },
    "ExponentialLR": lambda n: {"final_ratio": _fraction(1e-4, 0.5, log=True)},
    "LinearLR": lambda n: {"end_factor": _fraction(0.0, 0.1)},
    "PolynomialLR": lambda n: {"power": _fraction(0.5, 4)},
    "CosineAnnealingLR": lambda n: {
        "T_max": IntDistribution(max(1, n // 2), n),
        "eta_min_ratio": _fraction(1e-5, 1e-1, log=True),
    },
    "OneCycleLR": lambda n: {
        "pct_start": _fraction(0.1, 0.45),
        "div_factor": _fraction(5, 50, log=True),
    },
    "LambdaLR": lambda n: {
        "function": CategoricalDistribution(("inverse_sqrt", "trapezoid", "rex")),
        "decay": _fraction(0.1, 0.6),
    },
    "ReduceLROnPlateau": lambda n: {
        "factor": _fraction(0.1, 0.5),
        "patience": IntDistribution(1, max(1, n // 7)),
    },
}
BASELINES = ("ConstantLR", "StepLR", "CosineAnnealingLR", "OneCycleLR")
NAMES = {"ConstantLR": "constant"}


def curve(family: str, own: dict[str, Any], n: int, warmup: int) -> np.ndarray:
    """Shape of the rate over the epochs, (n,), peak 1."""
    m = max(1, n - warmup)
    t = np.arange(m)
    f = t / m
    if family == "StepLR":
        shape = own["gamma"] ** (t // own["step_size"])
    elif family == "MultiStepLR":
        shape = own["gamma"] ** ((f >= own["first"]).astype(float) + (f >= own["second"]))
    elif family == "ExponentialLR":
        shape = own["final_ratio"] ** f
    elif family == "LinearLR":
        shape = 1 - (1 - own["end_factor"]) * f
    elif family == "PolynomialLR":
        shape = (1 - f) ** own["power"]
    elif family == "CosineAnnealingLR":
        low = own["eta_min_ratio"]
        shape = low + (1 - low) * (1 + np.cos(np.pi * np.minimum(1, t / own["T_max"]))) / 2
    elif family == "OneCycleLR":
        p, low = own["pct_start"], 1 / own["div_factor"]
        up = low + (1 - low) * (1 - np.cos(np.pi * np.minimum(1, f / p))) / 2
        shape = np.where(f < p, up, (1 + np.cos(np.pi * (f - p) / (1 - p))) / 2)
    elif family == "LambdaLR":
        d = own["decay"]
        shape = {
            "inverse_sqrt": (1 + t) ** -0.5,
            "trapezoid": np.minimum(1, (1 - f) / d),
            "rex": (1 - f) / (0.5 + 0.5 * (1 - f)),
        }[own["function"]]
    elif family == "ReduceLROnPlateau":
        shape = own["factor"] ** np.floor(t / (4 * own["patience"]))
    else:
        shape = np.ones(m)
    ramp = np.linspace(0.1, 1, warmup + 1)[:-1] if warmup else np.array([])
    return np.concatenate([ramp, shape])[:n]


def losses_of(lrs: np.ndarray, warmup: int, rng: Rng, limit: float = 0.6) -> np.ndarray:
    """Validation loss per epoch, (n,); infinite from the epoch at which it diverges."""
    peak = lrs.max()
    progress = np.cumsum(np.minimum(lrs, 0.4)) * 30 / len(lrs)
    noise = rng.normal(0, 0.012, len(lrs)) * (0.3 + lrs / 0.1)
    loss = 0.36 + 1.9 * np.exp(-1.6 * np.sqrt(progress)) + 0.5 * np.sqrt(lrs) + noise
    loss = np.maximum(loss, 0.05) + rng.normal(0, 0.004)
    if peak > limit * (1 + 0.4 * (warmup > 0)) * rng.uniform(0.75, 1.6):
        loss[int(rng.integers(0, max(1, len(lrs) // 4))) :] = np.inf
    return loss


def draw(
    rng: Rng, n: int, families: Sequence[str], family: str | None = None, best: Fake | None = None
) -> Fake:
    """One full trial, before pruning; near ``best`` if given, as a sampler comes to draw."""
    baseline = family is not None
    distributions: dict[str, BaseDistribution] = {
        "scheduler": CategoricalDistribution(tuple(families)),
        "lr": FloatDistribution(1e-3, 1.0, log=True),
        "warmup": IntDistribution(0, max(1, n // 10)),
    }
    follow = best is not None and rng.random() < 0.6
    if family is None:
        choices = list(families)
        stay = follow and best is not None and rng.random() < 0.5
        family = str(best.params["scheduler"]) if stay and best else str(rng.choice(choices))
    own_space = FAMILIES[family](n)
    lr = 0.1 if baseline else float(10 ** rng.uniform(-3, 0))
    if follow and best:
        lr = float(np.clip(best.params["lr"] * 10 ** rng.normal(0, 0.25), 1e-3, 1.0))
    warmup = 0 if baseline else int(rng.integers(0, max(1, n // 10) + 1))
    own: dict[str, Any] = {}
    for key, dist in own_space.items():
        if isinstance(dist, FloatDistribution):
            u = 0.5 if baseline else rng.random()
            if dist.log:
                own[key] = float(math.exp(math.log(dist.low) * (1 - u) + math.log(dist.high) * u))
            else:
                own[key] = float(dist.low + u * (dist.high - dist.low))
        elif isinstance(dist, IntDistribution):
            own[key] = dist.high if baseline else int(rng.integers(dist.low, dist.high + 1))
        elif isinstance(dist, CategoricalDistribution):
            own[key] = dist.choices[0 if baseline else int(rng.integers(len(dist.choices)))]
        distributions[f"{family}.{key}"] = dist
    params = {"scheduler": family, "lr": lr, "warmup": warmup}
    params.update({f"{family}.{key}": value for key, value in own.items()})
    lrs = lr * curve(family, own, n, warmup)
    schedule = {
        "family": family,
        "lr": lr,
        "warmup": {"epochs": warmup, "fraction": warmup / n, "start_factor": 0.1},
        "params": own,
        "fractions": {},
        "interval": "step" if family == "OneCycleLR" else "epoch",
        "epochs": n,
    }
    losses = losses_of(lrs, warmup, rng)
    name = NAMES.get(family, family) if baseline else None
    return Fake(params, distributions, schedule, lrs, losses, baseline=name)


def fakes(
    trials: int,
    *,
    seed: int = 0,
    epochs: int = 20,
    families: Sequence[str] = tuple(FAMILIES),
    prune: bool = True,
    failed: int = 0,
) -> list[Fake]:
    """Trials as a search makes them: baselines first, then draws that close in on the best."""
    rng = np.random.default_rng(seed)
    baselines = [b for b in BASELINES if b in families]
    made: list[Fake] = []
    at_epoch: list[list[float]] = [[] for _ in range(epochs)]
    medians: list[float] = [math.inf] * epochs
    best: Fake | None = None
    for number in range(trials):
        family = baselines[number] if number < len(baselines) else None
        fake = draw(rng, epochs, families, family, best if number > 20 else None)
        for e, loss in enumerate(fake.losses):
            if not math.isfinite(loss):
                fake.losses = fake.losses[: e + 1]
                fake.state, fake.stopped = TrialState.PRUNED, "diverged"
                break
            at_epoch[e].append(float(loss))
            warm = prune and number >= 10 and e + 1 >= max(2, epochs // 5)
            if warm and e + 1 < epochs and not fake.baseline and loss > medians[e]:
                fake.losses = fake.losses[: e + 1]
                fake.state, fake.stopped = TrialState.PRUNED, "pruned"
                break
        if number % 10 == 9:
            medians = [float(np.quantile(v, 0.62)) if v else math.inf for v in at_epoch]
        complete = fake.state is TrialState.COMPLETE
        if complete and (best is None or fake.losses[-1] < best.losses[-1]):
            best = fake
        made.append(fake)
    for i in range(failed):
        bad = made[-1 - i]
        bad.state, bad.stopped = TrialState.FAIL, "failed"
        bad.attrs["error"] = "RuntimeError: CUDA out of memory"
    return made


def info(name: str, epochs: int, trials: int) -> dict[str, Any]:
    """The study's user attribute ``lrsearch``."""
    config = {
        "task": name, "model": None, "name": None, "trials": trials, "epochs": epochs,
        "schedules": None, "lr": [1e-3, 1.0], "seed": 0, "sampler": "tpe", "pruner": "median",
        "optimizer": {"name": "SGD", "momentum": 0.9}, "batch_size": 64,
        "storage": "sqlite:///lrsearch.db", "device": "auto", "precision": "auto",
    }  # fmt: skip
    versions = {"lrsearch": "0.1.0", "torch": "2.15.0", "optuna": "5.0.0", "python": "3.11.7"}
    return {"config": config, "identity": config, "versions": versions, "lr_range_test": None}


def make_study(
    trials: int = 120,
    *,
    name: str = "digits",
    seed: int = 0,
    epochs: int = 20,
    storage: RDBStorage | None = None,
    made: Sequence[Fake] | None = None,
    **options: Any,
) -> optuna.Study:
    """A study of synthetic trials, in memory or, with history, in a database.

    Args:
        made: Trials to store, instead of those of :func:`fakes`.
        options: Given to :func:`fakes`.
    """
    rows = made if made is not None else fakes(trials, seed=seed, epochs=epochs, **options)
    study = optuna.create_study(study_name=name, storage=storage, direction="minimize")
    study.set_user_attr("lrsearch", info(name, epochs, trials))
    rng = np.random.default_rng(seed)
    if storage is None:
        study.add_trials([_frozen(fake, i, rng) for i, fake in enumerate(rows)])
    else:
        _store(study._study_id, storage, rows, rng)
    return study


def _attrs(fake: Fake, rng: Rng) -> dict[str, Any]:
    whole = {"interval": "epoch", "epochs": len(fake.lrs), **fake.schedule}
    attrs: dict[str, Any] = {"schedule": whole, **fake.attrs, "stopped": fake.stopped}
    if fake.baseline:
        attrs["baseline"] = fake.baseline
    if fake.state in (TrialState.COMPLETE, TrialState.PRUNED):
        last = float(fake.losses[-1])
        attrs |= {"epochs": len(fake.losses), "device": "cpu", "seconds": 0.11 * len(fake.losses)}
        if math.isfinite(last):
            attrs |= {"val_metric": _metric(last), "avg_val_loss": last * 0.98}
    return attrs


def _metric(loss: float) -> float:
    return float(np.clip(math.exp(-0.55 * loss), 0, 1))


def _value(fake: Fake) -> float | None:
    if fake.state is TrialState.FAIL or fake.state in (TrialState.RUNNING, TrialState.WAITING):
        return None
    last = float(fake.losses[-1])
    return last if math.isfinite(last) else DIVERGED_LOSS


def _times(number: int, fake: Fake) -> tuple[datetime, datetime]:
    begin = START + timedelta(seconds=1.3 * number)
    return begin, begin + timedelta(seconds=0.11 * len(fake.losses))


def _frozen(fake: Fake, number: int, rng: Rng) -> optuna.trial.FrozenTrial:
    begin, end = _times(number, fake)
    steps = {
        e + 1: v if math.isfinite(v) else DIVERGED_LOSS
        for e, v in enumerate(map(float, fake.losses))
    }
    return optuna.trial.FrozenTrial(
        number=number, trial_id=-1, state=fake.state, value=_value(fake), values=None,
        datetime_start=begin, datetime_complete=end, params=fake.params,
        distributions=fake.distributions, user_attrs=_attrs(fake, rng), system_attrs={},
        intermediate_values=steps,
    )  # fmt: skip


def _store(study_id: int, storage: RDBStorage, rows: Sequence[Fake], rng: Rng) -> None:
    """All trials in one transaction: 10,000 in a few seconds."""
    from lrsearch.storage import schema

    with storage.engine.begin() as connection:
        highest = connection.execute(sa.select(sa.func.max(schema.TRIALS.c.trial_id))).scalar()
        tables: dict[Any, list[dict[str, Any]]] = {
            table: []
            for table in (
                schema.TRIALS, schema.TRIAL_VALUES, schema.PARAMS, schema.USER_ATTRIBUTES,
                schema.INTERMEDIATE, schema.HISTORY,
            )
        }  # fmt: skip
        for number, fake in enumerate(rows):
            key = {"trial_id": (highest or 0) + 1 + number}
            begin, end = _times(number, fake)
            tables[schema.TRIALS].append(
                {
                    **key, "number": number, "study_id": study_id, "state": fake.state,
                    "datetime_start": begin, "datetime_complete": end,
                }
            )  # fmt: skip
            value = _value(fake)
            if value is not None:
                tables[schema.TRIAL_VALUES].append(
                    {**key, "objective": 0, "value": value, "value_type": "FINITE"}
                )
            for name, param in fake.params.items():
                dist = fake.distributions[name]
                tables[schema.PARAMS].append(
                    {
                        **key, "param_name": name, "param_value": dist.to_internal_repr(param),
                        "distribution_json": distribution_to_json(dist),
                    }
                )  # fmt: skip
            for attr, content in _attrs(fake, rng).items():
                tables[schema.USER_ATTRIBUTES].append(
                    {**key, "key": attr, "value_json": json.dumps(content)}
                )
            for e, loss in enumerate(map(float, fake.losses)):
                ok = math.isfinite(loss)
                tables[schema.INTERMEDIATE].append(
                    {
                        **key, "step": e + 1, "intermediate_value": loss if ok else DIVERGED_LOSS,
                        "intermediate_value_type": "FINITE",
                    }
                )  # fmt: skip
                tables[schema.HISTORY].append(
                    {
                        **key, "epoch": e + 1, "lr": float(fake.lrs[e]), "seconds": 0.11,
                        "train_loss": loss * 0.9 if ok else None, "val_loss": loss if ok else None,
                        "val_metric": _metric(loss) if ok else None,
                        "avg_val_loss": loss * 0.98 if ok else None,
                        "avg_val_metric": _metric(loss * 0.98) if ok else None,
                    }
                )  # fmt: skip
        for table, cells in tables.items():
            if cells:
                connection.execute(table.insert(), cells)
