"""What ``ztom release list``, ``watch`` and ``tell`` do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.table import Table

from ztom.cli.actions.endpoint_tables import release_picture
from ztom.cli.actions.remote import connect
from ztom.cli.console import moment, plain_console, print_document, print_row
from ztom.errors import ConfigError

if TYPE_CHECKING:
    from ztom.wire.releases import Release


def releases_command(alias: str | None, server: str | None, *, as_json: bool = False) -> None:
    """List releases."""
    with connect(server) as client:
        releases = list(client.endpoints.releases(alias))
    if as_json:
        print_document(releases)
        return
    table = Table("release", "endpoint", "candidate", "status", "began", "reason", box=None)
    for release in releases:
        table.add_row(
            release.id,
            release.alias,
            release.candidate[:12],
            release.status,
            moment(release.created_at),
            release.state.reason,
        )
    plain_console().print(table)


def show_command(release: str, server: str | None, *, as_json: bool = False) -> None:
    """Show one release."""
    with connect(server) as client:
        look = client.endpoints.release(release)
    if as_json:
        print_document(look)
    else:
        plain_console().print(release_picture(look))


def watch_command(release: str, server: str | None, *, as_json: bool = False) -> int:
    """Show a release live until it has ended; 0 if it was promoted, else 1.

    Args:
        release: Id of a release, or an alias, which stands for its newest one.
        server: Address of the server.
        as_json: Print each look as a line of JSON.

    Raises:
        ConfigError: The alias has had no release.
        ServerError: The server stays away before the release has ended.
    """
    with connect(server) as client:
        matches = [r for r in client.endpoints.releases() if release in (r.id, r.alias)]
        if not matches:
            raise ConfigError("there is no such release", got=release)
        looks = client.endpoints.watch(matches[0].id)
        # a picture that is drawn anew keeps to the terminal's width
        console = Console(markup=False, emoji=False, highlight=False)
        if as_json:
            last = _print_rows(looks)
        else:
            last = _show_live(looks, console) if console.is_terminal else _print_lines(looks)
    return 0 if last == "promoted" else 1


def _print_rows(looks: Iterator[Release]) -> str:
    """The status at the end."""
    status = ""
    for look in looks:
        print_row(look)
        status = look.status
    return status


def _show_live(looks: Iterator[Release], console: Console) -> str:
    """The status at the end."""
    status = ""
    with Live(console=console, auto_refresh=False) as live:
        for look in looks:
            live.update(release_picture(look), refresh=True)
            status = look.status
    return status


def _print_lines(looks: Iterator[Release]) -> str:
    """The status at the end."""
    printed = status = ""
    for look in looks:
        status = look.status
        line = f"{status}, step {look.state.step + 1}: {look.state.reason}".rstrip(": ")
        if line != printed:
            printed = line
            print(line, flush=True)
    return status


def tell_command(release: str, command: str, server: str | None, *, as_json: bool = False) -> None:
    """Tell a release something."""
    with connect(server) as client:
        answer = client.endpoints.command(release, command)
    if as_json:
        print_document(answer)
    else:
        print(answer.status)
