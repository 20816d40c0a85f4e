"""A small exact Gaussian process in numpy, and what it sees of a schedule: features of its trace.

Sampler, pruner and report share it. Its covariance is a Matern-5/2 over the trace features, with a
length for each, and a linear part for each loss seen so far; the evidence sets how much of each.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs, dtrtrs
from scipy.optimize import fmin_l_bfgs_b

Array = NDArray[np.float64]

PARTS = 6
"""Parts of the budget that a schedule is described by; fewer where it has fewer epochs."""
_SQRT5 = np.sqrt(5.0)
_JITTER = 1e-8
_REPEATED = 1e-2  # share of the roughness that a repetition does not see again


def trace_features(lr: Array) -> Array:
    """What a schedule does, whatever its family is called: (n, E) rates -> (n, 1 + PARTS).

    Log of the integral (per epoch), square root of the mean rate in ``PARTS`` parts of the budget.
    Under a root all low rates look alike, as they should: whether the last part runs at a
    hundredth or a thousandth of the peak hardly matters (``studies/sampling``).

    Args:
        lr: Learning rate of each epoch, (n, E), >= 0.

    Example:
        >>> trace_features(np.full((1, 2), 0.1)).round(2).tolist()
        [[-2.3, 0.32, 0.32]]
    """
    lr = np.atleast_2d(np.asarray(lr, dtype=np.float64))
    edges = itertools.pairwise(_edges(lr.shape[1]))
    means = [lr[:, a:b].mean(axis=1, keepdims=True) for a, b in edges]
    integral = np.log(np.maximum(lr.mean(axis=1, keepdims=True), 1e-30))
    return np.concatenate([integral, np.sqrt(np.concatenate(means, axis=1))], axis=1)


@functools.cache
def _edges(epochs: int) -> list[int]:
    """Where equal parts of the budget begin, and its end."""
    edges: list[int] = np.linspace(0, epochs, min(PARTS, epochs) + 1).round().astype(int).tolist()
    return edges


@dataclass(frozen=True)
class GaussianProcess:
    """A fitted process; made by :func:`fit`. Arrays are standardized, `predict` is not."""

    x: Array  # (n, d)
    linear: Array  # (n, q)
    centres: tuple[Array, Array, float]  # of x, linear, y
    scales: tuple[Array, Array, float]
    theta: Array  # (d + q + 2,): log of the lengths, Matern sd, linear sds, noise sd
    chol: Array  # (n, n) lower
    alpha: Array  # (n,)
    rough: Array | None = None  # (d,): lengths of the noise, where it is roughness

    def predict(self, x: Array, linear: Array | None = None) -> tuple[Array, Array]:
        """Mean and standard deviation of a new observation at ``x`` (m, d): two of (m,)."""
        d = self.x.shape[1]
        known, squares, lengths, own = self._side
        z = (np.atleast_2d(x) - self.centres[0]) / self.scales[0]
        cross = _decay(_apart(z / lengths, known, squares), float(self.theta[d]))  # (m, n)
        noise, prior = own[-1], own[0]
        if linear is not None and linear.shape[-1]:
            seen = (np.atleast_2d(linear) - self.centres[1]) / self.scales[1]
            sloped = seen * own[1:-1]
            cross += sloped @ self.linear.T
            prior = prior + np.einsum("ij,ij->i", sloped, seen)
        if self.rough is not None:
            cross += noise * _near(z, self.x, self.rough)
        half = dtrtrs(self.chol, cross.T, lower=True)[0]
        half *= half
        variance = np.maximum(prior + noise - half.sum(axis=0), _JITTER)
        sd = self.scales[2]
        return self.centres[2] + sd * (cross @ self.alpha), sd * np.sqrt(variance)

    @property
    def noise(self) -> float:
        """Standard deviation of an observation's own luck, in units of the targets."""
        return float(self.scales[2] * np.exp(self.theta[-1]))

    @functools.cached_property
    def _side(self) -> tuple[Array, Array, Array, Array]:
        """Observations in units of the lengths and their squares, the lengths, variances."""
        d = self.x.shape[1]
        lengths, variances = np.exp(self.theta[:d]), np.exp(2 * self.theta[d:])
        known = self.x / lengths
        return known, np.einsum("ij,ij->i", known, known), lengths, variances

    def leave_one_out(self) -> tuple[Array, Array]:
        """Each observation minus what the others say of it, and the sd of that: two of (n,).

        Rasmussen & Williams (2006), eqs. 5.10 to 5.12.
        """
        variance = 1.0 / _inverse(self.chol).diagonal()
        return self.scales[2] * self.alpha * variance, self.scales[2] * np.sqrt(variance)


def _matern(a: Array, b: Array, theta: Array) -> Array:
    """Matern part, (m, n)."""
    d = a.shape[1]
    return _decay(_squares(a, b, np.exp(theta[:d])), float(theta[d]))


def _decay(square: Array, log_sd: float) -> Array:
    """Matern covariance at squared distances (m, n), which are used up."""
    r = np.sqrt(square, out=square)
    r *= _SQRT5
    matern = r * r
    matern /= 3.0
    matern += r
    matern += 1.0
    matern *= np.exp(np.subtract(2 * log_sd, r, out=r), out=r)
    return matern


def _line(a: Array, b: Array, theta: Array) -> Array | float:
    """Linear part, (m, n); 0 where nothing is linear."""
    q = a.shape[1]
    return np.asarray((a * np.exp(2 * theta[-1 - q : -1])) @ b.T) if q else 0.0


def _squares(a: Array, b: Array, lengths: Array) -> Array:
    """Squared distances in units of the lengths, (m, n)."""
    u = a / lengths
    v = u if a is b else b / lengths
    return _apart(u, v, np.einsum("ij,ij->i", v, v))


def _apart(u: Array, v: Array, squares: Array) -> Array:
    """Squared distances, (m, n), given the squares of ``v``, (n,)."""
    square = np.einsum("ij,ij->i", u, u)[:, None] + squares
    square -= 2.0 * u @ v.T
    return np.asarray(np.maximum(square, 0.0, out=square))


def _near(a: Array, b: Array, lengths: Array) -> Array:
    """Gaussian covariance of unit variance, (m, n)."""
    square = _squares(a, b, lengths)
    square *= -0.5
    return np.asarray(np.exp(square, out=square))


# LAPACK itself: what scipy checks and reshapes around it never varies here, and costs as much.


def _cholesky(a: Array) -> Array:
    """Lower factor of a symmetric matrix, (n, n)."""
    chol, info = dpotrf(a, lower=True)
    if info:
        raise LinAlgError(f"the covariance is not positive definite (row {info})")
    return np.asarray(chol)


def _inverse(chol: Array) -> Array:
    """Inverse of ``chol @ chol.T``, for a factor with zeros above its diagonal."""
    lower: Array = dpotri(chol, lower=True)[0]
    inverse: Array = lower + lower.T
    inverse.flat[:: len(chol) + 1] *= 0.5
    return inverse


@functools.cache
def _prior(d: int, q: int) -> tuple[Array, Array]:
    """Normal prior of the log hyperparameters: centre and width, two of (d + q + 2,).

    Lengths that grow with the square root of the dimension, as Hvarfner et al. (2024) propose, but
    narrow: ten finished trials cannot tell eight lengths, and a wide prior is then too sure. Set
    by the predictive density on five tasks (``studies/pruning``).
    """
    centre = np.concatenate([np.full(d, 0.5 * np.log(d) - 0.3), [-0.3], np.full(q, -1.0), [-0.7]])
    width = np.concatenate([np.full(d, 0.3), [0.7], np.full(q, 1.0), [0.4]])
    return centre, width


def _objective(
    theta: Array, linear: Array, y: Array, squares: Array, extra: Array
) -> tuple[float, Array]:
    """Negative log posterior of the hyperparameters and its gradient.

    Args:
        theta: The hyperparameters, (d + q + 2,).
        linear: Features with a linear effect, (n, q).
        y: Targets, (n,).
        squares: Squared differences of each feature between each two observations, (n n, d).
        extra: Known noise, (n,).
    """
    n = len(y)
    d, q = squares.shape[1], linear.shape[1]
    centre, width = _prior(d, q)
    shrunk = np.exp(-2 * theta[:d])
    r = np.sqrt(5.0 * (squares @ shrunk)).reshape(n, n)
    slope = np.exp(2 * theta[d] - r)
    matern = slope * (r * r / 3.0 + r + 1.0)
    slope *= r + 1.0
    noise = np.exp(2 * theta[-1])
    covariance = matern + _line(linear, linear, theta)
    covariance.reshape(-1)[:: n + 1] += noise + extra + _JITTER
    chol = _cholesky(covariance)
    inverse = _inverse(chol)
    alpha = inverse @ y
    weight = alpha[:, None] * alpha - inverse  # d log p / dK = weight / 2
    z = (theta - centre) / width
    value = 0.5 * y @ alpha + np.log(chol.diagonal()).sum() + 0.5 * (z @ z)
    grad = np.empty_like(theta)
    slope *= weight
    grad[:d] = (5.0 / 6.0) * (slope.reshape(-1) @ squares) * shrunk
    grad[d] = weight.reshape(-1) @ matern.reshape(-1)
    if q:
        both = ((weight @ linear) * linear).sum(axis=0)
        grad[d + 1 : d + 1 + q] = both * np.exp(2 * theta[d + 1 : d + 1 + q])
    grad[-1] = noise * weight.trace()
    return float(value), -grad + z / width


def fit(
    x: Array,
    y: Array,
    *,
    linear: Array | None = None,
    variance: Array | None = None,
    theta: Array | None = None,
    start: Array | None = None,
    steps: int = 20,
    rough: Array | None = None,
) -> GaussianProcess:
    """Fit a process to observations by the most probable hyperparameters (L-BFGS).

    Args:
        x: Features, (n, d), finite; standardized inside.
        y: Targets, (n,), finite; standardized inside.
        linear: Features with a linear effect (losses seen so far), (n, q).
        variance: Known extra noise of each target, (n,), for those that are predictions.
        theta: Hyperparameters to use as they are, of a fit with the same features.
        start: Where their fit starts: those of a fit with the first of these features, and
            nothing linear.
        steps: Most steps of the fit.
        rough: Lengths over which noise stays the same, (d,): then it is not noise but roughness
            that a repetition would see again. The hyperparameters are learnt without.
    """
    n, d = x.shape
    linear = np.zeros((n, 0)) if linear is None else linear
    exact = slice(None) if variance is None else np.flatnonzero(variance == 0.0)
    x_mid, x_scale = _standard(x[exact])
    line_mid, line_scale = _standard(linear[exact])
    sure = y[exact]
    y_mid = float(sure.sum() / len(sure))
    y_scale = math.sqrt(np.square(sure - y_mid).sum() / len(sure))
    y_scale = y_scale if y_scale > 1e-12 else 1.0
    z, seen, t = (x - x_mid) / x_scale, (linear - line_mid) / line_scale, (y - y_mid) / y_scale
    extra = np.zeros(n) if variance is None else variance / y_scale**2
    if theta is None:
        squares = ((z[:, None, :] - z[None, :, :]) ** 2).reshape(n * n, d)
        centre, width = _prior(d, linear.shape[1])
        first = centre
        if start is not None:
            old = len(start) - 2
            first = np.concatenate(
                [start[:old], centre[old:d], start[old : old + 1], centre[d + 1 : -1], start[-1:]]
            )
        theta, _, _ = fmin_l_bfgs_b(
            _objective,
            first,
            args=(seen, t, squares, extra),
            bounds=np.stack([centre - 4 * width, centre + 4 * width], axis=1),
            maxiter=steps,
        )
    covariance = _matern(z, z, theta)
    covariance += _line(seen, seen, theta)
    diagonal = covariance.reshape(-1)[:: n + 1]
    noise = np.exp(2 * theta[-1])
    lengths = None if rough is None else rough / x_scale
    if lengths is None:
        diagonal += noise
    else:
        covariance += noise * _near(z, z, lengths)
    diagonal += extra + (_JITTER if lengths is None else _REPEATED * noise)
    chol = _cholesky(covariance)
    alpha = np.asarray(dpotrs(chol, t, lower=True)[0])
    centres, scales = (x_mid, line_mid, y_mid), (x_scale, line_scale, y_scale)
    return GaussianProcess(z, seen, centres, scales, theta, chol, alpha, lengths)


def cap(values: Array) -> float:
    """Losses above it say only "bad": the median plus twice its distance from the best."""
    middle = float(np.median(values))
    if not np.isfinite(middle):
        middle = float(np.max(values[np.isfinite(values)], initial=0.0))
    return middle + 2.0 * (middle - float(values.min())) + 1e-6


def spread(y: Array, most: int) -> NDArray[np.int64]:
    """Indices of at most ``most`` values: the best two thirds of them, and every so many-th."""
    order = np.argsort(y, kind="stable")
    if len(order) <= most:
        return order
    best = 2 * most // 3
    rest = order[best:]
    return np.concatenate([order[:best], rest[:: -(-len(rest) // (most - best))]])


def _standard(x: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of the columns; 1 where a column does not vary."""
    if not x.shape[1]:
        return np.zeros(0), np.ones(0)
    middle = x.sum(axis=0) / len(x)
    scale = np.sqrt(np.square(x - middle).sum(axis=0) / len(x))
    return middle, np.where(scale > 1e-9, scale, 1.0)
