"""A language model of characters as a task: a function that returns a dict.

The names of the dict are those of ``lrsearch.Task``. The text is a module of Python itself, so
nothing is downloaded.

    lrsearch run --task examples/language_model.py:characters --trials 20
"""

import argparse
import inspect

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CausalConvolution(nn.Module):
    """Predicts each character from the seven before it: (B, T) tokens -> (B, 128, T) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(128, 32)
        self.first = nn.Conv1d(32, 96, 4)
        self.second = nn.Conv1d(96, 128, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens).transpose(1, 2)
        return self.second(F.pad(F.relu(self.first(F.pad(x, (3, 0)))), (3, 0)))


def characters() -> dict[str, object]:
    text = inspect.getsource(argparse).encode("ascii", "ignore")
    rows = torch.tensor(list(text[: len(text) // 65 * 65])).view(-1, 65)  # (rows, 65)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    train, validation, test = rows[:-400], rows[-400:-200], rows[-200:]
    return {
        "model": CausalConvolution,
        "train": (train[:, :-1], train[:, 1:]),  # cross-entropy takes (B, classes, T) and (B, T)
        "validation": (validation[:, :-1], validation[:, 1:]),
        "test": lambda: (test[:, :-1], test[:, 1:]),
        "epochs": 5,
        "batch_size": 32,
        "optimizer": "AdamW",
        "lr": 3e-3,
        "lr_range": (1e-4, 1e-1),
    }
