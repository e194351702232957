"""What a metric is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ztom.evaluation.suites.suite import Item
from ztom.stimuli.records import Prompt, Stimulus


@dataclass(frozen=True, slots=True)
class Case:
    """An item and what a model answered.

    Attributes:
        item: Item with its target.
        prompt: Prompt as it was asked.
        answers: Whole answers: one, or one per repeat of a probe.
    """

    item: Item
    prompt: Prompt
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scored:
    """What became of a case; the fields are those of `ztom.evaluation.runs.results.ItemResult`."""

    value: float | None = None
    parts: tuple[float, ...] = ()
    failed_checks: tuple[str, ...] = ()
    problem: str | None = None


class Metric(Protocol):
    """Scores cases, all of a run at once."""

    def score(self, cases: Sequence[Case]) -> list[Scored]:
        """One `Scored` per case, in order."""

    def close(self) -> None:
        """End what was started for it."""


def stimulus_of(case: Case, expected: str) -> Stimulus:
    """A case as error functions take it."""
    return Stimulus(id=case.item.id, prompt=case.prompt, expected=expected, group=case.item.id)
