"""Products of many small matrices, n at a time.

On a CPU numpy multiplies them: its OpenBLAS has kernels for small matrices, which torch's MKL has
not. Measured on one core of an AMD EPYC (Zen 4), 16 products of (64, 65) by (65, 64): 106 GFLOP/s
against 78; of (64, 65) by (65, 10): 63 against 12. Where the second factor is a transposed one
(64 x 64) it is the other way round, 65 against 80: such a product is better left to torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

LEAST_PRODUCT = 1 << 9
"""Multiplications in one of the n products from which on numpy's longer calls pay."""


def multiplier(out: Tensor, inner: int) -> tuple[Callable[..., Any], Callable[[Tensor], Any]]:
    """What multiplies n matrices into ``out`` (n, rows, columns), and gives tensors to it.

    Numpy's is to be called within :func:`as_torch`.

    Args:
        out: Where products will go, or like it.
        inner: Columns of the first factors, rows of the second.
    """
    if out.device.type == "cpu" and out.shape[1] * out.shape[2] * inner >= LEAST_PRODUCT:
        return np.matmul, Tensor.numpy
    return torch.bmm, Tensor.detach


def product(a: Tensor, b: Tensor, out: Tensor) -> Callable[[], Any]:
    """A function that computes ``out = a @ b``, to be called again and again."""
    multiply, given = multiplier(out, a.shape[2])
    return partial(multiply, given(a), given(b), out=given(out))


@contextmanager
def as_torch() -> Iterator[None]:
    """Let numpy and scipy multiply on as many threads as torch.

    They take every core otherwise, and threads that wait for each other over small matrices cost
    more than they gain: twice the CPU seconds of a whole study on two cores.
    """
    with _libraries().limit(limits=torch.get_num_threads(), user_api="blas"):
        yield


@cache
def _libraries() -> Any:
    """What sets the threads of the libraries that are loaded; looking for them takes 4 ms."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
