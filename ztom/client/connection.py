"""The calls that a client makes: models in, models out, besides files and server-sent events."""

from __future__ import annotations

import functools
import json
import secrets
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import ValidationError

from ztom.errors import ConfigError, ServerError
from ztom.io.places import require_local
from ztom.io.problems import problem_sentence
from ztom.wire.base import WireAnswer, WireRequest
from ztom.wire.problems import Problem

_CONNECT_S = 10.0
#: Times in a row that events are asked for again in vain; some two minutes in all.
_RECONNECTS = 30
#: A connection that held so long was no vain one, though nothing new came: what is idle gets cut.
_LASTING_S = 30.0
#: A search that waits, or a blend that is written, sends nothing for a long time.
_ANSWER_S = 3600.0
#: What stands in front of a server answers with these while the server starts again.
_AWAY = frozenset({502, 503, 504})

_Answer = TypeVar("_Answer", bound=WireAnswer)


@functools.cache
def _certificates() -> ssl.SSLContext:
    """What httpx trusts, loaded once: it takes as long as some calls do."""
    return httpx.create_ssl_context()


class Connection:
    """Calls to one server.

    Args:
        server: Base address, as in ``http://127.0.0.1:8000``.
        key: API key or token; None for an anonymous caller.

    Raises:
        ConfigError: The address is none.

    Every method raises `ServerError` when the server refuses or cannot be reached.
    """

    def __init__(self, server: str, key: str | None) -> None:
        try:
            self._http = httpx.Client(
                base_url=server.rstrip("/"),
                timeout=httpx.Timeout(_ANSWER_S, connect=_CONNECT_S),
                verify=_certificates(),
            )
        except httpx.InvalidURL as error:
            raise ConfigError(
                "the server's address is none",
                reason=error,
                got=server,
                expected="http://HOST:PORT",
            ) from error
        if key:
            self.key = key

    @property
    def key(self) -> str:
        """The token or key in use; empty for an anonymous caller."""
        return str(self._http.headers.get("Authorization", "")).removeprefix("Bearer ")

    @key.setter
    def key(self, key: str) -> None:
        self._http.headers["Authorization"] = f"Bearer {key}"

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Make a call and give its answer."""
        try:
            answer = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise _unreachable(self._http.base_url, error) from error
        _require_success(answer)
        return answer

    def ask(
        self,
        answer: type[_Answer],
        method: str,
        path: str,
        request: WireRequest | None = None,
        **options: Any,
    ) -> _Answer:
        """Make a call and read its answer.

        Args:
            answer: Model of the answer.
            method: ``GET``, ``POST``, ...
            path: Path of the route, below the base address.
            request: What is sent as JSON; its values are the server's to judge.
            options: Further options of httpx's request.
        """
        return _parsed(answer, self._json(method, path, request, options))

    def ask_all(
        self,
        answer: type[_Answer],
        method: str,
        path: str,
        request: WireRequest | None = None,
        **options: Any,
    ) -> list[_Answer]:
        """Make a call and read the list that it answers with; see `ask`."""
        content = self._json(method, path, request, options)
        if not isinstance(content, list):
            raise _strange(type(content).__name__)
        return [_parsed(answer, item) for item in content]

    def _json(
        self, method: str, path: str, request: WireRequest | None, options: dict[str, Any]
    ) -> Any:
        if request is not None:
            options = {"json": request.body(), **options}
        answer = self.call(method, path, **options)
        try:
            return answer.json()
        except ValueError as error:
            raise _strange(answer.text[:300]) from error

    def save(
        self,
        method: str,
        address: str,
        path: Path,
        *,
        on_headers: Callable[[Mapping[str, str]], None] | None = None,
        **options: Any,
    ) -> Path:
        """Save what a call answers with under a path: whole or not at all.

        Args:
            method: ``GET``, ``POST``, ...
            address: Path of the route, below the base address.
            path: Path of the file to be.
            on_headers: Callback that gets the answer's headers.
            options: Further options of httpx's request.
        """
        require_local(path, what="where the answer goes")
        aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._http.stream(method, address, **options) as answer:
                if answer.status_code >= 300:
                    answer.read()
                    _require_success(answer)
                if on_headers is not None:
                    on_headers(answer.headers)
                with aside.open("xb") as file:
                    for chunk in answer.iter_bytes(2**20):
                        file.write(chunk)
            aside.rename(path)
        except httpx.TransportError as error:
            raise _unreachable(self._http.base_url, error) from error
        finally:
            aside.unlink(missing_ok=True)
        return path

    def follow(
        self, answer: type[_Answer], address: str, event: str, is_new: Callable[[_Answer], bool]
    ) -> Iterator[_Answer]:
        """What server-sent events say, until the one called ``end``.

        A connection that is lost is made again. The server then begins with what it said before, so
        only what ``is_new`` is given.

        Args:
            answer: Model of an event's data.
            address: Path of the route.
            event: Name of the events that are given.
            is_new: Whether an event's data was not given before.

        Raises:
            ServerError: The server refuses, or stays away.
        """
        lost = 0
        while lost < _RECONNECTS:
            began = time.monotonic()
            try:
                for name, content in self._events(address):
                    item = _parsed(answer, content) if name == event else None
                    if item is not None and is_new(item):
                        lost = 0
                        yield item
                    elif name == "end":
                        return
            except httpx.TransportError:
                pass
            except ServerError as error:
                if error.status not in _AWAY:
                    raise
            lost = 1 if time.monotonic() - began > _LASTING_S else lost + 1
            time.sleep(min(5.0, 0.1 * 2**lost))
        raise ServerError(
            "the server stays away before what was followed has ended",
            got=address,
            fix="It goes on: follow it again, or ask how it is, later.",
        )

    def _events(self, address: str) -> Iterator[tuple[str, Any]]:
        """Server-sent events (the WHATWG's HTML standard, 9.2)."""
        name = ""
        with self._http.stream("GET", address) as answer:
            if answer.status_code >= 300:
                answer.read()
                _require_success(answer)
            for line in answer.iter_lines():
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    yield name, json.loads(value)


def _require_success(answer: httpx.Response) -> None:
    if answer.status_code < 300:
        return
    raise ServerError(
        f"the server refused, status {answer.status_code}",
        reason=_reason(answer),
        status=answer.status_code,
    )


def _reason(answer: httpx.Response) -> str:
    try:
        detail = Problem.parse(answer.json()).detail
    except ValueError:  # not one of the server's own answers
        return answer.text[:300]
    if isinstance(detail, str):
        return detail
    return "; ".join(f"{'.'.join(issue.loc)}: {issue.msg}" for issue in detail)


def _parsed(answer: type[_Answer], content: object) -> _Answer:
    try:
        return answer.parse(content)
    except ValidationError as error:
        raise _strange(problem_sentence(error, content, model=answer)) from error


def _strange(reason: object) -> ServerError:
    return ServerError(
        "the server's answer is not one that this client knows",
        reason=reason,
        fix="Is this the address of a Z-TOM server, and of about the client's version?",
    )


def _unreachable(server: httpx.URL, error: Exception) -> ServerError:
    return ServerError(
        f"the server {server} cannot be reached",
        reason=type(error).__name__,
        fix="Is it running (`ztom up`), and is this its address?",
    )
