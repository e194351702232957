"""What ``ztom apply`` does, and the YAML files that are sent to a server."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from ztom.cli.actions.remote import connect
from ztom.cli.console import print_document
from ztom.errors import ConfigError
from ztom.io.yaml import read_yaml


def apply_command(
    file: Path, *, yes: bool, prune: bool, server: str | None, as_json: bool = False
) -> int:
    """Show what a declarative file would change, then change it; returns the exit status.

    Raises:
        ConfigError: The file is none.
    """
    content = read_mapping(file)
    if set(content) != {"endpoints"} or not isinstance(content["endpoints"], dict):
        raise ConfigError(f"{file} is not a file of endpoints", expected="one key, endpoints")
    endpoints = _anchored(content["endpoints"], file.parent)
    with connect(server) as client:
        changes = client.endpoints.apply(endpoints, prune=prune, dry_run=True)
        notes = sys.stderr if as_json else sys.stdout
        for change in changes:
            print(change.text, file=notes)
        if not changes:
            print("nothing to change", file=notes)
        agreed = bool(changes) and (yes or _is_agreed(notes))
        if agreed:
            client.endpoints.apply(endpoints, prune=prune)
    if as_json:
        print_document({"changes": changes, "changed": agreed})
    return 0 if agreed or not changes else 1


def _is_agreed(notes: TextIO) -> bool:
    """Ask whoever is at the terminal; nobody agrees where nobody is."""
    if not sys.stdin.isatty():
        print("nothing was changed: say --yes to change it", file=notes)
        return False
    print("change it? [y/N] ", end="", file=notes, flush=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        print(file=notes)
    if answer.strip().lower() in ("y", "yes"):
        return True
    print("nothing was changed", file=notes)
    return False


def _anchored(endpoints: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The file's paths are beside the file, as in every other file of this command.

    Raises:
        ConfigError: A verdict cannot be read.
    """

    def anchored(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: anchor(key, entry) for key, entry in value.items()}
        return [anchored(entry) for entry in value] if isinstance(value, list) else value

    def anchor(key: str, value: Any) -> Any:
        if key == "verdict" and isinstance(value, str):
            from ztom.client.verdicts import read_verdict  # scipy, for what a verdict holds

            return read_verdict(folder / value)
        is_path = key == "path" and isinstance(value, str) and "://" not in value
        return str((folder / value).absolute()) if is_path else anchored(value)

    return {alias: anchored(spec) for alias, spec in endpoints.items()}


def read_mapping(path: Path) -> Any:
    """Keys and values of a YAML file that JSON can hold.

    Raises:
        ConfigError: The file cannot be read, or holds something else.
    """
    content = read_yaml(path, json_only=False)
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a mapping", got=type(content).__name__)
    require_sendable(content, str(path))
    return content


def require_sendable(content: object, where: str) -> None:
    """YAML has dates, and numbers that are none; JSON has not.

    Raises:
        ConfigError: There is such a value.
    """
    try:
        json.dumps(content, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{where} has a value that cannot be sent", reason=error, fix="Put a date in quotes."
        ) from error
