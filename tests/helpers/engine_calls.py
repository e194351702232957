"""What tests of engines ask: prompts, factors, and everything that an engine can say."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from toys import (
    TEXT,
    make_config,
    make_tokenizer,
    save_steps,
)

from ztom.blending.chain import Chain, load_chain
from ztom.blending.chain_file import ChainConfig
from ztom.engines.protocol import Capability, Engine, GenerationConfig
from ztom.settings import Settings
from ztom.stimuli.records import Message, Prompt

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
