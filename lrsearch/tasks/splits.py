"""Parts of a data set that keep the mix of its classes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

SPLIT_SEED = 0
"""All studies share one split into training and validation, whatever their seed."""


def stratified_order(y: Tensor) -> Tensor:
    """A random order of samples in which every first part has each class in its share.

    Sample number r (0, 1, ...) of a class of size m gets the key (r + 1/2) / m; sorting by the key
    spreads each class evenly. So the first k of the order are a stratified part for every k, and a
    smaller part lies inside a larger one.

    Args:
        y: Class of each sample, integers (n,).

    Returns:
        Indices (n,).

    Example:
        >>> y = torch.tensor([0] * 8 + [1] * 4)
        >>> y[stratified_order(y)[:3]].sort().values.tolist()
        [0, 0, 1]
    """
    labels = y.cpu().numpy()
    rng = np.random.default_rng(SPLIT_SEED)
    shuffled = rng.permutation(len(labels))
    labels = labels[shuffled]
    by_class = np.argsort(labels, kind="stable")
    _, first, sizes = np.unique(labels[by_class], return_index=True, return_counts=True)
    key: npt.NDArray[np.float64] = np.empty(len(labels))
    rank = np.arange(len(labels)) - np.repeat(first, sizes)
    key[by_class] = (rank + 0.5) / np.repeat(sizes, sizes)
    return torch.from_numpy(shuffled[np.argsort(key, kind="stable")])
