"""The suites that everybody may inherit notice what they are there for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ztom.engines.protocol import BlendStats, Completion, GenerationConfig
from ztom.evaluation.metrics.protocol import Case, Scored
from ztom.scoring.protocol import Need
from ztom.search.space import Factors, SearchSpace
from ztom.statistics.scores import MeanScores
from ztom.stimuli.records import Output, Prompt, Stimulus
from ztom.testing import (
    EngineConformance,
    ErrorFunctionConformance,
    FakeEngine,
    MetricConformance,
    SamplerConformance,
)


def failures(suite: Any, **makers: Callable[[], Any]) -> set[str]:
    """Names of the tests that implementations, one made for each test, do not pass."""
    names = [name for name in dir(suite) if name.startswith("test_")]
    assert len(names) >= 5
    failed = set()
    for name in names:
        try:
            getattr(suite, name)(**{fixture: make() for fixture, make in makers.items()})
        except Exception:
            failed.add(name.removeprefix("test_"))
    return failed


class Deaf(FakeEngine):
    """Takes whatever factors it is given."""

    def blend(self, factors: Sequence[float]) -> BlendStats:
        self._factors = tuple(factors)
        return BlendStats(0.0, 0, 0, "host")


class Forgetful(FakeEngine):
    """Loses an answer of many."""

    def generate(self, prompts: Sequence[Prompt], config: GenerationConfig) -> list[Completion]:
        return super().generate(prompts, config)[:4]


class Drifting(FakeEngine):
    """Adds each blend to the one before."""

    def blend(self, factors: Sequence[float]) -> BlendStats:
        stats = super().blend(factors)
        self._offset += 0.1
        self._noise = 0.1
        return stats


@pytest.mark.parametrize(
    ("kind", "noticed"),
    [
        (FakeEngine, set()),
        (Deaf, {"bad_factors_are_refused_and_leave_the_blend_alone"}),
        (Forgetful, {"answers_come_in_order_one_for_each_prompt"}),
        (
            Drifting,
            {
                "factors_change_the_answers_and_zeros_bring_them_back_bitwise",
                "derivatives_are_those_of_the_error",
            },
        ),
    ],
)
def test_engines(kind: type[FakeEngine], noticed: set[str]) -> None:
    assert failures(EngineConformance(), engine=lambda: kind(2)) == noticed


class Line:
    """Walks along a line of points."""

    sequential = False

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._space = space

    def warm_up(self) -> None:
        pass

    def ask(self, number: int) -> Factors | None:
        shares = self._random.random(self._space.dimensions)
        return tuple(float(value) for value in self._space.from_unit(shares))

    def tell(self, number: int, factors: Factors, **_: object) -> None:
        pass

    def close(self) -> None:
        pass


class Unseeded(Line):
    """Is as random as the day."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__(space, int(np.random.default_rng().integers(2**31)))


class Outside(Line):
    """Knows no bounds."""

    def ask(self, number: int) -> Factors | None:
        return tuple(0.5 + value for value in super().ask(number) or ())


@pytest.mark.parametrize(
    ("make", "noticed"),
    [
        (Line, set()),
        (Unseeded, {"it_stays_inside_and_repeats_itself"}),
        (
            Outside,
            {
                "it_stays_inside_and_repeats_itself",
                "failed_trials_do_not_stop_it",
                "guardrails_are_taken",
                "a_few_factors",
                "a_trained_model_outside_the_bounds_is_left_out",
                "what_was_evaluated_counts_and_not_what_was_asked",
                "open_points_differ_unless_it_is_sequential",
            },
        ),
    ],
)
def test_samplers(make: type[Line], noticed: set[str]) -> None:
    assert failures(SamplerConformance(), make_sampler=lambda: make) == noticed


class Wrong:
    """1 where the answer is another text; refuses what cannot be scored unless told otherwise."""

    name, needs = "wrong", frozenset({Need.TEXT})

    def __init__(self, *, lenient: bool = False) -> None:
        self._lenient = lenient

    def score(self, stimuli: Sequence[Stimulus], outputs: Sequence[Output]) -> MeanScores:
        from ztom.errors import ScoringError

        if not self._lenient and (not stimuli or any(output.text is None for output in outputs)):
            raise ScoringError("nothing to score")
        pairs = zip(stimuli, outputs, strict=True)
        return MeanScores(np.array([float(s.expected != o.text) for s, o in pairs]))


class ByPlace(Wrong):
    """Errors that depend on where a stimulus stands."""

    def score(self, stimuli: Sequence[Stimulus], outputs: Sequence[Output]) -> MeanScores:
        errors = super().score(stimuli, outputs).errors
        return MeanScores(errors + np.arange(len(errors)))


@pytest.mark.parametrize(
    ("function", "noticed"),
    [
        (Wrong(), set()),
        (Wrong(lenient=True), {"no_stimuli_is_an_error", "what_it_needs_has_to_be_there"}),
        (ByPlace(), {"errors_follow_their_stimuli"}),
    ],
)
def test_error_functions(function: Wrong, noticed: set[str]) -> None:
    assert failures(ErrorFunctionConformance(), error_function=lambda: function) == noticed


class Scores:
    """Scores with a function of one case and of all."""

    def __init__(self, score: Callable[[Case, Sequence[Case]], Scored]) -> None:
        self._score = score

    def score(self, cases: Sequence[Case]) -> list[Scored]:
        return [self._score(case, cases) for case in cases]

    def close(self) -> None:
        pass


def same(case: Case, cases: Sequence[Case]) -> Scored:
    return Scored(value=float(case.answers[0] == case.item.target))


def relative(case: Case, cases: Sequence[Case]) -> Scored:
    return Scored(value=float(case.answers[0] == case.item.target) / len(cases))


def silent(case: Case, cases: Sequence[Case]) -> Scored:
    return Scored(value=None if case.answers[0] == "" else same(case, cases).value)


@pytest.mark.parametrize(
    ("score", "noticed"),
    [
        (same, set()),
        (relative, {"a_case_does_not_depend_on_the_others"}),
        (silent, {"every_case_has_a_value"}),
    ],
)
def test_metrics(score: Callable[[Case, Sequence[Case]], Scored], noticed: set[str]) -> None:
    assert failures(MetricConformance(), metric=lambda: Scores(score)) == noticed


def test_nothing_imports_pytest() -> None:
    code = "import sys, ztom.testing; assert not {'pytest', 'ray', 'vllm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
