"""Samplers behind one small ask/tell protocol, by name.

A sampler is told about every trial of the study, its own and the protocol's, in the order in which
answers came. Being told the same things in the same order after the same asks, it proposes the same
points: that is how a study is resumed. Points are never repaired after they were proposed.
"""

from __future__ import annotations

from typing import Annotated, Protocol, Self, runtime_checkable

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from ztom.engines.protocol import DerivativeMode
from ztom.errors import ConfigError
from ztom.plugins import Group, check_name
from ztom.search.space import Factors

#: Samplers that come with the package.
BUILT_IN = ("gp", "gradient", "optuna_gp", "cobyqa", "cobyla", "cmaes", "tpe", "random")
SamplerName = Annotated[
    str, AfterValidator(lambda name: check_name(Group.SAMPLERS, name, BUILT_IN))
]


class SamplerConfig(BaseModel):
    """A sampler and its options.

    Attributes:
        name: ``gp`` (a Gaussian process that knows quadratics, the default), ``gradient`` (exact
            derivatives, for likelihoods and output values), ``optuna_gp`` (Optuna's), ``cobyqa``
            (for errors without noise), ``cobyla`` (the classic), ``cmaes`` (for budgets of
            hundreds), ``tpe`` or ``random``.
            One's own is the name of an entry point ``ztom.samplers`` or ``package.module:function``
            and is called with this configuration, the search space and the seed.
        startup: Quasi-random points before the sampler's own; None takes what suits the sampler.
        xtol_rel: cobyla and cobyqa end when steps are smaller than this share of the intervals.
        ftol_rel: cobyla ends when the error changes by less than this share, gradient when a step
            gains less than this share of what the first one promised.
        mode: How gradient takes derivatives: ``forward`` (the default: one pass for each factor,
            nothing kept) or ``reverse`` (one pass for all, which keeps a batch's activations).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: SamplerName = "gp"
    startup: int | None = Field(default=None, ge=0, le=10_000)
    xtol_rel: float = Field(default=1e-4, gt=0, lt=1, allow_inf_nan=False)
    ftol_rel: float = Field(default=1e-4, gt=0, lt=1, allow_inf_nan=False)
    # left out where there is none: digests of configurations stay what they were
    mode: DerivativeMode | None = Field(default=None, exclude_if=lambda value: value is None)

    @property
    def takes_gradients(self) -> bool:
        """Whether its trials are errors with their derivatives."""
        return self.name == "gradient"

    @model_validator(mode="after")
    def _mode_is_for_gradient(self) -> Self:
        if self.mode is not None and not self.takes_gradients:
            raise ValueError(f"mode is an option of the sampler gradient, not of {self.name}")
        return self


def check_dimensions(config: SamplerConfig, factors: int) -> None:
    """Check that a sampler can search over so many factors.

    Raises:
        ConfigError: CMA-ES over a single factor.
    """
    if config.name == "cmaes" and factors == 1:
        raise ConfigError(
            "cmaes needs two factors or more", got=1, fix="Use the gp sampler for this chain."
        )


class Sampler(Protocol):
    """Proposes factors and learns from what they gave."""

    @property
    def sequential(self) -> bool:
        """Whether it can only propose a point once it has been told about the one before."""

    def warm_up(self) -> None:
        """Import what proposing needs; called while the engines are loading."""

    def ask(self, number: int) -> Factors | None:
        """Factors for trial ``number``, or None when it has converged."""

    def tell(
        self,
        number: int,
        factors: Factors,
        *,
        error: float | None,
        violations: tuple[float, ...],
    ) -> None:
        """What a trial gave.

        Args:
            number: Number of a trial that was asked for here, or of one that the protocol added.
            factors: What was evaluated, which may differ from what was asked for when a study is
                resumed with another version of a library; it is these that count.
            error: None when the trial failed.
            violations: Rise of each guardrail's error above what is allowed; above 0 it is broken.
        """

    def close(self) -> None:
        """End threads; calling it twice is harmless."""


@runtime_checkable
class TakesGradients(Protocol):
    """A sampler that learns from derivatives as well."""

    def take_gradients(self, number: int, error: Factors, violations: tuple[Factors, ...]) -> None:
        """The derivatives of a trial, just before it is told.

        Args:
            number: Number of the trial.
            error: Derivative of the error by each factor.
            violations: Derivative of each guardrail's error by each factor.
        """
