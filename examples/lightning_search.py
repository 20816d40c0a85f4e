"""A search with Lightning: the schedule in ``configure_optimizers``, pruning as a callback.

``configure`` gives Lightning the optimizer and the scheduler, with the interval it is stepped at.

    pip install "lrsearch[lightning]"
    python examples/lightning_search.py
"""

import logging

import lightning as L
import optuna
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import lrsearch
from lrsearch.integrations.lightning import PruningCallback, configure

EPOCHS = 4
pixels, labels = load_digits(return_X_y=True)
x, y = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)


class Digits(L.LightningModule):
    def __init__(self, schedule: lrsearch.Schedule) -> None:
        super().__init__()
        self.schedule = schedule
        self.network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        self.log("val_loss", F.cross_entropy(self.network(batch[0]), batch[1]))

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        return configure(self.schedule, optimizer, self.trainer)


def objective(trial: optuna.Trial) -> float:
    L.seed_everything(0, verbose=False)
    model = Digits(lrsearch.suggest(trial, EPOCHS, lr=(1e-3, 2.0)))
    trainer = L.Trainer(
        max_epochs=EPOCHS,
        callbacks=[PruningCallback(trial)],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    train = DataLoader(TensorDataset(x[:1200], y[:1200]), batch_size=64, shuffle=True)
    trainer.fit(model, train, DataLoader(TensorDataset(x[1200:1500], y[1200:1500]), 300))
    return trainer.callback_metrics["val_loss"].item()


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name="lightning", sampler=lrsearch.TraceSampler(), pruner=lrsearch.SchedulePruner()
    )
    study.optimize(objective, n_trials=8)
    result = lrsearch.report(study)
    print(result)
    print("see", *result.write("lightning.html"))
