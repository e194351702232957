"""What ``ztom user``, ``ztom member`` and ``ztom key`` do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ztom.cli.actions.answers import print_answer, print_table
from ztom.cli.actions.password import read_password
from ztom.cli.actions.remote import connect
from ztom.cli.console import moment
from ztom.errors import ConfigError

if TYPE_CHECKING:
    from ztom.wire.accounts import User
    from ztom.wire.projects import ProjectMember


def list_users(server: str | None, *, admins: bool, as_json: bool) -> None:
    """List accounts."""
    with connect(server) as client:
        users = client.accounts.users(admins=admins)
    rows = [
        (user.id, user.username, user.email_address, " ".join(user.roles), _state(user))
        for user in users
    ]
    print_table(users, ("user", "name", "address", "roles", "state"), rows, as_json=as_json)


def add_user(
    username: str, address: str, server: str | None, *, admin: bool, stdin: bool, as_json: bool
) -> None:
    """Make an account."""
    with connect(server) as client:
        password = read_password(stdin=stdin, twice=True)
        user = client.accounts.add_user(username, address, password, admin=admin)
    print_answer(user, f"{user.id}  {user.username}", as_json=as_json)


def change_user(
    name: str, changes: Mapping[str, Any], server: str | None, *, as_json: bool
) -> None:
    """Change an account.

    Raises:
        ConfigError: Nothing is to be changed.
    """
    wanted = {key: value for key, value in changes.items() if value is not None}
    if not wanted:
        raise ConfigError("nothing is to be changed", fix="Give --address, --role or --disable.")
    with connect(server) as client:
        user = client.accounts.change_user(name, **wanted)
    line = f"{user.username}: {user.email_address}, {' '.join(user.roles)}, {_state(user)}"
    print_answer(user, line, as_json=as_json)


def remove_user(name: str, server: str | None, *, as_json: bool) -> None:
    """Take an account away."""
    with connect(server) as client:
        client.accounts.remove_user(name)
    print_answer({"removed": name}, f"{name} is removed", as_json=as_json)


def invite_user(address: str, server: str | None, *, deployer: bool, as_json: bool) -> None:
    """Invite an address."""
    with connect(server) as client:
        invitation = client.accounts.invite(address, may_deploy=deployer)
    line = f"{invitation.email_address} may register: {' '.join(invitation.roles)}"
    print_answer(invitation, line, as_json=as_json)


def list_invitations(server: str | None, *, as_json: bool) -> None:
    """List invitations."""
    with connect(server) as client:
        invitations = client.accounts.invitations()
    rows = [
        (invitation.email_address, " ".join(invitation.roles), moment(invitation.created_at))
        for invitation in invitations
    ]
    print_table(invitations, ("address", "roles", "invited"), rows, as_json=as_json)


def withdraw_invitation(address: str, server: str | None, *, as_json: bool) -> None:
    """Take an invitation back."""
    with connect(server) as client:
        client.accounts.withdraw_invitation(address)
    print_answer({"uninvited": address}, f"{address} is not invited any more", as_json=as_json)


def _state(user: User) -> str:
    return "enabled" if user.enabled else "disabled"


def list_members(project: str, server: str | None, *, as_json: bool) -> None:
    """List a project's members."""
    with connect(server) as client:
        members = client.accounts.members(project)
    rows = [(m.id, m.username, m.email_address, m.role, " ".join(m.permissions)) for m in members]
    headers = ("user", "name", "address", "role", "permissions")
    print_table(members, headers, rows, as_json=as_json)


def add_member(
    project: str, address: str, permissions: Sequence[str], server: str | None, *, as_json: bool
) -> None:
    """Make an account a member."""
    with connect(server) as client:
        member = client.accounts.add_member(project, address, permissions)
    print_answer(member, _member_line(member), as_json=as_json)


def change_member(
    project: str, name: str, permissions: Sequence[str], server: str | None, *, as_json: bool
) -> None:
    """Give a member other permissions."""
    with connect(server) as client:
        member = client.accounts.change_member(project, name, permissions)
    print_answer(member, _member_line(member), as_json=as_json)


def remove_member(project: str, name: str, server: str | None, *, as_json: bool) -> None:
    """Take a member out of a project."""
    with connect(server) as client:
        client.accounts.remove_member(project, name)
    print_answer({"removed": name}, f"{name} is no member of {project} any more", as_json=as_json)


def _member_line(member: ProjectMember) -> str:
    return f"{member.username}: {member.role}, {' '.join(member.permissions)}"


def list_keys(server: str | None, *, as_json: bool) -> None:
    """List the account's keys."""
    with connect(server) as client:
        keys = client.accounts.keys()
    rows = [
        (
            key.id,
            key.name,
            " ".join(key.scopes),
            key.project_id,
            moment(key.created_at),
            None if key.revoked_at is None else moment(key.revoked_at),
        )
        for key in keys
    ]
    headers = ("key", "name", "scopes", "project", "made", "revoked")
    print_table(keys, headers, rows, as_json=as_json)


def create_key(
    name: str,
    scopes: Sequence[str] | None,
    project: str | None,
    limits: Mapping[str, int | None],
    server: str | None,
    *,
    as_json: bool,
) -> None:
    """Make a key and print its secret."""
    wanted = {limit: value for limit, value in limits.items() if value is not None}
    with connect(server) as client:
        key = client.accounts.add_key(name, scopes=scopes, project_id=project, **wanted)
    print_answer(key, key.key, as_json=as_json)


def revoke_key(name: str, server: str | None, *, as_json: bool) -> None:
    """Revoke a key."""
    with connect(server) as client:
        client.accounts.revoke_key(name)
    print_answer({"revoked": name}, f"{name} is revoked", as_json=as_json)
