"""Checkpoints alone and the average, as blends of real tensors; steps that say nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import make_adapter_chain, make_plain_chain

from ztom.blending.apply import blend_tensor, file_reader
from ztom.blending.chain import Chain, load_chain
from ztom.blending.chain_file import ChainConfig
from ztom.blending.plan import plan_blend
from ztom.blending.steps import equal_members, step_warnings
from ztom.search.baselines import compared_models
from ztom.settings import Settings

Weights = dict[str, torch.Tensor]


def open_chain(paths: list[Path], **options: object) -> Chain:
    members = [{"reference": str(path), "tag": f"c{i}"} for i, path in enumerate(paths)]
    config = ChainConfig.model_validate({"checkpoints": members, **options})
    return load_chain(config, settings=Settings())


def blended(chain: Chain, factors: tuple[float, ...]) -> Weights:
    read = file_reader(chain)
    return {plan.name: blend_tensor(plan, read) for plan in plan_blend(chain, factors).tensors}


def weights(path: Path) -> Weights:
    return load_file(path / "model.safetensors")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_plain_chain(tmp_path_factory.mktemp("chain"), members=4)


@pytest.mark.parametrize(
    ("options", "latest"),
    [({}, 3), ({"topology": "siblings"}, 3), ({"topology": "siblings", "latest": 1}, 1)],
)
def test_each_checkpoint_and_the_mean_are_what_they_are_called(paths, options, latest) -> None:
    chain = open_chain(paths, **options)
    models = compared_models(chain, equal_members(chain))
    assert [m.name for m in models] == ["c0", "c1", "c2", "c3", "average"]
    kinds = ["trained" if i == latest else "checkpoint" for i in range(4)]
    assert [m.kind for m in models] == [*kinds, "average"]
    for path, model in zip(paths, models, strict=False):
        for name, tensor in blended(chain, model.factors).items():
            assert torch.equal(tensor, weights(path)[name])  # bit for bit
    every = [weights(path) for path in paths]
    for name, tensor in blended(chain, models[-1].factors).items():
        mean = torch.stack([state[name].double() for state in every]).mean(dim=0)
        torch.testing.assert_close(tensor.double(), mean, rtol=1e-6, atol=1e-7)


def test_the_factors_of_a_sequence_are_minus_one_from_a_step_on(paths) -> None:
    chain = open_chain(paths)
    models = compared_models(chain, equal_members(chain))
    assert [m.factors for m in models[:4]] == [
        (-1, -1, -1),
        (0, -1, -1),
        (0, 0, -1),
        (0, 0, 0),
    ]
    assert models[-1].factors == pytest.approx((-1 / 4, -2 / 4, -3 / 4))


def test_of_adapters_a_checkpoint_is_the_base_with_one_of_them(tmp_path: Path) -> None:
    folders, deltas = make_adapter_chain(tmp_path)
    chain, base = open_chain(folders), weights(folders[0])
    models = compared_models(chain, equal_members(chain))
    assert [m.kind for m in models] == [*["checkpoint"] * 3, "trained", "average"]
    changes = [{}, *deltas]
    mean = {name: sum(delta[name] for delta in deltas) / 4 for name in deltas[0]}
    for model, change in zip(models, [*changes, mean], strict=True):
        for name, tensor in blended(chain, model.factors).items():
            want = base[name].double() + change.get(name, torch.zeros(()))
            torch.testing.assert_close(tensor.double(), want, rtol=1e-5, atol=1e-6)
            if name not in change:
                assert torch.equal(tensor, base[name])


def test_rows_that_a_checkpoint_lacks_stay_as_in_the_latest(tmp_path: Path) -> None:
    paths = [*make_plain_chain(tmp_path, members=2)]
    for path in paths:
        (path / "config.json").write_text(json.dumps({"model_type": "toy", "vocab_size": 16}))
    state = weights(paths[1])
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        state[name] = torch.cat([state[name], torch.ones(2, 8)])
    save_file(state, paths[1] / "model.safetensors", metadata={"format": "pt"})
    (paths[1] / "config.json").write_text(json.dumps({"model_type": "toy", "vocab_size": 18}))
    chain = open_chain(paths)
    base = compared_models(chain, equal_members(chain))[0]
    head = blended(chain, base.factors)["lm_head.weight"]
    assert torch.equal(head[:16], weights(paths[0])["lm_head.weight"])
    assert torch.equal(head[16:], torch.ones(2, 8))


def copied(source: Path, target: Path, *, same_files: bool) -> Path:
    shutil.copytree(source, target)
    if not same_files:  # the same weights in a file with another header, so of another digest
        state = weights(source)
        save_file(state, target / "model.safetensors", metadata={"format": "pt", "by": "another"})
    return target


@pytest.mark.parametrize("same_files", [True, False])
def test_a_step_without_weights_of_its_own_is_named(paths, tmp_path: Path, same_files) -> None:
    twin = copied(paths[1], tmp_path / "twin", same_files=same_files)
    chain = open_chain([paths[0], paths[1], twin])
    same = equal_members(chain)
    assert same == (0, 1, 1)
    [warning] = step_warnings(chain, same)
    assert warning.startswith("step c1 -> c2 changes nothing: both checkpoints have the same weig")
    models = compared_models(chain, same)  # and the same weights are evaluated once
    assert [(m.name, m.kind, m.also) for m in models] == [
        ("c0", "checkpoint", ()),
        ("c2", "trained", ("c1",)),
        ("average", "average", ()),
    ]


def test_steps_that_repeat_or_undo_another_are_named(paths, tmp_path: Path) -> None:
    again = [copied(paths[i], tmp_path / f"again{i}", same_files=False) for i in (0, 1)]
    chain = open_chain([paths[0], paths[1], *again])
    same = equal_members(chain)
    assert same == (0, 1, 0, 1)
    assert step_warnings(chain, same) == (
        "step c1 -> c2 undoes c0 -> c1: only the difference of their factors has an effect",
        "step c2 -> c3 is the same as c0 -> c1: only the sum of their factors has an effect",
    )
    siblings = open_chain([paths[0], paths[1], again[1]], topology="siblings")
    assert step_warnings(siblings, equal_members(siblings)) == (
        "step c0 -> c2 is the same as c0 -> c1: only the sum of their factors has an effect",
    )


def test_an_adapter_that_was_never_trained_is_a_step_without_effect(tmp_path: Path) -> None:
    folders, _ = make_adapter_chain(tmp_path)
    file = folders[1] / "adapter_model.safetensors"
    tensors = load_file(file)
    zero = {n: torch.zeros_like(t) if "lora_B" in n else t for n, t in tensors.items()}
    save_file(zero, file, metadata={"format": "pt"})
    chain = open_chain(folders)
    same = equal_members(chain)
    assert same == (0, 0, 2, 3)
    assert [w.split(":")[0] for w in step_warnings(chain, same)] == [
        "step c0 -> c1 changes nothing"
    ]


def test_different_checkpoints_warn_of_nothing(paths) -> None:
    chain = open_chain(paths)
    assert equal_members(chain) == (0, 1, 2, 3)
    assert step_warnings(chain, (0, 1, 2, 3)) == ()
