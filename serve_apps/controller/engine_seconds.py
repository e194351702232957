"""Seconds of engines, by variant: with traffic and work, with traffic and none, without traffic.

Replicas count for themselves how long they are up and had work; what is here is the difference of
two looks. The first look of a controller at a replica that was up before counts nothing of it: what
was before it, another controller has counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serve_apps.variants.calls import ReplicaState
from ztom.ledger.usage import UsageCounts
from ztom.rollout.routing import RoutingTable


@dataclass(frozen=True, slots=True)
class ReplicaSeconds:
    """What a replica has counted up to a look."""

    up_s: float = 0.0
    busy_s: float = 0.0
    untold_s: float = 0.0

    @classmethod
    def of(cls, state: ReplicaState) -> ReplicaSeconds:
        """What a replica says of itself."""
        return cls(state.up_s, state.busy_s, state.untold_s)


def engine_seconds(
    states: Sequence[ReplicaState],
    before: Mapping[str, ReplicaSeconds],
    *,
    is_first: bool,
    has_traffic: bool,
) -> UsageCounts:
    """What the replicas of an application did since the last look.

    Args:
        states: How they are now.
        before: What each had counted at the last look, by its name.
        is_first: Whether this is the controller's first look at anything.
        has_traffic: Whether a route sends requests to the application.

    Returns:
        Idle or held seconds, and the busy seconds of which no gateway was told.
    """
    total = UsageCounts()
    for state in states:
        now = ReplicaSeconds.of(state)
        is_new = state.replica not in before and not is_first
        if is_new:
            total.held_s += state.load_s
        then = before.get(state.replica, ReplicaSeconds() if is_new else now)
        spare_s = max(0.0, (now.up_s - then.up_s) - (now.busy_s - then.busy_s))
        total.busy_s += max(0.0, now.untold_s - then.untold_s)
        if has_traffic:
            total.idle_s += spare_s
        else:
            total.held_s += spare_s
    return total


def apps_with_traffic(table: RoutingTable) -> frozenset[str]:
    """Applications to which a route sends requests; one that is kept for a rollback gets none."""
    served = set[str]()
    for route in table.routes.values():
        served |= {route.stable, *(rule.variant for rule in route.rules)}
        served |= {digest for digest in (route.canary, route.shadow) if digest is not None}
    return frozenset(where.app for digest, where in table.placements.items() if digest in served)


def owners(table: RoutingTable, app: str) -> list[tuple[str, str | None]]:
    """Whose an application is: the variants in it, with their projects, that share its seconds.

    The one that is in the engine where variants are swapped; the adapters, alike, of a shared one.
    """
    inside = [(digest, where) for digest, where in table.placements.items() if where.app == app]
    current = [(d, where.project) for d, where in inside if where.current == d]
    return current or [(digest, where.project) for digest, where in inside]
