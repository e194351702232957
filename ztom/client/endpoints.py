"""What a server serves, from Python: deploy, promote, roll back, releases, feedback.

```python
with Client("http://127.0.0.1:8000") as client:
    client.endpoints.deploy("support", path="demo-out/mastered")
    client.endpoints.rollback("support")
```

Requests to the models themselves go through any client of OpenAI's API, with the server's address
and ``/v1`` as ``base_url``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import ConfigDict

from ztom.client.connection import Connection
from ztom.client.verdicts import read_verdict
from ztom.wire.base import WireAnswer

Document = Mapping[str, Any]


class _Look(WireAnswer):
    model_config = ConfigDict(extra="allow")

    @classmethod
    def parse(cls, content: object) -> Self:
        return cls.model_validate(content)


class Endpoints:
    """Part of `ztom.client.Client`; what it returns is what the server answers.

    Args:
        connection: Connection to the server.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def deploy(
        self,
        alias: str,
        *,
        path: str | Path | None = None,
        project_id: str | None = None,
        file_id: str | None = None,
        name: str | None = None,
        options: Document | None = None,
        now: bool = False,
        live: bool = False,
        canary: float | None = None,
        shadow: float | None = None,
        rule: Document | None = None,
        plan: Document | None = None,
        verdict: Document | str | Path | None = None,
        insist: bool = False,
    ) -> Document:
        """Have a variant served; it gets its traffic once it is ready.

        Args:
            alias: What clients write in ``model``.
            path: The variant's folder, where the server can read it.
            project_id: The project that the endpoint belongs to; administrators need none.
            file_id: Id of a mastered checkpoint of the project, instead of the path.
            name: Name of the model; the alias when None.
            options: How it is served, such as ``{"max_replicas": 2}``.
            now: Whether it gets all traffic at once, without a release.
            live: Whether it gets all traffic at once by being swapped into the running engine.
            canary: Percent of the requests that it answers until somebody says otherwise.
            shadow: Percent of the requests that it gets copies of until somebody says otherwise.
            rule: Requests that it answers: those with this ``header`` and ``value``, or of this
                ``key``.
            plan: Plan of the release; the default one when nothing else is said.
            verdict: Verdict of the gate on it, or its file; it is put on record first.
            insist: Whether to deploy it although neither the gate nor a search let it pass.
        """
        wishes = {"now": now, "live": live, "insist": insist}
        body = {
            "alias": alias,
            "path": None if path is None else str(path),
            "projectId": project_id,
            "fileId": file_id,
            "name": name,
            "options": dict(options or {}),
            "canary": canary,
            "shadow": shadow,
            "rule": rule,
            "plan": plan,
            "verdict": None if verdict is None else read_verdict(verdict),
            **{key: True for key, value in wishes.items() if value},
        }
        given = {key: value for key, value in body.items() if value is not None}
        return self._document("POST", "/v1/deployments", json=given)

    def deployment(self, digest: str) -> Document:
        """One deployment, by its variant's digest or the start of it."""
        return self._document("GET", f"/v1/deployments/{digest}")

    def cancel(self, digest: str) -> None:
        """Have a deployment that waits for its traffic, or for a place, wait no more."""
        self._call("DELETE", f"/v1/deployments/{digest}")

    def deployments(self) -> list[Document]:
        """Every deployment."""
        return list(self._call("GET", "/v1/deployments"))

    def all(self) -> list[Document]:
        """Every endpoint with its traffic."""
        return list(self._call("GET", "/v1/endpoints"))

    def get(self, alias: str) -> Document:
        """One endpoint."""
        return self._document("GET", f"/v1/endpoints/{alias}")

    def traffic(
        self, alias: str, *, canary: float | None = None, shadow: float | None = None
    ) -> Document:
        """Give the candidate other shares, in percent."""
        body = {"canary": canary, "shadow": shadow}
        given = {key: value for key, value in body.items() if value is not None}
        return self._document("PATCH", f"/v1/endpoints/{alias}/traffic", json=given)

    def promote(self, alias: str) -> Document:
        """Make the candidate the stable variant."""
        return self._document("POST", f"/v1/endpoints/{alias}/promote", json={})

    def rollback(self, alias: str) -> Document:
        """Take the candidate away; without one, go back to what was stable before."""
        return self._document("POST", f"/v1/endpoints/{alias}/rollback", json={})

    def remove(self, alias: str) -> None:
        """Take an endpoint away."""
        self._call("DELETE", f"/v1/endpoints/{alias}")

    def apply(
        self, endpoints: Document, *, prune: bool = False, dry_run: bool = False
    ) -> list[Document]:
        """Make endpoints what a declarative file says; returns the changes that this takes.

        Args:
            endpoints: Endpoints that are wanted, by alias.
            prune: Whether to remove endpoints that are not among them.
            dry_run: Whether to change nothing.
        """
        body = {"endpoints": endpoints, "prune": prune, "dryRun": dry_run}
        return list(self._call("POST", "/v1/apply", json=body))

    def releases(self, alias: str | None = None) -> list[Document]:
        """Releases, newest first."""
        parameters = {} if alias is None else {"alias": alias}
        return list(self._call("GET", "/v1/releases", params=parameters))

    def release(self, release_id: str) -> Document:
        """Where a release stands."""
        return self._document("GET", f"/v1/releases/{release_id}")

    def watch(self, release_id: str) -> Iterator[Document]:
        """The release each time that something is different, until it has ended.

        A connection that is lost is made again.
        """
        last: _Look | None = None

        def is_new(look: _Look) -> bool:
            nonlocal last
            if look == last:
                return False
            last = look
            return True

        address = f"/v1/releases/{release_id}/events"
        for look in self._connection.follow(_Look, address, "release", is_new):
            yield look.model_dump()

    def command(self, release_id: str, command: str) -> Document:
        """Tell a release: ``promote``, ``rollback``, ``resume`` or ``abort``."""
        return self._document("POST", f"/v1/releases/{release_id}/{command}")

    def feedback(
        self, response_id: str, *, score: float | None = None, label: str | None = None
    ) -> Document:
        """Judge an answer, by the ``id`` that it came with: a score from 0 to 1, or a label."""
        body = {"responseId": response_id, "score": score, "label": label}
        given = {key: value for key, value in body.items() if value is not None}
        return self._document("POST", "/v1/feedback", json=given)

    def _document(self, method: str, path: str, **options: Any) -> Document:
        document: Document = self._call(method, path, **options)
        return document

    def _call(self, method: str, path: str, **options: Any) -> Any:
        answer = self._connection.call(method, path, **options)
        return answer.json() if answer.content else None
