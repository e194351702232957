"""Compiles JSON schemas as engines do, in the process of `serve_apps.variants.schema_check`.

xgrammar is vLLM's first choice; what it does not know, another back end may, so that only time and
memory are decided here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

_compilers: dict[str, Any] = {}


def learn(vocabulary: str, info: str | None) -> None:
    """Take a vocabulary to compile for; the one before it is forgotten.

    Args:
        vocabulary: Name of the vocabulary.
        info: xgrammar's tokenizer, in its own JSON; None where there is none, and nothing is
            compiled.
    """
    import xgrammar

    _compilers.clear()
    _compilers[vocabulary] = info and xgrammar.GrammarCompiler(
        xgrammar.TokenizerInfo.deserialize_json(info), max_threads=1, cache_enabled=False
    )


def knows(vocabulary: str) -> bool:
    """Whether a vocabulary was learnt."""
    return vocabulary in _compilers


def convert(schemas: Sequence[str]) -> None:
    """Make grammars of schemas, as vLLM does in the process that takes requests in."""
    import xgrammar

    for schema in schemas:
        with contextlib.suppress(Exception):
            xgrammar.Grammar.from_json_schema(schema)


def compile_for(vocabulary: str, schemas: Sequence[str]) -> None:
    """Compile schemas for a vocabulary that was learnt, as vLLM does beside its engine."""
    compiler = _compilers[vocabulary]
    for schema in schemas if compiler else ():
        with contextlib.suppress(Exception):
            compiler.compile_json_schema(schema)
