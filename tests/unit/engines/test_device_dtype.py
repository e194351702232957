"""A T4 has no bfloat16: what is deployed there, and that it is said."""

from __future__ import annotations

import pytest

from ztom.engines.device_dtype import settle_dtype
from ztom.engines.gpus import GPUS
from ztom.errors import EngineError


@pytest.mark.parametrize(
    ("dtype", "stored", "model_type", "gpu", "settled"),
    [
        ("auto", "bfloat16", "llama", "T4", "float16"),
        ("auto", "bfloat16", "gemma3", "T4", "float32"),
        ("auto", "float32", "llama", "T4", "auto"),
        ("auto", "float16", "llama", "T4", "auto"),
        ("float32", "bfloat16", "llama", "T4", "float32"),
        ("auto", "bfloat16", "llama", "L4", "auto"),
        ("bfloat16", "bfloat16", "llama", "A100", "bfloat16"),
        ("auto", "bfloat16", "llama", None, "auto"),
    ],
)
def test_the_dtype_that_a_device_allows(dtype, stored, model_type, gpu, settled) -> None:
    kind = None if gpu is None else GPUS[gpu]
    taken, note = settle_dtype(dtype, stored=stored, model_type=model_type, gpu=kind)
    assert taken == settled
    assert bool(note) is (taken != dtype)
    if note:
        assert settled in note
        assert "T4" in note


def test_bfloat16_by_name_is_refused_where_there_is_none() -> None:
    with pytest.raises(EngineError, match="a T4 does not compute in bfloat16"):
        settle_dtype("bfloat16", stored="bfloat16", model_type="llama", gpu=GPUS["T4"])
