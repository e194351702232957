"""What the sampler ``gradient`` asks of a configuration, and what is said of it in the result.

Derivatives are taken by the torch engine in float32. Where the search's engine is another one, or
deploys another dtype, a torch engine stands beside it in the same process: it proposes, and the
engine and the dtype that are deployed evaluate the trained model, confirm the answer and prove it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from ztom.engines.config import EngineConfig
from ztom.errors import ConfigError
from ztom.scoring.build import ErrorTerm
from ztom.scoring.differentiable import loss_terms


class JudgedData(Protocol):
    """A data set as `ztom.search.config.StimuliConfig` describes it."""

    @property
    def error(self) -> Sequence[ErrorTerm]:
        """Terms of the error function."""

    @property
    def labels(self) -> Sequence[str]:
        """Class labels, where the error needs them."""


def check_gradients(data: Iterable[tuple[str, JudgedData]], engine: EngineConfig) -> None:
    """Check that every error of a search has derivatives, and that something can take them.

    Args:
        data: The search's data set and those of its guardrails, by name.
        engine: Engine of the search.

    Raises:
        ConfigError: An error has no derivative, or the model is split over several devices.
    """
    for name, entry in data:
        try:
            loss_terms(entry.error, entry.labels)
        except ConfigError as error:
            if name == "search":
                raise
            raise ConfigError(
                f"guardrail {name}: {error.what}",
                got=error.got,
                expected=error.expected,
                fix=error.fix,
            ) from None
    if engine.tensor_parallel_size > 1:
        raise ConfigError(
            "the sampler gradient takes derivatives on one device",
            got=f"engine.tensor_parallel_size: {engine.tensor_parallel_size}",
            fix="Set tensor_parallel_size: 1, or use another sampler, such as gp.",
        )


def differentiating_engine(engine: EngineConfig) -> EngineConfig:
    """The engine that takes the derivatives of a search with this engine."""
    return engine.model_copy(update={"name": "torch", "dtype": "float32", "replicas": 1})


def gradient_note(engine: EngineConfig, *, deployed: str) -> str | None:
    """What is to be known of a search with derivatives; None where nothing differs.

    Args:
        engine: Engine of the search.
        deployed: Dtype that weights are deployed in.
    """
    if engine.name == "torch" and deployed == "float32":
        return None
    return (
        "The search took derivatives of float32 weights on the engine torch; the trained model, "
        f"the answer and the proof were evaluated in {deployed} on the engine {engine.name}."
    )
