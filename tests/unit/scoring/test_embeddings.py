"""What is embedded, in which batches, and what is kept; the model itself is not needed here."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from ztom.scoring.embeddings import TextEmbedder, batches_by_length
from ztom.scoring.minilm import MAX_PIECES


class _Lengths:
    """Stands for the model: a text's vector is made of its length; keeps what it was given."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.batches: list[tuple[int, int]] = []

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        self.asked.append(list(texts))
        return [[7] * max(1, len(text)) for text in texts]

    def embed(self, rows: Sequence[Sequence[int]], *, length: int) -> torch.Tensor:
        self.batches.append((len(rows), length))
        return torch.tensor([[float(len(row)), 1.0] for row in rows])


@pytest.fixture
def model() -> _Lengths:
    return _Lengths()


@pytest.fixture
def embedder(model) -> TextEmbedder:
    made = TextEmbedder(kept=4)
    made._model = model
    return made


def test_every_text_has_its_own_vector_and_repeats_cost_nothing(embedder, model):
    texts = ["a", "bbb", "a", "c" * 9]
    vectors = embedder.vectors(texts)
    assert vectors[:, 0] / vectors[:, 1] == pytest.approx([1, 3, 1, 9])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0)
    assert np.array_equal(embedder.vectors(texts), vectors)
    assert model.asked == [["a", "bbb", "c" * 9]]


def test_batches_have_one_of_a_few_shapes(embedder, model):
    embedder.vectors(["a", "bbb", "c" * 9, "d" * 70])
    assert model.batches == [(8, 8), (8, 16), (8, 96)]


def test_the_latest_texts_are_kept(embedder, model):
    embedder.vectors(["a", "b", "c", "d"])
    embedder.vectors(["a"])
    embedder.vectors(["e"])  # b was asked for longest ago
    embedder.vectors(["a", "c", "d", "e"])
    embedder.vectors(["b"])
    assert model.asked[1:] == [["e"], ["b"]]


def test_more_texts_than_are_kept_are_right_all_the_same(embedder):
    texts = [letter * count for count, letter in enumerate("abcdefgh", start=1)]
    vectors = embedder.vectors(texts)
    assert vectors[:, 0] / vectors[:, 1] == pytest.approx(range(1, 9))


def test_neither_the_model_nor_the_vectors_travel(embedder):
    embedder.vectors(["a"])
    copy = pickle.loads(pickle.dumps(embedder))
    assert copy._model is None
    assert not copy._vectors


def test_batches_hold_every_place_once():
    lengths = [3, 9, 250, 8, 1, 65, *[5] * 20]
    batches = batches_by_length(lengths, rows=8)
    places = [place for _, batch in batches for place in batch]
    assert sorted(places) == list(range(len(lengths)))
    for length, batch in batches:
        assert len(batch) <= 8
        assert max(lengths[i] for i in batch) <= length <= MAX_PIECES
    assert [length for length, _ in batches] == [8, 8, 8, 16, 96, 256]
