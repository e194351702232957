"""The engine that a study ends with, kept for the proof: to load a model takes longest of all.

The proof begins with the trained model's answers, which are those of the chain's engine with all
factors zero; the variant, as it was written, is loaded by an engine of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tune_search.engine_client import EngineClient
    from tune_search.payload import StudyInputs


class SpareEngine:
    """A place for one engine that is loaded. Make it with `spare_engine`."""

    def __init__(self) -> None:
        self._client: EngineClient | None = None

    def keep(self, clients: tuple[EngineClient, ...]) -> None:
        """Keep the first of a study's engines and stop the others."""
        from tune_search.engine_pool import stop_engines

        self.stop()
        self._client = clients[0]
        stop_engines(clients[1:])

    def take(self, inputs: StudyInputs) -> EngineClient | None:
        """The engine, which is the caller's to stop from now on; None where none was kept.

        Args:
            inputs: The stimuli that it is to answer; its next start brings them to its process.
        """
        import ray

        from tune_search.payload import Questions

        client, self._client = self._client, None
        return client and replace(client, questions=ray.put(Questions.of(inputs)))

    def stop(self) -> None:
        """Stop the engine that nobody took."""
        from tune_search.engine_pool import stop_engines

        client, self._client = self._client, None
        if client is not None:
            stop_engines((client,))


@contextmanager
def spare_engine() -> Iterator[SpareEngine]:
    """A place that is empty, and is emptied in the end; inside the Ray of the search."""
    spare = SpareEngine()
    try:
        yield spare
    finally:
        spare.stop()
