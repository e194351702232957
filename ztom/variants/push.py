"""A variant onto the Hugging Face Hub: verified, with a card that the Hub can read, one commit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ztom.errors import ConfigError
from ztom.io.hub_address import HubAddress, is_bare_repo
from ztom.io.hub_upload import HubUpload, upload_model
from ztom.variants.hub_card import CardFacts, gather_facts, render_hub_card
from ztom.variants.manifest import CARD, MANIFEST, verify_manifest
from ztom.variants.recipe import read_recipe
from ztom.variants.signature import SIGNATURE, read_signature


@dataclass(frozen=True, slots=True)
class Pushed:
    """A variant that stands on the Hub.

    Attributes:
        address: Address, pinned by the commit.
        digest: Digest of the variant's manifest.
        facts: Facts of the card's head.
    """

    address: HubAddress
    digest: str
    facts: CardFacts


def push_variant(
    folder: Path,
    repo: str,
    *,
    private: bool = False,
    base_model: str | None = None,
    license: str | None = None,
) -> Pushed:
    """Write a variant to a repository of the Hub; a later variant becomes its next commit.

    Args:
        folder: Folder of the variant.
        repo: Repository, ``org/name``.
        private: Whether a new repository is private.
        base_model: Name on the Hub of what was blended, where the recipe does not tell.
        license: Identifier of the licence, where no file tells.

    Raises:
        ConfigError: The name is none, or something else stands in the repository.
        StorageError: The Hub refuses, or cannot be reached.
        VariantError: It is no variant, or not what its manifest says.
    """
    if not is_bare_repo(repo) or "@" in repo:
        raise ConfigError("this is no name on the Hub", got=repo, expected="org/name")
    manifest = verify_manifest(folder)
    recipe = read_recipe(folder)
    facts = gather_facts(folder, recipe, base_model=base_model, license=license)
    names = [name for name in (*manifest.files, MANIFEST) if name != CARD]
    if read_signature(folder, manifest.digest) is not None:
        names.append(SIGNATURE)
    address = upload_model(
        repo,
        HubUpload(
            files={name: folder / name for name in names},
            card=render_hub_card(folder, recipe, repo, facts),
            mark=MANIFEST,
            message=f"Variant {manifest.digest[:12]}",
            private=private,
        ),
    )
    return Pushed(address, manifest.digest, facts)
