"""Derivatives of errors by the factors: exact, in both modes, for what chains are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from engine_calls import ANSWERS, PROMPTS, open_chain, save_classifier_chain
from foreign_chains import make_model
from toy_variant import open_toy_adapters
from toys import make_config, make_plain_chain, make_tokenizer, save_steps

from ztom.blending.chain import Chain
from ztom.blending.factor_plans import plan_step
from ztom.engines.build import build_engine, build_single
from ztom.engines.config import EngineConfig
from ztom.engines.derivatives import differentiate
from ztom.engines.factor_steps import FactorSteps
from ztom.engines.protocol import Capability
from ztom.engines.respond import respond
from ztom.engines.torch_engine import TorchEngine
from ztom.errors import CapabilityError
from ztom.scoring.build import build_error
from ztom.scoring.differentiable import LossTerm
from ztom.scoring.likelihood import LabelCrossEntropy, TokenCrossEntropy
from ztom.scoring.regression import SquaredError
from ztom.stimuli.records import Stimulus

FACTORS = (0.3, -0.2)
TOKENS = LossTerm("tokens")
LABELS = ("yes", "no", "maybe")


def stimuli(expected: list[str], prompts: list[Any] | None = None) -> tuple[Stimulus, ...]:
    pairs = zip(prompts or PROMPTS, expected, strict=True)
    return tuple(Stimulus(str(i), p, e, str(i)) for i, (p, e) in enumerate(pairs))


def engine_on(chain: Chain, **options: Any) -> TorchEngine:
    engine = build_engine(EngineConfig(name="torch", dtype="float32", **options), chain)
    assert isinstance(engine, TorchEngine)
    return engine


def model_chain(model: Any, folder: Path, *, step: float = 0.5) -> Chain:
    return open_chain(save_steps(model, make_tokenizer(), folder, members=3, step=step))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> TorchEngine:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(make_config("llama"))
    return engine_on(model_chain(model, tmp_path_factory.mktemp("llama")))


def check_modes(engine: TorchEngine, sets: list[Any], factors: tuple[float, ...]) -> Any:
    forward = engine.differentiate(factors, sets, mode="forward")
    reverse = engine.differentiate(factors, sets, mode="reverse")
    for a, b in zip(forward, reverse, strict=True):
        assert a.error == pytest.approx(b.error, rel=1e-6)
        np.testing.assert_allclose(a.per_stimulus, b.per_stimulus, rtol=1e-5)
        scale = np.abs(a.gradient).max()
        np.testing.assert_allclose(a.gradient, b.gradient, atol=1e-5 * scale)
        assert scale > 0
    return forward


def check_differences(
    engine: TorchEngine, data: Any, *, h: float = 1e-2, rel: float = 1e-2, wide: bool = False
) -> None:
    """Against central differences of the error along each step, with weights in float64.

    Many models compute norms in float32 whatever their weights are in, which a small ``h`` would
    blow up; ``wide`` is for one that does not, in float64 throughout.
    """
    [single] = engine.differentiate(FACTORS, [(data, (TOKENS,))], mode="forward")
    engine.blend((0.0, 0.0))
    model, steps = engine._model, FactorSteps(engine._model, engine._held)
    made = [steps(i) for i in (0, 1)]
    if wide:
        model.double()
        made = [{name: tensor.double() for name, tensor in step.items()} for step in made]
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sets = [[engine._loss_inputs().prepare(data, TOKENS)]]

    def error(factors: list[float]) -> float:
        state = model.state_dict()
        for name in {name for step in made for name in step}:
            moved = zip(factors, made, strict=True)
            state[name].copy_(
                start[name] + sum(f * step[name] for f, step in moved if name in step)
            )
        return differentiate(model, made.__getitem__, 0, sets, mode="reverse")[0].error

    error(list(FACTORS))
    [exact] = differentiate(model, made.__getitem__, 2, sets, mode="forward")
    for i in (0, 1):
        up, down = list(FACTORS), list(FACTORS)
        up[i], down[i] = FACTORS[i] + h, FACTORS[i] - h
        slope = (error(up) - error(down)) / (2 * h)
        assert exact.gradient[i] == pytest.approx(slope, rel=rel, abs=rel * 1e-2)
        assert single.gradient[i] == pytest.approx(exact.gradient[i], rel=1e-4, abs=1e-6)
    model.float()
    engine.blend((0.0, 0.0))


def test_likelihood_is_the_error_functions_and_the_modes_agree(llama: TorchEngine) -> None:
    data = stimuli(ANSWERS)
    assert Capability.GRADIENT in llama.info.capabilities
    [found] = check_modes(llama, [(data, (TOKENS,))], FACTORS)
    outputs = respond(
        llama,
        data,
        needs=TokenCrossEntropy().needs,
        generation=None,  # type: ignore[arg-type]
    )
    scores = TokenCrossEntropy().score(data, outputs)
    assert found.error == pytest.approx(scores.aggregate()[0], rel=1e-6)
    np.testing.assert_allclose(found.per_stimulus, scores.per_stimulus, rtol=1e-5)


def test_several_sets_and_weighted_sums(llama: TorchEngine) -> None:
    data, other = stimuli(ANSWERS), stimuli(ANSWERS[:2], PROMPTS[1:])
    classes = stimuli(["no", "yes", "maybe"])
    labels = LossTerm("labels", 2.0, LABELS)
    [first, second, third, both] = check_modes(
        llama,
        [(data, (TOKENS,)), (other, (TOKENS,)), (classes, (labels,)), (data, (TOKENS, TOKENS))],
        FACTORS,
    )
    assert second.error != first.error
    assert both.error == pytest.approx(2 * first.error)
    np.testing.assert_allclose(both.gradient, 2 * np.array(first.gradient), rtol=1e-5)
    error = LabelCrossEntropy(LABELS)
    outputs = respond(
        llama,
        classes,
        needs=error.needs,
        generation=None,
        labels=LABELS,  # type: ignore[arg-type]
    )
    assert third.error == pytest.approx(2 * error.score(classes, outputs).aggregate()[0], rel=1e-6)


def test_small_batches_add_up_to_the_same(llama: TorchEngine, monkeypatch) -> None:
    data = stimuli(ANSWERS)
    [whole] = llama.differentiate(FACTORS, [(data, (TOKENS,))], mode="forward")
    monkeypatch.setattr("ztom.engines.losses._MOST_LOGITS", 1)
    [single] = llama.differentiate(FACTORS, [(data, [TOKENS])], mode="forward")
    np.testing.assert_allclose(single.gradient, whole.gradient, rtol=1e-5)
    np.testing.assert_allclose(single.per_stimulus, whole.per_stimulus, rtol=1e-5)


def test_the_same_call_gives_the_same_bits(llama: TorchEngine) -> None:
    sets = [(stimuli(ANSWERS), (TOKENS,))]
    first = llama.differentiate(FACTORS, sets, mode="forward")
    llama.blend((0.0, 0.0))
    assert llama.differentiate(FACTORS, sets, mode="forward") == first
    assert llama.factors == FACTORS


@pytest.mark.parametrize("family", ["llama", "mixtral", "qwen3_moe"])
def test_tied_embeddings_and_experts_that_are_stacked(tmp_path: Path, family: str) -> None:
    chain = model_chain(make_model(family), tmp_path, step=0.2)
    engine = engine_on(chain)
    data = stimuli(["dog", "cat", "the"], ["one", "two three", "four"])
    check_modes(engine, [(data, (TOKENS,))], FACTORS)
    check_differences(engine, data)


def test_a_chain_of_adapters(tmp_path: Path) -> None:
    engine = engine_on(open_toy_adapters(tmp_path))
    check_modes(engine, [(stimuli(ANSWERS), (TOKENS,))], FACTORS)
    check_differences(engine, stimuli(ANSWERS))


def test_exact_to_six_digits_in_float64(tmp_path: Path) -> None:
    engine = engine_on(model_chain(make_model("gpt2"), tmp_path, step=0.2))
    data = stimuli(["dog", "cat", "the"], ["one", "two three", "four"])
    check_differences(engine, data, h=1e-4, rel=1e-6, wide=True)


def test_classifiers_and_output_values(tmp_path: Path) -> None:
    engine = engine_on(open_chain(save_classifier_chain(tmp_path)))
    classes = stimuli(["no", "yes", "maybe"])
    numbers = stimuli(["[0.1, 0.2, 0.3]", "[1, 2, 3]", "[0, 0, 0]"])
    terms = (LossTerm("labels", 1.0, LABELS),)
    [labels, values] = check_modes(
        engine, [(classes, terms), (numbers, (LossTerm("values"),))], FACTORS
    )
    for data, error, found in (
        (classes, LabelCrossEntropy(LABELS), labels),
        (numbers, SquaredError(from_text=False), values),
    ):
        outputs = respond(
            engine,
            data,
            needs=error.needs,
            generation=None,
            labels=LABELS,  # type: ignore[arg-type]
        )
        assert found.error == pytest.approx(error.score(data, outputs).aggregate()[0], rel=1e-5)
    with pytest.raises(CapabilityError, match="no probabilities of tokens"):
        engine.differentiate(FACTORS, [(classes, (TOKENS,))], mode="forward")


def make_module() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))


def test_plain_modules(tmp_path: Path) -> None:
    torch.manual_seed(0)
    states = [make_module().state_dict() for _ in range(3)]
    chain = open_chain(make_plain_chain(tmp_path, states=states))
    engine = build_engine(EngineConfig(name="torch", module="test_derivatives:make_module"), chain)
    data = stimuli(["[0, 1]", "[1, 0.5]"], [(0.1, 0.2, 0.3, 0.4), (1.0, -1.0, 0.5, 0.0)])
    assert isinstance(engine, TorchEngine)
    check_modes(engine, [(data, (LossTerm("values"),))], FACTORS)


def test_other_dtypes_and_fixed_models_are_refused_by_name(llama_chain: list[Path]) -> None:
    half = build_engine(EngineConfig(name="torch", dtype="bfloat16"), open_chain(llama_chain))
    fixed = build_single(EngineConfig(name="torch", dtype="float32"), llama_chain[0])
    for engine, message in ((half, "got bfloat16.*dtype: float32"), (fixed, "one fixed model")):
        assert isinstance(engine, TorchEngine)
        assert Capability.GRADIENT not in engine.info.capabilities
        with pytest.raises(CapabilityError, match=message):
            engine.differentiate((), [(stimuli(ANSWERS), (TOKENS,))], mode="forward")


class NoForward(torch.autograd.Function):
    """An operation with a derivative in reverse mode only."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return 2 * grad


class OnlyReverse(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return NoForward.apply(x)  # type: ignore[no-any-return]


def make_only_reverse() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(4, 2), OnlyReverse())


def test_an_operation_without_a_forward_derivative_is_refused_with_what_to_do(
    tmp_path: Path,
) -> None:
    states = [make_only_reverse().state_dict() for _ in range(3)]
    chain = open_chain(make_plain_chain(tmp_path, states=states))
    module = "test_derivatives:make_only_reverse"
    engine = build_engine(EngineConfig(name="torch", module=module), chain)
    assert isinstance(engine, TorchEngine)
    data = stimuli(["[0, 1]"], [(0.1, 0.2, 0.3, 0.4)])
    sets = [(data, (LossTerm("values"),))]
    with pytest.raises(CapabilityError, match="mode: reverse"):
        engine.differentiate(FACTORS, sets, mode="forward")
    assert engine.differentiate(FACTORS, sets, mode="reverse")[0].error > 0


def test_what_a_factor_adds_is_a_difference_without_rounding(llama_chain: list[Path]) -> None:
    chain = open_chain(llama_chain)
    step = plan_step(chain, 0)
    name = next(iter(step))
    assert {(t.member, t.coefficient) for t in step[name].dense} == {(0, -1.0), (1, 1.0)}
    assert build_error("cross_entropy").name == "cross_entropy"
