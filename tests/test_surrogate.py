"""The Gaussian process: against scikit-learn's formulas, and its gradient against differences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

from lrsearch.prediction import surrogate
from lrsearch.prediction.surrogate import fit, trace_features


def data(n: int = 25, d: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, linear = rng.normal(size=(n, d)), rng.normal(size=(n, 2))
    y = np.sin(2 * x[:, 0]) + 0.5 * linear[:, 0] + 0.1 * rng.normal(size=n)
    return x, linear, y


def test_gradient_of_the_objective_is_that_of_its_differences() -> None:
    x, linear, y = data()
    squares = ((x[:, None] - x[None]) ** 2).reshape(-1, 3)
    extra = np.linspace(0, 0.3, len(y))
    theta = np.array([0.1, 0.4, -0.2, 0.2, -0.5, -1.0, -1.2])
    args = (linear, y, squares, extra)
    error = check_grad(
        lambda t: surrogate._objective(t, *args)[0],
        lambda t: surrogate._objective(t, *args)[1],
        theta,
    )
    assert error < 1e-4


def test_kernel_is_matern_plus_linear() -> None:
    x, linear, _ = data()
    theta = np.array([0.1, 0.4, -0.2, 0.2, -0.5, -1.0, -1.2])
    matern = surrogate._matern(x, x, theta)
    line = surrogate._line(linear, linear, theta)
    ours = ConstantKernel(np.exp(0.4)) * Matern(np.exp(theta[:3]), nu=2.5)
    np.testing.assert_allclose(matern, ours(x), atol=1e-6)
    scaled = linear * np.exp(theta[4:6])
    np.testing.assert_allclose(line, DotProduct(0.0)(scaled), atol=1e-12)


def test_prediction_and_leave_one_out_are_those_of_refits() -> None:
    x, linear, y = data()
    gp = fit(x, y, linear=linear)
    error, sd = gp.leave_one_out()
    t = (y - y.mean()) / y.std()
    full = surrogate._matern(gp.x, gp.x, gp.theta)
    full += surrogate._line(gp.linear, gp.linear, gp.theta)
    full += WhiteKernel(np.exp(2 * gp.theta[-1]))(gp.x) + 1e-8 * np.eye(25)
    for i in (0, 7, 24):
        rest = np.delete(np.arange(25), i)
        solved = np.linalg.solve(full[np.ix_(rest, rest)], full[rest, i])
        assert error[i] / y.std() == pytest.approx(t[i] - solved @ t[rest], abs=1e-6)
        variance = full[i, i] - solved @ full[rest, i]
        assert sd[i] / y.std() == pytest.approx(np.sqrt(variance), abs=1e-6)
    mean, _ = gp.predict(x, linear)
    assert np.corrcoef(mean, y)[0, 1] > 0.95


def test_prediction_of_new_points_is_the_conditional_normal_distribution() -> None:
    (x, linear, y), (new, seen, _) = data(), data(7, seed=1)
    gp = fit(x, y, linear=linear)
    z, line = (
        (np.concatenate([one, two]) - one.mean(axis=0)) / one.std(axis=0)
        for one, two in ((x, new), (linear, seen))
    )
    cov = surrogate._matern(z, z, gp.theta) + surrogate._line(line, line, gp.theta)
    cov += np.exp(2 * gp.theta[-1]) * np.eye(32)
    solved = np.linalg.solve(cov[:25, :25], cov[:25, 25:])
    mean, sd = gp.predict(new, seen)
    np.testing.assert_allclose(mean, y.mean() + solved.T @ (y - y.mean()), atol=1e-6)
    variance = (cov[25:, 25:] - cov[25:, :25] @ solved).diagonal()
    np.testing.assert_allclose(sd, y.std() * np.sqrt(variance), atol=1e-6)


def test_uncertain_targets_count_less() -> None:
    x, _, y = data()
    wrong, variance = y.copy(), np.zeros(len(y))
    wrong[3] += 5.0
    variance[3] = 100.0
    theta = fit(x, y).theta
    trusted = fit(x, wrong, theta=theta).predict(x[3:4])[0]
    doubted = fit(x, wrong, variance=variance, theta=theta).predict(x[3:4])[0]
    assert abs(doubted[0] - y[3]) < abs(trusted[0] - y[3])


def test_units_of_features_and_targets_do_not_matter() -> None:
    (x, linear, y), (new, seen, _) = data(), data(7, seed=1)
    variance, rough = np.where(np.arange(25) < 20, 0.0, 0.3), np.array([0.1, 0.2, 0.3])
    theta = fit(x, y, linear=linear).theta
    one = fit(x, y, linear=linear, variance=variance, theta=theta, rough=rough)
    other = fit(
        5 * x + 3,
        7 * y - 2,
        linear=3 * linear,
        variance=49 * variance,
        theta=theta,
        rough=5 * rough,
    )
    mean, sd = one.predict(new, seen)
    means, sds = other.predict(5 * new + 3, 3 * seen)
    np.testing.assert_allclose(means, 7 * mean - 2)
    np.testing.assert_allclose(sds, 7 * sd)


def test_features_depend_on_the_curve_and_scale_with_the_rate() -> None:
    lr = np.geomspace(1.0, 0.01, 30)[None]
    one, ten = trace_features(lr), trace_features(10 * lr)
    np.testing.assert_allclose(ten[:, 0], one[:, 0] + np.log(10))
    np.testing.assert_allclose(ten[:, 1:], one[:, 1:] * np.sqrt(10))
    assert np.isfinite(trace_features(np.zeros((1, 30)))).all()
    assert trace_features(np.ones((2, 3))).shape == (2, 4)


def test_constant_targets_and_features_are_no_obstacle() -> None:
    gp = fit(np.ones((5, 2)), np.full(5, 3.0))
    mean, sd = gp.predict(np.ones((1, 2)))
    assert mean[0] == pytest.approx(3.0)
    assert np.isfinite(sd[0])


def test_what_is_rough_is_seen_again_in_the_same_place_and_not_far_away() -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, size=(40, 2))
    y = x[:, 0] + 0.3 * rng.standard_normal(40)
    noisy = fit(x, y)
    rough = fit(x, y, theta=noisy.theta, rough=np.full(2, 0.02))
    np.testing.assert_allclose(rough.predict(x)[0], y, atol=0.05)
    assert (rough.predict(x)[1] < 0.3 * noisy.predict(x)[1]).all()
    far = np.array([[0.011, 0.013]])
    np.testing.assert_allclose(rough.predict(far)[1], noisy.predict(far)[1], rtol=0.1)
