"""What every error function has to do, as tests to inherit.

import pytest
from ztom.testing import ErrorFunctionConformance

class TestMyError(ErrorFunctionConformance):
@pytest.fixture
def error_function(self):
return MyError()
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import numpy as np

from ztom.errors import ScoringError
from ztom.scoring.protocol import ErrorFunction, Need
from ztom.statistics.scores import can_resample
from ztom.stimuli.records import Output, Stimulus
from ztom.testing.refusals import refused


def _example(number: int, expected: str, text: str, own: float) -> tuple[Stimulus, Output]:
    """A stimulus and everything that an engine may say about it."""
    stimulus = Stimulus(str(number), f"question {number}", expected, f"group {number}")
    rest = (1.0 - own) / 2.0
    probabilities = [own if label == expected else rest for label in ("yes", "no", "maybe")]
    log_probs = tuple(float(value) for value in np.log(probabilities))
    output = Output(
        text=text,
        generated_tokens=1,
        token_log_probs=(float(np.log(own)), -0.25),
        label_log_probs=log_probs,
        values=log_probs,
    )
    return stimulus, output


class ErrorFunctionConformance:
    """Tests of a fixture ``error_function``, an `ztom.scoring.protocol.ErrorFunction`.

    Attributes:
        examples: Four or more stimuli with what a model answered; errors of some must differ. What
            is expected is one of the labels ``yes``, ``no`` and ``maybe``, in this order.
    """

    examples: Sequence[tuple[Stimulus, Output]] = (
        _example(0, "yes", "yes", 0.9),
        _example(1, "no", "yes", 0.2),
        _example(2, "maybe", "maybe", 0.6),
        _example(3, "no", "I do not know", 0.1),
    )

    def test_it_says_what_it_is(self, error_function: ErrorFunction) -> None:
        """Its name is recorded with results, its needs decide what engines are asked."""
        assert error_function.name.strip(), "the name is empty"
        assert error_function.needs, "an error function that looks at nothing"
        assert error_function.needs <= set(Need), "an unknown need"

    def test_every_stimulus_has_a_finite_error(self, error_function: ErrorFunction) -> None:
        """The errors are in the stimuli's order, as float64."""
        errors = self.errors(error_function, self.examples)
        assert errors.shape == (len(self.examples),), errors.shape
        assert errors.dtype == np.float64, errors.dtype
        assert np.isfinite(errors).all(), errors
        assert len(set(errors.tolist())) > 1, "all errors are equal: no example tells any apart"

    def test_errors_follow_their_stimuli(self, error_function: ErrorFunction) -> None:
        """Another order of the stimuli is another order of the errors, and nothing else."""
        forward = self.errors(error_function, self.examples)
        backward = self.errors(error_function, tuple(reversed(self.examples)))
        np.testing.assert_allclose(backward[::-1], forward, rtol=1e-6, atol=1e-9)

    def test_it_repeats_itself(self, error_function: ErrorFunction) -> None:
        """The same outputs have the same errors."""
        first = self.errors(error_function, self.examples)
        np.testing.assert_array_equal(self.errors(error_function, self.examples), first)

    def test_resamples_are_aggregated_one_by_one(self, error_function: ErrorFunction) -> None:
        """A proof draws stimuli again and again: each drawing has its error."""
        stimuli, outputs = zip(*self.examples, strict=True)
        scores = error_function.score(stimuli, outputs)
        count = len(stimuli)
        assert scores.aggregate().shape == (1,)
        assert np.isfinite(scores.aggregate()).all()
        if not can_resample(scores):
            return
        counts = np.random.default_rng(0).multinomial(count, [1 / count] * count, size=5)
        together = scores.aggregate(counts.astype(np.float64))
        assert together.shape == (5,)
        alone = [scores.aggregate(row[None].astype(np.float64))[0] for row in counts]
        np.testing.assert_allclose(together, alone)
        whole = scores.aggregate(np.ones((1, count)))
        np.testing.assert_allclose(scores.aggregate(), whole)

    def test_it_can_be_sent_to_another_process(self, error_function: ErrorFunction) -> None:
        """Trials run in processes of their own."""
        copy = pickle.loads(pickle.dumps(error_function))
        assert copy.name == error_function.name
        assert copy.needs == error_function.needs
        expected = self.errors(error_function, self.examples)
        np.testing.assert_array_equal(self.errors(copy, self.examples), expected)

    def test_no_stimuli_is_an_error(self, error_function: ErrorFunction) -> None:
        """Never 0: nothing is not good."""
        with refused(ScoringError, of="no stimuli at all"):
            error_function.score([], [])

    def test_what_it_needs_has_to_be_there(self, error_function: ErrorFunction) -> None:
        """An output that lacks what it needs is an error, not a bad answer."""
        stimuli, _ = zip(*self.examples, strict=True)
        with refused(ScoringError, of="outputs without anything in them"):
            error_function.score(stimuli, [Output()] * len(stimuli))

    def errors(
        self, error_function: ErrorFunction, examples: Sequence[tuple[Stimulus, Output]]
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """Error of each example, shape (examples,)."""
        stimuli, outputs = zip(*examples, strict=True)
        return error_function.score(stimuli, outputs).per_stimulus
