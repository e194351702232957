"""Deployments: the variants that are to be served, and how far each is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_serializer

from ztom.evaluation.gate.verdict import Verdict
from ztom.rollout.intent import Intent
from ztom.rollout.options import DeployOptions
from ztom.rollout.plan import Plan
from ztom.rollout.routing import Match, Percent, variant_id
from ztom.wire import examples
from ztom.wire.base import WireAnswer, WireRequest
from ztom.wire.examples import example
from ztom.wire.fields import Alias, Id

if TYPE_CHECKING:
    from ztom.ledger.deployments import DeploymentRecord

DeploymentStateName = Literal["starting", "ready", "failed", "retired"]
RoleName = Literal["stable", "canary", "shadow", "previous"]


class Deploy(WireRequest):
    """A variant that is to be served.

    Without ``now``, ``canary``, ``shadow``, ``rule``, ``live`` and ``plan``, a release by the
    default plan moves the traffic; a new alias is given to the variant at once. ``live`` swaps it
    into the engine of the stable variant, without a restart. ``verdict`` is what the gate said of
    the variant; it is put on record first.
    """

    model_config = example(
        alias="support",
        path="/models/variants/support-5",
        name="support-5",
        options={"max_replicas": 2},
        canary=5,
    )

    alias: Alias
    path: str | None = Field(default=None, max_length=2048)
    file_id: Id | None = None
    project_id: Id | None = None
    name: Alias | None = None
    options: DeployOptions = DeployOptions()
    now: bool = False
    canary: Percent | None = None
    shadow: Percent | None = None
    rule: Match | None = None
    plan: Plan | None = None
    live: bool = False
    verdict: Verdict | None = None
    insist: bool = False


class DeploymentRole(WireAnswer):
    """Traffic that a variant has."""

    alias: str
    role: RoleName


class DeploymentStatus(WireAnswer):
    """A deployment.

    Attributes:
        id: Id of the variant: ``name@digest``, with the start of the digest.
        digest: Digest of the variant's manifest.
        path: Folder of the variant.
        base: Base that an adapter is loaded on, ``reference`` and ``digest``; None for full
            weights.
        options: Options of its engine and replicas; on the wire, what is not as usual.
        intent: Traffic that it waits for; None once it has it.
        project_id: Id of the project that it belongs to; None for everybody's.
        state: How far it is; traffic goes to ``ready`` ones only.
        reason: Reason why it failed, what it waits for, or why it did not get its traffic.
        insisted: Whether neither the gate nor a search let it pass.
        signed_by: Who has signed the variant: a registered key's name, or a key; None where nobody
            has.
        roles: The traffic that it has, of aliases that the caller may see.
        actor: Name of whoever deployed it.
    """

    model_config = example(
        id=f"support-5@{examples.DIGEST[:12]}",
        digest=examples.DIGEST,
        name="support-5",
        path="/models/variants/support-5",
        base=None,
        options={"max_replicas": 2},
        intent={
            "alias": "support",
            "now": False,
            "canary": 5.0,
            "shadow": None,
            "rule": None,
            "plan": None,
        },
        projectId=None,
        state="starting",
        reason=None,
        insisted=False,
        signedBy="ci",
        roles=[],
        actor=f"user:{examples.USER}",
        createdAt=examples.TIME,
    )

    id: str
    digest: str
    name: str
    path: str
    base: dict[str, str] | None
    options: DeployOptions
    intent: Intent | None
    project_id: str | None
    state: DeploymentStateName
    reason: str | None
    insisted: bool
    signed_by: str | None = None
    roles: tuple[DeploymentRole, ...]
    actor: str
    created_at: str

    @field_serializer("options")
    def _unusual(self, options: DeployOptions) -> dict[str, Any]:
        return options.model_dump(mode="json", exclude_defaults=True)

    @classmethod
    def of(
        cls, record: DeploymentRecord, path: str, roles: Sequence[DeploymentRole]
    ) -> DeploymentStatus:
        """The deployment on record.

        Args:
            record: Deployment as the ledger has it.
            path: Folder of the variant, as it is shown.
            roles: The traffic that it has, as far as the caller may know.
        """
        return cls(
            id=variant_id(record.name, record.digest),
            digest=record.digest,
            name=record.name,
            path=path,
            base=None if record.base is None else dict(record.base),
            options=record.options,
            intent=record.intent,
            project_id=record.project_id,
            state=record.state.value,
            reason=record.reason,
            insisted=record.insisted,
            signed_by=record.signed_by,
            roles=tuple(roles),
            actor=record.actor,
            created_at=record.created,
        )
