"""Answers that were given before, on disk, found again only where nothing they depend on changed.

The key of an answer is the sha256 of what it follows from: the digest of the model's content (base,
adapters, tokenizer and template are part of it), the factors of the blend, how the engine is set
up, its name, version, dtype and device, the prompt as asked and the decode settings; for sampled
answers the item and the repeat as well. Names are no part of it: another model of the same name
finds nothing, and a model with one byte of a weight changed is another model.

A SQLite file: an answer is there whole or not at all, and several runs may read and write at once.
The oldest answers make room when it grows over its limit. A cache that cannot be read or written is
no reason to lose a run: it says so in the log, once, and is not asked again.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ztom.engines.protocol import Generates, GenerationConfig
from ztom.evaluation.suites.digests import canonical
from ztom.io.private import private_file, private_folder
from ztom.settings import Settings
from ztom.stimuli.batches import batches
from ztom.stimuli.records import Message, Prompt

logger = logging.getLogger(__name__)

_FORMAT = 1
_BUSY_S = 60.0
_MAX_BYTES = 2 * 2**30
_AT_ONCE = 500


@dataclass(frozen=True)
class AnswerOrigin:
    """The model that answers and how it is run, as keys have it.

    Attributes:
        model: Digest of the model's content.
        setup: Digest of how it is run (`ztom.evaluation.runs.models.setup_digest`).
        engine: Name, version, dtype and device of the engine.
        factors: Scaling factors of the blend that is loaded; none for a written model.
    """

    model: str
    setup: str
    engine: tuple[str, ...]
    factors: tuple[float, ...]

    @classmethod
    def of(cls, engine: Generates, *, model: str, setup: str) -> AnswerOrigin:
        """The model with this digest on this engine, with the factors now loaded."""
        info = engine.info
        version = (info.name, info.version, info.dtype, info.device)
        return cls(model=model, setup=setup, engine=version, factors=engine.factors)

    def key(self, prompt: Prompt, decode: GenerationConfig, *, sample: str | None) -> str:
        """The key of one answer, lower-case hex.

        Args:
            prompt: Prompt as it was asked.
            decode: Settings of generation of the suite.
            sample: Text that tells sampled answers to one prompt apart; None for greedy ones.
        """
        return self._digest(
            {"prompt": _plain(prompt), "decode": decode.model_dump(mode="json"), "sample": sample}
        )

    def run_key(self, suite: str) -> str:
        """The key of a run on the suite with this digest, lower-case hex."""
        return self._digest({"suite": suite})

    def _digest(self, more: Mapping[str, object]) -> str:
        who = {
            "format": _FORMAT,
            "model": self.model,
            "setup": self.setup,
            "engine": self.engine,
            "factors": self.factors,
        }
        return hashlib.sha256(canonical({**who, **more})).hexdigest()


def _plain(prompt: Prompt) -> object:
    if isinstance(prompt, str):
        return prompt
    return [part.fields() if isinstance(part, Message) else part for part in prompt]


def usual_cache(settings: Settings) -> AnswerCache:
    """The cache that every run of an installation shares."""
    return AnswerCache(settings.cache / "evaluation" / "answers.db")


class AnswerCache:
    """The answers in one file; for one thread, while other processes use it too.

    Args:
        path: Path of the file; its folder is made.
        max_bytes: Largest size of the answers, bytes; above it the oldest go.
    """

    def __init__(self, path: Path, *, max_bytes: int = _MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._path = path
        self._database: sqlite3.Connection | None = None
        try:
            private_folder(path.parent)
            private_file(path)
            # The rollback journal, not the write-ahead log: safe with every SQLite there is.
            self._database = sqlite3.connect(path, timeout=_BUSY_S)
            with self._database as database:
                database.execute(
                    "CREATE TABLE IF NOT EXISTS answers "
                    "(key TEXT PRIMARY KEY, answer TEXT NOT NULL, given REAL NOT NULL)"
                )
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def find(self, keys: Sequence[str]) -> dict[str, str]:
        """The answers that are there, by key."""
        answers: dict[str, str] = {}
        for some in batches(keys, _AT_ONCE):
            marks = ",".join("?" * len(some))
            query = f"SELECT key, answer FROM answers WHERE key IN ({marks})"
            try:
                if self._database is not None:
                    answers.update(self._database.execute(query, list(some)).fetchall())
            except sqlite3.Error as error:
                self._give_up(error)
        return answers

    def keep(self, answers: Mapping[str, str]) -> None:
        """Keep answers, all or none of them."""
        now = time.time()
        rows = [(key, answer, now) for key, answer in answers.items()]
        if self._database is None or not rows:
            return
        try:
            with self._database as database:
                database.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", rows)
            self._make_room(self._database)
        except sqlite3.Error as error:
            self._give_up(error)

    def close(self) -> None:
        """Close the file; calling it twice is harmless."""
        if self._database is not None:
            self._database.close()
        self._database = None

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _make_room(self, database: sqlite3.Connection) -> None:
        if _used(database) <= self._max_bytes:
            return
        (count,) = database.execute("SELECT count(*) FROM answers").fetchone()
        while _used(database) > self._max_bytes * 9 // 10 and count > 0:
            some = max(1, count // 10)
            with database:
                database.execute(
                    "DELETE FROM answers WHERE key IN "
                    "(SELECT key FROM answers ORDER BY given, rowid LIMIT ?)",
                    (some,),
                )
            count -= some

    def _give_up(self, error: Exception) -> None:
        logger.warning(
            "the cache of answers %s cannot be used, every answer is asked for: %s",
            self._path,
            error,
        )
        self.close()


def _used(database: sqlite3.Connection) -> int:
    """Bytes that hold something; pages that became free are used again."""
    pages, free, size = (
        database.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
