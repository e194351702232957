"""Blending against a float64 reference, and the properties that make a blend trustworthy."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from toys import make_adapter_chain, make_plain_chain

from ztom.blending.adapter import blend_adapter
from ztom.blending.apply import blend_tensor, file_reader
from ztom.blending.chain import Chain, load_chain
from ztom.blending.chain_file import ChainConfig, read_chain_file
from ztom.blending.changes import check_finite
from ztom.blending.inspection import inspect_chain
from ztom.blending.plan import plan_blend
from ztom.blending.precision import measure_precision
from ztom.errors import (
    BlendError,
    ChainError,
    CheckpointError,
    ConfigError,
    FactorError,
    IncompatibleChainError,
)
from ztom.settings import Settings


def open_chain(paths: list[Path], **options: object) -> Chain:
    config = ChainConfig.model_validate({"checkpoints": [str(path) for path in paths], **options})
    return load_chain(config, settings=Settings())


def blended(chain: Chain, factors: list[float], dtype: torch.dtype | None = None):
    plan = plan_blend(chain, factors, dtype=dtype)
    read = file_reader(chain)
    return {tensor.name: blend_tensor(tensor, read) for tensor in plan.tensors}


def states(paths: list[Path]) -> list[dict[str, torch.Tensor]]:
    return [load_file(path / "model.safetensors") for path in paths]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_plain_chain(tmp_path_factory.mktemp("chain"), members=4)


@pytest.fixture
def chain(paths: list[Path]) -> Chain:
    return open_chain(paths)


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.double() - want).norm() / want.norm())


@pytest.mark.parametrize("factors", [[0.1, -0.05, 0.2], [-1.0, 1.0, -0.3], [2.0, -2.0, 2.0]])
def test_a_sequence_follows_its_formula(chain, paths, factors: list[float]) -> None:
    w = [{n: t.double() for n, t in state.items()} for state in states(paths)]
    for name, tensor in blended(chain, factors).items():
        want = w[-1][name] + sum(
            f * (w[i][name] - w[i - 1][name]) for i, f in enumerate(factors, start=1)
        )
        assert relative_error(tensor, want) <= 1e-6


@pytest.mark.parametrize("latest", [1, 3])
def test_siblings_follow_their_formula(paths, latest: int) -> None:
    factors = [0.3, -0.7, 0.5]
    chain = open_chain(paths, topology="siblings", latest=latest)
    w = [{n: t.double() for n, t in state.items()} for state in states(paths)]
    for name, tensor in blended(chain, factors).items():
        want = w[latest][name] + sum(
            f * (w[i][name] - w[0][name]) for i, f in enumerate(factors, start=1)
        )
        assert relative_error(tensor, want) <= 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_alpha_zero_is_the_latest_checkpoint_bit_for_bit(tmp_path: Path, dtype) -> None:
    paths = make_plain_chain(tmp_path, members=3, dtype=dtype)
    state = load_file(paths[-1] / "model.safetensors")
    state["model.norm.weight"][0] = -0.0  # a sum with zeros would lose its sign
    save_file(state, paths[-1] / "model.safetensors", metadata={"format": "pt"})
    for name, tensor in blended(open_chain(paths), [0.0, 0.0]).items():
        assert tensor.dtype == dtype
        assert (
            tensor.numpy(force=True).tobytes() == state[name].numpy().tobytes()
            if (dtype != torch.bfloat16)
            else torch.equal(tensor.view(torch.int16), state[name].view(torch.int16))
        )


def test_minus_one_on_the_last_step_is_the_checkpoint_before_it_bit_for_bit(chain, paths) -> None:
    before = states(paths)[-2]
    for name, tensor in blended(chain, [0.0, 0.0, -1.0]).items():
        assert torch.equal(tensor, before[name])


def test_minus_one_on_a_step_removes_it(chain, paths) -> None:
    w = [{n: t.double() for n, t in state.items()} for state in states(paths)]
    for name, tensor in blended(chain, [0.0, -1.0, 0.0]).items():
        want = w[1][name] + (w[3][name] - w[2][name])
        assert relative_error(tensor, want) <= 1e-6


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-10, 10), min_size=3, max_size=3),
    st.sampled_from(["sequence", "siblings"]),
)
def test_coefficients_sum_to_one_and_reproduce_the_formula(factors, topology) -> None:
    points = np.array([1.0, -2.0, 4.0, 0.5])
    chain = Chain((None,) * 4, (None,) * 4, topology, 3, ("a", "b", "c", "d"))  # type: ignore[arg-type]
    coefficients = np.array(chain.coefficients(factors))
    deltas = np.diff(points) if topology == "sequence" else points[1:] - points[0]
    assert coefficients.sum() == pytest.approx(1.0, abs=1e-12)
    assert coefficients @ points == pytest.approx(points[-1] + np.dot(factors, deltas), abs=1e-9)


def test_a_blend_is_the_same_in_slices_of_any_size(chain, monkeypatch) -> None:
    factors = [0.3, -0.2, 0.7]
    whole = blended(chain, factors)
    monkeypatch.setattr("ztom.blending.apply.SLICE", {"cpu": 7, "cuda": 7})
    for name, tensor in blended(chain, factors).items():
        assert torch.equal(tensor, whole[name])


def test_lora_chains_are_exact_in_both_forms(tmp_path: Path) -> None:
    paths, deltas = make_adapter_chain(tmp_path)
    chain = open_chain(paths)
    base = load_file(paths[0] / "model.safetensors")
    for factors in ([0.4, -0.6, 0.2], [-1.0, 0.5, -0.5], [0.0, 0.0, 0.0]):
        c = chain.coefficients(factors)
        adapter = blend_adapter(chain, factors, file_reader(chain))
        dense = blended(chain, factors)
        for name, weight in base.items():
            want = weight.double()
            for member, by_name in enumerate(deltas, start=1):
                if name in by_name:
                    want = want + c[member] * by_name[name]
            assert relative_error(dense[name], want) <= 1e-6
            module = f"base_model.model.{name.removesuffix('.weight')}"
            if f"{module}.lora_A.weight" in adapter.tensors:
                update = adapter_update(adapter, name)
                step = want - weight.double()
                assert float((update - step).norm()) <= 1e-5 * max(float(step.norm()), 1e-12)


def adapter_update(adapter, name: str) -> torch.Tensor:
    """What PEFT would add to the base: alpha / r * B @ A, with its patterns."""
    module = name.removesuffix(".weight")
    a = adapter.tensors[f"base_model.model.{module}.lora_A.weight"].double()
    b = adapter.tensors[f"base_model.model.{module}.lora_B.weight"].double()
    rank = adapter.config["rank_pattern"].get(module, adapter.config["r"])
    alpha = adapter.config["alpha_pattern"].get(module, adapter.config["lora_alpha"])
    assert a.shape[0] == rank
    return alpha / rank * (b @ a)


def test_alpha_zero_of_an_adapter_chain_keeps_the_latest_factors_bit_for_bit(tmp_path) -> None:
    paths, _ = make_adapter_chain(tmp_path)
    adapter = blend_adapter(open_chain(paths), [0.0] * 3, file_reader(open_chain(paths)))
    latest = load_file(paths[-1] / "adapter_model.safetensors")
    assert set(latest) == set(adapter.tensors)
    assert all(torch.equal(latest[name], adapter.tensors[name]) for name in latest)


def test_a_full_chain_does_not_become_an_adapter(chain) -> None:
    with pytest.raises(ChainError, match="only a chain of adapters"):
        blend_adapter(chain, [0.0] * 3, file_reader(chain))


@pytest.mark.abuse(17)
def test_float16_overflow_fails_and_says_where(tmp_path: Path) -> None:
    states = [{"model.norm.weight": torch.full((4,), value)} for value in (1e3, 6e4)]
    paths = make_plain_chain(tmp_path, states=states, dtype=torch.float16)
    with pytest.raises(BlendError, match=r"weight: the blend is not finite in torch.float16"):
        blended(open_chain(paths), [10.0])


def test_the_precision_report_shows_what_bfloat16_swallows(tmp_path: Path) -> None:
    # design figures for |alpha| = 0.1 on Gaussian weights: 5.8 % of the step at a relative change
    # of 1e-3, 52 % at 1e-2
    for relative, expected in ((1e-3, 0.058), (1e-2, 0.52)):
        torch.manual_seed(0)
        weights = torch.randn(512, 512).to(torch.bfloat16).float()
        step = torch.randn(512, 512) * relative
        paths = make_plain_chain(
            tmp_path / str(relative),
            states=[{"model.norm.weight": (weights - step)}, {"model.norm.weight": weights}],
        )
        chain = open_chain(paths)
        report = measure_precision(chain, [0.1], file_reader(chain), dtype=torch.bfloat16)
        assert report.overall.realised == pytest.approx(expected, rel=0.25)
        exact = measure_precision(chain, [0.1], file_reader(chain), dtype=torch.float32)
        assert exact.overall.realised == pytest.approx(1.0)
        assert bool(report.warnings) == (report.overall.realised < 0.5)
        assert not exact.warnings


def test_inspection_measures_each_step(chain, paths) -> None:
    report = inspect_chain(chain, limit=0.1, dtype=torch.bfloat16)
    w = states(paths)
    for position, step in enumerate(report.steps, start=1):
        change = sum(float((w[position][n] - w[position - 1][n]).square().sum()) for n in w[0])
        before = sum(float(w[position - 1][n].square().sum()) for n in w[0])
        assert step.relative == pytest.approx((change / before) ** 0.5, rel=1e-4)
    assert report.parameters == sum(t.numel() for t in w[0].values())


@pytest.mark.abuse(40)
@pytest.mark.parametrize(
    ("factors", "message"),
    [([0.1], "wrong number"), ([0.1, float("nan"), 0], "not a finite"), ([0, 0, 1e999], "finite")],
)
def test_bad_factors_are_refused(chain, factors, message: str) -> None:
    with pytest.raises(FactorError, match=message):
        plan_blend(chain, factors)


def edit(path: Path, name: str, tensor: torch.Tensor | None, **more: torch.Tensor) -> None:
    file = path / "model.safetensors"
    state = load_file(file)
    state.pop(name)
    if tensor is not None:
        state[name] = tensor
    save_file(state | more, file, metadata={"format": "pt"})


@pytest.mark.abuse(18, 19, 20)
def test_members_that_do_not_fit_are_refused_with_the_difference(tmp_path: Path) -> None:
    def fails(kind: str, match: str, change) -> None:
        paths = make_plain_chain(tmp_path / kind, members=2)
        change(paths[1])
        with pytest.raises(IncompatibleChainError, match=match):
            open_chain(paths)

    name = "model.layers.0.mlp.up_proj.weight"
    fails("keys", "lacks 1 tensor", lambda p: edit(p, name, None))
    fails("extra", r"has 1 tensor.*extra\.weight", lambda p: edit(p, name, torch.ones(16, 8),
          **{"extra.weight": torch.ones(2)}))  # fmt: skip
    fails("shape", r"shapes differ.*\[16, 8\] / \[8, 16\]",
          lambda p: edit(p, name, torch.ones(8, 16)))  # fmt: skip
    fails("dtype", "dtypes differ", lambda p: edit(p, name, torch.ones(16, 8).half()))

    def other_config(path: Path) -> None:
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, "rope_theta": 5.0}))

    fails("config", "config differs in rope_theta", other_config)
    fails("tokenizer", "tokenizers differ", lambda p: (p / "tokenizer.json").write_text(
        json.dumps({"model": {"type": "BPE", "vocab": {"x": 0}, "merges": []}})))  # fmt: skip


@pytest.mark.abuse(20)
def test_a_dtype_difference_can_be_allowed(tmp_path: Path) -> None:
    paths = make_plain_chain(tmp_path, members=2)
    name = "model.layers.0.mlp.up_proj.weight"
    state = load_file(paths[0] / "model.safetensors")
    edit(paths[0], name, state[name].half())
    blend = blended(open_chain(paths, allow_dtype_cast=True), [0.5])
    assert blend[name].dtype == torch.float32


@pytest.mark.abuse(21)
def test_a_head_that_repeats_the_embedding_is_normalised(tmp_path: Path) -> None:
    paths = make_plain_chain(tmp_path, members=2, tied=True)
    file = paths[1] / "model.safetensors"
    state = load_file(file)
    save_file(
        {**state, "lm_head.weight": state["model.embed_tokens.weight"].clone()},
        file,
        metadata={"format": "pt"},
    )
    both = blended(open_chain(paths), [0.5])
    assert torch.equal(both["lm_head.weight"], both["model.embed_tokens.weight"])
    assert "lm_head.weight" not in blended(open_chain(paths[::-1]), [0.5])
    save_file(
        {**state, "lm_head.weight": state["model.embed_tokens.weight"] + 1},
        file,
        metadata={"format": "pt"},
    )
    with pytest.raises(IncompatibleChainError, match="lm_head"):
        open_chain(paths)


def test_the_digest_depends_on_order_and_content(paths) -> None:
    digests = {open_chain(list(order)).digest for order in itertools.permutations(paths[:3])}
    assert len(digests) == 6


@pytest.mark.parametrize(
    "content",
    ["checkpoints: [a]", "nonsense: 1\ncheckpoints: [a, b]", "[1, 2",
     "latest: 1\ncheckpoints: [a, b]",
     "topology: siblings\nlatest: 7\ncheckpoints: [a, b]"],
)  # fmt: skip
def test_bad_chain_files_are_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "chain.yaml"
    file.write_text(content)
    with pytest.raises(ChainError, match=r"chain\.yaml"):
        read_chain_file(file)


def test_relative_references_are_taken_from_the_chain_file(paths, tmp_path: Path) -> None:
    folder = paths[0].parent
    (folder / "chain.yaml").write_text("checkpoints: ['00', '01']")
    assert load_chain(folder / "chain.yaml", settings=Settings()).transitions == 1


def test_unknown_dtypes_are_refused() -> None:
    from ztom.blending.plan import parse_dtype

    with pytest.raises(ConfigError, match="int4"):
        parse_dtype("int4")


def test_tensors_that_are_not_numbers_to_blend_are_taken_from_the_latest(tmp_path: Path) -> None:
    states_ = [
        {"model.norm.weight": torch.ones(4), "bn.num_batches_tracked": torch.tensor([i])}
        for i in range(2)
    ]
    chain = open_chain(make_plain_chain(tmp_path, states=states_))
    plan = {t.name: t for t in plan_blend(chain, [0.5], dtype=torch.bfloat16).tensors}
    assert blend_tensor(plan["bn.num_batches_tracked"], file_reader(chain)).tolist() == [1]


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_what_is_not_finite_is_named_with_its_checkpoint(
    tmp_path: Path, place: int, value: float
) -> None:
    paths = make_plain_chain(tmp_path, members=3)
    state = load_file(paths[place] / "model.safetensors")
    state["model.norm.weight"][3] = value
    save_file(state, paths[place] / "model.safetensors", metadata={"format": "pt"})
    chain = open_chain(paths)
    named = rf"0{place} cannot be blended, model\.norm\.weight holds values that are not finite"
    with pytest.raises(ChainError, match=named):
        measure_precision(chain, [0.5, 0.2], file_reader(chain), dtype=None)
    with pytest.raises(CheckpointError, match=rf"0{place}: model\.norm\.weight holds values"):
        check_finite(chain, place)


def test_double_precision_is_copied_bit_for_bit_where_it_is_measured_too(tmp_path: Path) -> None:
    values = torch.tensor([0.1, 1 / 3, -0.0], dtype=torch.float64)
    states = [{"model.norm.weight": values + 1}, {"model.norm.weight": values}]
    paths = make_plain_chain(tmp_path, states=states, dtype=torch.float64)
    chain, slices = open_chain(paths), []
    (plan,) = plan_blend(chain, [0.0]).tensors
    out = blend_tensor(plan, file_reader(chain), observe=lambda *args: slices.append(args))
    assert out.view(torch.int64).tolist() == values.view(torch.int64).tolist()
    assert len(slices) == 1
