"""A variant on this machine as an object: what blending returns, and what a folder is opened as."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ztom.blending.chain import Chain
from ztom.blending.precision import PrecisionReport
from ztom.io.places import StoragePlace
from ztom.ledger.ledger import Ledger
from ztom.variants.manifest import Manifest, verify_manifest
from ztom.variants.recipe import Recipe, read_recipe
from ztom.variants.record import for_the_record
from ztom.variants.write import WriteOptions, stage_variant


@dataclass(frozen=True)
class WrittenVariant:
    """A blend that was written and can be served; wherever a path is taken, it is its folder's.

    Attributes:
        folder: Absolute path of its folder, or its address.
        recipe: Recipe that its bytes follow from.
        manifest: sha256 and size of each of its files.
        warnings: Warnings to know before it is deployed; empty when its dtype realises the step
            well.
        row: Number of its row in the audit chain, where this process put it on record.
    """

    folder: StoragePlace
    recipe: Recipe
    manifest: Manifest
    warnings: tuple[str, ...] = ()
    row: int | None = None

    @property
    def digest(self) -> str:
        """sha256 that names the variant, lower-case hex."""
        return self.manifest.digest

    @property
    def factors(self) -> tuple[float, ...]:
        """Scaling factors, one per transition."""
        return self.recipe.factors

    def __fspath__(self) -> str:
        """Path of the folder, or the address, which functions of Z-TOM take as well."""
        return str(self.folder)

    def _repr_html_(self) -> str:
        from ztom.pages.formats import factor, percent
        from ztom.pages.notebook import NotebookTable, notebook_panel

        recipe, evidence = self.recipe, self.recipe.evidence
        realised = "-" if recipe.realised is None else percent(recipe.realised)
        proof = "factors set by hand" if evidence is None else str(evidence.verdict.get("outcome"))
        facts = {
            "folder": str(self.folder),
            "dtype, form": f"{recipe.dtype}, {recipe.form}",
            "realised over intended step": realised,
            "proof": proof,
            **({"warning": "; ".join(self.warnings)} if self.warnings else {}),
        }
        tags = [member.tag for member in recipe.members]
        before = tags[:-1] if recipe.topology == "sequence" else [tags[0]] * len(recipe.factors)
        rows = [
            (f"{start} -> {end}", factor(alpha))
            for start, end, alpha in zip(before, tags[1:], recipe.factors, strict=True)
        ]
        table = NotebookTable(("transition", "scaling factor"), rows)
        return notebook_panel(f"variant {self.digest[:12]}", facts, table)


def read_variant(folder: Path) -> WrittenVariant:
    """Open a variant; every byte of it is compared with its manifest.

    Raises:
        VariantError: It is no variant, or a file is not what the manifest says.
    """
    manifest = verify_manifest(folder)
    return WrittenVariant(folder.absolute(), read_recipe(folder), manifest)


def blend_on_record(
    chain: Chain,
    factors: Sequence[float],
    output: StoragePlace,
    *,
    options: WriteOptions,
    ledger_address: str,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[WrittenVariant, PrecisionReport]:
    """Write a blend whose factors were set by hand, and put it on record.

    Args:
        chain: Chain that was opened and checked.
        factors: Scaling factors, one per transition.
        output: Folder of the variant, or its address.
        options: Options of writing.
        ledger_address: File or SQLAlchemy address of the ledger.
        progress: Callback with bytes written, and bytes in all.

    Returns:
        The variant, and how much of the intended step its dtype realises.

    Raises:
        FactorError: Not one finite number per transition.
        BlendError: The blend is not finite at the deployed dtype.
        StorageError: The disk refused.
        VariantError: Another variant stands there.
    """
    with (
        Ledger.open(ledger_address) as ledger,
        stage_variant(chain, factors, output, options=options, progress=progress) as staged,
    ):
        manifest = staged.seal()
        new = for_the_record(staged, manifest, action="variant.blend")
        entry = ledger.variants.record(new, partial(staged.place, manifest))
    variant = WrittenVariant(
        folder=staged.destination,
        recipe=staged.recipe,
        manifest=manifest,
        warnings=staged.precision.warnings,
        row=entry.sequence,
    )
    return variant, staged.precision
