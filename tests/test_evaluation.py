"""Two models on the same validation batches: those that a trial trains, and their average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lrsearch.tasks import Task
from lrsearch.training.batches import evaluation_batches
from lrsearch.training.evaluation import measure

CPU = torch.device("cpu")
X = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))


@dataclass
class Batch:
    """An object of the user's own, which a model may fill."""

    x: Tensor

    def to(self, device: torch.device) -> Batch:
        return self


class Rows(Dataset[Any]):
    """Rows with noise, so that they are read anew."""

    reads = 0

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, i: int) -> Any:
        self.reads += 1
        return X[i] + torch.rand(5), i % 3


class Model(nn.Module):
    """Draws random numbers in evaluation, too, and changes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, 3)

    def forward(self, given: Any) -> Tensor:
        x = given["x"] if isinstance(given, dict) else getattr(given, "x", given)
        outputs: Tensor = self.head(x + torch.rand(5))
        x.mul_(3)
        return outputs


def as_dicts(samples: Any) -> Any:
    xs, ys = zip(*samples, strict=True)
    return {"x": torch.stack(xs), "names": ["a"]}, torch.tensor(ys)


def as_objects(samples: Any) -> Any:
    xs, ys = zip(*samples, strict=True)
    return Batch(torch.stack(xs)), torch.tensor(ys)


def total(outputs: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, y, reduction="sum")


@pytest.mark.parametrize(
    ("collate", "whole", "passes"),
    [(None, False, 1), (as_dicts, False, 1), (as_objects, False, 2), (None, True, 2)],
    ids=["tensors", "dicts", "objects", "all outputs at once"],
)
def test_models_that_see_a_batch_in_turn_have_the_losses_of_each_alone(
    collate: Any, whole: bool, passes: int
) -> None:
    data = Rows()
    loader = DataLoader(data, 16, collate_fn=collate)
    task = Task("t", Model, loader, loader, validation_loss=total if whole else None)
    models = [Model().train() for _ in range(2)]
    batches = evaluation_batches(task, loader, CPU)
    alone = [float(n) for m in models for n in measure(task, [m], batches, CPU, "fp32")]
    assert alone[0] != alone[2]
    data.reads = 0
    both = [float(number) for number in measure(task, models, batches, CPU, "fp32")]
    assert both == alone
    assert data.reads // len(X) == passes
    assert all(model.training for model in models)
