"""The Hub's cache as it lies on a disk: which folder is a checkpoint, where its links may lead.

A repository is a folder ``models--org--name`` that holds ``refs`` (the commit of each branch),
``snapshots`` (a folder by commit, whose files are links) and ``blobs`` (what they lead to).
"""

from __future__ import annotations

import re
from pathlib import Path

from ztom.errors import CheckpointError

_REPOSITORY = re.compile(r"(models|datasets)--.+")
_REF_BYTES = 256


def snapshot_in(folder: Path) -> Path:
    """The snapshot of a repository's folder in the cache; any other folder is what it is.

    Args:
        folder: A folder, links resolved.

    Returns:
        The snapshot that ``refs/main`` names, or the only one.

    Raises:
        CheckpointError: There is none, or there are several and nothing says which.
    """
    snapshots = folder / "snapshots"
    if not _REPOSITORY.fullmatch(folder.name) or not snapshots.is_dir():
        return folder
    names = sorted(entry.name for entry in snapshots.iterdir() if entry.is_dir())
    main = _commit_of(folder / "refs" / "main")
    if main in names:
        return snapshots / main
    if len(names) == 1:
        return snapshots / names[0]
    raise CheckpointError(
        f"{folder} holds {len(names)} snapshots and says of none that it is main",
        got=", ".join(names[:5]) or "no snapshot",
        expected="refs/main, or a single snapshot",
        fix=f"Name one of them: {snapshots / names[0]}."
        if names
        else "Fetch it with `hf download`.",
    )


def cache_of(folder: Path) -> Path | None:
    """The repository's folder in the cache that a folder belongs to; None where it is in none.

    Args:
        folder: A snapshot, or a folder below one.
    """
    for snapshot in (folder, *folder.parents):
        repository = snapshot.parent.parent
        if snapshot.parent.name == "snapshots" and (repository / "blobs").is_dir():
            return repository
    return None


def _commit_of(ref: Path) -> str | None:
    if not ref.is_file() or ref.stat().st_size > _REF_BYTES:
        return None
    return ref.read_text(encoding="utf-8", errors="replace").strip()
