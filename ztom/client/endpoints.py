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
from typing import Any

from ztom.client.connection import Connection
from ztom.client.names import Names
from ztom.client.verdicts import read_verdict
from ztom.io.places import place_text
from ztom.wire.apply import Apply, EndpointDifference
from ztom.wire.deployments import Deploy, DeploymentStatus
from ztom.wire.endpoints import Endpoint, EndpointChange, TrafficShares
from ztom.wire.inference import Feedback, FeedbackReceipt
from ztom.wire.releases import Release

Document = Mapping[str, Any]


class EndpointCalls:
    """Part of `ztom.client.Client`; what it returns is what the server answers.

    Args:
        connection: Connection to the server.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._names = Names(connection)

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
    ) -> DeploymentStatus:
        """Have a variant served; it gets its traffic once it is ready.

        Args:
            alias: What clients write in ``model``.
            path: The variant's folder, where the server can read it.
            project_id: Id or name of the project that the endpoint belongs to; administrators need
                none.
            file_id: Id or tag of a mastered checkpoint of the project, instead of the path.
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
        if project_id is not None:
            project_id = self._names.project_id(project_id)
            file_id = None if file_id is None else self._names.file_id(project_id, file_id)
        wanted = Deploy.model_construct(
            alias=alias,
            path=None if path is None else place_text(path),
            project_id=project_id,
            file_id=file_id,
            name=name,
            now=now,
            live=live,
            canary=canary,
            shadow=shadow,
            insist=insist,
        )
        # as they are: what they may say is the server's to judge
        documents = {
            "options": dict(options or {}),
            "rule": rule,
            "plan": plan,
            "verdict": None if verdict is None else read_verdict(verdict),
        }
        given = {name: document for name, document in documents.items() if document is not None}
        body = {**wanted.body(), **given}
        return self._connection.ask(DeploymentStatus, "POST", "/v1/deployments", json=body)

    def deployment(self, digest: str) -> DeploymentStatus:
        """One deployment, by its variant's digest or the start of it, its id or its name."""
        digest = self._names.digest(digest)
        return self._connection.ask(DeploymentStatus, "GET", f"/v1/deployments/{digest}")

    def cancel(self, digest: str) -> None:
        """Have a deployment that waits for its traffic, or for a place, wait no more."""
        self._connection.call("DELETE", f"/v1/deployments/{self._names.digest(digest)}")

    def deployments(self) -> list[DeploymentStatus]:
        """Every deployment."""
        return self._connection.ask_all(DeploymentStatus, "GET", "/v1/deployments")

    def all(self) -> list[Endpoint]:
        """Every endpoint with its traffic."""
        return self._connection.ask_all(Endpoint, "GET", "/v1/endpoints")

    def get(self, alias: str) -> Endpoint:
        """One endpoint."""
        return self._connection.ask(Endpoint, "GET", f"/v1/endpoints/{alias}")

    def traffic(
        self, alias: str, *, canary: float | None = None, shadow: float | None = None
    ) -> Endpoint:
        """Give the candidate other shares, in percent."""
        shares = TrafficShares.model_construct(canary=canary, shadow=shadow)
        address = f"/v1/endpoints/{alias}/traffic"
        return self._connection.ask(Endpoint, "PATCH", address, shares)

    def promote(self, alias: str) -> Endpoint:
        """Make the candidate the stable variant."""
        address = f"/v1/endpoints/{alias}/promote"
        return self._connection.ask(Endpoint, "POST", address, EndpointChange())

    def rollback(self, alias: str) -> Endpoint:
        """Take the candidate away; without one, go back to what was stable before."""
        address = f"/v1/endpoints/{alias}/rollback"
        return self._connection.ask(Endpoint, "POST", address, EndpointChange())

    def remove(self, alias: str) -> None:
        """Take an endpoint away."""
        self._connection.call("DELETE", f"/v1/endpoints/{alias}")

    def remove_rule(
        self,
        alias: str,
        *,
        header: str | None = None,
        value: str | None = None,
        key: str | None = None,
    ) -> Endpoint:
        """Take a rule away: the one for requests with this header and value, or of this key."""
        match = {"header": header, "value": value, "key": key}
        body = {name: text for name, text in match.items() if text is not None}
        return self._connection.ask(Endpoint, "DELETE", f"/v1/endpoints/{alias}/rules", json=body)

    def apply(
        self, endpoints: Document, *, prune: bool = False, dry_run: bool = False
    ) -> list[EndpointDifference]:
        """Make endpoints what a declarative file says; returns the changes that this takes.

        Args:
            endpoints: Endpoints that are wanted, by alias.
            prune: Whether to remove endpoints that are not among them.
            dry_run: Whether to change nothing.
        """
        wanted = Apply.model_construct(endpoints={}, prune=prune, dry_run=dry_run)
        body = {**wanted.body(), "endpoints": endpoints}
        return self._connection.ask_all(EndpointDifference, "POST", "/v1/apply", json=body)

    def releases(self, alias: str | None = None) -> list[Release]:
        """Releases, newest first."""
        parameters = {} if alias is None else {"alias": alias}
        return self._connection.ask_all(Release, "GET", "/v1/releases", params=parameters)

    def release(self, release_id: str) -> Release:
        """Where a release stands, by its id, or the newest one of an alias."""
        release_id = self._names.release_id(release_id)
        return self._connection.ask(Release, "GET", f"/v1/releases/{release_id}")

    def watch(self, release_id: str) -> Iterator[Release]:
        """The release each time that something is different, until it has ended.

        A connection that is lost is made again.
        """
        release_id = self._names.release_id(release_id)
        last: Release | None = None

        def is_new(look: Release) -> bool:
            nonlocal last
            if look == last:
                return False
            last = look
            return True

        address = f"/v1/releases/{release_id}/events"
        yield from self._connection.follow(Release, address, "release", is_new)

    def command(self, release_id: str, command: str) -> Release:
        """Tell a release: ``promote``, ``rollback``, ``resume`` or ``abort``."""
        release_id = self._names.release_id(release_id)
        return self._connection.ask(Release, "POST", f"/v1/releases/{release_id}/{command}")

    def feedback(
        self, response_id: str, *, score: float | None = None, label: str | None = None
    ) -> FeedbackReceipt:
        """Judge an answer, by the ``id`` that it came with: a score from 0 to 1, or a label."""
        judgement = Feedback.model_construct(response_id=response_id, score=score, label=label)
        return self._connection.ask(FeedbackReceipt, "POST", "/v1/feedback", judgement)
