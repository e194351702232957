"""The sampler that a configuration names."""

from __future__ import annotations

from ztom.extras import require_extra
from ztom.plugins import Group, build_plugin
from ztom.search.samplers.gp import STARTUP_SCALE, GPSampler
from ztom.search.samplers.protocol import BUILT_IN, Sampler, SamplerConfig, check_dimensions
from ztom.search.space import SearchSpace


def startup_count(config: SamplerConfig, space: SearchSpace, evaluations: int) -> int:
    """How many quasi-random points come before the sampler's own.

    Local methods start from the trained model and need none; a Gaussian process needs a few to fit
    its kernel, never more than a fifth of the budget.
    """
    if config.startup is not None:
        return min(config.startup, evaluations)
    few = space.dimensions + 2
    wanted = {"gp": few, "optuna_gp": few, "tpe": 10}.get(config.name, 0)
    return min(wanted, evaluations // 5)


def startup_scale(config: SamplerConfig) -> float:
    """The share of the bounds that quasi-random points are within."""
    return STARTUP_SCALE if config.name == "gp" else 1.0


def build_sampler(
    config: SamplerConfig, space: SearchSpace, *, seed: int, tolerance: float = 0.0
) -> Sampler:
    """The sampler that the configuration names.

    Args:
        config: Name and options.
        space: Bounds of the factors.
        seed: Seed of everything that the sampler draws.
        tolerance: Share of the gain below which what is left to gain ends the search, for the
            sampler that knows; 0 for none.

    Raises:
        ConfigError: The sampler cannot search this space, its package is not installed, or one of
            one's own cannot be had.
    """
    check_dimensions(config, space.dimensions)
    if config.name in ("cobyla", "cobyqa"):
        from ztom.search.samplers.callback import CallbackSampler

        if config.name == "cobyla":
            require_extra("nlopt", extra="cobyla", purpose="the sampler cobyla")
        return CallbackSampler(config, space)
    if config.name == "gp":
        return GPSampler(space, seed=seed, tolerance=tolerance)
    if config.name == "gradient":
        from ztom.search.samplers.gradient import GradientSampler

        return GradientSampler(config, space)
    if config.name in BUILT_IN:
        from ztom.search.samplers.optuna import OptunaSampler

        return OptunaSampler(config.name, space, seed=seed)
    sampler: Sampler = build_plugin(
        Group.SAMPLERS, config.name, config, space, seed, protocol=Sampler
    )
    return sampler
