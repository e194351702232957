"""Error functions that compare generated text with the expected text, word by word.

``exact_match``  1 unless both are the same, white space and Unicode form (NFC) aside.
``token_f1``     1 - F1 of the two bags of words, as SQuAD (Rajpurkar et al. 2016) has it, except
                 that articles are kept: not every stimulus is English.
``rouge_l``      1 - F1 of the longest common subsequence of words (Lin 2004, beta = 1,
                 no stemming).

Words are those of `ztom.stimuli.prompts.words`: case folded, punctuation dropped.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ztom.errors import ScoringError
from ztom.scoring.finite import check_finite
from ztom.scoring.protocol import Need
from ztom.statistics.scores import MeanScores, Scores
from ztom.stimuli.prompts import words
from ztom.stimuli.records import Output, Stimulus


def generated_text(stimulus: Stimulus, output: Output, *, function: str) -> str:
    """The generated text of ``output``.

    Raises:
        ScoringError: The engine was not asked for text, or gave none.
    """
    if output.text is None:
        raise ScoringError(f"{function} needs the generated text of stimulus {stimulus.id}")
    return output.text


@dataclass(frozen=True)
class TextError:
    """An error function of two texts.

    Attributes:
        name: Name of the error function as written in the configuration.
        compare: Function from ``(generated, expected)`` to an error in [0, 1].
    """

    name: str
    compare: Callable[[str, str], float]

    @property
    def needs(self) -> frozenset[Need]:
        """Generated text."""
        return frozenset({Need.TEXT})

    def score(self, stimuli: Sequence[Stimulus], outputs: Sequence[Output]) -> Scores:
        """Compare each generated text with its expected output."""
        errors = np.array(
            [
                self.compare(generated_text(s, o, function=self.name), s.expected)
                for s, o in zip(stimuli, outputs, strict=True)
            ],
            dtype=np.float64,
        )
        check_finite(errors, stimuli, function=self.name)
        return MeanScores(errors)


def exact_match_error(generated: str, expected: str) -> float:
    """0.0 when both texts are the same apart from white space, else 1.0."""
    return float(_plain(generated) != _plain(expected))


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def token_f1_error(generated: str, expected: str) -> float:
    """1 - F1 of the two bags of words."""
    ours, theirs = words(generated), words(expected)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return _one_minus_f1(shared, len(ours), len(theirs))


def rouge_l_error(generated: str, expected: str) -> float:
    """1 - F1 of the longest common subsequence of words."""
    ours, theirs = words(generated), words(expected)
    return _one_minus_f1(longest_common_subsequence(ours, theirs), len(ours), len(theirs))


def _one_minus_f1(shared: int, ours: int, theirs: int) -> float:
    if ours + theirs == 0:
        return 0.0
    return 1.0 - 2.0 * shared / (ours + theirs)


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence.

    Bit-parallel: a row of the dynamic programme is the bits of one integer, so the cost is one
    addition of ``len(first)`` bits per word of ``second``. Source: Hyyrö 2004, "Bit-parallel
    LCS-length computation revisited".
    """
    places: dict[str, int] = {}
    for i, word in enumerate(first):
        places[word] = places.get(word, 0) | (1 << i)
    mask = (1 << len(first)) - 1
    row = mask
    for word in second:
        matched = row & places.get(word, 0)
        row = ((row + matched) | (row - matched)) & mask
    return len(first) - row.bit_count()
