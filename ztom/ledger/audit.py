r"""The audit chain: who changed which weights, from what, to what, as rows that hold each other.

Each row carries the hash of the one before it,

    hash_n = SHA-256("ztom audit 1\n" + hash_(n-1) + "\n" + canonical JSON of row n),

so a row that is changed, removed from the middle or swapped no longer fits (the construction of
Haber & Stornetta 1991). A tail that is cut off, or a whole chain that is computed anew, fits in
itself: only a head that was signed and kept elsewhere finds that, see `SignedHead`.

Rows hold names and digests, never prompts, texts or secrets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ztom.errors import AuditError, SignatureError
from ztom.io.signatures import Signature, public_key_of
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
        head = cls(
            sequence=0 if last is None else last.sequence,
            hash=GENESIS if last is None else last.hash,
            time=time,
            public_key=public_key_of(key),
        )
        signature = Signature.of(head.signed_bytes(), key)
        return head.model_copy(update={"signature": signature.signature})

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
            signature = Signature(public_key=self.public_key, signature=self.signature)
            signature.check(self.signed_bytes(), what="the audit chain's head")
        except (SignatureError, ValidationError) as error:
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
