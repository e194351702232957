"""Turns our errors into HTTP answers: a status and ``{"detail": ...}``."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_apps.control_plane.store import DISK_ERRORS, disk_refusal
from serve_apps.variants.wire import refusal
from ztom import errors
from ztom.errors import (
    AlreadyOnRecordError,
    AuditError,
    BlendError,
    CapabilityError,
    ChainError,
    CheckpointError,
    ConfigError,
    EngineError,
    EvaluationError,
    FactorError,
    LedgerError,
    NothingThereError,
    NotOnRecordError,
    QuotaError,
    ScoringError,
    SearchError,
    SignatureError,
    StimuliError,
    StorageError,
    VariantError,
    ZtomError,
)
from ztom.io.problem_words import words_for

logger = logging.getLogger(__name__)

#: The first that fits; what the caller can mend is 4xx.
_STATUS: tuple[tuple[type[ZtomError], int], ...] = (
    (NotOnRecordError, 404),
    (AlreadyOnRecordError, 409),
    (QuotaError, 429),
    (AuditError, 500),
    (LedgerError, 503),
    (CheckpointError, 422),
    (ChainError, 422),
    (FactorError, 422),
    (BlendError, 422),
    (StimuliError, 422),
    (ConfigError, 422),
    (ScoringError, 422),
    (VariantError, 422),
    (SearchError, 422),
    (SignatureError, 422),
    (EvaluationError, 422),
    (NothingThereError, 422),
    (StorageError, 503),
    (CapabilityError, 422),
    (EngineError, 503),
)
#: Where the gateway speaks OpenAI's language.
OPENAI_PATHS = ("/v1/chat/", "/v1/completions", "/v1/embeddings", "/v1/models")
#: With status 503: seconds after which to try again.
BUSY = {"Retry-After": "2"}


def status_of(error: ZtomError) -> int:
    """The HTTP status that says what kind of error it is."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def is_callers_fault(reason: str) -> bool:
    """Whether a search failed because of what was sent: its reason begins with the error's name."""
    kind = getattr(errors, reason.partition(":")[0].strip(), None)
    if not (isinstance(kind, type) and issubclass(kind, ZtomError)):
        return False
    return next((status for known, status in _STATUS if issubclass(kind, known)), 500) == 422


def problem(
    status: int, detail: object, headers: Mapping[str, str] | None = None, *, path: str = ""
) -> JSONResponse:
    """An answer that is an error, in OpenAI's form where the path is one of OpenAI's."""
    if path.startswith(OPENAI_PATHS):
        message = detail if isinstance(detail, str) else "The request is malformed."
        return JSONResponse(refusal(status, message).body, status, headers)
    return JSONResponse({"detail": detail}, status_code=status, headers=headers)


def add_error_handlers(app: FastAPI) -> None:
    """Make every error of the application an answer; none of them shows what was sent."""

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        # FastAPI says 400 of a body that is no JSON, or JSON nested too deep
        status = 422 if error.status_code == 400 else error.status_code
        return problem(status, error.detail, error.headers, path=request.url.path)

    @app.exception_handler(RequestValidationError)
    async def _malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        issues = [_issue(issue) for issue in error.errors()]
        return problem(422, issues, path=request.url.path)

    @app.exception_handler(ZtomError)
    async def _ours(request: Request, error: ZtomError) -> JSONResponse:
        status = status_of(error)
        if status >= 500:
            logger.error("%s %s: %s", request.method, request.url.path, error)
        busy = BUSY if status == 503 else None
        if isinstance(error, QuotaError) and error.wait_s is not None:
            busy = {"Retry-After": str(error.wait_s)}
        if status >= 500 and not isinstance(error, StorageError):
            # advice on the installation is for whoever reads the log
            error = type(error)._from_parts(
                error.what, error.got, error.expected, None, error.reason
            )
        message = request.app.state.services.store.without_folders(str(error))
        return problem(status, message, busy, path=request.url.path)

    @app.exception_handler(OSError)
    async def _disk(request: Request, error: OSError) -> JSONResponse:
        if error.errno not in DISK_ERRORS:
            raise error
        logger.error("%s %s: %s", request.method, request.url.path, error)
        return problem(503, str(disk_refusal(error)), BUSY, path=request.url.path)


class LastResort:
    """Answers 500 to whatever nothing else caught, and logs where it happened.

    Nothing is raised further: servers log messages of exceptions whole, and these may hold what was
    sent.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        began = False

        async def noticing(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            await self._app(scope, receive, noticing)
        except Exception as error:
            where = error.__traceback__
            while where is not None and where.tb_next is not None:
                where = where.tb_next
            place = where and f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}"
            logger.error("%s at %s: %s", scope.get("path"), place, type(error).__name__)
            if not began:
                answer = problem(
                    500, "The server had an error; its log says where.", path=scope.get("path", "")
                )
                await answer(scope, receive, send)


def _issue(issue: Mapping[str, object]) -> dict[str, object]:
    """What is wrong and where, without the value."""
    where = issue.get("loc", ())
    return {
        "loc": [str(part) for part in where] if isinstance(where, tuple | list) else [],
        "msg": words_for(issue),
    }
