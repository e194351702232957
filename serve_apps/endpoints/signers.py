"""Whose variants a server takes: those of registered keys, and those that it wrote itself."""

from __future__ import annotations

from pathlib import Path

from ztom.errors import SignatureError
from ztom.io.signatures import fingerprint
from ztom.ledger.signing_keys import SigningKeys
from ztom.variants.signature import ManifestSignature

#: What is said of variants that this server has written.
THIS_SERVER = "this server"


def signer_of(
    folder: Path,
    signed: ManifestSignature | None,
    keys: SigningKeys,
    *,
    own_key: str | None,
    signed_only: bool,
) -> str | None:
    """Who has signed a variant, in words; None where nobody has.

    Args:
        folder: Folder of the variant, for messages.
        signed: The variant's signature, which fits.
        keys: Keys that the operator has registered.
        own_key: Public key of this server.
        signed_only: Whether a variant has to be signed by this server or a registered key.

    Raises:
        SignatureError: The key was revoked, or it is none of those that the variant has to be
            signed with.
    """
    fix = "Have it signed with a key that an administrator has registered."
    expected = "a registered key (signed_variants)"
    if signed is None:
        if signed_only:
            raise SignatureError(
                f"{folder.name} is unsigned", got="no signature", expected=expected, fix=fix
            )
        return None
    if signed.public_key == own_key:
        return THIS_SERVER
    key = keys.by_public_key(signed.public_key)
    if key is not None and key.revoked is not None:
        raise SignatureError(
            f"{folder.name} is signed with a key that was revoked", got=key.name, fix=fix
        )
    if key is not None:
        return key.name
    unknown = f"key {fingerprint(signed.public_key)}, which is not registered"
    if signed_only:
        raise SignatureError(
            f"{folder.name} is signed with a wrong key", got=unknown, expected=expected, fix=fix
        )
    return f"{unknown} ({signed.signer})"
