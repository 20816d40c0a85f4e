"""A regression task of your own: a class with the names of ``lrsearch.Task``, and a Dataset.

It names its loss, optimizer and range of rates; what a class leaves out has a default.

    lrsearch run --task examples/regression.py:Diabetes --trials 40
"""

import torch
from sklearn.datasets import load_diabetes
from torch import Tensor, nn
from torch.utils.data import Dataset


class Patients(Dataset[tuple[Tensor, Tensor]]):
    """Ten measurements of a patient, and how the disease went on in the next year."""

    def __init__(self, rows: slice) -> None:
        x, y = load_diabetes(return_X_y=True)
        self.x = torch.tensor(x[rows], dtype=torch.float32) * 20
        self.y = torch.tensor((y[rows] - 152) / 77, dtype=torch.float32).unsqueeze(1)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.x[i], self.y[i]


class Diabetes:
    train, validation = Patients(slice(0, 300)), Patients(slice(300, 370))
    batch_size, epochs = 32, 10
    loss = nn.MSELoss()
    optimizer, lr, lr_range = "Adam", 3e-3, (1e-4, 1e-1)

    @staticmethod
    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1))

    @staticmethod
    def test() -> Patients:
        return Patients(slice(370, None))
