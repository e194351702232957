"""What an error function is: stimuli and outputs in, an error per stimulus and their aggregate out.

Lower is better; the sign is fixed here, once. The error of a blend is ``Scores.aggregate()``.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol, runtime_checkable

from ztom.statistics.scores import Scores
from ztom.stimuli.records import Output, Stimulus


class Need(StrEnum):
    """What an error function wants the engine to produce."""

    TEXT = "text"
    TOKEN_LOG_PROBS = "token_log_probs"
    LABEL_LOG_PROBS = "label_log_probs"
    VALUES = "values"


class ErrorFunction(Protocol):
    """Turns outputs into errors."""

    @property
    def name(self) -> str:
        """Name of the error function as written in the configuration."""

    @property
    def needs(self) -> frozenset[Need]:
        """What the engine has to produce for it."""

    def score(self, stimuli: Sequence[Stimulus], outputs: Sequence[Output]) -> Scores:
        """Score ``outputs`` against the expected outputs of ``stimuli``, same order, same length.

        Raises:
            ScoringError: An error is not a finite number, or the function failed, hung or died.
        """


@runtime_checkable
class WarmsUp(Protocol):
    """An error function that takes a while before it can score; not every one does."""

    def warm_up(self) -> None:
        """Load what scoring needs; calling it twice is harmless.

        Raises:
            ZtomError: What scoring would have raised.
        """
