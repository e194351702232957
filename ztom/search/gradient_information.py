"""Where an evaluation tells most about the minimum of a Gaussian process with a quadratic kernel.

If the gradient of a quadratic with Hessian H is known with an error g, its minimiser loses
``g' H^-1 g / 2``. So the evaluation to make is that after which the expected loss at the present
minimiser is least: with c(x) the posterior covariance of the gradient there and the error at x, it
falls by ``c' H^-1 c / (s(x)^2 + noise) / 2`` (local Bayesian optimisation by gradient information,
Mueller et al. 2021, with H^-1 as the weight). Such points lie far from the minimiser, where
differences are larger than the noise; Thompson sampling alone stays near it.
"""

from __future__ import annotations

import numpy as np

from ztom.search.gaussian_process import SQRT5, Array, GaussianProcess

_DIRECTIONS = 400
_LEADING = 4  # directions in which the loss is least certain
_REACHES = (0.5, 1.0)  # how far candidates lie, in units of the bounds
_LEAST_CURVATURE = 0.05  # of the largest, where the Hessian is flatter or not positive


def most_informative(process: GaussianProcess, minimiser: Array, rng: np.random.Generator) -> Array:
    """The most informative of random points around the minimiser, in the box.

    Args:
        process: Process of the quadratic form.
        minimiser: Minimiser of its mean in the box, shape (factors,).
        rng: Draws the points.
    """
    at_points = gradient_kernel(process, minimiser, process.points)
    weight, root = _inverse_hessian(process, minimiser)
    covariance = gradient_prior(process, minimiser) - at_points.T @ process.inverse @ at_points
    _, uncertain = np.linalg.eigh(root @ covariance @ root)
    points = _candidates(minimiser, uncertain[:, -_LEADING:].T, rng)
    cross = process.kernel(points, process.points)
    gradients = gradient_kernel(process, minimiser, points) - cross @ process.inverse @ at_points
    variance = process.prior_variance(points)
    variance -= np.einsum("ij,jk,ik->i", cross, process.inverse, cross)
    reduction = np.einsum("ij,jk,ik->i", gradients, weight, gradients)
    best = np.argmax(reduction / (np.maximum(variance, 0.0) + process.variances[5]))
    return np.asarray(points[best])


def _candidates(center: Array, leading: Array, rng: np.random.Generator) -> Array:
    factors = len(center)
    directions = np.concatenate(
        [
            leading,
            rng.standard_normal((_DIRECTIONS, factors)),
            rng.choice([-1.0, 1.0], (_DIRECTIONS // 2, factors)),
        ]
    )
    directions = np.concatenate([directions, -directions])
    directions /= np.abs(directions).max(axis=1, keepdims=True)
    steps = rng.choice(_REACHES, (len(directions), 1)) * directions
    return np.asarray(np.clip(center + steps, -1.0, 1.0))


def _inverse_hessian(process: GaussianProcess, minimiser: Array) -> tuple[Array, Array]:
    """Inverse of the mean's Hessian over factors that are not at a bound, and its root over all."""
    v, points, weights = process.variances, process.points, process.weights
    hessian = 2.0 * v[2] * (points.T * weights) @ points
    curvature = v[1] * weights @ (points**2).sum(1) + v[3] * weights @ points**2
    hessian += 2.0 * np.diag(curvature)
    values, vectors = np.linalg.eigh(hessian)
    values = np.maximum(values, _LEAST_CURVATURE * np.abs(values).max() + 1e-12)
    free = np.abs(minimiser) < 1.0 - 1e-3
    mask = np.outer(free, free) if free.any() else np.ones_like(hessian)
    return (vectors / values) @ vectors.T * mask, (vectors / np.sqrt(values)) @ vectors.T


def gradient_kernel(process: GaussianProcess, at: Array, points: Array) -> Array:
    """Gradient of the kernel by its first argument, shape (points, factors)."""
    v, scale = process.variances, process.scale
    products, steps = points @ at, at - points
    scaled = SQRT5 / scale * np.sqrt((steps**2).sum(1))
    matern = v[4] * 5.0 / 3.0 / scale**2 * (1.0 + scaled) * np.exp(-scaled)
    gradient = (v[0] + 2.0 * v[2] * products)[:, None] * points
    gradient += 2.0 * (v[1] * (points**2).sum(1)[:, None] + v[3] * points**2) * at
    return np.asarray(gradient - matern[:, None] * steps)


def gradient_prior(process: GaussianProcess, at: Array) -> Array:
    """Prior covariance of the gradient at a point, shape (factors, factors)."""
    v, outer, unit = process.variances, np.outer(at, at), np.eye(len(at))
    linear = v[0] + 2.0 * v[2] * (at @ at) + v[4] * 5.0 / 3.0 / process.scale**2
    return np.asarray(linear * unit + (4.0 * v[1] + 2.0 * v[2]) * outer + np.diag(4 * v[3] * at**2))
