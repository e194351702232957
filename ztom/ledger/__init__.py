"""The book-keeping: what was searched, what every trial gave, what came out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ztom.ledger.records import (
    AuditEntry,
    AuditEvent,
    NewStudy,
    NewVariant,
    PublishedVariant,
    StudyEvent,
    StudyRecord,
    StudyStatus,
    TrialKind,
    TrialOutcome,
    TrialRecord,
    TrialStatus,
    VariantRecord,
)

if TYPE_CHECKING:
    from ztom.ledger.ledger import Ledger

__all__ = [
    "AuditEntry",
    "AuditEvent",
    "StudyEvent",
    "Ledger",
    "NewStudy",
    "NewVariant",
    "PublishedVariant",
    "StudyRecord",
    "StudyStatus",
    "TrialKind",
    "TrialOutcome",
    "TrialRecord",
    "TrialStatus",
    "VariantRecord",
]


def __getattr__(name: str) -> Any:
    """Import the database libraries only where there is a database: trials need the records."""
    if name == "Ledger":
        from ztom.ledger.ledger import Ledger

        return Ledger
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
