"""The model registry of Vertex AI: ``vertex://project/location/models/ID@version``.

It was built from the published schema of ``projects.locations.models.get`` (API v1) and tested
against answers made from that schema; it has not been run against Google's service.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import httpx

from ztom.checkpoints.registries.calls import TIMEOUT_S, get_json
from ztom.checkpoints.registries.protocol import RegisteredModel
from ztom.errors import ConfigError, ReferenceRefusedError, StorageError

_ADDRESS = re.compile(
    r"vertex:/{1,2}(?P<project>[a-z0-9][a-z0-9.:-]{1,62})/(?P<location>[a-z]+(?:-[a-z]+)*\d{0,2})/"
    r"models/(?P<model>[A-Za-z0-9_-]{1,63})(?:@(?P<version>[A-Za-z0-9-]{1,63}))?"
)
#: The variable by which gcloud's tools are sent to another address of the service.
_ENDPOINT = "CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_LOG_IN = (
    "Log in with `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS."
)


class VertexRegistry:
    """The registry, with the credentials that Google's libraries find.

    Args:
        token: Function that gives an access token.
        transport: Transport of the calls; httpx's own when None.
    """

    def __init__(
        self,
        token: Callable[[], str] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._token = token or _google_token
        self._transport = transport

    def resolve(self, address: str, cache: Path) -> RegisteredModel:
        """See `ztom.checkpoints.registries.protocol.Registry.resolve`."""
        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise ReferenceRefusedError(
                f"{address} is no address of Vertex AI",
                expected="vertex://project/location/models/ID@version",
            )
        project, location, model = match["project"], match["location"], match["model"]
        wanted = f"{model}@{match['version']}" if match["version"] else model
        path = f"/v1/projects/{project}/locations/{location}/models/{wanted}"
        with httpx.Client(
            base_url=os.environ.get(_ENDPOINT) or f"https://{location}-aiplatform.googleapis.com",
            headers={"Authorization": f"Bearer {self._token()}"},
            timeout=TIMEOUT_S,
            transport=self._transport,
        ) as client:
            answer = get_json(
                client, path, {}, what=f"model {wanted} of {project}/{location}", log_in=_LOG_IN
            )
        artifacts = answer.get("artifactUri")
        if not isinstance(artifacts, str) or not artifacts:
            raise StorageError(
                f"{address} has no files of its own",
                got="no artifactUri",
                expected="a model that was uploaded with its artifacts",
            )
        version = str(answer.get("versionId") or match["version"] or "1")
        pinned = f"vertex://{project}/{location}/models/{model}@{version}"
        return RegisteredModel(pinned, artifacts)


def _google_token() -> str:
    import google.auth
    import google.auth.exceptions
    import google.auth.transport.requests

    try:
        credentials, _ = google.auth.default(scopes=[_SCOPE])
        credentials.refresh(google.auth.transport.requests.Request())  # type: ignore[no-untyped-call]
    except google.auth.exceptions.GoogleAuthError as error:
        raise ConfigError(
            "there are no credentials for Vertex AI", got=type(error).__name__, fix=_LOG_IN
        ) from error
    return str(credentials.token)
