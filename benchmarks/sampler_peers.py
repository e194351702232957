"""Samplers of other packages, for `benchmarks.samplers` only.

``botorch``: a SingleTaskGP with fitted noise and qLogNoisyExpectedImprovement (Ament et al. 2023).
``turbo``: TuRBO-1 (Eriksson et al. 2019) with the same model and Thompson sampling over perturbed
candidates, batches of one. ``nevergrad``: NGOpt, told that the error is noisy. Points are in
[0, 1]; all get the same start-up points as `optuna_gp`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ztom.search.samplers.protocol import Sampler
from ztom.search.space import Factors, SearchSpace

PEERS = ("botorch", "turbo", "nevergrad")
_BUDGET = 50
_SHRINK_AFTER, _GROW_AFTER = 4, 3
_SMALLEST, _FIRST, _LARGEST = 0.5**7, 0.8, 1.6


def build_peer(name: str, space: SearchSpace, *, seed: int) -> Sampler:
    """The sampler of that name."""
    if name == "nevergrad":
        return Nevergrad(space, seed=seed)
    return ModelBased(_turbo if name == "turbo" else _log_nei, space, seed=seed)


class Nevergrad:
    """NGOpt by ask and tell."""

    sequential = False

    def __init__(self, space: SearchSpace, *, seed: int) -> None:
        import nevergrad as ng

        box = ng.p.Array(init=np.full(space.dimensions, 0.5)).set_bounds(0.0, 1.0)
        box.random_state.seed(seed)
        box.function.deterministic = False
        self._optimizer = ng.optimizers.NGOpt(parametrization=box, budget=_BUDGET)
        self._space, self._asked = space, dict[int, Any]()

    def warm_up(self) -> None:
        """Nothing takes long."""

    def ask(self, number: int) -> Factors:
        """NGOpt's next point."""
        self._asked[number] = self._optimizer.ask()
        return _factors(self._space, self._asked[number].value)

    def tell(
        self, number: int, factors: Factors, *, error: float | None, violations: tuple[float, ...]
    ) -> None:
        """Tell a point of its own, or one of the protocol's."""
        candidate = self._asked.pop(number, None)
        if candidate is None:
            unit = self._space.to_unit(np.array(factors))
            candidate = self._optimizer.parametrization.spawn_child(new_value=unit)
        self._optimizer.tell(candidate, error)

    def close(self) -> None:
        """Nothing is open."""


class ModelBased:
    """Fits BoTorch's model to everything so far and asks a rule for the next point."""

    sequential = False

    def __init__(self, rule: Callable[..., Any], space: SearchSpace, *, seed: int) -> None:
        import torch

        torch.set_num_threads(1)
        self._rule, self._space, self._seed = rule, space, seed
        self._points: list[Any] = []
        self._errors: list[float] = []
        self._own: list[bool] = []
        self._region = TrustRegion(space.dimensions)
        self._number = -1

    def warm_up(self) -> None:
        """Nothing is kept warm."""

    def ask(self, number: int) -> Factors:
        """The rule's next point."""
        import torch
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from botorch.models.transforms import Standardize
        from gpytorch.mlls import ExactMarginalLogLikelihood

        torch.manual_seed(self._seed * 1000 + number)
        points = torch.tensor(np.array(self._points))
        values = -torch.tensor(self._errors, dtype=torch.float64)[:, None]
        model = SingleTaskGP(points, values, outcome_transform=Standardize(m=1))
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        self._number = number
        return _factors(self._space, self._rule(model, points, values, self._region))

    def tell(
        self, number: int, factors: Factors, *, error: float | None, violations: tuple[float, ...]
    ) -> None:
        """Add a point."""
        if error is None:
            raise ValueError("evaluations of this benchmark do not fail")
        if number == self._number:
            self._region.update(error, min(self._errors))
        self._points.append(self._space.to_unit(np.array(factors)))
        self._errors.append(error)

    def close(self) -> None:
        """Nothing is open."""


class TrustRegion:
    """Length of TuRBO's region and the counts that change it."""

    def __init__(self, factors: int) -> None:
        self.length, self._successes, self._failures = _FIRST, 0, 0
        self._patience = max(_SHRINK_AFTER, factors)

    def update(self, error: float, best: float) -> None:
        """Grow after successes, shrink after failures, start again below the smallest."""
        better = error < best - 1e-3 * abs(best)
        self._successes, self._failures = (
            (self._successes + 1, 0) if better else (0, self._failures + 1)
        )
        if self._successes == _GROW_AFTER:
            self.length, self._successes = min(2.0 * self.length, _LARGEST), 0
        elif self._failures == self._patience:
            self.length, self._failures = self.length / 2.0, 0
        if self.length < _SMALLEST:
            self.length = _FIRST


def _log_nei(model: Any, points: Any, _values: Any, _region: TrustRegion) -> Any:
    import torch
    from botorch.acquisition import qLogNoisyExpectedImprovement
    from botorch.optim import optimize_acqf
    from botorch.sampling import SobolQMCNormalSampler

    rule = qLogNoisyExpectedImprovement(
        model, points, sampler=SobolQMCNormalSampler(torch.Size([64])), prune_baseline=True
    )
    factors = points.shape[1]
    box = torch.stack([torch.zeros(factors), torch.ones(factors)]).double()
    point, _ = optimize_acqf(rule, bounds=box, q=1, num_restarts=4, raw_samples=64)
    return point[0].detach().numpy()


def _turbo(model: Any, points: Any, values: Any, region: TrustRegion) -> Any:
    import torch
    from botorch.generation import MaxPosteriorSampling
    from torch.quasirandom import SobolEngine

    factors = points.shape[1]
    center = points[values[:, 0].argmax()]
    kernel = getattr(model.covar_module, "base_kernel", model.covar_module)
    weights = kernel.lengthscale.detach().flatten()
    weights = weights / weights.mean()
    weights = weights / weights.log().mean().exp()
    low = (center - weights * region.length / 2).clamp(0.0, 1.0)
    high = (center + weights * region.length / 2).clamp(0.0, 1.0)
    count = min(2000, 200 * factors)
    seed = int(torch.randint(2**31 - 1, (1,)))
    candidates = (
        low + (high - low) * SobolEngine(factors, scramble=True, seed=seed).draw(count).double()
    )
    moved = torch.rand(count, factors) <= min(20.0 / factors, 1.0)
    stuck = (~moved.any(1)).nonzero().flatten()
    moved[stuck, torch.randint(0, factors, (len(stuck),))] = True
    candidates = torch.where(moved, candidates, center)
    with torch.no_grad():
        return MaxPosteriorSampling(model, replacement=False)(candidates, 1)[0].numpy()


def _factors(space: SearchSpace, unit: Any) -> Factors:
    return tuple(map(float, space.from_unit(np.asarray(unit, dtype=np.float64))))
