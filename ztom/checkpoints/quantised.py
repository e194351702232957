"""Weights that are stored as codes: found by their tensors, whatever ``config.json`` says.

Packed weights mean nothing without the scales beside them, and a blend of the scales is the blend
of no models, so they are refused by the name of their method. A ``quantization_config`` over plain
weights, left behind by a run that merged or dequantised them, is stale: it is passed over, because
whoever obeys it would take the weights for packed ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ztom.checkpoints.derived import is_derived
from ztom.checkpoints.tensors import TensorSpec
from ztom.errors import CheckpointError

KEY = "quantization_config"
#: Names of tensors that only one method of packing writes.
_METHODS = {
    "bitsandbytes": r"\.(nested_)?(absmax|quant_map)$|\.SCB$|\.weight_format$|\.quant_state\.",
    "GPTQ or AWQ": r"\.(qweight|qzeros|g_idx)$",
    "compressed-tensors": r"\.weight_(packed|zero_point|global_scale|g_idx)$",
    "fp8": r"\.weight_scale_inv$",
    "mxfp4": r"(\.|_proj_)blocks$",
    "HQQ": r"\.W_q$",
    "AQLM": r"\.codebooks$",
    "torchao": r":(qdata|scale)$",
}
_PATTERNS = {method: re.compile(pattern) for method, pattern in _METHODS.items()}
_FIX = "Blend the weights that they were quantised from, and quantise the blend."
_FP8_FIX = (
    'Convert them: AutoModelForCausalLM.from_pretrained(FOLDER, dtype="bfloat16", '
    "quantization_config=FineGrainedFP8Config(dequantize=True)).save_pretrained(NEW), both from "
    "transformers; or blend the weights in 16 bits that they were made from."
)


def refuse_packed(
    reference: str, config: Mapping[str, Any], tensors: Mapping[str, TensorSpec]
) -> None:
    """Refuse weights that are codes.

    Args:
        reference: Names the checkpoint in errors.
        config: Content of ``config.json``.
        tensors: Place of each tensor by its name.

    Raises:
        CheckpointError: Names the method and the first such tensor.
    """
    stated = stated_method(config)
    for name, spec in tensors.items():
        method = _method(name, spec, stated)
        if method is None:
            continue
        raise CheckpointError(
            f"{reference} is quantised ({method})",
            got=f"{name} in {str(spec.dtype).removeprefix('torch.')}",
            expected="weights in floating point of 16 bits or more",
            fix=_FP8_FIX if method == "fp8" else _FIX,
        )


def without_stale(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of plain weights, without what says that they are packed."""
    kept = {key: value for key, value in config.items() if key != KEY}
    for key, value in kept.items():
        if isinstance(value, Mapping) and KEY in value:
            kept[key] = {k: v for k, v in value.items() if k != KEY}
    return kept


def stated_method(config: Mapping[str, Any]) -> str | None:
    """What ``quantization_config`` says, at the top or in a nested part; None without one."""
    for part in (config, *(v for v in config.values() if isinstance(v, Mapping))):
        stated = part.get(KEY)
        if stated:
            return str(stated.get("quant_method") or "") if isinstance(stated, Mapping) else ""
    return None


def _method(name: str, spec: TensorSpec, stated: str | None) -> str | None:
    if spec.dtype.is_floating_point and spec.dtype.itemsize == 1:
        return "fp8"
    for method, pattern in _PATTERNS.items():
        if pattern.search(name):
            return method
    # a method that is not known here: weights are at least matrices, and are not integers
    if stated is not None and len(spec.shape) > 1 and not spec.dtype.is_floating_point:
        return None if is_derived(name, spec.shape) else stated or "a method that is not named"
    return None
