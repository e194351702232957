"""Tokens and API keys that requests bring along, and whose they are."""

from __future__ import annotations

from fastapi import Request
from starlette.exceptions import HTTPException

from serve_apps.control_plane.callers import Known
from serve_apps.control_plane.services import Services
from serve_apps.control_plane.tokens import LOGIN
from ztom.errors import NotOnRecordError
from ztom.ledger.accounts import KEY_PREFIX, ApiKeyRecord, UserRecord


def known_caller(request: Request, services: Services) -> Known:
    """Whoever a request to a model names, and the projects whose endpoints they may call."""
    user, key = account_of(request, services)
    projects: frozenset[str | None] | None = None
    if not user.is_admin:
        projects = services.ledger.projects.ids_of(user.id) | {None}
    if key is not None and key.project_id is not None:
        theirs = projects is None or key.project_id in projects
        projects = frozenset({key.project_id} if theirs else ())
    return Known(user, key, projects)


def secret_of(request: Request) -> str:
    """The token or key of a request.

    Raises:
        HTTPException: 401, it has none.
    """
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not secret:
        secret = request.headers.get("x-api-key", "")
    secret = secret.strip()
    if not secret or len(secret) > 4096:
        raise unknown()
    return secret


def account_of(request: Request, services: Services) -> tuple[UserRecord, ApiKeyRecord | None]:
    """The account that a request names, and the API key if it was one.

    Raises:
        HTTPException: 401, it names none.
    """
    secret = secret_of(request)
    if secret.startswith(KEY_PREFIX):
        key_owner = services.ledger.accounts.by_key(secret)
        if key_owner is None:
            raise unknown()
        return key_owner
    claims = services.tokens.check(secret, audience=LOGIN)
    if claims is None:
        raise unknown()
    try:
        user = services.ledger.accounts.get(claims.subject)
    except NotOnRecordError:
        raise unknown() from None
    if user.session != claims.session:
        raise unknown()
    return user, None


def unknown() -> HTTPException:
    """The refusal of a request that names no account."""
    return HTTPException(401, "Log in first.", headers={"WWW-Authenticate": "Bearer"})
