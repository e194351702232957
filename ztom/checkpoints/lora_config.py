"""What ``adapter_config.json`` says: refused unless plain LoRA; rank and scale of each module.

The meaning of the fields is that of PEFT 0.21 (``LoraConfig``, ``get_pattern_key``). A field that
is not known here and is set is refused, so that a later PEFT cannot add arithmetic that is silently
left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ztom.errors import AdapterUnsupportedError

#: Initialisations that leave the base's weights alone; PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA do not.
_PLAIN_INITS = ("true", "gaussian", "eva", "orthogonal")
#: Fields that do not change what the saved factors mean, or that are checked here.
_KNOWN_FIELDS = frozenset(
    (
        *("peft_type", "peft_version", "task_type", "inference_mode", "auto_mapping"),
        *("base_model_name_or_path", "revision", "runtime_config"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
        *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "fan_in_fan_out"),
        *("bias", "init_lora_weights", "lora_dropout", "qalora_group_size"),
        *("eva_config", "corda_config", "loftq_config", "lora_ga_config"),
        *("megatron_config", "megatron_core", "ensure_weight_tying"),
    )
)
#: Patterns are regular expressions from a file: those that can take exponential time are refused.
_PATTERN = re.compile(r"[A-Za-z0-9_.^$|()\[\]*+?\\-]{1,256}")
_RISKY = re.compile(r"\)[*+?{]|\(\?|\\[0-9]|[*+?][*+?]")
_MAX_QUANTIFIERS = 2


def refuse_unsupported(reference: str, config: Mapping[str, Any]) -> None:
    """Refuse every field that makes an adapter more than plain LoRA.

    Raises:
        AdapterUnsupportedError: Names the field.
    """
    if config.get("peft_type") != "LORA":
        raise unsupported(reference, "peft_type", config.get("peft_type"), expected="LORA")
    if config.get("bias", "none") != "none":
        raise unsupported(reference, "bias", config["bias"], expected="none")
    init = config.get("init_lora_weights", True)
    if not (init is None or isinstance(init, bool) or init in _PLAIN_INITS):
        raise unsupported(
            reference,
            "init_lora_weights",
            init,
            expected="an initialisation that leaves the base alone",
            fix="Convert it with PEFT's path_initial_model_for_weight_conversion.",
        )
    for field, value in config.items():
        if field not in _KNOWN_FIELDS and value not in (None, False, "", [], {}):
            raise unsupported(reference, field, value, expected="unset")


def rank_and_scale(reference: str, config: Mapping[str, Any], module: str) -> tuple[int, float]:
    """Rank r and scale of one module: alpha / r, or alpha / sqrt(r) for rsLoRA.

    Args:
        reference: Names the adapter in errors.
        config: Content of its ``adapter_config.json``.
        module: Dotted path of the module in the model that was adapted.

    Raises:
        AdapterUnsupportedError: A field is malformed.
    """
    rank = _by_pattern(reference, config, "rank_pattern", module, default=config.get("r", 8))
    alpha = _by_pattern(
        reference, config, "alpha_pattern", module, default=config.get("lora_alpha", 8)
    )
    if type(rank) is not int or not 0 < rank < 2**31:
        raise unsupported(reference, "r", rank, expected="a positive integer")
    if type(alpha) not in (int, float) or not -1e9 < alpha < 1e9:
        raise unsupported(reference, "lora_alpha", alpha, expected="a finite number")
    rslora = config.get("use_rslora", False)
    if not isinstance(rslora, bool | None):
        raise unsupported(reference, "use_rslora", rslora, expected="true or false")
    return rank, alpha / (math.sqrt(rank) if rslora else rank)


def unsupported(
    reference: str, field: str, got: object, *, expected: str, fix: str | None = None
) -> AdapterUnsupportedError:
    """The error for a field that cannot be honoured."""
    return AdapterUnsupportedError(
        f"{reference}: {field} of the adapter is not supported",
        got=got,
        expected=expected,
        fix=fix or merge_fix(reference),
    )


def merge_fix(reference: str) -> str:
    """What to type so that an adapter becomes full weights, which have no such limits."""
    place = reference.removeprefix("hf://")
    return (
        'Merge it into its base first, and give the folder `merged` instead: python -c "from peft '
        f"import AutoPeftModelForCausalLM as Model; Model.from_pretrained('{place}')"
        ".merge_and_unload().save_pretrained('merged')\", and copy the tokenizer's files there."
    )


def _by_pattern(
    reference: str, config: Mapping[str, Any], field: str, module: str, *, default: Any
) -> Any:
    """The value of the first pattern, in the file's order, that matches the end of the path."""
    patterns = config.get(field) or {}
    if not isinstance(patterns, dict):
        raise unsupported(reference, field, patterns, expected="an object")
    for pattern, value in patterns.items():
        compiled = _compile(pattern)
        if compiled is None:
            raise unsupported(reference, field, pattern, expected="a simple pattern")
        if compiled.match(module):
            return value
    return default


@lru_cache(maxsize=4096)
def _compile(pattern: str) -> re.Pattern[str] | None:
    """The pattern as PEFT anchors it; None if it is broken or could take very long."""
    if _PATTERN.fullmatch(pattern) is None or _RISKY.search(pattern) is not None:
        return None
    if sum(pattern.count(mark) for mark in "*+?") > _MAX_QUANTIFIERS:
        return None
    try:
        return re.compile(rf"(.*\.)?({pattern})$")
    except re.error:
        return None
