"""Vocabularies that grow or shrink: rows that a member lacks have no delta."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from saved_models import edit_config, grow, open_members, save_model
from toy_checkpoints import CONFIG, HIDDEN, llama_tensors, write_checkpoint
from toys import make_tokenizer

from ztom.blending.apply import blend_tensor, file_reader
from ztom.blending.chain import Chain
from ztom.blending.changes import change_scores, row_changes
from ztom.blending.inspection import inspect_chain
from ztom.blending.plan import plan_blend
from ztom.engines.config import EngineConfig
from ztom.engines.torch_engine import TorchEngine
from ztom.errors import AdapterUnsupportedError, IncompatibleChainError
from ztom.settings import Settings
from ztom.variants.verify import verify_variant
from ztom.variants.write import stage_variant

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
State = dict[str, torch.Tensor]


def blended(chain: Chain, factors: list[float]) -> State:
    plans = plan_blend(chain, factors).tensors
    return {plan.name: blend_tensor(plan, file_reader(chain)) for plan in plans}


def expected(states: list[torch.Tensor], factors: list[float], *, siblings: bool) -> torch.Tensor:
    """``W_n + sum alpha_i delta_i`` in float64, row by row: no delta where a row is lacking."""
    states = [state.double() for state in states]
    out = states[-1].clone()
    for step, factor in enumerate(factors, start=1):
        before, after = states[0 if siblings else step - 1], states[step]
        rows = min(len(before), len(after), len(out))
        out[:rows] += factor * (after[:rows] - before[:rows])
    return out


def toy(folder: Path, rows: int, seed: int, *, tied: bool = False) -> Path:
    tensors = llama_tensors(seed, tied=tied)
    generator = torch.Generator().manual_seed(1000 + seed)
    for name in {EMBEDDING, HEAD} & tensors.keys():
        tensors[name] = torch.randn(rows, HIDDEN, generator=generator)
    config = {**CONFIG, "vocab_size": rows, "tie_word_embeddings": tied}
    return write_checkpoint(folder, tensors, config=config)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=4),
    st.lists(st.sampled_from([-1.0, 0.0, 0.3, -0.7]), min_size=3, max_size=3),
    st.sampled_from(["sequence", "siblings"]),
    st.booleans(),
)
def test_any_sizes_follow_the_formula_row_by_row(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    factors: list[float],
    topology: str,
    tied: bool,
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    paths = [toy(folder / str(i), size, i, tied=tied) for i, size in enumerate(sizes)]
    chain = open_members(*paths, topology=topology)
    factors = factors[: chain.transitions]
    states = [load_file(path / "model.safetensors") for path in paths]
    siblings = topology == "siblings"
    for name, tensor in blended(chain, factors).items():
        want = expected([state[name] for state in states], factors, siblings=siblings)
        assert tensor.shape == states[-1][name].shape
        assert torch.allclose(tensor.double(), want, atol=1e-5)
    assert all(
        torch.equal(t, states[-1][n]) for n, t in blended(chain, [0.0] * len(factors)).items()
    )


def test_slices_of_any_size_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = open_members(*(toy(tmp_path / str(i), 4 + 3 * i, i) for i in range(3)))
    whole = blended(chain, [0.3, -0.2])
    monkeypatch.setattr("ztom.blending.apply.SLICE", {"cpu": 7, "cuda": 7})
    assert all(torch.equal(t, whole[n]) for n, t in blended(chain, [0.3, -0.2]).items())


@pytest.mark.parametrize("family", ["llama", "llama-tied", "gpt2"])
def test_a_chain_that_grows_blends_loads_and_verifies(tmp_path: Path, family: str) -> None:
    base = save_model(tmp_path / "base", family)
    first = grow(tmp_path / "first", base, 387, 1)
    last = grow(tmp_path / "last", first, 390, 2)
    chain = open_members(base, first, last)
    assert [note.partition(" (")[0] for note in chain.notes] == [
        "vocabulary: base has 384 rows, last",
        "vocabulary: first has 387 rows, last",
    ]
    assert "rows 384 to 389 have no delta in its steps, they stay as in last" in chain.notes[0]
    variant = tmp_path / "variant"
    with stage_variant(chain, [0.4, -0.3], variant) as staged:
        staged.publish()
        assert staged.recipe.notes == chain.notes
    check = verify_variant(variant, share=1.0, settings=Settings())
    assert check.rederived == check.tensors
    assert json.loads((variant / "config.json").read_text())["vocab_size"] == 390
    loaded = transformers.AutoModelForCausalLM.from_pretrained(variant)
    assert loaded.get_input_embeddings().weight.shape[0] == 390
    again = open_members(last, variant)
    assert again.notes == ()


@pytest.mark.parametrize("family", ["llama", "llama-tied"])
def test_load_then_blend_is_blend_then_load(tmp_path: Path, family: str) -> None:
    base = save_model(tmp_path / "base", family)
    last = grow(tmp_path / "last", base, 387, 1)
    make_tokenizer().save_pretrained(last)
    chain, ids = open_members(base, last), torch.tensor([[1, 5, 383, 386, 384]])
    engine_config = EngineConfig(name="torch")
    for factors in ([0.0], [0.5], [-1.0]):
        with stage_variant(chain, factors, tmp_path / f"v{factors[0]}") as staged:
            staged.publish()
        written = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / f"v{factors[0]}")
        engine = TorchEngine(engine_config, last, chain)
        engine.blend(factors)
        with torch.inference_mode():
            assert torch.equal(engine._model(ids).logits, written(ids).logits)
            if factors == [0.0]:
                latest = transformers.AutoModelForCausalLM.from_pretrained(last)
                assert torch.equal(written(ids).logits, latest(ids).logits)


def test_padding_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    chain = open_members(toy(tmp_path / "padded", 16, 0), toy(tmp_path / "cut", 11, 1))
    assert chain.notes == (
        "vocabulary: padded has 16 rows, cut (used) 11: its rows 11 to 15 are left out "
        f"({HEAD}, {EMBEDDING})",
    )
    assert blended(chain, [0.5])[EMBEDDING].shape == (11, HIDDEN)


def test_every_measure_takes_such_a_chain(tmp_path: Path) -> None:
    chain = open_members(*(toy(tmp_path / str(i), 4 + 3 * i, i) for i in range(3)))
    report = inspect_chain(chain, limit=0.1, dtype=None)
    assert len(report.steps) == 2
    scores = change_scores(chain, 0, 2)
    assert scores.weights is not None
    rows = row_changes(chain, 0, 2, [EMBEDDING])[EMBEDDING]
    assert [value > 0 for value in rows] == [True] * 7 + [False] * 3  # from where a row appeared


def test_other_shapes_are_refused_still(tmp_path: Path) -> None:
    paths = [toy(tmp_path / "a", 8, 0), toy(tmp_path / "b", 9, 1)]
    state = load_file(paths[1] / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    save_file({**state, name: torch.ones(9, HIDDEN)}, paths[1] / "model.safetensors")
    with pytest.raises(IncompatibleChainError, match=r"shapes differ: model\.layers\.0"):
        open_members(*paths)


def adapter(folder: Path, tensors: State) -> Path:
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def lora(module: str, outputs: int) -> State:
    name = f"base_model.model.{module}"
    return {
        f"{name}.lora_A.weight": torch.randn(2, HIDDEN),
        f"{name}.lora_B.weight": torch.randn(outputs, 2),
    }


def test_an_adapter_after_a_grown_iteration_has_the_rows_of_its_base(tmp_path: Path) -> None:
    paths = [toy(tmp_path / "base", 8, 0), toy(tmp_path / "grown", 10, 1)]
    adapted = adapter(tmp_path / "lora", lora("model.layers.0.self_attn.q_proj", HIDDEN))
    chain = open_members(*paths, adapted)
    base, grown = (load_file(path / "model.safetensors") for path in paths)
    blend = blended(chain, [0.5, 0.25])
    want = base[EMBEDDING] + 0.5 * (grown[EMBEDDING][:8] - base[EMBEDDING])
    want = want + 0.25 * (base[EMBEDDING] - grown[EMBEDDING][:8])
    assert torch.allclose(blend[EMBEDDING], want, atol=1e-6)


def test_an_adapted_head_over_rows_that_differ_is_refused(tmp_path: Path) -> None:
    paths = [toy(tmp_path / "base", 8, 0), toy(tmp_path / "grown", 10, 1)]
    with pytest.raises(AdapterUnsupportedError, match=r"adapts lm_head.weight.*8, 10, 8 rows"):
        open_members(*paths, adapter(tmp_path / "lora", lora("lm_head", 8)))


def test_an_adapter_with_a_grown_embedding_is_refused_by_name(tmp_path: Path) -> None:
    tensors = lora("model.layers.0.self_attn.q_proj", HIDDEN)
    tensors[f"base_model.model.{EMBEDDING}"] = torch.randn(10, HIDDEN)
    with pytest.raises(AdapterUnsupportedError, match=r"10 rows, 8 in .*resize_token_embeddings"):
        open_members(toy(tmp_path / "base", 8, 0), adapter(tmp_path / "lora", tensors))


def test_a_config_that_says_other_rows_than_there_are_is_refused(tmp_path: Path) -> None:
    paths = [toy(tmp_path / "a", 8, 0), toy(tmp_path / "b", 9, 1)]
    edit_config(paths[1], vocab_size=8)
    with pytest.raises(ValueError, match="vocab_size 8, .* disagrees"):
        open_members(*paths)


def test_a_bare_model_with_fewer_rows_is_matched_too(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base")
    last = grow(tmp_path / "last", base, 387, 1)
    state = load_file(base / "model.safetensors")
    bare = {name.removeprefix("model."): t for name, t in state.items() if name != HEAD}
    save_file({**bare, HEAD: state[HEAD]}, base / "model.safetensors", metadata={"format": "pt"})
    chain = open_members(base, last)
    after = load_file(last / "model.safetensors")
    want = expected([state[EMBEDDING], after[EMBEDDING]], [0.5], siblings=False)
    assert torch.allclose(blended(chain, [0.5])[EMBEDDING].double(), want, atol=1e-6)
