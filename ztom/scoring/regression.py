"""``mse``: mean squared difference between expected and predicted numbers.

The prediction is the engine's raw output row, or the number that the generated text consists of. An
expected output is a number, or a JSON list of them where the model has several outputs; the error
of a stimulus is then the mean over its outputs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ztom.errors import ScoringError
from ztom.scoring.finite import check_finite
from ztom.scoring.protocol import Need
from ztom.scoring.text import generated_text
from ztom.statistics.scores import Floats, MeanScores, Scores
from ztom.stimuli.records import Output, Stimulus


@dataclass(frozen=True)
class SquaredError:
    """Mean squared error.

    Attributes:
        from_text: Read the prediction from the generated text, not from the output row.
    """

    from_text: bool
    name: str = "mse"

    @property
    def needs(self) -> frozenset[Need]:
        """Generated text, or the raw output row."""
        return frozenset({Need.TEXT if self.from_text else Need.VALUES})

    def score(self, stimuli: Sequence[Stimulus], outputs: Sequence[Output]) -> Scores:
        """Compare predicted with expected numbers.

        Raises:
            ScoringError: Something is not a number, or the lengths differ.
        """
        errors = np.zeros(len(stimuli))
        for i, (stimulus, output) in enumerate(zip(stimuli, outputs, strict=True)):
            expected = numbers_in(stimulus.expected)
            if expected is None:
                raise ScoringError(
                    f"{self.name}: the expected output of stimulus {stimulus.id} is not a number"
                )
            predicted = self._predicted(stimulus, output)
            if predicted.shape != expected.shape:
                raise ScoringError(
                    f"{self.name}: wrong number of outputs for stimulus {stimulus.id}",
                    got=predicted.size,
                    expected=expected.size,
                )
            with np.errstate(over="ignore", invalid="ignore"):  # reported by check_finite
                errors[i] = np.mean((predicted - expected) ** 2)
        check_finite(errors, stimuli, function=self.name)
        return MeanScores(errors)

    def _predicted(self, stimulus: Stimulus, output: Output) -> Floats:
        if not self.from_text:
            if output.values is None:
                raise ScoringError(f"{self.name} needs the output row of stimulus {stimulus.id}")
            return np.array(output.values, dtype=np.float64)
        numbers = numbers_in(generated_text(stimulus, output, function=self.name))
        if numbers is None:
            raise ScoringError(
                f"{self.name}: the generated text for stimulus {stimulus.id} is not a number",
                fix="A text model that does not always answer with a number needs another "
                "error function.",
            )
        return numbers


def numbers_in(text: str) -> Floats | None:
    """The number, or the JSON list of numbers, that ``text`` consists of; else None."""
    try:
        values = json.loads(text) if text.lstrip().startswith("[") else [float(text)]
        row = np.array(values, dtype=np.float64)
    except (ValueError, TypeError, RecursionError):
        return None
    return row if row.ndim == 1 and row.size else None
