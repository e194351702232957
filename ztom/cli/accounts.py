"""Commands on who may do what at a server: ``ztom user``, ``ztom member`` and ``ztom key``."""

from __future__ import annotations

from typing import Annotated

import typer

from ztom.cli.options import Json, PasswordStdin, ProjectName, Server, command_group, examples

user = command_group("user", "Accounts of a server, for administrators.", "ztom user list")
member = command_group("member", "Members of a project.", "ztom member list support")
key = command_group("key", "API keys of your account.", "ztom key create ci --scope read")

User = Annotated[str, typer.Argument(help="Id, name or e-mail address of the account.")]
Permissions = Annotated[
    list[str] | None,
    typer.Option("--permission", help="Grant READ, WRITE or MANAGE; may be repeated. Else READ."),
]


@user.command("list", epilog=examples("ztom user list --admins"))
def user_list(
    admins: Annotated[bool, typer.Option("--admins", help="List administrators only.")] = False,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """List the accounts of a server."""
    from ztom.cli.actions.accounts import list_users

    list_users(server, admins=admins, as_json=as_json)


@user.command("add", epilog=examples("ztom user add ada ada@example.org"))
def user_add(
    username: Annotated[str, typer.Argument(help="Name to log in with.")],
    address: Annotated[str, typer.Argument(help="E-mail address to log in with.")],
    admin: Annotated[bool, typer.Option("--admin", help="Make it an administrator's.")] = False,
    password_stdin: PasswordStdin = False,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Make an account; its password is asked for."""
    from ztom.cli.actions.accounts import add_user

    add_user(username, address, server, admin=admin, stdin=password_stdin, as_json=as_json)


@user.command("change", epilog=examples("ztom user change ada --disable"))
def user_change(
    user: User,
    address: Annotated[str | None, typer.Option(help="Set this e-mail address.")] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(help="Set the roles to ADMIN, DEPLOYER or USER; may be repeated."),
    ] = None,
    enabled: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Let the account in, or do not.")
    ] = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Change what an account may do, or whether it is let in."""
    from ztom.cli.actions.accounts import change_user

    changes = {"email_address": address, "roles": role, "enabled": enabled}
    change_user(user, changes, server, as_json=as_json)


@user.command("remove", epilog=examples("ztom user remove ada"))
def user_remove(user: User, server: Server = None, as_json: Json = False) -> None:
    """Take an account away; what it made stays."""
    from ztom.cli.actions.accounts import remove_user

    remove_user(user, server, as_json=as_json)


@user.command("invite", epilog=examples("ztom user invite grace@example.org --deployer"))
def user_invite(
    address: Annotated[str, typer.Argument(help="E-mail address to register with.")],
    deployer: Annotated[
        bool, typer.Option("--deployer", help="Let the account deploy in its projects.")
    ] = False,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Let somebody make an account with an e-mail address, within 30 days."""
    from ztom.cli.actions.accounts import invite_user

    invite_user(address, server, deployer=deployer, as_json=as_json)


@user.command("invitations", epilog=examples("ztom user invitations"))
def user_invitations(server: Server = None, as_json: Json = False) -> None:
    """List invitations that nobody has taken yet."""
    from ztom.cli.actions.accounts import list_invitations

    list_invitations(server, as_json=as_json)


@user.command("uninvite", epilog=examples("ztom user uninvite grace@example.org"))
def user_uninvite(
    address: Annotated[str, typer.Argument(help="Address, or id of the invitation.")],
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Take an invitation back."""
    from ztom.cli.actions.accounts import withdraw_invitation

    withdraw_invitation(address, server, as_json=as_json)


@member.command("list", epilog=examples("ztom member list support"))
def member_list(project: ProjectName, server: Server = None, as_json: Json = False) -> None:
    """List the members of a project."""
    from ztom.cli.actions.accounts import list_members

    list_members(project, server, as_json=as_json)


@member.command(
    "add", epilog=examples("ztom member add support grace@example.org --permission WRITE")
)
def member_add(
    project: ProjectName,
    address: Annotated[str, typer.Argument(help="E-mail address of the account.")],
    permission: Permissions = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Make an account a member of a project."""
    from ztom.cli.actions.accounts import add_member

    add_member(project, address, permission or ["READ"], server, as_json=as_json)


@member.command("change", epilog=examples("ztom member change support grace --permission MANAGE"))
def member_change(
    project: ProjectName,
    user: User,
    permission: Permissions = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Give a member other permissions."""
    from ztom.cli.actions.accounts import change_member

    change_member(project, user, permission or ["READ"], server, as_json=as_json)


@member.command("remove", epilog=examples("ztom member remove support grace"))
def member_remove(
    project: ProjectName, user: User, server: Server = None, as_json: Json = False
) -> None:
    """Take a member out of a project."""
    from ztom.cli.actions.accounts import remove_member

    remove_member(project, user, server, as_json=as_json)


@key.command("list", epilog=examples("ztom key list"))
def key_list(server: Server = None, as_json: Json = False) -> None:
    """List your API keys, without their secrets."""
    from ztom.cli.actions.accounts import list_keys

    list_keys(server, as_json=as_json)


@key.command("create", epilog=examples("ztom key create ci --scope read --project support"))
def key_create(
    name: Annotated[str, typer.Argument(help="Name the key like this.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="Allow read, write or infer; may be repeated. Else all."),
    ] = None,
    project: Annotated[
        str | None, typer.Option(help="Allow this project only, by its id or name.")
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Allow so many requests to models a minute.")
    ] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Allow so many tokens of models a minute.")
    ] = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Make an API key; its secret is printed now and never again."""
    from ztom.cli.actions.accounts import create_key

    limits = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
    create_key(name, scope, project, limits, server, as_json=as_json)


@key.command("revoke", epilog=examples("ztom key revoke ci"))
def key_revoke(
    key: Annotated[str, typer.Argument(help="Id or name of the key.")],
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Revoke an API key at once."""
    from ztom.cli.actions.accounts import revoke_key

    revoke_key(key, server, as_json=as_json)
