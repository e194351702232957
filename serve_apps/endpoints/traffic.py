"""Changes of traffic: what deploying, promoting and rolling back do to the routing table.

Each is one change of the table in the ledger, with its row of the audit chain; gateways see it
within a moment. While a release moves an alias, its route bears the release's id; a change by hand
takes the id away, and the release ends.
"""

from __future__ import annotations

from collections.abc import Iterable

from serve_apps.endpoints.clearance import require_gate
from ztom.errors import AlreadyOnRecordError, ConfigError, GateRefusedError, NotOnRecordError
from ztom.ledger.deployments import DeploymentRecord
from ztom.ledger.endpoints import Endpoints, TableChange
from ztom.ledger.rollouts import RolloutRecord
from ztom.ledger.verdicts import Verdicts
from ztom.rollout.intent import Intent
from ztom.rollout.plan import ReleaseGate
from ztom.rollout.routing import (
    Match,
    Route,
    RoutingRule,
    RoutingTable,
    promoted,
    rolled_back,
)


def route_of(table: RoutingTable, alias: str) -> Route:
    """The route of an alias.

    Raises:
        NotOnRecordError: There is none.
    """
    route = table.routes.get(alias)
    if route is None:
        raise NotOnRecordError("there is no such endpoint", got=alias)
    return route


def stable_of(table: RoutingTable, alias: str) -> str | None:
    """The variant that is stable under an alias; None where there is none yet."""
    route = table.routes.get(alias)
    return None if route is None else route.stable


def apply_intent(
    endpoints: Endpoints, verdicts: Verdicts, record: DeploymentRecord, *, actor: str
) -> bool:
    """Give a deployment that is in the table the traffic that it was deployed for.

    Doing it again changes nothing.

    Returns:
        Whether it has it now; a candidate waits until its alias has something stable.

    Raises:
        AlreadyOnRecordError: A release of the alias is under way.
        GateRefusedError: What the release's plan asks for is not on record.
    """
    if record.intent is None:
        return True

    def is_wanted() -> bool:
        """Whether it was neither cancelled nor replaced by another one."""
        return endpoints.deployments.get(record.digest).intent == record.intent

    if not is_wanted():
        return False
    stable = require_gate_of(endpoints, verdicts, record)
    intent, table = record.intent, endpoints.table()
    if intent.kind != "main" and intent.alias not in table.routes:
        return False
    rollout = None
    if intent.plan is not None and intent.alias in table.routes:
        rollout = _begun(endpoints, intent, record.digest, table.routes[intent.alias], actor)

    applied = False

    def change(now: RoutingTable) -> RoutingTable:
        nonlocal applied
        applied = (
            is_wanted()
        )  # whoever takes an endpoint away cancels first, then changes the table
        if not applied:
            return now
        if intent.gate is ReleaseGate.CHAMPION and stable_of(now, intent.alias) != stable:
            raise GateRefusedError("another variant became stable while the release began")
        return with_intent(now, record.digest, intent, release=rollout)

    endpoints.change_routing(
        change,
        actor=actor,
        action="route.intent",
        subject=f"endpoint:{intent.alias}",
        note=f"variant {record.digest[:12]}",
    )
    return applied


def require_gate_of(
    endpoints: Endpoints, verdicts: Verdicts, record: DeploymentRecord
) -> str | None:
    """Let a deployment pass whose release, if it waits for one, may begin.

    Returns:
        The variant that is stable, which it was asked about.

    Raises:
        GateRefusedError: What the release's plan asks for is not on record.
    """
    if record.intent is None:
        return None
    intent = record.intent
    stable = stable_of(endpoints.table(), intent.alias)
    require_gate(
        verdicts,
        intent.gate,
        candidate=record.digest,
        stable=stable,
        project_id=record.project_id,
    )
    return stable


def with_intent(
    table: RoutingTable, digest: str, intent: Intent, *, release: str | None
) -> RoutingTable:
    """The table with the traffic that a deployment was wanted for."""
    route = table.routes.get(intent.alias)
    if route is None:
        project = table.placements[digest].project
        new = table.with_route(intent.alias, Route(stable=digest, project=project))
        return answering(new, digest, intent.alias)
    if intent.rule is not None:
        rule = RoutingRule(variant=digest, **intent.rule.model_dump())
        rules = (rule, *(kept for kept in route.rules if kept.whom != rule.whom))
        return table.with_route(intent.alias, _with(route, rules=rules))
    if digest == route.stable:
        return table
    if intent.now:
        now = table.with_route(intent.alias, promoted(route, digest))
        return answering(now, digest, intent.alias)
    if release is not None:
        started = _with(route, canary=None, canary_percent=0.0, shadow=digest, shadow_percent=0.0)
        return table.with_route(intent.alias, _with(started, release=release, step=0))
    return table.with_route(intent.alias, _by_hand(route, digest, intent.canary, intent.shadow))


def set_traffic(
    endpoints: Endpoints,
    alias: str,
    *,
    canary: float | None,
    shadow: float | None,
    actor: str,
) -> int:
    """Give the candidate other shares, by hand; None leaves one as it is.

    Raises:
        NotOnRecordError: There is no such endpoint.
        ConfigError: It has no candidate.
    """

    def change(table: RoutingTable) -> RoutingTable:
        route, candidate = _with_candidate(table, alias)
        return table.with_route(alias, _by_hand(route, candidate, canary, shadow))

    note = f"canary {canary}, shadow {shadow}"
    return _by_person(endpoints, alias, change, actor=actor, action="route.traffic", note=note)


def promote(endpoints: Endpoints, alias: str, *, actor: str, expected: int | None = None) -> int:
    """Make the candidate the stable variant.

    Raises:
        NotOnRecordError: There is no such endpoint.
        ConfigError: It has no candidate.
    """

    def change(table: RoutingTable) -> RoutingTable:
        return table.with_route(alias, promoted(*_with_candidate(table, alias)))

    return _by_person(
        endpoints, alias, change, actor=actor, action="route.promote", expected=expected
    )


def rollback(
    endpoints: Endpoints,
    alias: str,
    *,
    actor: str,
    expected: int | None = None,
    candidate: str | None = None,
) -> int:
    """Take the candidate away; without one, go back to what was stable before.

    Args:
        endpoints: Endpoints in the ledger.
        alias: Alias of the endpoint.
        actor: Name of whoever does it in the audit chain.
        expected: Version of the table that they looked at; None when any will do.
        candidate: Digest of a variant to take away, though it may be stable by now; if it has no
            traffic any more, nothing else is changed.

    Raises:
        NotOnRecordError: There is no such endpoint.
        ConfigError: There is nothing to go back to, or what there is shares its engine with what
            answers for another endpoint.
    """

    def change(table: RoutingTable) -> RoutingTable:
        before = route_of(table, alias)
        has_traffic = (before.canary, before.shadow, before.stable)
        if candidate is not None and candidate not in has_traffic:
            return table
        route = rolled_back(before)
        return answering(table.with_route(alias, route), route.stable, alias)

    return _by_person(
        endpoints, alias, change, actor=actor, action="route.rollback", expected=expected
    )


def remove(endpoints: Endpoints, alias: str, *, actor: str) -> int:
    """Take an endpoint away; its variants are removed once nothing else names them.

    Raises:
        NotOnRecordError: There is no such endpoint.
    """

    def change(table: RoutingTable) -> RoutingTable:
        return table.with_route(alias, None)

    reason = "the endpoint was removed"
    cancelled = endpoints.deployments.cancel(actor=actor, reason=reason, alias=alias)
    if not cancelled:
        route_of(endpoints.table(), alias)
    return _by_person(endpoints, alias, change, actor=actor, action="route.remove")


def remove_rule(endpoints: Endpoints, alias: str, rule: Match, *, actor: str) -> int:
    """Take a rule away.

    Raises:
        NotOnRecordError: There is no such endpoint, or no such rule.
    """

    def change(table: RoutingTable) -> RoutingTable:
        route = route_of(table, alias)
        rules = tuple(kept for kept in route.rules if kept.whom != rule.whom)
        if rules == route.rules:
            raise NotOnRecordError(f"{alias} has no such rule")
        return table.with_route(alias, _with(route, rules=rules))

    return _by_person(endpoints, alias, change, actor=actor, action="route.rule.remove")


def _with_candidate(table: RoutingTable, alias: str) -> tuple[Route, str]:
    route = route_of(table, alias)
    candidate = route.canary or route.shadow
    if candidate is None:
        raise ConfigError(f"{alias} has no candidate", fix="Deploy a variant to it first.")
    return route, candidate


def _by_person(
    endpoints: Endpoints,
    alias: str,
    change: TableChange,
    *,
    actor: str,
    action: str,
    note: str = "",
    expected: int | None = None,
) -> int:
    return endpoints.change_routing(
        change,
        actor=actor,
        action=action,
        subject=f"endpoint:{alias}",
        note=note,
        expected=expected,
    )


def _begun(
    endpoints: Endpoints, intent: Intent, candidate: str, route: Route, actor: str
) -> str | None:
    """The release for an intent; the one that was begun for it already, if there is one."""
    if route.stable == candidate or intent.plan is None:
        return None
    for rollout in endpoints.rollouts.open():
        if rollout.alias == intent.alias:
            return _same(rollout, candidate).id
    return endpoints.rollouts.start(
        intent.alias,
        candidate=candidate,
        stable=route.stable,
        plan=intent.plan,
        actor=actor,
    ).id


def _same(rollout: RolloutRecord, candidate: str) -> RolloutRecord:
    if rollout.candidate != candidate:
        raise AlreadyOnRecordError(
            f"a release of {rollout.alias} is under way",
            got=f"{rollout.id}, of {rollout.candidate[:12]}",
            fix="Wait for its end, or roll it back.",
        )
    return rollout


def _by_hand(route: Route, digest: str, canary: float | None, shadow: float | None) -> Route:
    same = digest in (route.canary, route.shadow)
    canary = (route.canary_percent if same else 0.0) if canary is None else canary
    shadow = (route.shadow_percent if same else 0.0) if shadow is None else shadow
    return _with(
        route,
        canary=digest,
        canary_percent=canary,
        shadow=digest,
        shadow_percent=shadow,
        release=None,
        step=0,
    )


def answering(table: RoutingTable, digest: str, alias: str) -> RoutingTable:
    """The table in which the application of an alias' variant answers with that variant.

    Variants that are swapped live share an application, which answers with one of them.

    Raises:
        ConfigError: Somebody else is answered from there, and would be by the wrong variant.
    """
    where = table.placements[digest]
    if where.current in (None, digest):
        return table
    others = answered_from(table, where.app, besides=alias)
    if others:
        raise ConfigError(
            f"the engine that {alias} would be answered from also answers for {', '.join(others)}",
            fix="Give that another variant first, or take it away.",
        )
    for digest_there, other in table.placements.items():
        if other.app == where.app:
            table = table.with_placement(digest_there, other.model_copy(update={"current": digest}))
    return table


def answered_from(table: RoutingTable, app: str, *, besides: str) -> list[str]:
    """The aliases that an application answers for, besides the stable traffic of one alias."""

    def uses(digests: Iterable[str | None]) -> bool:
        return any(digest is not None and table.placements[digest].app == app for digest in digests)

    own = table.routes.get(besides)
    beside = () if own is None else (own.canary, own.shadow, *(r.variant for r in own.rules))
    aliases = [other for other, route in table.routes.items() if uses(route.variants)]
    aliases = [other for other in aliases if other != besides]
    return [*aliases, f"other traffic of {besides}"] if uses(beside) else aliases


def _with(route: Route, **changes: object) -> Route:
    return Route.model_validate({**route.model_dump(), **changes})
