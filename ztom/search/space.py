"""The search space: a name and an interval for every scaling factor.

The space never repairs factors. A sampler that proposes a point outside of it is an error, because
the point that is recorded has to be the point that was evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ztom.errors import FactorError

Factors = tuple[float, ...]


@dataclass(frozen=True)
class SearchSpace:
    """One closed interval per factor.

    Attributes:
        names: What each factor scales, for people.
        lower: Smallest value of each factor.
        upper: Largest value of each factor.
        groups: Groups of tensors that have factors of their own, factors standing step by step and
            in a step group by group; none where a step of the chain has one factor.
    """

    names: tuple[str, ...]
    lower: Factors
    upper: Factors
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.names or not len(self.names) == len(self.lower) == len(self.upper):
            raise FactorError(
                "the bounds do not fit the chain",
                got=f"{len(self.lower)} lower and {len(self.upper)} upper bounds",
                expected=f"{len(self.names)} of each, one per transition"
                + (" and group, or one per transition" if self.groups else ""),
            )
        for name, low, high in zip(self.names, self.lower, self.upper, strict=True):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise FactorError(
                    f"the bounds of factor {name!r} are not an interval",
                    got=f"[{low}, {high}]",
                    expected="finite numbers, the lower one below the upper one",
                )

    @property
    def dimensions(self) -> int:
        """Number of factors."""
        return len(self.names)

    @property
    def steps(self) -> int:
        """Number of steps of the chain that the factors scale."""
        return self.dimensions // max(1, len(self.groups))

    @property
    def step_names(self) -> tuple[str, ...]:
        """What the factors of each step scale, whatever the group."""
        if not self.groups:
            return self.names
        ends = f": {self.groups[0]}"
        return tuple(name.removesuffix(ends) for name in self.names[:: len(self.groups)])

    def expand(self, step_factors: Sequence[float]) -> Factors:
        """All factors of a blend in which every group of a step has the same one.

        Args:
            step_factors: One factor per step of the chain.
        """
        width = max(1, len(self.groups))
        return tuple(float(factor) for factor in step_factors for _ in range(width))

    @property
    def trained(self) -> Factors:
        """The factors of the model as trained: all zero."""
        return (0.0,) * self.dimensions

    def contains(self, factors: Sequence[float]) -> bool:
        """Whether every factor is inside its interval (NaN never is)."""
        return len(factors) == self.dimensions and all(
            low <= factor <= high
            for low, factor, high in zip(self.lower, factors, self.upper, strict=True)
        )

    def check(self, factors: Sequence[float]) -> Factors:
        """The factors as a tuple of floats.

        Raises:
            FactorError: A factor outside its interval, or the wrong number of them.
        """
        if not self.contains(factors):
            raise FactorError(
                "scaling factors outside the search space",
                got=list(factors),
                expected=[list(pair) for pair in zip(self.lower, self.upper, strict=True)],
            )
        return tuple(float(factor) for factor in factors)

    def to_unit(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map points, shape (..., dimensions), onto the unit cube."""
        low, high = np.array(self.lower), np.array(self.upper)
        unit: NDArray[np.float64] = (points - low) / (high - low)
        return unit

    def from_unit(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map points of the unit cube into the space; rounding never leaves the bounds."""
        low, high = np.array(self.lower), np.array(self.upper)
        inside: NDArray[np.float64] = np.clip(low + points * (high - low), low, high)
        return inside

    def startup_points(self, count: int, *, seed: int, scale: float = 1.0) -> tuple[Factors, ...]:
        """The first ``count`` points of a scrambled Sobol sequence (Owen 1998).

        Args:
            count: Number of points.
            seed: Seed of the scrambling.
            scale: Share of the space, around its middle, that the points are within.
        """
        if count == 0:
            return ()
        from scipy.stats import qmc  # takes a second, which every worker would spend

        sobol = qmc.Sobol(self.dimensions, scramble=True, rng=np.random.default_rng(seed))
        points = sobol.random_base2(math.ceil(math.log2(count)) if count > 1 else 0)[:count]
        return tuple(
            tuple(map(float, point)) for point in self.from_unit(0.5 + scale * (points - 0.5))
        )
