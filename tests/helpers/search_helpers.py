"""Shared by the tests of the search that need no Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ztom.ledger import Ledger, NewStudy, TrialKind, TrialOutcome, TrialRecord, TrialStatus
from ztom.search.protocol import Plan
from ztom.search.space import Factors, SearchSpace

SPACE = SearchSpace(("one", "two"), (-0.1, -0.1), (0.1, 0.1))


def make_plan(**more: object) -> Plan:
    return Plan(**{"space": SPACE, "evaluations": 6, "startup": 2, "seed": 0, **more})


def bowl(factors: Factors) -> float:
    """Smallest, 1.0, at (0.05, -0.03)."""
    return 1.0 + 50 * ((factors[0] - 0.05) ** 2 + (factors[1] + 0.03) ** 2)


def make_trial(
    number: int,
    kind: TrialKind,
    factors: Factors = (0.0, 0.0),
    *,
    error: float | None = 1.0,
    guardrails: Mapping[str, float] | None = None,
    running: bool = False,
    seconds: float = 1.0,
) -> TrialRecord:
    ended = TrialStatus.FAILED if error is None else TrialStatus.FINISHED
    outcome = TrialOutcome(
        error=error,
        guardrails=guardrails or {},
        reason="broken" if error is None else None,
        seconds={"total": seconds},
    )
    return TrialRecord(
        study_id=1,
        number=number,
        kind=kind,
        factors=factors,
        status=TrialStatus.RUNNING if running else ended,
        asked=2 * number,
        told=None if running else 2 * number + 1,
        outcome=TrialOutcome() if running else outcome,
    )


def new_study(ledger: Ledger, name: str = "study") -> int:
    new = NewStudy(
        name=name, config={}, config_digest="c", chain_digest="h", data_digests={}, seed=0
    )
    return ledger.studies.create(new).id


def open_ledger(place: Path | str) -> Ledger:
    """In a folder, or at an address."""
    return Ledger.open(place / "ledger.db" if isinstance(place, Path) else place)


class ScriptedSampler:
    """Proposes given points and remembers what it was told."""

    sequential = False

    def __init__(self, points: list[Factors]) -> None:
        self.points = list(points)
        self.told: list[tuple[int, float | None, tuple[float, ...]]] = []
        self.on_ask: Callable[[int], None] = lambda number: None

    def warm_up(self) -> None:
        pass

    def ask(self, number: int) -> Factors | None:
        self.on_ask(number)
        return self.points.pop(0) if self.points else None

    def tell(
        self,
        number: int,
        factors: Factors,
        *,
        error: float | None,
        violations: tuple[float, ...],
    ) -> None:
        self.told.append((number, error, violations))

    def close(self) -> None:
        pass
