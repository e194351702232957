"""``--set KEY=VALUE``, and the options of a server: read without what a server imports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ztom.errors import ConfigError
from ztom.io.places import require_listable
from ztom.io.yaml import parse_yaml
from ztom.settings import Settings

if TYPE_CHECKING:
    from serve_apps.control_plane.config import ServerConfig


def server_config(data: Path, ledger: str | None, overrides: list[str]) -> ServerConfig:
    """The configuration that the options, and the environment, describe.

    Raises:
        ConfigError: An option is misspelt or out of range, or a root cannot be listed.
    """
    from serve_apps.control_plane.config import ServerConfig

    Settings()  # the installation's own settings: wrong ones show now
    values: dict[str, Any] = {"data": data}
    if ledger is not None:
        values["ledger"] = ledger
    values |= parse_settings(overrides)
    config = ServerConfig(**values)
    require_listable(config.pointer_roots)
    return config


def parse_settings(settings: list[str]) -> dict[str, object]:
    """What ``--set KEY=VALUE`` says; values are YAML.

    Raises:
        ConfigError: One is not of this form.
    """
    values: dict[str, object] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError("an option is not KEY=VALUE", got=setting)
        name = key.strip()
        values[name] = parse_yaml(text, source=f"the value of {name}", json_only=False)
    return values
