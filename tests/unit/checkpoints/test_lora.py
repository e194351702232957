"""LoRA adapters: scales as PEFT computes them, factors that fit, and everything that is refused."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from safetensors.torch import save
from toy_checkpoints import CONFIG, HIDDEN, VOCABULARY, llama_tensors, write_checkpoint

from ztom.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ztom.checkpoints.lora import Adapter, open_adapter
from ztom.checkpoints.lora_config import rank_and_scale, refuse_unsupported
from ztom.errors import AdapterUnsupportedError
from ztom.settings import Settings

Q0 = "model.layers.0.self_attn.q_proj"
UP1 = "model.layers.1.mlp.up_proj"
PREFIX = "base_model.model."


def adapter_config(**changes: object) -> dict[str, object]:
    return {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "bias": "none"} | changes


def factors(
    module: str, inputs: int = HIDDEN, outputs: int = HIDDEN, rank: int = 4, seed: int = 0
) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{PREFIX}{module}.lora_A.weight": torch.randn(rank, inputs, generator=generator),
        f"{PREFIX}{module}.lora_B.weight": torch.randn(outputs, rank, generator=generator),
    }


Opener = Callable[..., Adapter]


@pytest.fixture
def base(tmp_path: Path) -> Checkpoint:
    return open_checkpoint(str(write_checkpoint(tmp_path / "base")), settings=Settings())


@pytest.fixture
def adapt(tmp_path: Path, base: Checkpoint) -> Opener:
    """Writes an adapter and opens it over the base, or over another one."""

    def write(
        tensors: dict[str, torch.Tensor], over: Checkpoint = base, **changes: object
    ) -> Adapter:
        folder = tmp_path / "adapter"
        folder.mkdir(exist_ok=True)
        (folder / "adapter_config.json").write_text(json.dumps(adapter_config(**changes)))
        (folder / "adapter_model.safetensors").write_bytes(save(tensors))
        return open_adapter(open_checkpoint(str(folder), settings=Settings()), over)

    return write


def test_factors_are_keyed_by_the_base_tensor(adapt: Opener, base: Checkpoint) -> None:
    tensors = factors(Q0) | factors(UP1, outputs=2 * HIDDEN)
    adapter = adapt(tensors)
    assert list(adapter.factors) == [f"{Q0}.weight", f"{UP1}.weight"]
    assert adapter.base is base
    assert adapter.checkpoint.kind == "adapter"
    up = adapter.factors[f"{UP1}.weight"]
    assert (up.a.shape, up.b.shape, up.rank, up.transposed) == ((4, 8), (16, 4), 4, False)
    assert up.scale == 1.5
    assert torch.equal(adapter.checkpoint.read(up.a.name), tensors[f"{PREFIX}{UP1}.lora_A.weight"])


def test_rslora_and_patterns_of_one_adapter(adapt: Opener) -> None:
    tensors = factors(Q0, rank=2) | factors(UP1, outputs=2 * HIDDEN, rank=4)
    adapter = adapt(tensors, use_rslora=True, rank_pattern={"q_proj": 2}, alpha_pattern={UP1: 10})
    assert adapter.factors[f"{Q0}.weight"].rank == 2
    assert adapter.factors[f"{Q0}.weight"].scale == 6 / math.sqrt(2)
    assert adapter.factors[f"{UP1}.weight"].scale == 10 / 2


# `scaling` of each module as PEFT 0.21.2 set it for a two-layer Llama with these configurations.
RECORDED_FROM_PEFT: list[tuple[dict[str, Any], dict[str, float]]] = [
    (
        {
            "r": 4,
            "lora_alpha": 7,
            "rank_pattern": {"layers.0.self_attn.q_proj": 2, "q_proj": 3},
            "alpha_pattern": {"^model.layers.1.self_attn.q_proj": 5, "o_proj": 11},
        },
        {
            "model.layers.0.self_attn.q_proj": 3.5,
            "model.layers.0.self_attn.o_proj": 2.75,
            "model.layers.1.self_attn.q_proj": 1.6666666666666667,
            "model.layers.1.self_attn.o_proj": 2.75,
        },
    ),
    (
        {
            "r": 4,
            "lora_alpha": 7,
            "use_rslora": True,
            "rank_pattern": {r"layers\.[0-9]+\.self_attn\.o_proj": 2},
            "alpha_pattern": {
                "proj": 5,
                "self_attn.o_proj": 9,
                "model.layers.0.self_attn.q_proj": 2,
            },
        },
        {
            "model.layers.0.self_attn.q_proj": 1.0,
            "model.layers.0.self_attn.o_proj": 6.363961030678928,
            "model.layers.1.self_attn.q_proj": 3.5,
            "model.layers.1.self_attn.o_proj": 6.363961030678928,
        },
    ),
]


@pytest.mark.parametrize(("config", "scales"), RECORDED_FROM_PEFT, ids=["plain", "rslora"])
def test_scales_are_those_of_peft(config: dict[str, Any], scales: dict[str, float]) -> None:
    found = {module: rank_and_scale("x", config, module)[1] for module in scales}
    assert found == pytest.approx(scales, rel=1e-15)


REFUSED_FIELDS: dict[str, tuple[dict[str, object], str]] = {
    "not-lora": ({"peft_type": "LOHA"}, "peft_type.*LOHA"),
    "no-type": ({"peft_type": None}, "peft_type"),
    "dora": ({"use_dora": True}, "use_dora"),
    "lora-bias": ({"lora_bias": True}, "lora_bias"),
    "bias-all": ({"bias": "all"}, "bias.*all"),
    "bias-lora-only": ({"bias": "lora_only"}, "bias.*lora_only"),
    "modules-to-save": ({"modules_to_save": ["lm_head"]}, "modules_to_save.*lm_head"),
    "target-parameters": ({"target_parameters": ["mlp.experts"]}, "target_parameters"),
    "layer-replication": ({"layer_replication": [[0, 1], [0, 1]]}, "layer_replication"),
    "activated": ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens"),
    "token-indices": ({"trainable_token_indices": [3]}, "trainable_token_indices"),
    "qalora": ({"use_qalora": True}, "use_qalora"),
    "block-diagonal": ({"use_bdlora": {"a": 1}}, "use_bdlora"),
    "a-field-of-a-later-version": ({"use_nextlora": True}, "use_nextlora"),
    **{
        f"init-{name}": ({"init_lora_weights": name}, f"init_lora_weights.*{name}")
        for name in ("pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga", "unknown")
    },
    "init-list": ({"init_lora_weights": ["gaussian"]}, "init_lora_weights"),
    "rank-zero": ({"r": 0}, "r of the adapter.*positive"),
    "rank-boolean": ({"r": True}, "r of the adapter"),
    "alpha-text": ({"lora_alpha": "6"}, "lora_alpha"),
    "alpha-infinite": ({"lora_alpha": float("inf")}, "lora_alpha"),
    "alpha-nan": ({"lora_alpha": float("nan")}, "lora_alpha"),
    "alpha-huge": ({"lora_alpha": 10**400}, "lora_alpha"),
    "rslora-text": ({"use_rslora": "yes"}, "use_rslora"),
    "pattern-list": ({"rank_pattern": ["q_proj"]}, "rank_pattern"),
    "pattern-exponential": ({"rank_pattern": {"(a+)+$": 2}}, "rank_pattern"),
    "pattern-exponential-nested": ({"alpha_pattern": {"((a|a)*b)*": 2}}, "alpha_pattern"),
    "pattern-look-ahead": ({"alpha_pattern": {"(?=a)": 2}}, "alpha_pattern"),
    "pattern-broken": ({"alpha_pattern": {"q_proj[": 2}}, "alpha_pattern"),
    "pattern-value": ({"rank_pattern": {"q_proj": "4"}}, "r of the adapter"),
}


@pytest.mark.parametrize("case", REFUSED_FIELDS)
def test_what_is_not_plain_lora_is_refused_by_name(case: str, adapt: Opener) -> None:
    changes, message = REFUSED_FIELDS[case]
    with pytest.raises(AdapterUnsupportedError, match=message):
        adapt(factors(Q0), **changes)


@pytest.mark.parametrize(
    "changes",
    [{"init_lora_weights": init} for init in (True, False, None, "gaussian", "eva", "orthogonal")]
    + [
        {"modules_to_save": None, "use_dora": False, "layer_replication": None, "loftq_config": {}},
        {
            "task_type": "CAUSAL_LM",
            "inference_mode": True,
            "peft_version": "0.21.2",
            "revision": "x",
        },
        {"target_modules": ["q_proj"], "lora_dropout": 0.1, "megatron_core": "megatron.core"},
    ],
)
def test_what_does_not_change_the_factors_is_accepted(
    changes: dict[str, object], adapt: Opener
) -> None:
    assert adapt(factors(Q0), **changes).factors[f"{Q0}.weight"].scale == 1.5


REFUSED_TENSORS: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "embedding": (
        {f"{PREFIX}model.embed_tokens.lora_embedding_A": torch.ones(4, VOCABULARY)},
        "factor of an embedding",
    ),
    "dora-magnitude": ({f"{PREFIX}{Q0}.lora_magnitude_vector": torch.ones(8)}, "DoRA magnitude"),
    "factor-bias": ({f"{PREFIX}{Q0}.lora_B.bias": torch.ones(8)}, "lora_bias"),
    "whole-tensor": ({f"{PREFIX}lm_head.weight": torch.ones(VOCABULARY, HIDDEN)}, "not the base's"),
    "one-factor-only": (
        {f"{PREFIX}{UP1}.lora_A.weight": torch.ones(4, HIDDEN)},
        "only one of its two",
    ),
    "unknown-module": (factors("model.layers.9.self_attn.q_proj"), "does not have"),
    "integer-factors": (
        {name: tensor.to(torch.int8) for name, tensor in factors(UP1, outputs=16).items()},
        "torch.int8",
    ),
    "other-rank": (factors(UP1, outputs=16, rank=3), "do not fit.*rank 4"),
    "other-inputs": (factors(UP1, inputs=7, outputs=16), "do not fit"),
    "other-outputs": (factors(UP1, outputs=15), "do not fit"),
    "turned-round": (factors(UP1, inputs=16, outputs=8), "do not fit"),
    "a-vector": (factors("model.norm"), "do not fit"),
    "a-convolution": (
        {name: tensor[..., None, None] for name, tensor in factors(UP1, outputs=16).items()},
        "do not fit",
    ),
}


@pytest.mark.parametrize("case", REFUSED_TENSORS)
def test_tensors_that_are_not_fitting_factors_are_refused(case: str, adapt: Opener) -> None:
    tensors, message = REFUSED_TENSORS[case]
    with pytest.raises(AdapterUnsupportedError, match=message):
        adapt(factors(Q0) | tensors)


def test_an_adapted_head_comes_with_a_copy_of_the_base(adapt: Opener) -> None:
    head = llama_tensors()["lm_head.weight"]
    tensors = factors("lm_head", outputs=VOCABULARY)
    copy = f"{PREFIX}lm_head.base_layer.weight"
    assert list(adapt(tensors | {copy: head}).factors) == ["lm_head.weight"]
    assert list(adapt(tensors | {copy: head.double()}).factors) == ["lm_head.weight"]
    with pytest.raises(AdapterUnsupportedError, match="not the base's"):
        adapt(tensors | {copy: head * 1.001})


@pytest.mark.parametrize(
    "prefix",
    [
        f"{PREFIX}_orig_mod.",
        f"_orig_mod.{PREFIX}",
        f"module.{PREFIX}",
        f"module._orig_mod.{PREFIX}",
        f"{PREFIX}model._fsdp_wrapped_module.",
        f"{PREFIX}_orig_mod.module.",
    ],
)
def test_names_of_wrappers_are_taken_away(prefix: str, adapt: Opener) -> None:
    """An adapter that was saved while the model was compiled or wrapped."""
    module = Q0.removeprefix("model.") if "model._fsdp" in prefix else Q0
    tensors = {
        name.replace(f"{PREFIX}{Q0}", f"{prefix}{module}"): tensor
        for name, tensor in factors(Q0, rank=2).items()
    }
    adapter = adapt(tensors, rank_pattern={Q0: 2}, alpha_pattern={Q0: 8})
    assert list(adapter.factors) == [f"{Q0}.weight"]
    assert adapter.factors[f"{Q0}.weight"].scale == 4.0
    with pytest.raises(AdapterUnsupportedError, match="stands twice"):
        adapt(tensors | factors(Q0, rank=2), rank_pattern={Q0: 2})


def test_what_cannot_be_blended_as_an_adapter_says_how_it_is_merged(adapt: Opener) -> None:
    grown = {f"{PREFIX}lm_head.weight": torch.ones(VOCABULARY + 2, HIDDEN)}
    whole = {f"{PREFIX}model.embed_tokens.weight": torch.ones(VOCABULARY, HIDDEN)}
    for tensors, words in (
        (grown, "rows, .* resize_token_embeddings"),
        (whole, "modules_to_save"),
        ({f"{PREFIX}{Q0}.lora_magnitude_vector": torch.ones(8)}, "DoRA"),
    ):
        with pytest.raises(AdapterUnsupportedError, match=words) as refusal:
            adapt(factors(Q0) | tensors)
        command = re.search(r'python -c "(.*?)"', str(refusal.value))
        assert command is not None
        ast.parse(command[1])  # it can be typed as it stands
        assert "adapter').merge_and_unload().save_pretrained('merged')" in command[1]
    with pytest.raises(AdapterUnsupportedError, match=r"use_dora.*merge_and_unload"):
        adapt(factors(Q0), use_dora=True)


def test_a_tied_head_cannot_be_adapted(adapt: Opener, tmp_path: Path) -> None:
    folder = write_checkpoint(
        tmp_path / "tied", llama_tensors(tied=True), config=CONFIG | {"tie_word_embeddings": True}
    )
    tied = open_checkpoint(str(folder), settings=Settings())
    with pytest.raises(AdapterUnsupportedError, match="tied to the embedding"):
        adapt(factors("lm_head", outputs=VOCABULARY), over=tied)


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_gpt2_stores_its_weights_transposed(prefix: str, adapt: Opener, tmp_path: Path) -> None:
    tensors = {
        f"{prefix}wte.weight": torch.randn(VOCABULARY, HIDDEN),
        f"{prefix}h.0.attn.c_attn.weight": torch.randn(HIDDEN, 3 * HIDDEN),
        f"{prefix}h.0.attn.c_proj.weight": torch.randn(HIDDEN, HIDDEN),
    }
    config = {"model_type": "gpt2", "n_embd": HIDDEN, "vocab_size": VOCABULARY, "n_layer": 1}
    gpt2 = open_checkpoint(
        str(write_checkpoint(tmp_path / "gpt2", tensors, config=config)), settings=Settings()
    )
    adapted = factors("transformer.h.0.attn.c_attn", outputs=3 * HIDDEN)
    # Square, so that only the family says which way round it is stored.
    adapted |= factors("transformer.h.0.attn.c_proj")
    adapter = adapt(adapted, over=gpt2)
    assert list(adapter.factors) == [
        f"{prefix}h.0.attn.c_attn.weight",
        f"{prefix}h.0.attn.c_proj.weight",
    ]
    for name, found in adapter.factors.items():
        assert found.transposed
        change = adapter.checkpoint.read(found.b.name) @ adapter.checkpoint.read(found.a.name)
        assert change.T.shape == gpt2.tensors[name].shape


def test_kinds_are_not_interchangeable(adapt: Opener, base: Checkpoint) -> None:
    adapter = adapt(factors(Q0)).checkpoint
    for first, second in ((base, base), (adapter, adapter)):
        with pytest.raises(AdapterUnsupportedError, match="an adapter over a full model"):
            open_adapter(first, second)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=4,
)
fields = st.sampled_from(
    [*adapter_config(), "rank_pattern", "alpha_pattern", "use_rslora", "init_lora_weights", "other"]
)


@hypothesis_settings(deadline=None)
@given(changes=st.dictionaries(fields, values, max_size=3))
def test_any_config_gives_a_scale_or_a_refusal(changes: dict[str, object]) -> None:
    config = adapter_config(**changes)
    try:
        refuse_unsupported("x", config)
        rank, scale = rank_and_scale("x", config, Q0)
    except AdapterUnsupportedError:
        return
    assert rank > 0
    assert math.isfinite(scale)
