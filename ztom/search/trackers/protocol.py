"""What a tracker of our own takes: one trial after the other, as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ztom.ledger import TrialOutcome


@dataclass(frozen=True)
class TrackedTrial:
    """A trial that has ended.

    Attributes:
        number: Number of the trial in its study, from 0.
        factors: Scaling factor by the name of its transition.
        metrics: Numbers that it gave, by name; without ``error`` where it failed.
    """

    number: int
    factors: Mapping[str, float]
    metrics: Mapping[str, float] = field(default_factory=dict)


class TrialTracker(Protocol):
    """Shows trials somewhere."""

    def record(self, trial: TrackedTrial) -> None:
        """Show one trial; of a number that it has already, nothing happens or it is the same."""

    def close(self) -> None:
        """Let go of files and connections."""


def metrics_of(outcome: TrialOutcome) -> dict[str, float]:
    """The finite numbers of an outcome: its error, guardrails, tokens, and seconds by phase."""
    values: dict[str, float | None] = {
        "error": outcome.error,
        "generated_tokens": float(outcome.generated_tokens),
        **{f"guardrail/{name}": value for name, value in outcome.guardrails.items()},
        **{f"seconds/{phase}": value for phase, value in outcome.seconds.items()},
    }
    return {k: float(v) for k, v in values.items() if v is not None and math.isfinite(v)}


def is_metric(name: str) -> bool:
    """Whether a name is one of `metrics_of`, among those that Ray Tune adds."""
    return name in ("error", "generated_tokens") or name.startswith(("guardrail/", "seconds/"))
