"""What the ledger is told about a variant that was just written."""

from __future__ import annotations

from typing import Literal

from ztom.ledger.records import AuditEvent, NewVariant
from ztom.settings import local_actor
from ztom.variants.manifest import Manifest
from ztom.variants.recipe import RECIPE, read_recipe
from ztom.variants.write import StagedVariant


def for_the_record(
    staged: StagedVariant,
    manifest: Manifest,
    *,
    action: Literal["variant.release", "variant.unproven", "variant.blend"],
    study_id: int | None = None,
) -> NewVariant:
    """A sealed variant and its row of the audit chain.

    Args:
        staged: Staged variant that was sealed.
        manifest: Manifest that sealing gave.
        action: ``variant.release`` for what a search publishes, ``variant.unproven`` for what it
            only keeps, ``variant.blend`` for factors set by hand.
        study_id: Id of the search; None for factors set by hand.
    """
    recipe = read_recipe(staged.folder)
    evidence = recipe.evidence
    verdict = "" if evidence is None else f"verdict: {evidence.verdict.get('outcome')}"
    insisted = "" if evidence is None or not evidence.insisted else ", released on insistence"
    event = AuditEvent(
        actor=local_actor(),
        action=action,
        subject=f"variant:{manifest.digest}",
        recipe_digest=manifest.files[RECIPE].sha256,
        data_digests={} if evidence is None else evidence.data_digests,
        before=tuple(member.sha256 for member in recipe.members),
        after=manifest.digest,
        note=verdict + insisted,
    )
    return NewVariant(
        digest=manifest.digest,
        address=str(staged.destination),
        recipe=recipe.model_dump(mode="json"),
        event=event,
        study_id=study_id,
        insisted=evidence is not None and evidence.insisted,
    )
