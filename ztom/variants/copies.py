"""Copies of variants where other nodes read them: in a store, or on a disk that all of them see.

Every file is written before the one that says what the files are, so that a copy which is killed at
any moment is none. Weights that have not been proved yet are *staged*: ``staged.json`` lists them
as a manifest does, and what is published afterwards is copied within the store.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ztom.checkpoints.cache import publish_folder, staging_folder
from ztom.errors import StorageError, VariantError
from ztom.io.disk import disk_errors, require_room
from ztom.io.files import sync_path
from ztom.io.places import StoragePlace, StoreAddress, parse_place
from ztom.io.store_files import StoreFiles
from ztom.variants.manifest import (
    MANIFEST,
    STAGED,
    Manifest,
    build_manifest,
    read_manifest,
    verify_manifest,
)
from ztom.variants.signature import SIGNATURE, read_signature

logger = logging.getLogger(__name__)

#: Folders in the operator's storage: of weights that wait for their proof, and of variants.
STAGING, VARIANTS = "staging", "variants"
_STAMP = "%Y%m%dT%H%M%S"
#: No proof takes that long: what is older was left by a killed process.
_LEFT_BEHIND = timedelta(days=7)


@dataclass(frozen=True)
class StagedCopy:
    """Weights that wait for their proof, where every node can read them.

    Attributes:
        place: Folder of the files.
        manifest: sha256 and size of each of them.
    """

    place: StoragePlace
    manifest: Manifest


@contextmanager
def staged_copy(folder: Path, storage: StoragePlace) -> Iterator[StagedCopy]:
    """Have blended files where every node can read them; they are gone at the end.

    Args:
        folder: Folder of the files on this machine.
        storage: The operator's storage.

    Raises:
        StorageError: The storage refused.
    """
    manifest = build_manifest(folder)
    if isinstance(storage, Path) and folder.resolve().is_relative_to(storage.resolve()):
        yield StagedCopy(folder, manifest)
        return
    _sweep(storage)
    place = storage / STAGING / _new_name()
    try:
        if isinstance(place, StoreAddress):
            _upload(folder, StoreFiles(place), manifest)
            StoreFiles(place).write(STAGED, manifest.to_bytes())
        else:
            _copy_folder(folder, place, [*manifest.files])
        yield StagedCopy(place, manifest)
    finally:
        with suppress(StorageError):  # what is left is swept later
            _remove(place)


def copy_variant(
    folder: Path, to: str | StoragePlace, *, staged: StagedCopy | None = None, retries: int = 4
) -> None:
    """Copy a verified variant to a store, or to another folder, manifest last.

    Args:
        folder: Folder of the variant.
        to: Address or path of the folder to be.
        staged: Copy of its weights that is staged already.
        retries: Number of times that a failed call is tried again.

    Raises:
        VariantError: The variant does not verify, or another one stands there.
        StorageError: The store failed; there is no manifest then.
    """
    place = parse_place(to)
    if isinstance(place, Path):
        _copy_to_folder(folder, place)
        return
    manifest = verify_manifest(folder)
    upload_files(folder, place, manifest, staged=staged, retries=retries)
    finish_upload(place, manifest, retries=retries)


def upload_files(
    folder: Path,
    place: StoreAddress,
    manifest: Manifest,
    *,
    staged: StagedCopy | None = None,
    retries: int = 4,
) -> None:
    """Write everything of a variant into a store but its manifest: it is none yet.

    Raises:
        VariantError: Another one stands there.
        StorageError: The store failed.
    """
    files = StoreFiles(place, retries=retries)
    if _stands_there(files, manifest):
        return
    _upload(folder, files, manifest, staged)
    if read_signature(folder, manifest.digest) is not None:
        files.put(SIGNATURE, folder / SIGNATURE)


def finish_upload(place: StoreAddress, manifest: Manifest, *, retries: int = 4) -> None:
    """Make what was uploaded a variant, which is quick whatever its size.

    Raises:
        VariantError: Another one stands there.
        StorageError: The store failed.
    """
    files = StoreFiles(place, retries=retries)
    if not _stands_there(files, manifest):
        files.write(MANIFEST, manifest.to_bytes())
        _stands_there(files, manifest)  # of two writers at once one wins: see which


def remove_variant(place: StoragePlace) -> None:
    """Remove a variant, or what is left of one; nothing where there is none.

    Raises:
        StorageError: The store refused.
    """
    if isinstance(place, StoreAddress):
        StoreFiles(place).clear(first=MANIFEST)
    else:
        shutil.rmtree(place, ignore_errors=True)


def published_place(storage: StoragePlace, manifest: Manifest) -> StoragePlace:
    """Where a variant stands in the operator's storage: by its digest, so that no two meet."""
    return storage / VARIANTS / manifest.digest


def _stands_there(files: StoreFiles, manifest: Manifest) -> bool:
    """Whether the variant is there already, whole.

    Raises:
        VariantError: Another one is.
    """
    if not files.exists(MANIFEST):
        return False
    if files.read(MANIFEST) == manifest.to_bytes():
        return True
    raise VariantError(
        f"another variant stands at {files.address}",
        fix="Choose another address; it is not replaced.",
    )


def _upload(
    folder: Path, files: StoreFiles, manifest: Manifest, staged: StagedCopy | None = None
) -> None:
    """Write a manifest's files; those that are in the same store already are copied there."""
    near = None
    if staged is not None and isinstance(staged.place, StoreAddress):
        near = StoreFiles(staged.place) if staged.place.scheme == files.address.scheme else None
    for name, entry in sorted(manifest.files.items()):
        if near is not None and staged is not None and staged.manifest.files.get(name) == entry:
            files.copy(name, near, name)
        else:
            files.put(name, folder / name)


def _copy_to_folder(folder: Path, target: Path) -> None:
    manifest = verify_manifest(folder)
    if target.exists():
        if read_manifest(target) == manifest:
            return
        raise VariantError(
            f"another variant stands at {target}",
            fix="Choose another folder; it is not replaced.",
        )
    signed = [SIGNATURE] if read_signature(folder, manifest.digest) is not None else []
    _copy_folder(folder, target, [*manifest.files, *signed, MANIFEST])


def _copy_folder(folder: Path, target: Path, names: list[str]) -> None:
    """Copy files aside, bring them to the disk, rename."""
    needed = sum((folder / name).stat().st_size for name in names)
    require_room(target.parent, needed, what="the copy")
    with disk_errors(target), staging_folder(target.parent) as outer:
        fresh = outer / target.name
        fresh.mkdir(mode=0o755)
        for name in names:
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, fresh / name)
            sync_path(fresh / name)
        publish_folder(fresh, target)


def _remove(place: StoragePlace) -> None:
    if isinstance(place, StoreAddress):
        StoreFiles(place).clear(first=STAGED)
    else:
        shutil.rmtree(place, ignore_errors=True)


def _new_name() -> str:
    return f"{datetime.now(UTC).strftime(_STAMP)}-{secrets.token_hex(6)}"


def _sweep(storage: StoragePlace) -> None:
    """Remove what killed processes staged a week ago or earlier."""
    shelf = storage / STAGING
    if isinstance(shelf, StoreAddress):
        names = StoreFiles(shelf).folders()
    else:
        names = sorted(os.listdir(shelf)) if shelf.is_dir() else []
    oldest = (datetime.now(UTC) - _LEFT_BEHIND).strftime(_STAMP)
    for name in names:
        if _is_stamped(name) and name < oldest:
            logger.warning("removing what an interrupted proof left: %s", shelf / name)
            _remove(shelf / name)


def _is_stamped(name: str) -> bool:
    try:
        datetime.strptime(name.partition("-")[0], _STAMP)
    except ValueError:
        return False
    return True
