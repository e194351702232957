"""One conformance suite for every engine, and parity of vLLM with transformers."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from toy_variant import open_toy_adapters, write_blend
from toys import (
    FAMILIES,
    TEXT,
    make_chain,
    make_config,
    make_tokenizer,
    reference_blend,
    save_steps,
)

from tune_search.factories import VariantEngineFactory
from ztom.blending.chain import Chain, load_chain
from ztom.blending.chain_file import ChainConfig
from ztom.engines.build import build_engine, build_single
from ztom.engines.config import EngineConfig
from ztom.engines.pristine import HeldChain, choose_placement
from ztom.engines.protocol import Capability, Engine, GenerationConfig
from ztom.engines.respond import respond
from ztom.errors import CapabilityError, ChainError, EngineError, FactorError
from ztom.scoring.protocol import Need
from ztom.settings import Settings
from ztom.stimuli.records import Message, Prompt, Stimulus
from ztom.variants.recipe import Form

FACTORS = (0.4, -0.7)
PROMPTS: list[Prompt] = [
    "What does it return?",
    (Message("system", "Be brief."), Message("user", "Explain the chain of checkpoints")),
    TEXT[0],
]
ANSWERS = [" It returns the sum of its arguments.", " A base model", "dog"]
SHORT = GenerationConfig(max_new_tokens=12)


def open_chain(paths: list[Path]) -> Chain:
    config = ChainConfig.model_validate({"checkpoints": [str(path) for path in paths]})
    return load_chain(config, settings=Settings())


def save_classifier_chain(folder: Path) -> list[Path]:
    config = make_config("llama")
    config.num_labels = 3
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    return save_steps(model, make_tokenizer(), folder, members=3, step=0.5)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_chain(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module", params=["fake", "torch", "torch-classifier", "vllm"])
def engine(
    request: pytest.FixtureRequest, llama: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    paths = llama
    if request.param == "torch-classifier":
        paths = save_classifier_chain(tmp_path_factory.mktemp("classifier"))
    name = request.param.partition("-")[0]
    made = build_engine(EngineConfig(name=name, dtype="float32"), open_chain(paths))
    yield made
    made.close()
    made.close()  # harmless


_IS_COMPILED = """
import os, torch, ztom.engines.vllm_engine
from vllm.v1.sample.ops.logprobs import batched_count_greater_than as op
os.environ["TORCHDYNAMO_DISABLE"] = "0"
compiled = torch.compile(abs, backend="eager")
print(*(hasattr(function, "_torchdynamo_orig_callable") for function in (op, compiled)))
"""


def test_the_first_log_probs_wait_for_no_compiler() -> None:
    if torch.cuda.is_available():
        pytest.skip("on a GPU the engine compiles")
    environment = {k: v for k, v in os.environ.items() if k != "TORCHDYNAMO_DISABLE"}
    command = [sys.executable, "-c", _IS_COMPILED]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"]  # the second is what a compiled one looks like


def observe(engine: Engine) -> list[object]:
    """Everything that an engine can say, in a form that compares bit for bit."""
    said: list[object] = []
    if Capability.GENERATE in engine.info.capabilities:
        said.append(engine.generate(PROMPTS, SHORT))
    if Capability.LOG_PROBS in engine.info.capabilities:
        said += [row.tobytes() for row in engine.log_probs(PROMPTS, ANSWERS)]
    if Capability.VALUES in engine.info.capabilities:
        said.append(engine.values(PROMPTS).tobytes())
    return said


def test_it_says_what_it_is(engine: Engine) -> None:
    assert engine.info.capabilities
    assert engine.info.version
    assert engine.info.device in {"cpu", "cuda"}
    assert engine.info.dtype == "float32"


def test_factors_change_the_answers_and_zeros_bring_them_back_bitwise(engine: Engine) -> None:
    engine.blend((0.0, 0.0))
    start = observe(engine)
    stats = engine.blend(FACTORS)
    assert engine.factors == FACTORS
    assert stats.seconds >= 0
    assert stats.placement in {"device", "host", "file"}
    blended = observe(engine)
    assert blended != start
    engine.blend((0.0, 0.0))
    assert observe(engine) == start
    engine.blend(FACTORS)
    assert observe(engine) == blended


@pytest.mark.parametrize("bad", [(0.1,), (0.1, math.nan), (0.1, math.inf), (0.1, 0.2, 0.3)])
def test_bad_factors_are_refused_and_leave_the_blend_alone(engine: Engine, bad) -> None:
    engine.blend(FACTORS)
    before = observe(engine)
    with pytest.raises(FactorError):
        engine.blend(bad)
    assert engine.factors == FACTORS
    assert observe(engine) == before


def test_answers_come_in_order_one_for_each_prompt(engine: Engine) -> None:
    engine.blend(FACTORS)
    if Capability.GENERATE in engine.info.capabilities:
        together = engine.generate(PROMPTS * 3, SHORT)
        assert len(together) == 9
        assert together[:3] == together[3:6]
        assert all(0 < c.tokens <= 12 for c in together)
        assert engine.generate([], SHORT) == []
    if Capability.LOG_PROBS in engine.info.capabilities:
        rows = engine.log_probs(PROMPTS * 2, ANSWERS * 2)
        assert [len(r) for r in rows[:3]] == [len(r) for r in rows[3:]]
        assert all(row.dtype == np.float64 and (row <= 1e-6).all() for row in rows)
    if Capability.VALUES in engine.info.capabilities:
        values = engine.values(PROMPTS * 2)
        assert values.shape[0] == 6
        np.testing.assert_allclose(values[:3], values[3:], atol=1e-5)


def test_what_it_does_not_offer_is_refused_by_name(engine: Engine) -> None:
    absent = set(Capability) - engine.info.capabilities
    if Capability.GENERATE in absent:
        with pytest.raises(CapabilityError):
            engine.generate(PROMPTS, SHORT)
    if Capability.LOG_PROBS in absent:
        with pytest.raises(CapabilityError):
            engine.log_probs(PROMPTS, ANSWERS)
    if Capability.VALUES in absent:
        with pytest.raises(CapabilityError):
            engine.values(PROMPTS)


def test_greedy_answers_are_the_same_again(engine: Engine) -> None:
    engine.blend(FACTORS)
    assert observe(engine) == observe(engine)


def test_responses_carry_what_was_asked_for(engine: Engine) -> None:
    offers = engine.info.capabilities
    needs = {Need.LABEL_LOG_PROBS}
    if Capability.GENERATE in offers:
        needs |= {Need.TEXT}
    if Capability.LOG_PROBS in offers:
        needs |= {Need.TOKEN_LOG_PROBS}
    labels = ["yes", "no", "maybe"]
    if Capability.VALUES in offers:
        labels = [f"label {i}" for i in range(engine.values(PROMPTS).shape[1])]
    pairs = zip(PROMPTS, ANSWERS, strict=True)
    stimuli = [Stimulus(str(i), p, a, str(i)) for i, (p, a) in enumerate(pairs)]
    outputs = respond(engine, stimuli, needs=needs, generation=SHORT, labels=labels)
    for output in outputs:
        assert (output.text is not None) == (Need.TEXT in needs)
        assert (output.token_log_probs is not None) == (Need.TOKEN_LOG_PROBS in needs)
        assert output.label_log_probs is not None
        assert len(output.label_log_probs) == len(labels)


@pytest.mark.parametrize("family", FAMILIES)
def test_vllm_agrees_with_transformers_after_a_blend(tmp_path: Path, family: str) -> None:
    paths = make_chain(tmp_path, family)
    engine = build_engine(EngineConfig(dtype="float32"), open_chain(paths))
    try:
        start = observe(engine)
        engine.blend(FACTORS)
        got = engine.log_probs(PROMPTS, ANSWERS)
        want = transformers_log_probs(engine, paths)
        worst = max(np.abs(g - w).max() for g, w in zip(got, want, strict=True))
        assert worst <= 1e-4
        engine.blend((0.0, 0.0))
        assert observe(engine) == start
    finally:
        engine.close()


def transformers_log_probs(engine: Engine, paths: list[Path]) -> list[np.ndarray]:
    """The same blend, computed as the formula says, through transformers."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        paths[-1], dtype=torch.float32, attn_implementation="eager"
    )
    state = {name: tensor.float() for name, tensor in reference_blend(paths, FACTORS).items()}
    unknown = model.load_state_dict(state, strict=False).unexpected_keys
    assert not unknown
    model.tie_weights()
    rows = []
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        head = engine._encoder.prompt_ids(prompt)  # type: ignore[attr-defined]
        tail = engine._encoder.continuation_ids(answer)  # type: ignore[attr-defined]
        with torch.no_grad():
            scores = model(torch.tensor([head + tail])).logits[0].log_softmax(-1)
        picked = scores[len(head) - 1 : -1].gather(1, torch.tensor(tail)[:, None])
        rows.append(picked[:, 0].numpy())
    return rows


def test_a_stale_prefix_cache_is_impossible(llama: list[Path], monkeypatch) -> None:
    engine = build_engine(EngineConfig(dtype="float32"), open_chain(llama))
    try:
        # long enough for whole cache blocks; asked twice, so the second time they are found
        prompt = " ".join(TEXT * 2)
        zeros = engine.generate([prompt], SHORT)
        assert engine.generate([prompt], SHORT) == zeros
        engine.blend(FACTORS)
        fresh = engine.generate([prompt], SHORT)
        assert fresh != zeros
        # provoke it: leave the cache as it is, so that only the salt stands in the way
        monkeypatch.setattr(engine._llm, "reset_prefix_cache", lambda: None)
        engine.blend((0.0, 0.0))
        assert engine.generate([prompt], SHORT) == zeros
        engine.blend(FACTORS)
        assert engine.generate([prompt], SHORT) == fresh
        # and without the salt the provocation would have worked
        engine._blends = 0
        engine.generate([prompt], SHORT)
        engine.blend((0.0, 0.0))
        engine._blends = 0
        assert engine.generate([prompt], SHORT) != zeros
    finally:
        engine.close()


def test_a_written_model_runs_without_factors(llama: list[Path]) -> None:
    engine = build_single(EngineConfig(name="torch", dtype="float32"), llama[0])
    assert engine.factors == ()
    engine.blend(())
    with pytest.raises(FactorError):
        engine.blend((0.1,))
    assert engine.generate(["hello"], SHORT)[0].tokens > 0


@pytest.mark.parametrize("placement", ["host", "file"])
def test_held_and_streamed_checkpoints_blend_alike(llama: list[Path], placement) -> None:
    chain = open_chain(llama)
    held = HeldChain(chain, device=torch.device("cpu"), dtype=None, placement=placement)
    want = reference_blend(llama, FACTORS)
    for name, tensor in held.blend(held.plan(FACTORS)):
        torch.testing.assert_close(tensor.double(), want[name], rtol=1e-5, atol=1e-6)
    assert held.bytes_read > 0


def test_placement_follows_free_memory() -> None:
    assert choose_placement(10, device_free=100, host_free=100) == "device"
    assert choose_placement(90, device_free=100, host_free=1000) == "host"
    assert choose_placement(90, device_free=None, host_free=100) == "file"


def test_a_checkpoint_with_nan_is_refused(tmp_path: Path) -> None:  # row 16
    from safetensors.torch import load_file, save_file
    from toys import make_plain_chain

    paths = make_plain_chain(tmp_path, members=2)
    state = load_file(paths[1] / "model.safetensors")
    state["model.norm.weight"][3] = math.nan
    save_file(state, paths[1] / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ChainError, match=r"01 cannot be blended.*model\.norm\.weight"):
        HeldChain(open_chain(paths), device=torch.device("cpu"), dtype=None)


def test_what_does_not_fit_the_context_is_refused_before_it_runs(llama: list[Path]) -> None:
    engine = build_single(EngineConfig(name="torch", dtype="float32"), llama[0])
    with pytest.raises(EngineError, match="does not fit into the model's context"):
        engine.log_probs(["word " * 400], ["answer"])
    with pytest.raises(EngineError, match="empty"):
        engine.log_probs(["word"], [""])


@pytest.mark.parametrize("name", ["torch", "vllm"])
@pytest.mark.parametrize("whole_chain", [False, True], ids=["model", "chain"])
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1.self_attn.q_proj", None, r"1 missing: model\.layers\.1\.self_attn\.q_proj\.weight"),
        ("1.mlp.up_proj", "1.mlp.raise", r"1 missing: .*1\.mlp\.up_proj.*; 1 unexpected: .*raise"),
    ],
    ids=["missing", "renamed"],
)
def test_a_checkpoint_whose_keys_do_not_fit_never_answers(
    tmp_path: Path, name: str, whole_chain: bool, old: str, new: str | None, message: str
) -> None:
    from safetensors.torch import load_file, save_file

    paths = make_chain(tmp_path, members=2)
    for path in paths:
        state = load_file(path / "model.safetensors")
        tensor = state.pop(f"model.layers.{old}.weight")
        if new is not None:
            state[f"model.layers.{new}.weight"] = tensor
        save_file(state, path / "model.safetensors", metadata={"format": "pt"})
    config = EngineConfig(name=name, dtype="float32")
    chain = open_chain(paths)
    with pytest.raises(EngineError, match=message):
        _ = build_engine(config, chain) if whole_chain else build_single(config, paths[0])


def make_module() -> torch.nn.Module:
    """A plain module, as a user would name it in `engine.module`."""
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


def test_plain_modules_blend_too(tmp_path: Path) -> None:
    from toys import make_plain_chain

    torch.manual_seed(0)
    states = [make_module().state_dict() for _ in range(3)]
    chain = open_chain(make_plain_chain(tmp_path, states=states))
    config = EngineConfig(name="torch", module="test_engines:make_module")
    engine = build_engine(config, chain)
    engine.blend(FACTORS)
    rows = [(0.1, 0.2, 0.3, 0.4), (1.0, -1.0, 0.5, 0.0)]
    blend = {
        n: states[2][n] + 0.4 * (states[1][n] - states[0][n]) - 0.7 * (states[2][n] - states[1][n])
        for n in states[0]
    }
    module = make_module()
    module.load_state_dict(blend)
    with torch.no_grad():
        want = module(torch.tensor(rows)).double().numpy()
    np.testing.assert_allclose(engine.values(rows), want, rtol=1e-5, atol=1e-6)
    with pytest.raises(CapabilityError, match="rows of numbers"):
        engine.values(["text"])


@pytest.mark.parametrize("form", ["dense", "adapter"])
def test_what_a_search_wrote_is_loaded_whatever_may_be_referred_to(
    tmp_path: Path, form: Form
) -> None:
    """As in a server, whose searches may refer to the chain and write somewhere else."""
    chain = open_toy_adapters(tmp_path / "chain")
    written = write_blend(chain, (0.5, -0.4), tmp_path / "written", form=form)
    references = [member.reference for member in chain.members]
    maker = VariantEngineFactory(
        EngineConfig(name="torch", dtype="float32"),
        written,
        ChainConfig.model_validate({"checkpoints": references}),
        Settings(allowed_roots=(str(tmp_path / "chain"),)),
    )
    engine = maker()
    expected = build_engine(EngineConfig(name="torch", dtype="float32"), chain)
    expected.blend((0.5, -0.4))
    assert engine.generate(PROMPTS, SHORT) == expected.generate(PROMPTS, SHORT)
