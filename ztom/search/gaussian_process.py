"""A Gaussian process for errors over scaling factors, in numpy.

Near the trained model an error is close to a quadratic of the factors, so the kernel says so. For
points x, y in units of the bounds (the box is [-1, 1] in every factor)

    k(x, y) = c + v_0 x.y + v_1 |x|^2 |y|^2 + v_2 (x.y)^2 + v_3 sum_i x_i^2 y_i^2 + v_4 m(|x - y|)

is a constant, a linear form, one curvature that all factors share, a full quadratic form, a
curvature per factor, and a Matern 5/2 process m for what is not quadratic; v_5 is the variance of
the noise of an evaluation. The variances maximise the posterior density under log-normal priors
(Rasmussen & Williams 2006, eq. 5.8 and 5.9). The `MATERN` form leaves the quadratic terms out and
chooses the length scale; it is taken where it predicts points that were left out better (eq. 5.10
to 5.12): where the errors are no quadratic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
#: Value and gradient at a point of shape (factors,).
Differentiable = Callable[[Array], tuple[float, Array]]

_CONSTANT = 100.0  # variance of the constant, in units of the errors' own: practically flat
_JITTER = 1e-8
_FEATURES = 128  # random Fourier features of a sample path's Matern part
_ITERATIONS = 40
SQRT5 = float(np.sqrt(5.0))
_LEFT_OUT_MARGIN = 2.0  # nats by which the Matern form has to predict better


@dataclass(frozen=True)
class KernelForm:
    """Priors of a kernel, for errors of standard deviation 1.

    Attributes:
        medians: Prior medians of v_0 to v_5 in one dimension; v_0 and v_3 are divided by the number
            of factors and v_1 and v_2 by its square.
        spreads: Standard deviations of their logarithms.
        scales: Length scales of the Matern part to choose from, times the root of the number of
            factors.
    """

    medians: tuple[float, ...]
    spreads: tuple[float, ...]
    scales: tuple[float, ...]

    def log_medians(self, factors: int) -> Array:
        """Logarithms of the prior medians, shape (6,)."""
        powers = np.array([1.0, 2.0, 2.0, 1.0, 0.0, 0.0])
        return np.asarray(np.log(self.medians) - powers * np.log(factors))


QUADRATIC = KernelForm((1.0, 1.0, 0.5, 0.3, 0.05, 0.02), (1.5, 1.5, 1.5, 1.5, 1.0, 1.5), (0.6,))
MATERN = KernelForm(
    (1.0, 1e-9, 1e-9, 1e-9, 0.5, 0.02), (1.5, 1e-3, 1e-3, 1e-3, 1.5, 1.5), (0.35, 0.7, 1.4)
)


def _matern(distances: Array) -> Array:
    """Matern 5/2 of distances in length scales."""
    scaled = SQRT5 * distances
    return np.asarray((1.0 + scaled + scaled * scaled / 3.0) * np.exp(-scaled))


class GaussianProcess:
    """A process fitted to points.

    Attributes:
        form: Form of the kernel.
        spread: Standard deviation of the errors it was fitted to.
        log_variances: Logarithms of the fitted variances v_0 to v_5, shape (6,).
        variances: The fitted variances.
        scale: Length scale of the Matern part.
        inverse: Inverse of the covariance of the targets, shape (points, points).
        weights: That times the targets, shape (points,).

    Args:
        points: Points in units of the bounds, shape (points, factors).
        errors: Error of each, shape (points,).
        form: Form of the kernel.
        start: Logarithms of the variances to start the fit from, shape (6,); the prior's by
            default.
    """

    def __init__(
        self,
        points: Array,
        errors: Array,
        *,
        form: KernelForm = QUADRATIC,
        start: Array | None = None,
    ) -> None:
        self.points, self.factors = points, points.shape[1]
        self.form = form
        self._center, self.spread = float(errors.mean()), float(errors.std()) or 1.0
        self._targets = (errors - self._center) / self.spread
        self._squares, self._norms = points**2, (points**2).sum(1)
        self._prior = form.log_medians(self.factors)
        begin = self._prior if start is None else start
        fits = [self._maximise(form, scale, begin) for scale in form.scales]
        _, self.log_variances, self.scale = min(fits, key=lambda fit: fit[0])
        self._condition()

    @property
    def noise(self) -> float:
        """Standard deviation of an evaluation's noise, in units of the error."""
        return float(np.sqrt(self.variances[5]) * self.spread)

    def leave_one_out(self) -> float:
        """Log density of every target given all the others, in nats (eq. 5.10 to 5.12)."""
        precision = np.diag(self.inverse)
        terms = 0.5 * np.log(precision / (2.0 * np.pi)) - 0.5 * self.weights**2 / precision
        return float(terms.sum())

    def mean(self, point: Array) -> tuple[float, Array]:
        """Posterior mean of the error at a point, and its gradient."""
        value, gradient = self._weighted(point, self.weights)
        return self._center + self.spread * value, self.spread * gradient

    def posterior(self, points: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the error without noise, each of shape (points,)."""
        cross = self.kernel(points, self.points)
        variance = self.prior_variance(points) - np.einsum(
            "ij,jk,ik->i", cross, self.inverse, cross
        )
        spreads = self.spread * np.sqrt(np.maximum(variance, 0.0))
        return self._center + self.spread * (cross @ self.weights), spreads

    def draw(self, rng: np.random.Generator) -> Differentiable:
        """A sample path of the posterior: a draw of the prior, corrected at the points.

        The polynomial part is drawn exactly and the Matern part by random Fourier features; the
        correction is Matheron's rule (Wilson et al. 2020, eq. 13).
        """
        v, factors = self.variances, self.factors
        constant = np.sqrt(_CONSTANT) * rng.standard_normal()
        slope = np.sqrt(v[0]) * rng.standard_normal(factors)
        square = np.sqrt(v[2]) * rng.standard_normal((factors, factors))
        curvature = np.sqrt(v[1]) * rng.standard_normal()
        diagonal = curvature + np.sqrt(v[3]) * rng.standard_normal(factors)
        form = (square + square.T) / 2.0 + np.diag(diagonal)
        # the spectral density of Matern 5/2 is a Student t of 5 degrees of freedom
        tails = np.sqrt(rng.chisquare(5, (_FEATURES, 1)) / 5.0)
        waves = rng.standard_normal((_FEATURES, factors)) / tails / self.scale
        phases = rng.uniform(0.0, 2.0 * np.pi, _FEATURES)
        heights = np.sqrt(2.0 * v[4] / _FEATURES) * rng.standard_normal(_FEATURES)

        def prior(points: Array) -> Array:
            quadratic = np.einsum("ni,ij,nj->n", points, form, points)
            return np.asarray(
                constant + points @ slope + quadratic + np.cos(points @ waves.T + phases) @ heights
            )

        noise = np.sqrt(v[5]) * rng.standard_normal(len(self.points))
        correction = self.inverse @ (self._targets - prior(self.points) - noise)

        def path(point: Array) -> tuple[float, Array]:
            value, gradient = self._weighted(point, correction)
            angles, turned = waves @ point + phases, form @ point
            value += constant + slope @ point + point @ turned + heights @ np.cos(angles)
            gradient = gradient + slope + 2.0 * turned - (heights * np.sin(angles)) @ waves
            return self._center + self.spread * float(value), self.spread * gradient

        return path

    def _maximise(self, form: KernelForm, scale: float, begin: Array) -> tuple[float, Array, float]:
        """Negative log posterior density of the variances, the variances, the length scale."""
        from scipy.optimize import minimize  # takes a moment, which every worker would spend

        length = scale * float(np.sqrt(self.factors))
        terms = self._terms(self.points, self.points, length)
        terms = np.concatenate([terms, np.eye(len(self.points))[None]])
        spreads = np.array(form.spreads)

        def loss(logs: Array) -> tuple[float, Array]:
            return _negative_log_posterior(logs, terms, self._targets, self._prior, spreads)

        bounds = np.stack([self._prior - 6.0, self._prior + 6.0], axis=1)
        result = minimize(
            loss, begin, jac=True, method="L-BFGS-B", bounds=bounds,
            options={"maxiter": _ITERATIONS},
        )  # fmt: skip
        return float(result.fun), np.asarray(result.x), length

    def _condition(self) -> None:
        self.variances = np.exp(self.log_variances)
        covariance = self.kernel(self.points, self.points)
        covariance.flat[:: len(covariance) + 1] += self.variances[5] + _JITTER
        self.inverse = np.linalg.inv(covariance)
        self.weights = self.inverse @ self._targets

    def _terms(self, left: Array, right: Array, length: float) -> Array:
        """The five kernels without their variances, shape (5, left, right)."""
        products = left @ right.T
        squares_left, squares_right = left**2, right**2
        norms = np.add.outer(squares_left.sum(1), squares_right.sum(1))
        distances = np.sqrt(np.maximum(norms - 2.0 * products, 0.0)) / length
        return np.stack(
            [
                products,
                np.outer(squares_left.sum(1), squares_right.sum(1)),
                products**2,
                squares_left @ squares_right.T,
                _matern(distances),
            ]
        )

    def prior_variance(self, points: Array) -> Array:
        """The kernel of each point with itself, shape (points,)."""
        v, norms = self.variances, (points**2).sum(1)
        quadratic = (v[1] + v[2]) * norms**2 + v[3] * (points**4).sum(1)
        return np.asarray(_CONSTANT + v[0] * norms + quadratic + v[4])

    def kernel(self, left: Array, right: Array) -> Array:
        """The kernel without noise, shape (left, right)."""
        terms = self._terms(left, right, self.scale)
        return np.asarray(np.tensordot(self.variances[:5], terms, axes=1) + _CONSTANT)

    def _weighted(self, point: Array, weights: Array) -> tuple[float, Array]:
        """Sum over the fitted points of weight times kernel with ``point``, and its gradient."""
        v, points = self.variances, self.points
        products, steps = points @ point, point - points
        scaled = SQRT5 / self.scale * np.sqrt((steps * steps).sum(1))
        decay = np.exp(-scaled)
        kernel = _CONSTANT + v[0] * products + v[1] * self._norms * (point @ point)
        kernel += v[2] * products**2 + v[3] * (self._squares @ point**2)
        kernel += v[4] * (1.0 + scaled + scaled**2 / 3.0) * decay
        gradient = ((v[0] + 2.0 * v[2] * products) * weights) @ points
        gradient += 2.0 * v[1] * (self._norms @ weights) * point
        gradient += 2.0 * v[3] * (weights @ self._squares) * point
        gradient -= v[4] * 5.0 / 3.0 / self.scale**2 * (((1.0 + scaled) * decay * weights) @ steps)
        return float(kernel @ weights), gradient


def _negative_log_posterior(
    logs: Array, terms: Array, targets: Array, prior: Array, spreads: Array
) -> tuple[float, Array]:
    """Minus the log density of the variances given the targets, and its gradient (eq. 5.9)."""
    count = len(targets)
    variances = np.exp(logs)
    flat = terms.reshape(len(terms), -1)
    covariance = (variances @ flat).reshape(count, count) + _CONSTANT
    covariance.flat[:: count + 1] += _JITTER
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        return 1e10, np.zeros_like(logs)
    inverse = np.linalg.inv(covariance)
    weights = inverse @ targets
    distance = (logs - prior) / spreads
    value = 0.5 * targets @ weights + np.log(factor.flat[:: count + 1]).sum()
    slopes = flat @ (inverse - np.outer(weights, weights)).ravel()
    return float(value + 0.5 * distance @ distance), 0.5 * variances * slopes + distance / spreads


def fit_process(points: Array, errors: Array, *, like: GaussianProcess | None) -> GaussianProcess:
    """The process of the form that predicts left-out points better.

    Args:
        points: Points in units of the bounds, shape (points, factors).
        errors: Error of each, shape (points,).
        like: Process of a few points less, whose form is taken without a look at the other and
            whose variances make the fit faster; None compares.
    """
    if like is not None:
        return GaussianProcess(points, errors, form=like.form, start=like.log_variances)
    quadratic = GaussianProcess(points, errors)
    matern = GaussianProcess(points, errors, form=MATERN)
    misfit = matern.leave_one_out() > quadratic.leave_one_out() + _LEFT_OUT_MARGIN
    return matern if misfit else quadratic


def minimise(function: Differentiable, starts: Sequence[Array]) -> Array:
    """The best of the local minima over the box that L-BFGS-B finds from the starts."""
    from scipy.optimize import minimize

    box = [(-1.0, 1.0)] * len(starts[0])
    results = [
        minimize(
            function, np.clip(start, -1.0, 1.0), jac=True, method="L-BFGS-B", bounds=box,
            options={"maxiter": 60},
        )
        for start in starts
    ]  # fmt: skip
    best = min(results, key=lambda result: float(result.fun))
    return np.clip(np.asarray(best.x, dtype=np.float64), -1.0, 1.0)
