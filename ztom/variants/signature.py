"""The signature of a variant: who wrote it, beside the manifest that says what it is.

``manifest.sig`` holds a signature (ed25519) over the manifest's digest and the name of the signer;
it is no part of what is signed, so a variant has the same digest whoever signs it. The name is what
the signer says of itself; whose the key is, the operator knows: `ztom.settings.Settings.signers`
for one machine, registered keys for a server.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ztom.errors import SignatureError, VariantError
from ztom.io.files import read_place
from ztom.io.places import StoragePlace
from ztom.io.problems import check_json
from ztom.io.signatures import Signature, fingerprint, signing_key
from ztom.settings import Settings, local_actor

logger = logging.getLogger(__name__)

SIGNATURE = "manifest.sig"

_LARGEST_BYTES = 4096


class ManifestSignature(BaseModel):
    """Who has signed a variant.

    Attributes:
        format: Version of this document.
        signer: Name that the signer gives itself.
        signature: Signature over the manifest's digest and that name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    signer: str = Field(max_length=200)
    signature: Signature

    @property
    def public_key(self) -> str:
        """Public key of the signer, in Base64."""
        return self.signature.public_key

    @property
    def text(self) -> str:
        """The signer in a few words."""
        return f"{self.signer} (key {fingerprint(self.public_key)})"

    def check(self, digest: str) -> None:
        """Check that the manifest with this digest was signed.

        Raises:
            SignatureError: Another one was.
        """
        self.signature.check(_content(digest, self.signer), what="the variant's manifest")


def sign_variant(folder: Path, digest: str) -> ManifestSignature | None:
    """Sign a variant that this process has written, with the key of its user.

    Args:
        folder: Folder of the variant, into which the signature goes.
        digest: Digest of its manifest.

    Returns:
        The signature that was written; None where there can be no key: that is logged.
    """
    try:
        key = signing_key(Settings().own_key)
    except SignatureError as error:
        logger.warning("%s is not signed: %s", folder.name, error)
        return None
    signer = local_actor()
    signed = ManifestSignature(signer=signer, signature=Signature.of(_content(digest, signer), key))
    (folder / SIGNATURE).write_text(signed.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return signed


def read_signature(folder: StoragePlace, digest: str) -> ManifestSignature | None:
    """Who has signed a variant; None where nobody has.

    Args:
        folder: Folder of the variant, here or in a store.
        digest: Digest of its manifest.

    Raises:
        SignatureError: The signature is of another manifest.
        VariantError: What stands there is no signature.
    """
    path = folder / SIGNATURE
    try:
        raw = read_place(path, at_most=_LARGEST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise VariantError(f"{path} cannot be read", reason=error.strerror or error) from error
    wrong = f"{path} is no signature"
    if len(raw) > _LARGEST_BYTES:
        raise VariantError(wrong, got=f"more than {_LARGEST_BYTES} bytes")
    signed = check_json(ManifestSignature, raw, wrong=wrong, kind=VariantError)
    signed.check(digest)
    return signed


def require_signer(
    folder: StoragePlace, signed: ManifestSignature | None, *, settings: Settings
) -> None:
    """Let a variant pass whose signer the operator trusts.

    Args:
        folder: Folder of the variant.
        signed: Who has signed it; None where nobody has.
        settings: Settings that say whose signature counts, and whether one has to be there.

    Raises:
        SignatureError: It is signed with another key, or a signature is missing that has to be.
    """
    if signed is None:
        if settings.signed_only:
            raise SignatureError(
                f"{folder} is unsigned",
                expected="a variant that is signed (ZTOM_SIGNED_ONLY)",
                fix="Write it again with this version, or take one that is signed.",
            )
        return
    if settings.signers and signed.public_key not in settings.signers:
        raise SignatureError(
            f"{folder} is signed with a key that is not trusted here",
            got=signed.text,
            expected="one of the keys in ZTOM_SIGNERS",
            fix="Do not serve it. If you know the signer, add their public key.",
        )


def signer_text(signed: ManifestSignature | None) -> str:
    """Who has signed a variant, in a few words."""
    return "unsigned" if signed is None else f"signed by {signed.text}"


def _content(digest: str, signer: str) -> bytes:
    content = {"manifest": digest, "signer": signer}
    return b"ztom manifest 1\n" + json.dumps(content, sort_keys=True).encode()
