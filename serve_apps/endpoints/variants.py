"""Finding the variant that somebody wants served, and what its own files say about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ztom.checkpoints.reference import parse_reference
from ztom.errors import ConfigError, ReferenceRefusedError, VariantError
from ztom.settings import Settings
from ztom.variants.manifest import read_manifest
from ztom.variants.recipe import read_recipe


@dataclass(frozen=True, slots=True)
class StoredVariant:
    """A variant on disk.

    Attributes:
        folder: Folder of the variant's files.
        digest: Digest of the variant's manifest, whose files are checked before it is served.
        verdict: Outcome of its proof; None for factors set by hand.
        gate: What the gate said in its search; None where that had no suites.
        base: What an adapter is loaded on: ``reference`` and ``digest``; None for full weights.
        members: References of its chain, base first: an engine that swaps live reads them.
        refused: Why a member may not be read, by its reference; those that may be are not there.
    """

    folder: Path
    digest: str
    verdict: str | None
    gate: str | None
    base: Mapping[str, str] | None
    members: tuple[str, ...]
    refused: Mapping[str, ReferenceRefusedError]


def open_variant(
    reference: str, settings: Settings, *, readable: Sequence[Settings] = ()
) -> StoredVariant:
    """Read what a variant says of itself.

    Args:
        reference: Folder of the variant.
        settings: Settings with the roots under which the variant has to be.
        readable: Settings with the roots under which members of its chain may be; any of them will
            do.

    Raises:
        ReferenceRefusedError: It is somewhere else.
        ConfigError: It is not a folder of this machine.
        VariantError: It is no variant.
    """
    parsed = parse_reference(reference, settings=settings)
    if parsed.scheme != "file" or parsed.archive != "none":
        raise ConfigError(
            "a variant is served from a folder",
            got=reference,
            fix="Copy it to where every node of the cluster can read it.",
        )
    folder = Path(parsed.path)
    if not folder.is_dir():
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
    return StoredVariant(folder, digest, verdict, gate, base, members, refused)


def _refusal(reference: str, readable: Sequence[Settings]) -> ReferenceRefusedError | None:
    refused = None
    for settings in readable:
        try:
            parse_reference(reference, settings=settings)
            return None
        except ReferenceRefusedError as error:
            refused = error
    return refused
