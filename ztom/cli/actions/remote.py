"""What ``ztom login`` and ``ztom project`` do, and how commands reach a server."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from ztom.cli.actions.answers import print_answer, print_table
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
    server = _address(server)
    key = os.environ.get("ZTOM_API_KEY") or _credentials().get(server)
    if not key:
        raise ConfigError(
            f"nobody is logged in to {server}",
            fix=f"ztom login {server} NAME, or set ZTOM_API_KEY.",
        )
    from ztom.client import Client

    return Client(server, key=key)


def _address(server: str | None) -> str:
    """The address of the server that is meant.

    Raises:
        ConfigError: No server is named.
    """
    server = server or os.environ.get("ZTOM_SERVER")
    if not server:
        raise ConfigError("no server is named", fix="Give --server, or set ZTOM_SERVER.")
    return server.rstrip("/")


def login_command(server: str, username: str, *, stdin: bool) -> None:
    """Log in and keep the token, readable by its owner only."""
    from ztom.cli.actions.password import read_password
    from ztom.client import Client

    with Client.login(server, username, read_password(stdin=stdin, twice=False)) as client:
        kept = {**_credentials(), server.rstrip("/"): client.key}
    write_whole(_credentials_path(), json.dumps(kept), private=True)
    plain_console().print(f"logged in to {server} as {username}", soft_wrap=True)


def logout_command(server: str | None, *, as_json: bool = False) -> None:
    """Forget the token that was kept for a server.

    Raises:
        ConfigError: No server is named, or no token is kept for it.
    """
    server = _address(server)
    kept = _credentials()
    if kept.pop(server, None) is None:
        raise ConfigError(f"nobody is logged in to {server}", fix="`ztom login` does that.")
    write_whole(_credentials_path(), json.dumps(kept), private=True)
    print_answer({"logged_out": server}, f"logged out of {server}", as_json=as_json)


def whoami_command(server: str | None, *, as_json: bool = False) -> None:
    """Say who the key of the commands belongs to."""
    with connect(server) as client:
        user = client.who_am_i()
    roles = " ".join(user.roles)
    print_answer(user, f"{user.username} ({user.email_address}), {roles}", as_json=as_json)


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


def change_project_command(
    project: str,
    name: str | None,
    description: str | None,
    server: str | None,
    *,
    as_json: bool = False,
) -> None:
    """Change a project.

    Raises:
        ConfigError: Nothing is to be changed.
    """
    if name is None and description is None:
        raise ConfigError("nothing is to be changed", fix="Give --name or --description.")
    with connect(server) as client:
        changed = client.change_project(project, name=name, description=description)
    print_answer(changed, f"{changed.id}  {changed.name}", as_json=as_json)


def delete_project_command(
    project: str, server: str | None, *, hard: bool, as_json: bool = False
) -> None:
    """Delete a project."""
    with connect(server) as client:
        client.delete_project(project, hard=hard)
    print_answer({"deleted": project}, f"{project} is deleted", as_json=as_json)


def remove_file_command(
    project: str, file: str, server: str | None, *, hard: bool, as_json: bool = False
) -> None:
    """Take a checkpoint out of a project."""
    with connect(server) as client:
        client.remove_file(project, file, hard=hard)
    print_answer({"removed": file}, f"{file} is removed from {project}", as_json=as_json)


def add_data_command(
    project: str, file: Path, server: str | None, *, as_json: bool = False
) -> None:
    """Upload a data set."""
    with connect(server) as client, work_display(f"sending {file.name}"):
        reference = client.add_data(project, file)
    print_answer({"reference": reference}, reference, as_json=as_json)


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


def limits_command(server: str | None, *, as_json: bool = False) -> None:
    """Show what the account holds and may hold."""
    with connect(server) as client:
        limits = client.limits()
    rows = [(limit.name, f"{limit.used:,.15g}", f"{limit.limit:,.15g}") for limit in limits]
    print_table(limits, ("what", "held", "at most"), rows, as_json=as_json)
