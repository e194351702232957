"""Whether a variant may be deployed as somebody wants it, and the record that is made of it.

`check` refuses what can be refused whatever else happens meanwhile, `deploy` does that and writes
the deployment down. What they decide on is `serve_apps.endpoints.evidence`. Neither knows of HTTP:
what is wrong is an error of `ztom.errors`.
"""

from __future__ import annotations

from typing import NamedTuple

from serve_apps.endpoints.clearance import Clearance, clear
from serve_apps.endpoints.evidence import (
    AdmissionRules,
    Evidence,
    Served,
    StoredVariant,
    gather_evidence,
)
from serve_apps.endpoints.traffic import answered_from
from ztom.errors import (
    AlreadyOnRecordError,
    ConfigError,
    NotOnRecordError,
)
from ztom.ledger.deployments import DeploymentRecord, DeploymentState, NewDeployment
from ztom.ledger.ledger import Ledger
from ztom.rollout.intent import Intent
from ztom.rollout.options import DeployOptions
from ztom.rollout.plan import parse_plan
from ztom.rollout.routing import SHORT, variant_id
from ztom.wire.deployments import Deploy


class Checked(NamedTuple):
    """A variant that may be deployed, and what decided on it.

    Attributes:
        evidence: The variant, what is served, and the verdicts.
        intent: The traffic that it is wanted for.
        clearance: Clearance by the gate, or by the variant's search.
        name: Name of the deployment.
        options: Options that it is to run with.
    """

    evidence: Evidence
    intent: Intent
    clearance: Clearance
    name: str
    options: DeployOptions


def deploy(
    wanted: Deploy, ledger: Ledger, rules: AdmissionRules, *, actor: str
) -> DeploymentRecord:
    """Write down that a variant is to be served: read, decide, write.

    Args:
        wanted: The deployment that somebody asks for who may write in its project.
        ledger: Ledger that says what is served, and gets the deployment.
        rules: Rules of the operator.
        actor: Name of whoever wants it in the audit chain.

    Raises:
        ConfigError: It makes no sense, or not beside what is served.
        GateRefusedError: Neither the gate nor a search has let the variant pass.
        NotOnRecordError: The alias is another project's, or there is no such file.
        AlreadyOnRecordError: Something else is on its way to the same traffic.
        ReferenceRefusedError: The variant is outside the allowed roots.
        VariantError: It is none.
        QuotaError: Whoever wants it has all the engines that they may have.
    """
    new = new_deployment(wanted, check(wanted, ledger, rules, actor=actor), actor=actor)
    ledger.endpoints.claim(wanted.alias, wanted.project_id)
    return ledger.endpoints.deployments.deploy(new, actor=actor, quota=rules.quota)


def check(wanted: Deploy, ledger: Ledger, rules: AdmissionRules, *, actor: str) -> Checked:
    """Refuse what can be refused whatever happens until it is deployed; see `deploy`.

    A verdict that comes with the request is put on record, whatever it says.
    """
    intent = intent_of(wanted)
    if "swap_into" in wanted.options.model_fields_set:
        raise ConfigError("swap_into is not an option", fix="Deploy with live instead.")
    evidence = gather_evidence(wanted, ledger, rules, actor=actor)
    clearance = clear(
        evidence,
        rules,
        gate=intent.gate,
        insist=wanted.insist,
    )
    name, options = _name_and_options(wanted, evidence.deployment)
    _check_places(evidence.variant, options)
    return Checked(evidence, intent, clearance, name, options)


def new_deployment(wanted: Deploy, checked: Checked, *, actor: str) -> NewDeployment:
    """The record of a deployment, if it goes with what is served: a function of values alone.

    Raises:
        ConfigError: It cannot be swapped in, would answer beside itself, or is a candidate beside
            nothing.
        AlreadyOnRecordError: Something else is on its way to the same traffic.
    """
    evidence, intent, clearance, name, options = checked
    variant, served = evidence.variant, evidence.served
    if wanted.live:
        options = _swapped_in(variant, wanted.alias, options, served)
    else:
        _refuse_beside_itself(variant.digest, intent, served)
    _refuse_second(variant.digest, intent, served)
    return NewDeployment(
        digest=variant.digest,
        name=name,
        address=str(variant.folder),
        base=variant.base,
        options=options,
        intent=intent,
        project_id=wanted.project_id,
        insisted=clearance.refused is not None,
        signed_by=clearance.signer,
        note=_note(wanted, evidence, clearance, actor),
    )


def _note(wanted: Deploy, evidence: Evidence, clearance: Clearance, actor: str) -> str:
    outcomes = f"verdict: {evidence.variant.verdict or 'none'}; gate: {clearance.gate_text}"
    signer = "unsigned" if clearance.signer is None else f"signed by {clearance.signer}"
    outcomes += f"; variant {signer}"
    insisted = f"; insisted on by {actor}" if wanted.insist else ""
    return f"for {wanted.alias}; {outcomes}{insisted}"


def intent_of(wanted: Deploy) -> Intent:
    """The traffic that a deployment is wanted for.

    Raises:
        ConfigError: It says several things.
    """
    now = wanted.now or wanted.live
    by_hand = now or wanted.rule or wanted.canary is not None or wanted.shadow is not None
    plan = wanted.plan if wanted.plan is not None or by_hand else parse_plan()
    try:
        return Intent(
            alias=wanted.alias,
            now=now,
            canary=wanted.canary,
            shadow=wanted.shadow,
            rule=wanted.rule,
            plan=plan,
        )
    except ValueError as error:
        raise ConfigError(
            "the traffic is not clear", expected="one of now, canary and/or shadow, rule, plan"
        ) from error


def _check_places(variant: StoredVariant, options: DeployOptions) -> None:
    """What an engine reads besides the variant is named by the variant's own papers.

    Raises:
        ReferenceRefusedError: It is somewhere that is not allowed.
    """
    read = variant.members if options.live_swap else variant.members[: variant.base is not None]
    for reference in read:
        if reference in variant.refused:
            raise variant.refused[reference]


def _name_and_options(wanted: Deploy, record: DeploymentRecord | None) -> tuple[str, DeployOptions]:
    """Name and options: those of the deployment that runs already, where nothing else is said."""
    if record is None or record.project_id != wanted.project_id:
        return wanted.name or wanted.alias, wanted.options
    options = wanted.options if wanted.options.model_fields_set else record.options
    placed = {"swap_into": _swapped_into(record)}
    return wanted.name or record.name, options.model_copy(update=placed)


def _swapped_into(record: DeploymentRecord) -> str | None:
    """Name of the application that holds a variant after a swap; None if that failed or goes on."""
    if record.state is DeploymentState.READY:
        return record.options.swap_into
    return None if record.kept is None else record.kept.options.swap_into


def _swapped_in(
    variant: StoredVariant, alias: str, options: DeployOptions, served: Served
) -> DeployOptions:
    """The options with the application of the alias' stable variant, which holds the chain."""
    table = served.table
    route = table.routes.get(alias)
    if route is None:
        raise NotOnRecordError("there is no such endpoint", got=alias)
    host = served.host(route.stable)
    if not host.options.live_swap or variant.base is not None:
        raise ConfigError(
            "the variant cannot be swapped in live",
            got=f"into {variant_id(host.name, host.digest)}",
            expected="full weights, into a deployment that has the option live_swap",
        )
    others = answered_from(table, table.placements[route.stable].app, besides=alias)
    if others:
        raise ConfigError(
            f"the engine of {alias} also answers for {', '.join(others)}",
            fix="Deploy without live: the variant gets an engine of its own.",
        )
    if host.digest == variant.digest:
        return host.options
    return options.model_copy(update={"swap_into": host.digest, "live_swap": False})


def _refuse_beside_itself(digest: str, intent: Intent, served: Served) -> None:
    """Two variants that take turns in one engine cannot answer side by side.

    Raises:
        ConfigError: The variant's turn is not now, and it does not become stable at once, or
            somebody else is answered from its engine.
    """
    table = served.table
    where = table.placements.get(digest)
    if where is None or where.current in (None, digest):
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


def _refuse_second(digest: str, intent: Intent, served: Served) -> None:
    """Refuse the second of two deployments that want the same traffic of an alias.

    Raises:
        AlreadyOnRecordError: A release is under way, or another variant is being deployed.
        ConfigError: It is a candidate, and nothing is served or comes that it could be beside.
    """
    alias = intent.alias
    if intent.rule is not None:
        return
    for rollout in served.rollouts:
        if rollout.alias == alias:
            raise AlreadyOnRecordError(
                f"a release of {alias} is under way", got=rollout.id, fix="Roll it back first."
            )
    coming = [
        record
        for record in served.deployments
        if record.intent is not None and record.intent.alias == alias
    ]
    for record in coming:
        is_starting = record.state is DeploymentState.STARTING and record.digest != digest
        if is_starting and record.intent is not None and record.intent.kind == intent.kind:
            raise AlreadyOnRecordError(
                f"another variant is being deployed to {alias}",
                got=record.digest[:SHORT],
                fix="Wait for it.",
            )
    if intent.kind == "candidate" and alias not in served.table.routes and not coming:
        raise ConfigError(
            f"{alias} serves nothing that there could be a candidate beside",
            fix="Deploy a variant to it without canary and shadow first.",
        )
