"""Accounts of a server, members of a project and API keys, from Python.

```python
with Client("http://127.0.0.1:8000") as client:
    key = client.accounts.add_key("ci", scopes=["read", "write"])
    client.accounts.add_member("support", "ada@example.org", ["READ"])
```
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from ztom.client.connection import Connection
from ztom.client.names import Names, pick
from ztom.wire.accounts import (
    AdminPatch,
    ApiKey,
    ApiKeySecret,
    Invitation,
    NewInvitation,
    NewKey,
    Register,
    User,
)
from ztom.wire.projects import MemberPatch, NewMember, ProjectMember
from ztom.wire.usage import UsageReport


class AccountCalls:
    """Part of `ztom.client.Client`; what it returns is what the server answers.

    Args:
        connection: Connection to the server.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._names = Names(connection)

    def usage(
        self,
        *,
        first: str | None = None,
        last: str | None = None,
        by: Sequence[str] = (),
        project_id: str | None = None,
        price_per_hour: float | None = None,
        price_per_1000_prompt_tokens: float | None = None,
        price_per_1000_completion_tokens: float | None = None,
    ) -> UsageReport:
        """Who used how much of what is served.

        Args:
            first: First day (UTC), as ``2026-03-01``; the first of the month of `last` if None.
            last: Last day, included; today if None.
            by: What lines are told apart by: ``key``, ``project``, ``variant``, ``day``; all if
                empty.
            project_id: Project, by id or name, whose endpoints count alone; all that one sees if
                None.
            price_per_hour: Price of an hour of a replica; what each was deployed with if None.
            price_per_1000_prompt_tokens: Price of tokens in prompts.
            price_per_1000_completion_tokens: Price of generated tokens.
        """
        project = None if project_id is None else self._names.project_id(project_id)
        wanted: dict[str, object] = {
            "from": first,
            "to": last,
            "by": list(by) or None,
            "projectId": project,
            "pricePerHour": price_per_hour,
            "pricePer1000PromptTokens": price_per_1000_prompt_tokens,
            "pricePer1000CompletionTokens": price_per_1000_completion_tokens,
        }
        params = {name: value for name, value in wanted.items() if value is not None}
        return self._connection.ask(UsageReport, "GET", "/v1/usage", params=params)

    def users(self, *, admins: bool = False) -> list[User]:
        """Every account, or the administrators alone; administrators only."""
        return self._connection.ask_all(User, "GET", _route(admin=admins))

    def add_user(
        self,
        username: str,
        email_address: str,
        password: str,
        *,
        admin: bool = False,
        **more: Any,
    ) -> User:
        """Make an account; administrators only.

        Args:
            username: Name to log in with.
            email_address: E-mail address to log in with.
            password: Password that it begins with.
            admin: Whether it is an administrator's.
            more: ``first_name`` and ``last_name``.
        """
        new = Register.model_construct(
            username=username, email_address=email_address, password=password, **more
        )
        return self._connection.ask(User, "POST", _route(admin=admin), new)

    def change_user(self, user: str, **changes: Any) -> User:
        """Change an account: ``email_address``, ``roles`` or ``enabled``; administrators only."""
        address = f"{_route(admin=False)}/{self._names.user_id(user)}"
        return self._connection.ask(User, "PATCH", address, AdminPatch.model_construct(**changes))

    def remove_user(self, user: str) -> None:
        """Take an account away; administrators only."""
        self._connection.call("DELETE", f"{_route(admin=False)}/{self._names.user_id(user)}")

    def invite(self, email_address: str, *, may_deploy: bool = False) -> Invitation:
        """Let somebody make an account with an address, once; administrators only.

        Args:
            email_address: E-mail address.
            may_deploy: Whether the account gets the role DEPLOYER.
        """
        roles: tuple[Literal["DEPLOYER"], ...] = ("DEPLOYER",) if may_deploy else ()
        new = NewInvitation.model_construct(email_address=email_address, roles=roles)
        return self._connection.ask(Invitation, "POST", "/v1/invitations", new)

    def invitations(self) -> list[Invitation]:
        """Invitations that nobody has taken yet, oldest first; administrators only."""
        return self._connection.ask_all(Invitation, "GET", "/v1/invitations")

    def withdraw_invitation(self, invitation: str) -> None:
        """Take an invitation back, by its id or its address; administrators only."""
        chosen = pick(
            invitation,
            self.invitations(),
            what="invitation",
            id_of=lambda known: known.id,
            names_of=lambda known: (known.email_address,),
        )
        self._connection.call("DELETE", f"/v1/invitations/{chosen.id}")

    def keys(self) -> list[ApiKey]:
        """The account's API keys, without their secrets."""
        return self._connection.ask_all(ApiKey, "GET", "/v1/keys")

    def add_key(
        self,
        name: str,
        *,
        scopes: Sequence[str] | None = None,
        project_id: str | None = None,
        **limits: Any,
    ) -> ApiKeySecret:
        """Make an API key; its secret is in this answer and never again.

        Args:
            name: Name of the key.
            scopes: Scopes out of ``read``, ``write`` and ``infer``; all of them when None.
            project_id: Id or name of the one project that it is for; None for all.
            limits: ``requests_per_minute`` and ``tokens_per_minute``.
        """
        fields: dict[str, Any] = {"name": name, **limits}
        if scopes:
            fields["scopes"] = tuple(scopes)
        if project_id is not None:
            fields["project_id"] = self._names.project_id(project_id)
        new = NewKey.model_construct(**fields)
        return self._connection.ask(ApiKeySecret, "POST", "/v1/keys", new)

    def revoke_key(self, key: str) -> None:
        """Revoke an API key, by its id or its name."""
        chosen = pick(
            key,
            [known for known in self.keys() if known.revoked_at is None or known.id == key],
            what="key",
            id_of=lambda known: known.id,
            names_of=lambda known: (known.name,),
        )
        self._connection.call("DELETE", f"/v1/keys/{chosen.id}")

    def members(self, project_id: str) -> list[ProjectMember]:
        """The members of a project."""
        return self._connection.ask_all(ProjectMember, "GET", self._members(project_id))

    def add_member(
        self, project_id: str, email_address: str, permissions: Sequence[str]
    ) -> ProjectMember:
        """Make an account a member of a project."""
        new = NewMember.model_construct(email_address=email_address, permissions=tuple(permissions))
        self._connection.call("POST", self._members(project_id), json=new.body())
        return self._member(project_id, email_address)

    def change_member(
        self, project_id: str, member: str, permissions: Sequence[str]
    ) -> ProjectMember:
        """Give a member, by id, name or address, other permissions."""
        patch = MemberPatch.model_construct(permissions=tuple(permissions))
        chosen = self._member(project_id, member)
        address = f"{self._members(project_id)}/{chosen.id}"
        self._connection.call("PATCH", address, json=patch.body())
        return self._member(project_id, chosen.id)

    def remove_member(self, project_id: str, member: str) -> None:
        """Take a member, by id, name or address, out of a project."""
        chosen = self._member(project_id, member)
        self._connection.call("DELETE", f"{self._members(project_id)}/{chosen.id}")

    def _members(self, project_id: str) -> str:
        return f"/project/{self._names.project_id(project_id)}/user"

    def _member(self, project_id: str, member: str) -> ProjectMember:
        return pick(
            member,
            self.members(project_id),
            what="member",
            id_of=lambda known: known.id,
            names_of=lambda known: (known.username, known.email_address),
        )


def _route(*, admin: bool) -> str:
    return "/api/auth/admin" if admin else "/api/auth/admin/user"
