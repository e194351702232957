"""Models for the torch engine: of transformers, by their configuration, or a plain module."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from ztom.checkpoints.checkpoint import open_folder
from ztom.engines.model_fit import refuse_misfit
from ztom.engines.protocol import Capability
from ztom.errors import CapabilityError, EngineError, ZtomError
from ztom.settings import Settings
from ztom.stimuli.records import Prompt

GENERATES = frozenset({Capability.GENERATE, Capability.LOG_PROBS})
CLASSIFIES = frozenset({Capability.VALUES})
_IMAGES = "ForImageClassification"
_TEXTS = "ForSequenceClassification"


def load_model(folder: Path, dtype: torch.dtype | None) -> tuple[Any, frozenset[Capability]]:
    """A model of transformers and what it can do; code in the folder is never run.

    Args:
        folder: Folder of the model's files.
        dtype: Dtype of the weights; None is what is stored.

    Raises:
        EngineError: It cannot be loaded, or its tensors do not fit.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=True
        )
        auto, classifies = _auto_class(config)
        options: dict[str, Any] = {}
        if getattr(config, "attn_logit_softcapping", None):
            options["attn_implementation"] = "eager"  # the fused kernels leave the soft cap out
        model, info = auto.from_pretrained(
            str(folder),
            dtype=dtype or "auto",
            **options,
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
        )
    except ZtomError:
        raise
    except Exception as error:  # transformers raises whatever its parsers raise
        raise EngineError(
            f"the model in {folder} cannot be loaded", got=f"{type(error).__name__}: {error}"
        ) from error
    stored = open_folder(folder, settings=Settings()).tensors
    refuse_misfit(f"the model in {folder}", info, stored)
    if classifies and not is_image_model(model) and model.config.pad_token_id is None:
        model.config.pad_token_id = 0  # only tells padding apart; rows are masked
    return model, CLASSIFIES if classifies else GENERATES


def is_image_model(model: Any) -> bool:
    """Whether a model takes pixels instead of tokens."""
    return getattr(model, "main_input_name", "") == "pixel_values"


def _auto_class(config: Any) -> tuple[Any, bool]:
    """The class that loads it, and whether it classifies."""
    names = [str(name) for name in config.architectures or ()]
    if any(name.endswith(_IMAGES) for name in names):
        return transformers.AutoModelForImageClassification, True
    if any(name.endswith(_TEXTS) for name in names):
        return transformers.AutoModelForSequenceClassification, True
    if any("Classification" in name for name in names):
        raise EngineError(
            "no engine runs this kind of classifier",
            got=", ".join(names),
            expected=f"...{_TEXTS} or ...{_IMAGES}",
            fix="It can be blended with ztom blend; search over it with engine.module.",
        )
    if type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        return transformers.AutoModelForCausalLM, False
    if type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return transformers.AutoModelForImageTextToText, False
    return transformers.AutoModelForCausalLM, False


def load_module(factory: str, folder: Path) -> torch.nn.Module:
    """Call the user's factory and load the checkpoint's own weights.

    Raises:
        EngineError: It makes no module, or not that of the checkpoint.
    """
    from safetensors.torch import load_file

    module_name, _, function = factory.partition(":")
    try:
        model = getattr(importlib.import_module(module_name), function)()
        state: dict[str, torch.Tensor] = {}
        for file in sorted(folder.glob("*.safetensors")):
            state |= load_file(file)
        model.load_state_dict(state)
    except Exception as error:  # the user's code can raise anything
        raise EngineError(
            f"{factory} does not make the module of {folder}",
            got=f"{type(error).__name__}: {error}",
            fix="The function takes nothing and returns a torch.nn.Module whose state dict has the "
            "checkpoint's tensors.",
        ) from error
    if not isinstance(model, torch.nn.Module):
        raise EngineError(f"{factory} returned no module", got=type(model).__name__)
    return model


def rows_of_numbers(prompts: Sequence[Prompt]) -> torch.Tensor:
    """Rows of numbers, float32 [rows, columns].

    Raises:
        CapabilityError: A prompt is not a row of numbers, or not as long as the others.
    """
    rows = [p for p in prompts if isinstance(p, tuple) and all(isinstance(x, float) for x in p)]
    if len(rows) != len(prompts) or len({len(row) for row in rows}) != 1:
        raise CapabilityError(
            "this model takes rows of numbers, all of one length",
            fix='Give stimuli as {"input": [0.1, 0.2], "expected": "..."}.',
        )
    return torch.tensor(rows, dtype=torch.float32)


def pixels(prompts: Sequence[Prompt], config: Any) -> torch.Tensor:
    """Rows of numbers as square images, float32 [images, channels, height, width].

    Args:
        prompts: Rows of channels * height * width numbers, as the model's processor gives them.
        config: The model's configuration.

    Raises:
        CapabilityError: The rows are no images of the model's channels.
    """
    rows = rows_of_numbers(prompts)
    channels = int(getattr(config, "num_channels", 3))
    side = math.isqrt(rows.shape[1] // channels)
    wanted = getattr(config, "image_size", None)
    if channels * side * side != rows.shape[1] or (isinstance(wanted, int) and wanted != side):
        size = f"{wanted} x {wanted}" if isinstance(wanted, int) else "a square"
        raise CapabilityError(
            "the rows are not images of this model",
            got=f"{rows.shape[1]} numbers",
            expected=f"{channels} channels of {size}",
            fix='Give {"input": [...], "expected": "..."} with the pixels, channel by channel.',
        )
    return rows.reshape(-1, channels, side, side)
