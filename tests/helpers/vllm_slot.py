"""One engine of vLLM at a time: a process can make several, but to close one breaks the others.

Tests that want the same chain one after the other have the same engine; a start takes seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ztom.engines.protocol import Engine


class VllmSlot:
    """Holds the engine that was asked for last."""

    def __init__(self) -> None:
        self._paths: list[Path] = []
        self._engine: Engine | None = None

    def on(self, paths: list[Path]) -> Engine:
        """vLLM on a chain, in float32; whoever had it before may have blended."""
        if self._engine is None or self._paths != paths:
            from engine_calls import open_chain

            from ztom.engines.build import build_engine
            from ztom.engines.config import EngineConfig

            self.clear()
            self._engine = build_engine(EngineConfig(dtype="float32"), open_chain(paths))
            self._paths = list(paths)
        return self._engine

    def clear(self) -> None:
        """Close what is there, so that a test can make its own."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
            engine.close()  # harmless
