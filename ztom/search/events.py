"""What a study tells whoever watches it, in the order in which it happens."""

from __future__ import annotations

from dataclasses import dataclass

from ztom.ledger import TrialKind
from ztom.search.space import Factors


@dataclass(frozen=True)
class Preparing:
    """What is opened, read or started before there is a study.

    Attributes:
        what: Phase of the work, in words for people.
    """

    what: str


@dataclass(frozen=True)
class StudyStarted:
    """The first event of a study.

    Attributes:
        study_id: Id of the study in the ledger.
        name: Name of the study.
        total: Largest number of trials that it can have.
        done: Number of trials that an earlier run finished.
        factor_names: What each factor scales.
        groups: Groups of tensors that have factors of their own; none where a step has one factor.
    """

    study_id: int
    name: str
    total: int
    done: int
    factor_names: tuple[str, ...]
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class EnginesReady:
    """The engines can answer.

    Attributes:
        engine: Name, version, dtype and device, for people.
        replicas: Number of engines.
        seconds: Wall time in seconds that starting them took.
    """

    engine: str
    replicas: int
    seconds: float


@dataclass(frozen=True)
class TrialStarted:
    """A trial was given out."""

    number: int
    kind: TrialKind
    factors: Factors


@dataclass(frozen=True)
class TrialEnded:
    """A trial's answer came back.

    Attributes:
        error: Error of the blend, lower is better; None for a failed trial.
        reason: Why the trial failed; None otherwise.
        feasible: Whether it keeps every guardrail.
        seconds: Wall time in seconds, from start to end.
        trained_error: Error of the trained model, None while it is not known.
        best_error: Best feasible error so far, the trained model's included.
        best_factors: Factors of that blend, one per step of the chain, or per step and group.
        ended: Number of trials that have ended, those of earlier runs included.
    """

    number: int
    kind: TrialKind
    factors: Factors
    error: float | None
    reason: str | None
    feasible: bool
    seconds: float
    trained_error: float | None
    best_error: float | None
    best_factors: Factors | None
    ended: int


@dataclass(frozen=True)
class Stopping:
    """No more trials are given out; those under way are waited for."""

    reason: str


@dataclass(frozen=True)
class StudyEnded:
    """The last event of a study that came to a result."""

    stop_reason: str
    trained_error: float
    optimized_error: float
    factors: Factors


@dataclass(frozen=True)
class Proving:
    """The search is over and its answer is being proved on the holdout.

    Attributes:
        what: Phase of the work, in words for people.
    """

    what: str


Event = (
    Preparing
    | StudyStarted
    | EnginesReady
    | TrialStarted
    | TrialEnded
    | Stopping
    | StudyEnded
    | Proving
)
