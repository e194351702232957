"""A digest of what a tokenizer does, blind to how its files were written.

Two saves of one tokenizer differ in padding and truncation settings, in the notation of merges, and
in fields that are null; none of it changes which ids a text becomes. What does is hashed. The chat
template is not part of it: iterations of a chain may change it, and the latest one's is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any

from ztom.checkpoints.layout import read_json
from ztom.checkpoints.source import Source

_FAST = "tokenizer.json"
#: Vocabularies of tokenizers that have no ``tokenizer.json``.
_SLOW = ("vocab.json", "vocab.txt", "merges.txt", "added_tokens.json")
_SLOW_SUFFIXES = (".model", ".tiktoken")
_IGNORED = frozenset({"truncation", "padding", "version"})


def tokenizer_digest(source: Source, files: Collection[str]) -> str | None:
    """SHA-256 of the tokenizer's behaviour, lower-case hex; None where there is no tokenizer.

    Args:
        source: The checkpoint's files.
        files: Names of the files of the source that belong to the checkpoint.

    Raises:
        CheckpointError: ``tokenizer.json`` is not valid JSON.
    """
    if _FAST in files:
        content = read_json(source, _FAST)
        kept = {key: _normal(value) for key, value in content.items() if key not in _IGNORED}
        text = json.dumps(kept, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
    slow = sorted(n for n in files if n in _SLOW or n.endswith(_SLOW_SUFFIXES))
    if not slow:
        return None
    lines = "".join(f"{name} {source.sha256(name)}\n" for name in slow)
    return hashlib.sha256(lines.encode()).hexdigest()


def _normal(value: Any) -> Any:
    """The value with no null fields, and with merges as pairs."""
    if not isinstance(value, dict):
        return value
    result = {key: _normal(item) for key, item in value.items() if item is not None}
    merges = result.get("merges")
    if isinstance(merges, list):
        result["merges"] = [m.split(" ", 1) if isinstance(m, str) else m for m in merges]
    return result
