"""The identity of a served variant: its verified manifest, its names, its fingerprint."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from serve_apps.variants.args import MODEL_NAME_PATTERN, VariantArgs
from ztom.errors import ConfigError, VariantError
from ztom.variants import verify_manifest
from ztom.variants.manifest import MANIFEST, Manifest

SHORT_DIGEST_LENGTH = 12


@dataclass(frozen=True)
class ModelIdentity:
    """The names under which a variant answers.

    Attributes:
        name: What clients usually write in ``model``.
        digest: Hex sha256 of the variant's manifest.
        created: Unix time at which the manifest was written, in seconds.
        folder: Where its files are.
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
        return (self.name, f"{self.name}@{self.short_digest}")

    @property
    def pinned(self) -> str:
        """The name pinned to this content, which every answer bears."""
        return self.ids[1]

    @property
    def fingerprint(self) -> str:
        """What answers carry as ``system_fingerprint``: it tells which content gave them."""
        return f"ztom-{self.short_digest}"


def identify(args: VariantArgs) -> ModelIdentity:
    """Verify the variant's manifest, reading every byte of it, and say who it is.

    Raises:
        VariantError: A file is missing, extra or not what the manifest says; or the variant is an
            adapter without its base.
        ConfigError: The folder's name cannot be a model name and none was given.
    """
    manifest = verify_manifest(args.variant)
    if "config.json" not in manifest.files:
        raise VariantError(
            f"{args.variant} is not a whole model",
            got="an adapter" if "adapter_config.json" in manifest.files else "no config.json",
            fix="Write the variant in its dense form, or serve it on its base.",
        )
    return name_content(args.variant, manifest, args.name)


def name_content(folder: Path, manifest: Manifest, name: str | None) -> ModelIdentity:
    """The identity of a variant whose manifest was read.

    Raises:
        ConfigError: The folder's name cannot be a model name and none was given.
    """
    return ModelIdentity(
        name=name or _folder_name(folder),
        digest=manifest.digest,
        created=int((folder / MANIFEST).stat().st_mtime),
        folder=folder,
    )


def _folder_name(folder: Path) -> str:
    if not re.fullmatch(MODEL_NAME_PATTERN, folder.name):
        raise ConfigError(
            "the variant's folder name cannot be a model name",
            got=folder.name,
            expected="letters, digits, dot, dash, underscore",
            fix="Give the model a name with the option 'name'.",
        )
    return folder.name
