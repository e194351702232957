"""What tests of engines ask: prompts, factors, and everything that an engine can say."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from toys import (
    TEXT,
    make_config,
    make_tokenizer,
    save_steps,
)

from ztom.blending.chain import Chain, load_chain
from ztom.blending.chain_file import ChainConfig
from ztom.blending.group_assignment import group_chain
from ztom.blending.groups import FactorGroups
from ztom.engines.protocol import Capability, Engine, GenerationConfig
from ztom.settings import Settings
from ztom.stimuli.records import Message, Prompt
from ztom.variants.write import stage_variant

FACTORS = (0.4, -0.7)
PROMPTS: list[Prompt] = [
    "What does it return?",
    (Message("system", "Be brief."), Message("user", "Explain the chain of checkpoints")),
    TEXT[0],
]
ANSWERS = [" It returns the sum of its arguments.", " A base model", "dog"]
SHORT = GenerationConfig(max_new_tokens=12)


def open_chain(paths: list[Path]) -> Chain:
    config = ChainConfig.model_validate({"checkpoints": [str(path) for path in paths]})
    return load_chain(config, settings=Settings())


def assert_groups_load_as_they_blend(engine: Any, chain: Chain, folder: Path) -> None:
    """A blend with a factor for each step and kind, in place and from the written files.

    Args:
        engine: vLLM on a model of the chain's shape; it is left with the chain that it had.
        chain: Chain, without groups.
        folder: Folder of the variant to be.
    """
    grouped, own = group_chain(chain, FactorGroups(kinds="all")), engine._chain
    count = grouped.factor_count
    factors = [0.6 * (-1) ** at * (1 + at) / count for at in range(count)]
    try:
        engine._rpc("ztom_hold", pickle.dumps(grouped))
        engine._chain = grouped
        engine.blend(factors)
        assert engine.factors == tuple(factors)
        blended = observe(engine)
        engine.blend((0.0,) * count)
        assert observe(engine) != blended
        with stage_variant(grouped, factors, folder) as staged:
            staged.publish()
        engine._blends += 1
        engine._llm.collective_rpc(_load_file, args=(str(folder / "model.safetensors"),))
        engine._llm.reset_prefix_cache()
        assert observe(engine) == blended
    finally:
        engine._rpc("ztom_hold", pickle.dumps(own))
        engine._chain = own
        engine.blend((0.0,) * own.factor_count)


def _load_file(worker: Any, file: str) -> None:
    """Have vLLM's own loader take the tensors of a file."""
    worker._ztom_reload(iter(load_file(file).items()))


def save_classifier_chain(folder: Path) -> list[Path]:
    config = make_config("llama")
    config.num_labels = 3
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    return save_steps(model, make_tokenizer(), folder, members=3, step=0.5)


def observe(engine: Engine) -> list[object]:
    """Everything that an engine can say, in a form that compares bit for bit."""
    said: list[object] = []
    if Capability.GENERATE in engine.info.capabilities:
        said.append(engine.generate(PROMPTS, SHORT))
    if Capability.LOG_PROBS in engine.info.capabilities:
        said += [row.tobytes() for row in engine.log_probs(PROMPTS, ANSWERS)]
    if Capability.VALUES in engine.info.capabilities:
        said.append(engine.values(PROMPTS).tobytes())
    return said
