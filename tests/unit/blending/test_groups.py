"""Groups of tensors: what they are for a chain, and what a blend with them is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from saved_models import grow, save_model
from toys import make_adapter_chain, make_chain, make_plain_chain, reference_blend

from ztom.blending.adapter import blend_adapter
from ztom.blending.apply import blend_tensor, file_reader
from ztom.blending.chain import Chain, load_chain
from ztom.blending.chain_file import ChainConfig
from ztom.blending.changes import change_scores
from ztom.blending.group_assignment import group_chain, regroup_chain
from ztom.blending.groups import FactorGroups, GroupRecord
from ztom.blending.inspection import inspect_chain
from ztom.blending.plan import plan_blend
from ztom.errors import ConfigError, FactorError
from ztom.settings import Settings

RULES: list[object] = [
    "kinds",
    {"layers": 2},
    {"kinds": ["attention", "mlp"]},
    {"patterns": {"early": ["model.layers.0.*"], "late": ["model.layers.1.*", "lm_head.*"]}},
]


def grouped(paths: list[Path], rule: object, **options: object) -> Chain:
    config = ChainConfig.model_validate({"checkpoints": [str(path) for path in paths], **options})
    chain = load_chain(config, settings=Settings())
    return group_chain(chain, FactorGroups.model_validate(rule))


def blended(chain: Chain, factors: list[float], dtype: torch.dtype | None = None):
    read = file_reader(chain)
    return {p.name: blend_tensor(p, read) for p in plan_blend(chain, factors, dtype=dtype).tensors}


def some_factors(count: int) -> list[float]:
    return np.random.default_rng(3).uniform(-0.9, 0.9, count).tolist()


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_plain_chain(tmp_path_factory.mktemp("chain"), members=4)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("topology", ["sequence", "siblings"])
def test_every_tensor_has_the_factors_of_its_group(paths, rule, topology) -> None:
    chain = grouped(paths, rule, topology=topology)
    width = len(chain.group_names)
    factors = some_factors(chain.factor_count)
    assert chain.factor_count == 3 * width == len(chain.factor_names)
    plain = load_chain(
        ChainConfig.model_validate({"checkpoints": [str(p) for p in paths], "topology": topology}),
        settings=Settings(),
    )
    assert chain.groups is not None
    for name, tensor in blended(chain, factors).items():
        at = chain.groups.tensors[name]
        alone = blended(plain, factors[at::width])[name]
        assert torch.equal(tensor, alone), name


def test_the_formula(paths) -> None:
    """Step by step, and in a step group by group: W_n + sum_i sum_g alpha_(i,g) mask_g delta_i."""
    chain = grouped(paths, {"kinds": ["attention", "mlp"]})
    assert chain.group_names == ("attention", "mlp", "rest")
    factors = some_factors(9)
    assert chain.factor_names[:4] == (
        "00 -> 01: attention",
        "00 -> 01: mlp",
        "00 -> 01: rest",
        "01 -> 02: attention",
    )
    w = [{n: t.double() for n, t in load_file(p / "model.safetensors").items()} for p in paths]
    for name, tensor in blended(chain, factors).items():
        group = 0 if "self_attn" in name else 1 if "mlp" in name else 2
        want = w[-1][name] + sum(
            factors[3 * (i - 1) + group] * (w[i][name] - w[i - 1][name]) for i in (1, 2, 3)
        )
        assert float((tensor.double() - want).norm() / want.norm()) <= 1e-6
    assert len(chain.coefficients(factors)) == 4 * 3
    assert np.array(chain.coefficients(factors)).reshape(4, 3).sum(axis=0) == pytest.approx(1.0)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_equal_factors_in_all_groups_are_the_blend_without_groups(paths, rule, dtype) -> None:
    chain = grouped(paths, rule)
    plain = load_chain(
        ChainConfig.model_validate({"checkpoints": [str(p) for p in paths]}), settings=Settings()
    )
    for steps in ([0.3, -0.2, 0.7], [0.0, 0.0, 0.0], [0.0, -1.0, -1.0]):
        want = blended(plain, steps, dtype)
        for name, tensor in blended(chain, list(chain.expand(steps)), dtype).items():
            assert torch.equal(tensor, want[name])
    assert chain.digest == plain.digest


def test_figures_of_the_chain_itself_do_not_change(paths) -> None:
    chain = grouped(paths, "kinds")
    plain = load_chain(
        ChainConfig.model_validate({"checkpoints": [str(p) for p in paths]}), settings=Settings()
    )
    assert change_scores(chain, 1, 2) == change_scores(plain, 1, 2)
    assert inspect_chain(chain, limit=0.1, dtype=None) == inspect_chain(
        plain, limit=0.1, dtype=None
    )


def test_layers_are_blocks_of_equal_length(tmp_path: Path) -> None:
    shapes = {f"model.layers.{n}.mlp.up_proj.weight": (4, 4) for n in range(10)}
    states = [
        {n: torch.randn(s) for n, s in {**shapes, "model.embed_tokens.weight": (16, 4)}.items()}
        for _ in range(2)
    ]
    paths = make_plain_chain(tmp_path, states=states)
    chain = grouped(paths, {"layers": 4})
    assert chain.group_names == ("layers 0-2", "layers 3-4", "layers 5-7", "layers 8-9", "rest")
    assert chain.groups is not None
    assert chain.groups.counts == (3, 2, 3, 2, 1)
    assert grouped(paths, {"layers": 10}).group_names[:2] == ("layer 0", "layer 1")


def test_a_tied_head_that_is_stored_has_the_factor_of_its_embedding(tmp_path: Path) -> None:
    paths = make_plain_chain(tmp_path, members=2, tied=True)
    for path in paths:
        state = load_file(path / "model.safetensors")
        state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
        save_file(state, path / "model.safetensors", metadata={"format": "pt"})
    chain = grouped(paths, "kinds")
    assert chain.group_names == ("attention", "mlp", "embeddings", "norms")
    blend = blended(chain, some_factors(4))
    assert torch.equal(blend["lm_head.weight"], blend["model.embed_tokens.weight"])
    split = {"patterns": {"head": ["lm_head.*"], "in": ["model.embed_tokens.*"]}}
    with pytest.raises(ConfigError, match=r"lm_head.weight is tied to model.embed_tokens.weight"):
        grouped(paths, split)


def test_rows_that_a_member_lacks_have_no_delta_in_any_group(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", rows=390)
    grown = grow(tmp_path / "grown", base, 400, seed=1)
    chain = grouped([base, grown], "kinds")
    embedding = chain.group_names.index("embeddings")
    factors = [0.0] * chain.factor_count
    factors[embedding] = -1.0
    blend = blended(chain, factors)
    before, after = (load_file(p / "model.safetensors") for p in (base, grown))
    name = "model.embed_tokens.weight"
    assert torch.equal(blend[name][:390], before[name])
    assert torch.equal(blend[name][390:], after[name][390:])
    other = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(blend[other], after[other])


def test_adapters_have_groups_of_what_they_adapt(tmp_path: Path) -> None:
    paths, deltas = make_adapter_chain(tmp_path)
    chain = grouped(paths, "kinds")
    assert chain.group_names == ("attention", "mlp")  # nothing else is adapted
    factors = some_factors(6)
    base = load_file(paths[0] / "model.safetensors")
    dense = blended(chain, factors)
    adapter = blend_adapter(chain, factors, file_reader(chain)).tensors
    for name, tensor in base.items():
        if name not in deltas[0]:
            assert torch.equal(dense[name], tensor)
            continue
        alpha = factors[0 if "self_attn" in name else 1 :: 2]
        steps = [d[name] for d in deltas]
        change = steps[-1] + alpha[0] * steps[0]
        change += sum(alpha[i] * (steps[i] - steps[i - 1]) for i in (1, 2))
        module = f"base_model.model.{name.removesuffix('.weight')}"
        a, b = (adapter[f"{module}.lora_{side}.weight"].double() for side in "AB")
        assert float((b @ a - change).norm() / change.norm()) <= 1e-6
        assert float((dense[name].double() - tensor.double() - change).norm()) <= 1e-5


def test_a_record_gives_the_same_groups_again(paths) -> None:
    plain = load_chain(
        ChainConfig.model_validate({"checkpoints": [str(p) for p in paths]}), settings=Settings()
    )
    for rule in RULES:
        chain = grouped(paths, rule)
        assert chain.groups is not None
        record = GroupRecord.model_validate_json(chain.groups.record().model_dump_json())
        assert regroup_chain(plain, record).groups == chain.groups
    record = grouped(paths, "kinds").groups.record()  # type: ignore[union-attr]
    assert record.tensors["model.layers.*.mlp.up_proj.weight"] == "mlp"
    moved = record.tensors | {"model.layers.*.mlp.up_proj.weight": "attention"}
    with pytest.raises(ConfigError, match="not those that were recorded"):
        regroup_chain(plain, record.model_copy(update={"tensors": moved}))
    lacking = {n: g for n, g in record.tensors.items() if "mlp" not in n}
    with pytest.raises(ConfigError, match=r"do not say where model.layers.0.mlp.up_proj.weight"):
        regroup_chain(plain, record.model_copy(update={"tensors": lacking}))


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"layers": 3}, r"fewer layers than blocks.*expected 2 or fewer"),
        ({"kinds": ["norms", "other"]}, r"no tensor .* is of kind other"),
        ({"patterns": {"gone": ["model.blocks.*"]}}, r"no tensor .* in group 'gone'"),
        (
            {"patterns": {"a": ["*.mlp.*"], "b": ["model.layers.1.*"], "c": ["*norm*"]}},
            r"model.layers.1.mlp.up_proj.weight belongs to 2 groups.*a, b",
        ),
        (
            {"patterns": {"a": ["model.*"]}, "rest": "refuse"},
            r"1 tensors belong to no group.*lm_head.weight",
        ),
    ],
)
def test_what_does_not_divide_the_model_is_refused(paths, rule, said: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){said}"):
        grouped(paths, rule)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"layers": 0}, "greater than or equal to 1"),
        ({"kinds": ["attention", "convolutions"]}, "attention.*mlp.*embeddings"),
        ({"kinds": []}, "kinds is empty"),
        ({"kinds": ["mlp", "mlp"]}, "stands twice"),
        ({"patterns": {}}, "patterns has no group"),
        ({"patterns": {"a": []}}, "group 'a' has no pattern"),
        ({"patterns": {"rest": ["*"]}}, "'rest' is the group"),
        ({"layers": 2, "kinds": "all"}, "give one of layers, kinds and patterns"),
        ({}, "got none"),
        ({"layers": 2, "rest": "refuse"}, "belongs to patterns"),
        ("layer", "kinds"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rule, said: str) -> None:
    with pytest.raises(ValidationError, match=f"(?s){said}"):
        FactorGroups.model_validate(rule)


def test_the_number_of_factors_names_the_groups(paths) -> None:
    chain = grouped(paths, {"layers": 2})
    with pytest.raises(FactorError, match=r"9, one per transition and group .*01: layer 0"):
        chain.check_factors([0.0] * 3)


def test_a_blend_of_a_real_family_follows_its_formula(tmp_path: Path) -> None:
    paths = make_chain(tmp_path, "gpt2", members=3)
    chain = grouped(paths, "kinds")
    assert chain.group_names == ("attention", "mlp", "embeddings", "norms")
    factors = some_factors(chain.factor_count)
    blend = blended(chain, factors)
    assert chain.groups is not None
    for name, tensor in blend.items():
        alpha = factors[chain.groups.tensors[name] :: 4]
        want = reference_blend(paths, alpha)[name]
        assert float((tensor.double() - want).norm() / want.norm()) <= 1e-6
