"""What ``ztom login`` and ``ztom project`` do, and how commands reach a server."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from ztom.cli.console import moment, plain_console, print_document, print_row
from ztom.errors import ConfigError
from ztom.io.files import write_whole
from ztom.io.progress import work_display

if TYPE_CHECKING:
    from ztom.client import Client


def connect(server: str | None) -> Client:
    """A client of the server, with the key of the environment or of the last login.

    Raises:
        ConfigError: No server is named, or nobody logged in to it.
    """
    server = server or os.environ.get("ZTOM_SERVER")
    if not server:
        raise ConfigError("no server is named", fix="Give --server, or set ZTOM_SERVER.")
    key = os.environ.get("ZTOM_API_KEY") or _credentials().get(server.rstrip("/"))
    if not key:
        raise ConfigError(
            f"nobody is logged in to {server}",
            fix=f"ztom login {server} NAME, or set ZTOM_API_KEY.",
        )
    from ztom.client import Client

    return Client(server, key=key)


def login_command(server: str, username: str, *, stdin: bool) -> None:
    """Log in and keep the token, readable by its owner only."""
    from ztom.cli.actions.password import read_password
    from ztom.client import Client

    with Client.login(server, username, read_password(stdin=stdin, twice=False)) as client:
        kept = {**_credentials(), server.rstrip("/"): client.key}
    write_whole(_credentials_path(), json.dumps(kept), private=True)
    plain_console().print(f"logged in to {server} as {username}", soft_wrap=True)


def projects_command(server: str | None, *, as_json: bool = False) -> None:
    """List projects and their files."""
    with connect(server) as client:
        projects = list(client.projects())
    if as_json:
        print_document(projects)
        return
    table = Table("project", "name", "file", "part", "status", "change", box=None, pad_edge=False)
    for project in projects:
        base = () if project.base_model is None else (project.base_model,)
        table.add_row(project.id, project.name)
        for file in (*base, *project.files):
            change = file.total_weight_contribution
            size = "" if change is None else f"{change:.3g}"
            name = file.tag or file.file_name
            table.add_row("", "", f"{file.id}  {name}", file.part, file.status, size)
    plain_console().print(table)


def create_project_command(
    name: str, description: str, server: str | None, *, as_json: bool = False
) -> None:
    """Make a project and say its id."""
    with connect(server) as client:
        project = client.create_project(name, description)
    if as_json:
        print_document(project)
    else:
        print(project.id)


def add_command(
    project: str,
    paths: list[str],
    *,
    base: bool,
    pointer: bool,
    server: str | None,
    as_json: bool = False,
) -> None:
    """Add checkpoints in this order."""
    with connect(server) as client:
        for path in paths:
            if pointer:
                answer = client.point_to(project, path, base=base)
            else:
                answer = client.add_checkpoint(project, path, base=base, progress=True)
    if as_json:
        print_document(answer)


def download_command(
    project: str, file: str, output: Path, server: str | None, *, as_json: bool = False
) -> None:
    """Save a checkpoint."""
    with connect(server) as client, work_display(f"downloading {file}"):
        path = client.download(project, file, output)
    if as_json:
        print_document({"path": path.absolute()})
    else:
        print(path)


def log_command(project: str, server: str | None, *, as_json: bool = False) -> None:
    """List what was asked of the server for a project."""
    with connect(server) as client:
        requests = list(client.results(project))
    if as_json:
        for request in requests:
            print_row(request)
        return
    table = Table("request", "kind", "status", "asked", "reason", box=None, pad_edge=False)
    for request in requests:
        when = moment(request.created_at)
        row = (request.request_id, request.kind, request.status, when)
        table.add_row(*row, request.reason or "")
    plain_console().print(table)


def _credentials_path() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "ztom" / "credentials.json"


def _credentials() -> dict[str, str]:
    try:
        credentials = json.loads(_credentials_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return credentials if isinstance(credentials, dict) else {}
