"""What vLLM alone has to do: wait for no compiler, and never find a stale prefix."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from engine_calls import FACTORS, SHORT
from toys import (
    TEXT,
)

from ztom.engines.protocol import Engine

_IS_COMPILED = """
import os, torch, ztom.engines.vllm_engine
from vllm.v1.sample.ops.logprobs import batched_count_greater_than as op
os.environ["TORCHDYNAMO_DISABLE"] = "0"
compiled = torch.compile(abs, backend="eager")
print(*(hasattr(function, "_torchdynamo_orig_callable") for function in (op, compiled)))
"""


def test_the_first_log_probs_wait_for_no_compiler() -> None:
    if torch.cuda.is_available():
        pytest.skip("on a GPU the engine compiles")
    environment = {k: v for k, v in os.environ.items() if k != "TORCHDYNAMO_DISABLE"}
    command = [sys.executable, "-c", _IS_COMPILED]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"]  # the second is what a compiled one looks like


def test_a_stale_prefix_cache_is_impossible(vllm_llama: Engine, monkeypatch) -> None:
    engine: Any = vllm_llama
    blends = engine._blends
    try:
        # long enough for whole cache blocks; asked twice, so the second time they are found
        prompt = " ".join(TEXT * 2)
        zeros = engine.generate([prompt], SHORT)
        assert engine.generate([prompt], SHORT) == zeros
        engine.blend(FACTORS)
        fresh = engine.generate([prompt], SHORT)
        assert fresh != zeros
        # provoke it: leave the cache as it is, so that only the salt stands in the way
        monkeypatch.setattr(engine._llm, "reset_prefix_cache", lambda: None)
        engine.blend((0.0, 0.0))
        assert engine.generate([prompt], SHORT) == zeros
        engine.blend(FACTORS)
        assert engine.generate([prompt], SHORT) == fresh
        # and without the salt the provocation would have worked
        engine._blends = 0
        engine.generate([prompt], SHORT)
        engine.blend((0.0, 0.0))
        engine._blends = 0
        assert engine.generate([prompt], SHORT) != zeros
    finally:
        monkeypatch.undo()
        engine._blends = blends + 100  # salts that nobody has had
        engine.blend((0.0, 0.0))
