"""Who used how much: requests, tokens and engine seconds by key, project, variant and day.

Processes that count write what they counted since they wrote last, many rows in one transaction,
off the path of requests. Each of these batches has a number, and a batch whose number is on record
already is not written again: one of which it is not known whether it was committed counts once.

A process that ends properly writes its last batch and says so. One that is killed leaves what it
counted since its last batch, seconds' worth, uncounted; it is `Counter.lost` from then on, and
whoever asks for usage is told.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from sqlalchemy import BigInteger, Double, Select, delete, func, or_, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from ztom.ledger.database import Database
from ztom.ledger.models import ApiKeyRow, Base, DeploymentRow, ProjectRow, UserRow, now
from ztom.ledger.upsert import add_up
from ztom.ledger.values import from_json
from ztom.rollout.options import DeployOptions

#: Seconds between two signs of life of a process that counts.
ALIVE_EVERY_S = 5.0
#: Seconds after which a process that has given no sign of life is taken to have died.
ALIVE_S = 20.0
#: Days for which it is kept that a process was killed.
_KEPT_DAYS = 400


class CounterRow(Base):
    """A process that counts, and how far what it counted is on record."""

    __tablename__ = "counters"

    id: Mapped[str] = mapped_column(primary_key=True)
    node: Mapped[str]
    kind: Mapped[str]
    batch: Mapped[int] = mapped_column(BigInteger, default=0)
    began: Mapped[str] = mapped_column(default=now)
    seen: Mapped[str] = mapped_column(default=now, index=True)
    ended: Mapped[str | None] = mapped_column(default=None)


class UsageRow(Base):
    """What a key used of a variant in a day; no key for what nobody asked for."""

    __tablename__ = "usage"

    day: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)
    failed: Mapped[int] = mapped_column(BigInteger)
    prompt_tokens: Mapped[int] = mapped_column(BigInteger)
    completion_tokens: Mapped[int] = mapped_column(BigInteger)
    busy_s: Mapped[float] = mapped_column(Double)
    idle_s: Mapped[float] = mapped_column(Double)
    held_s: Mapped[float] = mapped_column(Double)


class UsageDimension(StrEnum):
    """What usage is told apart by; the columns of the table."""

    KEY = "key_id"
    PROJECT = "project_id"
    VARIANT = "digest"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class UsageKey:
    """Whose usage it is, of what and when.

    Attributes:
        day: Day (UTC) as ``2026-03-02``; empty where days are added up.
        key_id: Id of the API key, or of the user who was logged in; empty for nobody's.
        project_id: Id of the project whose endpoint it was; empty for the operator's own.
        digest: Digest of the variant; empty where variants are added up.
    """

    day: str = ""
    key_id: str = ""
    project_id: str = ""
    digest: str = ""


@dataclass(slots=True)
class UsageCounts:
    """How much was used.

    Attributes:
        requests: Number of requests.
        failed: Number of those whose answer was an error of the server's (500 and above).
        prompt_tokens: Tokens of prompts.
        completion_tokens: Tokens that were generated.
        busy_s: Seconds for which an engine worked, shared out among the requests it worked on.
        idle_s: Seconds for which an engine that traffic goes to had nothing to do.
        held_s: Seconds for which an engine was held without traffic: it loaded, or was kept for a
            rollback.
    """

    requests: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    busy_s: float = 0.0
    idle_s: float = 0.0
    held_s: float = 0.0

    def add(self, other: UsageCounts) -> None:
        """Add what else was used."""
        for name in NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


NUMBERS = tuple(field.name for field in fields(UsageCounts))


@dataclass(frozen=True, slots=True)
class Counter:
    """A process that counts.

    Attributes:
        node: Name of its machine.
        kind: What it is: ``gateway`` or ``controller``.
        seen: When it wrote last.
    """

    id: str
    node: str
    kind: str
    seen: str


@dataclass(frozen=True, slots=True)
class UsageNames:
    """What ids of usage are called; what is not on record any more is not in it.

    Attributes:
        keys: Names of API keys and users, by id.
        projects: Names of projects, by id.
        variants: Model names of variants, by digest.
        prices: What an hour of a replica costs, by digest.
    """

    keys: Mapping[str, str]
    projects: Mapping[str, str]
    variants: Mapping[str, str]
    prices: Mapping[str, float]


class Usage:
    """Reads and writes usage; part of `ztom.ledger.ledger.Ledger`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(
        self,
        counter: Counter,
        batch: int = 0,
        rows: Mapping[UsageKey, UsageCounts] | None = None,
        *,
        ends: bool = False,
    ) -> None:
        """Write what a process has counted, and that it lives.

        Args:
            counter: The process; its `Counter.seen` is not read.
            batch: Number of the batch, 1 and up; a number that is on record is not written again.
            rows: What was counted since the batch before.
            ends: Whether the process counts no more.

        Raises:
            LedgerError: The database failed; whether the batch is on record shows when it is
                written again.
        """
        with self._database.write("add usage to") as session:
            row = session.get(CounterRow, counter.id)
            if row is None:
                row = CounterRow(id=counter.id, node=counter.node, kind=counter.kind, batch=0)
                session.add(row)
            row.seen, row.ended = now(), now() if ends else None
            if rows and batch > row.batch:
                row.batch = batch
                values = [
                    {
                        **{field.name: getattr(key, field.name) for field in fields(UsageKey)},
                        **{name: getattr(counts, name) for name in NUMBERS},
                    }
                    for key, counts in rows.items()
                ]
                add_up(session, UsageRow, values, NUMBERS)

    def sums(
        self,
        by: Collection[UsageDimension],
        *,
        first: str,
        last: str,
        projects: Collection[str] | None = None,
        keys: Collection[str] = (),
    ) -> list[tuple[UsageKey, UsageCounts]]:
        """What was used, told apart by some of the dimensions; the others are empty.

        Args:
            by: Dimensions that tell rows apart.
            first: First day, as ``2026-03-02``.
            last: Last day, included.
            projects: Ids of the projects that count; None for all.
            keys: Ids of keys that count whatever their project.
        """
        columns = [getattr(UsageRow, dimension) for dimension in sorted(by)]
        totals = [func.sum(getattr(UsageRow, name)) for name in NUMBERS]
        query = select(*columns, *totals).where(UsageRow.day.between(first, last))
        if projects is not None:
            wanted = [UsageRow.project_id.in_(projects), UsageRow.key_id.in_(keys)]
            query = query.where(or_(*wanted))
        if columns:
            query = query.group_by(*columns).order_by(*columns)
        with self._database.read() as session:
            return [_sum(by, tuple(row)) for row in session.execute(query) if row[-1] is not None]

    def names(self, keys: Collection[UsageKey]) -> UsageNames:
        """What the ids of some usage are called."""
        digests = {key.digest for key in keys}
        by_key = {key.key_id for key in keys}
        with self._database.read() as session:
            deployments = session.scalars(
                select(DeploymentRow).where(DeploymentRow.digest.in_(digests))
            ).all()
            options = {
                row.digest: from_json(DeployOptions, row.options).price_per_hour
                for row in deployments
            }
            return UsageNames(
                keys=_names(session, select(ApiKeyRow.id, ApiKeyRow.name), by_key)
                | _names(session, select(UserRow.id, UserRow.username), by_key),
                projects=_names(
                    session,
                    select(ProjectRow.id, ProjectRow.name),
                    {key.project_id for key in keys},
                ),
                variants={row.digest: row.name for row in deployments},
                prices={digest: price for digest, price in options.items() if price is not None},
            )

    def alive(self, kind: str) -> int:
        """Number of processes of a kind that count and gave a sign of life lately."""
        query = select(func.count()).where(
            CounterRow.kind == kind, CounterRow.ended.is_(None), CounterRow.seen > _ago(ALIVE_S)
        )
        with self._database.read() as session:
            return int(session.scalar(query) or 0)

    def lost(self, *, first: str, last: str) -> tuple[Counter, ...]:
        """Processes that were killed in some days: what they counted after `Counter.seen` is lost.

        Args:
            first: First day, as ``2026-03-02``.
            last: Last day, included.
        """
        query = select(CounterRow).where(
            CounterRow.ended.is_(None),
            CounterRow.seen < _ago(ALIVE_S),
            func.substr(CounterRow.seen, 1, 10).between(first, last),
        )
        with self._database.read() as session:
            rows = session.scalars(query.order_by(CounterRow.seen, CounterRow.id))
            return tuple(Counter(row.id, row.node, row.kind, row.seen) for row in rows)

    def forget_ended(self) -> None:
        """Remove processes that ended properly, and what was lost long ago."""
        old = _ago(86_400 * _KEPT_DAYS)
        ended = CounterRow.ended.is_not(None) & (CounterRow.seen < _ago(86_400))
        with self._database.write("tidy usage in") as session:
            session.execute(delete(CounterRow).where(ended | (CounterRow.seen < old)))


def _ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="microseconds")


def _sum(by: Collection[UsageDimension], row: Sequence[object]) -> tuple[UsageKey, UsageCounts]:
    names = sorted(by)
    key = UsageKey(**{str(name): str(value) for name, value in zip(names, row, strict=False)})
    counts = UsageCounts()
    for name, value in zip(NUMBERS, row[len(names) :], strict=True):
        setattr(counts, name, type(getattr(counts, name))(value))
    return key, counts


def _names(session: Session, query: Select[str, str], ids: Collection[str]) -> dict[str, str]:
    column = query.selected_columns[0]
    return {str(key): str(name) for key, name in session.execute(query.where(column.in_(ids)))}
