r"""The audit chain: who changed which weights, from what, to what, as rows that hold each other.

Each row carries the hash of the one before it,

    hash_n = SHA-256("ztom audit 1\n" + hash_(n-1) + "\n" + canonical JSON of row n),

so a row that is changed, removed from the middle or swapped no longer fits (the construction of
Haber & Stornetta 1991). A tail that is cut off, or a whole chain that is computed anew, fits in
itself: only a head that was signed and kept elsewhere finds that, see `SignedHead`.

Rows hold names and digests, never prompts, texts or secrets.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ztom.errors import AuditError
from ztom.io.private import is_private
from ztom.ledger.records import AuditEntry, AuditEvent

#: What the first row follows.
GENESIS = "0" * 64
_DOMAIN = b"ztom audit 1\n"


def entry_hash(sequence: int, time: str, event: AuditEvent, previous: str) -> str:
    """The hash of a row, hexadecimal; see the module's docstring."""
    content = {"sequence": sequence, "time": time, **asdict(event)}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(_DOMAIN + f"{previous}\n{canonical}".encode()).hexdigest()


def follow(event: AuditEvent, last: AuditEntry | None, *, time: str) -> AuditEntry:
    """The row of ``event`` after the last one."""
    sequence = 1 if last is None else last.sequence + 1
    previous = GENESIS if last is None else last.hash
    return AuditEntry(sequence, time, event, previous, entry_hash(sequence, time, event, previous))


def check_entries(entries: Iterable[AuditEntry], head: SignedHead | None = None) -> int:
    """Go through the whole chain; returns the number of rows.

    Args:
        entries: Entries of the chain in order of sequence.
        head: Signed end that the chain was known to have once.

    Raises:
        AuditError: Names the first row that does not fit, or says that the tail is missing.
    """
    previous, count, at_head = GENESIS, 0, None
    for expected, entry in enumerate(entries, start=1):
        _check_entry(entry, expected, previous)
        previous, count = entry.hash, expected
        if head is not None and entry.sequence == head.sequence:
            at_head = entry.hash
    if head is None or head.sequence == 0:
        return count
    if at_head is None:
        raise AuditError(
            f"the audit chain is shorter than its signed head: row {count + 1} is missing",
            got=f"{count} rows",
            expected=f"at least {head.sequence}",
            fix="Rows were cut off. Restore the ledger from a copy.",
        )
    if at_head != head.hash:
        raise AuditError(
            f"row {head.sequence} of the audit chain is not the one that was signed",
            got=at_head[:12],
            expected=head.hash[:12],
            fix="The chain was written anew. Restore the ledger from a copy.",
        )
    return count


def _check_entry(entry: AuditEntry, expected: int, previous: str) -> None:
    fix = "Restore the ledger from a copy; rows from here on are not evidence."
    if entry.sequence != expected:
        raise AuditError(
            f"row {expected} of the audit chain is missing", got=f"row {entry.sequence}", fix=fix
        )
    if entry.previous != previous:
        raise AuditError(
            f"row {expected} of the audit chain does not follow from the row before it",
            got=entry.previous[:12],
            expected=previous[:12],
            fix=fix,
        )
    computed = entry_hash(entry.sequence, entry.time, entry.event, entry.previous)
    if entry.hash != computed:
        raise AuditError(
            f"row {expected} of the audit chain was changed",
            got=f"content with hash {computed[:12]}",
            expected=entry.hash[:12],
            fix=fix,
        )


class SignedHead(BaseModel):
    """The end of the chain at one time, signed (ed25519), to be kept where the ledger is not.

    Attributes:
        sequence: Sequence of the last row, 0 for an empty chain.
        hash: Hash of the last row.
        time: Time of the signature, ISO 8601.
        public_key: Public key of 32 bytes, in Base64.
        signature: Signature over the other fields, in Base64.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sequence: int = Field(ge=0)
    hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    time: str
    public_key: str
    signature: str = ""

    @classmethod
    def sign(cls, last: AuditEntry | None, key: Ed25519PrivateKey, *, time: str) -> Self:
        """Sign the last row."""
        public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        head = cls(
            sequence=0 if last is None else last.sequence,
            hash=GENESIS if last is None else last.hash,
            time=time,
            public_key=base64.b64encode(public).decode(),
        )
        signature = base64.b64encode(key.sign(head.signed_bytes())).decode()
        return head.model_copy(update={"signature": signature})

    def signed_bytes(self) -> bytes:
        """What the signature is over."""
        content = self.model_dump(exclude={"signature"})
        return b"ztom audit head 1\n" + json.dumps(content, sort_keys=True).encode()

    def check(self, public_key: str | None = None) -> None:
        """Check the signature.

        Args:
            public_key: Base64; whose signature it has to be. None takes the key that the head
                names itself, which proves nothing about who signed.

        Raises:
            AuditError: It is somebody else's, or no signature of this head.
        """
        if public_key is not None and public_key != self.public_key:
            raise AuditError(
                "the head was signed with another key", got=self.public_key, expected=public_key
            )
        try:
            raw = base64.b64decode(self.public_key, validate=True)
            signature = base64.b64decode(self.signature, validate=True)
            Ed25519PublicKey.from_public_bytes(raw).verify(signature, self.signed_bytes())
        except (InvalidSignature, ValueError) as error:
            raise AuditError(
                "the signature of the audit chain's head does not fit",
                fix="The head was changed, or cut short. Use another copy of it.",
            ) from error


def read_head(path: Path) -> SignedHead:
    """Read a head that was written out.

    Raises:
        AuditError: There is none, or it is malformed.
    """
    try:
        return SignedHead.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise AuditError(
            f"{path} is not a signed head of an audit chain", got=type(error).__name__
        ) from error


def signing_key(path: Path) -> Ed25519PrivateKey:
    """The key in this file; a new one, readable by its owner only, when there is no file.

    Raises:
        AuditError: The file is no ed25519 key, or others can read it.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_key(path)
    except OSError as error:
        raise AuditError(f"no key can be made at {path}", reason=error.strerror) from error
    key = Ed25519PrivateKey.generate()
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.flush()
        os.fsync(file.fileno())
    return key


def _read_key(path: Path) -> Ed25519PrivateKey:
    try:
        if not is_private(path):
            raise AuditError(
                f"{path} can be read by others", fix=f"chmod 600 {path}, and sign with a new key."
            )
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise AuditError(f"{path} is not a private key", got=type(error).__name__) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise AuditError(f"{path} is not an ed25519 key", got=type(key).__name__)
    return key
