"""Whether a variant may be deployed as somebody wants it, and the record that is made of it.

`check` refuses what can be refused whatever else happens meanwhile, `deploy` does that and writes
the deployment down. Neither knows of HTTP: what is wrong is an error of `ztom.errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from serve_apps.endpoints.clearance import Clearance, clear, record_verdict, verdict_text
from serve_apps.endpoints.traffic import answered_from
from serve_apps.endpoints.variants import StoredVariant, open_variant
from ztom.errors import (
    AlreadyOnRecordError,
    ConfigError,
    NotOnRecordError,
)
from ztom.ledger.checkpoints import Storage
from ztom.ledger.deployments import DeploymentRecord, DeploymentState, NewDeployment
from ztom.ledger.ledger import Ledger
from ztom.ledger.rollouts import RolloutRecord
from ztom.rollout.intent import Intent
from ztom.rollout.options import DeployOptions
from ztom.rollout.plan import parse_plan
from ztom.rollout.routing import SHORT, RoutingTable, variant_id
from ztom.settings import Settings
from ztom.wire.deployments import Deploy


@dataclass(frozen=True, slots=True)
class AdmissionRules:
    """What the operator has set.

    Attributes:
        gate_required: The server takes no recipe's word for it that a variant is better.
        pointers: Roots that users may point to.
        managed: Roots of the server's own files.
        own: Function that gives the address of what a path of the server's own names, such as a
            search's model; None for an address of somebody's own.
    """

    gate_required: bool
    pointers: Settings
    managed: Settings
    own: Callable[[str], str | None] = lambda path: None


@dataclass(frozen=True, slots=True)
class Served:
    """What is served at the moment that a request is looked at.

    Attributes:
        table: The routing table.
        deployments: Deployments that are not retired, oldest first.
        rollouts: Releases that are under way.
    """

    table: RoutingTable
    deployments: Sequence[DeploymentRecord]
    rollouts: Sequence[RolloutRecord]

    @classmethod
    def of(cls, ledger: Ledger) -> Self:
        """What is served now, according to the ledger."""
        endpoints = ledger.endpoints
        return cls(endpoints.table(), endpoints.deployments.all(), endpoints.rollouts.open())

    def deployment(self, digest: str) -> DeploymentRecord | None:
        """The deployment of a variant, or None where it has none."""
        return next((record for record in self.deployments if record.digest == digest), None)

    def host(self, digest: str) -> DeploymentRecord:
        """The deployment in whose application a variant answers: its own, or one it took over.

        Raises:
            NotOnRecordError: There is none.
        """
        record = self.deployment(digest)
        if record is not None and record.options.swap_into is not None:
            record = self.deployment(record.options.swap_into)
        if record is None:
            raise NotOnRecordError("there is no such deployment", got=digest[:SHORT])
        return record


class Checked(NamedTuple):
    """A variant that may be deployed, and what decided on it.

    Attributes:
        variant: The variant on disk.
        intent: The traffic that it is wanted for.
        clearance: Clearance by the gate, or by the variant's search.
    """

    variant: StoredVariant
    intent: Intent
    clearance: Clearance


def deploy(
    wanted: Deploy, ledger: Ledger, rules: AdmissionRules, *, actor: str
) -> DeploymentRecord:
    """Write down that a variant is to be served.

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
    """
    checked = check(wanted, ledger, rules, actor=actor)
    new = new_deployment(wanted, checked, Served.of(ledger))
    ledger.endpoints.claim(wanted.alias, wanted.project_id)
    return ledger.endpoints.deployments.deploy(new, actor=actor)


def check(wanted: Deploy, ledger: Ledger, rules: AdmissionRules, *, actor: str) -> Checked:
    """Refuse what can be refused whatever happens until it is deployed; see `deploy`.

    A verdict that comes with the request is put on record, whatever it says.
    """
    intent = intent_of(wanted)
    refuse_foreign(wanted.alias, wanted.project_id, ledger)
    address, roots = _place(wanted, ledger, rules)
    variant = open_variant(address, roots, readable=(rules.managed, rules.pointers))
    if "swap_into" in wanted.options.model_fields_set:
        raise ConfigError("swap_into is not an option", fix="Deploy with live instead.")
    if wanted.verdict is not None:
        record_verdict(
            ledger.verdicts,
            wanted.verdict,
            project_id=wanted.project_id,
            actor=actor,
            candidate=variant.digest,
        )
    served = Served.of(ledger)
    route = served.table.routes.get(wanted.alias)
    clearance = clear(
        variant,
        ledger.verdicts,
        project_id=wanted.project_id,
        gate=intent.gate,
        stable=None if route is None else route.stable,
        gate_required=rules.gate_required,
        insist=wanted.insist,
    )
    _check_places(variant, _name_and_options(wanted, variant.digest, served)[1])
    return Checked(variant, intent, clearance)


def new_deployment(wanted: Deploy, checked: Checked, served: Served) -> NewDeployment:
    """The record of a deployment, if it goes with what is served: a function of values alone.

    Raises:
        ConfigError: It cannot be swapped in, would answer beside itself, or is a candidate beside
            nothing.
        AlreadyOnRecordError: Something else is on its way to the same traffic.
    """
    variant, intent, clearance = checked
    name, options = _name_and_options(wanted, variant.digest, served)
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
        note=_note(wanted, variant, clearance),
    )


def _note(wanted: Deploy, variant: StoredVariant, clearance: Clearance) -> str:
    said_of_it = f"verdict: {variant.verdict or 'none'}; gate: {verdict_text(clearance.verdict)}"
    return f"for {wanted.alias}; {said_of_it}" + ("; insisted on" if wanted.insist else "")


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


def refuse_foreign(alias: str, project_id: str | None, ledger: Ledger) -> None:
    """What there is under another project's alias is nothing to learn from what is refused.

    Raises:
        NotOnRecordError: The alias is another project's.
    """
    try:
        owner = ledger.endpoints.project_of(alias)
    except NotOnRecordError:
        return
    if owner != project_id:
        raise NotOnRecordError("there is no such endpoint", got=alias)


def _place(wanted: Deploy, ledger: Ledger, rules: AdmissionRules) -> tuple[str, Settings]:
    """Where the variant is said to be, and the roots under which it has to be."""
    if (wanted.path is None) == (wanted.file_id is None):
        raise ConfigError("the variant is not named", expected="one of path and fileId")
    if wanted.path is not None:
        own = rules.own(wanted.path)
        return (wanted.path, rules.pointers) if own is None else (own, rules.managed)
    if wanted.project_id is None or wanted.file_id is None:
        raise ConfigError("a fileId is a project's", expected="a projectId beside it")
    file = ledger.files.get(wanted.project_id, wanted.file_id)
    return file.address, rules.pointers if file.storage is Storage.POINTER else rules.managed


def _check_places(variant: StoredVariant, options: DeployOptions) -> None:
    """What an engine reads besides the variant is named by the variant's own papers.

    Raises:
        ReferenceRefusedError: It is somewhere that is not allowed.
    """
    read = variant.members if options.live_swap else variant.members[: variant.base is not None]
    for reference in read:
        if reference in variant.refused:
            raise variant.refused[reference]


def _name_and_options(wanted: Deploy, digest: str, served: Served) -> tuple[str, DeployOptions]:
    """Name and options: those of the deployment that runs already, where nothing else is said."""
    record = served.deployment(digest)
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
