"""The server in this process, for the fuzzer: every route that takes a body, from its own schema.

Nothing runs behind it: what would start an engine or a search is refused by `Nowhere`, which is the
only 5xx that is no finding.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import httpx
from fuzz_inputs import SEPARATOR

from cluster.jobs import JobState
from serve_apps.control_plane.config import ServerConfig
from serve_apps.control_plane.runner import SearchJob
from serve_apps.control_plane.services import Services
from serve_apps.gateway.backends import ServeBackends
from serve_apps.server.app import create_app
from ztom.errors import EngineError
from ztom.ledger.accounts import NewUser, Scope

T = TypeVar("T")

_NOWHERE = "nothing runs behind the fuzzer"
_IDS = ("nothing", "0" * 32, "%00", "..", "a" * 500, "-1", "é")


class Nowhere:
    """A runner that computes in a thread and refuses the rest."""

    async def call(self, function: Callable[..., T], /, *args: Any, **options: Any) -> T:
        """Run it here."""
        return await asyncio.to_thread(function, *args, **options)

    async def ask(self, spec: object, question: object) -> NoReturn:
        """Refuse."""
        raise EngineError(_NOWHERE)

    def make_room(self) -> None:
        """There are no engines."""

    def submit(self, job: SearchJob) -> NoReturn:
        """Refuse."""
        raise EngineError(_NOWHERE)

    def state(self, job_id: str) -> tuple[JobState, str]:
        """No job is known."""
        return JobState.UNKNOWN, ""

    def stop(self, job_id: str) -> None:
        """There is none."""


class OpenServer:
    """A server with one administrator and one project.

    An input is a line with method and path, and a body.
    """

    def __init__(self, data: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        config = ServerConfig(data=data, login_failures=10**6)
        self._services = Services.open(config, Nowhere(), ServeBackends())
        ledger = self._services.ledger
        new = NewUser("fuzz", "fuzz@example.org", "no password", is_admin=True)
        user = ledger.accounts.create(new, actor="local:fuzz")
        _, key = ledger.accounts.create_key(
            user.id, name="fuzz", scopes=tuple(Scope), project_id=None, actor="local:fuzz"
        )
        app = create_app(self._services)
        self._life = app.router.lifespan_context(app)
        loop.run_until_complete(self._life.__aenter__())
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app, raise_app_exceptions=False),
            base_url="http://127.0.0.1",
            headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )
        self.seeds = list(_seeds(app.openapi()))

    def feed(self, data: bytes) -> str:
        """Send it; returns the status."""
        line, separator, body = data.partition(SEPARATOR)
        method, _, path = line.decode("latin-1").partition(" ")
        if not separator or method not in ("POST", "PUT", "PATCH", "DELETE") or path[:1] != "/":
            return "no request"
        try:
            request = self._client.build_request(method, path, content=body)
        except (httpx.InvalidURL, ValueError):
            return "no address"
        answer = self._loop.run_until_complete(self._client.send(request))
        if answer.status_code >= 500 and _NOWHERE not in answer.text:
            raise AssertionError(f"status {answer.status_code}: {answer.text[:300]}")
        return str(answer.status_code)

    def close(self) -> None:
        """Take it down."""
        self._loop.run_until_complete(self._client.aclose())
        self._loop.run_until_complete(self._life.__aexit__(None, None, None))


def _seeds(document: dict[str, Any]) -> Iterator[bytes]:
    """A right request of every route with a JSON body, and one without a body of the others."""
    for path, methods in sorted(document["paths"].items()):
        for method, operation in sorted(methods.items()):
            if method not in ("post", "put", "patch", "delete"):
                continue
            content = operation.get("requestBody", {}).get("content", {})
            schema = content.get("application/json", {}).get("schema")
            body = {} if schema is None else _example(schema, document, depth=0)
            for name in _IDS[:2]:
                filled = path
                for parameter in operation.get("parameters", ()):
                    filled = filled.replace("{" + parameter["name"] + "}", name)
                line = f"{method.upper()} {filled}".encode()
                yield line + SEPARATOR + json.dumps(body).encode()


def _example(schema: dict[str, Any], document: dict[str, Any], *, depth: int) -> Any:
    """Something that a schema takes, or nearly: its examples come first."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        schema = document["components"]["schemas"][name]
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    if "default" in schema and schema["default"] is not None:
        return schema["default"]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return _example(schema[key][0], document, depth=depth)
    kind = schema.get("type")
    if kind == "object":
        fields = schema.get("properties", {}) if depth < 6 else {}
        return {name: _example(field, document, depth=depth + 1) for name, field in fields.items()}
    if kind == "array":
        items = schema.get("items") or schema.get("prefixItems", [{}])[0]
        return [_example(items, document, depth=depth + 1)] * max(1, schema.get("minItems", 1))
    plain: dict[Any, Any] = {"string": "text", "integer": 1, "number": 0.5, "boolean": True}
    return plain.get(kind)
