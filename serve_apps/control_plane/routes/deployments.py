"""What is served: deployments of variants, endpoints and their traffic, releases.

Everything here is written to the ledger and answered at once; the controller makes it so. A change
of traffic holds from the moment that its answer is sent, give or take the gateways' next look.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import Field, StringConstraints
from starlette.exceptions import HTTPException

from serve_apps.control_plane.access import Caller, CallerOf, Permission, ServicesOf, route
from serve_apps.control_plane.services import Services
from serve_apps.control_plane.wire import Id, Strict
from serve_apps.controller.declared import Difference, WantedEndpoint, differences
from serve_apps.controller.specs import DeployOptions, parse_options
from serve_apps.controller.traffic import (
    Intent,
    promote,
    remove,
    remove_rule,
    rollback,
    route_of,
    set_traffic,
)
from serve_apps.controller.variants import Found, find_variant
from serve_apps.event_stream import event_stream
from ztom.checkpoints.reference import parse_reference
from ztom.errors import ConfigError, NotOnRecordError, ReferenceRefusedError
from ztom.ledger.accounts import Scope
from ztom.ledger.endpoints import (
    DeploymentRecord,
    NewDeployment,
    RolloutRecord,
)
from ztom.ledger.projects import Storage
from ztom.rollout.plan import ReleasePlan, parse_plan
from ztom.rollout.release import describe
from ztom.rollout.routing import ALIAS_PATTERN, SHORT, Match, Percent, RoutingTable, variant_id
from ztom.rollout.state import ReleaseState

router = APIRouter(tags=["deployments"])

Alias = Annotated[str, StringConstraints(pattern=ALIAS_PATTERN)]
DigestStart = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,64}$")]
RolloutId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}$")]


class Deploy(Strict):
    """A variant that is to be served.

    Without ``now``, ``canary``, ``shadow``, ``rule``, ``live`` and ``plan``, a release by the
    default plan moves the traffic; a new alias is given to the variant at once. ``live`` swaps it
    into the engine of the stable variant, without a restart.
    """

    alias: Alias
    path: str | None = Field(default=None, max_length=2048)
    file_id: Id | None = None
    project_id: Id | None = None
    name: Alias | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    now: bool = False
    canary: Percent | None = None
    shadow: Percent | None = None
    rule: Match | None = None
    plan: dict[str, Any] | None = None
    live: bool = False
    insist: bool = False


class Apply(Strict):
    """Endpoints as a declarative file has them, by alias."""

    endpoints: dict[Alias, WantedEndpoint]
    prune: bool = False
    dry_run: bool = False


class Traffic(Strict):
    """Other shares of the candidate, in percent; None leaves one as it is."""

    canary: Percent | None = None
    shadow: Percent | None = None


class Change(Strict):
    """A change of an endpoint; `version` is that of the table that its author looked at."""

    version: int | None = None


@route(router, "POST", "/v1/deployments", Permission.WRITE, status_code=202)
def deploy(body: Deploy, caller: CallerOf, services: ServicesOf) -> dict[str, Any]:
    """Have a variant served under an alias."""
    return _deploy(body, caller, services)


def _deploy(body: Deploy, caller: Caller, services: Services) -> dict[str, Any]:
    _may(caller, body.project_id)
    found = _found(body, services)
    intent = intent_of(body)
    _check_verdict(found, insist=body.insist)
    if "swap_into" in body.options:
        raise ConfigError("swap_into is not an option", fix="Deploy with live instead.")
    name, options = _as_before(body, found, services)
    _check_places(found, options, services)
    if body.live:
        options = _swapped_in(found, body.alias, options, services)
    else:
        _refuse_beside_itself(found, intent, services)
    _refuse_second(intent, found.digest, services)
    services.ledger.endpoints.claim(body.alias, body.project_id)
    record = services.ledger.endpoints.deploy(
        NewDeployment(
            digest=found.digest,
            name=name,
            address=str(found.folder),
            base=found.base,
            options=options.model_dump(mode="json", exclude_defaults=True),
            intent=intent.model_dump(mode="json"),
            project_id=body.project_id,
            insisted=body.insist and found.verdict != "improved",
            note=f"for {body.alias}; verdict: {found.verdict or 'none'}"
            + ("; insisted on" if body.insist else ""),
        ),
        actor=caller.actor,
    )
    return deployment_document(record, services.gateway.table, caller)


@route(router, "GET", "/v1/deployments", Permission.USER)
def deployments(caller: CallerOf, services: ServicesOf) -> list[dict[str, Any]]:
    """Every deployment of the caller's projects."""
    table = services.gateway.table
    return [
        deployment_document(record, table, caller)
        for record in services.ledger.endpoints.deployments()
        if _sees(caller, record.project_id)
    ]


@route(router, "GET", "/v1/deployments/{digest}", Permission.READ)
def deployment(digest: DigestStart, caller: CallerOf, services: ServicesOf) -> dict[str, Any]:
    """One deployment, by its variant's digest or the start of it."""
    for record in services.ledger.endpoints.deployments():
        if record.digest.startswith(digest) and _sees(caller, record.project_id):
            _may(caller, record.project_id)
            return deployment_document(record, services.gateway.table, caller)
    raise NotOnRecordError("there is no such deployment", got=digest)


@route(router, "DELETE", "/v1/deployments/{digest}", Permission.WRITE, status_code=204)
def cancel_deployment(digest: DigestStart, caller: CallerOf, services: ServicesOf) -> None:
    """Have a deployment that waits for its traffic wait no more."""
    for record in services.ledger.endpoints.deployments():
        if record.digest.startswith(digest) and _sees(caller, record.project_id):
            _may(caller, record.project_id)
            reason = "it was cancelled"
            endpoints = services.ledger.endpoints
            if not endpoints.cancel(actor=caller.actor, reason=reason, digest=record.digest):
                raise HTTPException(409, f"The deployment is {record.state} and waits for nothing.")
            return
    raise NotOnRecordError("there is no such deployment", got=digest)


@route(router, "GET", "/v1/endpoints", Permission.USER)
def endpoints(caller: CallerOf, services: ServicesOf) -> list[dict[str, Any]]:
    """The endpoints of the caller's projects, with their traffic."""
    version, table = _table(services)
    return [
        endpoint_document(alias, version, table)
        for alias in table.routes
        if _sees(caller, _project_of(alias, services))
    ]


@route(router, "GET", "/v1/endpoints/{alias}", Permission.READ)
def endpoint(alias: Alias, caller: CallerOf, services: ServicesOf) -> dict[str, Any]:
    """One endpoint."""
    _may_alias(alias, caller, services)
    return _endpoint(alias, services)


@route(router, "DELETE", "/v1/endpoints/{alias}", Permission.WRITE, status_code=204)
def remove_endpoint(alias: Alias, caller: CallerOf, services: ServicesOf) -> None:
    """Take an endpoint away; what nothing else names is stopped."""
    _may_alias(alias, caller, services)
    remove(services.ledger.endpoints, alias, actor=caller.actor)


@route(router, "PATCH", "/v1/endpoints/{alias}/traffic", Permission.WRITE)
def change_traffic(
    alias: Alias, body: Traffic, caller: CallerOf, services: ServicesOf
) -> dict[str, Any]:
    """Give the candidate other shares; a release that moves them ends."""
    _may_alias(alias, caller, services)
    set_traffic(
        services.ledger.endpoints,
        alias,
        canary=body.canary,
        shadow=body.shadow,
        actor=caller.actor,
    )
    return _endpoint(alias, services)


@route(router, "POST", "/v1/endpoints/{alias}/promote", Permission.WRITE)
def promote_candidate(
    alias: Alias, body: Change, caller: CallerOf, services: ServicesOf
) -> dict[str, Any]:
    """Make the candidate the stable variant, whatever a release says."""
    _may_alias(alias, caller, services)
    promote(services.ledger.endpoints, alias, actor=caller.actor, expected=body.version)
    return _endpoint(alias, services)


@route(router, "POST", "/v1/endpoints/{alias}/rollback", Permission.WRITE)
def roll_back(alias: Alias, body: Change, caller: CallerOf, services: ServicesOf) -> dict[str, Any]:
    """Take the candidate away; without one, go back to what was stable before."""
    _may_alias(alias, caller, services)
    rollback(
        services.ledger.endpoints,
        alias,
        actor=caller.actor,
        expected=body.version,
        candidate=_roll_back_release(alias, caller, services),
    )
    return _endpoint(alias, services)


@route(router, "DELETE", "/v1/endpoints/{alias}/rules", Permission.WRITE)
def remove_a_rule(
    alias: Alias, body: Match, caller: CallerOf, services: ServicesOf
) -> dict[str, Any]:
    """Take a rule away."""
    _may_alias(alias, caller, services)
    remove_rule(services.ledger.endpoints, alias, body, actor=caller.actor)
    return _endpoint(alias, services)


@route(router, "POST", "/v1/apply", Permission.WRITE)
def apply(body: Apply, caller: CallerOf, services: ServicesOf) -> list[dict[str, Any]]:
    """Make endpoints what a declarative file says; answers with what there was to change."""
    for alias, wanted in body.endpoints.items():
        _may(caller, wanted.project)
        owner = _owner(alias, services)
        if owner is not None and owner[0] != wanted.project:
            raise NotOnRecordError("there is no such endpoint", got=alias)
    projects = {wanted.project for wanted in body.endpoints.values()} or {None}
    seen = [
        alias
        for alias, each in _table(services)[1].routes.items()
        if each.project in projects and _sees(caller, each.project)
    ]
    changes = differences(
        body.endpoints,
        table=_table(services)[1],
        records=services.ledger.endpoints.deployments(),
        rollouts=services.ledger.endpoints.open_rollouts(),
        digest_of=lambda path: find_variant(path, services.pointers).digest,
        prune=seen if body.prune else [],
    )
    if not body.dry_run:
        for change in changes:
            _apply_one(change, body.endpoints.get(change.alias), caller, services)
    return [{"alias": c.alias, "action": c.action, "text": c.text} for c in changes]


@route(router, "GET", "/v1/releases", Permission.USER)
def releases(
    caller: CallerOf, services: ServicesOf, alias: Alias | None = None
) -> list[dict[str, Any]]:
    """Releases of the caller's projects, newest first."""
    return [
        release_document(record)
        for record in services.ledger.endpoints.rollouts(alias)
        if _sees(caller, _project_of(record.alias, services))
    ]


@route(router, "GET", "/v1/releases/{release_id}", Permission.READ)
def release(release_id: RolloutId, caller: CallerOf, services: ServicesOf) -> dict[str, Any]:
    """Where a release stands: its step, and what each check says."""
    return release_document(_release(release_id, caller, services))


@route(router, "GET", "/v1/releases/{release_id}/events", Permission.READ)
async def release_events(
    release_id: RolloutId, caller: CallerOf, services: ServicesOf
) -> StreamingResponse:
    """Server-sent events: the release each time that something is different, and its end."""
    await asyncio.to_thread(_release, release_id, caller, services)
    return event_stream(_release_events(release_id, services))


@route(router, "POST", "/v1/releases/{release_id}/{command}", Permission.WRITE)
def command_release(
    release_id: RolloutId, command: str, caller: CallerOf, services: ServicesOf
) -> dict[str, Any]:
    """Tell a release: ``promote``, ``rollback``, ``resume`` (after a hold) or ``abort``."""
    record = _release(release_id, caller, services)
    if command not in ("promote", "rollback", "resume", "abort"):
        raise HTTPException(404, "There is no such command.")
    told = services.ledger.endpoints.command(record.id, command, actor=caller.actor)
    if command == "rollback":
        rollback(
            services.ledger.endpoints,
            record.alias,
            actor=caller.actor,
            candidate=record.candidate,
        )
    return release_document(told)


def _found(body: Deploy, services: Services) -> Found:
    if (body.path is None) == (body.file_id is None):
        raise ConfigError("the variant is not named", expected="one of path and fileId")
    if body.path is not None:
        return find_variant(body.path, services.pointers)
    if body.project_id is None:
        raise ConfigError("a fileId is a project's", expected="a projectId beside it")
    file = services.ledger.projects.checkpoint(body.project_id, body.file_id)
    settings = services.pointers if file.storage is Storage.POINTER else services.managed
    return find_variant(file.address, settings)


def _check_places(found: Found, options: DeployOptions, services: Services) -> None:
    """What an engine reads besides the variant is named by the variant's own papers.

    Raises:
        ReferenceRefusedError: It is somewhere that is not allowed.
    """
    read = found.members if options.live_swap else found.members[: found.base is not None]
    for reference in read:
        try:
            parse_reference(reference, settings=services.managed)
        except ReferenceRefusedError:
            parse_reference(reference, settings=services.pointers)


def intent_of(body: Deploy) -> Intent:
    """The traffic that a deployment is wanted for.

    Raises:
        ConfigError: It says several things, or the plan is none.
    """
    now = body.now or body.live
    by_hand = now or body.rule or body.canary is not None or body.shadow is not None
    plan = None
    if body.plan is not None or not by_hand:
        plan = parse_plan(body.plan)
    try:
        return Intent(
            alias=body.alias,
            now=now,
            canary=body.canary,
            shadow=body.shadow,
            rule=body.rule,
            plan=plan,
        )
    except ValueError as error:
        raise ConfigError(
            "the traffic is not clear", expected="one of now, canary and/or shadow, rule, plan"
        ) from error


def deployment_document(
    record: DeploymentRecord, table: RoutingTable, caller: Caller
) -> dict[str, Any]:
    """A deployment over the wire."""
    return {
        "id": variant_id(record.name, record.digest),
        "digest": record.digest,
        "name": record.name,
        "path": record.address,
        "base": record.base,
        "options": record.options,
        "intent": record.intent,
        "projectId": record.project_id,
        "state": record.state,
        "reason": record.reason,
        "insisted": record.insisted,
        "roles": [
            {"alias": alias, "role": role}
            for alias, each in table.routes.items()
            for role in ("stable", "canary", "shadow", "previous")
            if getattr(each, role) == record.digest and _sees(caller, each.project)
        ],
        "actor": record.actor,
        "createdAt": record.created,
    }


def endpoint_document(alias: str, version: int, table: RoutingTable) -> dict[str, Any]:
    """An endpoint over the wire."""
    each = table.routes[alias]

    def named(digest: str | None) -> str | None:
        return None if digest is None else variant_id(table.placements[digest].name, digest)

    return {
        "alias": alias,
        "version": version,
        "stable": named(each.stable),
        "canary": named(each.canary),
        "canaryPercent": each.canary_percent,
        "shadow": named(each.shadow),
        "shadowPercent": each.shadow_percent,
        "previous": named(each.previous),
        "rules": [
            {**rule.model_dump(exclude={"variant"}), "variant": named(rule.variant)}
            for rule in each.rules
        ],
        "release": each.release,
    }


def release_document(record: RolloutRecord) -> dict[str, Any]:
    """A release over the wire."""
    plan = ReleasePlan.model_validate(record.plan)
    state = ReleaseState.model_validate(record.state)
    return {
        "id": record.id,
        "alias": record.alias,
        "candidate": record.candidate,
        "stable": record.stable,
        "status": record.status,
        "command": record.command,
        "plan": record.plan,
        "state": record.state,
        "steps": [row.model_dump(mode="json") for row in describe(plan, state)],
        "actor": record.actor,
        "createdAt": record.created,
        "endedAt": record.ended,
    }


_EVENT_POLL_S = 0.5


async def _release_events(release_id: str, services: Services) -> AsyncIterator[str]:
    last = ""
    while True:
        record = await asyncio.to_thread(services.ledger.endpoints.rollout, release_id)
        text = json.dumps(release_document(record), default=str)
        if text != last:
            yield f"event: release\ndata: {text}\n\n"
            last = text
        if not record.status.is_open:
            yield f'event: end\ndata: {{"status": "{record.status}"}}\n\n'
            return
        await asyncio.sleep(_EVENT_POLL_S)


def _may(caller: Caller, project_id: str | None) -> None:
    """Let through who may do it in the project; without one, administrators."""
    if project_id is not None:
        caller.project(project_id)
    elif not _is_operator(caller):
        raise HTTPException(403, "This takes an administrator, or a projectId.")


def _owner(alias: str, services: Services) -> tuple[str | None] | None:
    """The project of an alias, in brackets; None when there is no such alias yet."""
    try:
        return (services.ledger.endpoints.project_of(alias),)
    except NotOnRecordError:
        return None


def _apply_one(
    change: Difference, wanted: WantedEndpoint | None, caller: Caller, services: Services
) -> None:
    endpoints, alias, actor = services.ledger.endpoints, change.alias, caller.actor
    if change.deploy is not None and wanted is not None:
        body = Deploy(alias=alias, project_id=wanted.project, **change.deploy)
        _deploy(body, caller, services)
    elif change.action == "traffic":
        set_traffic(endpoints, alias, canary=change.canary, shadow=change.shadow, actor=actor)
    elif change.action == "withdraw":
        rollback(endpoints, alias, actor=actor)
    elif change.match is not None:
        remove_rule(endpoints, alias, change.match, actor=actor)
    elif change.action == "remove":
        _may_alias(alias, caller, services)
        remove(endpoints, alias, actor=actor)


def _sees(caller: Caller, project_id: str | None) -> bool:
    if caller.user.is_admin:
        return caller.key is None or caller.key.project_id in (None, project_id)
    if project_id is None:
        return False
    if caller.key is not None and caller.key.project_id not in (None, project_id):
        return False
    return caller.services.ledger.projects.role(project_id, caller.user.id) is not None


def _is_operator(caller: Caller) -> bool:
    if not caller.user.is_admin:
        return False
    if caller.key is None:
        return True
    reads = caller.permission is Permission.READ
    wanted = Scope.READ if reads else Scope.WRITE
    return caller.key.project_id is None and wanted in caller.key.scopes


def _may_alias(alias: str, caller: Caller, services: Services) -> None:
    missing = NotOnRecordError("there is no such endpoint", got=alias)
    owner = _owner(alias, services)
    if owner is None:
        raise missing
    if owner[0] is None:
        if not _is_operator(caller):
            raise missing
        return
    try:
        caller.project(owner[0])
    except NotOnRecordError:
        # one cannot tell it from one that does not exist
        raise missing from None


def _project_of(alias: str, services: Services) -> str | None:
    owner = _owner(alias, services)
    return None if owner is None else owner[0]


def _release(release_id: str, caller: Caller, services: Services) -> RolloutRecord:
    record = services.ledger.endpoints.rollout(release_id)
    _may_alias(record.alias, caller, services)
    return record


def _table(services: Services) -> tuple[int, RoutingTable]:
    version, content = services.ledger.endpoints.routing()
    return version, RoutingTable.model_validate(content)


def _endpoint(alias: str, services: Services) -> dict[str, Any]:
    version, table = _table(services)
    route_of(table, alias)
    return endpoint_document(alias, version, table)


def _check_verdict(found: Found, *, insist: bool) -> None:
    if found.verdict == "improved" or insist:
        return
    raise ConfigError(
        "the variant is not proved to be better",
        got=f"verdict: {found.verdict or 'none'}",
        expected="verdict: improved",
        fix="Deploy it with insist, which is recorded, if you want it all the same.",
    )


def _as_before(body: Deploy, found: Found, services: Services) -> tuple[str, DeployOptions]:
    """Name and options: of the deployment that runs already, where nothing else is said."""
    for record in services.ledger.endpoints.deployments():
        if record.digest == found.digest and record.project_id == body.project_id:
            options = parse_options(body.options or record.options)
            if body.options:
                swapped = parse_options(record.options).swap_into
                options = options.model_copy(update={"swap_into": swapped})
            return body.name or record.name, options
    return body.name or body.alias, parse_options(body.options)


def _swapped_in(
    found: Found, alias: str, options: DeployOptions, services: Services
) -> DeployOptions:
    """The options with the application of the alias' stable variant, which holds the chain."""
    _, table = _table(services)
    stable = route_of(table, alias).stable
    host = services.ledger.endpoints.deployment(stable)
    into = parse_options(host.options).swap_into
    if into is not None:
        host = services.ledger.endpoints.deployment(into)
    if not parse_options(host.options).live_swap or found.base is not None:
        raise ConfigError(
            "the variant cannot be swapped in live",
            got=f"into {variant_id(host.name, host.digest)}",
            expected="full weights, into a deployment that has the option live_swap",
        )
    app = table.placements[stable].app
    for other, each in table.routes.items():
        used = [digest for digest in each.variants if table.placements[digest].app == app]
        if used and other != alias:
            raise ConfigError(
                f"the engine of {alias} also answers for another endpoint",
                fix="Deploy without live: the variant gets an engine of its own.",
            )
    if host.digest == found.digest:
        return parse_options(host.options)
    return options.model_copy(update={"swap_into": host.digest, "live_swap": False})


def _refuse_beside_itself(found: Found, intent: Intent, services: Services) -> None:
    """Two variants that take turns in one engine cannot answer side by side."""
    _, table = _table(services)
    where, present = table.placements.get(found.digest), table.routes.get(intent.alias)
    if where is None or present is None or where.current is None:
        return
    stable = table.placements[present.stable]
    if where.app == stable.app and present.stable != found.digest and intent.kind != "rule":
        if intent.kind == "main" and intent.now:
            return
        raise ConfigError(
            "the variant shares its engine with the stable one, by live swaps",
            fix="Deploy it with live or now, or roll back.",
        )


def _refuse_second(intent: Intent, digest: str, services: Services) -> None:
    """Of two that want the same traffic of an alias, the second one is told so."""
    if intent.rule is not None:
        return
    alias = intent.alias
    for rollout in services.ledger.endpoints.open_rollouts():
        if rollout.alias == alias:
            raise HTTPException(
                409, f"The release {rollout.id} of {alias} is under way: roll it back first."
            )
    for record in services.ledger.endpoints.deployments():
        if record.intent is None or record.state != "starting" or record.digest == digest:
            continue
        other = Intent.model_validate(record.intent)
        if other.alias == alias and other.kind == intent.kind:
            raise HTTPException(
                409, f"{record.digest[:SHORT]} is being deployed to {alias}: wait for it."
            )
    _, table = _table(services)
    if intent.kind == "candidate" and alias not in table.routes:
        starting = [
            each
            for each in services.ledger.endpoints.deployments()
            if each.intent is not None and Intent.model_validate(each.intent).alias == alias
        ]
        if not starting:
            raise ConfigError(
                f"{alias} serves nothing that there could be a candidate beside",
                fix="Deploy a variant to it without canary and shadow first.",
            )


def _roll_back_release(alias: str, caller: Caller, services: Services) -> str | None:
    """The candidate of the release that moves an alias, which is told; None without a release."""
    for record in services.ledger.endpoints.open_rollouts():
        if record.alias == alias:
            services.ledger.endpoints.command(record.id, "rollback", actor=caller.actor)
            return record.candidate
    return None
