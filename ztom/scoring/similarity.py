"""``sentence_similarity``: 1 - cosine between embeddings of the generated and the expected text.

The embeddings are those of all-MiniLM-L6-v2 (Reimers and Gurevych 2019) through
sentence-transformers, in float32 on the CPU unless told otherwise. Only the first 256 word pieces
of a text count: that is the model's limit. It measures likeness of meaning, not correctness.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ztom.errors import ScoringError
from ztom.scoring.embedding_model import find_embedding_model
from ztom.scoring.finite import check_finite
from ztom.scoring.protocol import Need
from ztom.scoring.text import generated_text
from ztom.statistics.scores import Floats, MeanScores, Scores
from ztom.stimuli.records import Output, Stimulus

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

_CACHED_SETS = 8


class SentenceSimilarity:
    """1 - cosine similarity of sentence embeddings, in [0, 2].

    The model is loaded at the first use and not pickled. Expected outputs are embedded once per
    set of stimuli. The cache is per set, not per text, because a text's embedding differs in the
    last bits with what it is batched with: so an error depends only on the set, never on what was
    scored before.

    Args:
        device: A torch device.
        batch_size: Texts per forward pass.
    """

    def __init__(self, *, device: str = "cpu", batch_size: int = 64) -> None:
        self._device = device
        self._batch_size = batch_size
        self._model: SentenceTransformer | None = None
        self._references: dict[str, Floats] = {}

    @property
    def name(self) -> str:
        """Name of the error function as written in the configuration."""
        return "sentence_similarity"

    @property
    def needs(self) -> frozenset[Need]:
        """Generated text."""
        return frozenset({Need.TEXT})

    def score(self, stimuli: Sequence[Stimulus], outputs: Sequence[Output]) -> Scores:
        """Compare each generated text with its expected output.

        Raises:
            ConfigError: The embedding model is nowhere to be found.
            ScoringError: An embedding is not finite.
        """
        if not stimuli:
            raise ScoringError(f"{self.name} was given no stimuli", expected="at least one")
        texts = [
            generated_text(s, o, function=self.name) for s, o in zip(stimuli, outputs, strict=True)
        ]
        references = self._expected_embeddings([stimulus.expected for stimulus in stimuli])
        cosine = np.einsum("ij,ij->i", self._embed(texts), references)
        # Rounding may give 1 + 1e-16; an error below zero would be nonsense.
        errors: Floats = 1.0 - np.clip(cosine, -1.0, 1.0)
        check_finite(errors, stimuli, function=self.name)
        return MeanScores(errors)

    def _expected_embeddings(self, texts: Sequence[str]) -> Floats:
        key = _digest(texts)
        if key not in self._references:
            if len(self._references) >= _CACHED_SETS:
                self._references.pop(next(iter(self._references)))
            self._references[key] = self._embed(texts)
        return self._references[key]

    def _embed(self, texts: Sequence[str]) -> Floats:
        """Unit vectors in float64, shape (texts, dimensions); each distinct text once."""
        distinct = sorted(set(texts))
        place = {text: i for i, text in enumerate(distinct)}
        vectors = np.asarray(
            self._loaded().encode(
                distinct,
                batch_size=self._batch_size,
                convert_to_numpy=True,
                normalize_embeddings=True,
                show_progress_bar=False,
            ),
            dtype=np.float64,
        )
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)  # float32 norms are 1 to 1e-7
        rows: Floats = vectors[[place[text] for text in texts]]
        return rows

    def _loaded(self) -> SentenceTransformer:
        if self._model is None:
            from sentence_transformers import SentenceTransformer

            folder = find_embedding_model()
            with _without_progress_bars():
                self._model = SentenceTransformer(
                    str(folder), device=self._device, local_files_only=True
                )
            self._model.eval()
            logger.info("embedding model loaded from %s", folder)
        return self._model

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None, "_references": {}}


@contextlib.contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Loading takes a moment; a progress bar of its own would tear the search's."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _digest(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()
