"""A checkpoint's files as a local folder, for engines that need one."""

from __future__ import annotations

from pathlib import Path

from ztom.checkpoints.cache import replaced_folder
from ztom.checkpoints.checkpoint import Checkpoint, copy_file, digest_of
from ztom.checkpoints.local import LocalSource
from ztom.checkpoints.mended import mended_folder
from ztom.errors import ContentChangedError, StorageError
from ztom.settings import Settings


def fetch_folder(checkpoint: Checkpoint, folder: Path | None, settings: Settings) -> Path:
    """A local folder with the checkpoint's files, for engines that need one.

    Args:
        checkpoint: Checkpoint whose files are wanted, full or adapter.
        folder: Folder of the copies, each in a folder named by its digest; the cache if None.
        settings: Settings with the cache.

    Returns:
        The checkpoint's own folder where it is a local one, else a copy that was checked; where
        its files say something else than it means, a copy in which that is put right.

    Raises:
        ContentChangedError: The content changed while it was copied.
        StorageError: The store failed, or the disk is full.
    """
    shelf = folder or settings.cache / "checkpoints"
    if checkpoint.mended:
        return mended_folder(checkpoint, shelf, settings)
    local = checkpoint.source.local_folder()
    if local is not None:
        return local
    target = shelf / checkpoint.digest
    if target.is_dir() and _is_whole(checkpoint, target, settings):
        return target
    with replaced_folder(target) as fresh:
        copied = {
            name: copy_file(checkpoint.source, name, fresh / name) for name in checkpoint.used_files
        }
        if digest_of(copied) != checkpoint.digest:
            raise ContentChangedError(
                f"{checkpoint.reference} changed while it was copied",
                got=f"sha256 {digest_of(copied)}",
                expected=f"sha256 {checkpoint.digest}",
            )
    return target


def _is_whole(checkpoint: Checkpoint, folder: Path, settings: Settings) -> bool:
    copy = LocalSource(str(folder), folder, settings=settings)
    try:
        return digest_of({n: copy.sha256(n) for n in checkpoint.used_files}) == checkpoint.digest
    except StorageError:
        return False
