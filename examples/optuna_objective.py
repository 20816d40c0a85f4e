"""Your own training loop, unchanged, in an Optuna objective: ask, build, report.

It also shows what is optional: the loss of averaged weights as a second signal for the pruner, the
usual recipes as baselines, a report page, and the export of the answer.

    python examples/optuna_objective.py
"""

import optuna
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import lrsearch

EPOCHS = 8
pixels, labels = load_digits(return_X_y=True)
x, y = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)
train, x_val, y_val = TensorDataset(x[:1200], y[:1200]), x[1200:1500], y[1200:1500]


def objective(trial: optuna.Trial) -> float:
    torch.manual_seed(0)  # the same weights and batches for all trials: only the schedule differs
    loader = DataLoader(train, batch_size=64, shuffle=True)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = lrsearch.suggest(trial, EPOCHS, lr=(1e-3, 2.0))  # 1. ask
    scheduler = schedule.build(optimizer, steps_per_epoch=len(loader))  # 2. build
    pruning = lrsearch.PruningCallback(trial)  # 3. report: ends the trial where it is hopeless
    pruning.average(model, optimizer, len(loader))  # optional: a second signal for the pruner
    for _ in range(EPOCHS):
        model.train()
        for inputs, targets in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            scheduler.step()
        model.eval()
        with torch.no_grad():
            val_loss = F.cross_entropy(model(x_val), y_val).item()
            avg_val_loss = F.cross_entropy(pruning.averaged(x_val), y_val).item()
        pruning(val_loss, avg_val_loss=avg_val_loss)
    return val_loss


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name="own-loop",
        storage=lrsearch.open_storage("sqlite:///lrsearch.db"),  # or any of Optuna's
        load_if_exists=True,
        sampler=lrsearch.TraceSampler(),  # it takes what is searched from lrsearch.suggest
        pruner=lrsearch.SchedulePruner(),
    )
    lrsearch.enqueue_baselines(study, EPOCHS, usual_lr=0.1, lr=(1e-3, 2.0))  # the usual recipes
    study.optimize(objective, n_trials=16)
    result = lrsearch.report(study)
    print(result)
    print("see", *result.write("own-loop.html"))
    result.export("own-loop.yaml")  # lrsearch.load("own-loop.yaml").build(optimizer, ...)
