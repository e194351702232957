"""What ``ztom up``, ``ztom admin create`` and ``ztom admin rotate-key`` do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ztom.cli.actions.password import read_password
from ztom.cli.console import plain_console, print_document
from ztom.io.private import private_folder
from ztom.io.progress import shown_until
from ztom.ledger.accounts import NewUser, UserRecord
from ztom.ledger.ledger import Ledger
from ztom.ledger.passwords import hash_password
from ztom.settings import local_actor

if TYPE_CHECKING:
    from serve_apps.control_plane.config import ServerConfig
    from serve_apps.server.launch import Running


def up_command(
    config: ServerConfig,
    *,
    host: str,
    port: int,
    without_deadlines: bool = False,
    as_json: bool = False,
) -> None:
    """Run a server until it is stopped."""
    from serve_apps.server.launch import run_server
    from serve_apps.tracing import require_tracing

    require_tracing()
    console = plain_console(stderr=as_json)

    def say(running: Running) -> None:
        if as_json:
            print_document(
                {
                    "url": running.url,
                    "dashboard": running.dashboard,
                    "data": config.data.absolute(),
                }
            )
        console.print(f"Z-TOM serves at {running.url}")
        console.print(f"  docs       {running.url}/docs")
        console.print(f"  dashboard  {running.dashboard}")
        console.print(f"  data       {config.data}", soft_wrap=True)
        for note in running.notes:
            console.print(f"  note       {note}", soft_wrap=True)
        if not any(user.is_admin for user in _users(config)):
            console.print(
                f"  no administrator yet: ztom admin create NAME ADDRESS --data {config.data}",
                soft_wrap=True,
            )
        console.print("Ctrl-C stops it.")

    def show(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False, highlight=False)

    with shown_until("starting the server", say) as on_ready:
        run_server(
            config,
            host=host,
            port=port,
            without_deadlines=without_deadlines,
            on_ready=on_ready,
            say=show,
        )


def create_admin_command(
    username: str, address: str, config: ServerConfig, *, stdin: bool, as_json: bool = False
) -> None:
    """Make an administrator's account, in the ledger itself."""
    private_folder(config.data)
    password = read_password(stdin=stdin, twice=True)
    with Ledger.open(config.ledger_address) as ledger:
        user = ledger.accounts.create(
            NewUser(username, address, hash_password(password), is_admin=True),
            actor=local_actor(),
        )
    if as_json:
        print_document({"id": user.id, "username": user.username})
    else:
        plain_console().print(f"{user.username} is an administrator")


def rotate_key_command(config: ServerConfig) -> None:
    """Sign tokens with a new key; the one before still verifies, the ones before that do not."""
    from serve_apps.control_plane.keys import rotate_token_key

    private_folder(config.data)
    with Ledger.open(config.ledger_address) as ledger:
        rotate_token_key(config, ledger.server_keys, actor=local_actor())
    plain_console().print("tokens are signed with a new key from the server's next start")


def _users(config: ServerConfig) -> tuple[UserRecord, ...]:
    with Ledger.open(config.ledger_address) as ledger:
        return ledger.accounts.all()
