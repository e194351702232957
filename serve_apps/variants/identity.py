"""The identity of a served variant: its verified manifest, its names, its fingerprint."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from serve_apps.variants.args import MODEL_NAME_PATTERN, VariantArgs
from ztom.errors import ConfigError, VariantError
from ztom.io.files import written_s
from ztom.io.places import StoragePlace
from ztom.settings import Settings
from ztom.variants.manifest import MANIFEST, Manifest, read_manifest
from ztom.variants.node_cache import local_copy
from ztom.variants.verified import verified_manifest

SHORT_DIGEST_LENGTH = 12


@dataclass(frozen=True)
class ModelIdentity:
    """The names under which a variant answers.

    Attributes:
        name: Name that clients usually write in ``model``.
        digest: Hex sha256 of the variant's manifest.
        created: Unix time at which the manifest was written, in seconds.
        folder: Folder of the variant's files on this machine.
    """

    name: str
    digest: str
    created: int
    folder: Path

    @property
    def short_digest(self) -> str:
        """The first characters of the digest, as they appear in model ids."""
        return self.digest[:SHORT_DIGEST_LENGTH]

    @property
    def ids(self) -> tuple[str, str]:
        """The plain name, and the name pinned to this content."""
        return model_ids(self.name, self.digest)

    @property
    def pinned(self) -> str:
        """The name pinned to this content, which every answer bears."""
        return self.ids[1]

    @property
    def fingerprint(self) -> str:
        """What answers carry as ``system_fingerprint``: it tells which content gave them."""
        return f"ztom-{self.short_digest}"


def model_ids(name: str, digest: str) -> tuple[str, str]:
    """The plain name of a model, and the name pinned to its content."""
    return (name, f"{name}@{digest[:SHORT_DIGEST_LENGTH]}")


def identify(args: VariantArgs) -> ModelIdentity:
    """Have the variant on this machine, verify it, and say who it is.

    One of a store is fetched into the node's cache, and hashed while it comes; the files of a
    folder are read once on each machine, until one of them changes.

    Raises:
        StorageError: The store failed, or there is no room for it.
        VariantError: A file is missing, extra or not what the manifest says; or the variant is an
            adapter without its base.
        ConfigError: The folder's name cannot be a model name and none was given.
    """
    settings = Settings()
    folder = local_copy(args.variant, settings=settings)
    manifest = verified_manifest(folder, settings=settings)
    _require_whole_model(args, manifest)
    return name_content(args.variant, manifest, args.name, folder=folder)


def check_papers(args: VariantArgs) -> Manifest:
    """Refuse what the variant's manifest alone shows to be wrong; no weights are read.

    Raises:
        VariantError: There is none, or it is an adapter's.
        ConfigError: The folder's name cannot be a model name and none was given.
    """
    manifest = read_manifest(args.variant)
    _require_whole_model(args, manifest)
    if args.name is None:
        _folder_name(args.variant)
    return manifest


def _require_whole_model(args: VariantArgs, manifest: Manifest) -> None:
    if "config.json" not in manifest.files:
        raise VariantError(
            f"{args.variant} is not a whole model",
            got="an adapter" if "adapter_config.json" in manifest.files else "no config.json",
            fix="Write the variant in its dense form, or serve it on its base.",
        )


def name_content(
    place: StoragePlace, manifest: Manifest, name: str | None, *, folder: Path
) -> ModelIdentity:
    """The identity of a variant whose manifest was read.

    Args:
        place: Folder of the variant, or its address.
        manifest: Manifest of the variant.
        name: Name of the model; the folder's when None.
        folder: Folder of its files on this machine.

    Raises:
        ConfigError: The folder's name cannot be a model name and none was given.
    """
    return ModelIdentity(
        name=name or _folder_name(place),
        digest=manifest.digest,
        created=int(written_s(place / MANIFEST)),
        folder=folder,
    )


def _folder_name(folder: StoragePlace) -> str:
    if not re.fullmatch(MODEL_NAME_PATTERN, folder.name):
        raise ConfigError(
            "the variant's folder name cannot be a model name",
            got=folder.name,
            expected="letters, digits, dot, dash, underscore",
            fix="Give the model a name with the option 'name'.",
        )
    return folder.name
