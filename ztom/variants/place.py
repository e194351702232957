"""Where a variant is: a folder of this machine, or an address of a store or of the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ztom.checkpoints.reference import name_of, parse_reference
from ztom.errors import ConfigError
from ztom.io.hub import fetch_hub_folder
from ztom.io.hub_address import HUB
from ztom.io.places import (
    LEDGER_FIX,
    STORE_SCHEMES,
    StoragePlace,
    StoreAddress,
    is_store_address,
    parse_store_address,
)
from ztom.settings import Settings
from ztom.variants.node_cache import local_copy


def local_variant(reference: str) -> Path:
    """The folder of a variant on this machine.

    Args:
        reference: Folder, or an address, which is fetched: ``gs://``, ``s3://``, or of the Hub,
            ``hf://org/name[@revision]``.

    Raises:
        ReferenceRefusedError: The address is not allowed here.
        StorageError: It cannot be fetched.
        VariantError: There is none at the address.
    """
    return local_copy(variant_place(reference), settings=Settings())


def variant_place(reference: str) -> StoragePlace:
    """A variant's folder on this machine, or its address in a store; of the Hub it is fetched.

    Raises:
        ReferenceRefusedError: The address is not allowed here.
        StorageError: It cannot be fetched.
    """
    if Path(reference).expanduser().exists():
        return Path(reference).expanduser()
    settings = Settings()
    parsed = parse_reference(reference, settings=settings)
    if parsed.scheme in STORE_SCHEMES:
        return parse_store_address(reference)
    if parsed.scheme != HUB:
        return Path(reference)
    fetched = fetch_hub_folder(
        parsed.text, wanted=_is_no_trace, max_bytes=settings.max_archive_bytes
    )
    return fetched.path


def ledger_beside(output: StoragePlace) -> str:
    """Where the ledger of a blend is when nothing else is said: in the folder that holds it.

    Raises:
        ConfigError: That is in a store.
    """
    if isinstance(output, StoreAddress):
        raise ConfigError(
            "the variant goes to an address, and the ledger would be beside it",
            got=str(output),
            expected="a ledger that is given",
            fix=LEDGER_FIX,
        )
    return str(output.absolute().parent / "ledger.db")


def hub_name(reference: str) -> str | None:
    """What a variant of the Hub is called; None for one whose place has a name of its own."""
    if Path(reference).expanduser().exists() or is_store_address(reference):
        return None
    return name_of(reference)


def _is_no_trace(path: str, paths: Sequence[str]) -> bool:
    """All that a variant consists of, not what the Hub put there."""
    return not path.startswith(".")
