"""What vLLM alone has to do: agree with transformers, and never find a stale prefix."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from engine_calls import ANSWERS, FACTORS, PROMPTS, SHORT, observe, open_chain
from toys import (
    FAMILIES,
    TEXT,
    make_chain,
    reference_blend,
)

from ztom.engines.build import build_engine
from ztom.engines.config import EngineConfig
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


@contextmanager
def vllm_of(family: str, paths: list[Path], shared: Callable[[], Engine]) -> Iterator[Engine]:
    """vLLM on a chain; the session's own where that is the chain."""
    if family == "llama":
        yield shared()
        return
    engine = build_engine(EngineConfig(dtype="float32"), open_chain(paths))
    try:
        yield engine
    finally:
        engine.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_vllm_agrees_with_transformers_after_a_blend(
    request: pytest.FixtureRequest, tmp_path: Path, llama_chain: list[Path], family: str
) -> None:
    paths = llama_chain if family == "llama" else make_chain(tmp_path, family)
    with vllm_of(family, paths, lambda: request.getfixturevalue("vllm_llama")) as engine:
        engine.blend((0.0, 0.0))
        start = observe(engine)
        engine.blend(FACTORS)
        got = engine.log_probs(PROMPTS, ANSWERS)
        want = transformers_log_probs(engine, paths)
        worst = max(np.abs(g - w).max() for g, w in zip(got, want, strict=True))
        assert worst <= 1e-4
        engine.blend((0.0, 0.0))
        assert observe(engine) == start


def transformers_log_probs(engine: Engine, paths: list[Path]) -> list[np.ndarray]:
    """The same blend, computed as the formula says, through transformers."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        paths[-1], dtype=torch.float32, attn_implementation="eager"
    )
    state = {name: tensor.float() for name, tensor in reference_blend(paths, FACTORS).items()}
    unknown = model.load_state_dict(state, strict=False).unexpected_keys
    assert not unknown
    model.tie_weights()
    rows = []
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        head = engine._encoder.prompt_ids(prompt)  # type: ignore[attr-defined]
        tail = engine._encoder.continuation_ids(answer)  # type: ignore[attr-defined]
        with torch.no_grad():
            scores = model(torch.tensor([head + tail])).logits[0].log_softmax(-1)
        picked = scores[len(head) - 1 : -1].gather(1, torch.tensor(tail)[:, None])
        rows.append(picked[:, 0].numpy())
    return rows


def test_a_stale_prefix_cache_is_impossible(vllm_llama: Engine, monkeypatch) -> None:
    engine: Any = vllm_llama
    engine.blend((0.0, 0.0))
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
