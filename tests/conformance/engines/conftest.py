"""The engines that have to do the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_calls import open_chain, save_classifier_chain
from vllm_slot import VllmSlot

from ztom.engines.build import build_engine
from ztom.engines.config import EngineConfig
from ztom.engines.protocol import Engine


@pytest.fixture(scope="module", params=["fake", "torch", "torch-classifier", "vllm"])
def kind(request: pytest.FixtureRequest) -> str:
    """Of the engine; all tests of one come together."""
    return str(request.param)


@pytest.fixture(scope="module")
def light_engine(
    kind: str, llama_chain: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine | None]:
    """An engine that may stand beside others; vLLM's may not."""
    if kind == "vllm":
        yield None
        return
    paths = llama_chain
    if kind == "torch-classifier":
        paths = save_classifier_chain(tmp_path_factory.mktemp("classifier"))
    name = kind.partition("-")[0]
    if name == "fake":
        name = "ztom.testing.fake_engine:make_engine"
    engine = build_engine(EngineConfig(name=name, dtype="float32"), open_chain(paths))
    yield engine
    engine.close()
    engine.close()  # harmless


@pytest.fixture
def engine(light_engine: Engine | None, vllm_slot: VllmSlot, llama_chain: list[Path]) -> Engine:
    """One engine after the other, on a chain with two factors."""
    return vllm_slot.on(llama_chain) if light_engine is None else light_engine
