"""What is done to images, and to a batch of them on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lrsearch.errors import UsageError


def rows(x: Tensor, index: Tensor) -> Tensor:
    """``x[index]``; images (n, C, H, W) that are stored channels last stay so."""
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and x.shape[1] > 1:
        return x.permute(0, 2, 3, 1).index_select(0, index).permute(0, 3, 1, 2)
    return x.index_select(0, index)


@dataclass(frozen=True)
class Augment:
    """Random shift and mirror image per sample, done on the device for a whole batch.

    Args:
        pad: Pixels of black border; each image is cropped back to its size at a random place of
            the (2 pad + 1)² possible ones. 0 = no shift.
        flip: Mirror every other image, by chance, left to right.

    Raises:
        UsageError: ``pad`` is no whole number from 0 up.
    """

    pad: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.pad, bool) or not isinstance(self.pad, int) or self.pad < 0:
            raise UsageError(f"augment.pad must be a whole number from 0 up, got {self.pad!r}")


@dataclass(frozen=True)
class Normalize:
    """``(x / 255 - mean) / std`` per channel: uint8 images (B, C, H, W) to floats.

    Raises:
        UsageError: A ``std`` is not above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        std = torch.as_tensor(self.std)
        if not ((std > 0) & std.isfinite()).all():
            raise UsageError(f"normalize needs each std above 0 and finite, got {self.std}")

    def __call__(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        if channels > 1 and x.is_contiguous(memory_format=torch.channels_last):
            # Whole rows of pixels against constants of the same length: 3 times faster.
            scale, shift = self._constants(x.device, width)
            rows = x.permute(0, 2, 3, 1).reshape(batch, height, width * channels).float()
            images = rows.mul_(scale).add_(shift).view(batch, height, width, channels)
            return images.permute(0, 3, 1, 2)
        scale, shift = self._constants(x.device, 1)
        return x.float().mul_(scale.view(-1, 1, 1)).add_(shift.view(-1, 1, 1))

    def _constants(self, device: torch.device, times: int) -> tuple[Tensor, Tensor]:
        """Factor and summand per channel, repeated ``times`` times."""
        cache: dict[Any, tuple[Tensor, Tensor]] = self.__dict__.setdefault("_cache", {})
        key = (device, times)
        if key not in cache:
            std = torch.tensor(self.std, device=device)
            mean = torch.tensor(self.mean, device=device)
            cache[key] = ((1 / (255 * std)).repeat(times), (-mean / std).repeat(times))
        return cache[key]

    def __getstate__(self) -> dict[str, Any]:
        return {"mean": self.mean, "std": self.std}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
