"""What goes into the ledger and comes out of it, as plain frozen values.

Callers never see database rows: these records stay valid after the connection is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal


class StudyStatus(StrEnum):
    """Where a study stands. A study whose driver was killed still says ``running``."""

    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


class TrialKind(StrEnum):
    """Why a trial was run.

    The trained model; a checkpoint alone, or the average of all, to compare with; a start-up point;
    the sampler's; a re-evaluation.
    """

    BASELINE = "baseline"
    COMPARISON = "comparison"
    STARTUP = "startup"
    SEARCH = "search"
    CONFIRM = "confirm"


class TrialStatus(StrEnum):
    """``running`` means asked and not yet told: its driver may be gone."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class NewStudy:
    """What is known when a study starts.

    Attributes:
        name: Chosen by the user; several studies may have had it, the newest is the one resumed.
        config: The whole configuration, as JSON values.
        config_digest: sha256 over the part of it that decides which factors are tried.
        chain_digest: Digest of the chain of checkpoints.
        data_digests: sha256 per data set, by its name.
        seed: Everything random was drawn from it.
        versions: Version of every library that takes part, by name.
    """

    name: str
    config: Mapping[str, object]
    config_digest: str
    chain_digest: str
    data_digests: Mapping[str, str]
    seed: int
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A study as the ledger has it; `reason` says why it stopped. `created` is for display only."""

    id: int
    name: str
    config: Mapping[str, object]
    config_digest: str
    chain_digest: str
    data_digests: Mapping[str, str]
    seed: int
    versions: Mapping[str, str]
    status: StudyStatus
    reason: str | None
    created: str


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """What one evaluation gave.

    Attributes:
        error: The error of the blend, lower is better; None for a failed trial.
        per_stimulus: Error of each stimulus, in the order of the stimuli.
        guardrails: Error on each guardrail's data, by its name.
        reason: Reason why the trial failed; None when it did not.
        seconds: Seconds by phase: ``blend``, ``generate``, ``score``, ``total``.
        generated_tokens: Number of generated tokens over all stimuli.
        attempts: Number of times that it was started before it ended.
        gradient: Derivative of the error by each factor; empty where none was taken.
        guardrail_gradients: Derivative of each guardrail's error by each factor, by its name.
        answered: Number of stimuli that were answered where the trial was stopped because it was
            clearly worse than the best: its error is an estimate then. None where all were.
    """

    error: float | None = None
    per_stimulus: tuple[float, ...] = ()
    guardrails: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    generated_tokens: int = 0
    attempts: int = 1
    gradient: tuple[float, ...] = ()
    guardrail_gradients: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    answered: int | None = None


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """A trial as the ledger has it.

    Attributes:
        number: Number of the trial, from 0, in the order of asking.
        asked: Position of the ask among all events of the study.
        told: Position of the answer, None while it runs.
        outcome: Outcome of the trial, empty while it runs.
    """

    study_id: int
    number: int
    kind: TrialKind
    factors: tuple[float, ...]
    status: TrialStatus
    asked: int
    told: int | None
    outcome: TrialOutcome


@dataclass(frozen=True, slots=True)
class StudyEvent:
    """One step of a study's history: a trial was asked for, or its answer came back."""

    sequence: int
    action: Literal["ask", "tell"]
    trial: TrialRecord


@dataclass(frozen=True, slots=True)
class VariantRecord:
    """A variant as the ledger has it.

    Attributes:
        digest: sha256 of its manifest.
        address: Folder in which it was written.
        study_id: Id of the search that it came from; None for factors set by hand.
        recipe: Content of ``recipe.json``.
        created: Time for display only, ISO 8601.
    """

    digest: str
    address: str
    study_id: int | None
    recipe: Mapping[str, object]
    created: str


@dataclass(frozen=True, slots=True)
class PublishedVariant:
    """A variant that was let out of its proof.

    Attributes:
        digest: Digest of the variant.
        address: Folder in which it was written.
        study_id: Id of the search that it came from.
        actor: Name of whoever ran the search.
        insisted: Whether it was wanted whatever its proof said.
        created: Time for display only, ISO 8601.
    """

    digest: str
    address: str
    study_id: int
    actor: str
    insisted: bool
    created: str


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One thing that was done.

    Attributes:
        actor: Name of whoever did it: a user of the server, or an account of this machine.
        action: Name of what was done, such as ``variant.release``.
        subject: Subject that it was done to, such as ``variant:<digest>``.
        recipe_digest: sha256 of the recipe, where there is one.
        data_digests: sha256 of each data set that took part.
        before: Digests of what went in, in order.
        after: Digest of what came out; None where nothing did.
        note: Note of names and numbers only.
    """

    actor: str
    action: str
    subject: str
    recipe_digest: str | None = None
    data_digests: Mapping[str, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()
    after: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A row of the chain.

    Attributes:
        sequence: Number of the row, from 1, without gaps.
        time: ISO 8601, UTC, for people: order is kept by the sequence.
        event: Event that is recorded.
        previous: Hash of the row before it, 64 zeros for the first.
        hash: Hash of this row, hex sha256.
    """

    sequence: int
    time: str
    event: AuditEvent
    previous: str
    hash: str


@dataclass(frozen=True, slots=True)
class NewVariant:
    """A variant that was just written, and what to tell the auditors about it.

    Attributes:
        digest: sha256 of its manifest.
        address: Folder in which it was written.
        recipe: Content of ``recipe.json``.
        event: Event of its row in the audit chain.
        study_id: Id of the search that it came from; None for factors set by hand.
        insisted: Whether somebody wanted it released whatever its proof said.
    """

    digest: str
    address: str
    recipe: Mapping[str, object]
    event: AuditEvent
    study_id: int | None = None
    insisted: bool = False
