"""Members that store one model under other names than the latest: prefixes, versions, experts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_chains import NESTED, make_model, nudge, rewrite, tensors_of

from ztom.blending.apply import blend_tensor, file_reader
from ztom.blending.chain import Chain, load_chain
from ztom.blending.chain_file import ChainConfig
from ztom.blending.plan import plan_blend
from ztom.errors import IncompatibleChainError
from ztom.settings import Settings

State = dict[str, torch.Tensor]


def open_chain(*paths: Path) -> Chain:
    config = ChainConfig.model_validate({"checkpoints": [str(path) for path in paths]})
    return load_chain(config, settings=Settings())


def blended(chain: Chain, factors: list[float]) -> State:
    read = file_reader(chain)
    return {t.name: blend_tensor(t, read) for t in plan_blend(chain, factors).tensors}


def saved(model: Any, folder: Path, **options: object) -> Path:
    model.save_pretrained(folder, **options)
    return folder


def headless(model: Any, folder: Path) -> Path:
    """Saved by the bare model, as ``AutoModel`` does."""
    return saved(model.base_model, folder)


def own_names(model: Any, folder: Path) -> Path:
    """Saved under the model's own names: experts stacked."""
    return saved(model, folder, save_original_format=False)


def old_llava(model: Any, folder: Path) -> Path:
    """The names of transformers 4: its vision tower was nested once more."""
    saved(model, folder)
    old = {n.replace("vision_tower.", "vision_tower.vision_model."): t
           for n, t in tensors_of(folder).items()}  # fmt: skip
    return rewrite(folder, old)


def hub_gpt2(model: Any, folder: Path) -> Path:
    """GPT-2 as the Hub has it: no prefix, and the causal masks stored."""
    saved(model, folder)
    bare = {n.removeprefix("transformer."): t for n, t in tensors_of(folder).items()}
    masks = {f"h.{i}.attn.bias": torch.ones(1, 1, 64, 64).tril() for i in range(2)}
    return rewrite(folder, bare | masks)


Save = Callable[[Any, Path], Path]
PAIRS: list[tuple[str, Save, Save]] = [
    ("llama", headless, saved),
    ("gpt2", hub_gpt2, saved),
    ("gpt2", saved, hub_gpt2),
    ("mixtral", saved, own_names),
    ("mixtral", own_names, saved),
    ("qwen3_moe", saved, own_names),
    ("qwen3_moe", own_names, saved),
    ("qwen3_moe", headless, own_names),
    ("gemma3", own_names, saved),
    ("gemma3", saved, own_names),
    ("llava", old_llava, saved),
    ("llava", own_names, old_llava),
]


@pytest.mark.parametrize(("family", "first", "last"), PAIRS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_chain_under_several_names_is_the_chain_under_one(
    tmp_path: Path, family: str, first: Save, last: Save, dtype: torch.dtype
) -> None:
    model = make_model(family, dtype=dtype)
    plain = [saved(model, tmp_path / "plain0")]
    foreign = [first(model, tmp_path / "foreign0")]
    nudge(model, 1)
    plain.append(last(model, tmp_path / "plain1"))
    foreign.append(last(model, tmp_path / "foreign1"))
    # the same pair, the base saved as the latest is
    model = make_model(family, dtype=dtype)
    plain[0] = last(model, tmp_path / "plain00")
    chain = open_chain(*foreign)
    assert chain.members[0].tensors.keys() >= {
        name for name in plain_names(plain[1]) if not name.endswith("attn.bias")
    }
    note, *derived = chain.notes
    assert "foreign0 stores its tensors under other names than" in note
    assert len(derived) == (hub_gpt2 in (first, last))
    for factors in ([0.0], [0.4], [-1.0]):
        got, expected = blended(chain, factors), blended(open_chain(*plain), factors)
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[name], expected[name]) for name in expected), factors


def plain_names(folder: Path) -> set[str]:
    return set(tensors_of(folder))


def test_a_tensor_without_a_counterpart_is_named(tmp_path: Path) -> None:
    model = make_model("llama")
    base = headless(model, tmp_path / "0")
    last = saved(model, tmp_path / "1")
    tensors = tensors_of(base)
    tensors["layers.1.mlp.other.weight"] = tensors.pop("layers.1.mlp.up_proj.weight")
    rewrite(base, tensors)
    with pytest.raises(IncompatibleChainError, match=r"layers\.1\.mlp\.up_proj\.weight") as refused:
        open_chain(base, last)
    assert "layers.1.mlp.other.weight" in str(refused.value)


def test_another_shape_is_named_under_the_name_of_the_latest(tmp_path: Path) -> None:
    model = make_model("llama")
    base = headless(model, tmp_path / "0")
    tensors = tensors_of(base)
    tensors["norm.weight"] = tensors["norm.weight"][:-1].clone()
    rewrite(base, tensors)
    with pytest.raises(IncompatibleChainError, match=r"shapes differ: model\.norm\.weight"):
        open_chain(base, saved(model, tmp_path / "1"))


@pytest.mark.parametrize("family", NESTED)
def test_members_that_are_named_alike_are_not_touched(tmp_path: Path, family: str) -> None:
    model = make_model(family)
    paths = [saved(model, tmp_path / "0"), saved(nudge(model, 1), tmp_path / "1")]
    assert open_chain(*paths).notes == ()
