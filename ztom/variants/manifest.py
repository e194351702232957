"""The manifest of a variant: every file by sha256, written last.

A folder with a manifest that verifies is whole; one without is not a variant. The manifest's own
digest names the variant.
"""

from __future__ import annotations

import hashlib
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ztom.checkpoints.hub_cache import cache_of
from ztom.errors import VariantError
from ztom.io.files import read_place
from ztom.io.places import StoragePlace
from ztom.io.problems import check_json
from ztom.variants.signature import SIGNATURE, ManifestSignature, read_signature

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
#: Lists blended files as a manifest does, before they are a variant (`ztom.variants.copies`).
STAGED = "staged.json"
#: Folders in the output of a search: of what it published, and of what it kept all the same.
VARIANT, UNPROVEN = "variant", "unproven"
CARD = "README.md"
#: What a way over the Hub adds; a folder's name ends with a slash.
_OF_THE_HUB = frozenset({".gitattributes", ".cache/", ".git/"})


class FileEntry(BaseModel):
    """One file.

    Attributes:
        sha256: Lower-case hex sha256 of the file's content.
        nbytes: Size of the file, bytes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    nbytes: int = Field(ge=0)


@dataclass(frozen=True, slots=True)
class FileCheck:
    """What came of comparing a variant's files with its manifest.

    Attributes:
        manifest: Manifest that all files agree with.
        tolerated: Names of what is not as it was written and does not matter, with a word on how.
        signed: Who has signed the manifest; None where nobody has.
    """

    manifest: Manifest
    tolerated: tuple[str, ...] = ()
    signed: ManifestSignature | None = None


class Manifest(BaseModel):
    """What a variant consists of.

    Attributes:
        format: Version of this document.
        files: Entry of every file of the folder but the manifest, by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = Field(default=1, ge=1, le=1)
    files: dict[str, FileEntry] = Field(min_length=1)

    @property
    def digest(self) -> str:
        """sha256 of the manifest as it is written; names the variant."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """The document, the same bytes for the same content."""
        return (json.dumps(self.model_dump(), sort_keys=True, indent=1) + "\n").encode()


def build_manifest(folder: Path) -> Manifest:
    """Hash every file of a folder."""
    names = [name for name in _names(folder) if name not in _OF_THE_HUB]
    return Manifest(files=_entries(folder, names))


def read_manifest(folder: StoragePlace, name: str = MANIFEST) -> Manifest:
    """Read a manifest without checking the files.

    Args:
        folder: Folder of the variant, here or in a store.
        name: Name of the manifest's file.

    Raises:
        VariantError: There is none, or it is malformed.
    """
    path = folder / name
    try:
        raw = read_place(path)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        why = error.strerror or ("nothing there" if missing else str(error))
        raise VariantError(
            f"{folder} is not a variant",
            got=f"no readable {name} ({why})",
            fix="A folder without a manifest was never finished: write the variant again.",
        ) from error
    return check_json(Manifest, raw, wrong=f"{path} is not a manifest", kind=VariantError)


def verify_manifest(folder: Path) -> Manifest:
    """Check every file of a variant against its manifest; see `check_files`.

    Raises:
        VariantError: A file is missing, extra, or not what it was; names them.
    """
    check = check_files(folder)
    if check.tolerated:
        logger.warning("%s: not of the variant, and let be: %s", folder, ", ".join(check.tolerated))
    return check.manifest


def check_files(folder: Path) -> FileCheck:
    """Check every file of a variant against its manifest.

    A way over the Hub leaves traces: ``.gitattributes``, the downloader's ``.cache``, a card that
    was edited there, and in the Hub's cache files are links to its blobs. None of them is read when
    the variant is served, so they are named and let be.

    Raises:
        VariantError: A file is missing, extra, or not what it was; names them.
        SignatureError: It bears a signature, of another manifest.
    """
    manifest = read_manifest(folder)
    names = _names(folder, cache_of(folder.resolve()))
    extra = set(names) - set(manifest.files)
    tolerated = sorted(extra & _OF_THE_HUB)
    problems = [f"missing {name}" for name in sorted(set(manifest.files) - set(names))]
    problems += [f"extra {name}" for name in sorted(extra - _OF_THE_HUB)]
    common = sorted(set(manifest.files) & set(names))
    for name, entry in _entries(folder, common).items():
        if entry == manifest.files[name]:
            continue
        if name == CARD:
            tolerated.append(f"{name} (edited)")
        else:
            problems.append(f"changed {name}")
    if problems:
        raise VariantError(
            f"{folder} is not what its manifest says",
            got="; ".join(problems[:5])
            + (f" and {len(problems) - 5} more" if problems[5:] else ""),
            fix="Do not serve it: write the variant again, or restore the files.",
        )
    return FileCheck(manifest, tuple(tolerated), read_signature(folder, manifest.digest))


def _names(folder: Path, cache: Path | None = None) -> list[str]:
    """Paths of the files, the manifest apart; a folder of the Hub's tools stands for its files.

    Args:
        folder: Folder of the variant.
        cache: Repository of the Hub's cache in which it lies, into whose blobs links may lead.
    """
    names = [name for name in _OF_THE_HUB if (folder / name).exists()]
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if f"{name.partition('/')[0]}/" in _OF_THE_HUB or name in names:
            continue
        if path.is_symlink() and not _is_blob(path, cache):
            raise VariantError(f"{path} is a link", expected="regular files only")
        if path.is_file() and name not in (MANIFEST, SIGNATURE):
            names.append(name)
    return names


def _is_blob(path: Path, cache: Path | None) -> bool:
    return cache is not None and path.resolve().is_relative_to(cache / "blobs")


def _entries(folder: Path, names: list[str]) -> dict[str, FileEntry]:
    with ThreadPoolExecutor(4) as pool:  # hashing releases the interpreter lock
        return dict(zip(names, pool.map(lambda name: _entry(folder / name), names), strict=True))


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _entry(path: Path) -> FileEntry:
    return FileEntry(sha256=file_digest(path), nbytes=path.stat().st_size)
