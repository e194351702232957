"""What people thought of answers: kept once per answer, many of them in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ztom.errors import AlreadyOnRecordError, LedgerError
from ztom.ledger.database import Database
from ztom.ledger.group_commit import GroupCommit
from ztom.ledger.models import FeedbackRow, RolloutRow
from ztom.ledger.values import from_json
from ztom.rollout.callers import CallerCap, CallerShares

_Arm = tuple[str | None, int, str]


@dataclass(frozen=True, slots=True)
class FeedbackRecord:
    """A judgement of one answer; `error` is from 0 (right) to 1 (wrong), `caller` a keyed hash."""

    response_id: str
    variant: str
    role: str
    error: float
    user_id: str
    label: str | None = None
    rollout_id: str | None = None
    step: int = 0
    caller: str | None = None


@dataclass(frozen=True, slots=True)
class FeedbackSum:
    """How many judgements there were, and the sum of their errors."""

    count: int
    error: float


class FeedbackStore:
    """Reads and writes judgements; part of `ztom.ledger.rollouts.Rollouts`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._together = GroupCommit(self.add_all)

    def add(self, feedback: FeedbackRecord) -> None:
        """Keep a judgement; those of other threads at the same time share the transaction.

        Raises:
            AlreadyOnRecordError: The answer was judged before.
            LedgerError: The database failed.
        """
        self._together.add(feedback)

    def add_all(self, batch: Sequence[FeedbackRecord]) -> list[Exception | None]:
        """Keep judgements, in their order.

        Returns:
            For each what was wrong with it; None where it is on record.

        Raises:
            LedgerError: The database failed, and none is on record.
        """
        try:
            return self._add_all(batch)
        except LedgerError:
            if len(batch) == 1:
                raise
        # one of them cannot be written (its user has gone); the others have nothing to do with it
        return [self._alone(feedback) for feedback in batch]

    def _alone(self, feedback: FeedbackRecord) -> Exception | None:
        try:
            return self._add_all([feedback])[0]
        except LedgerError as error:
            return error

    def _add_all(self, batch: Sequence[FeedbackRecord]) -> list[Exception | None]:
        errors: list[Exception | None] = []
        with self._database.write("add feedback to") as session:
            ids = [feedback.response_id for feedback in batch]
            query = select(FeedbackRow.response_id).where(FeedbackRow.response_id.in_(ids))
            judged, arms = set(session.scalars(query)), _Arms(session)
            for feedback in batch:
                if feedback.response_id in judged:
                    errors.append(AlreadyOnRecordError("this answer has its feedback already"))
                    continue
                judged.add(feedback.response_id)
                errors.append(None)
                session.add(_row(feedback, arms))
        return errors

    def sums(self, rollout_id: str, step: int) -> Mapping[str, FeedbackSum]:
        """Judgements in a step of a release that count, by the role of who answered."""
        query = (
            select(FeedbackRow.role, func.count(), func.sum(FeedbackRow.error))
            .where(
                FeedbackRow.rollout_id == rollout_id,
                FeedbackRow.step == step,
                FeedbackRow.counted.is_(True),
            )
            .group_by(FeedbackRow.role)
        )
        with self._database.read() as session:
            return {
                role: FeedbackSum(int(count), float(total))
                for role, count, total in session.execute(query)
            }


class _Arms:
    """Whose judgements count in the arms of releases; each arm is read once a transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._shares: dict[str, CallerShares | None] = {}
        self._caps: dict[_Arm, CallerCap] = {}

    def shares(self, rollout_id: str | None) -> CallerShares | None:
        """Shares of the callers before a release; None where there is no such release."""
        if not rollout_id:
            return None
        if rollout_id not in self._shares:
            row = self._session.get(RolloutRow, rollout_id)
            self._shares[rollout_id] = None if row is None else callers_of(row)
        return self._shares[rollout_id]

    def admits(self, feedback: FeedbackRecord, shares: CallerShares) -> bool:
        """Whether one more judgement of a caller counts, by how many of whom did before."""
        arm = (feedback.rollout_id, feedback.step, feedback.role)
        if arm not in self._caps:
            self._caps[arm] = self._cap(arm, shares)
        return self._caps[arm].admits(feedback.caller or "")

    def _cap(self, arm: _Arm, shares: CallerShares) -> CallerCap:
        rollout_id, step, role = arm
        query = (
            select(FeedbackRow.caller, FeedbackRow.counted, func.count())
            .where(
                FeedbackRow.rollout_id == rollout_id,
                FeedbackRow.step == step,
                FeedbackRow.role == role,
            )
            .group_by(FeedbackRow.caller, FeedbackRow.counted)
        )
        counted: Counter[str] = Counter()
        arrived: Counter[str] = Counter()
        for caller, counts, number in self._session.execute(query):
            arrived[caller or ""] += int(number)
            counted[caller or ""] += int(number) if counts else 0
        return CallerCap(shares, counted, arrived)


def callers_of(row: RolloutRow) -> CallerShares:
    """Shares of the callers in the traffic before a release."""
    return CallerShares() if row.callers is None else from_json(CallerShares, row.callers)


def _row(feedback: FeedbackRecord, arms: _Arms) -> FeedbackRow:
    shares = arms.shares(feedback.rollout_id)
    return FeedbackRow(
        response_id=feedback.response_id,
        variant=feedback.variant,
        rollout_id=None if shares is None else feedback.rollout_id,
        step=feedback.step,
        role=feedback.role,
        error=feedback.error,
        label=feedback.label,
        user_id=feedback.user_id,
        caller=feedback.caller,
        counted=shares is None or arms.admits(feedback, shares),
    )
