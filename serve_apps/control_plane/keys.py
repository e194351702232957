"""The secrets of a server, the same in all of its processes, whichever node they are on.

They come from one of these, the first that is there:

- a secret of the operator's: the lines of ``secret_file``, or ``ZTOM_SECRET``. Every key is derived
  from it (HKDF, RFC 5869). The first line signs tokens and all lines verify; what must stay as it
  is comes from the last one.
- the data folder, where a server whose ledger is a file keeps them (``keys/``), or one that has
  kept them there up to now.
- the ledger, where that is a database which other machines reach: the first process makes them.

``ZTOM_JWT_KEY`` signs tokens in any case. The key of the audit chain's end is never in the ledger:
it is evidence against whoever can change that.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from serve_apps.control_plane.config import ServerConfig
from serve_apps.control_plane.tokens import (
    KEY_VARIABLE,
    MIN_KEY_BYTES,
    decode_key,
    load_keys,
    new_key,
    rotate,
    with_new_key,
)
from ztom.errors import ConfigError
from ztom.io.files import write_whole
from ztom.io.private import is_private, private_folder
from ztom.io.signatures import parse_signing_key, public_key_of, signing_key
from ztom.ledger.server_keys import ServerKeyStore

#: Variable with the secret of the operator, for all processes of the server.
SECRET_VARIABLE = "ZTOM_SECRET"

_TOKENS, _CALLERS, _VARIANTS = "jwt", "callers", "signing"
#: Characters of a fingerprint.
_SHORT = 16


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """The secrets of a server.

    Attributes:
        tokens: Keys of tokens, each of 48 bytes or more; the first one signs, all verify.
        callers: Key of the hashes of callers.
        variants: Private key that signs the variants which the server writes.
        variants_file: File with that key, for processes of the server that write variants.
        audit: Function that gives the private key which signs the end of the audit chain.
        source: Where they are from, for people.
    """

    tokens: tuple[bytes, ...]
    callers: bytes
    variants: Ed25519PrivateKey
    variants_file: Path
    audit: Callable[[], Ed25519PrivateKey]
    source: str

    @classmethod
    def open(cls, config: ServerConfig, store: ServerKeyStore) -> Self:
        """Read them, or make them where there are none.

        Args:
            config: Configuration of the server.
            store: Store of secrets in the ledger.

        Raises:
            ConfigError: A secret is too short or malformed, or others can read its file.
            SignatureError: What should be a private key is none.
            LedgerError: The ledger cannot be read or written.
        """
        private_folder(config.keys)
        secret = _operators_secret(config)
        if secret is not None:
            return cls._of_secret(config, *secret)
        if _in_folder(config, store):
            return cls._of_folder(config)
        return cls._of_ledger(config, store)

    @property
    def fingerprint(self) -> str:
        """Text that tells these keys from others, and gives none of them away."""
        parts = (*self.tokens, self.callers, public_key_of(self.variants).encode())
        digests = b"".join(hashlib.sha256(b"ztom\0" + part).digest() for part in parts)
        return hashlib.sha256(digests).hexdigest()[:_SHORT]

    @classmethod
    def _of_secret(cls, config: ServerConfig, lines: tuple[bytes, ...], source: str) -> Self:
        oldest = lines[-1]
        variants = Ed25519PrivateKey.from_private_bytes(_derived(oldest, "variants", 32))
        audit = Ed25519PrivateKey.from_private_bytes(_derived(oldest, "audit", 32))
        given = _tokens_of_environment()
        return cls(
            tokens=given or tuple(_derived(line, "tokens", MIN_KEY_BYTES) for line in lines),
            callers=_derived(oldest, "callers", MIN_KEY_BYTES),
            variants=variants,
            variants_file=_written(config.keys / "server.key", _pem(variants)),
            audit=lambda: audit,
            source=source,
        )

    @classmethod
    def _of_folder(cls, config: ServerConfig) -> Self:
        path = config.keys / "signing.key"
        return cls(
            tokens=load_keys(config.keys / "jwt.keys"),
            callers=load_keys(config.keys / "callers.keys")[-1],
            variants=signing_key(path),
            variants_file=path,
            audit=partial(signing_key, config.keys / "audit.key"),
            source=str(config.keys),
        )

    @classmethod
    def _of_ledger(cls, config: ServerConfig, store: ServerKeyStore) -> Self:
        where = "the ledger's table server_keys"
        pem = store.take(_VARIANTS, lambda: _pem(Ed25519PrivateKey.generate()))
        given = _tokens_of_environment()
        lines = [] if given else store.take(_TOKENS, new_key).split()
        return cls(
            tokens=given or tuple(decode_key(line, where) for line in lines),
            callers=decode_key(store.take(_CALLERS, new_key), where),
            variants=parse_signing_key(pem.encode(), what=where),
            variants_file=_written(config.keys / "server.key", pem),
            audit=partial(signing_key, config.keys / "audit.key"),
            source=where,
        )


def rotate_token_key(config: ServerConfig, store: ServerKeyStore, *, actor: str) -> None:
    """Sign tokens with a new key; the one before still verifies, the ones before that do not.

    Raises:
        ConfigError: The keys are the operator's, who changes them.
        LedgerError: The ledger cannot be read or written.
    """
    secret = _operators_secret(config)
    if secret is not None:
        raise ConfigError(
            "the key that signs tokens comes from a secret of yours",
            got=secret[1],
            fix="Put a new line on top of it (openssl rand -base64 48), and start the server anew; "
            "take the line below it away later. The last line stays.",
        )
    if KEY_VARIABLE in os.environ:
        raise ConfigError(
            "the key that signs tokens comes from the environment",
            got=KEY_VARIABLE,
            fix="Set it to another one, and start the server anew.",
        )
    if _in_folder(config, store):
        rotate(config.keys / "jwt.keys")
        return
    lines = store.take(_TOKENS, new_key).split()
    store.replace(_TOKENS, "\n".join(with_new_key(lines)), actor=actor)


def _in_folder(config: ServerConfig, store: ServerKeyStore) -> bool:
    """Whether the keys are files of the data folder."""
    kept = (config.keys / name for name in ("jwt.keys", "signing.key"))
    return not store.is_shared or any(path.exists() for path in kept)


def _operators_secret(config: ServerConfig) -> tuple[tuple[bytes, ...], str] | None:
    """The lines of the operator's secret and where they are from; None where there is none."""
    path = config.secret_file
    if path is None:
        text = os.environ.get(SECRET_VARIABLE)
        if text is None:
            return None
        return _lines(text, f"the variable {SECRET_VARIABLE}")
    try:
        if not is_private(path) and os.access(path, os.W_OK):  # a mounted secret is read only
            raise ConfigError(f"{path} can be read by others", fix=f"chmod 600 {path}")
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise ConfigError(
            f"the secret_file {path} cannot be read",
            reason=error.strerror,
            fix="It has to be there on every node that runs a process of the server.",
        ) from error
    return _lines(text, str(path))


def _lines(text: str, where: str) -> tuple[tuple[bytes, ...], str]:
    lines = tuple(decode_key(line, where) for line in text.split())
    if not lines:
        raise ConfigError(f"{where} is empty", fix="openssl rand -base64 48 makes a secret.")
    return lines, where


def _tokens_of_environment() -> tuple[bytes, ...]:
    given = os.environ.get(KEY_VARIABLE)
    return () if given is None else (decode_key(given, KEY_VARIABLE),)


def _derived(secret: bytes, purpose: str, length: int) -> bytes:
    info = f"ztom {purpose}".encode()
    return HKDF(algorithm=SHA384(), length=length, salt=None, info=info).derive(secret)


def _pem(key: Ed25519PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _written(path: Path, text: str) -> Path:
    """The file with this text, which only its owner can read."""
    if not path.exists() or path.read_text(encoding="ascii", errors="replace") != text:
        write_whole(path, text, private=True)
    return path
