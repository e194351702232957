"""Deployments: the variants that are to be served, one by one or from a declarative file.

Everything here is written to the ledger and answered at once; the controller makes it so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fastapi import APIRouter
from pydantic import Field
from starlette.exceptions import HTTPException

from serve_apps.control_plane.access import Caller, CallerOf, Permission, ServicesOf, route
from serve_apps.control_plane.routes.endpoints import Alias, may_alias, owner_of, table_of
from serve_apps.control_plane.routes.verdicts import record_verdict
from serve_apps.control_plane.services import Services
from serve_apps.endpoints.clearance import refusal, require_gate, said
from serve_apps.endpoints.declared import Difference, WantedEndpoint, differences
from serve_apps.endpoints.specs import DeployOptions, parse_options
from serve_apps.endpoints.traffic import (
    Intent,
    answered_from,
    remove,
    remove_rule,
    rollback,
    route_of,
    set_traffic,
    stable_of,
)
from serve_apps.endpoints.variants import Found, find_variant
from ztom.checkpoints.reference import parse_reference
from ztom.errors import (
    ConfigError,
    GateRefusedError,
    NotOnRecordError,
    ReferenceRefusedError,
)
from ztom.evaluation.gate.verdict import Verdict
from ztom.ledger.deployments import DeploymentRecord, DeploymentState, NewDeployment
from ztom.ledger.project_files import Storage
from ztom.ledger.verdicts import VerdictRecord
from ztom.rollout.plan import parse_plan
from ztom.rollout.routing import SHORT, Match, Percent, RoutingTable, variant_id
from ztom.wire.base import WireRequest
from ztom.wire.fields import DigestStart, Id

router = APIRouter(tags=["deployments"])


class Deploy(WireRequest):
    """A variant that is to be served.

    Without ``now``, ``canary``, ``shadow``, ``rule``, ``live`` and ``plan``, a release by the
    default plan moves the traffic; a new alias is given to the variant at once. ``live`` swaps it
    into the engine of the stable variant, without a restart. ``verdict`` is what the gate said of
    the variant; it is put on record first.
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
    verdict: Verdict | None = None
    insist: bool = False


class Apply(WireRequest):
    """Endpoints as a declarative file has them, by alias."""

    endpoints: dict[Alias, WantedEndpoint]
    prune: bool = False
    dry_run: bool = False


@route(router, "POST", "/v1/deployments", Permission.WRITE, status_code=202)
def deploy(body: Deploy, caller: CallerOf, services: ServicesOf) -> dict[str, Any]:
    """Have a variant served under an alias."""
    return _deploy(body, caller, services)


class _Checked(NamedTuple):
    """A variant that may be deployed.

    Attributes:
        gate: What the gate has said of it, the last time.
        refused: Why it takes insistence; None when it takes none.
    """

    found: Found
    gate: VerdictRecord | None
    refused: str | None


def _checked(body: Deploy, caller: Caller, services: Services) -> _Checked:
    """The variant, after everything was refused that can be whatever else happens meanwhile."""
    caller.project_or_operator(body.project_id)
    _refuse_foreign(body.alias, body.project_id, services)
    found = _found(body, services)
    if "swap_into" in body.options:
        raise ConfigError("swap_into is not an option", fix="Deploy with live instead.")
    _check_places(found, _as_before(body, found, services)[1], services)
    if body.verdict is not None:
        record_verdict(body.verdict, body.project_id, caller, services, of=found.digest)
    return _gated(body, found, services)


def _gated(body: Deploy, found: Found, services: Services) -> _Checked:
    """No green, no ship; see `serve_apps.endpoints.clearance`."""
    verdicts, project = services.ledger.verdicts, body.project_id
    gate = verdicts.latest(found.digest, project_id=project)
    required = services.config.gate_required
    refused = refusal(gate, proof=found.verdict, gate=found.gate, gate_required=required)
    if refused is not None and not body.insist:
        fix = "Have `ztom gate` decide; or deploy it with insist, which is recorded, all the same."
        raise GateRefusedError(refused, fix=fix)
    stable = stable_of(table_of(services)[1], body.alias)
    asked = intent_of(body).gate
    require_gate(verdicts, asked, candidate=found.digest, stable=stable, project_id=project)
    return _Checked(found, gate, refused)


def _deploy(body: Deploy, caller: Caller, services: Services) -> dict[str, Any]:
    intent = intent_of(body)
    found, gate, refused = _checked(body, caller, services)
    name, options = _as_before(body, found, services)
    if body.live:
        options = _swapped_in(found, body.alias, options, services)
    else:
        _refuse_beside_itself(found, intent, services)
    _refuse_second(intent, found.digest, services)
    services.ledger.endpoints.claim(body.alias, body.project_id)
    record = services.ledger.endpoints.deployments.deploy(
        NewDeployment(
            digest=found.digest,
            name=name,
            address=str(found.folder),
            base=found.base,
            options=options.model_dump(mode="json", exclude_defaults=True),
            intent=intent.model_dump(mode="json"),
            project_id=body.project_id,
            insisted=refused is not None,
            note=f"for {body.alias}; verdict: {found.verdict or 'none'}; gate: {said(gate)}"
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
        for record in services.ledger.endpoints.deployments.all()
        if caller.sees(record.project_id)
    ]


@route(router, "GET", "/v1/deployments/{digest}", Permission.READ)
def deployment(digest: DigestStart, caller: CallerOf, services: ServicesOf) -> dict[str, Any]:
    """One deployment, by its variant's digest or the start of it."""
    for record in services.ledger.endpoints.deployments.all():
        if record.digest.startswith(digest) and caller.sees(record.project_id):
            caller.project_or_operator(record.project_id)
            return deployment_document(record, services.gateway.table, caller)
    raise NotOnRecordError("there is no such deployment", got=digest)


@route(router, "DELETE", "/v1/deployments/{digest}", Permission.WRITE, status_code=204)
def cancel_deployment(digest: DigestStart, caller: CallerOf, services: ServicesOf) -> None:
    """Have a deployment that waits for its traffic wait no more."""
    for record in services.ledger.endpoints.deployments.all():
        if record.digest.startswith(digest) and caller.sees(record.project_id):
            caller.project_or_operator(record.project_id)
            reason = "it was cancelled"
            deployments = services.ledger.endpoints.deployments
            if not deployments.cancel(actor=caller.actor, reason=reason, digest=record.digest):
                raise HTTPException(409, f"The deployment is {record.state} and waits for nothing.")
            return
    raise NotOnRecordError("there is no such deployment", got=digest)


@route(router, "POST", "/v1/apply", Permission.WRITE)
def apply(body: Apply, caller: CallerOf, services: ServicesOf) -> list[dict[str, Any]]:
    """Make endpoints what a declarative file says; answers with what there was to change.

    Every variant and every right is checked before the first change is made; applying the file
    again goes on where something came between.
    """
    for alias, each in body.endpoints.items():
        caller.project_or_operator(each.project)
        _refuse_foreign(alias, each.project, services)
    projects = {each.project for each in body.endpoints.values()} or {None}
    seen = [
        alias
        for alias, each in table_of(services)[1].routes.items()
        if each.project in projects and caller.sees(each.project)
    ]
    changes = differences(
        body.endpoints,
        table=table_of(services)[1],
        records=services.ledger.endpoints.deployments.all(),
        rollouts=services.ledger.endpoints.rollouts.open(),
        digest_of=lambda path: find_variant(path, services.pointers).digest,
        prune=seen if body.prune else [],
    )
    if not body.dry_run:
        deploys = [_deploy_of(change, body.endpoints) for change in changes]
        for wanted in filter(None, deploys):
            _checked(wanted, caller, services)
        for change, wanted in zip(changes, deploys, strict=True):
            if wanted is None:
                _apply_one(change, caller, services)
            else:
                _deploy(wanted, caller, services)
    return [{"alias": c.alias, "action": c.action, "text": c.text} for c in changes]


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
            if getattr(each, role) == record.digest and caller.sees(each.project)
        ],
        "actor": record.actor,
        "createdAt": record.created,
    }


def _found(body: Deploy, services: Services) -> Found:
    if (body.path is None) == (body.file_id is None):
        raise ConfigError("the variant is not named", expected="one of path and fileId")
    if body.path is not None:
        return find_variant(body.path, services.pointers)
    if body.project_id is None:
        raise ConfigError("a fileId is a project's", expected="a projectId beside it")
    file = services.ledger.files.get(body.project_id, body.file_id)
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


def _refuse_foreign(alias: str, project_id: str | None, services: Services) -> None:
    """What there is under another project's alias is nothing to learn from what is refused."""
    owner = owner_of(alias, services)
    if owner is not None and owner[0] != project_id:
        raise NotOnRecordError("there is no such endpoint", got=alias)


def _as_before(body: Deploy, found: Found, services: Services) -> tuple[str, DeployOptions]:
    """Name and options: of the deployment that runs already, where nothing else is said."""
    for record in services.ledger.endpoints.deployments.all():
        if record.digest == found.digest and record.project_id == body.project_id:
            options = parse_options(body.options or record.options)
            placed = {"swap_into": _swapped_into(record)}
            return body.name or record.name, options.model_copy(update=placed)
    return body.name or body.alias, parse_options(body.options)


def _swapped_into(record: DeploymentRecord) -> str | None:
    """In whose application a variant is; a swap that failed, or is not done, is none."""
    ready = record.state is DeploymentState.READY
    serving = record.options if ready else (record.kept or {}).get("options", {})
    return parse_options(serving).swap_into


def _swapped_in(
    found: Found, alias: str, options: DeployOptions, services: Services
) -> DeployOptions:
    """The options with the application of the alias' stable variant, which holds the chain."""
    _, table = table_of(services)
    stable = route_of(table, alias).stable
    host = services.ledger.endpoints.deployments.get(stable)
    into = parse_options(host.options).swap_into
    if into is not None:
        host = services.ledger.endpoints.deployments.get(into)
    if not parse_options(host.options).live_swap or found.base is not None:
        raise ConfigError(
            "the variant cannot be swapped in live",
            got=f"into {variant_id(host.name, host.digest)}",
            expected="full weights, into a deployment that has the option live_swap",
        )
    others = answered_from(table, table.placements[stable].app, besides=alias)
    if others:
        raise ConfigError(
            f"the engine of {alias} also answers for {', '.join(others)}",
            fix="Deploy without live: the variant gets an engine of its own.",
        )
    if host.digest == found.digest:
        return parse_options(host.options)
    return options.model_copy(update={"swap_into": host.digest, "live_swap": False})


def _refuse_beside_itself(found: Found, intent: Intent, services: Services) -> None:
    """Two variants that take turns in one engine cannot answer side by side.

    Raises:
        ConfigError: The variant's turn is not now, and it does not become stable at once, or
            somebody else is answered from its engine.
    """
    _, table = table_of(services)
    where = table.placements.get(found.digest)
    if where is None or where.current in (None, found.digest):
        return
    at_once = intent.now or (intent.plan is not None and intent.alias not in table.routes)
    others = answered_from(table, where.app, besides=intent.alias)
    if others or not at_once:
        raise ConfigError(
            "another variant answers from this one's engine, by a live swap",
            got=f"for {', '.join(others)}" if others else None,
            fix="Give that another variant first."
            if others
            else "Roll back to it, or deploy it with now where that one is stable.",
        )


def _refuse_second(intent: Intent, digest: str, services: Services) -> None:
    """Of two that want the same traffic of an alias, the second one is told so."""
    if intent.rule is not None:
        return
    alias = intent.alias
    for rollout in services.ledger.endpoints.rollouts.open():
        if rollout.alias == alias:
            raise HTTPException(
                409, f"The release {rollout.id} of {alias} is under way: roll it back first."
            )
    for record in services.ledger.endpoints.deployments.all():
        if record.intent is None or record.state != "starting" or record.digest == digest:
            continue
        other = Intent.model_validate(record.intent)
        if other.alias == alias and other.kind == intent.kind:
            raise HTTPException(
                409, f"{record.digest[:SHORT]} is being deployed to {alias}: wait for it."
            )
    _, table = table_of(services)
    if intent.kind == "candidate" and alias not in table.routes:
        starting = [
            each
            for each in services.ledger.endpoints.deployments.all()
            if each.intent is not None and Intent.model_validate(each.intent).alias == alias
        ]
        if not starting:
            raise ConfigError(
                f"{alias} serves nothing that there could be a candidate beside",
                fix="Deploy a variant to it without canary and shadow first.",
            )


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
