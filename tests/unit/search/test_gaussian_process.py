"""The process: fits, gradients, draws, and the form that it takes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad

from ztom.search.gaussian_process import (
    MATERN,
    QUADRATIC,
    GaussianProcess,
    fit_process,
    minimise,
)
from ztom.search.gradient_information import gradient_kernel, gradient_prior, most_informative


def bowl(points: np.ndarray) -> np.ndarray:
    """Smallest at (0.5, -0.3, 0.2)."""
    steps = points - np.array([0.5, -0.3, 0.2])
    return 2.0 + (steps**2).sum(-1) + 0.5 * steps[..., 0] * steps[..., 1]


def sample(count: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (count, 3))


def fitted(count: int = 20, *, noise: float = 0.0, form=QUADRATIC) -> GaussianProcess:
    points = sample(count)
    errors = bowl(points) + noise * np.random.default_rng(1).standard_normal(count)
    return GaussianProcess(points, errors, form=form)


@pytest.mark.parametrize("form", [QUADRATIC, MATERN])
def test_gradients_are_those_of_the_values(form):
    process = fitted(form=form)
    path = process.draw(np.random.default_rng(3))
    for function in (process.mean, path):
        at = np.array([0.3, -0.7, 0.1])
        error = check_grad(lambda x, f=function: f(x)[0], lambda x, f=function: f(x)[1], at)
        assert error < 1e-3


def test_a_quadratic_is_predicted_where_nothing_was_evaluated():
    points = sample(15, seed=9)
    mean, spread = fitted().posterior(points)
    assert mean == pytest.approx(bowl(points), abs=0.02)
    assert (spread < 0.05).all()
    assert mean[0] == pytest.approx(fitted().mean(points[0])[0])


def test_the_noise_is_found():
    assert fitted(80, noise=0.2).noise == pytest.approx(0.2, rel=0.3)
    assert fitted(80).noise < 0.05


def test_draws_scatter_around_the_mean_by_the_spread():
    process = fitted(12, noise=0.1)
    at = np.array([0.9, 0.9, -0.9])
    rng = np.random.default_rng(0)
    values = [process.draw(rng)(at)[0] for _ in range(400)]
    mean, spread = process.posterior(at[None])
    assert np.mean(values) == pytest.approx(mean[0], abs=4 * spread[0] / 20)
    assert np.std(values) == pytest.approx(spread[0], rel=0.15)


def test_left_out_points_are_predicted_as_by_a_process_without_them():
    points, errors = sample(12), bowl(sample(12))
    process = GaussianProcess(points, errors)
    variances = np.exp(process.log_variances)
    kernel = process.kernel(points, points) + (variances[5] + 1e-8) * np.eye(12)
    targets = (errors - errors.mean()) / errors.std()
    total = 0.0
    for i in range(12):
        others = [j for j in range(12) if j != i]
        solved = np.linalg.solve(kernel[np.ix_(others, others)], kernel[others, i])
        variance = kernel[i, i] - kernel[i, others] @ solved
        residual = targets[i] - solved @ targets[others]
        total += -0.5 * np.log(2 * np.pi * variance) - 0.5 * residual**2 / variance
    assert process.leave_one_out() == pytest.approx(total, rel=1e-3)


def test_errors_that_are_no_quadratic_are_noticed():
    points = sample(60)
    assert fit_process(points, (points**3).sum(1), like=None).form is MATERN
    assert fit_process(points, bowl(points), like=None).form is QUADRATIC


def test_minimise_stays_in_the_box():
    point = minimise(lambda x: (float(x.sum()), np.ones(3)), [np.zeros(3)])
    assert point == pytest.approx([-1.0, -1.0, -1.0])
    best = minimise(fitted().mean, [np.zeros(3)])
    assert best == pytest.approx([0.5, -0.3, 0.2], abs=0.05)


def test_the_most_informative_point_is_far_and_in_the_box():
    process = fitted(20, noise=0.1)
    best = minimise(process.mean, [np.zeros(3)])
    point = most_informative(process, best, np.random.default_rng(0))
    assert (np.abs(point) <= 1.0).all()
    assert np.abs(point - best).max() > 0.4


def test_gradients_of_the_kernel_are_those_of_its_values():
    process, at, step = fitted(), np.array([0.2, 0.3, -0.1]), 1e-6

    def change(function):
        moves = step * np.eye(3)
        return np.array([(function(at + m) - function(at - m)) / (2 * step) for m in moves]).T

    kernel = change(lambda x: process.kernel(x[None], process.points)[0])
    assert kernel == pytest.approx(gradient_kernel(process, at, process.points), abs=1e-5)
    covariance = change(lambda x: gradient_kernel(process, at, x[None])[0])
    assert covariance == pytest.approx(gradient_prior(process, at), abs=1e-5)
