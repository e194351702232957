"""Which models give embeddings, told from files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ztom.engines.embedding_models import gives_embeddings

TRANSFORMER = {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
MOVED = {"path": "1", "type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling"}
SPARSE = {"idx": 1, "path": "1", "type": "sentence_transformers.sparse_encoder.SpladePooling"}


@pytest.mark.parametrize(
    ("modules", "architectures", "embeds"),
    [
        ([TRANSFORMER, POOLING], ["BertModel"], True),
        ([TRANSFORMER, MOVED], ["Qwen3ForCausalLM"], True),
        ([TRANSFORMER, SPARSE], ["BertForMaskedLM"], False),
        ([TRANSFORMER], ["LlamaForCausalLM"], False),
        (None, ["BertModel"], True),
        (None, ["Qwen3Model"], True),
        (None, ["GPT2LMHeadModel"], False),
        (None, ["LlamaForCausalLM"], False),
        (None, ["BertForSequenceClassification"], False),
        (None, [], False),
        (None, None, False),
        (None, "BertModel", False),
        ("nonsense", ["LlamaForCausalLM"], False),
    ],
)
def test_by_modules_and_by_architecture(
    tmp_path: Path, modules: object, architectures: object, embeds: bool
) -> None:
    if modules is not None:
        (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "config.json").write_text(json.dumps({"architectures": architectures}))
    assert gives_embeddings(tmp_path) is embeds


def test_what_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    assert not gives_embeddings(tmp_path)
    (tmp_path / "modules.json").write_bytes(b"\xff{")
    (tmp_path / "config.json").write_text("[]")
    assert not gives_embeddings(tmp_path)
