"""Endpoints: which variant answers under an alias, and for how much of its traffic.

A change of traffic is written to the ledger and holds from the moment that its answer is sent, give
or take the gateways' next look.
"""

from __future__ import annotations

from fastapi import APIRouter

from serve_apps.control_plane.access import Caller, CallerOf, Permission, ServicesOf, route
from serve_apps.control_plane.services import Services
from serve_apps.endpoints.traffic import (
    promote,
    remove,
    remove_rule,
    rollback,
    route_of,
    set_traffic,
)
from ztom.errors import NotOnRecordError
from ztom.rollout.state import Command
from ztom.wire.endpoints import Endpoint, EndpointChange, RuleMatch, TrafficShares
from ztom.wire.fields import Alias

router = APIRouter(tags=["endpoints"])


@route(router, "GET", "/v1/endpoints", Permission.USER)
def endpoints(caller: CallerOf, services: ServicesOf) -> list[Endpoint]:
    """The endpoints of the caller's projects, with their traffic."""
    version, table = services.ledger.endpoints.routing()
    return [
        Endpoint.of(alias, version, table)
        for alias in table.routes
        if caller.sees(project_of(alias, services))
    ]


@route(router, "GET", "/v1/endpoints/{alias}", Permission.READ)
def endpoint(alias: Alias, caller: CallerOf, services: ServicesOf) -> Endpoint:
    """One endpoint."""
    may_alias(alias, caller, services)
    return _endpoint(alias, services)


@route(router, "DELETE", "/v1/endpoints/{alias}", Permission.DEPLOY, status_code=204)
def remove_endpoint(alias: Alias, caller: CallerOf, services: ServicesOf) -> None:
    """Take an endpoint away; what nothing else names is stopped."""
    may_alias(alias, caller, services)
    remove(services.ledger.endpoints, alias, actor=caller.actor)


@route(router, "PATCH", "/v1/endpoints/{alias}/traffic", Permission.DEPLOY)
def change_traffic(
    alias: Alias, body: TrafficShares, caller: CallerOf, services: ServicesOf
) -> Endpoint:
    """Give the candidate other shares; a release that moves them ends."""
    may_alias(alias, caller, services)
    set_traffic(
        services.ledger.endpoints,
        alias,
        canary=body.canary,
        shadow=body.shadow,
        actor=caller.actor,
    )
    return _endpoint(alias, services)


@route(router, "POST", "/v1/endpoints/{alias}/promote", Permission.DEPLOY)
def promote_candidate(
    alias: Alias, body: EndpointChange, caller: CallerOf, services: ServicesOf
) -> Endpoint:
    """Make the candidate the stable variant, whatever a release says."""
    may_alias(alias, caller, services)
    promote(services.ledger.endpoints, alias, actor=caller.actor, expected=body.version)
    return _endpoint(alias, services)


@route(router, "POST", "/v1/endpoints/{alias}/rollback", Permission.DEPLOY)
def roll_back(
    alias: Alias, body: EndpointChange, caller: CallerOf, services: ServicesOf
) -> Endpoint:
    """Take the candidate away; without one, go back to what was stable before."""
    may_alias(alias, caller, services)
    rollback(
        services.ledger.endpoints,
        alias,
        actor=caller.actor,
        expected=body.version,
        candidate=_roll_back_release(alias, caller, services),
    )
    return _endpoint(alias, services)


@route(router, "DELETE", "/v1/endpoints/{alias}/rules", Permission.DEPLOY)
def remove_a_rule(
    alias: Alias, body: RuleMatch, caller: CallerOf, services: ServicesOf
) -> Endpoint:
    """Take a rule away."""
    may_alias(alias, caller, services)
    remove_rule(services.ledger.endpoints, alias, body, actor=caller.actor)
    return _endpoint(alias, services)


def owner_of(alias: str, services: Services) -> tuple[str | None] | None:
    """The project of an alias, in brackets; None when there is no such alias yet."""
    try:
        return (services.ledger.endpoints.project_of(alias),)
    except NotOnRecordError:
        return None


def may_alias(alias: str, caller: Caller, services: Services) -> None:
    """Let through who may do to an endpoint what the route asks for.

    Raises:
        NotOnRecordError: It is not theirs, or does not exist: one cannot tell which.
        HTTPException: 403, they work on its project and may not do this.
    """
    missing = NotOnRecordError("there is no such endpoint", got=alias)
    owner = owner_of(alias, services)
    if owner is None:
        raise missing
    if owner[0] is None:
        if not caller.is_operator:
            raise missing
        return
    try:
        caller.project(owner[0])
    except NotOnRecordError:
        # one cannot tell it from one that does not exist
        raise missing from None


def project_of(alias: str, services: Services) -> str | None:
    """The project of an alias; None when it is of none, or there is no such alias."""
    owner = owner_of(alias, services)
    return None if owner is None else owner[0]


def _endpoint(alias: str, services: Services) -> Endpoint:
    version, table = services.ledger.endpoints.routing()
    route_of(table, alias)
    return Endpoint.of(alias, version, table)


def _roll_back_release(alias: str, caller: Caller, services: Services) -> str | None:
    """The candidate of the release that moves an alias, which is told; None without a release."""
    rollouts = services.ledger.endpoints.rollouts
    for record in rollouts.open():
        if record.alias == alias:
            rollouts.command(record.id, Command.ROLLBACK, actor=caller.actor)
            return record.candidate
    return None
