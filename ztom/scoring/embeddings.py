"""Embeddings of texts, each computed once.

A search asks the same questions at every trial, and many of the answers are those of an earlier
one. So vectors are kept by their text. That must not show in an error: the vector of a text may
depend on nothing but the text. Its last bits could depend on the shape of the batch, so a batch has
one of a few shapes, which the number of its texts' word pieces decides, and is filled up.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ztom.scoring.embedding_model import find_embedding_model
from ztom.statistics.scores import Floats

if TYPE_CHECKING:
    from ztom.scoring.minilm import MiniLM

logger = logging.getLogger(__name__)

#: Texts that are kept: 3 kB each.
_KEPT = 8192
#: Texts of one batch, by the kind of device.
_ROWS = {"cpu": 8}
_ROWS_ELSEWHERE = 64
#: Word pieces that a batch's length is a multiple of: of short texts, and of the others.
_STEP, _SHORT, _LONG_STEP = 8, 64, 32


class TextEmbedder:
    """Unit vectors of texts by all-MiniLM-L6-v2; loaded at the first use, and not pickled.

    Args:
        device: A torch device.
        kept: Number of texts whose vectors are kept; the latest ones that were asked for.
    """

    def __init__(self, *, device: str = "cpu", kept: int = _KEPT) -> None:
        self._device = device
        self._kept = kept
        self._rows = _ROWS.get(device.partition(":")[0], _ROWS_ELSEWHERE)
        self._model: MiniLM | None = None
        self._vectors: OrderedDict[bytes, Floats] = OrderedDict()

    def load(self) -> MiniLM:
        """Find the model and load it, unless that was done.

        Raises:
            ConfigError: It is nowhere to be found.
        """
        if self._model is None:
            from ztom.scoring.minilm import MiniLM  # torch takes seconds

            folder = find_embedding_model()

            self._model = MiniLM(folder, device=self._device)
            logger.info("embedding model loaded from %s", folder)
        return self._model

    def vectors(self, texts: Sequence[str]) -> Floats:
        """Vectors of unit length in float64, shape (texts, dimensions)."""
        keys = [_key(text) for text in texts]
        known = {key: self._vectors[key] for key in keys if key in self._vectors}
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        known |= zip(new, self._computed(list(new.values())), strict=True)
        self._keep(known)
        return np.stack([known[key] for key in keys])

    def _computed(self, texts: Sequence[str]) -> list[Floats]:
        if not texts:
            return []
        model = self.load()
        pieces = model.pieces(texts)
        vectors: list[Floats] = [np.empty(0)] * len(texts)
        for length, places in batches_by_length([len(row) for row in pieces], rows=self._rows):
            filled = [pieces[i] for i in places]
            filled += [filled[0]] * (self._rows - len(filled))
            rows = model.embed(filled, length=length).numpy().astype(np.float64)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)  # float32 norms are 1 to 1e-7
            for i, row in zip(places, rows, strict=False):  # what filled it up comes last
                vectors[i] = row
        return vectors

    def _keep(self, vectors: dict[bytes, Floats]) -> None:
        for key, vector in vectors.items():
            self._vectors[key] = vector
            self._vectors.move_to_end(key)
        while len(self._vectors) > self._kept:
            self._vectors.popitem(last=False)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_model": None, "_vectors": OrderedDict()}


def batches_by_length(lengths: Sequence[int], *, rows: int) -> list[tuple[int, list[int]]]:
    """Texts of nearly the same length together: the length of each batch, and places of its texts.

    Args:
        lengths: Number of word pieces of each text.
        rows: Most texts of one batch.
    """
    by_length: dict[int, list[int]] = {}
    for i, length in enumerate(lengths):
        by_length.setdefault(_padded(length), []).append(i)
    return [
        (length, places[start : start + rows])
        for length, places in sorted(by_length.items())
        for start in range(0, len(places), rows)
    ]


def _padded(length: int) -> int:
    step = _STEP if length <= _SHORT else _LONG_STEP
    return -(-length // step) * step


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
