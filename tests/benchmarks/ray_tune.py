"""The same search with Ray Tune: OptunaSearch proposes, ASHA stops, one trial per core at a time.

    python -m tests.benchmarks.ray_tune --task digits --trials 200

Needs ``python -m pip install 'ray[tune]'``. Model, data, search space and training loop are those
of :mod:`tests.benchmarks.plain_optuna`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
import warnings
from functools import partial
from typing import Any

import optuna
import psutil
import ray
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from torch import nn, optim

from lrsearch.tasks import load_task
from tests.benchmarks.plain_optuna import loaders, suggest_scheduler, train_epoch, validate


def trainable(config: dict[str, Any], settings: dict[str, Any]) -> None:
    """Train one model with one schedule, reporting after every validation."""
    torch.manual_seed(settings["seed"])
    torch.set_num_threads(1)
    task = load_task(
        settings["task"], data_dir=settings["data_dir"], train_samples=settings["train_samples"]
    )
    train, valid = loaders(task)
    device = torch.device("cpu")
    model = task.model().to(device)
    rule = getattr(optim, task.optimizer)
    optimizer = rule(model.parameters(), lr=config["lr"], **task.optimizer_args)
    epochs = settings["epochs"] or task.epochs
    scheduler, interval = suggest_scheduler(
        optuna.trial.FixedTrial(config), optimizer, config["lr"], epochs, len(train)
    )
    for epoch in range(epochs):
        train_epoch(task, model, train, optimizer, scheduler, interval, device)
        if (epoch + 1) % task.validate_every and epoch + 1 < epochs:
            continue
        loss, _ = validate(task, model, valid, device)
        if interval == "loss":
            scheduler.step(loss)
        tune.report({"loss": loss, "epoch": epoch + 1})


def suggest(trial: optuna.Trial, lr_range: tuple[float, float], epochs: int, steps: int) -> None:
    """The plain script's search space, defined by running it."""
    lr = trial.suggest_float("lr", *lr_range, log=True)
    dummy = optim.SGD(nn.Linear(1, 1).parameters(), lr=lr, momentum=0.9)
    suggest_scheduler(trial, dummy, lr, epochs, steps)


class Meter(threading.Thread):
    """CPU seconds and memory of this process and all that it started, Ray's own included."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seconds: dict[int, float] = {}
        self.memory = 0.0
        self.over = threading.Event()

    def run(self) -> None:
        """Look every 0.2 s, until stopped."""
        while not self.over.wait(0.2):
            self.look()

    def look(self) -> None:
        """Add up what is alive; of what has ended the last sight counts."""
        resident = 0
        mine = psutil.Process()
        for process in [mine, *mine.children(recursive=True)]:
            try:
                times = process.cpu_times()
                resident += process.memory_info().rss - process.memory_info().shared
            except psutil.Error:
                continue
            self.seconds[process.pid] = times.user + times.system
        self.memory = max(self.memory, resident / 2**20)


def main() -> None:
    """Run the search and print what it did as one JSON object."""
    parser = argparse.ArgumentParser(description="Ray Tune, to compare with.")
    parser.add_argument("--task", default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--train-samples", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    args = parser.parse_args()
    began = time.time()
    meter = Meter()
    meter.start()
    warnings.simplefilter("ignore")
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    settings = vars(args) | {"data_dir": args.data_dir and os.path.abspath(args.data_dir)}
    task = load_task(args.task, data_dir=args.data_dir, train_samples=args.train_samples)
    epochs = args.epochs or task.epochs
    ray.init(
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
    )
    tuner = tune.Tuner(
        tune.with_parameters(trainable, settings=settings),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(
                space=partial(
                    suggest, lr_range=task.lr_range, epochs=epochs, steps=task.steps_per_epoch
                ),
                metric="loss",
                mode="min",
                sampler=optuna.samplers.TPESampler(seed=args.seed),
            ),
            scheduler=ASHAScheduler(
                time_attr="epoch", metric="loss", mode="min", max_t=epochs, grace_period=1
            ),
            num_samples=args.trials,
            max_concurrent_trials=os.cpu_count(),
            reuse_actors=True,  # not its default, which imports torch anew for every trial
        ),
        run_config=tune.RunConfig(storage_path=os.path.abspath(args.folder), verbose=0),
    )
    results = tuner.fit()
    meter.over.set()
    meter.look()
    done = [result.metrics for result in results if result.metrics and "loss" in result.metrics]
    history: list[tuple[float, float]] = []
    for metrics in sorted(done, key=lambda m: m["timestamp"]):
        full = metrics["epoch"] >= epochs
        if full and (not history or metrics["loss"] < history[-1][1]):
            history.append((metrics["timestamp"] - began, metrics["loss"]))
    told = {
        "cpu": sum(meter.seconds.values()),
        "memory": meter.memory,
        "epochs": sum(metrics["epoch"] for metrics in done),
        "trials": len(done),
        "best": history[-1][1] if history else float("nan"),
        "history": history,
    }
    ray.shutdown()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
