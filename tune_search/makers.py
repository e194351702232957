"""Making engines and error functions in other processes.

A module of its own with few imports: every process of a search imports it when it starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ztom.engines.protocol import Engine
from ztom.scoring.protocol import ErrorFunction

if TYPE_CHECKING:
    from ztom.engines.build import EngineConfig

    from ztom.blending.chain import ChainConfig
    from ztom.scoring.build import ErrorTerm
    from ztom.settings import Settings


@dataclass(frozen=True)
class EngineMaker:
    """Makes an engine; opens the chain again where it is called.

    Attributes:
        engine: What engine.
        chain: The chain with absolute references.
        settings: The driver's; the other process may have another environment.
    """

    engine: EngineConfig
    chain: ChainConfig
    settings: Settings

    def __call__(self) -> Engine:
        """The engine, loaded."""
        from ztom.engines.build import build_engine

        from ztom.blending.chain import load_chain

        chain = load_chain(self.chain, settings=self.settings)
        return build_engine(self.engine, chain, settings=self.settings)


@dataclass(frozen=True)
class ErrorMaker:
    """Makes an error function.

    Attributes:
        terms: What is summed.
        labels: Class labels.
    """

    terms: tuple[ErrorTerm, ...]
    labels: tuple[str, ...]

    def __call__(self) -> ErrorFunction:
        """The error function, with whatever models it holds."""
        from ztom.scoring.build import build_error

        return build_error(self.terms, labels=self.labels)
