"""A search's configuration in YAML: read, with overrides and with errors that help, and written.

``python -m tune_search search.yaml --set budget.evaluations=20`` reads a file and overrides single
keys. Relative paths in the file, and in overrides of it, are taken from the file's own folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ztom.blending.chain_file import ChainConfig, anchored
from ztom.errors import ConfigError
from ztom.io.problems import check_model
from ztom.io.yaml import dump_yaml, parse_yaml, read_yaml
from ztom.search.config import SearchConfig


def load_config(path: Path, overrides: Sequence[str] = ()) -> SearchConfig:
    """Read a YAML file.

    Args:
        path: The file. Without a ``name`` in it the study is called after it.
        overrides: ``key=value`` each; dots go into nested keys and positions of lists
            (``guardrails.0.max_increase=0.1``); values are YAML.

    Raises:
        ConfigError: The file cannot be read, or names every key that is wrong.
    """
    content = read_content(path, overrides)
    content.setdefault("name", path.stem)
    content.setdefault("output", f"runs/{content['name']}")
    return parse_config(content, folder=path.absolute().parent, source=str(path))


def read_content(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Keys and values of a search's file, not checked yet; see `load_config`.

    Raises:
        ConfigError: The file cannot be read, or an override does not fit it.
    """
    content = read_yaml(path, json_only=False)
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a configuration", expected="keys and values")
    for override in overrides:
        _apply_override(content, override)
    return content


def parse_config(
    content: Mapping[str, Any], *, folder: Path | None = None, source: str = "the configuration"
) -> SearchConfig:
    """Check a configuration that was read already.

    Args:
        content: Keys and values.
        folder: Folder that relative paths are relative to; None leaves them as they are.
        source: Name of the configuration in errors.

    Raises:
        ConfigError: Names every key that is wrong.
    """
    config = check_model(
        SearchConfig,
        dict(content),
        wrong=f"{source} is wrong",
        context={"folder": folder},
        quote=True,
    )
    if folder is not None and isinstance(config.chain, ChainConfig):
        config = config.model_copy(update={"chain": anchored(config.chain, folder)})
    return config


def dump_config(config: SearchConfig) -> str:
    """YAML that `load_config` reads back as the same configuration.

    Only what was set is written, so that what excludes each other stays readable. Paths have to be
    absolute: relative ones would be taken from the folder of the file.
    """
    return dump_yaml(config.model_dump(mode="json", exclude_unset=True))


def _apply_override(content: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign or not key.strip("."):
        raise ConfigError("an override is malformed", got=override, expected="key=value")
    value = parse_yaml(text, source=f"the value of {key}", json_only=False)
    *parents, last = key.split(".")
    place: Any = content
    for parent in parents:
        place = _enter(place, parent, key)
    if isinstance(place, list):
        place[_position(place, last, key)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise ConfigError(f"{key} goes into a value that has no keys", got=place)


def _enter(place: Any, key: str, whole: str) -> Any:
    if isinstance(place, list):
        return place[_position(place, key, whole)]
    if not isinstance(place, dict):
        raise ConfigError(f"{whole} goes into a value that has no keys", got=place)
    if place.get(key) is None:
        place[key] = {}
    return place[key]


def _position(place: list[Any], key: str, whole: str) -> int:
    if not key.isdecimal() or int(key) >= len(place):
        raise ConfigError(
            f"{whole} names no entry of the list", got=key, expected=f"0 to {len(place) - 1}"
        )
    return int(key)
