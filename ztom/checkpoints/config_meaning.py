"""What a model's configuration means: what transformers makes of ``config.json``, by dotted key.

Two versions of transformers write one configuration differently: as defaults that one leaves out
and the other spells (``head_dim``, ``attention_bias``), under other keys (``rope_theta`` and
``rope_parameters``), or as another notation of infinity. So a configuration is compared as the
family's own class reads it. Only classes that transformers ships are asked, code of a checkpoint is
never run, and a configuration whose numbers would make them work for long is taken as it is
written.
"""

from __future__ import annotations

import inspect
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

#: One value of a configuration by its key, those of nested parts joined by dots.
Meaning = Mapping[str, Any]

#: Keys that say how a model was made, trained or is run, not what its weights mean.
_IRRELEVANT = re.compile(
    r"_.*|unsloth_.*|transformers_version|dtype|torch_dtype|architectures|auto_map"
    r"|use_cache|(attn|experts)_implementation|use_bfloat16|torchscript|gradient_checkpointing"
    r"|(.*_)?(dropout|pdrop|layerdrop|drop_path|drop)(_(prob|rate|p|ratio))?"
    r"|initializer_\w+|init_std|init_xavier_std|rescale_prenorm_residual"
    r"|router_(aux_loss_coef|z_loss_coef|jitter_noise)|aux_loss_\w+"
    r"|output_(attentions|hidden_states|router_logits)|return_dict|keys_to_ignore_at_inference"
    r"|pretraining_tp|finetuning_task|tokenizer_class"
)
#: Labels: a class would make as many as ``num_labels`` says; they are compared on their own.
_LABELS = re.compile(r"num_labels|id2label|label2id")
#: Keys whose numbers may be large; of any other a class may make a list as long as it says.
_LARGE = re.compile(r".*(vocab|position|theta|token|len|seq|context|ctx|window|factor|scale).*")
_ROTARY = ("rope_scaling", "rope_parameters")
_MOST_ENTRIES = 100_000
_MOST_VALUES = 100_000
_NOT_FINITE = {
    "infinity": math.inf, "inf": math.inf, "+infinity": math.inf, "-infinity": -math.inf,
    "-inf": -math.inf, "nan": math.nan,
}  # fmt: skip


def config_meanings(configs: Sequence[Mapping[str, Any]]) -> list[Meaning]:
    """What configurations of one model mean, all read in the same way.

    Args:
        configs: Contents of ``config.json``.

    Returns:
        As the family's class reads them; as they are written where it cannot read one of them, or
        where transformers does not know the family.
    """
    plain = [_plain(config) for config in configs]
    if all(config == plain[0] for config in plain[1:]):
        return [_flat(config) for config in plain]
    read = [_read(config) for config in plain]
    if all(config is not None for config in read):
        return [_flat(_plain(config)) for config in read if config is not None]
    return [_flat(config) for config in plain]


def family_of(config: Mapping[str, Any]) -> Any | None:
    """The configuration class that transformers ships for this kind of model; None without one."""
    from transformers import CONFIG_MAPPING

    model_type = config.get("model_type")
    try:
        return CONFIG_MAPPING[model_type]  # it imports what is looked up, and has no get
    except (KeyError, TypeError):
        return None


def labels_of(config: Mapping[str, Any]) -> Mapping[int, str]:
    """Names of a classifier's outputs by their index, without those that only count."""
    labels = config.get("id2label")
    if not isinstance(labels, dict):
        return {}
    return {
        int(index): str(label)
        for index, label in labels.items()
        if re.fullmatch(r"[0-9]{1,9}", str(index)) and label != f"LABEL_{index}"
    }


def is_read(config: Mapping[str, Any], key: str) -> bool:
    """Whether the code of a configuration's family knows a key, so that it may change answers.

    A key that the class does not declare and that no file of the family mentions is read by
    nothing. True where the family is not known.

    Args:
        config: Content of ``config.json``.
        key: Dotted key of `config_meanings`.
    """
    kind = family_of(config)
    if kind is None:
        return True
    parts = key.split(".")
    declared = set(_declared(kind))
    return any(part in declared or _mentions(kind, part) for part in parts)


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without what says nothing about the function, and with one notation of each number."""
    return {
        key: _rotary(value) if key in _ROTARY and isinstance(value, dict) else _value(value)
        for key, value in config.items()
        if not _IRRELEVANT.fullmatch(key) and not _LABELS.fullmatch(key)
    }


def _rotary(value: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary positions, whose kind was called ``type`` before it was ``rope_type``."""
    plain = _plain(value)
    kind = plain.pop("type", None)
    return plain if kind is None else {"rope_type": kind, **plain}


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"__float__"}:
            return _value(value["__float__"])
        return _plain(value)
    if isinstance(value, list | tuple):
        return [_value(item) for item in value]
    if isinstance(value, str):
        return _number(_NOT_FINITE.get(value.lower(), value))
    return _number(value)


def _number(value: Any) -> Any:
    return _NAN if isinstance(value, float) and math.isnan(value) else value


#: One object, equal to itself, for every NaN.
_NAN = math.nan


def _read(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The configuration as the family's class reads it; None where it cannot or should not."""
    kind = family_of(config)
    if kind is None or not _is_small(config):
        return None
    try:
        read: dict[str, Any] = kind.from_dict(dict(config)).to_dict()
    except Exception as error:  # transformers raises whatever its parsers raise
        logger.debug("a configuration cannot be read as %s: %s", config["model_type"], error)
        return None
    return read


def _is_small(config: Mapping[str, Any]) -> bool:
    """Whether a class can read it in a moment: no count that it would make a long list of."""
    values = list(_leaves(config))
    return len(values) <= _MOST_VALUES and not any(
        isinstance(value, int) and abs(value) > _MOST_ENTRIES and not _LARGE.fullmatch(key)
        for key, value in values
    )


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, str(name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item, key)
    else:
        yield key, value


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif value is not None:  # not said, and said to be nothing
            flat[f"{prefix}{key}"] = value
    return dict(sorted(flat.items()))


def _declared(kind: Any) -> Iterator[str]:
    """Keys that a class and those of its nested parts declare, and their other names."""
    yield from getattr(kind, "__dataclass_fields__", ())
    yield from getattr(kind, "attribute_map", ())
    for part in getattr(kind, "sub_configs", {}).values():
        if part is not kind and hasattr(part, "sub_configs"):
            yield from _declared(part)


def _mentions(kind: Any, key: str) -> bool:
    """Whether a file of the family has a key as a word; True where there is no source."""
    try:
        folder = Path(inspect.getfile(kind)).parent
        files = sorted(folder.glob("*.py"))
    except (OSError, TypeError):
        return True
    word = re.compile(rf"\b{re.escape(key)}\b")
    return not files or any(word.search(file.read_text(encoding="utf-8")) for file in files)
