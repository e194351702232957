"""Keys whose signatures count: registered and revoked by administrators, seen by everybody."""

from __future__ import annotations

from fastapi import APIRouter

from serve_apps.control_plane.access import CallerOf, Permission, ServicesOf, route
from ztom.wire.fields import Id
from ztom.wire.signing_keys import NewSigningKey, SigningKey

router = APIRouter(tags=["verdicts"])


@route(router, "GET", "/v1/signing-keys", Permission.USER)
def signing_keys(services: ServicesOf) -> list[SigningKey]:
    """Keys whose signatures count, or did until they were revoked, oldest first."""
    return [SigningKey.of(record) for record in services.ledger.signing_keys.all()]


@route(router, "POST", "/v1/signing-keys", Permission.ADMIN, status_code=201)
def register_signing_key(body: NewSigningKey, caller: CallerOf, services: ServicesOf) -> SigningKey:
    """Let the signatures of a key count."""
    keys = services.ledger.signing_keys
    return SigningKey.of(keys.register(body.name, body.public_key, actor=caller.actor))


@route(router, "DELETE", "/v1/signing-keys/{key_id}", Permission.ADMIN)
def revoke_signing_key(key_id: Id, caller: CallerOf, services: ServicesOf) -> SigningKey:
    """Let the signatures of a key count no more, those that are on record neither."""
    return SigningKey.of(services.ledger.signing_keys.revoke(key_id, actor=caller.actor))
