"""What every engine has to do, as tests to inherit.

    import pytest
    from ztom.testing import EngineConformance

    class TestMyEngine(EngineConformance):
        @pytest.fixture
        def engine(self):
            engine = MyEngine(...)  # over a chain with two transitions or more
            yield engine
            engine.close()

The engine may be shared by all tests. Weights, or dtypes, in which blends of ``factors`` give the
same answers as the trained model do not test anything: choose a chain whose steps are large.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np

from ztom.engines.protocol import (
    Capability,
    DerivativeMode,
    Derivatives,
    Differentiates,
    Engine,
    GenerationConfig,
)
from ztom.engines.respond import respond
from ztom.errors import CapabilityError, FactorError
from ztom.scoring.differentiable import LossTerm
from ztom.scoring.likelihood import TokenCrossEntropy
from ztom.scoring.protocol import Need
from ztom.stimuli.records import Message, Prompt, Stimulus
from ztom.testing.refusals import refused

_SHORT = GenerationConfig(max_new_tokens=12)


class EngineConformance:
    """Tests of a fixture ``engine``, an `ztom.engines.protocol.Engine` over two factors or more.

    Attributes:
        prompts: Three or more that the engine takes.
        answers: A continuation of each.
        factors: Change the answers; as many as transitions are taken.
    """

    prompts: Sequence[Prompt] = (
        "What does it return?",
        (Message("system", "Be brief."), Message("user", "Explain the chain of checkpoints")),
        "The quick brown fox jumps over the lazy dog while the band plays.",
    )
    answers: Sequence[str] = (" It returns the sum of its arguments.", " A base model", "dog")
    factors: Sequence[float] = (0.4, -0.7, 0.3, -0.2)

    def test_it_says_what_it_is(self, engine: Engine) -> None:
        """Capabilities, version, device and dtype are recorded with each result."""
        info = engine.info
        assert info.name, "EngineInfo.name is empty"
        assert info.capabilities, "an engine that can nothing"
        assert info.capabilities <= set(Capability), "an unknown capability"
        assert info.version, "EngineInfo.version is empty"
        assert info.device in {"cpu", "cuda"}, info.device
        assert info.dtype in {"float32", "bfloat16", "float16"}, info.dtype

    def test_factors_change_the_answers_and_zeros_bring_them_back_bitwise(
        self, engine: Engine
    ) -> None:
        """A blend is recomputed from the checkpoints: no trace of the one before is left."""
        zeros, factors = (0.0,) * len(self._blend(engine)), self._blend(engine)
        engine.blend(zeros)
        start = self.observe(engine)
        stats = engine.blend(factors)
        assert engine.factors == factors
        assert stats.seconds >= 0
        assert stats.placement in {"device", "host", "file"}, stats.placement
        blended = self.observe(engine)
        assert blended != start, "the answers do not depend on the factors"
        engine.blend(zeros)
        assert self.observe(engine) == start, "zeros do not bring the trained model back"
        engine.blend(factors)
        assert self.observe(engine) == blended, "the same factors give other answers"

    def test_bad_factors_are_refused_and_leave_the_blend_alone(self, engine: Engine) -> None:
        """A wrong number of factors, and ones that are not finite."""
        factors = self._blend(engine)
        engine.blend(factors)
        before = self.observe(engine)
        bad = [factors[:-1], (*factors, 0.3)]
        bad += [(*factors[:-1], value) for value in (math.nan, math.inf, -math.inf)]
        for row in bad:
            with refused(FactorError, of=f"blend({row})"):
                engine.blend(row)
            assert engine.factors == factors
            assert self.observe(engine) == before, f"blend({row}) was refused and changed weights"

    def test_answers_come_in_order_one_for_each_prompt(self, engine: Engine) -> None:
        """However many prompts are given at once."""
        engine.blend(self._blend(engine))
        prompts, count = list(self.prompts), len(self.prompts)
        if Capability.GENERATE in engine.info.capabilities:
            together = engine.generate(prompts * 3, _SHORT)
            assert len(together) == 3 * count
            assert together[:count] == together[count : 2 * count]
            assert all(0 < c.tokens <= _SHORT.max_new_tokens for c in together)
            assert all(c.finish_reason in {"stop", "length"} for c in together)
            assert engine.generate([], _SHORT) == []
        if Capability.LOG_PROBS in engine.info.capabilities:
            rows = engine.log_probs(prompts * 2, list(self.answers) * 2)
            assert [len(r) for r in rows[:count]] == [len(r) for r in rows[count:]]
            assert all(row.dtype == np.float64 and (row <= 1e-6).all() for row in rows)
        if Capability.VALUES in engine.info.capabilities:
            values = engine.values(prompts * 2)
            assert values.shape[0] == 2 * count
            np.testing.assert_allclose(values[:count], values[count:], atol=1e-5)

    def test_what_it_does_not_offer_is_refused_by_name(self, engine: Engine) -> None:
        """It raises a `CapabilityError`, and never gives an empty answer."""
        absent = set(Capability) - engine.info.capabilities
        prompts = list(self.prompts)
        if Capability.GENERATE in absent:
            with refused(CapabilityError, of="generate"):
                engine.generate(prompts, _SHORT)
        if Capability.LOG_PROBS in absent:
            with refused(CapabilityError, of="log_probs"):
                engine.log_probs(prompts, list(self.answers))
        if Capability.VALUES in absent:
            with refused(CapabilityError, of="values"):
                engine.values(prompts)

    def test_greedy_answers_are_the_same_again(self, engine: Engine) -> None:
        """A temperature of 0 is deterministic."""
        engine.blend(self._blend(engine))
        assert self.observe(engine) == self.observe(engine)

    def test_responses_carry_what_was_asked_for(self, engine: Engine) -> None:
        """What error functions need is there, and nothing that was not asked for."""
        offers = engine.info.capabilities
        needs = {Need.LABEL_LOG_PROBS}
        if Capability.GENERATE in offers:
            needs |= {Need.TEXT}
        if Capability.LOG_PROBS in offers:
            needs |= {Need.TOKEN_LOG_PROBS}
        labels = ["yes", "no", "maybe"]
        if Capability.VALUES in offers:
            count = engine.values(list(self.prompts)).shape[1]
            labels = [f"label {i}" for i in range(count)]
        outputs = respond(engine, self._stimuli(), needs=needs, generation=_SHORT, labels=labels)
        for output in outputs:
            assert (output.text is not None) == (Need.TEXT in needs)
            assert (output.token_log_probs is not None) == (Need.TOKEN_LOG_PROBS in needs)
            assert output.label_log_probs is not None
            assert len(output.label_log_probs) == len(labels)

    def test_derivatives_are_those_of_the_error(self, engine: Engine) -> None:
        """Both modes give one gradient, and the error that `log_probs` gives."""
        offers = engine.info.capabilities
        if not {Capability.GRADIENT, Capability.LOG_PROBS} <= offers:
            return
        factors, data = self._blend(engine), self._stimuli()
        forward = _derivatives(engine, factors, data, mode="forward")
        reverse = _derivatives(engine, factors, data, mode="reverse")
        assert engine.factors == factors
        steepest = max(map(abs, forward.gradient))
        assert steepest > 0, "the error does not depend on the factors"
        np.testing.assert_allclose(forward.gradient, reverse.gradient, atol=1e-5 * steepest)
        scores = TokenCrossEntropy()
        outputs = respond(engine, data, needs=scores.needs, generation=_SHORT)
        error = scores.score(data, outputs).aggregate()[0]
        np.testing.assert_allclose([forward.error, reverse.error], error, rtol=1e-5)

    def _stimuli(self) -> list[Stimulus]:
        pairs = zip(self.prompts, self.answers, strict=True)
        return [Stimulus(str(i), p, a, str(i)) for i, (p, a) in enumerate(pairs)]

    def observe(self, engine: Engine) -> list[object]:
        """Everything that an engine can say, in a form that compares bit for bit."""
        views: list[object] = []
        prompts = list(self.prompts)
        if Capability.GENERATE in engine.info.capabilities:
            views.append(engine.generate(prompts, _SHORT))
        if Capability.LOG_PROBS in engine.info.capabilities:
            views += [row.tobytes() for row in engine.log_probs(prompts, list(self.answers))]
        if Capability.VALUES in engine.info.capabilities:
            views.append(engine.values(prompts).tobytes())
        return views

    def _blend(self, engine: Engine) -> tuple[float, ...]:
        """Scaling factors, as many as the engine takes."""
        count = len(engine.factors)
        assert count >= 2, "give an engine over a chain with two transitions or more"
        cycles = -(-count // len(self.factors))
        return tuple((list(self.factors) * cycles)[:count])


def _derivatives(
    engine: Engine, factors: Sequence[float], data: Sequence[Stimulus], *, mode: DerivativeMode
) -> Derivatives:
    able = cast(Differentiates, engine)
    [derivatives] = able.differentiate(factors, [(data, (LossTerm("tokens"),))], mode=mode)
    return derivatives
