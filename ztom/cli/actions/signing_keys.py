"""What ``ztom signing-key`` does."""

from __future__ import annotations

from pathlib import Path

from ztom.cli.actions.answers import print_answer, print_table
from ztom.cli.actions.remote import connect
from ztom.cli.console import moment
from ztom.errors import ConfigError
from ztom.io.signatures import fingerprint, public_key_of, read_signing_key, signing_key
from ztom.settings import Settings


def create_key(file: Path, *, as_json: bool) -> None:
    """Make a key.

    Raises:
        ConfigError: There is such a file.
        SignatureError: It cannot be written.
    """
    if file.exists():
        raise ConfigError(f"{file} exists", fix="A key is not replaced: name another file.")
    public = public_key_of(signing_key(file))
    answer = {"path": file.absolute(), "public_key": public}
    print_answer(answer, public, as_json=as_json)


def show_key(file: Path | None, *, as_json: bool) -> None:
    """Print a key's public half."""
    key = signing_key(Settings().own_key) if file is None else read_signing_key(file)
    public = public_key_of(key)
    answer = {"public_key": public, "fingerprint": fingerprint(public)}
    print_answer(answer, public, as_json=as_json)


def register_key(name: str, key: str, server: str | None, *, as_json: bool) -> None:
    """Register a key."""
    public = public_key_of(read_signing_key(Path(key))) if Path(key).is_file() else key
    with connect(server) as client:
        registered = client.verdicts.register_key(name, public)
    line = f"{registered.name}: key {fingerprint(registered.public_key)} is registered"
    print_answer(registered, line, as_json=as_json)


def list_keys(server: str | None, *, as_json: bool) -> None:
    """List registered keys."""
    with connect(server) as client:
        keys = client.verdicts.signing_keys()
    rows = [
        (
            key.name,
            key.public_key,
            fingerprint(key.public_key),
            moment(key.created_at),
            None if key.revoked_at is None else moment(key.revoked_at),
        )
        for key in keys
    ]
    headers = ("name", "public key", "key", "registered", "revoked")
    print_table(keys, headers, rows, as_json=as_json)


def revoke_key(name: str, server: str | None, *, as_json: bool) -> None:
    """Revoke a registered key."""
    with connect(server) as client:
        revoked = client.verdicts.revoke_key(name)
    print_answer(revoked, f"{revoked.name} is revoked", as_json=as_json)
