"""``sentence_similarity``: 1 - cosine between embeddings of the generated and the expected text.

The embeddings are those of all-MiniLM-L6-v2 (Reimers and Gurevych 2019), in float32 on the CPU
unless told otherwise. Only the first 256 word pieces of a text count: that is the model's limit. It
measures likeness of meaning, not correctness.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ztom.errors import ScoringError
from ztom.scoring.embeddings import TextEmbedder
from ztom.scoring.finite import check_finite
from ztom.scoring.protocol import Need
from ztom.scoring.text import generated_text
from ztom.statistics.scores import Floats, MeanScores, Scores
from ztom.stimuli.records import Output, Stimulus

_CACHED_SETS = 8


class SentenceSimilarity:
    """1 - cosine similarity of sentence embeddings, in [0, 2].

    The model is loaded at the first use, or by `warm_up`, and not pickled. Expected outputs are
    embedded once per set of stimuli, answers once while they are among the latest. An embedding
    depends on its text alone, so an error never depends on what was scored before.

    Args:
        device: A torch device.
    """

    def __init__(self, *, device: str = "cpu") -> None:
        self._embedder = TextEmbedder(device=device)
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
        cosine = np.einsum("ij,ij->i", self._embedder.vectors(texts), references)
        # Rounding may give 1 + 1e-16; an error below zero would be nonsense.
        errors: Floats = 1.0 - np.clip(cosine, -1.0, 1.0)
        check_finite(errors, stimuli, function=self.name)
        return MeanScores(errors)

    def warm_up(self) -> None:
        """Load the model before there is anything to score.

        Raises:
            ConfigError: The embedding model is nowhere to be found.
        """
        self._embedder.load()

    def _expected_embeddings(self, texts: Sequence[str]) -> Floats:
        key = _digest(texts)
        if key not in self._references:
            if len(self._references) >= _CACHED_SETS:
                self._references.pop(next(iter(self._references)))
            self._references[key] = self._embedder.vectors(texts)
        return self._references[key]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_references": {}}


def _digest(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()
