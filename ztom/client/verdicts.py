"""Verdicts of the gate on a server's record, from Python.

```python
with Client("http://127.0.0.1:8000") as client:
    client.verdicts.record("verdict.json")
    client.verdicts.all(candidate=digest)[0].signed_by  # None: a claim
    client.verdicts.register_key("ci", public_key)
```
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ztom.client.connection import Connection
from ztom.client.names import Names, pick
from ztom.errors import ConfigError
from ztom.io.files import read_place
from ztom.io.places import parse_place
from ztom.wire.signing_keys import NewSigningKey, SigningKey
from ztom.wire.verdicts import VerdictOnRecord, VerdictSummary

Document = Mapping[str, Any]


class VerdictCalls:
    """Part of `ztom.client.Client`; what it returns is what the server answers.

    Args:
        connection: Connection to the server.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def record(
        self, verdict: Document | str | Path, *, project_id: str | None = None
    ) -> VerdictSummary:
        """Put a verdict on record; one that is there already stays as it is.

        Args:
            verdict: Verdict as ``ztom gate`` writes it, or its file.
            project_id: Id or name of the project whose deployments it counts for; administrators
                need none.

        Raises:
            ConfigError: The file is no JSON document, besides what every method raises.
        """
        # as it is: whether it is a verdict is the server's to say
        body: dict[str, Any] = {"verdict": read_verdict(verdict)}
        if project_id is not None:
            body["projectId"] = Names(self._connection).project_id(project_id)
        return self._connection.ask(VerdictSummary, "POST", "/v1/verdicts", json=body)

    def all(self, candidate: str | None = None) -> list[VerdictSummary]:
        """Verdicts without their documents, the latest first.

        Args:
            candidate: First characters of the digests of candidates whose verdicts are wanted; None
                for all.
        """
        parameters = {} if candidate is None else {"candidate": candidate}
        address = "/v1/verdicts"
        return self._connection.ask_all(VerdictSummary, "GET", address, params=parameters)

    def get(self, sha256: str) -> VerdictOnRecord:
        """A verdict with its document, by the document's sha256."""
        return self._connection.ask(VerdictOnRecord, "GET", f"/v1/verdicts/{sha256}")

    def signing_keys(self) -> list[SigningKey]:
        """Keys whose signatures count, or did until they were revoked, oldest first."""
        return self._connection.ask_all(SigningKey, "GET", "/v1/signing-keys")

    def register_key(self, name: str, public_key: str) -> SigningKey:
        """Let the signatures of a key count; administrators only.

        Args:
            name: Name under which records show who signed.
            public_key: Public key of 32 bytes, in Base64.
        """
        new = NewSigningKey.model_construct(name=name, public_key=public_key)
        return self._connection.ask(SigningKey, "POST", "/v1/signing-keys", new)

    def revoke_key(self, key: str) -> SigningKey:
        """Let the signatures of a key count no more, by its id or name; administrators only."""
        chosen = pick(
            key,
            [known for known in self.signing_keys() if known.revoked_at is None or known.id == key],
            what="signing key",
            id_of=lambda known: known.id,
            names_of=lambda known: (known.name,),
        )
        return self._connection.ask(SigningKey, "DELETE", f"/v1/signing-keys/{chosen.id}")


def read_verdict(verdict: Document | str | Path) -> Document:
    """A verdict's document; of a file, what it holds.

    Raises:
        ConfigError: The file cannot be read, or holds no JSON object.
    """
    if isinstance(verdict, Mapping):
        return verdict
    try:
        content = json.loads(read_place(parse_place(verdict)), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"the verdict {verdict} cannot be read", reason=error) from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"{verdict} is no verdict",
            got=type(content).__name__,
            expected="the JSON object that `ztom gate` writes",
        )
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
