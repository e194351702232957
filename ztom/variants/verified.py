"""What was compared with its manifest once on this machine is not hashed again.

A replica that starts compares the variant's files with their manifest; for 54 GB that is minutes,
and an endpoint has several replicas. What was found whole is noted beside the caches, with size,
time and inode of every file, and a file that differs in one of them is read again. What the cache
of variants of stores holds was hashed while it came.
"""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import suppress
from pathlib import Path

from ztom.io.files import write_whole
from ztom.settings import Settings
from ztom.variants.manifest import Manifest, check_files, read_manifest

logger = logging.getLogger(__name__)


def verified_manifest(folder: Path, *, settings: Settings) -> Manifest:
    """The manifest of a variant whose files are what it says; see `check_files`.

    Args:
        folder: Folder of the variant on this machine.
        settings: Settings with the cache, in which it is noted.

    Raises:
        VariantError: A file is missing, extra, or not what it was; names them.
    """
    folder = folder.resolve()
    manifest = read_manifest(folder)
    note = settings.cache / "verified" / hashlib.sha256(str(folder).encode()).hexdigest()
    before = _content(folder, manifest)
    with suppress(OSError):
        if note.read_text(encoding="utf-8") == before:
            return manifest
    check = check_files(folder)
    if check.tolerated:
        logger.warning("%s: not of the variant, and let be: %s", folder, ", ".join(check.tolerated))
    with suppress(OSError):  # a cache that cannot be written costs time, nothing else
        if before == _content(folder, manifest):
            write_whole(note, before)
    return check.manifest


def note_verified(folder: Path, manifest: Manifest, *, settings: Settings) -> None:
    """Note that a folder's files were compared with the manifest while they were written."""
    note = settings.cache / "verified" / hashlib.sha256(str(folder.resolve()).encode()).hexdigest()
    with suppress(OSError):
        write_whole(note, _content(folder.resolve(), manifest))


def _content(folder: Path, manifest: Manifest) -> str:
    """What tells one state of a folder's files from another, without reading them."""
    state = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            status = path.stat()
            name = path.relative_to(folder).as_posix()
            state[name] = [status.st_size, status.st_mtime_ns, status.st_ino]
    return json.dumps({"digest": manifest.digest, "files": state})
