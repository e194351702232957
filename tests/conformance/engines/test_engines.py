"""What every engine has to do: one suite for the fake engine, torch and vLLM."""

from __future__ import annotations

from ztom.engines.protocol import Engine
from ztom.testing import EngineConformance


class TestEngines(EngineConformance):
    def test_it_runs_in_the_dtype_that_was_configured(self, engine: Engine) -> None:
        assert engine.info.dtype == "float32"
