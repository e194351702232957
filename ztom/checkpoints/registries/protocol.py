"""What a registry of models offers: from a name and a version to the place of the files.

Registries are found by the scheme of an address: ``models`` (MLflow) and ``vertex`` are built in,
and an installed package adds one with an entry point of the group ``ztom.registries``, called as
the scheme, that is a factory without arguments. `ztom.testing.RegistryConformance` checks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A version of a model as a registry knows it.

    Attributes:
        address: Address that always means this version: no alias, no latest.
        artifacts: Place of its files: a local folder, or an address such as ``gs://bucket/folder``,
            which has to be allowed like any reference.
        is_own_copy: Whether the files were fetched into the cache, where they may be read.
    """

    address: str
    artifacts: str
    is_own_copy: bool = False


class Registry(Protocol):
    """A registry of models."""

    def resolve(self, address: str, cache: Path) -> RegisteredModel:
        """Look a version of a model up.

        Args:
            address: Address as it was written, the scheme included.
            cache: Folder for files that only the registry itself hands out.

        Raises:
            ConfigError: The registry is not configured, or its credentials are missing.
            ReferenceRefusedError: The address is not of the registry's form.
            StorageError: There is no such model or version, or no answer in time.
        """
