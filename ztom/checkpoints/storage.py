"""Read the files of a reference where they lie: a pointer, not a copy.

`open_source` gives one small interface over a local folder, an object-store folder and a tar of
either. Reads are plain positional reads, never memory maps: a file that is truncated while mapped
kills the process, a positional read reports it. What a file was at first sight (inode and times,
or the store's generation or ETag) is pinned and checked again with every read. Nothing is written
here, except that a compressed tar has to be unpacked into the cache (`ztom.checkpoints.archive`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ztom.checkpoints.hub_cache import snapshot_in
from ztom.checkpoints.local import LocalSource
from ztom.checkpoints.reference import Reference, is_address, is_registry, parse_reference
from ztom.checkpoints.source import Source
from ztom.errors import NothingThereError, ReferenceRefusedError, StorageError
from ztom.io.hub_address import HUB
from ztom.settings import Settings


def open_source(reference: str, *, settings: Settings) -> Source:
    """Open a reference for reading.

    Args:
        reference: A local folder, a ``.tar``, ``.tar.gz`` or ``.tgz`` of one, a ``gs://``, ``s3://``
            or ``memory://`` address of either, a repository of the Hub, or a model of a registry.
        settings: Allowed schemes and roots, limits, cache.

    Raises:
        ReferenceRefusedError: The reference is not allowed, or a link leads out of its folder.
        ArchiveError: The archive holds something that is never read.
        StorageError: There is nothing, or the store failed.
    """
    parsed = parse_reference(reference, settings=settings)
    if parsed.scheme == HUB:
        return _open_on_the_hub(reference, parsed, settings=settings)
    if is_registry(parsed.scheme):
        return _open_registered(parsed, settings=settings)
    return _open_place(parsed, settings=settings)


def _open_on_the_hub(reference: str, parsed: Reference, *, settings: Settings) -> Source:
    from ztom.checkpoints.hub_source import open_hub

    try:
        return open_hub(parsed.text, settings=settings)
    except StorageError as error:
        if is_address(reference):
            raise
        raise type(error)(
            f"there is no folder {reference}, and no model of this name on the Hub",
            got=error.what if error.got is None else f"{error.what} ({error.got})",
            expected="a folder, or a model that can be fetched",
            fix=error.fix,
        ) from error


def _open_registered(parsed: Reference, *, settings: Settings) -> Source:
    """What a registry says lies somewhere that has to be allowed as well."""
    from ztom.checkpoints.registries.resolve import resolve_model

    model = resolve_model(parsed.text, scheme=parsed.scheme, settings=settings)
    if model.is_own_copy:
        settings = settings.also_allowing(Path(model.artifacts))
    place = parse_reference(model.artifacts, settings=settings)
    if is_registry(place.scheme):
        raise ReferenceRefusedError(
            f"{parsed.text} leads to another registry", got=model.artifacts, expected="files"
        )
    if place.scheme == HUB:
        return _open_on_the_hub(place.text, place, settings=settings)
    from ztom.checkpoints.registries.mlflow_layout import checkpoint_in

    source = _open_place(replace(place, text=model.address), settings=settings)
    return checkpoint_in(source, settings=settings)


def _open_place(parsed: Reference, *, settings: Settings) -> Source:
    _require_place(parsed)
    reference = parsed.text
    if parsed.scheme == "file" and Path(parsed.path).is_dir():
        folder = snapshot_in(Path(parsed.path))
        return LocalSource(reference, folder, settings=settings)
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
    _require_place(parsed)
    return parsed


def require_reachable(reference: str, *, settings: Settings) -> Reference:
    """The same, and whether the store of an address answers, and knows who asks.

    Raises:
        ReferenceRefusedError: The reference is not allowed.
        StorageError: There is nothing, or the store does not answer in time, or refuses.
    """
    parsed = require_checkpoint(reference, settings=settings)
    if parsed.scheme in ("gs", "s3"):
        from ztom.io.store_client import require_reachable_store

        require_reachable_store(parsed.text)
    return parsed


def _require_place(parsed: Reference) -> None:
    path = Path(parsed.path)
    if parsed.scheme != "file" or path.is_dir():
        return
    if parsed.archive == "none":
        raise NothingThereError(
            f"there is no checkpoint folder at {parsed.text}",
            got="a file" if path.exists() else "nothing",
            expected="a folder, or a .tar, .tar.gz or .tgz of one",
        )
    if not path.exists():
        raise NothingThereError(f"there is no archive at {parsed.text}")


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
    if parsed.scheme == HUB:
        from ztom.checkpoints.hub_source import open_hub_file

        return open_hub_file(parsed.text, settings=settings)
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
