"""Users and API keys.

Passwords come in hashed (`ztom.ledger.passwords`); of an API key only a hash is kept, so it is
shown once, when it is made. What a user may do is read here at every request: taking a right away,
disabling an account or changing a password works at once, whatever tokens are still about.
"""

from __future__ import annotations

import hashlib
import secrets
import unicodedata
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from ztom.errors import AlreadyOnRecordError, NotOnRecordError
from ztom.ledger.audit_store import append_event
from ztom.ledger.database import Database
from ztom.ledger.invitations import invitation
from ztom.ledger.models import ApiKeyRow, MembershipRow, UserRow, now
from ztom.ledger.records import AuditEvent

KEY_PREFIX = "ztom_"


def login_name(text: str) -> str:
    """A name or address as it is kept and looked up: one account, however it is spelt."""
    return unicodedata.normalize("NFKC", text).strip().lower()


class Scope(StrEnum):
    """What an API key is good for, within what its user may do."""

    READ = "read"
    WRITE = "write"
    INFER = "infer"


@dataclass(frozen=True, slots=True)
class UserRecord:
    """A user as callers see it.

    Attributes:
        id: Id that is never used again for somebody else.
        username: Name of the account in lower case.
        email: Address in lower case.
        is_admin: Whether they may manage users and see every project.
        may_deploy: Whether they may deploy, in projects where they may write; administrators may.
        enabled: Whether the user is let in; a disabled one is let in nowhere.
        session: Number that is raised to end every token that was given out before.
    """

    id: str
    username: str
    email: str
    first_name: str
    last_name: str
    is_admin: bool
    enabled: bool
    session: int
    created: str
    may_deploy: bool = False


@dataclass(frozen=True, slots=True)
class NewUser:
    """What is needed for a new account; `password_hash` comes from `ztom.ledger.passwords`."""

    username: str
    email: str
    password_hash: str
    first_name: str = ""
    last_name: str = ""
    is_admin: bool = False
    may_deploy: bool = False


@dataclass(frozen=True, slots=True)
class UserChange:
    """What is to be different; None leaves it."""

    username: str | None = None
    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    password_hash: str | None = None
    is_admin: bool | None = None
    may_deploy: bool | None = None
    enabled: bool | None = None


@dataclass(frozen=True, slots=True)
class ApiKeyRecord:
    """An API key without its secret; quotas of None are the server's."""

    id: str
    user_id: str
    name: str
    scopes: tuple[Scope, ...]
    project_id: str | None
    created: str
    revoked: str | None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


class Accounts:
    """Reads and writes users and API keys; part of `ztom.ledger.Ledger`.

    Every change is a row of the audit chain, in the same transaction.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, new: NewUser, *, actor: str, invited: bool = False) -> UserRecord:
        """Add a user.

        Args:
            new: The account.
            actor: Name of whoever adds it.
            invited: Whether the address has to be invited; the invitation is taken, and says
                whether they may deploy.

        Raises:
            AlreadyOnRecordError: The name or the address is taken.
            NotOnRecordError: The address has to be invited, and is not.
        """
        username, email = login_name(new.username), login_name(new.email)
        with self._database.write("add a user to") as session:
            _refuse_taken(session, username=username, email=email)
            may_deploy = new.may_deploy
            if invited:
                may_deploy = _take_invitation(session, email)
            row = UserRow(
                id=uuid.uuid4().hex,
                username=username,
                email=email,
                first_name=new.first_name,
                last_name=new.last_name,
                password_hash=new.password_hash,
                is_admin=new.is_admin,
                may_deploy=may_deploy,
            )
            session.add(row)
            session.flush()
            _audit(session, actor, "user.create", row.id, note=_rights(row))
            return _user(row)

    def all(self) -> tuple[UserRecord, ...]:
        """Every user, by name."""
        with self._database.read() as session:
            return tuple(map(_user, session.scalars(select(UserRow).order_by(UserRow.username))))

    def get(self, user_id: str) -> UserRecord:
        """The user with this id.

        Raises:
            NotOnRecordError: There is none.
        """
        with self._database.read() as session:
            return _user(_user_row(session, user_id))

    def by_email(self, email: str) -> UserRecord:
        """The user with this address.

        Raises:
            NotOnRecordError: There is none.
        """
        with self._database.read() as session:
            row = _find(session, email, UserRow.email)
            if row is None:
                raise NotOnRecordError("there is no user with this address", got=email)
            return _user(row)

    def for_login(self, name: str) -> tuple[UserRecord, str] | None:
        """User and password hash by name or address; None when there is no such account."""
        with self._database.read() as session:
            row = _find(session, name, UserRow.username, UserRow.email)
            return None if row is None else (_user(row), row.password_hash)

    def password_hash(self, user_id: str) -> str:
        """What is kept of a user's password.

        Raises:
            NotOnRecordError: There is no such user.
        """
        with self._database.read() as session:
            return _user_row(session, user_id).password_hash

    def change(self, user_id: str, change: UserChange, *, actor: str) -> UserRecord:
        """Change a user; a new password ends the tokens that are about.

        Raises:
            NotOnRecordError: There is no such user.
            AlreadyOnRecordError: The name or address is taken, or it was the last administrator.
        """
        with self._database.write("change a user in") as session:
            row = _user_row(session, user_id)
            changed = []
            username = None if change.username is None else login_name(change.username)
            email = None if change.email is None else login_name(change.email)
            if username is not None and username != row.username:
                _refuse_taken(session, username=username, besides=row.id)
                row.username = username
                changed.append("username")
            if email is not None and email != row.email:
                _refuse_taken(session, email=email)
                row.email = email
                changed.append("address")
            for name in (
                "first_name",
                "last_name",
                "password_hash",
                "is_admin",
                "may_deploy",
                "enabled",
            ):
                value = getattr(change, name)
                if value is not None and value != getattr(row, name):
                    setattr(row, name, value)
                    changed.append(f"{name}: {value}" if isinstance(value, bool) else name)
            if change.password_hash is not None or change.enabled is False:
                row.session += 1
            session.flush()
            if change.is_admin is False or change.enabled is False:
                _require_an_admin(session)
            _audit(session, actor, "user.change", row.id, note=", ".join(changed))
            return _user(row)

    def remove(self, user_id: str, *, actor: str) -> None:
        """Take an account away: nothing is left of it but its id, on which the records stand.

        Raises:
            NotOnRecordError: There is no such user.
            AlreadyOnRecordError: It was the last administrator.
        """
        with self._database.write("remove a user from") as session:
            row = _user_row(session, user_id)
            row.username = row.email = f"removed-{row.id}"
            row.first_name = row.last_name = row.password_hash = ""
            was_admin = row.is_admin and row.enabled
            row.is_admin = row.may_deploy = row.enabled = False
            row.session += 1
            session.execute(delete(MembershipRow).where(MembershipRow.user_id == row.id))
            for key in session.scalars(select(ApiKeyRow).where(ApiKeyRow.user_id == row.id)):
                key.revoked = key.revoked or now()
            session.flush()
            if was_admin:
                _require_an_admin(session)
            _audit(session, actor, "user.remove", row.id)

    def create_key(
        self,
        user_id: str,
        *,
        name: str,
        scopes: Sequence[Scope],
        project_id: str | None,
        actor: str,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
    ) -> tuple[ApiKeyRecord, str]:
        """Make an API key; the second value is the key itself, which is kept nowhere."""
        secret = KEY_PREFIX + secrets.token_urlsafe(32)
        with self._database.write("add an API key to") as session:
            row = ApiKeyRow(
                id=uuid.uuid4().hex,
                user_id=user_id,
                name=name,
                hash=_key_hash(secret),
                scopes=[str(scope) for scope in scopes],
                project_id=project_id,
                requests_per_minute=requests_per_minute,
                tokens_per_minute=tokens_per_minute,
            )
            session.add(row)
            session.flush()
            event = AuditEvent(actor=actor, action="key.create", subject=f"key:{row.id}")
            append_event(session, event)
            return _key(row), secret

    def keys(self, user_id: str) -> tuple[ApiKeyRecord, ...]:
        """A user's API keys, revoked ones too, oldest first."""
        query = select(ApiKeyRow).where(ApiKeyRow.user_id == user_id)
        with self._database.read() as session:
            return tuple(map(_key, session.scalars(query.order_by(ApiKeyRow.created))))

    def by_key(self, secret: str) -> tuple[UserRecord, ApiKeyRecord] | None:
        """User and key of a secret; None when it is nobody's, or was revoked."""
        query = select(ApiKeyRow).where(
            ApiKeyRow.hash == _key_hash(secret), ApiKeyRow.revoked.is_(None)
        )
        with self._database.read() as session:
            row = session.scalars(query).first()
            return None if row is None else (_user(_user_row(session, row.user_id)), _key(row))

    def revoke_key(self, user_id: str, key_id: str, *, actor: str) -> None:
        """End an API key.

        Raises:
            NotOnRecordError: The user has no such key.
        """
        with self._database.write("revoke an API key in") as session:
            row = session.get(ApiKeyRow, key_id)
            if row is None or row.user_id != user_id:
                raise NotOnRecordError("there is no such API key", got=key_id)
            row.revoked = row.revoked or now()
            event = AuditEvent(actor=actor, action="key.revoke", subject=f"key:{row.id}")
            append_event(session, event)


def _find(session: Session, name: str, *columns: InstrumentedAttribute[str]) -> UserRow | None:
    """The user with this value in one of the columns; accounts of before may be spelt otherwise."""
    for spelling in dict.fromkeys((name.lower(), login_name(name))):
        query = select(UserRow).where(or_(*(column == spelling for column in columns)))
        row = session.scalars(query).first()
        if row is not None:
            return row
    return None


def _key_hash(secret: str) -> str:
    """A plain hash is enough: 256 random bits cannot be guessed, as a password could."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _take_invitation(session: Session, email: str) -> bool:
    """Take an invitation; returns whether it lets the account deploy."""
    row = invitation(session, email)
    if row is None:
        raise NotOnRecordError("this address is not invited", got=email)
    session.delete(row)
    return row.may_deploy


def _rights(row: UserRow) -> str:
    return f"admin: {row.is_admin}" + ("; may deploy" if row.may_deploy else "")


def _user_row(session: Session, user_id: str) -> UserRow:
    row = session.get(UserRow, user_id)
    if row is None:
        raise NotOnRecordError("there is no such user", got=user_id)
    return row


def _refuse_taken(
    session: Session,
    *,
    email: str | None = None,
    username: str | None = None,
    besides: str | None = None,
) -> None:
    # a name that is somebody's address would let its owner in, or keep the other out, by it
    names = [name for name in (email, username) if name is not None]
    query = select(UserRow).where(or_(UserRow.email.in_(names), UserRow.username.in_(names)))
    if besides is not None:
        query = query.where(UserRow.id != besides)
    if session.scalars(query).first() is not None:
        raise AlreadyOnRecordError(
            "there is a user with this name or address", fix="Choose another one."
        )


def _require_an_admin(session: Session) -> None:
    query = select(func.count()).where(UserRow.is_admin.is_(True), UserRow.enabled.is_(True))
    if session.scalar(query) == 0:
        raise AlreadyOnRecordError(
            "no administrator would be left", fix="Make somebody else one first."
        )


def _audit(session: Session, actor: str, action: str, user_id: str, *, note: str = "") -> None:
    event = AuditEvent(actor=actor, action=action, subject=f"user:{user_id}", note=note)
    append_event(session, event)


def _user(row: UserRow) -> UserRecord:
    return UserRecord(
        id=row.id,
        username=row.username,
        email=row.email,
        first_name=row.first_name,
        last_name=row.last_name,
        is_admin=row.is_admin,
        enabled=row.enabled,
        session=row.session,
        created=row.created,
        may_deploy=row.may_deploy,
    )


def _key(row: ApiKeyRow) -> ApiKeyRecord:
    return ApiKeyRecord(
        id=row.id,
        user_id=row.user_id,
        name=row.name,
        scopes=tuple(Scope(scope) for scope in row.scopes),
        project_id=row.project_id,
        created=row.created,
        revoked=row.revoked,
        requests_per_minute=row.requests_per_minute,
        tokens_per_minute=row.tokens_per_minute,
    )
