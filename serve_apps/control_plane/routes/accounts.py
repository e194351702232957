"""Logging in, users, administrators, API keys."""

from __future__ import annotations

import asyncio
import functools
import time

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException

from serve_apps.control_plane.access import (
    CallerOf,
    Permission,
    ServicesOf,
    route,
    terms_of,
)
from serve_apps.control_plane.openapi import sends_text
from serve_apps.control_plane.services import Services
from serve_apps.control_plane.tokens import LOGIN
from ztom.errors import NotOnRecordError
from ztom.ledger.accounts import NewUser, Scope, UserChange, login_name
from ztom.ledger.passwords import hash_password, is_password
from ztom.wire.accounts import (
    AdminPatch,
    ApiKey,
    ApiKeySecret,
    Invitation,
    Login,
    NewInvitation,
    NewKey,
    Register,
    User,
    UserPatch,
)
from ztom.wire.fields import Id
from ztom.wire.limits import Limit

router = APIRouter(tags=["accounts"])


@route(router, "POST", "/api/auth/login", Permission.PUBLIC, **sends_text("eyJhbGciOi..."))
async def login(body: Login, request: Request, services: ServicesOf) -> PlainTextResponse:
    """A token for a password, as plain text."""
    find = services.ledger.accounts.for_login
    account = await to_thread.run_sync(find, body.username, limiter=services.door)
    user, kept = account if account is not None else (None, None)
    name, address = (
        login_name(body.username) if user is None else user.id,
        terms_of(request).address,
    )
    _take_a_try(services, name, address)
    is_right = await services.hashing.run(is_password, body.password, kept)
    if not is_right or user is None or not user.enabled:
        raise HTTPException(401, "Wrong name or password.")
    services.limit.succeeded(name, address)
    seconds = services.config.token_hours * 3600
    token = services.tokens.issue(user.id, audience=LOGIN, seconds=seconds, session=user.session)
    return PlainTextResponse(token, headers={"Cache-Control": "no-store"})


@route(router, "POST", "/api/auth/register", Permission.PUBLIC, status_code=201)
async def register(body: Register, request: Request, services: ServicesOf) -> User:
    """Make an account for oneself."""
    if services.config.registration == "closed":
        raise HTTPException(403, "Accounts are made by administrators here.")
    wait_s = services.limit.take_registration(terms_of(request).address, now=time.monotonic())
    _refuse_early(wait_s, "Too many accounts are being made from your address.")
    actor = f"registration:{login_name(body.username)}"
    if services.config.registration == "open":
        return await _create(services, body, is_admin=False, actor=actor)
    # before the password is hashed, which costs
    if not await asyncio.to_thread(services.ledger.invitations.holds, body.email_address):
        raise _uninvited()
    try:
        return await _create(services, body, is_admin=False, actor=actor, invited=True)
    except NotOnRecordError:
        raise _uninvited() from None


@route(router, "GET", "/api/auth/user", Permission.USER)
def who_am_i(caller: CallerOf) -> User:
    """The account that the token is of."""
    return User.of(caller.user)


@route(router, "PATCH", "/api/auth/user", Permission.USER)
async def change_me(
    body: UserPatch, request: Request, caller: CallerOf, services: ServicesOf
) -> User:
    """Change one's own account; a new password takes the old one, and ends every token."""
    if caller.key is not None:
        raise HTTPException(403, "An API key cannot change the account that it is of.")
    accounts, run = services.ledger.accounts, services.hashing.run
    if body.password is not None or body.email_address is not None:
        address = terms_of(request).address
        _take_a_try(services, caller.user.id, address)
        kept = await asyncio.to_thread(accounts.password_hash, caller.user.id)
        if not await run(is_password, body.current_password or "", kept):
            raise HTTPException(403, "Give currentPassword, the one in use now.")
        services.limit.succeeded(caller.user.id, address)
    change = UserChange(
        username=body.username,
        email=body.email_address,
        first_name=body.first_name,
        last_name=body.last_name,
        password_hash=None if body.password is None else await run(hash_password, body.password),
    )
    changed = await asyncio.to_thread(accounts.change, caller.user.id, change, actor=caller.actor)
    return User.of(changed)


@route(router, "GET", "/api/auth/admin", Permission.ADMIN)
def administrators(services: ServicesOf) -> list[User]:
    """Every administrator."""
    return [User.of(user) for user in services.ledger.accounts.all() if user.is_admin]


@route(router, "POST", "/api/auth/admin", Permission.ADMIN, status_code=201)
async def add_administrator(body: Register, caller: CallerOf, services: ServicesOf) -> User:
    """Make an administrator's account."""
    return await _create(services, body, is_admin=True, actor=caller.actor)


@route(router, "GET", "/api/auth/admin/user", Permission.ADMIN)
def users(services: ServicesOf) -> list[User]:
    """Every account."""
    return [User.of(user) for user in services.ledger.accounts.all()]


@route(router, "POST", "/api/auth/admin/user", Permission.ADMIN, status_code=201)
async def add_user(body: Register, caller: CallerOf, services: ServicesOf) -> User:
    """Make a user's account."""
    return await _create(services, body, is_admin=False, actor=caller.actor)


@route(router, "PATCH", "/api/auth/admin/user/{user_id}", Permission.ADMIN)
def change_user(user_id: Id, body: AdminPatch, caller: CallerOf, services: ServicesOf) -> User:
    """Change an account: what it may do, whether it is let in."""
    change = UserChange(
        email=body.email_address,
        is_admin=None if body.roles is None else "ADMIN" in body.roles,
        may_deploy=None if body.roles is None else "DEPLOYER" in body.roles,
        enabled=body.enabled,
    )
    return User.of(services.ledger.accounts.change(user_id, change, actor=caller.actor))


@route(router, "DELETE", "/api/auth/admin/user/{user_id}", Permission.ADMIN, status_code=204)
def remove_user(user_id: Id, caller: CallerOf, services: ServicesOf) -> None:
    """Take an account away."""
    services.ledger.accounts.remove(user_id, actor=caller.actor)


@route(router, "PATCH", "/api/auth/admin/{user_id}", Permission.ADMIN)
def change_administrator(
    user_id: Id, body: AdminPatch, caller: CallerOf, services: ServicesOf
) -> User:
    """The same for an administrator."""
    return change_user(user_id, body, caller, services)


@route(router, "DELETE", "/api/auth/admin/{user_id}", Permission.ADMIN, status_code=204)
def remove_administrator(user_id: Id, caller: CallerOf, services: ServicesOf) -> None:
    """The same for an administrator."""
    services.ledger.accounts.remove(user_id, actor=caller.actor)


@route(router, "GET", "/v1/invitations", Permission.ADMIN)
def invitations(services: ServicesOf) -> list[Invitation]:
    """Invitations that nobody has taken yet, oldest first."""
    return [Invitation.of(record) for record in services.ledger.invitations.all()]


@route(router, "POST", "/v1/invitations", Permission.ADMIN, status_code=201)
def invite(body: NewInvitation, caller: CallerOf, services: ServicesOf) -> Invitation:
    """Let somebody make an account with an address, once."""
    may_deploy = "DEPLOYER" in body.roles
    record = services.ledger.invitations.invite(
        body.email_address, may_deploy=may_deploy, actor=caller.actor
    )
    return Invitation.of(record)


@route(router, "DELETE", "/v1/invitations/{key_id}", Permission.ADMIN, status_code=204)
def withdraw_invitation(key_id: Id, caller: CallerOf, services: ServicesOf) -> None:
    """Take an invitation back."""
    services.ledger.invitations.withdraw(key_id, actor=caller.actor)


@route(router, "GET", "/v1/keys", Permission.USER)
def keys(caller: CallerOf, services: ServicesOf) -> list[ApiKey]:
    """One's own API keys, without their secrets."""
    return [ApiKey.of(key) for key in services.ledger.accounts.keys(caller.user.id)]


@route(router, "GET", "/v1/limits", Permission.USER)
def limits(caller: CallerOf, services: ServicesOf) -> list[Limit]:
    """How much of the server the account holds, and may hold."""
    return services.account_limits.all_of(caller.user.id)


@route(router, "POST", "/v1/keys", Permission.USER, status_code=201)
def add_key(
    body: NewKey, caller: CallerOf, services: ServicesOf, response: Response
) -> ApiKeySecret:
    """Make an API key; the answer alone ever shows it."""
    if caller.key is not None:
        raise HTTPException(403, "An API key cannot make another one.")
    if body.project_id is not None:
        ledger = services.ledger.projects
        if not caller.user.is_admin and ledger.role(body.project_id, caller.user.id) is None:
            raise HTTPException(404, "there is no such project")
        ledger.get(body.project_id)
    key, secret = services.ledger.accounts.create_key(
        caller.user.id,
        name=body.name,
        scopes=tuple(map(Scope, body.scopes)),
        project_id=body.project_id,
        actor=caller.actor,
        requests_per_minute=body.requests_per_minute,
        tokens_per_minute=body.tokens_per_minute,
    )
    response.headers["Cache-Control"] = "no-store"
    return ApiKeySecret.issued(key, secret)


@route(router, "DELETE", "/v1/keys/{key_id}", Permission.USER, status_code=204)
def revoke_key(key_id: Id, caller: CallerOf, services: ServicesOf) -> None:
    """End an API key."""
    services.ledger.accounts.revoke_key(caller.user.id, key_id, actor=caller.actor)


def _take_a_try(services: Services, account: str, address: str) -> None:
    """Count a password before it is looked at: many at once are no way around the limit."""
    wait_s = services.limit.take(account, address, now=time.monotonic())
    _refuse_early(wait_s, "Too many wrong passwords.")


def _refuse_early(wait_s: float, reason: str) -> None:
    if wait_s > 0:
        seconds = int(wait_s) + 1
        raise HTTPException(
            429, f"{reason} Try again in {seconds} s.", headers={"Retry-After": str(seconds)}
        )


def _uninvited() -> HTTPException:
    return HTTPException(
        403,
        "Accounts are made by invitation here: ask an administrator to invite your e-mail address "
        "(`ztom user invite ADDRESS`, or POST /v1/invitations), then register with it.",
    )


async def _create(
    services: Services, body: Register, *, is_admin: bool, actor: str, invited: bool = False
) -> User:
    new = NewUser(
        username=body.username,
        email=body.email_address,
        password_hash=await services.hashing.run(hash_password, body.password),
        first_name=body.first_name,
        last_name=body.last_name,
        is_admin=is_admin,
    )
    create = functools.partial(services.ledger.accounts.create, actor=actor, invited=invited)
    return User.of(await asyncio.to_thread(create, new))
