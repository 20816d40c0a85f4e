"""What a user writes today: a plain Optuna script for one task, in the manner of Optuna's own.

DataLoader, torch.optim, a handful of torch's schedulers, MedianPruner, SQLite; nothing of lrsearch
but the task's data and model, so that both sides of the benchmark train the same thing.

    python -m tests.benchmarks.plain_optuna --task digits --trials 200 --storage sqlite:///a.db
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import optuna
import torch
from PIL import Image
from torch import nn, optim
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import transforms

from lrsearch.tasks import Split, Task, load_task

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Images(Dataset[tuple[Any, int]]):
    """As torchvision's CIFAR10: an array in memory, one PIL image and its transforms a sample."""

    def __init__(self, split: Split, transform: transforms.Compose) -> None:
        self.data = np.ascontiguousarray(split.x.numpy().transpose(0, 2, 3, 1))
        self.targets = split.y.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.data[index])), self.targets[index]


def loaders(task: Task) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Training and validation batches."""
    assert isinstance(task.train, Split)
    assert isinstance(task.validation, Split)
    train: Dataset[Any]
    valid: Dataset[Any]
    if task.train.x.dtype == torch.uint8:
        to_tensor = [transforms.ToTensor(), transforms.Normalize(CIFAR_MEAN, CIFAR_STD)]
        crop = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
        augment = crop if task.augment else []
        train = Images(task.train, transforms.Compose([*augment, *to_tensor]))
        valid = Images(task.validation, transforms.Compose(to_tensor))
    else:
        train = TensorDataset(task.train.x, task.train.y)
        valid = TensorDataset(task.validation.x, task.validation.y)
    return (
        DataLoader(train, batch_size=task.batch_size, shuffle=True, drop_last=True),
        DataLoader(valid, batch_size=task.batch_size, shuffle=False),
    )


def suggest_scheduler(
    trial: optuna.Trial, optimizer: optim.Optimizer, lr: float, epochs: int, steps: int
) -> tuple[Any, str]:
    """One of the schedulers a user would try, and when it is stepped."""
    name = trial.suggest_categorical(
        "scheduler",
        ["constant", "step", "multistep", "exponential", "cosine", "onecycle", "plateau"],
    )
    match name:
        case "step":
            size = trial.suggest_int("step_size", max(1, epochs // 6), max(1, epochs // 2))
            gamma = trial.suggest_float("step_gamma", 0.05, 0.8, log=True)
            return lr_scheduler.StepLR(optimizer, size, gamma), "epoch"
        case "multistep":
            first = trial.suggest_float("first_milestone", 0.3, 0.6)
            second = trial.suggest_float("second_milestone", 0.65, 0.95)
            gamma = trial.suggest_float("multistep_gamma", 0.05, 0.5, log=True)
            milestones = [round(first * epochs), round(second * epochs)]
            return lr_scheduler.MultiStepLR(optimizer, milestones, gamma), "epoch"
        case "exponential":
            ratio = trial.suggest_float("final_ratio", 1e-4, 0.5, log=True)
            return lr_scheduler.ExponentialLR(optimizer, ratio ** (1 / epochs)), "epoch"
        case "cosine":
            floor = lr * trial.suggest_float("eta_min_ratio", 1e-5, 1e-1, log=True)
            return lr_scheduler.CosineAnnealingLR(optimizer, epochs, floor), "epoch"
        case "onecycle":
            pct = trial.suggest_float("pct_start", 0.1, 0.45)
            return lr_scheduler.OneCycleLR(
                optimizer, max_lr=lr, total_steps=epochs * steps, pct_start=pct
            ), "step"
        case "plateau":
            factor = trial.suggest_float("factor", 0.1, 0.5)
            patience = trial.suggest_int("patience", 1, max(1, epochs // 7))
            return lr_scheduler.ReduceLROnPlateau(
                optimizer, factor=factor, patience=patience
            ), "loss"
    return None, "never"


def train_epoch(
    task: Task,
    model: nn.Module,
    train: DataLoader[Any],
    optimizer: optim.Optimizer,
    scheduler: Any,
    interval: str,
    device: torch.device,
) -> None:
    """One pass over the training samples."""
    model.train()
    for x, y in train:
        x, y = x.to(device), y.to(device)
        optimizer.zero_grad()
        loss = task.loss(model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if interval == "step":
            scheduler.step()
    if interval == "epoch":
        scheduler.step()


def validate(
    task: Task, model: nn.Module, valid: DataLoader[Any], device: torch.device
) -> tuple[float, float]:
    """Validation loss and accuracy (0 where the task has none)."""
    model.eval()
    total, correct, count = 0.0, 0, 0
    with torch.no_grad():
        for x, y in valid:
            x, y = x.to(device), y.to(device)
            output = model(x)
            if task.validation_loss is not None:
                total += task.validation_loss(output, y).item()
            else:
                total += task.loss(output, y).item() * len(y)
            if y.dim() == 1:
                correct += int((output.argmax(dim=1) == y).sum().item())
            count += len(y)
    return total if task.validation_loss is not None else total / count, correct / count


def objective(trial: optuna.Trial, task: Task, epochs: int, device: torch.device) -> float:
    """Train one model with one schedule."""
    train, valid = loaders(task)
    model = task.model().to(device)
    lr = trial.suggest_float("lr", *task.lr_range, log=True)
    optimizer = getattr(optim, task.optimizer)(model.parameters(), lr=lr, **task.optimizer_args)
    scheduler, interval = suggest_scheduler(trial, optimizer, lr, epochs, len(train))
    loss_value = float("nan")
    for epoch in range(epochs):
        train_epoch(task, model, train, optimizer, scheduler, interval, device)
        if (epoch + 1) % task.validate_every and epoch + 1 < epochs:
            continue
        loss_value, accuracy = validate(task, model, valid, device)
        if interval == "loss":
            scheduler.step(loss_value)
        trial.report(loss_value, epoch + 1)
        trial.set_user_attr("accuracy", accuracy)
        if trial.should_prune():
            raise optuna.TrialPruned
    return loss_value


def main() -> None:
    """Run the study and print what it did as one JSON object."""
    parser = argparse.ArgumentParser(description="A plain Optuna script, to compare with.")
    parser.add_argument("--task", default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--train-samples", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--storage", default="sqlite:///plain.db")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.time()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    task = load_task(args.task, data_dir=args.data_dir, train_samples=args.train_samples)
    epochs = args.epochs or task.epochs
    study = optuna.create_study(
        study_name=args.task,
        storage=args.storage,
        direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=args.seed),
        pruner=optuna.pruners.MedianPruner(),
    )
    device = torch.device(args.device)
    study.optimize(lambda trial: objective(trial, task, epochs, device), n_trials=args.trials)
    print(json.dumps({"best": study.best_value, "began": began, "params": study.best_params}))


if __name__ == "__main__":
    main()
