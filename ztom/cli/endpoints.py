"""Commands about what a server serves: deploy, promote, rollback, status, apply, release."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from ztom.cli.console import moment, plain_console
from ztom.cli.remote import connect
from ztom.client import Client
from ztom.client.verdicts import read_verdict
from ztom.errors import ConfigError, EngineError, EngineTimeoutError
from ztom.io.yaml import read_yaml

_POLL_S = 0.5
_STARTING = "verifying, loading, asking ..."


def deploy_command(
    variant: str,
    alias: str,
    *,
    wishes: Mapping[str, Any],
    plan: Path | None,
    options: Mapping[str, Any],
    wait_s: float,
    server: str | None,
) -> int:
    """Deploy a variant, and wait until it has its traffic; returns the exit status.

    Raises:
        ConfigError: The plan's file is none, or an option cannot be sent.
        EngineError: The variant does not run; traffic is as it was.
        EngineTimeoutError: It is not ready in time; it goes on starting.
    """
    given = {key: wish for key, wish in wishes.items() if wish is not None and wish is not False}
    _require_sendable(options, "--set")
    if plan is not None:
        given["plan"] = _yaml(plan)
    path = str(Path(variant).absolute()) if Path(variant).exists() else variant
    with connect(server) as client:
        record = client.endpoints.deploy(alias, path=path, options=options, **given)
        print(record["id"])
        if wait_s > 0:
            _wait(client, record["digest"], wait_s)
            _say_where(client, alias)
    return 0


def promote_command(alias: str, server: str | None) -> None:
    """Make the candidate stable."""
    with connect(server) as client:
        client.endpoints.promote(alias)
        _say_where(client, alias)


def rollback_command(alias: str, server: str | None) -> None:
    """Go back."""
    with connect(server) as client:
        client.endpoints.rollback(alias)
        _say_where(client, alias)


def status_command(server: str | None) -> None:
    """Print endpoints, deployments and releases under way."""
    with connect(server) as client:
        endpoints, deployments = client.endpoints.all(), client.endpoints.deployments()
        releases = [r for r in client.endpoints.releases() if r["endedAt"] is None]
    console = plain_console()
    traffic = Table("endpoint", "stable", "canary", "shadow", "previous", "release", box=None)
    for each in endpoints:
        traffic.add_row(
            each["alias"],
            each["stable"],
            _share(each["canary"], each["canaryPercent"]),
            _share(each["shadow"], each["shadowPercent"]),
            each["previous"] or "",
            each["release"] or "",
        )
        for rule in each["rules"]:
            whom = f"{rule['header']}: {rule['value']}" if rule["header"] else ""
            key = f"key {rule['key']}" if rule["key"] else ""
            traffic.add_row(f"  {whom} {key}".rstrip(), rule["variant"])
    console.print(traffic)
    table = Table("deployment", "state", "project", "insisted", "reason", box=None)
    for each in deployments:
        insisted = "yes" if each["insisted"] else ""
        row = (each["id"], each["state"], each["projectId"] or "", insisted, each["reason"] or "")
        table.add_row(*row)
    console.print(table)
    for each in releases:
        console.print(_picture(each))


def apply_command(file: Path, *, yes: bool, prune: bool, server: str | None) -> int:
    """Show what a declarative file would change, then change it; returns the exit status.

    Raises:
        ConfigError: The file is none.
    """
    content = _yaml(file)
    if set(content) != {"endpoints"} or not isinstance(content["endpoints"], dict):
        raise ConfigError(f"{file} is not a file of endpoints", expected="one key, endpoints")
    endpoints = _anchored(content["endpoints"], file.parent)
    with connect(server) as client:
        changes = client.endpoints.apply(endpoints, prune=prune, dry_run=True)
        for change in changes:
            print(change["text"])
        if not changes:
            print("nothing to change")
            return 0
        if not yes and not _is_agreed():
            return 1
        client.endpoints.apply(endpoints, prune=prune)
    return 0


def _is_agreed() -> bool:
    """Ask whoever is at the terminal; nobody agrees where nobody is."""
    if not sys.stdin.isatty():
        print("nothing was changed: say --yes to change it")
        return False
    try:
        answer = input("change it? [y/N] ")
    except EOFError:
        answer = ""
        print()
    if answer.strip().lower() in ("y", "yes"):
        return True
    print("nothing was changed")
    return False


def releases_command(alias: str | None, server: str | None) -> None:
    """List releases."""
    table = Table("release", "endpoint", "candidate", "status", "began", "reason", box=None)
    with connect(server) as client:
        for each in client.endpoints.releases(alias):
            table.add_row(
                each["id"],
                each["alias"],
                each["candidate"][:12],
                each["status"],
                moment(each["createdAt"]),
                each["state"]["reason"],
            )
    plain_console().print(table)


def watch_command(release: str, server: str | None) -> int:
    """Show a release live until it has ended; 0 if it was promoted, else 1.

    Args:
        release: Its id, or an alias: then its newest one.
        server: Address.

    Raises:
        ConfigError: The alias has had no release.
        ServerError: The server stays away before the release has ended.
    """
    with connect(server) as client:
        found = [r for r in client.endpoints.releases() if release in (r["id"], r["alias"])]
        if not found:
            raise ConfigError("there is no such release", got=release)
        looks = client.endpoints.watch(found[0]["id"])
        console = plain_console()
        last = _shown_live(looks, console) if console.is_terminal else _said_line_by_line(looks)
    return 0 if last == "promoted" else 1


def _shown_live(looks: Iterator[Mapping[str, Any]], console: Console) -> str:
    """The status at the end."""
    status = ""
    with Live(console=console, auto_refresh=False) as live:
        for look in looks:
            live.update(_picture(look), refresh=True)
            status = look["status"]
    return status


def _said_line_by_line(looks: Iterator[Mapping[str, Any]]) -> str:
    """The status at the end."""
    said = status = ""
    for look in looks:
        status = look["status"]
        line = f"{status}, step {look['state']['step'] + 1}: {look['state']['reason']}".rstrip(": ")
        if line != said:
            said = line
            print(line, flush=True)
    return status


def command_release(release: str, command: str, server: str | None) -> None:
    """Tell a release something."""
    with connect(server) as client:
        print(client.endpoints.command(release, command)["status"])


def _wait(client: Client, digest: str, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    waits = None
    with Console(stderr=True).status(_STARTING) as status:
        while time.monotonic() < deadline:
            found = client.endpoints.deployment(digest)
            if found["state"] == "failed":
                raise EngineError("the variant does not run", got=found["reason"])
            if found["state"] == "ready" and found["intent"] is None:
                _require_traffic(found)
                return
            waits = found["reason"] if found["state"] == "starting" else None
            status.update(escape(waits or _STARTING))
            time.sleep(_POLL_S)
    raise EngineTimeoutError(
        "the variant is not ready yet",
        got=waits,
        fix="`ztom status` says when it is; --wait is how long.",
    )


def _require_traffic(deployment: Mapping[str, Any]) -> None:
    if deployment["reason"] is not None:
        raise EngineError(
            "the variant runs, but not for the traffic that it was deployed for",
            got=deployment["reason"],
        )


def _say_where(client: Client, alias: str) -> None:
    found = client.endpoints.get(alias)
    parts = [f"stable {found['stable']}"]
    for role in ("canary", "shadow"):
        if found[f"{role}Percent"]:
            parts.append(f"{role} {found[role]} at {found[f'{role}Percent']:g} %")
    if found["release"]:
        parts.append(f"release {found['release']} moves it (ztom release watch {alias})")
    print(f"{alias}: {', '.join(parts)}")


def _picture(release: Mapping[str, Any]) -> Group:
    head = Text(
        f"release {release['id']} of {release['alias']}: {release['status']}"
        + (f", {release['state']['reason']}" if release["state"]["reason"] else "")
    )
    whole = (Column(name, no_wrap=True) for name in ("step", "status"))
    table = Table(*whole, "check", "says", "candidate", "stable", "answers", box=None)
    for step in release["steps"]:
        name = f"{step['number']} {step['kind']} {step['percent']:g} %"
        seconds = "" if step["seconds"] is None else f" {step['seconds']:.0f} s"
        table.add_row(name, step["status"] + seconds)
        for check in step["checks"]:
            table.add_row(
                "",
                "",
                check["check"],
                check["outcome"],
                _number(check["candidate"]),
                _number(check["stable"]),
                f"{check['candidate_n']} / {check['stable_n']}",
            )
    return Group(head, table)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _share(name: str | None, percent: float) -> str:
    return "" if name is None else f"{name} {percent:g} %"


def _yaml(path: Path) -> Any:
    content = read_yaml(path, json_only=False)
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a mapping", got=type(content).__name__)
    _require_sendable(content, str(path))
    return content


def _require_sendable(content: object, where: str) -> None:
    """YAML has dates, and numbers that are none; JSON has not.

    Raises:
        ConfigError: There is such a value.
    """
    try:
        json.dumps(content, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{where} has a value that cannot be sent", got=error, fix="Put a date in quotes."
        ) from error


def _anchored(endpoints: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The file's paths are beside the file, as in every other file of this command.

    Raises:
        ConfigError: A verdict cannot be read.
    """

    def anchored(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: placed(key, each) for key, each in value.items()}
        return [anchored(each) for each in value] if isinstance(value, list) else value

    def placed(key: str, value: Any) -> Any:
        if key == "verdict" and isinstance(value, str):
            return read_verdict(folder / value)
        is_path = key == "path" and isinstance(value, str) and "://" not in value
        return str((folder / value).absolute()) if is_path else anchored(value)

    return {alias: anchored(each) for alias, each in endpoints.items()}
