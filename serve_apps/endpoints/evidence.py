"""What a deployment is decided on, read in one go: the variant on disk, and what is on record.

Only a verdict that comes with a request is written here, before it is read with the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from serve_apps.endpoints.aliases import AliasRules
from ztom.checkpoints.reference import Reference, parse_reference
from ztom.errors import ConfigError, NotOnRecordError, ReferenceRefusedError, VariantError
from ztom.evaluation.gate.verdict import Verdict
from ztom.io.hub_address import read_hub_address
from ztom.io.places import STORE_SCHEMES, StoragePlace, parse_store_address
from ztom.ledger.checkpoints import Storage
from ztom.ledger.deployments import DeploymentRecord
from ztom.ledger.engine_quota import EngineQuota
from ztom.ledger.ledger import Ledger
from ztom.ledger.rollouts import RolloutRecord
from ztom.ledger.signing_keys import SigningKeyRecord
from ztom.ledger.verdicts import NewVerdict, VerdictRecord, Verdicts
from ztom.rollout.routing import SHORT, RoutingTable
from ztom.settings import Settings
from ztom.variants.manifest import read_manifest
from ztom.variants.recipe import read_recipe
from ztom.variants.signature import ManifestSignature, read_signature
from ztom.wire.deployments import Deploy


@dataclass(frozen=True, slots=True)
class AdmissionRules:
    """What the operator has set.

    Attributes:
        gate_required: The server takes no recipe's word for it that a variant is better.
        pointers: Roots that users may point to.
        managed: Roots of the server's own files.
        aliases: Rules for aliases that nobody has; None for an administrator, who takes any.
        own_key: Public key with which this server signs what it writes.
        signed_only: A variant has to be signed by this server or a registered key.
        own: Function that gives the address of what a path of the server's own names, such as a
            search's model; None for an address of somebody's own.
        quota: Engines that one account may have; None is no limit.
    """

    gate_required: bool
    pointers: Settings
    managed: Settings
    aliases: AliasRules | None = None
    own_key: str | None = None
    signed_only: bool = False
    own: Callable[[str], str | None] = lambda path: None
    quota: EngineQuota | None = None


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


@dataclass(frozen=True, slots=True)
class StoredVariant:
    """A variant on disk.

    Attributes:
        folder: Folder of the variant's files, or its address.
        digest: Digest of the variant's manifest, whose files are checked before it is served.
        verdict: Outcome of its proof; None for factors set by hand.
        gate: Outcome of the gate in its search; None where that had no suites.
        base: Base that an adapter is loaded on: ``reference`` and ``digest``; None for full
            weights.
        members: References of its chain, base first: an engine that swaps live reads them.
        refused: Error for each member that may not be read, by its reference; those that may be are
            not there.
        signed: Signature of its manifest, which fits; None where there is none.
    """

    folder: StoragePlace
    digest: str
    verdict: str | None
    gate: str | None
    base: Mapping[str, str] | None
    members: tuple[str, ...]
    refused: Mapping[str, ReferenceRefusedError]
    signed: ManifestSignature | None = None


class Evidence(NamedTuple):
    """What a deployment is decided on.

    Attributes:
        variant: The variant on disk.
        served: What is served now.
        verdict: The gate's latest verdict on the variant; None when there is none.
        stable: Digest of the variant that is stable under the alias; None where there is none yet.
        against_stable: The latest of those that compare it with that one; where there is none, the
            latest of all.
        own_gate: Outcome of the gate in the search, where that search was this server's.
        key: The registered key that signed the variant, revoked or not; None where none did.
    """

    variant: StoredVariant
    served: Served
    verdict: VerdictRecord | None
    stable: str | None
    against_stable: VerdictRecord | None
    own_gate: str | None = None
    key: SigningKeyRecord | None = None

    @property
    def deployment(self) -> DeploymentRecord | None:
        """The deployment that the variant has already; None where it has none."""
        return self.served.deployment(self.variant.digest)


def gather_evidence(
    wanted: Deploy, ledger: Ledger, rules: AdmissionRules, *, actor: str
) -> Evidence:
    """Read what a request for a deployment is decided on; see `serve_apps.endpoints.admission`.

    Raises:
        ConfigError: The variant is not named, or the verdict is of another one.
        NotOnRecordError: The alias is another project's, or there is no such file.
        ReferenceRefusedError: The variant is outside the allowed roots.
        SignatureError: Its signature does not fit.
        VariantError: It is none.
    """
    refuse_foreign(wanted.alias, wanted.project_id, ledger)
    _require_claimable(wanted, ledger, rules)
    address, roots = _place(wanted, ledger, rules)
    variant = open_variant(address, roots, readable=(rules.managed, rules.pointers))
    signed, keys = variant.signed, ledger.signing_keys
    key = None if signed is None else keys.by_public_key(signed.public_key)
    project_id, verdicts = wanted.project_id, ledger.verdicts
    if wanted.verdict is not None:
        record_verdict(
            verdicts, wanted.verdict, project_id=project_id, actor=actor, candidate=variant.digest
        )
    served = Served.of(ledger)
    route = served.table.routes.get(wanted.alias)
    stable = None if route is None else route.stable
    latest = against_stable = verdicts.latest(variant.digest, project_id=project_id)
    if stable is not None:
        against_stable = verdicts.latest(variant.digest, project_id=project_id, champion=stable)
    own_gate = _own_gate(variant, ledger)
    return Evidence(variant, served, latest, stable, against_stable, own_gate, key)


def _require_claimable(wanted: Deploy, ledger: Ledger, rules: AdmissionRules) -> None:
    """A new alias is one that the project may have."""
    if rules.aliases is None or wanted.project_id is None:
        return
    try:
        ledger.endpoints.project_of(wanted.alias)
    except NotOnRecordError:
        project = ledger.projects.get(wanted.project_id)
        rules.aliases.require_claimable(wanted.alias, project.name)


def _own_gate(variant: StoredVariant, ledger: Ledger) -> str | None:
    """What the gate said in the search that wrote a variant, where the ledger has that search."""
    for record in ledger.variants.all(starting_with=variant.digest):
        if record.study_id is not None:
            return (
                variant.gate
            )  # the recipe's word: its digest is in the manifest that is on record
    return None


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


def _way_to_a_folder(parsed: Reference) -> str:
    where = "to where every node of the cluster can read it"
    address = read_hub_address(parsed.text)
    if address is None:
        return f"Copy it {where}."
    revision = "" if address.revision is None else f" --revision {address.revision}"
    return f"Fetch it {where}: hf download {address.repo}{revision} --local-dir FOLDER"


def record_verdict(
    verdicts: Verdicts,
    verdict: Verdict,
    *,
    project_id: str | None,
    actor: str,
    candidate: str | None = None,
) -> VerdictRecord:
    """Put a verdict of the gate on record.

    Args:
        verdicts: Verdicts that are on record.
        verdict: Verdict of the gate.
        project_id: Id of the project that the verdict belongs to; the actor may write there.
        actor: Name of whoever records it in the audit chain.
        candidate: Digest of the variant that the verdict has to be of; None where that is not
            known.

    Raises:
        ConfigError: It is of another variant.
        SignatureError: Its signature is of something else.
    """
    judged, champion = verdict.candidate.digest, verdict.champion
    if candidate not in (None, judged):
        raise ConfigError("the verdict is of another variant", got=judged, expected=candidate)
    new = NewVerdict(
        document=verdict.to_bytes(),
        candidate=judged,
        champion=None if champion is None else champion.digest,
        outcome=verdict.outcome.value,
        project_id=project_id,
        public_key=verdict.signed_by(),
    )
    return verdicts.record(new, actor=actor)


def open_variant(
    reference: str, settings: Settings, *, readable: Sequence[Settings] = ()
) -> StoredVariant:
    """Read what a variant says of itself.

    Args:
        reference: Folder of the variant, or its address in a store.
        settings: Settings with the roots under which the variant has to be.
        readable: Settings with the roots under which members of its chain may be; any of them will
            do.

    Raises:
        ReferenceRefusedError: It is somewhere else.
        ConfigError: It is neither a folder of this machine nor one of a store.
        StorageError: The store does not answer.
        VariantError: It is no variant.
    """
    parsed = parse_reference(reference, settings=settings)
    if parsed.scheme not in ("file", *STORE_SCHEMES) or parsed.archive != "none":
        raise ConfigError(
            "a variant is served from a folder",
            got=reference,
            fix=_way_to_a_folder(parsed),
        )
    folder: StoragePlace = Path(parsed.path)
    if parsed.scheme in STORE_SCHEMES:
        folder = parse_store_address(parsed.text)
    elif isinstance(folder, Path) and not folder.is_dir():
        raise VariantError("there is no such variant", got=reference, expected="a folder")
    digest = read_manifest(folder).digest
    recipe = read_recipe(folder)
    evidence = recipe.evidence
    verdict = None if evidence is None else evidence.verdict.get("outcome")
    gate = None if evidence is None or evidence.gate is None else evidence.gate.get("outcome")
    base = None
    if recipe.form == "adapter":
        base = {"reference": recipe.members[0].reference, "digest": recipe.members[0].sha256}
    members = tuple(member.reference for member in recipe.members)
    refused = {member: error for member in members if (error := _refusal(member, readable))}
    signed = read_signature(folder, digest)
    return StoredVariant(folder, digest, verdict, gate, base, members, refused, signed)


def _refusal(reference: str, readable: Sequence[Settings]) -> ReferenceRefusedError | None:
    refused = None
    for settings in readable:
        try:
            parse_reference(reference, settings=settings)
            return None
        except ReferenceRefusedError as error:
            refused = error
    return refused
