"""Whether a JSON schema can be compiled in time, tried out before an engine is asked.

Engines make a grammar of a schema, and compile that for their vocabulary: some short schemas take
hours and gigabytes. What the form of a schema tells is refused first
(`serve_apps.variants.response_format`); what is left is compiled in another process, with a limit
on computing time and memory, and only what passed reaches the engine. It is remembered.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ztom.io.bounded import BoundedPool, OverLimitError

logger = logging.getLogger(__name__)

#: Seconds of computing: for the grammar, which vLLM makes where it takes requests in, and for
#: compiling it.
_CONVERT_S, _COMPILE_S = 0.5, 4.0
#: For importing the compiler and reading the vocabulary, once.
_LEARN_S = 60.0
_MEMORY_BYTES = 4 * 2**30
_REMEMBERED = 1_024
_TASKS = "serve_apps.variants.schema_task"


def schemas_of(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The schemas of a checked request that a grammar may be made of."""
    schemas = []
    format_ = body.get("response_format")
    if isinstance(format_, dict) and format_.get("type") == "json_schema":
        schemas.append(format_["json_schema"]["schema"])
    for tool in body.get("tools") or ():
        parameters = tool["function"].get("parameters")
        if isinstance(parameters, dict):
            schemas.append(parameters)
    return schemas


class SchemaCheck:
    """Tries schemas out for one vocabulary.

    Args:
        vocabulary: Function that gives xgrammar's tokenizer of the model, in its own JSON; called
            once, in a thread.
        tasks: Module of the functions that run in the other process.
    """

    def __init__(self, vocabulary: Callable[[], str], *, tasks: str = _TASKS) -> None:
        self._vocabulary = functools.cache(functools.partial(_if_any, vocabulary))
        self._tasks = tasks
        self._pool = BoundedPool(processes=1, memory_bytes=_MEMORY_BYTES)
        self._known: OrderedDict[str, str | None] = OrderedDict()
        self._one_at_a_time = asyncio.Lock()

    async def problem(self, schemas: Sequence[Mapping[str, Any]]) -> str | None:
        """Why schemas cannot be compiled, as a sentence; None where they can.

        Args:
            schemas: Schemas whose form was checked.
        """
        texts = [json.dumps(schema, sort_keys=True) for schema in schemas]
        key = hashlib.sha256("\n".join(texts).encode()).hexdigest()
        if key not in self._known:
            async with self._one_at_a_time:
                if key not in self._known:
                    self._known[key] = await asyncio.to_thread(self._tried, texts)
        problem = self._known[key]
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return problem

    def close(self) -> None:
        """End the other process."""
        self._pool.close()

    def _tried(self, schemas: Sequence[str]) -> str | None:
        call = functools.partial(self._pool.call, cpu_s=_COMPILE_S)
        if not call(f"{self._tasks}:knows", "model"):
            self._pool.call(
                f"{self._tasks}:learn", "model", self._vocabulary(), cpu_s=_LEARN_S, wall_s=600
            )
        try:
            self._pool.call(f"{self._tasks}:convert", schemas, cpu_s=_CONVERT_S)
            call(f"{self._tasks}:compile_for", "model", schemas)
        except OverLimitError as error:
            return f"the schema is too complex to compile: {error}"
        return None


def _if_any(vocabulary: Callable[[], str]) -> str | None:
    """The vocabulary; None for a tokenizer that xgrammar does not know."""
    try:
        return vocabulary()
    except Exception as error:
        logger.warning("no schema is compiled ahead for this tokenizer: %s", error)
        return None
