"""Deployments: the variants that are to be served, one by one or from a declarative file.

Everything here is written to the ledger and answered at once; the controller makes it so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.exceptions import HTTPException

from serve_apps.control_plane.access import Caller, CallerOf, Permission, ServicesOf, route
from serve_apps.control_plane.named_paths import OWN_PATH, named_checkpoint
from serve_apps.control_plane.routes.endpoints import may_alias
from serve_apps.control_plane.services import Services
from serve_apps.endpoints import admission
from serve_apps.endpoints.declaration import Difference, differences
from serve_apps.endpoints.evidence import AdmissionRules, Served, open_variant, refuse_foreign
from serve_apps.endpoints.traffic import remove, remove_rule, rollback, set_traffic
from ztom.errors import NotOnRecordError
from ztom.ledger.checkpoints import Storage
from ztom.ledger.deployments import DeploymentRecord
from ztom.rollout.routing import RoutingTable
from ztom.wire.apply import Apply, EndpointDifference, WantedEndpoint
from ztom.wire.deployments import Deploy, DeploymentRole, DeploymentStatus
from ztom.wire.fields import DigestStart

router = APIRouter(tags=["deployments"])


def _in_their_project(body: Deploy, caller: CallerOf) -> Caller:
    """The caller, who may deploy in the project of the request."""
    caller.project_or_operator(body.project_id)
    return caller


@route(router, "POST", "/v1/deployments", Permission.DEPLOY, status_code=202)
def deploy(
    body: Deploy, caller: Annotated[Caller, Depends(_in_their_project)], services: ServicesOf
) -> DeploymentStatus:
    """Have a variant served under an alias."""
    rules = _operator_rules(caller, services)
    if body.path is not None and OWN_PATH.fullmatch(body.path):
        rules = _rules(caller, services)
    record = admission.deploy(body, services.ledger, rules, actor=caller.actor)
    return _status(record, services.gateway.table, caller)


@route(router, "GET", "/v1/deployments", Permission.USER)
def deployments(caller: CallerOf, services: ServicesOf) -> list[DeploymentStatus]:
    """Every deployment of the caller's projects."""
    table = services.gateway.table
    return [
        _status(record, table, caller)
        for record in services.ledger.endpoints.deployments.all()
        if caller.sees(record.project_id)
    ]


@route(router, "GET", "/v1/deployments/{digest}", Permission.READ)
def deployment(digest: DigestStart, caller: CallerOf, services: ServicesOf) -> DeploymentStatus:
    """One deployment, by its variant's digest or the start of it."""
    record = _deployment(digest, caller, services)
    return _status(record, services.gateway.table, caller)


@route(router, "DELETE", "/v1/deployments/{digest}", Permission.DEPLOY, status_code=204)
def cancel_deployment(digest: DigestStart, caller: CallerOf, services: ServicesOf) -> None:
    """Have a deployment that waits for its traffic wait no more."""
    record = _deployment(digest, caller, services)
    deployments = services.ledger.endpoints.deployments
    reason = "it was cancelled"
    if not deployments.cancel(actor=caller.actor, reason=reason, digest=record.digest):
        raise HTTPException(409, f"The deployment is {record.state} and waits for nothing.")


@route(router, "POST", "/v1/apply", Permission.DEPLOY)
def apply(body: Apply, caller: CallerOf, services: ServicesOf) -> list[EndpointDifference]:
    """Make endpoints what a declarative file says; answers with what there was to change.

    Every variant and every right is checked before the first change is made; applying the file
    again goes on where something came between.
    """
    ledger, rules = services.ledger, _rules(caller, services)
    for alias, endpoint in body.endpoints.items():
        caller.project_or_operator(endpoint.project)
        refuse_foreign(alias, endpoint.project, ledger)
    served = Served.of(ledger)
    projects = {endpoint.project for endpoint in body.endpoints.values()} or {None}
    theirs = [
        alias
        for alias, route in served.table.routes.items()
        if route.project in projects and caller.sees(route.project)
    ]
    changes = differences(
        body.endpoints,
        table=served.table,
        records=served.deployments,
        rollouts=served.rollouts,
        digest_of=lambda path: _digest_of(path, rules),
        prune=theirs if body.prune else [],
    )
    if not body.dry_run:
        deploys = [_deploy_of(change, body.endpoints) for change in changes]
        for wanted in deploys:
            if wanted is not None:
                admission.check(wanted, ledger, rules, actor=caller.actor)
        for change, wanted in zip(changes, deploys, strict=True):
            if wanted is None:
                _apply_one(change, caller, services)
            else:
                admission.deploy(wanted, ledger, rules, actor=caller.actor)
    return [
        EndpointDifference(alias=change.alias, action=change.action, text=change.text)
        for change in changes
    ]


def _status(record: DeploymentRecord, table: RoutingTable, caller: Caller) -> DeploymentStatus:
    """A deployment, with those of its roles that the caller may know of."""
    return DeploymentStatus.of(
        record,
        caller.services.store.without_folders(record.address),
        [
            DeploymentRole(alias=alias, role=role)
            for alias, route in table.routes.items()
            for role, digest in (
                ("stable", route.stable),
                ("canary", route.canary),
                ("shadow", route.shadow),
                ("previous", route.previous),
            )
            if digest == record.digest and caller.sees(route.project)
        ],
    )


def _operator_rules(caller: Caller, services: Services) -> AdmissionRules:
    """The operator's rules, of which an administrator takes any alias."""
    return replace(services.rules, aliases=None) if caller.user.is_admin else services.rules


def _rules(caller: Caller, services: Services) -> AdmissionRules:
    """The operator's rules, and what paths of the server's own name for the caller."""

    def own(path: str) -> str | None:
        named = named_checkpoint(path, caller, services)
        return named.address if named is not None and named.storage is Storage.MANAGED else None

    return replace(_operator_rules(caller, services), own=own)


def _digest_of(path: str, rules: AdmissionRules) -> str:
    own = rules.own(path)
    if own is None:
        return open_variant(path, rules.pointers).digest
    return open_variant(own, rules.managed).digest


def _deployment(digest: str, caller: Caller, services: Services) -> DeploymentRecord:
    for record in services.ledger.endpoints.deployments.all(starting_with=digest):
        if caller.sees(record.project_id):
            caller.project_or_operator(record.project_id)
            return record
    raise NotOnRecordError("there is no such deployment", got=digest)


def _deploy_of(change: Difference, wanted: Mapping[str, WantedEndpoint]) -> Deploy | None:
    if change.deploy is None:
        return None
    return Deploy(alias=change.alias, project_id=wanted[change.alias].project, **change.deploy)


def _apply_one(change: Difference, caller: Caller, services: Services) -> None:
    endpoints, alias, actor = services.ledger.endpoints, change.alias, caller.actor
    if change.action == "traffic":
        set_traffic(endpoints, alias, canary=change.canary, shadow=change.shadow, actor=actor)
    elif change.action == "withdraw":
        rollback(endpoints, alias, actor=actor)
    elif change.match is not None:
        remove_rule(endpoints, alias, change.match, actor=actor)
    elif change.action == "remove":
        may_alias(alias, caller, services)
        remove(endpoints, alias, actor=actor)
