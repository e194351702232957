"""What every registry of models has to do, as tests to inherit.

import pytest
from ztom.testing import RegistryConformance

class TestMyRegistry(RegistryConformance):
@pytest.fixture
def registry(self):
return MyRegistry(...)

address = "mine:/support/3"
moving_address = "mine:/support@champion"
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from ztom.checkpoints.registries.protocol import RegisteredModel, Registry
from ztom.errors import ConfigError, ReferenceRefusedError, StorageError
from ztom.testing.refusals import refused


class RegistryConformance:
    """Tests of a fixture ``registry``, a `ztom.checkpoints.registries.protocol.Registry`.

    Attributes:
        address: Address of a version that is there.
        moving_address: Address of the same version by an alias; None where there are no aliases.
        missing_address: Address of a model that is not there.
        malformed_addresses: Addresses that are not of the registry's form.
    """

    address = ""
    moving_address: str | None = None
    missing_address = ""
    malformed_addresses: tuple[str, ...] = ()

    def test_a_version_has_a_place(self, registry: Registry) -> None:
        """Its files lie in a folder that is there, or at an address."""
        with TemporaryDirectory() as cache:
            model = registry.resolve(self.address, Path(cache))
            assert model.artifacts, "no place"
            if model.is_own_copy:
                folder = Path(model.artifacts)
                assert folder.is_dir(), f"{folder} is not there"
                assert folder.is_relative_to(cache), f"{folder} is not in the cache it was given"

    def test_the_address_it_gives_back_means_the_same(self, registry: Registry) -> None:
        """A recipe names it, and leads to the same files later."""
        model = self._resolve(registry, self.address)
        again = self._resolve(registry, model.address)
        assert again.address == model.address
        assert _place(again) == _place(model)

    def test_an_alias_is_pinned_to_its_version(self, registry: Registry) -> None:
        """An alias moves; what was read is named by its version."""
        if self.moving_address is None:
            return
        pinned = self._resolve(registry, self.moving_address)
        assert pinned.address == self._resolve(registry, self.address).address

    def test_what_is_not_there_is_an_error(self, registry: Registry) -> None:
        """No such model: a sentence, no empty folder."""
        with refused(StorageError, ConfigError, of=self.missing_address):
            self._resolve(registry, self.missing_address)

    def test_another_form_of_address_is_refused(self, registry: Registry) -> None:
        """Nothing is looked up for it."""
        for address in self.malformed_addresses:
            with refused(ReferenceRefusedError, of=address):
                self._resolve(registry, address)

    @staticmethod
    def _resolve(registry: Registry, address: str) -> RegisteredModel:
        with TemporaryDirectory() as cache:
            return registry.resolve(address, Path(cache))


def _place(model: RegisteredModel) -> str:
    """What can be compared: a copy lies in another cache each time."""
    return Path(model.artifacts).name if model.is_own_copy else model.artifacts
