"""Searches, in the original's form and in our own, and their results."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from pydantic import Field
from starlette.exceptions import HTTPException

from serve_apps.control_plane.access import (
    Caller,
    CallerOf,
    Permission,
    ServicesOf,
    route,
    terms_of,
)
from serve_apps.control_plane.downloads import send_folder
from serve_apps.control_plane.errors import is_callers_fault
from serve_apps.control_plane.openapi import SENDS_ADDRESS, SENDS_BYTES, sends_events
from serve_apps.control_plane.places import ServerSide
from serve_apps.control_plane.search_answers import progress_of, trials_of
from serve_apps.control_plane.searches import cancel, create_search
from serve_apps.control_plane.services import Services
from serve_apps.control_plane.tokens import ARTIFACT
from serve_apps.event_stream import event_stream
from ztom.errors import NotOnRecordError
from ztom.ledger.records import TrialStatus
from ztom.ledger.requests import RequestKind, RequestRecord, RequestStatus
from ztom.wire.base import WireAnswer
from ztom.wire.fields import Id
from ztom.wire.search_requests import NewSearch, Search, SearchFields
from ztom.wire.searches import QueuedSearch, RequestAnswer, SearchAnswer, SearchStatus, Trial

router = APIRouter(tags=["searches"])

#: What signs the address of an artifact.
Signature = Annotated[str, Field(examples=["eyJhbGciOi..."])]

_ARTIFACT_S = 15 * 60.0
_KEEP_ALIVE_S = 15.0


@route(router, "POST", "/dynamic_analysis/zto/batch", Permission.WRITE, side=ServerSide.WAITS)
async def search_and_wait(body: Search, caller: CallerOf, services: ServicesOf) -> SearchAnswer:
    """Search the project's chain and answer when it is over.

    The search goes on when the connection is lost; its result then stays under
    ``/project/{id}/analysis/result``.
    """
    request, warnings = await _create(body, caller, services)
    while request.status.is_open:
        await asyncio.sleep(services.config.poll_s)
        request = await asyncio.to_thread(services.ledger.requests.get, request.id)
    if request.status is not RequestStatus.FINISHED or request.result is None:
        raise _failed(request)
    return SearchAnswer.of(RequestAnswer.of(request), warnings=[*body.warnings, *warnings])


@route(router, "POST", "/v1/searches", Permission.WRITE, status_code=202)
async def start_search(body: NewSearch, caller: CallerOf, services: ServicesOf) -> QueuedSearch:
    """Queue a search."""
    request, warnings = await _create(body, caller, services)
    return QueuedSearch.queued(request, warnings)


@route(router, "GET", "/v1/searches", Permission.READ)
def searches(
    caller: CallerOf,
    services: ServicesOf,
    projectId: Id | None = None,
    limit: Annotated[int, Field(ge=1, le=1000)] = 100,
) -> list[SearchStatus]:
    """The latest searches of a project, or of all that the caller may see, newest first."""
    projects = caller.projects_seen() if projectId is None else {caller.project(projectId)}
    latest = services.ledger.requests.latest(RequestKind.SEARCH, projects=projects, most=limit)
    return [SearchStatus.at(r, progress_of(r, services.ledger)) for r in latest]


@route(router, "GET", "/v1/searches/{request_id}", Permission.READ)
def search(request_id: Id, caller: CallerOf, services: ServicesOf) -> SearchStatus:
    """Where a search stands."""
    request = _search_of(request_id, caller, services)
    return SearchStatus.at(request, progress_of(request, services.ledger))


@route(
    router,
    "GET",
    "/v1/searches/{request_id}/events",
    Permission.READ,
    side=ServerSide.STREAMS,
    **sends_events("trial", Trial),
)
async def search_events(
    request_id: Id, caller: CallerOf, services: ServicesOf
) -> StreamingResponse:
    """Server-sent events: ``trial`` for each that ended, ``status``, and ``end`` at last."""
    await asyncio.to_thread(_search_of, request_id, caller, services)
    return event_stream(_events(request_id, services))


@route(router, "POST", "/v1/searches/{request_id}/cancel", Permission.WRITE)
def cancel_search(request_id: Id, caller: CallerOf, services: ServicesOf) -> RequestAnswer:
    """End a search; its trials stay, and it can be resumed."""
    request = _search_of(request_id, caller, services)
    if not request.status.is_open:
        raise HTTPException(409, f"the search has {request.status}")
    return RequestAnswer.of(cancel(request, services))


@route(router, "POST", "/v1/searches/{request_id}/resume", Permission.WRITE, status_code=202)
def resume_search(request_id: Id, caller: CallerOf, services: ServicesOf) -> RequestAnswer:
    """Go on with a search that was cancelled or failed, with every trial that it has."""
    request = _search_of(request_id, caller, services)
    within = services.account_limits.require_search
    return RequestAnswer.of(services.ledger.requests.requeue(request.id, within=within))


@route(router, "GET", "/project/{project_id}/analysis/result", Permission.READ)
def results(
    project_id: Id,
    caller: CallerOf,
    services: ServicesOf,
    requestId: Id | None = None,
) -> list[RequestAnswer]:
    """What came of one request, or of all of a project, oldest first; always a list."""
    caller.project(project_id)
    if requestId is not None:
        return [RequestAnswer.of(_request_of(project_id, requestId, services))]
    return [
        RequestAnswer.of(request) for request in services.ledger.requests.of_project(project_id)
    ]


@route(
    router,
    "GET",
    "/project/{project_id}/analysis/result/artifact",
    Permission.READ,
    **SENDS_ADDRESS,
)
def artifact(
    project_id: Id,
    requestId: Id,
    http: Request,
    caller: CallerOf,
    services: ServicesOf,
    mode: Literal["URL", "SIGNED", "STREAM"] = "SIGNED",
) -> Response:
    """The whole of a result: a signed address that holds for 15 minutes, or the bytes.

    The address is a JSON string. Until the request has ended there is nothing: status 404.
    """
    caller.project(project_id)
    request = _request_of(project_id, requestId, services)
    if request.artifact is None:
        raise HTTPException(404, "the request has no artifact")
    if mode == "STREAM":
        return _send(request, services)
    token = services.tokens.issue(request.id, audience=ARTIFACT, seconds=_ARTIFACT_S)
    address = http.url_for("signed_artifact").include_query_params(token=token)
    return JSONResponse(str(address))


@route(router, "GET", "/v1/artifacts", Permission.PUBLIC, **SENDS_BYTES)
async def signed_artifact(token: Signature, http: Request, services: ServicesOf) -> Response:
    """What a signed address gives; the signature is the permission."""
    claims = services.tokens.check(token[:4096], audience=ARTIFACT)
    if claims is None:
        raise HTTPException(401, "The address does not hold, or no more.")
    # a download takes its time, and places of strangers are few
    terms_of(http).enter_known(ServerSide.CONTROL, f"artifact:{claims.subject}")
    request = await asyncio.to_thread(services.ledger.requests.get, claims.subject)
    return await asyncio.to_thread(_send, request, services)


def _failed(request: RequestRecord) -> HTTPException:
    """Why there is no result: the caller's mistake says what it is, ours says which request."""
    if request.status is not RequestStatus.FAILED:
        return HTTPException(409, f"search {request.id} {request.status}: {request.reason}")
    if is_callers_fault(request.reason or ""):
        return HTTPException(422, f"search {request.id} failed: {request.reason}")
    return HTTPException(
        500,
        f"Search {request.id} failed on the server's side; the server's log says why under this "
        "request id.",
        headers={"X-Ztom-Request-Id": request.id},
    )


async def _create(
    body: SearchFields, caller: Caller, services: Services
) -> tuple[RequestRecord, list[str]]:
    def create() -> tuple[RequestRecord, list[str]]:
        project = services.ledger.projects.get(caller.project(body.project_id))
        return create_search(body, caller.user.id, project, services)

    return await asyncio.to_thread(create)


async def _events(request_id: str, services: Services) -> AsyncIterator[str]:
    """Events of a search, read from the ledger: it does not matter where the search runs."""
    seen: set[int] = set()
    status, silent = None, 0.0
    while True:
        request = await asyncio.to_thread(services.ledger.requests.get, request_id)
        trials = await asyncio.to_thread(trials_of, request, services.ledger)
        events = []
        if request.status is not status:
            status = request.status
            events.append(_event("status", {"status": status, "reason": request.reason}))
        for trial in trials:
            if trial.number not in seen and trial.status is not TrialStatus.RUNNING:
                seen.add(trial.number)
                events.append(_event("trial", Trial.of(trial)))
        if not status.is_open:
            events.append(_event("end", RequestAnswer.of(request)))
        silent = 0.0 if events else silent + services.config.poll_s
        if silent >= _KEEP_ALIVE_S:
            events, silent = [": still here\n\n"], 0.0
        if events:
            yield "".join(events)
        if not status.is_open:
            return
        await asyncio.sleep(services.config.poll_s)


def _event(name: str, content: WireAnswer | dict[str, str | None]) -> str:
    text = content.to_json() if isinstance(content, WireAnswer) else json.dumps(content)
    return f"event: {name}\ndata: {text}\n\n"


def _search_of(request_id: str, caller: Caller, services: Services) -> RequestRecord:
    missing = NotOnRecordError("there is no such search", got=request_id)
    request = services.ledger.requests.get(request_id)
    if request.kind is not RequestKind.SEARCH or request.project_id is None:
        raise missing
    caller.project(request.project_id)
    return request


def _request_of(project_id: str, request_id: str, services: Services) -> RequestRecord:
    request = services.ledger.requests.get(request_id)
    if request.project_id != project_id:
        raise NotOnRecordError("there is no such request", got=request_id)
    return request


def _send(request: RequestRecord, services: Services) -> Response:
    path = Path(request.artifact or "")
    if not path.exists():
        raise HTTPException(404, "the artifact is gone")
    if path.is_dir():
        return send_folder(str(path), f"{request.kind}-{request.id[:8]}.tar", services)
    return FileResponse(path, media_type="application/json")
