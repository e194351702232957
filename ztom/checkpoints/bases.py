"""The base model that an adapter names, where the roots or a hub have it.

``adapter_config.json`` says in ``base_model_name_or_path`` what the adapter was trained over: a
path of the machine that trained it, an address, or a name such as ``org/name``. A path or address
counts where the settings allow it; a name is looked for under each allowed root, with its
organisation and without, and then where references to a hub can be read.
"""

from __future__ import annotations

from collections.abc import Iterator

from ztom.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ztom.checkpoints.reference import SUPPORTED_SCHEMES
from ztom.errors import ChainError, CheckpointError, StorageError
from ztom.settings import Settings

_HUB = "hf"


def base_of_adapter(adapter: Checkpoint, *, settings: Settings) -> str:
    """A reference of the base model that an adapter names.

    Args:
        adapter: Adapter that was opened.
        settings: Settings with the roots under which the base may lie.

    Raises:
        ChainError: It names none, or the one that it names is nowhere to be had.
    """
    name = adapter.config.get("base_model_name_or_path")
    if not isinstance(name, str) or not name.strip():
        raise ChainError(
            "the adapter does not name its base model",
            got="no base_model_name_or_path in adapter_config.json",
            fix="Add the base model to the chain, before its adapters.",
        )
    for reference in _candidates(name.strip(), settings):
        if _is_full(reference, settings):
            return reference
    raise ChainError(
        "the base model that the adapter names is not to be had",
        got=name,
        expected="a checkpoint of that name where checkpoints may lie",
        fix="Add the base model to the chain, before its adapters.",
    )


def _candidates(name: str, settings: Settings) -> Iterator[str]:
    """References that the name may mean, the plainest first."""
    if name.startswith("/") or "://" in name:
        yield name
    else:
        for root in settings.allowed_roots:
            if root not in ("/", "gs://", "s3://", "memory://"):  # everything is no place to look
                yield f"{root.rstrip('/')}/{name}"
                yield f"{root.rstrip('/')}/{name.rpartition('/')[2]}"
    if "://" not in name and _HUB in SUPPORTED_SCHEMES and _HUB in settings.allowed_schemes:
        yield f"{_HUB}://{name.lstrip('/')}"


def _is_full(reference: str, settings: Settings) -> bool:
    try:
        return open_checkpoint(reference, settings=settings).kind == "full"
    except (CheckpointError, StorageError):
        return False
