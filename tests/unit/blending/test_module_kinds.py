"""The table of module kinds against what transformers' own classes say, family by family."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
import torch
import transformers as t
from foreign_chains import make_model

from ztom.blending.module_kinds import KINDS, kind_of

_SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
_BART = {
    f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")
}
#: Models that are made of nothing but their configuration, by family.
_FAMILIES: dict[str, Any] = {
    "qwen2": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**_SMALL)),
    "qwen2_moe": lambda: t.Qwen2MoeForCausalLM(
        t.Qwen2MoeConfig(**_SMALL, num_experts=4, moe_intermediate_size=16)
    ),
    "gemma2": lambda: t.Gemma2ForCausalLM(t.Gemma2Config(**_SMALL, num_key_value_heads=2)),
    "phi3": lambda: t.Phi3ForCausalLM(t.Phi3Config(**_SMALL, pad_token_id=0)),
    "gpt_neox": lambda: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**_SMALL)),
    "opt": lambda: t.OPTForCausalLM(
        t.OPTConfig(
            hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2,
            word_embed_proj_dim=16,
        )
    ),
    "bloom": lambda: t.BloomForCausalLM(t.BloomConfig(hidden_size=16, n_layer=2, n_head=2)),
    "mamba": lambda: t.MambaForCausalLM(t.MambaConfig(hidden_size=16, num_hidden_layers=2)),
    "t5": lambda: t.T5ForConditionalGeneration(
        t.T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    ),
    "bart": lambda: t.BartForConditionalGeneration(t.BartConfig(d_model=16, **_BART)),
    "bert": lambda: t.BertForSequenceClassification(t.BertConfig(**_SMALL)),
    "bert_lm": lambda: t.BertForMaskedLM(t.BertConfig(**_SMALL)),
    "roberta": lambda: t.RobertaForSequenceClassification(t.RobertaConfig(**_SMALL)),
    "distilbert": lambda: t.DistilBertForSequenceClassification(
        t.DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=32)
    ),
    "deberta": lambda: t.DebertaV2ForSequenceClassification(t.DebertaV2Config(**_SMALL)),
    "modernbert": lambda: t.ModernBertForSequenceClassification(t.ModernBertConfig(**_SMALL)),
    "albert": lambda: t.AlbertForSequenceClassification(
        t.AlbertConfig(**_SMALL, embedding_size=8)
    ),
    "vit": lambda: t.ViTForImageClassification(
        t.ViTConfig(image_size=8, patch_size=4, **_SMALL)
    ),
    "swin": lambda: t.SwinForImageClassification(
        t.SwinConfig(image_size=32, embed_dim=8, depths=[1, 1], num_heads=[1, 2])
    ),
    "resnet": lambda: t.ResNetForImageClassification(
        t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[2, 2])
    ),
}  # fmt: skip
_BUILT = ("llama", "gpt2", "mixtral", "qwen3_moe", "gemma3", "llava")
#: Kinds that a family has beside norms and embeddings: what it is made of, and nothing else.
_WITHOUT = {
    "resnet": {"attention", "mlp"},
    "mamba": {"attention", "mlp"},
}
_WITH_OTHER = {"resnet", "mamba", "swin", "gemma3", "llava"}


def _make(family: str) -> Any:
    if family in _BUILT:
        return make_model(family)
    with torch.device("meta"):
        return _FAMILIES[family]()


def _by_class(model: Any, name: str) -> str | None:
    """What the classes on the way to a parameter say; None where they say nothing."""
    modules = [model.get_submodule("")]
    for part in name.split(".")[:-1]:
        modules.append(getattr(modules[-1], part))
    names = [type(module).__name__ for module in modules[1:]] or [""]
    if "norm" in names[-1].lower():
        return "norms"
    if any(re.search("(Attention|Attn)(?!Pool)", n) for n in names):
        return "attention"
    if any("Embed" in n for n in names):
        return "embeddings"
    if any(
        re.search("MLP|Mlp|FFN|Expert|Moe|Router|Intermediate|DenseAct|DenseGated", n)
        for n in names
    ):
        return "mlp"
    return "head" if any(re.search("Pooler|LMPrediction|LMHead", n) for n in names) else None


@pytest.mark.parametrize("family", [*_BUILT, *_FAMILIES])
def test_kinds_are_what_the_classes_of_the_family_say(family: str) -> None:
    model = _make(family)
    kinds = {name: kind_of(name) for name, _ in model.named_parameters()}
    for name, kind in kinds.items():
        assert _by_class(model, name) in (kind, None), name
    counts = Counter(kinds.values())
    lacking = _WITHOUT.get(family, set())
    tied = set() if "head" in counts else {"head"}
    assert (set(KINDS) - set(counts)) <= lacking | tied | {"other"}
    assert ("other" in counts) == (family in _WITH_OTHER)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        # as checkpoints of Mixtral and Qwen-MoE store them, unlike the models' own parameters
        ("model.layers.0.block_sparse_moe.experts.3.w1.weight", "mlp"),
        ("model.layers.0.block_sparse_moe.gate.weight", "mlp"),
        ("model.layers.0.mlp.shared_expert_gate.weight", "mlp"),
        ("model.layers.0.self_attn.q_proj.bias", "attention"),
        ("model.layers.0.self_attn.q_norm.weight", "norms"),
        ("model.norm.weight", "norms"),
        ("transformer.h.0.ln_1.bias", "norms"),
        ("transformer.wpe.weight", "embeddings"),
        ("gpt_neox.embed_in.weight", "embeddings"),
        ("embed_out.weight", "head"),
        ("bert.encoder.layer.0.attention.output.dense.weight", "attention"),
        ("bert.encoder.layer.0.output.dense.weight", "mlp"),
        ("bert.encoder.layer.0.output.LayerNorm.weight", "norms"),
        ("vit.embeddings.cls_token", "embeddings"),
        ("classifier.1.weight", "head"),
        ("fc.weight", "head"),
        ("layer1.0.conv1.weight", "other"),
        ("layer1.0.bn1.weight", "norms"),
        ("multi_modal_projector.linear_1.weight", "other"),
        ("0.weight", "other"),
        ("weight", "other"),
    ],
)  # fmt: skip
def test_kinds_of_names(name: str, kind: str) -> None:
    assert kind_of(name) == kind
