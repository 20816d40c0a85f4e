"""A classification task of your own: a function that returns a ``lrsearch.Task``.

Copy this file, put in your model and data, and search:

    lrsearch run --task examples/classification.py:task --trials 40
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import lrsearch


def task() -> lrsearch.Task:
    pixels, labels = load_digits(return_X_y=True)
    x = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    y = torch.tensor(labels)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, validation, test = order.split([1200, 300, len(x) - 1500])
    return lrsearch.Task(
        name="own-digits",
        model=lambda: nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 64, 10)
        ),
        train=lrsearch.Split(x[train], y[train]),
        validation=lrsearch.Split(x[validation], y[validation]),
        test=lambda: lrsearch.Split(x[test], y[test]),  # only confirm and train look at it
        epochs=10,  # budget of one full trial
        lr=0.05,  # what you would have used: the baselines run at it
        lr_range=(1e-3, 1.0),
        optimizer_args={"momentum": 0.9, "weight_decay": 5e-4},
    )
