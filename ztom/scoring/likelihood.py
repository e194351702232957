"""``cross_entropy``: how improbable the model finds the expected output.

Token form: the negative log-likelihood per token of the expected output, teacher-forced,
``sum_i -log p(t_i | prompt, t_<i) / tokens``; over a set it is the ratio of the two sums, so every
token counts the same. Class form, where labels are given: ``-log p(true label)`` under the labels'
probabilities normalised to one. Natural logarithms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ztom.errors import ScoringError
from ztom.scoring.finite import check_finite
from ztom.scoring.protocol import Need
from ztom.statistics.scores import Floats, MeanScores, RatioScores, Scores
from ztom.stimuli.records import Output, Stimulus


@dataclass(frozen=True)
class TokenCrossEntropy:
    """Mean negative log-likelihood per token of the expected output."""

    name: str = "cross_entropy"

    @property
    def needs(self) -> frozenset[Need]:
        """Log-probabilities of the expected output's tokens."""
        return frozenset({Need.TOKEN_LOG_PROBS})

    def score(self, stimuli: Sequence[Stimulus], outputs: Sequence[Output]) -> Scores:
        """Score the expected outputs' tokens.

        Raises:
            ScoringError: An expected output has no tokens, or a probability is zero.
        """
        sums, tokens = np.zeros(len(stimuli)), np.zeros(len(stimuli))
        for i, (stimulus, output) in enumerate(zip(stimuli, outputs, strict=True)):
            if not output.token_log_probs:
                raise ScoringError(
                    f"{self.name} has no tokens to score for stimulus {stimulus.id}",
                    expected="the log-probability of each token of the expected output",
                )
            sums[i] = -np.sum(output.token_log_probs)
            tokens[i] = len(output.token_log_probs)
        check_finite(sums, stimuli, function=self.name)
        return RatioScores(sums, tokens)


@dataclass(frozen=True)
class LabelCrossEntropy:
    """Negative log-likelihood of the true label under the normalised label distribution.

    Attributes:
        labels: The class labels, in the order of ``Output.label_log_probs``.
    """

    labels: tuple[str, ...]
    name: str = "cross_entropy"

    @property
    def needs(self) -> frozenset[Need]:
        """Log-probabilities of the labels."""
        return frozenset({Need.LABEL_LOG_PROBS})

    def score(self, stimuli: Sequence[Stimulus], outputs: Sequence[Output]) -> Scores:
        """Score the true labels.

        Raises:
            ScoringError: An expected output is not a label, or its probability is zero.
        """
        true = true_labels(stimuli, self.labels, function=self.name)
        table = label_table(stimuli, outputs, self.labels, function=self.name)
        with np.errstate(invalid="ignore"):  # a row of -inf is reported by check_finite
            normalised = table - np.logaddexp.reduce(table, axis=1, keepdims=True)
        errors: Floats = -normalised[np.arange(len(stimuli)), true]
        check_finite(errors, stimuli, function=self.name)
        return MeanScores(errors)


def true_labels(
    stimuli: Sequence[Stimulus], labels: Sequence[str], *, function: str
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Index of each stimulus's expected output among ``labels``, int64, shape (stimuli,).

    Raises:
        ScoringError: An expected output is not one of the labels.
    """
    index = {label: i for i, label in enumerate(labels)}
    for stimulus in stimuli:
        if stimulus.expected not in index:
            raise ScoringError(
                f"{function}: the expected output of stimulus {stimulus.id} is not a label",
                expected=f"one of the {len(labels)} labels",
            )
    return np.array([index[stimulus.expected] for stimulus in stimuli], dtype=np.int64)


def label_table(
    stimuli: Sequence[Stimulus],
    outputs: Sequence[Output],
    labels: Sequence[str],
    *,
    function: str,
) -> Floats:
    """The label log-probabilities, float64, shape (stimuli, labels).

    Raises:
        ScoringError: They are missing or of the wrong length.
    """
    for stimulus, output in zip(stimuli, outputs, strict=True):
        if output.label_log_probs is None or len(output.label_log_probs) != len(labels):
            raise ScoringError(
                f"{function}: stimulus {stimulus.id} has the wrong number of label probabilities",
                got=len(output.label_log_probs or ()),
                expected=len(labels),
            )
    rows = [output.label_log_probs for output in outputs]
    return np.array(rows, dtype=np.float64).reshape(len(stimuli), len(labels))
