"""What the operator of an installation allows, read from ``ZTOM_*`` environment variables.

These are limits and places, not choices about one search: those stand in the search's own file.
"""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import Self

from pydantic import Field, PrivateAttr, field_validator
from pydantic_settings import SettingsConfigDict

from ztom.io.environment import EnvironmentSettings
from ztom.io.places import StoragePlace, parse_place, require_local
from ztom.io.signatures import PublicKey


class Settings(EnvironmentSettings):
    """Limits and places of one installation.

    ``ZTOM_ALLOWED_ROOTS='["/models", "gs://team-models"]'`` narrows what references may point to;
    on a shared server it should always be set. The default suits one person on their own machine.
    """

    model_config = SettingsConfigDict(env_prefix="ZTOM_", frozen=True, extra="forbid")

    allowed_schemes: tuple[str, ...] = Field(
        default=("file", "gs", "s3", "memory", "hf", "models", "vertex"),
        description="schemes a reference may have",
    )
    allowed_roots: tuple[str, ...] = Field(
        default=("/", "gs://", "s3://", "memory://", "hf://", "models:/", "vertex://"),
        description="a reference must lie under one of these folders or address prefixes",
    )
    denied_roots: tuple[str, ...] = Field(
        default=(), description="folders under which nothing is referred to, whatever is allowed"
    )
    cache_dir: Path = Field(
        default=Path("~/.cache/ztom"), description="where copies are kept that had to be made"
    )
    node_cache_bytes: int = Field(
        default=200 * 2**30,
        gt=0,
        description="bytes of variants of stores that are kept on this machine; the longest unused "
        "one makes way",
    )
    storage: str | None = Field(
        default=None,
        description="folder that every node of the cluster reads, or gs://, s3:// address: "
        "variants are put there, and proved and served from there",
    )
    key_file: Path | None = Field(
        default=None,
        description="file of the private key that signs variants, made when it is not there; "
        "signing.key beside the credentials of `ztom login` when not given",
    )
    signers: tuple[PublicKey, ...] = Field(
        default=(),
        description="public keys whose variants are taken; one that is signed with another key is "
        "not. Any when there are none",
    )
    signed_only: bool = Field(
        default=False, description="whether variants that nobody has signed are refused"
    )
    max_archive_bytes: int = Field(
        default=200 * 2**30, gt=0, description="bytes that unpacking one archive may write"
    )
    max_archive_ratio: float = Field(
        default=20,
        ge=1,
        description="bytes that one byte of a compressed archive may unpack to, beyond 64 MiB",
    )
    max_archive_members: int = Field(default=10_000, gt=0)
    max_kept_bytes: int = Field(
        default=20 * 2**30,
        ge=0,
        description="bytes of a checkpoint's other files (no weights) that a blend keeps",
    )
    max_header_bytes: int = Field(
        default=32 * 2**20, gt=0, description="longest safetensors header that is parsed"
    )
    max_tensors_per_file: int = Field(default=100_000, gt=0)
    actor: str | None = Field(
        default=None,
        max_length=200,
        description="who the audit chain says acts; the account of this machine when not given",
    )
    storage_retries: int = Field(
        default=4, ge=0, le=20, description="times a failed call to a store is tried again"
    )

    function_reads: tuple[str, ...] = Field(
        default=(),
        description="files and folders that error functions and metrics of users' own may read "
        "besides what they are imported from",
    )
    function_network: bool = Field(
        default=False,
        description="whether error functions and metrics of users' own may use the network",
    )
    names_roots: bool = Field(
        default=True, description="whether a refusal lists the allowed roots; a server's do not"
    )

    _own_folders: tuple[str, ...] = PrivateAttr(default=())

    @property
    def own_folders(self) -> tuple[str, ...]:
        """What this process has written and refers to; no root limits that."""
        return self._own_folders

    @field_validator("cache_dir")
    @classmethod
    def _local(cls, value: Path) -> Path:
        return require_local(value, what="the cache")

    @field_validator("storage")
    @classmethod
    def _storage_place(cls, value: str | None) -> str | None:
        return None if value is None else str(_absolute(parse_place(value)))

    @property
    def storage_place(self) -> StoragePlace | None:
        """Where variants are put that every node is to read; None where that is not set."""
        return None if self.storage is None else parse_place(self.storage)

    @property
    def cache(self) -> Path:
        """`cache_dir` with ``~`` resolved."""
        return self.cache_dir.expanduser()

    @property
    def own_key(self) -> Path:
        """File of the private key that signs what is written here."""
        if self.key_file is not None:
            return self.key_file.expanduser()
        home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
        return Path(home).expanduser() / "ztom" / "signing.key"

    def also_allowing(self, folder: StoragePlace) -> Self:
        """The same, and references to what this process has written into a folder or a store."""
        copy = self.model_copy()
        copy._own_folders = (*self._own_folders, str(folder))
        return copy


def _absolute(place: StoragePlace) -> StoragePlace:
    return place.expanduser().absolute() if isinstance(place, Path) else place


def local_actor() -> str:
    """Who acts: what ``ZTOM_ACTOR`` says, else the account of this machine."""
    named = Settings().actor
    if named is not None:
        return named
    try:
        return f"local:{getpass.getuser()}"
    except (OSError, KeyError):  # a container's user without a name
        return "local:unnamed"
