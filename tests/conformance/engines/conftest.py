"""The engines that have to do the same; vLLM's is the session's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_calls import open_chain, save_classifier_chain

from ztom.engines.build import build_engine
from ztom.engines.config import EngineConfig
from ztom.engines.protocol import Engine


@pytest.fixture(scope="module", params=["fake", "torch", "torch-classifier", "vllm"])
def engine(
    request: pytest.FixtureRequest,
    llama_chain: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Engine]:
    """One engine after the other, on a chain with two factors."""
    if request.param == "vllm":
        yield request.getfixturevalue("vllm_llama")
        return
    paths = llama_chain
    if request.param == "torch-classifier":
        paths = save_classifier_chain(tmp_path_factory.mktemp("classifier"))
    name = request.param.partition("-")[0]
    if name == "fake":
        name = "ztom.testing.fake_engine:make_engine"
    made = build_engine(EngineConfig(name=name, dtype="float32"), open_chain(paths))
    yield made
    made.close()
    made.close()  # harmless
