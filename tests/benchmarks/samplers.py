"""Samplers side by side, live: full trials through the search itself, no pruning.

    python -m tests.benchmarks.samplers --data-dir DIR --seeds 10 --write studies/sampling

All arms of one seed share initial weights, batch order and the four baselines; each proposes the
rest, with the same number of trials in flight. What is compared is the best value after so many
trials. A run that was stopped goes on where it was (``--raw FILE``).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from torch import nn

from lrsearch import config as configs
from lrsearch.search import methods
from lrsearch.search import study as studies
from lrsearch.search.context import Context
from lrsearch.search.interrupt import Interrupt
from lrsearch.search.make import make_worker
from lrsearch.search.plan import make_plan, with_lr_range
from lrsearch.storage import open_storage
from lrsearch.tasks import builtin, models
from lrsearch.tasks.task import Split, Task
from tests.benchmarks import record

Array = NDArray[np.float64]
CHECKS = (20, 40, 80)
"""Trials after which the best value is looked at."""
IN_FLIGHT = 8
RAW = "raw.jsonl"
SAMPLERS = {"trace": "trace", "random": "random", "tpe (group)": "tpe", "tpe": "tpe, no group"}
"""How an arm is called -> its name in ``lrsearch.search.methods.SAMPLERS``."""


def without_group(seed: int, draw: int) -> optuna.samplers.BaseSampler:
    """Optuna's default sampler: together what all trials have, and each alone what some have."""
    return optuna.samplers.TPESampler(seed=draw)


def digits(data_dir: Path) -> Task:
    """The built-in task, 20 epochs."""
    return replace(builtin.digits("mlp", data_dir, None), epochs=20)


def fashion(data_dir: Path) -> Task:
    """2,000 images of Fashion-MNIST at half the resolution, 10 epochs."""
    task = builtin.fashion_mnist("mlp", data_dir, 2000)
    return replace(
        task,
        model=partial(models.mlp, [196, 64, 10]),
        train=halved(task, task.train, 2000).flattened(),
        validation=halved(task, task.validation, 1000).flattened(),
        transform=None,
        epochs=10,
    )


def patches() -> nn.Sequential:
    """A convolution over patches of 4x4 and two linear layers: images 3x16x16 -> 10 logits."""
    layers = [nn.Conv2d(3, 24, 4, 4), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(24 * 16, 32), nn.ReLU(), nn.Linear(32, 10))


def cifar10(data_dir: Path) -> Task:
    """1,000 images of CIFAR-10 at half the resolution, a small convolutional net, 8 epochs."""
    task = builtin.cifar10("convnet", data_dir, 1000)
    return replace(
        task,
        model=patches,
        train=halved(task, task.train, 1000),
        validation=halved(task, task.validation, 1000),
        transform=None,
        augment=None,
        epochs=8,
    )


class Halved(Split):
    """Images at half the resolution."""

    def flattened(self) -> Split:
        """As vectors."""
        return Split(self.x.flatten(1), self.y)


def halved(task: Task, part: Any, most: int) -> Halved:
    """The first images of a split, normalised, at half the resolution."""
    assert task.transform is not None
    x = nn.functional.avg_pool2d(task.transform(part.x[:most]), 2)
    return Halved(x.contiguous(), part.y[:most])


TASKS: dict[str, Callable[[Path], Task]] = {
    "digits": digits,
    "fashion-mnist": fashion,
    "cifar10": cifar10,
}


@dataclass(frozen=True)
class Live:
    """What one study found.

    Attributes:
        values: Final loss of each trial in order of their numbers; infinite where it did not end.
        spent: Epochs of each trial.
        epochs: Of all trials together.
        cpu: CPU seconds of the study.
        lr: Range of the peak rate that was searched.
        winner: Schedule of the best trial.
    """

    values: list[float]
    spent: list[int]
    epochs: int
    cpu: float
    lr: tuple[float, float]
    winner: dict[str, Any]


def run_study(task: Task, seed: int, **settings: Any) -> Live:
    """One study in a database of its own, through the worker that ``lrsearch run`` has."""
    sampler = settings.pop("sampler", "trace")
    methods.SAMPLERS.setdefault("tpe, no group", without_group)
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        given = {"name": "s", "storage": f"sqlite:///{folder}/s.db", "seed": seed, "out": folder}
        given |= {"fuse": str(IN_FLIGHT), "workers": "1", "device": "cpu", "precision": "fp32"}
        config = configs.make({**given, "task": "digits", **settings})
        storage = open_storage(config.storage)
        plan = make_plan(config, task)
        study = studies.open_study(storage, config, plan.to_dict())
        study.pruner = methods.PRUNERS[config.pruner](plan.epochs)
        plan, _ = with_lr_range(plan, study, storage)
        plan = replace(plan, config=replace(plan.config, sampler=sampler))
        worker = make_worker(plan, study, Context(storage, Interrupt(), print))
        worker.run()
        trials = study.get_trials(deepcopy=False)
        ended = [t.value if t.state.name == "COMPLETE" else None for t in trials]
        cpu = time.process_time() - began
        spent = [int(t.user_attrs.get("epochs", 0)) for t in trials]
        winner = study.best_trial.user_attrs["schedule"]
        storage.engine.dispose()
    values = [float("inf") if value is None else float(value) for value in ended]
    return Live(values, spent, sum(spent), cpu, plan.space.lr, winner)


def runs(
    arms: Mapping[str, Mapping[str, Any]],
    tasks: Mapping[str, Task],
    seeds: int,
    trials: int,
    raw: Path,
) -> list[dict[str, Any]]:
    """Every arm on every task with every seed; those in ``raw`` are done.

    An arm is settings of a study; ``times`` in it: how many times ``trials`` it has.
    """
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in raw.read_text().splitlines()] if raw.exists() else []
    done = {(row["task"], row["arm"], row["seed"]) for row in rows}
    for seed in range(seeds):
        for name, task in tasks.items():
            for arm, settings in arms.items():
                if (name, arm, seed) in done:
                    continue
                given = dict(settings)
                count = trials * given.pop("times", 1)
                live = run_study(task, seed, trials=count, **given)
                rows.append({"task": name, "arm": arm, "seed": seed, **asdict(live)})
                with raw.open("a") as out:
                    out.write(json.dumps(rows[-1]) + "\n")
                print(
                    f"{name:14} seed {seed:2} {arm:22} best {min(live.values):.4f} "
                    f"{live.epochs:6,} epochs {live.cpu:6.1f} CPU s",
                    flush=True,
                )
    return [row for row in rows if row["arm"] in arms and row["seed"] < seeds]


def regrets(rows: Sequence[Mapping[str, Any]], trials: int) -> dict[tuple[str, str], Array]:
    """(task, arm) -> how much worse the best is after each trial, (seeds, trials).

    Relative to the best value that any arm found on that task with that seed, in all its trials.
    """
    lowest: dict[tuple[str, int], float] = {}
    for row in rows:
        key = (row["task"], row["seed"])
        lowest[key] = min(lowest.get(key, float("inf")), *row["values"][:trials])
    found: dict[tuple[str, str], list[Array]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        best = np.minimum.accumulate(np.array(row["values"][:trials]))
        least = lowest[row["task"], row["seed"]]
        found.setdefault((row["task"], row["arm"]), []).append((best - least) / abs(least))
    return {key: np.array(each) for key, each in found.items()}


def mean_se(values: Array) -> tuple[float, float]:
    """Mean and its standard error."""
    spread = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    return float(values.mean()), spread


def scaled(found: Mapping[tuple[str, str], Array], arm: str) -> Array:
    """Mean over the tasks of regret in units of random search's at the end, (seeds, trials)."""
    tasks = dict.fromkeys(task for task, _ in found)
    return np.mean(
        [found[task, arm] / found[task, "random"][:, -1].mean() for task in tasks], axis=0
    )


def table(found: Mapping[tuple[str, str], Array], checks: Sequence[int]) -> list[str]:
    """Markdown: a row for each arm; regret in percent after so many trials, by task and mean."""
    tasks = list(dict.fromkeys(task for task, _ in found))
    arms = list(dict.fromkeys(arm for _, arm in found))
    heads = [f"{task}, {n}" for task in (*tasks, "mean", "scaled") for n in checks]
    lines = [f"| regret % after | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for arm in arms:
        each = [found[task, arm] for task in tasks]
        each += [np.mean(each, axis=0), scaled(found, arm)]
        cells = [
            "{:.1f} ± {:.1f}".format(*(100 * v for v in mean_se(values[:, n - 1])))
            if i < len(each) - 1
            else "{:.0f} ± {:.0f}".format(*(100 * v for v in mean_se(values[:, n - 1])))
            for i, values in enumerate(each)
            for n in checks
        ]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return lines


def figure(found: Mapping[tuple[str, str], Array], path: Path) -> None:
    """Regret against trials, mean and standard error, a panel for each task and one for all."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    from lrsearch.report.style import PALETTE, figure_layout

    tasks = list(dict.fromkeys(task for task, _ in found))
    arms = list(dict.fromkeys(arm for _, arm in found))
    drawn = make_subplots(1, len(tasks) + 1, subplot_titles=[*tasks, "mean, scaled"])
    for i, task in enumerate([*tasks, None], 1):
        for arm, color in zip(arms, PALETTE, strict=False):
            values = 100 * (scaled(found, arm) if task is None else found[task, arm])
            mean, se = values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))
            x = np.arange(1, len(mean) + 1)[9:]
            around = np.concatenate([(mean + se)[9:], (mean - se)[9:][::-1]])
            drawn.add_scatter(
                x=np.concatenate([x, x[::-1]]), y=around, fill="toself", line_width=0,
                mode="lines", fillcolor=color, opacity=0.2, showlegend=False, row=1, col=i,
            )  # fmt: skip
            drawn.add_scatter(
                x=x, y=mean[9:], mode="lines", line_color=color, name=arm, legendgroup=arm,
                showlegend=i == 1, row=1, col=i,
            )  # fmt: skip
    layout = figure_layout()
    axis = [layout.pop("xaxis"), layout.pop("yaxis")][0]
    drawn.update_layout({**layout, "margin_t": 40, "margin_b": 90})
    drawn.update_xaxes(axis, title="trials")
    drawn.update_yaxes({**axis, "rangemode": "tozero"})
    drawn.update_yaxes(title="regret, %", row=1, col=1)
    drawn.update_layout(
        paper_bgcolor="white", plot_bgcolor="white", legend={"orientation": "h", "y": -0.25}
    )
    assert isinstance(drawn, go.Figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.write_image(path, width=300 * (len(tasks) + 1), height=380)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.samplers", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=TASKS)
    parser.add_argument("--samplers", nargs="*", default=list(SAMPLERS), choices=SAMPLERS)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=80)
    parser.add_argument("--raw", type=Path, default=Path(RAW))
    parser.add_argument("--write", type=Path, help="folder for README.md, record.json, figure")
    args = parser.parse_args(argv)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    if "random" not in args.samplers:
        parser.error("--samplers needs random, which the others are measured by")
    arms = {name: {"sampler": SAMPLERS[name], "pruner": "none"} for name in args.samplers}
    made = {name: TASKS[name](args.data_dir) for name in args.tasks}
    rows = runs(arms, made, args.seeds, args.trials, args.raw)
    found = regrets(rows, args.trials)
    lines = table(found, [n for n in CHECKS if n <= args.trials])
    print("\n".join(lines))
    if args.write:
        command = f"python -m tests.benchmarks.samplers --data-dir DIR --seeds {args.seeds}"
        record.write(args.write, "samplers", lines, rows, f"{command} --write {args.write}")
        figure(found, args.write / "samplers.svg")


if __name__ == "__main__":
    main(sys.argv[1:])
