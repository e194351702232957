"""The tables. Changing them needs a migration in `ztom/ledger/migrations/versions`.

Order is kept by sequence numbers, never by the clock: ``created`` is for people.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, MetaData, UniqueConstraint
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
    type_annotation_map = {dict[str, Any]: JSON, list[float]: JSON}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


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
    created: Mapped[str] = mapped_column(default=_now)


class TrialRow(Base):
    """One evaluation of one set of factors."""

    __tablename__ = "trials"
    __table_args__ = (
        UniqueConstraint("study_id", "number"),
        CheckConstraint("status IN ('running', 'finished', 'failed')", name="known_status"),
        CheckConstraint("kind IN ('baseline', 'startup', 'search', 'confirm')", name="known_kind"),
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
    created: Mapped[str] = mapped_column(default=_now)


class AuditRow(Base):
    """A row of the audit chain, see `ztom.ledger.audit`; triggers refuse to change or remove it."""

    __tablename__ = "audit"

    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    time: Mapped[str]
    event: Mapped[dict[str, Any]]
    previous: Mapped[str]
    hash: Mapped[str]
