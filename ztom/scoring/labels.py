"""``accuracy`` and ``macro_f1``: was the right class predicted? As errors: 1 - the usual figure.

The prediction is the most probable label where the engine gives label probabilities, else the
generated
text: it has to be the label, case, punctuation and white space aside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ztom.errors import ScoringError
from ztom.scoring.finite import check_finite
from ztom.scoring.likelihood import label_table, true_labels
from ztom.scoring.protocol import Need
from ztom.scoring.text import generated_text
from ztom.statistics.scores import Ints, MacroF1Scores, MeanScores, Scores
from ztom.stimuli.prompts import words
from ztom.stimuli.records import Output, Stimulus


@dataclass(frozen=True)
class ClassError:
    """Accuracy or macro F1 over classes, as an error.

    Attributes:
        name: ``accuracy`` or ``macro_f1``.
        labels: The class labels; empty takes the distinct expected outputs of what is scored.
        from_text: Read the prediction from the generated text, not from label probabilities.
    """

    name: str
    labels: tuple[str, ...]
    from_text: bool

    @property
    def needs(self) -> frozenset[Need]:
        """Generated text, or log-probabilities of the labels."""
        return frozenset({Need.TEXT if self.from_text else Need.LABEL_LOG_PROBS})

    def score(self, stimuli: Sequence[Stimulus], outputs: Sequence[Output]) -> Scores:
        """Compare predicted with expected classes.

        Raises:
            ScoringError: An expected output is not a label, or a probability is NaN.
        """
        classes = self.labels or tuple(sorted({stimulus.expected for stimulus in stimuli}))
        true = true_labels(stimuli, classes, function=self.name)
        if self.from_text:
            predicted = self._from_text(stimuli, outputs, classes)
        else:
            predicted = self._most_probable(stimuli, outputs, classes)
        scores = MacroF1Scores(true, predicted, len(classes))
        check_finite(scores.per_stimulus, stimuli, function=self.name)
        return scores if self.name == "macro_f1" else MeanScores(scores.per_stimulus)

    def _most_probable(
        self, stimuli: Sequence[Stimulus], outputs: Sequence[Output], classes: Sequence[str]
    ) -> Ints:
        table = label_table(stimuli, outputs, classes, function=self.name)
        # argmax would take a NaN for the best label; -inf alone is a fair zero probability.
        best = table.max(axis=1, initial=-np.inf)
        check_finite(best, stimuli, function=self.name)
        best_labels: Ints = table.argmax(axis=1).astype(np.int64)
        return best_labels

    def _from_text(
        self, stimuli: Sequence[Stimulus], outputs: Sequence[Output], classes: Sequence[str]
    ) -> Ints:
        index = {_label_key(label): i for i, label in enumerate(classes)}
        if len(index) != len(classes):
            raise ScoringError(
                f"{self.name}: two labels differ only in case, punctuation or white space",
                fix="Rename one of them, or read the labels' probabilities (source: labels).",
            )
        texts = [
            generated_text(s, o, function=self.name) for s, o in zip(stimuli, outputs, strict=True)
        ]
        return np.array([index.get(_label_key(text), -1) for text in texts], dtype=np.int64)


def _label_key(text: str) -> str:
    return " ".join(words(text))
