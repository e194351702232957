"""The tables. Changing them needs a migration in `ztom/ledger/migrations/versions`.

Order is kept by sequence numbers, never by the clock: ``created`` is for people.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    MetaData,
    UniqueConstraint,
    false,
    true,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

#: Constraints get predictable names, which later migrations need to find them.
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Base of all tables; JSON columns hold values that JSON has (no NaN)."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {dict[str, Any]: JSON, list[float]: JSON, list[str]: JSON}


def now() -> str:
    """The time as it is written down: ISO 8601, UTC, as fine as what is ordered by it needs."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class StudyRow(Base):
    """One search over one chain."""

    __tablename__ = "studies"
    __table_args__ = (
        CheckConstraint(
            "status IN ('running', 'finished', 'interrupted', 'failed')", name="known_status"
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(index=True)
    config: Mapped[dict[str, Any]]
    config_digest: Mapped[str]
    chain_digest: Mapped[str]
    data_digests: Mapped[dict[str, Any]]
    seed: Mapped[int]
    versions: Mapped[dict[str, Any]]
    status: Mapped[str] = mapped_column(default="running")
    reason: Mapped[str | None] = mapped_column(default=None)
    created: Mapped[str] = mapped_column(default=now)


class TrialRow(Base):
    """One evaluation of one set of factors."""

    __tablename__ = "trials"
    __table_args__ = (
        UniqueConstraint("study_id", "number"),
        CheckConstraint("status IN ('running', 'finished', 'failed')", name="known_status"),
        CheckConstraint(
            "kind IN ('baseline', 'comparison', 'startup', 'search', 'confirm')", name="known_kind"
        ),
        CheckConstraint("(status = 'finished') = (error IS NOT NULL)", name="error_if_finished"),
        CheckConstraint("(status = 'running') = (told IS NULL)", name="told_unless_running"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    number: Mapped[int]
    kind: Mapped[str]
    factors: Mapped[list[float]]
    status: Mapped[str] = mapped_column(default="running")
    asked: Mapped[int]
    told: Mapped[int | None] = mapped_column(default=None)
    error: Mapped[float | None] = mapped_column(default=None)
    per_stimulus: Mapped[list[float]] = mapped_column(default=list)
    guardrails: Mapped[dict[str, Any]] = mapped_column(default=dict)
    reason: Mapped[str | None] = mapped_column(default=None)
    seconds: Mapped[dict[str, Any]] = mapped_column(default=dict)
    generated_tokens: Mapped[int] = mapped_column(default=0)
    attempts: Mapped[int] = mapped_column(default=1)
    gradient: Mapped[list[float] | None] = mapped_column(default=None)
    guardrail_gradients: Mapped[dict[str, Any] | None] = mapped_column(default=None)
    answered: Mapped[int | None] = mapped_column(default=None)


class ResultRow(Base):
    """What a study came to, as JSON; written once it has ended, replaced when it is proved."""

    __tablename__ = "results"

    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True)
    content: Mapped[dict[str, Any]]


class VariantRow(Base):
    """A variant that was written, and where; written in one transaction with its audit row."""

    __tablename__ = "variants"

    digest: Mapped[str] = mapped_column(primary_key=True)
    address: Mapped[str] = mapped_column(primary_key=True)
    study_id: Mapped[int | None] = mapped_column(ForeignKey("studies.id"), default=None)
    recipe: Mapped[dict[str, Any]]
    created: Mapped[str] = mapped_column(default=now)


class AuditRow(Base):
    """A row of the audit chain, see `ztom.ledger.audit`; triggers refuse to change or remove it."""

    __tablename__ = "audit"

    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    time: Mapped[str]
    event: Mapped[dict[str, Any]]
    previous: Mapped[str]
    hash: Mapped[str]


class UserRow(Base):
    """A person, or a machine's account. Names and addresses are kept in lower case."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(unique=True)
    email: Mapped[str] = mapped_column(unique=True)
    first_name: Mapped[str] = mapped_column(default="")
    last_name: Mapped[str] = mapped_column(default="")
    password_hash: Mapped[str]
    is_admin: Mapped[bool] = mapped_column(default=False)
    may_deploy: Mapped[bool] = mapped_column(default=False, server_default=false())
    enabled: Mapped[bool] = mapped_column(default=True)
    session: Mapped[int] = mapped_column(default=1)
    created: Mapped[str] = mapped_column(default=now)


class InvitationRow(Base):
    """An e-mail address, in lower case, with which somebody may make an account."""

    __tablename__ = "invitations"

    id: Mapped[str] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    may_deploy: Mapped[bool]
    actor: Mapped[str]
    created: Mapped[str] = mapped_column(default=now)


class ApiKeyRow(Base):
    """A key for a machine that acts for a user; only the hash of the secret is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    name: Mapped[str]
    hash: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str]]
    project_id: Mapped[str | None] = mapped_column(ForeignKey("projects.id"), default=None)
    created: Mapped[str] = mapped_column(default=now)
    revoked: Mapped[str | None] = mapped_column(default=None)
    requests_per_minute: Mapped[int | None] = mapped_column(default=None)
    tokens_per_minute: Mapped[int | None] = mapped_column(default=None)


class ProjectRow(Base):
    """A chain of checkpoints and who works on it."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    format: Mapped[str]
    created: Mapped[str] = mapped_column(default=now)
    deleted: Mapped[str | None] = mapped_column(default=None)


class MembershipRow(Base):
    """What a user may do in a project."""

    __tablename__ = "memberships"
    __table_args__ = (CheckConstraint("role IN ('owner', 'editor', 'viewer')", name="known_role"),)

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), primary_key=True, index=True)
    role: Mapped[str]


class CheckpointRow(Base):
    """A file of a project: a checkpoint that was uploaded, pointed to, or written by a search."""

    __tablename__ = "checkpoints"
    __table_args__ = (
        UniqueConstraint("project_id", "position"),
        CheckConstraint("part IN ('base', 'iteration', 'mastered')", name="known_part"),
        CheckConstraint("storage IN ('managed', 'pointer')", name="known_storage"),
        CheckConstraint("status IN ('pending', 'valid', 'invalid')", name="known_status"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    position: Mapped[int]
    part: Mapped[str]
    file_name: Mapped[str]
    tag: Mapped[str | None] = mapped_column(default=None)
    format: Mapped[str]
    storage: Mapped[str]
    address: Mapped[str] = mapped_column(index=True)
    nbytes: Mapped[int | None] = mapped_column(BigInteger, default=None)
    digest: Mapped[str | None] = mapped_column(default=None)
    weight_score: Mapped[float | None] = mapped_column(default=None)
    bias_score: Mapped[float | None] = mapped_column(default=None)
    status: Mapped[str] = mapped_column(default="pending")
    message: Mapped[str | None] = mapped_column(default=None)
    unproven: Mapped[bool] = mapped_column(default=False, server_default=false())
    created: Mapped[str] = mapped_column(default=now)
    deleted: Mapped[str | None] = mapped_column(default=None)


class DataSetRow(Base):
    """A data set that took part in a project's work; its content stays where it is."""

    __tablename__ = "data_sets"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    digest: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    nbytes: Mapped[int] = mapped_column(BigInteger)
    created: Mapped[str] = mapped_column(default=now)


class RequestRow(Base):
    """Work that was asked of the server: a search, an edit, an analysis; and what came of it."""

    __tablename__ = "requests"
    __table_args__ = (
        CheckConstraint(
            "status IN ('queued', 'running', 'finished', 'failed', 'cancelled')",
            name="known_status",
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str | None] = mapped_column(ForeignKey("projects.id"), index=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    kind: Mapped[str]
    status: Mapped[str] = mapped_column(default="queued", index=True)
    parameters: Mapped[dict[str, Any]]
    study_id: Mapped[int | None] = mapped_column(ForeignKey("studies.id"), default=None)
    job: Mapped[str | None] = mapped_column(default=None)
    attempts: Mapped[int] = mapped_column(default=0)
    reason: Mapped[str | None] = mapped_column(default=None)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), default=None)
    artifact: Mapped[str | None] = mapped_column(default=None)
    checkpoint_id: Mapped[str | None] = mapped_column(ForeignKey("checkpoints.id"), default=None)
    created: Mapped[str] = mapped_column(default=now)
    ended: Mapped[str | None] = mapped_column(default=None)


class VerdictRow(Base):
    """What the proof on the holdout said about a study's answer."""

    __tablename__ = "verdicts"

    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True)
    outcome: Mapped[str]
    content: Mapped[dict[str, Any]]
    created: Mapped[str] = mapped_column(default=now)


class GateVerdictRow(Base):
    """What the gate said about a model; its number is that of its row in the audit chain."""

    __tablename__ = "gate_verdicts"
    __table_args__ = (
        UniqueConstraint("sha256", "project_id"),
        CheckConstraint("outcome IN ('pass', 'fail', 'inconclusive')", name="known_outcome"),
    )

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    sha256: Mapped[str]
    candidate: Mapped[str] = mapped_column(index=True)
    champion: Mapped[str | None] = mapped_column(default=None)
    outcome: Mapped[str]
    content: Mapped[dict[str, Any]]
    project_id: Mapped[str | None] = mapped_column(ForeignKey("projects.id"), default=None)
    actor: Mapped[str]
    public_key: Mapped[str | None] = mapped_column(default=None)
    created: Mapped[str] = mapped_column(default=now)


class SigningKeyRow(Base):
    """A key whose signatures count, until it is revoked."""

    __tablename__ = "signing_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    public_key: Mapped[str] = mapped_column(unique=True)
    actor: Mapped[str]
    created: Mapped[str] = mapped_column(default=now)
    revoked: Mapped[str | None] = mapped_column(default=None)


class ReleaseRow(Base):
    """A variant that was let out of its proof, by whom, and whether somebody insisted."""

    __tablename__ = "releases"

    digest: Mapped[str] = mapped_column(primary_key=True)
    address: Mapped[str] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    actor: Mapped[str]
    insisted: Mapped[bool]
    created: Mapped[str] = mapped_column(default=now)


class EndpointRow(Base):
    """An alias under which variants are served, and the project that it belongs to."""

    __tablename__ = "endpoints"

    alias: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str | None] = mapped_column(ForeignKey("projects.id"), default=None)
    created: Mapped[str] = mapped_column(default=now)


class RoutingRow(Base):
    """A version of the routing table; the highest one holds."""

    __tablename__ = "routing"

    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    content: Mapped[dict[str, Any]]
    actor: Mapped[str]
    created: Mapped[str] = mapped_column(default=now)


class DeploymentRow(Base):
    """A variant that is to run, and how far it is."""

    __tablename__ = "deployments"
    __table_args__ = (
        CheckConstraint("state IN ('starting', 'ready', 'failed', 'retired')", name="known_state"),
    )

    digest: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    address: Mapped[str]
    base: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), default=None)
    options: Mapped[dict[str, Any]]
    intent: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), default=None)
    kept: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), default=None)
    project_id: Mapped[str | None] = mapped_column(ForeignKey("projects.id"), default=None)
    state: Mapped[str] = mapped_column(default="starting", index=True)
    reason: Mapped[str | None] = mapped_column(default=None)
    insisted: Mapped[bool] = mapped_column(default=False)
    signed_by: Mapped[str | None] = mapped_column(default=None)
    actor: Mapped[str]
    created: Mapped[str] = mapped_column(default=now)


class RolloutRow(Base):
    """A release under way or ended: its plan, and the state that its controller goes on from."""

    __tablename__ = "rollouts"
    __table_args__ = (
        CheckConstraint(
            "status IN ('running', 'held', 'promoted', 'rolled_back', 'aborted')",
            name="known_status",
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    alias: Mapped[str] = mapped_column(ForeignKey("endpoints.alias"), index=True)
    candidate: Mapped[str]
    stable: Mapped[str]
    plan: Mapped[dict[str, Any]]
    state: Mapped[dict[str, Any]]
    status: Mapped[str] = mapped_column(default="running")
    command: Mapped[str | None] = mapped_column(default=None)
    callers: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), default=None)
    actor: Mapped[str]
    created: Mapped[str] = mapped_column(default=now)
    ended: Mapped[str | None] = mapped_column(default=None)


class ObservationRow(Base):
    """What one gateway process has counted in one step of a release so far."""

    __tablename__ = "observations"

    rollout_id: Mapped[str] = mapped_column(ForeignKey("rollouts.id"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    source: Mapped[str] = mapped_column(primary_key=True)
    content: Mapped[dict[str, Any]]


class CallerTrafficRow(Base):
    """How many requests of a caller the stable variant of an alias answered in a day."""

    __tablename__ = "caller_traffic"

    alias: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[str] = mapped_column(primary_key=True)
    caller: Mapped[str] = mapped_column(primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)


class FeedbackRow(Base):
    """What somebody thought of one answer; an answer is judged once."""

    __tablename__ = "feedback"
    __table_args__ = (CheckConstraint("error >= 0 AND error <= 1", name="error_is_a_share"),)

    response_id: Mapped[str] = mapped_column(primary_key=True)
    variant: Mapped[str] = mapped_column(index=True)
    rollout_id: Mapped[str | None] = mapped_column(
        ForeignKey("rollouts.id"), default=None, index=True
    )
    step: Mapped[int] = mapped_column(default=0)
    role: Mapped[str]
    error: Mapped[float]
    label: Mapped[str | None] = mapped_column(default=None)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    caller: Mapped[str | None] = mapped_column(default=None)
    counted: Mapped[bool] = mapped_column(default=True, server_default=true())
    created: Mapped[str] = mapped_column(default=now)
