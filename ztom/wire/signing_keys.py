"""Keys whose signatures count on a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ztom.io.signatures import PublicKey
from ztom.wire import examples
from ztom.wire.base import WireAnswer, WireRequest
from ztom.wire.examples import example
from ztom.wire.fields import Name

if TYPE_CHECKING:
    from ztom.ledger.signing_keys import SigningKeyRecord


class NewSigningKey(WireRequest):
    """A key to be registered: its public half, 32 bytes in Base64."""

    model_config = example(name="ci", publicKey=examples.PUBLIC_KEY)

    name: Name
    public_key: PublicKey


class SigningKey(WireAnswer):
    """A registered key.

    Attributes:
        name: Name under which records show who signed.
        public_key: Public key of 32 bytes, in Base64.
        actor: Name of whoever registered it.
        created_at: Time in ISO 8601, UTC.
        revoked_at: Time in ISO 8601, UTC, since which its signatures count no more.
    """

    model_config = example(
        id=examples.KEY,
        name="ci",
        publicKey=examples.PUBLIC_KEY,
        actor=f"user:{examples.USER}",
        createdAt=examples.TIME,
        revokedAt=None,
    )

    id: str
    name: str
    public_key: str
    actor: str
    created_at: str
    revoked_at: str | None

    @classmethod
    def of(cls, record: SigningKeyRecord) -> SigningKey:
        """The key on record."""
        return cls(
            id=record.id,
            name=record.name,
            public_key=record.public_key,
            actor=record.actor,
            created_at=record.created,
            revoked_at=record.revoked,
        )
