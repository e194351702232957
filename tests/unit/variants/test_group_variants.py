"""Variants of blends with groups: what the recipe says, and that it is derived from again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_variants import files, forge, open_chain, write
from toys import make_adapter_chain, make_plain_chain

from ztom.blending import group_assignment, module_kinds
from ztom.blending.apply import blend_tensor, file_reader
from ztom.blending.chain import Chain
from ztom.blending.group_assignment import group_chain
from ztom.blending.groups import FactorGroups
from ztom.blending.plan import plan_blend
from ztom.errors import ConfigError, VariantError
from ztom.settings import Settings
from ztom.variants.recipe import RECIPE, read_recipe
from ztom.variants.verify import verify_variant
from ztom.variants.write import WriteOptions

KINDS = FactorGroups(kinds="all")
FACTORS = (0.3, -0.4, 0.1, -0.2, 0.5, -0.9, 0.2, 0.7, -0.3, 0.6)


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return group_chain(open_chain(make_plain_chain(tmp_path / "chain")), KINDS)


def test_a_recipe_says_which_group_each_tensor_is_in(chain: Chain, tmp_path: Path) -> None:
    write(chain, tmp_path / "v", FACTORS)
    recipe = read_recipe(tmp_path / "v")
    assert recipe.factors == FACTORS
    assert len(recipe.coefficients) == 3 * 5
    assert recipe.groups is not None
    assert recipe.groups.names == ("attention", "mlp", "embeddings", "norms", "head")
    assert recipe.groups.rule == {"kinds": "all", "rest": "group"}
    assert recipe.groups.tensors["model.layers.*.self_attn.q_proj.weight"] == "attention"
    assert verify_variant(tmp_path / "v", share=1.0, settings=Settings()).rederived == 7
    card = (tmp_path / "v" / "README.md").read_text()
    assert "| 01 -> 02 | -0.9 | +0.2 | +0.7 | -0.3 | +0.6 |" in card


def test_without_groups_recipe_and_card_are_those_of_before(tmp_path: Path) -> None:
    plain = open_chain(make_plain_chain(tmp_path / "chain"))
    write(plain, tmp_path / "v", (0.3, -0.4))
    assert "groups" not in json.loads((tmp_path / "v" / RECIPE).read_text())
    card = (tmp_path / "v" / "README.md").read_text()
    assert "Scaling factors, one per transition: +0.3, -0.4." in card


def test_a_variant_is_derived_again_when_the_table_of_kinds_has_changed(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(chain, tmp_path / "v", FACTORS)
    monkeypatch.setattr(group_assignment, "kind_of", lambda name: "other")
    monkeypatch.setattr(module_kinds, "kind_of", lambda name: "other")
    check = verify_variant(tmp_path / "v", share=1.0, settings=Settings())
    assert check.rederived == check.tensors


def test_factors_of_other_groups_are_no_derivation(chain: Chain, tmp_path: Path) -> None:
    write(chain, tmp_path / "v", FACTORS)
    forge(tmp_path / "v", [FACTORS[1], FACTORS[0], *FACTORS[2:]])
    with pytest.raises(VariantError, match="does not follow from the recipe"):
        verify_variant(tmp_path / "v", share=1.0, settings=Settings())


def test_groups_that_were_altered_are_refused(chain: Chain, tmp_path: Path) -> None:
    write(chain, tmp_path / "v", FACTORS)
    recipe = json.loads((tmp_path / "v" / RECIPE).read_text())
    recipe["groups"]["tensors"]["lm_head.weight"] = "norms"
    (tmp_path / "v" / RECIPE).write_text(json.dumps(recipe))
    forge(tmp_path / "v", list(FACTORS))
    with pytest.raises(ConfigError, match="not those that were recorded"):
        verify_variant(tmp_path / "v", share=1.0, settings=Settings())


@pytest.mark.parametrize("form", ["dense", "adapter"])
def test_a_chain_of_adapters_verifies_in_both_forms(tmp_path: Path, form) -> None:
    paths, _ = make_adapter_chain(tmp_path / "chain")
    chain = group_chain(open_chain(paths), KINDS)
    factors = (0.3, -0.4, 0.1, -0.2, 0.5, -0.9)
    write(chain, tmp_path / "v", factors, options=WriteOptions(form=form))
    check = verify_variant(tmp_path / "v", share=1.0, settings=Settings())
    assert check.rederived == check.tensors
    assert files(tmp_path / "v").keys() >= {RECIPE}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_streamed_to_the_disk_is_the_blend_in_memory(
    chain: Chain, tmp_path: Path, dtype: str
) -> None:
    write(chain, tmp_path / "v", FACTORS, options=WriteOptions(dtype=dtype))
    stored = load_file(tmp_path / "v" / "model.safetensors")
    read = file_reader(chain)
    for plan in plan_blend(chain, FACTORS, dtype=getattr(torch, dtype)).tensors:
        assert torch.equal(stored[plan.name], blend_tensor(plan, read))
    plain = replace(chain, groups=None)
    assert plain.digest == chain.digest
