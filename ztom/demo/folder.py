"""The folder of a trained chain: complete or absent, made by one process, never somebody else's.

Training happens in a folder beside it that is renamed when all is there. ``manifest.json`` holds a
fingerprint of everything that went into the training and the SHA-256 of every file, so a chain that
was changed, or made from something else, is recognised.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ztom.errors import ConfigError, StorageError

logger = logging.getLogger(__name__)

_MANIFEST = "manifest.json"


class StageRecord(BaseModel):
    """What the manifest says about one checkpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    pairs: int
    epochs: int
    learning_rate: float
    loss: float


class DemoManifest(BaseModel):
    """What a chain's folder holds and where it came from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fingerprint: str
    parameters: int
    train_seconds: float
    stages: tuple[StageRecord, ...]
    files: dict[str, str]


def write_manifest(folder: Path, manifest: DemoManifest) -> None:
    """Write ``manifest.json``; last, after every file that it lists."""
    (folder / _MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under ``folder`` except the manifest, by relative name."""
    return {name: _sha256(folder / name) for name in _files(folder) if name != _MANIFEST}


def intact(folder: Path, fingerprint: str) -> DemoManifest | None:
    """The manifest, if the chain is the one asked for and every file is as it was written."""
    manifest = _read_manifest(folder)
    if manifest is None or manifest.fingerprint != fingerprint:
        return None
    for name, digest in manifest.files.items():
        if not (folder / name).is_file() or _sha256(folder / name) != digest:
            logger.warning("%s was changed since it was written: training again", folder / name)
            return None
    return manifest


def refuse_foreign(folder: Path) -> None:
    """Make sure that replacing ``folder`` loses nothing that was not made here.

    Raises:
        ConfigError: It is a file, or holds files that no manifest of a chain lists.
    """
    manifest = _read_manifest(folder)
    ours = set() if manifest is None else {_MANIFEST, *manifest.files}
    foreign = [name for name in _files(folder) if name not in ours]
    if foreign or (folder.exists() and not folder.is_dir()):
        raise ConfigError(
            f"{folder} cannot be replaced by a chain",
            got=f"files that no chain wrote: {', '.join(foreign[:3])}" if foreign else "a file",
            expected="an absent or empty folder, or an older chain",
            fix="Name another folder, or move the files away.",
        )


def _files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(folder: Path) -> DemoManifest | None:
    try:
        return DemoManifest.model_validate_json((folder / _MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """One process at a time makes the chain in ``folder``; a second one waits and then finds it."""
    with (folder.parent / f".{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """An empty folder beside ``folder``, gone afterwards; what killed runs left is swept first."""
    prefix = f".{folder.name}.partial-"
    for left_over in sorted(folder.parent.glob(f"{prefix}*")):
        shutil.rmtree(left_over)
    aside = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        (aside / "chain").mkdir()
        yield aside / "chain"
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def publish(staged: Path, folder: Path) -> None:
    """Put the finished chain in place; an old one steps aside and goes with the staging folder.

    Raises:
        StorageError: The file system refused.
    """
    try:
        if folder.exists():
            folder.rename(staged.parent / "replaced")
        staged.rename(folder)
    except OSError as error:
        raise StorageError(
            f"the chain cannot be put into {folder}", reason=error.strerror
        ) from error
