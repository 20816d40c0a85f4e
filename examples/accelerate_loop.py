"""A training loop with Hugging Face accelerate, searched by Optuna.

Build the schedule on the plain optimizer, before accelerate prepares it, and do not prepare the
scheduler: a prepared one is stepped once for every process.

    pip install accelerate
    python examples/accelerate_loop.py
"""

import optuna
import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import lrsearch

EPOCHS = 4
pixels, labels = load_digits(return_X_y=True)
x, y = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)
accelerator = Accelerator()


def objective(trial: optuna.Trial) -> float:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader = DataLoader(TensorDataset(x[:1200], y[:1200]), batch_size=64, shuffle=True)
    validation = DataLoader(TensorDataset(x[1200:1500], y[1200:1500]), batch_size=300)
    loader, validation, model = accelerator.prepare(loader, validation, model)
    schedule = lrsearch.suggest(trial, EPOCHS, lr=(1e-3, 2.0))
    # Not prepared: accelerate would step it once for each process. len(loader) is per process.
    scheduler = schedule.build(optimizer, steps_per_epoch=len(loader))
    optimizer = accelerator.prepare(optimizer)
    pruning = lrsearch.PruningCallback(trial)
    for _ in range(EPOCHS):
        model.train()
        for inputs, targets in loader:
            optimizer.zero_grad()
            accelerator.backward(F.cross_entropy(model(inputs), targets))
            optimizer.step()
            scheduler.step()
        model.eval()
        with torch.no_grad():
            (val_loss,) = (F.cross_entropy(model(xs), ys).item() for xs, ys in validation)
        pruning(val_loss)
    return val_loss


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name="accelerate", sampler=lrsearch.TraceSampler(), pruner=lrsearch.SchedulePruner()
    )
    study.optimize(objective, n_trials=8)
    print(lrsearch.report(study))
