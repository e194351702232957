"""Accounts: logging in, users, administrators, API keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ztom.wire import examples
from ztom.wire.base import WireAnswer, WireRequest
from ztom.wire.examples import example
from ztom.wire.fields import Email, Id, Name, Text, Username

if TYPE_CHECKING:
    from ztom.ledger.accounts import ApiKeyRecord, UserRecord
    from ztom.ledger.invitations import InvitationRecord

AccountRole = Literal["ADMIN", "DEPLOYER", "USER"]
KeyScope = Literal["read", "write", "infer"]


class Login(WireRequest):
    """Username or address, and password."""

    model_config = example(username="ada", password="correct horse battery")

    username: str = Field(max_length=200)
    password: str = Field(max_length=1000)


class Register(WireRequest):
    """A new account."""

    model_config = example(
        username="ada",
        emailAddress="ada@example.org",
        password="correct horse battery",
        firstName="Ada",
        lastName="Lovelace",
    )

    username: Username
    email_address: Email
    password: str = Field(min_length=10, max_length=1000)
    first_name: Text = ""
    last_name: Text = ""


class UserPatch(WireRequest):
    """A user about themselves; what is absent stays as it is."""

    model_config = example(firstName="Ada", lastName="King")

    username: Username | None = None
    email_address: Email | None = None
    first_name: Text | None = None
    last_name: Text | None = None
    password: str | None = Field(default=None, min_length=10, max_length=1000)
    current_password: str | None = Field(default=None, max_length=1000)


class AdminPatch(WireRequest):
    """An administrator about a user; what is absent stays as it is."""

    model_config = example(roles=["USER"], enabled=False)

    email_address: Email | None = None
    roles: tuple[AccountRole, ...] | None = None
    enabled: bool | None = None


class NewKey(WireRequest):
    """An API key to be made."""

    model_config = example(name="ci", scopes=["read", "write"], projectId=examples.PROJECT)

    name: Name
    scopes: tuple[KeyScope, ...] = Field(default=("read", "write", "infer"), min_length=1)
    project_id: Id | None = None
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)


class User(WireAnswer):
    """An account.

    Attributes:
        roles: ``USER``; ``DEPLOYER`` of who may deploy in their projects; ``ADMIN`` of who may
            everything.
        enabled: Whether the account is let in.
        created_at: Time in ISO 8601, UTC.
    """

    model_config = example(
        id=examples.USER,
        username="ada",
        emailAddress="ada@example.org",
        firstName="Ada",
        lastName="Lovelace",
        roles=["USER"],
        enabled=True,
        createdAt=examples.TIME,
    )

    id: str
    username: str
    email_address: str
    first_name: str
    last_name: str
    roles: tuple[AccountRole, ...]
    enabled: bool
    created_at: str

    @classmethod
    def of(cls, record: UserRecord) -> User:
        """The account on record."""
        return cls(
            id=record.id,
            username=record.username,
            email_address=record.email,
            first_name=record.first_name,
            last_name=record.last_name,
            roles=_roles(record),
            enabled=record.enabled,
            created_at=record.created,
        )


_KEY = {
    "id": examples.KEY,
    "name": "ci",
    "scopes": ["read", "write"],
    "projectId": examples.PROJECT,
    "requestsPerMinute": None,
    "tokensPerMinute": None,
    "createdAt": examples.TIME,
    "revokedAt": None,
}


class NewInvitation(WireRequest):
    """An address with which somebody may make an account."""

    model_config = example(emailAddress="grace@example.org", roles=["DEPLOYER"])

    email_address: Email
    roles: tuple[Literal["DEPLOYER", "USER"], ...] = ()


class Invitation(WireAnswer):
    """An invitation that nobody has taken yet.

    Attributes:
        roles: Roles that the account will have.
        actor: Name of whoever invites.
        created_at: Time in ISO 8601, UTC; it holds for 30 days.
    """

    model_config = example(
        id=examples.KEY,
        emailAddress="grace@example.org",
        roles=["DEPLOYER", "USER"],
        actor=f"user:{examples.USER}",
        createdAt=examples.TIME,
    )

    id: str
    email_address: str
    roles: tuple[AccountRole, ...]
    actor: str
    created_at: str

    @classmethod
    def of(cls, record: InvitationRecord) -> Invitation:
        """The invitation on record."""
        return cls(
            id=record.id,
            email_address=record.email,
            roles=("DEPLOYER", "USER") if record.may_deploy else ("USER",),
            actor=record.actor,
            created_at=record.created,
        )


class ApiKey(WireAnswer):
    """An API key without its secret.

    Attributes:
        project_id: The one project that the key is for; None for all of its user's.
        requests_per_minute: The key's own quota; None for the server's.
        tokens_per_minute: The key's own quota of generated tokens; None for the server's.
        revoked_at: Time in ISO 8601, UTC, since which the key lets nobody in.
    """

    model_config = example(**_KEY)

    id: str
    name: str
    scopes: tuple[KeyScope, ...]
    project_id: str | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    created_at: str
    revoked_at: str | None

    @classmethod
    def of(cls, record: ApiKeyRecord) -> ApiKey:
        """The API key on record."""
        return cls.model_validate(_key_fields(record))


class ApiKeySecret(ApiKey):
    """An API key with its secret, which is shown once.

    Attributes:
        key: Secret that a client sends in ``Authorization: Bearer``.
    """

    model_config = example(**_KEY, key="ztom_4f9c...")

    key: str

    @classmethod
    def issued(cls, record: ApiKeyRecord, secret: str) -> ApiKeySecret:
        """The API key on record, and its secret."""
        return cls.model_validate({**_key_fields(record), "key": secret})


def _roles(record: UserRecord) -> tuple[AccountRole, ...]:
    special: dict[AccountRole, bool] = {"ADMIN": record.is_admin, "DEPLOYER": record.may_deploy}
    return (*(role for role, given in special.items() if given), "USER")


def _key_fields(record: ApiKeyRecord) -> dict[str, object]:
    return {
        "id": record.id,
        "name": record.name,
        "scopes": [str(scope) for scope in record.scopes],
        "project_id": record.project_id,
        "requests_per_minute": record.requests_per_minute,
        "tokens_per_minute": record.tokens_per_minute,
        "created_at": record.created,
        "revoked_at": record.revoked,
    }
