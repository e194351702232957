"""From an address of a registry to the place of a model's files."""

from __future__ import annotations

from ztom.checkpoints.registries.protocol import RegisteredModel, Registry
from ztom.plugins import Group, build_plugin
from ztom.settings import Settings


def resolve_model(address: str, *, scheme: str, settings: Settings) -> RegisteredModel:
    """Ask the registry that an address names.

    Args:
        address: Address that was checked, the scheme included.
        scheme: Scheme of the address, which is the registry's name.
        settings: Settings with the cache.

    Raises:
        ZtomError: The registry does not answer, or has no such model.
    """
    return build_registry(scheme).resolve(address, settings.cache / "registries" / scheme)


def build_registry(scheme: str) -> Registry:
    """The registry that answers to a scheme.

    Raises:
        ConfigError: There is none, or it cannot be made.
    """
    if scheme == "models":
        from ztom.checkpoints.registries.mlflow import MlflowRegistry

        return MlflowRegistry()
    if scheme == "vertex":
        from ztom.checkpoints.registries.vertex import VertexRegistry

        return VertexRegistry()
    registry: Registry = build_plugin(Group.REGISTRIES, scheme, protocol=Registry)
    return registry
