"""Signatures (ed25519, RFC 8032): the one way in which Z-TOM signs anything.

What is signed begins with a line that says what it is ("ztom verdict 1"), so a signature under one
kind of document is none under another. Texts in Base64 have one spelling: a signature that was
spelt anew would make another document of the same content.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from ztom.errors import SignatureError
from ztom.io.private import is_private

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_PUBLIC_BYTES, _SIGNATURE_BYTES = 32, 64
#: Characters of a fingerprint.
_SHORT = 12


def _base64_of(length: int) -> AfterValidator:
    def check(text: str) -> str:
        try:
            raw = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError("this is no Base64") from error
        if len(raw) != length or base64.b64encode(raw).decode() != text:
            raise ValueError(f"these are not {length} bytes in Base64")
        return text

    return AfterValidator(check)


PublicKey = Annotated[str, _base64_of(_PUBLIC_BYTES)]


class Signature(BaseModel):
    """A signature and the key that it is of, which proves nothing about whose key that is.

    Attributes:
        public_key: Public key of 32 bytes, in Base64.
        signature: Signature of 64 bytes, in Base64.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    public_key: PublicKey
    signature: Annotated[str, _base64_of(_SIGNATURE_BYTES)]

    @classmethod
    def of(cls, content: bytes, key: Ed25519PrivateKey) -> Signature:
        """Sign some bytes.

        Args:
            content: What is signed, with the line that says what it is.
            key: Private key.
        """
        signature = base64.b64encode(key.sign(content)).decode()
        return cls(public_key=public_key_of(key), signature=signature)

    def check(self, content: bytes, *, what: str) -> None:
        """Check that the key has signed these bytes.

        Args:
            content: What should have been signed.
            what: What it is, for the message.

        Raises:
            SignatureError: It has not.
        """
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            key = Ed25519PublicKey.from_public_bytes(base64.b64decode(self.public_key))
            key.verify(base64.b64decode(self.signature), content)
        except (InvalidSignature, ValueError) as error:
            raise SignatureError(
                f"the signature of {what} does not fit",
                got=f"key {fingerprint(self.public_key)}",
                fix="It was changed after it was signed, or the signature is of something else.",
            ) from error


def public_key_of(key: Ed25519PrivateKey) -> str:
    """The public key of a private one, in Base64."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return base64.b64encode(raw).decode()


def fingerprint(public_key: str) -> str:
    """Short name of a public key: the first hexadecimal digits of its sha256."""
    return hashlib.sha256(base64.b64decode(public_key)).hexdigest()[:_SHORT]


def signing_key(path: Path) -> Ed25519PrivateKey:
    """The key in this file; a new one, readable by its owner only, when there is no file.

    Raises:
        SignatureError: The file is no ed25519 key, or others can read it.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    if path.exists():
        return read_signing_key(path)
    key = Ed25519PrivateKey.generate()
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o700, parents=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            file.flush()
            os.fsync(file.fileno())
        os.link(aside, path)  # of two that make it at once, the first one's holds
    except OSError as error:
        if path.exists():
            return read_signing_key(path)
        raise SignatureError(f"no key can be made at {path}", reason=error.strerror) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()
    return key


def read_signing_key(path: Path) -> Ed25519PrivateKey:
    """The key in this file.

    Raises:
        SignatureError: There is no such file, it is no ed25519 key, or others can read it.
    """
    try:
        if not is_private(path):
            raise SignatureError(
                f"{path} can be read by others", fix=f"chmod 600 {path}, and sign with a new key."
            )
        raw = path.read_bytes()
    except OSError as error:
        raise SignatureError(f"{path} cannot be read", reason=error.strerror) from error
    return parse_signing_key(raw, what=str(path))


def parse_signing_key(raw: bytes, *, what: str) -> Ed25519PrivateKey:
    """The key in a text in PEM.

    Args:
        raw: The text.
        what: Where it is from, for the message.

    Raises:
        SignatureError: It is no ed25519 key.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(raw, password=None)
    except (ValueError, TypeError) as error:
        raise SignatureError(
            f"{what} is not a private key",
            got=type(error).__name__,
            expected="an ed25519 key in PEM, as `ztom signing-key create` makes it",
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(f"{what} is not an ed25519 key", got=type(key).__name__)
    return key
