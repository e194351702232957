"""Which files of a folder are a checkpoint, and where each tensor lies.

The layouts are those of transformers (``model.safetensors``, or shards with
``model.safetensors.index.json``) and PEFT (``adapter_model.safetensors`` with
``adapter_config.json``). Folders of pickles and folders with code are refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from ztom.checkpoints.config_checks import is_head
from ztom.checkpoints.kept_paths import PICKLES
from ztom.checkpoints.reference import is_plain_name
from ztom.checkpoints.source import Source
from ztom.checkpoints.tensors import TensorSpec, read_header
from ztom.errors import CheckpointError
from ztom.io.json import read_json_object
from ztom.settings import Settings

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"
PICKLED_ADAPTER = "adapter_model.bin"

#: Largest JSON file that is parsed, in bytes (an index of 100,000 tensors has about 10 MB).
MAX_JSON_BYTES = 64 * 2**20

_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
#: Keys by which a configuration names code of its own.
CODE_KEYS = ("auto_map", "custom_pipelines")
#: Keys by which other files of a checkpoint name a class.
_CLASS_KEYS = (
    "tokenizer_class",
    "processor_class",
    "image_processor_type",
    "feature_extractor_type",
)
_KEPT = (
    CONFIG,
    ADAPTER_CONFIG,
    INDEX,
    "generation_config.json",
    "tokenizer*.json",
    "*.model",
    "*.tiktoken",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template*.json",
    "chat_template*.jinja",
    "preprocessor_config.json",
    "processor_config.json",
)


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of a checkpoint.

    Attributes:
        kind: A full model, or a PEFT adapter.
        weights: Names of the safetensors files, sorted.
        weight_map: The file of each tensor according to the index; None without one.
        files: Names of the other files that belong to it, sorted.
    """

    kind: Literal["full", "adapter"]
    weights: tuple[str, ...]
    weight_map: Mapping[str, str] | None
    files: tuple[str, ...]


def find_layout(source: Source) -> Layout:
    """Decide what a folder holds, from the names of its files and the index.

    Raises:
        CheckpointError: No checkpoint, an ambiguous one, pickles only, code, or a shard that is
            missing or not in the index.
    """
    names = source.names()
    where = source.reference
    _refuse_code(where, names)
    files = tuple(name for name in names if any(fnmatchcase(name, kept) for kept in _KEPT))
    full = SINGLE in names or INDEX in names
    if ADAPTER in names or (ADAPTER_CONFIG in names and not full):
        if PICKLED_ADAPTER in names and ADAPTER not in names:
            raise _no_weights(where, names, ADAPTER)
        if full:
            raise CheckpointError(
                f"{where} is ambiguous",
                got="a full model and an adapter",
                expected="one of the two",
            )
        _require(where, names, (ADAPTER_CONFIG, ADAPTER))
        return Layout("adapter", (ADAPTER,), None, files)
    if not full:
        raise _no_weights(where, [path for path in source.paths() if "/" not in path])
    _require(where, names, (CONFIG,))
    # Left behind by training; kept, it would make transformers look for an adapter.
    files = tuple(name for name in files if name != ADAPTER_CONFIG)
    shards = [name for name in names if _SHARD.fullmatch(name)]
    if INDEX not in names:
        if shards:
            raise CheckpointError(
                f"{where} is ambiguous",
                got=f"{SINGLE} beside {shards[0]}",
                expected="one of the two",
            )
        return Layout("full", (SINGLE,), None, files)
    weight_map = _read_index(source)
    listed = sorted(set(weight_map.values()))
    present = sorted({*shards, *({SINGLE} & set(names))} | (set(listed) & set(names)))
    if present != listed:
        raise CheckpointError(
            f"{where}: the shards are not those of {INDEX}",
            got=difference(present, listed),
            expected=f"{len(listed)} shards",
        )
    return Layout("full", tuple(listed), weight_map, files)


def read_config(source: Source, layout: Layout) -> tuple[Mapping[str, Any], list[str]]:
    """Read the configuration, refusing every file of it that cannot do without code of its own.

    Returns:
        The configuration without what names code, and a sentence for each file that does although
        transformers ships the class.

    Raises:
        CheckpointError: Not valid JSON, or it names code of a class that transformers lacks.
    """
    main = CONFIG if layout.kind == "full" else ADAPTER_CONFIG
    config = read_json(source, main)
    notes = []
    for name in layout.files:
        if not name.endswith("config.json"):
            continue
        content = config if name == main else read_json(source, name)
        for key in CODE_KEYS:
            if not content.get(key):
                continue
            if not is_shipped(config, content):
                raise CheckpointError(
                    f"{source.reference}: {name} asks for code of its own ({key})",
                    got=content[key],
                    expected="a model that transformers ships",
                    fix="Save it with the class that transformers ships; code is never run.",
                )
            notes.append(
                f"{source.reference}: {name} asks for code of its own ({key}); the class that "
                "transformers ships is used"
            )
    return {key: value for key, value in config.items() if key not in CODE_KEYS}, notes


def read_tensors(
    source: Source, layout: Layout, *, settings: Settings
) -> tuple[Mapping[str, TensorSpec], list[str]]:
    """Read all headers and compare them with the index.

    Returns:
        Where each tensor lies, sorted by name; and a sentence where the index lists an output head
        that no file has.

    Raises:
        TensorFileError: A file is malformed.
        CheckpointError: A tensor stands in two files, or the index disagrees with the shards.
    """
    tensors: dict[str, TensorSpec] = {}
    for file in layout.weights:
        for name, spec in read_header(source, file, settings=settings).items():
            if name in tensors:
                raise CheckpointError(
                    f"{source.reference}: tensor {name} stands twice",
                    got=f"{tensors[name].file} and {file}",
                )
            tensors[name] = spec
    if not tensors:
        raise CheckpointError(f"{source.reference} holds no tensors")
    notes = []
    if layout.weight_map is not None:
        notes = _compare_with_index(source.reference, tensors, layout.weight_map)
    return dict(sorted(tensors.items())), notes


def read_json(source: Source, name: str) -> Mapping[str, Any]:
    """Read one JSON file whose top level is an object.

    Raises:
        CheckpointError: Too large, not JSON, or not an object.
    """
    raw = source.read(name, 0, min(source.size(name), MAX_JSON_BYTES + 1))
    return read_json_object(raw, what=f"{source.reference}: {name}", limit=MAX_JSON_BYTES)


def difference(present: Collection[str], expected: Collection[str]) -> str:
    """What is missing and what is too much, the first five names of each."""
    texts = []
    for word, names in (
        ("missing", sorted(set(expected) - set(present))),
        ("extra", sorted(set(present) - set(expected))),
    ):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            texts.append(f"{word} {', '.join(names[:5])}{more}")
    return "; ".join(texts)


def _refuse_code(where: str, names: Collection[str]) -> None:
    # a trainer leaves scripts behind; nobody opens them, and who writes the model anew names them
    code = [name for name in names if name.endswith((".pyc", ".so"))]
    if code:
        raise CheckpointError(
            f"{where} holds code",
            got=", ".join(code[:5]),
            expected="weights, configuration and tokenizer only",
            fix="Save the model with the class that transformers ships; code is never run.",
        )


def is_shipped(config: Mapping[str, Any], content: Mapping[str, Any]) -> bool:
    """Whether transformers ships what a configuration would load from code of its own.

    Args:
        config: Content of ``config.json``, which names family and classes of the model.
        content: Content of the file that asks for code; it may name a class of its own.
    """
    from ztom.checkpoints.config_meaning import family_of
    from ztom.checkpoints.own_names import class_named

    named = config.get("architectures") or []
    classes = [*named] if isinstance(named, list) else [named]
    classes += [content[key] for key in _CLASS_KEYS if content.get(key)]
    return family_of(config) is not None and all(class_named(name) for name in classes)


def _require(where: str, names: Collection[str], required: tuple[str, ...]) -> None:
    for name in required:
        if name not in names:
            raise CheckpointError(f"{where}: {name} is missing")


def _no_weights(
    where: str, names: list[str], expected: str = f"{SINGLE} or {INDEX}"
) -> CheckpointError:
    pickles = [name for name in names if any(fnmatchcase(name, kind) for kind in PICKLES)]
    shards = [name for name in names if _SHARD.fullmatch(name)]
    if shards:
        return CheckpointError(f"{where}: {INDEX} is missing", got=f"{len(shards)} shards")
    if pickles:
        return CheckpointError(
            f"{where} holds pickled weights only",
            got=", ".join(pickles[:5]),
            expected=expected,
            fix=f"They are not loaded here. Convert them once: ztom convert {where} NEW_FOLDER",
        )
    return CheckpointError(
        f"{where} holds no weights",
        got=", ".join(names[:10]) or "no files",
        expected=f"{SINGLE}, {INDEX} or {ADAPTER}",
    )


def _read_index(source: Source) -> dict[str, str]:
    where = f"{source.reference}: {INDEX}"
    weight_map = read_json(source, INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{where} has no weight_map")
    for tensor, file in weight_map.items():
        plain = isinstance(file, str) and is_plain_name(file) and file.endswith(".safetensors")
        if not plain:
            raise CheckpointError(
                f"{where}: weight_map sends {ascii(tensor)} to a file that is not allowed",
                got=ascii(file),
                expected="the name of a safetensors file in the same folder",
            )
    return weight_map


def _compare_with_index(
    where: str, tensors: Mapping[str, TensorSpec], weight_map: Mapping[str, str]
) -> list[str]:
    # a tied head that was not stored; whether there has to be one is the configuration's to say
    heads = sorted(name for name in weight_map.keys() - tensors.keys() if is_head(name))
    listed = weight_map.keys() - set(heads)
    if tensors.keys() != listed:
        raise CheckpointError(
            f"{where}: the shards hold other tensors than {INDEX} says",
            got=difference(tensors.keys(), listed),
        )
    for name, spec in tensors.items():
        if weight_map[name] != spec.file:
            raise CheckpointError(
                f"{where}: {name} lies in another shard than {INDEX} says",
                got=spec.file,
                expected=weight_map[name],
            )
    return [f"{where}: {INDEX} lists {name}, which no file holds" for name in heads]
