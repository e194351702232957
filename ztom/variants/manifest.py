"""The manifest of a variant: every file by sha256, written last.

A folder with a manifest that verifies is whole; one without is not a variant. The manifest's own
digest names the variant.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ztom.errors import VariantError
from ztom.io.problems import check_json

MANIFEST = "manifest.json"


class FileEntry(BaseModel):
    """One file.

    Attributes:
        sha256: Lower-case hex sha256 of the file's content.
        nbytes: Size of the file, bytes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    nbytes: int = Field(ge=0)


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
    return Manifest(files=_entries(folder, _names(folder)))


def read_manifest(folder: Path) -> Manifest:
    """Read a manifest without checking the files.

    Raises:
        VariantError: There is none, or it is malformed.
    """
    path = folder / MANIFEST
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise VariantError(
            f"{folder} is not a variant",
            got=f"no readable {MANIFEST} ({error.strerror})",
            fix="A folder without a manifest was never finished: write the variant again.",
        ) from error
    return check_json(Manifest, raw, wrong=f"{path} is not a manifest", kind=VariantError)


def verify_manifest(folder: Path) -> Manifest:
    """Check every file of a variant against its manifest.

    Raises:
        VariantError: A file is missing, extra, or not what it was; names them.
    """
    manifest = read_manifest(folder)
    present = set(_names(folder))
    problems = [f"missing {name}" for name in sorted(set(manifest.files) - present)]
    problems += [f"extra {name}" for name in sorted(present - set(manifest.files))]
    common = sorted(set(manifest.files) & present)
    for name, entry in _entries(folder, common).items():
        if entry != manifest.files[name]:
            problems.append(f"changed {name}")
    if problems:
        raise VariantError(
            f"{folder} is not what its manifest says",
            got="; ".join(problems[:5])
            + (f" and {len(problems) - 5} more" if problems[5:] else ""),
            fix="Do not serve it: write the variant again, or restore the files.",
        )
    return manifest


def _names(folder: Path) -> list[str]:
    names = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise VariantError(f"{path} is a link", expected="regular files only")
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != MANIFEST:
            names.append(name)
    return names


def _entries(folder: Path, names: list[str]) -> dict[str, FileEntry]:
    with ThreadPoolExecutor(4) as pool:  # hashing releases the interpreter lock
        return dict(zip(names, pool.map(lambda name: _entry(folder / name), names), strict=True))


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _entry(path: Path) -> FileEntry:
    return FileEntry(sha256=file_digest(path), nbytes=path.stat().st_size)
