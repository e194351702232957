"""Read the files of a reference where they lie: a pointer, not a copy.

`open_source` gives one small interface over a local folder, an object-store folder and a tar of
either. Reads are plain positional reads, never memory maps: a file that is truncated while mapped
kills the process, a positional read reports it. What a file was at first sight (inode and times,
or the store's generation or ETag) is pinned and checked again with every read. Nothing is written
here, except that a compressed tar has to be unpacked into the cache (`ztom.checkpoints.archive`).
"""

from __future__ import annotations

from pathlib import Path

from ztom.checkpoints.local import LocalSource
from ztom.checkpoints.reference import (
    Reference,
    parse_reference,
)
from ztom.checkpoints.source import Source
from ztom.errors import (
    StorageError,
)
from ztom.settings import Settings


def open_source(reference: str, *, settings: Settings) -> Source:
    """Open a reference for reading.

    Args:
        reference: A local folder, a ``.tar``, ``.tar.gz`` or ``.tgz`` of one, or a ``gs://``, ``s3://``
            or ``memory://`` address of either.
        settings: Allowed schemes and roots, limits, cache.

    Raises:
        ReferenceRefusedError: The reference is not allowed, or a link leads out of its folder.
        ArchiveError: The archive holds something that is never read.
        StorageError: There is nothing, or the store failed.
    """
    parsed = require_checkpoint(reference, settings=settings)
    if parsed.scheme == "file" and Path(parsed.path).is_dir():
        return LocalSource(reference, Path(parsed.path), settings=settings)
    if parsed.archive != "none":
        return _open_archive(parsed, settings=settings)
    from ztom.checkpoints.object_store import ObjectSource

    return ObjectSource(reference, parsed.scheme, parsed.path, settings=settings)


def require_checkpoint(reference: str, *, settings: Settings) -> Reference:
    """Look whether a reference is allowed and, if it is local, whether there is something.

    A store is not asked, and nothing is opened: it needs no torch, so that a command refuses a
    misspelt path before it imports any.

    Raises:
        ReferenceRefusedError: The reference is not allowed.
        StorageError: There is nothing, or no folder and no archive.
    """
    parsed = parse_reference(reference, settings=settings)
    path = Path(parsed.path)
    if parsed.scheme != "file" or path.is_dir():
        return parsed
    if parsed.archive == "none":
        raise StorageError(
            f"there is no checkpoint folder at {reference}",
            got="a file" if path.exists() else "nothing",
            expected="a folder, or a .tar, .tar.gz or .tgz of one",
        )
    if not path.exists():
        raise StorageError(f"there is no archive at {reference}")
    return parsed


def open_file(reference: str, *, settings: Settings) -> tuple[Source, str]:
    """Open the folder of one file for reading, whatever kind of file it is.

    Returns:
        The folder, and the file's name in it.

    Raises:
        ReferenceRefusedError: The reference is not allowed.
        StorageError: There is nothing, or the store failed.
    """
    parsed = parse_reference(reference, settings=settings)
    source, name = _folder_of(parsed, settings=settings)
    source.size(name)
    return source, name


def _folder_of(parsed: Reference, *, settings: Settings) -> tuple[Source, str]:
    folder, _, name = parsed.path.rpartition("/")
    if parsed.scheme == "file":
        return LocalSource(parsed.text, Path(folder or "/"), settings=settings), name
    from ztom.checkpoints.object_store import ObjectSource

    return ObjectSource(parsed.text, parsed.scheme, folder, settings=settings), name


def _open_archive(parsed: Reference, *, settings: Settings) -> Source:
    from ztom.checkpoints.archive import open_tar

    parent, name = _folder_of(parsed, settings=settings)
    return open_tar(
        parsed.text, parent, name, compressed=parsed.archive == "tar.gz", settings=settings
    )
