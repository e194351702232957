"""Where a variant is: a folder of this machine, or a repository of the Hub, fetched first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ztom.checkpoints.reference import name_of, parse_reference
from ztom.io.hub import fetch_hub_folder
from ztom.io.hub_address import HUB
from ztom.settings import Settings


def local_variant(reference: str) -> Path:
    """The folder of a variant on this machine.

    Args:
        reference: Folder, or an address of the Hub, ``hf://org/name[@revision]``.

    Raises:
        ReferenceRefusedError: The Hub is not allowed here.
        StorageError: It cannot be fetched.
    """
    if Path(reference).expanduser().exists():
        return Path(reference).expanduser()
    settings = Settings()
    parsed = parse_reference(reference, settings=settings)
    if parsed.scheme != HUB:
        return Path(reference)
    fetched = fetch_hub_folder(
        parsed.text, wanted=_is_no_trace, max_bytes=settings.max_archive_bytes
    )
    return fetched.path


def hub_name(reference: str) -> str | None:
    """What a variant of the Hub is called; None for a folder, which has a name of its own."""
    return None if Path(reference).expanduser().exists() else name_of(reference)


def _is_no_trace(path: str, paths: Sequence[str]) -> bool:
    """All that a variant consists of, not what the Hub put there."""
    return not path.startswith(".")
