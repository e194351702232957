"""What a tokenizer means: which token each id is, and which ids a text becomes.

`ztom.checkpoints.tokenizer` tells whether two tokenizers are written alike; this asks transformers
what they do, so that ``tokenizer.json`` and the ``tokenizer.model`` that it was made from are one.
Only a tokenizer's own files are shown to transformers, in a folder of their own: there is no code
among them, and none is run.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ztom.checkpoints.config_meaning import family_of
from ztom.checkpoints.layout import MAX_JSON_BYTES, read_json
from ztom.checkpoints.source import Source
from ztom.errors import CheckpointError

_CONFIG = "tokenizer_config.json"
#: Names of the files that a tokenizer consists of.
TOKENIZER_FILES = (
    "tokenizer*.json", "*.model", "*.tiktoken", "special_tokens_map.json", "added_tokens.json",
    "vocab.*", "merges.txt",
)  # fmt: skip
#: Texts whose ids are compared: words, numbers, code, white space, several scripts. Short, so that
#: a pattern that goes back and forth over them comes to its end.
PROBES = (
    "The quick brown fox jumps over the lazy dog.",
    "it's   three  spaces\tand a tab\n\nand an empty line",
    "3.14159 and 1234567890, $99.95 (50%)",
    "def f(x_1: int) -> list[str]:\n    return [f'{x_1!r}'] * 2  # ok",
    "Größe naïve façade, Ελληνικά, русский текст, עברית",
    "日本語の文章。한국어 문장 🙂👍🏽 e\u0301",
    " leading and trailing ",
    "https://example.org/a?b=c&d=%20 <b>HTML</b>",
)


@dataclass(frozen=True)
class TokenizerMeaning:
    """What a tokenizer does.

    Attributes:
        tokens: Token of each id, added ones among them.
        probes: Ids of each of `PROBES`, without special tokens.
        marked: Ids of the first of them with the special tokens that are put around a text.
        bounds: The tokens that begin and end a text; None where it has none.
        padding: The token that fills a batch up; None where it has none.
    """

    tokens: Mapping[int, str]
    probes: tuple[tuple[int, ...], ...]
    marked: tuple[int, ...]
    bounds: tuple[str | None, str | None] = (None, None)
    padding: str | None = None


def tokenizer_meaning(
    source: Source, files: Collection[str], config: Mapping[str, Any]
) -> TokenizerMeaning:
    """Ask transformers what a checkpoint's tokenizer does.

    Args:
        source: The checkpoint's files.
        files: Names of the files of the source that belong to the checkpoint.
        config: Content of its ``config.json``; only the kind of model is looked at.

    Raises:
        CheckpointError: The tokenizer cannot be loaded, or a file of it is too large.
        StorageError: The store failed.
    """
    with tempfile.TemporaryDirectory(prefix="ztom-tokenizer-") as folder:
        _copy(source, files, Path(folder))
        if family_of(config) is not None:  # some kinds of model say which tokenizer they have
            kind = json.dumps({"model_type": config["model_type"]})
            (Path(folder) / "config.json").write_text(kind, encoding="utf-8")
        return _ask(Path(folder), source.reference)


def chat_template_digest(source: Source, files: Collection[str]) -> str | None:
    """SHA-256 of the chat templates, wherever they stand, lower-case hex; None without any."""
    templates = chat_templates(source, files)
    if not templates:
        return None
    text = json.dumps({name: text.rstrip("\n") for name, text in sorted(templates.items())})
    return hashlib.sha256(text.encode()).hexdigest()


def chat_templates(source: Source, files: Collection[str]) -> Mapping[str, str]:
    """The chat templates by their names; the usual one is ``default``.

    Raises:
        CheckpointError: A file of the tokenizer is not JSON.
    """
    templates: dict[str, str] = {}
    for name in (_CONFIG, "chat_template.json"):
        if name in files:
            templates |= _templates(read_json(source, name).get("chat_template"))
    if "chat_template.jinja" in files:  # it goes before what the configuration says
        templates["default"] = source.read("chat_template.jinja").decode("utf-8", "replace")
    return templates


def _templates(value: object) -> dict[str, str]:
    """One template, or several by name, as old tokenizers have them."""
    if isinstance(value, str):
        return {"default": value}
    entries = value if isinstance(value, list) else []
    return {
        str(entry["name"]): str(entry["template"])
        for entry in entries
        if isinstance(entry, dict) and {"name", "template"} <= entry.keys()
    }


def _copy(source: Source, files: Collection[str], folder: Path) -> None:
    for name in files:
        if not any(fnmatchcase(name, pattern) for pattern in TOKENIZER_FILES):
            continue
        if source.size(name) > MAX_JSON_BYTES:
            raise CheckpointError(
                f"{source.reference}: {name} is too large",
                got=f"{source.size(name)} bytes",
                expected=f"at most {MAX_JSON_BYTES}",
            )
        (folder / name).write_bytes(source.read(name))


def _ask(folder: Path, reference: str) -> TokenizerMeaning:
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=True
        )
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        return TokenizerMeaning(
            tokens={int(index): str(token) for token, index in vocabulary.items()},
            probes=tuple(_ids(tokenizer, text, special=False) for text in PROBES),
            marked=_ids(tokenizer, PROBES[0], special=True),
            bounds=(tokenizer.bos_token, tokenizer.eos_token),
            padding=tokenizer.pad_token,
        )
    # what its parsers and patterns raise is of any kind; a panic of Rust is no Exception
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise
        raise CheckpointError(
            f"the tokenizer of {reference} cannot be loaded",
            got=f"{type(error).__name__}: {str(error).replace(str(folder), reference)}",
        ) from None


def _ids(tokenizer: Any, text: str, *, special: bool) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=special)["input_ids"])
