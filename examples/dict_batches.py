"""Batches of dicts, a model with several outputs, and a loss that weighs the samples.

A batch becomes a pair (x, y): x goes to the model as it is, y to the loss with what the model
gives. Both may be tensors, tuples or dicts. Here a variational autoencoder, whose target is x.

lrsearch run --task examples/dict_batches.py:Autoencoder --trials 20
"""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, default_collate

pixels, labels = load_digits(return_X_y=True)
images = torch.tensor(pixels, dtype=torch.float32) / 16
weights = torch.where(torch.tensor(labels) == 8, 1.5, 1.0)  # eights are hard to draw
samples = [{"pixels": x, "weight": w} for x, w in zip(images, weights, strict=True)]


class VAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))
        self.decoder = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64))

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_var = self.encoder(batch["pixels"]).chunk(2, dim=1)  # each (B, 8)
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        return self.decoder(mean + noise * (log_var / 2).exp()), mean, log_var


def loss(outputs: tuple[Tensor, Tensor, Tensor], batch: dict[str, Tensor]) -> Tensor:
    drawn, mean, log_var = outputs
    drawing = F.binary_cross_entropy_with_logits(drawn, batch["pixels"], reduction="none").sum(1)
    code = (mean**2 + log_var.exp() - 1 - log_var).sum(1) / 2
    return ((drawing + code) * batch["weight"]).mean()


def pair(samples: list[dict]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    batch = default_collate(samples)
    return batch, batch


class Autoencoder:
    model, loss, metric = VAE, loss, None
    train = DataLoader(samples[:1200], batch_size=64, shuffle=True, collate_fn=pair)
    validation = DataLoader(samples[1200:], batch_size=300, collate_fn=pair)
    epochs, optimizer, lr = 10, "Adam", 3e-3
