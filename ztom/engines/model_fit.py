"""Do the tensors that an engine is given fit the model that ``config.json`` describes?

A loader that finds no tensor for a parameter leaves random numbers in it, and the model answers all
the same. transformers only logs it; vLLM 0.32 exempts every linear layer and embedding from its own
check. So the names and shapes are loaded into the model on PyTorch's meta device, where there are
no numbers: that takes milliseconds, reads no weights, and transformers' own rules apply (tied
weights, renamed and fused tensors, keys that a class ignores).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from ztom.blending.chain import Chain
from ztom.blending.plan import plan_blend
from ztom.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ztom.checkpoints.derived import is_derived
from ztom.checkpoints.layout import INDEX
from ztom.checkpoints.lora import open_adapter
from ztom.checkpoints.own_names import model_class_of
from ztom.checkpoints.tensors import TensorSpec
from ztom.errors import AdapterUnsupportedError, CapabilityError, EngineError
from ztom.settings import Settings

_SHOWN = 5
_FIX = (
    "Give the config.json that belongs to these weights, or save the model again with transformers."
)


def check_folder_fit(folder: Path) -> None:
    """Check a model's files before vLLM loads them.

    Raises:
        CapabilityError: The model is a classifier; names the engine that runs it.
        CheckpointError: The folder holds no model.
        EngineError: Names the first tensors that are missing, unexpected or of another shape, or
            the files that would be loaded besides the model's.
    """
    checkpoint = _open(folder)
    _refuse_classifier(checkpoint)
    _check_files(folder, checkpoint)
    tensors = {
        name: torch.empty(spec.shape, dtype=spec.dtype, device="meta")
        for name, spec in checkpoint.tensors.items()
    }
    model = _load_on_meta(f"the model in {folder}", folder, tensors)
    _check_tied(checkpoint, model)


def check_chain_fit(folder: Path, chain: Chain) -> None:
    """Check that the blends of a chain are whole models, before any is computed.

    Args:
        folder: Folder whose ``config.json`` describes the model that the engine holds.
        chain: Chain that was opened and checked.

    Raises:
        EngineError: The blends do not fit the model; see `check_folder_fit`.
    """
    plan = plan_blend(chain, (0.0,) * chain.factor_count)
    tensors = {
        tensor.name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        for tensor in plan.tensors
    }
    _load_on_meta(f"a blend of {chain.base.reference} ... {chain.tags[-1]}", folder, tensors)


def check_adapter_fit(folder: Path, base: Path) -> None:
    """Check that every module of a LoRA adapter exists in its base, by the name that it has there.

    vLLM 0.32 looks at the last part of a module's name only, and leaves out what it does not find.

    Raises:
        CheckpointError: One of the folders cannot be opened.
        AdapterUnsupportedError: Names the module.
    """
    adapter = open_adapter(_open(folder), _open(base))
    for name, factors in adapter.factors.items():
        module = f"base_model.model.{name.removesuffix('.weight')}"
        if not factors.a.name.startswith(f"{module}.lora_"):
            raise AdapterUnsupportedError(
                f"{folder}: a module does not have the name that it has in the base",
                got=factors.a.name,
                expected=f"{module}.lora_A.weight",
                fix="Write the adapter again with ztom blend.",
            )


def refuse_misfit(
    what: str, info: Mapping[str, Collection[Any]], stored: Mapping[str, TensorSpec | torch.Tensor]
) -> None:
    """Refuse what transformers only logs.

    Args:
        what: Name of what was loaded, for the message.
        info: Report of ``from_pretrained(..., output_loading_info=True)``.
        stored: Tensors that were to be loaded, by name.

    Raises:
        EngineError: Names the first tensors that are missing, unexpected or of another shape.
    """
    derived = [name for name, tensor in stored.items() if is_derived(name, tensor.shape)]
    unexpected = [  # reported under the name that it would have in the model
        key
        for key in info["unexpected_keys"]
        if not any(key.endswith(name) or name.endswith(key) for name in derived)
    ]
    shapes = [
        f"{key} {list(stored)} (the model has {list(wanted)})"
        for key, stored, wanted in info["mismatched_keys"]
    ]
    problems = [
        f"{len(keys)} {kind}: {_listed(keys)}"
        for kind, keys in (
            ("missing", info["missing_keys"]),
            ("unexpected", unexpected),
            ("of another shape", shapes),
        )
        if keys
    ]
    if problems:
        raise EngineError(
            f"the tensors of {what} do not fit the model that its config.json describes",
            got="; ".join(problems),
            expected="every parameter of the model exactly once",
            fix=_FIX,
        )


def _open(folder: Path) -> Checkpoint:
    """Open a folder that an engine was given: what may be referred to was decided before."""
    anywhere = {"allowed_schemes": ("file",), "allowed_roots": ("/",), "denied_roots": ()}
    settings = Settings().model_copy(update=anywhere)
    return open_checkpoint(str(folder.absolute()), settings=settings)


def _load_on_meta(what: str, folder: Path, tensors: dict[str, torch.Tensor]) -> Any:
    """Load tensors without content into the model of a folder's config; returns the model."""
    try:
        config = transformers.AutoConfig.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=True
        )
        model, info = _model_class(config).from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            device_map="meta",
            attn_implementation="eager",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except EngineError:
        raise
    except Exception as error:  # transformers raises whatever its parsers raise
        raise EngineError(
            f"the tensors of {what} do not make the model that its config.json describes",
            reason=f"{type(error).__name__}: {error}",
            fix=_FIX,
        ) from error
    refuse_misfit(what, info, tensors)
    return model


def _model_class(config: Any) -> Any:
    """The class that ``architectures`` names."""
    model_class = model_class_of(config)
    if model_class is None:
        raise EngineError(
            "which tensors the model needs is not known",
            got=f"architectures {', '.join(config.architectures)} in config.json",
            expected="a class of transformers",
            fix="Save the model with the class that transformers ships.",
        )
    return model_class


def _refuse_classifier(checkpoint: Checkpoint) -> None:
    """Refuse what has rows of outputs instead of text, before an engine starts for it."""
    named = checkpoint.config.get("architectures")
    names = [str(name) for name in named] if isinstance(named, list) else []
    if any("Classification" in name for name in names):
        raise CapabilityError(
            "the vllm engine generates text, and the model is a classifier",
            got=", ".join(names),
            fix="Set engine.name: torch.",
        )


def _check_files(folder: Path, checkpoint: Checkpoint) -> None:
    """Refuse other weights beside the model's: without an index vLLM loads every file."""
    others = {path.name for path in folder.glob("*.safetensors")} - {*checkpoint.weight_files}
    if others and INDEX not in checkpoint.files:
        raise EngineError(
            f"{folder} holds weights that are not the model's",
            got=_listed(others),
            expected=f"{', '.join(checkpoint.weight_files)} only",
            fix="Move the other files out of the folder.",
        )


def _check_tied(checkpoint: Checkpoint, model: Any) -> None:
    """Refuse a tied tensor that is stored with other numbers: vLLM would leave it out."""
    for copy, source in sorted(getattr(model, "all_tied_weights_keys", {}).items()):
        if not {copy, source} <= checkpoint.tensors.keys():
            continue
        if not torch.equal(checkpoint.read(copy), checkpoint.read(source)):
            raise EngineError(
                f"{checkpoint.reference}: config.json ties {copy} to {source}, their stored "
                "numbers differ",
                expected="equal tensors, or tie_word_embeddings false",
                fix="Set tie_word_embeddings to what the model was trained with.",
            )


def _listed(keys: Collection[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(sorted(keys)[:_SHOWN]) + more
