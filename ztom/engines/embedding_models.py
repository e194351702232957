"""Which models give embeddings instead of text, told from their files.

A folder of sentence-transformers lists its modules in ``modules.json``, and one of them pools the
hidden states of all tokens into one vector. Without that list, a model that was saved without any
head (``BertModel``, ``Qwen3Model``) has nothing but hidden states to give. Nothing heavy is
imported here: a controller asks as well as a replica.
"""

from __future__ import annotations

import json
from typing import Any

from ztom.io.files import read_place
from ztom.io.places import StoragePlace

_MODULES, _CONFIG = "modules.json", "config.json"
_POOLING = "Pooling"


def gives_embeddings(folder: StoragePlace) -> bool:
    """Whether the model in a folder, here or in a store, gives embeddings.

    A file that cannot be read says nothing.
    """
    modules = _read(folder / _MODULES)
    if isinstance(modules, list):
        kinds = [str(module.get("type")) for module in modules if isinstance(module, dict)]
        return any(kind.rpartition(".")[2] == _POOLING for kind in kinds)
    config = _read(folder / _CONFIG)
    named = config.get("architectures") if isinstance(config, dict) else None
    names = [str(name) for name in named] if isinstance(named, list) else []
    return bool(names) and all(map(_is_headless, names))


def _is_headless(architecture: str) -> bool:
    """Whether a class of transformers is a bare model: ``BertModel``, and not ``GPT2LMHeadModel``
    or ``BertForMaskedLM``.
    """
    return architecture.endswith("Model") and "Head" not in architecture


def _read(path: StoragePlace) -> Any:
    try:
        return json.loads(read_place(path))
    except (OSError, ValueError):
        return None
