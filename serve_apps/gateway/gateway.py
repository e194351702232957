"""Answers requests in OpenAI's form with a variant: route, call, report.

One `Gateway` lives in each process that takes requests in. What it decides is
`ztom.rollout.routing`'s; how replicas are called is `serve_apps.gateway.backends`'.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse, Response

from serve_apps.event_stream import event_stream
from serve_apps.gateway.backends import Backends, Late, Overloaded, Unavailable
from serve_apps.gateway.callers import CallerHashes
from serve_apps.gateway.metrics import GatewayMetrics
from serve_apps.gateway.observe import Observer
from serve_apps.gateway.quota import Quota, Quotas
from serve_apps.gateway.response_ids import ResponseIds, ResponseOrigin
from serve_apps.gateway.shadow import Mirror, Mirrored, text_of, text_of_events
from serve_apps.gateway.table import TableKeeper
from serve_apps.tasks import meanwhile
from serve_apps.tracing import RequestSpan, Tracing
from serve_apps.variants.calls import Answer, Call, Opened, StreamEnd, StreamItem
from serve_apps.variants.request_fields import Kind, without_neutral
from serve_apps.variants.request_size import DEFAULT_LIMITS, RequestLimits
from serve_apps.variants.wire import (
    DONE_EVENT,
    EVENT_END,
    Reply,
    event,
    no_such_model,
    refusal,
    too_much,
)
from ztom.errors import ZtomError
from ztom.ledger.endpoints import Endpoints
from ztom.ledger.usage import ALIVE_EVERY_S, UsageCounts
from ztom.ledger.usage_book import UsageBook
from ztom.rollout.routing import Choice, RoutingTable, TrafficRole, choose, variant_id

#: Under Serve's own logger, whose files and format it shares.
access_log = logging.getLogger("ray.serve.ztom.gateway")

#: Which variant answered, and why that one.
VARIANT_HEADER, ROLE_HEADER = "x-ztom-variant", "x-ztom-role"
#: Requests of a key with the same value stay with the same variant; else OpenAI's ``user`` does.
STICKY_HEADER = "x-ztom-sticky"

#: How long a request waits for a swap to the variant that it is for.
_SWAP_S, _SWAP_POLL_S = 5.0, 0.05
#: Longer requests get no copy: copies wait in memory.
_LARGEST_COPY_BYTES = 256 * 1024
_RETRY_AFTER_S = {429: "1", 503: "2"}
_OPENAI_PREFIX: Mapping[Kind, str] = {
    "chat": "chatcmpl-",
    "completion": "cmpl-",
    "embedding": "embd-",
}


@dataclass(frozen=True, slots=True)
class Asker:
    """Caller who sends a request.

    Attributes:
        key: Id of the API key, or of the user who is logged in.
        quotas: Quotas that a request uses: of the key, and of the user whom it belongs to.
        projects: Projects whose endpoints may be called; None is every project's.
    """

    key: str
    quotas: tuple[tuple[str, Quota], ...] = ()
    projects: frozenset[str | None] | None = None

    def may_call(self, project: str | None) -> bool:
        """Whether a project's endpoints may be called."""
        return self.projects is None or project in self.projects


@dataclass(slots=True)
class _Exchange:
    """One request on its way."""

    kind: Kind
    asker: Asker
    choice: Choice
    call: Call
    began: float
    span: RequestSpan
    first_s: float | None = None
    caller: str = ""
    events: list[str] | None = None
    events_sent: int = 0


class Gateway:
    """Answers requests.

    Args:
        endpoints: Endpoints in the ledger.
        backends: Back ends through which variants are called.
        ids: Maker of the answers' ids.
        callers: Maker of the callers' hashes.
        share: This process's share of every key's quota, in (0, 1], until it has seen how many
            gateways there are.
        limits: What one request may ask for.
        tracing: Maker of spans; None makes none.
        book: Book in which it is counted who uses how much; None counts nothing.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        backends: Backends,
        ids: ResponseIds,
        callers: CallerHashes,
        *,
        share: float = 1.0,
        limits: RequestLimits = DEFAULT_LIMITS,
        tracing: Tracing | None = None,
        book: UsageBook | None = None,
    ) -> None:
        self._book = book
        self._limits = limits
        self._tracing = tracing or Tracing()
        self._backends = backends
        self._metrics = GatewayMetrics()
        self._quotas = Quotas(share)
        self._keeper = TableKeeper(endpoints, self._changed)
        self._observer = Observer(endpoints, self._keeper.callers_before)
        self._mirror = Mirror(backends, self._metrics, self._observer.compared, self._copied)
        self.ids = ids
        self.callers = callers

    @property
    def table(self) -> RoutingTable:
        """The routing table in use."""
        return self._keeper.table

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep up with the ledger while in the context; the first table is there before it."""
        await self._keeper.look()
        works = [
            self._keeper.keep_up(),
            self._mirror.run(),
            self._observer.keep_writing(),
            self._metrics.keep_fresh(),
        ]
        if self._book is not None:
            await asyncio.to_thread(self._book.write)  # so that others know of this gateway
            works += [self._book.keep_writing(), self._share_quotas(self._book)]
        try:
            async with meanwhile(works):
                yield
        finally:
            await asyncio.to_thread(self._observer.write)
            await self._observer.write_traffic(at_once=True)
            if self._book is not None:
                await asyncio.to_thread(partial(self._book.write, ends=True))
            await asyncio.to_thread(self._tracing.close)

    async def _share_quotas(self, book: UsageBook) -> None:
        """Have as large a part of every quota as there are gateways, on whichever nodes.

        A new one is counted within seconds, one that was killed until it is taken to have died:
        meanwhile all of them together let through less than the quota, not more.
        """
        while True:
            with contextlib.suppress(ZtomError):  # the share stays as it is
                self._quotas.share = 1 / max(1, await asyncio.to_thread(book.alike))
            await asyncio.sleep(ALIVE_EVERY_S)

    async def answer(
        self,
        kind: Kind,
        body: Mapping[str, Any],
        asker: Asker,
        headers: Mapping[str, str],
        *,
        nbytes: int = 0,
    ) -> Response:
        """Answer one request; every failure is an answer in OpenAI's form.

        Args:
            kind: Which of OpenAI's endpoints was called.
            body: Parsed JSON body of the request.
            asker: Caller who sends the request.
            headers: Headers of the request by name in lower case.
            nbytes: Length of the body, bytes.
        """
        began = time.monotonic()
        model = body.get("model")
        if not isinstance(model, str) or not model:
            return self.refuse(refusal(400, "'model' must be a string.", param="model"))
        refused = too_much(kind, without_neutral(kind, body), self._limits)
        if refused is not None:
            return self.refuse(refused)
        wait_s = self._quotas.admit(asker.quotas, now=began)
        if wait_s > 0:
            return self._over_quota(wait_s)
        exchange = self._routed(kind, model, body, asker, headers, began, nbytes)
        if exchange is None:
            await self._keeper.look_again()
            exchange = self._routed(kind, model, body, asker, headers, began, nbytes)
        if exchange is None:
            return self.refuse(no_such_model(model))
        self._metrics.began(exchange.choice)
        if body.get("stream"):
            return await self._streamed(exchange)
        return await self._whole(exchange)

    def refuse(self, reply: Reply, retry_after_s: int | None = None) -> Response:
        """An answer that no variant gave."""
        self._metrics.refused(reply.status)
        return _refused(reply, {} if retry_after_s is None else {"retry-after": str(retry_after_s)})

    def _over_quota(self, wait_s: float) -> Response:
        reply = refusal(429, "The key's quota is used up.", code="rate_limit_exceeded")
        return self.refuse(reply, int(wait_s) + 1)

    def _routed(
        self,
        kind: Kind,
        model: str,
        body: Mapping[str, Any],
        asker: Asker,
        headers: Mapping[str, str],
        began: float,
        nbytes: int,
    ) -> _Exchange | None:
        request = self.ids.nonce()
        user = body.get("user")
        sticky = headers.get(STICKY_HEADER) or (user if isinstance(user, str) else "")
        caller = self.callers.sticky(asker.key, sticky) if sticky else request
        choice = choose(
            self.table, model, caller=caller, request=request, headers=headers, key=asker.key
        )
        if choice is None or not asker.may_call(choice.project):
            return None
        span = self._tracing.begin(kind, model, headers)
        origin = ResponseOrigin(choice.digest, choice.role, choice.release, choice.step)
        call = Call(
            kind=kind,
            body=dict(body),
            digest=choice.digest,
            request_id=self.ids.make(origin, request),
            folder=choice.placement.folder,
            name=choice.placement.name,
            # an application into which variants are swapped may hold another one for a moment
            exact=choice.placement.current is not None,
            trace=span.context,
            limits=self._limits,
        )
        hashed = self.callers.caller(asker.key)
        exchange = _Exchange(kind, asker, choice, call, began, span, caller=hashed)
        # how far two answers differ is measured in words
        if kind != "embedding" and choice.shadow is not None and nbytes <= _LARGEST_COPY_BYTES:
            exchange.events = []
        return exchange

    async def _whole(self, exchange: _Exchange) -> Response:
        try:
            answer = await self._ask(exchange)
        except asyncio.CancelledError:
            self._finish(exchange, 499)
            raise
        except Exception as error:
            return self._failed(exchange, error)
        return self._respond(exchange, answer)

    async def _ask(self, exchange: _Exchange) -> Answer:
        """Ask; while another variant is still in the engine, a moment later once more."""
        async for call in self._until_swapped(exchange):
            answer = await self._backends.ask(exchange.choice.placement, call)
            if not _is_other_version(answer):
                return answer
        raise Unavailable

    async def _until_swapped(self, exchange: _Exchange) -> AsyncIterator[Call]:
        """The call, again and again while the variant is on its way into the engine.

        At last it is for whichever variant is there: the one that was chosen has left meanwhile.
        """
        deadline = time.monotonic() + _SWAP_S
        while exchange.call.exact and self._is_to_answer(exchange) and time.monotonic() < deadline:
            yield exchange.call
            await asyncio.sleep(_SWAP_POLL_S)
        # pinned to a version: that one or none
        exact = exchange.choice.role is TrafficRole.PINNED
        yield replace(exchange.call, exact=exact)

    def _is_to_answer(self, exchange: _Exchange) -> bool:
        """Whether the table, as it is by now, still wants the variant in its engine."""
        where = self.table.placements.get(exchange.choice.digest)
        return where is not None and where.current == exchange.choice.digest

    def _respond(self, exchange: _Exchange, answer: Answer) -> Response:
        self._finish(
            exchange,
            answer.status,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            empty=answer.empty,
            engine_s=answer.engine_s,
        )
        if answer.status == 200 and exchange.events is not None:
            self._copy(exchange, text_of(answer.body))
        headers = self._headers(exchange, answer.variant)
        if answer.status in _RETRY_AFTER_S:
            headers["retry-after"] = _RETRY_AFTER_S[answer.status]
        return Response(answer.body, answer.status, headers, media_type="application/json")

    async def _streamed(self, exchange: _Exchange) -> Response:
        try:
            first, items = await self._open(exchange)
        except asyncio.CancelledError:
            self._finish(exchange, 499)
            raise
        except Exception as error:
            return self._failed(exchange, error)
        if isinstance(first, Answer):
            await items.aclose()
            return self._respond(exchange, first)
        variant = first.variant if isinstance(first, Opened) else ""
        return event_stream(self._events(exchange, items), self._headers(exchange, variant))

    async def _open(
        self, exchange: _Exchange
    ) -> tuple[StreamItem, AsyncGenerator[StreamItem, None]]:
        async for call in self._until_swapped(exchange):
            items = self._backends.stream(exchange.choice.placement, call)
            first = await anext(items)
            if not _is_other_version(first):
                return first, items
            await items.aclose()
        raise Unavailable

    async def _events(
        self, exchange: _Exchange, items: AsyncGenerator[StreamItem, None]
    ) -> AsyncIterator[str]:
        end, status = StreamEnd(0, 0, False), 499
        try:
            async with aclosing(items):
                async for item in items:
                    if isinstance(item, str):
                        exchange.events_sent += item.count(EVENT_END)
                        if exchange.first_s is None:
                            exchange.first_s = time.monotonic() - exchange.began
                        if exchange.events is not None:
                            exchange.events.append(item)
                        yield item
                    elif isinstance(item, StreamEnd):
                        end, status = item, 500 if item.failed else 200
            if status == 499:
                raise Unavailable
        except Unavailable:
            status = 503
            yield event(refusal(503, "The answer broke off.", code="variant_failed").body)
            yield DONE_EVENT
        finally:
            self._finish(
                exchange,
                status,
                prompt_tokens=end.prompt_tokens,
                completion_tokens=end.completion_tokens,
                empty=end.empty,
                engine_s=end.engine_s,
            )
        if status == 200 and exchange.events is not None:
            self._copy(exchange, text_of_events(exchange.events))

    def _failed(self, exchange: _Exchange, error: Exception) -> Response:
        reply = _REFUSALS.get(type(error), _REFUSALS[Unavailable])
        if type(error) not in _REFUSALS:
            access_log.error("a call to %s raised %s", exchange.call.name, type(error).__name__)
        self._finish(exchange, reply.status)
        headers = self._headers(exchange, _name(exchange.choice))
        return _refused(reply, {**headers, "retry-after": _RETRY_AFTER_S[reply.status]})

    def _finish(
        self,
        exchange: _Exchange,
        status: int,
        *,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        empty: bool = False,
        engine_s: float = 0.0,
    ) -> None:
        now = time.monotonic()
        seconds = now - exchange.began
        choice, asker = exchange.choice, exchange.asker
        # of an answer that was not read to its end the counts are not known: what was sent counts
        tokens = max(prompt_tokens + completion_tokens, exchange.events_sent)
        for whose, quota in asker.quotas:
            self._quotas.use(whose, quota, tokens, now=now)
        self._metrics.ended(
            choice,
            status=status,
            seconds=seconds,
            first_s=exchange.first_s,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
        )
        if self._book is not None:
            counts = UsageCounts(
                requests=1,
                failed=int(status >= HTTPStatus.INTERNAL_SERVER_ERROR),
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
                busy_s=engine_s,
            )
            self._book.add(counts, digest=choice.digest, project=choice.project, key=asker.key)
        exchange.span.end(
            status,
            {
                "gen_ai.response.id": _OPENAI_PREFIX[exchange.kind] + exchange.call.request_id,
                "gen_ai.response.model": _name(choice),
                "gen_ai.usage.input_tokens": prompt_tokens,
                "gen_ai.usage.output_tokens": completion_tokens,
                "gen_ai.response.time_to_first_chunk": exchange.first_s,
                "ztom.alias": choice.alias,
                "ztom.role": str(choice.role),
            },
        )
        self._observer.answered(
            choice, exchange.caller, status=status, seconds=seconds, empty=empty
        )
        access_log.info(
            "answered",
            extra={
                "response_id": exchange.call.request_id,
                "alias": choice.alias,
                "variant": _name(choice),
                "role": str(choice.role),
                "status": status,
                "key": asker.key,
                "seconds": round(seconds, 4),
                "first_token_seconds": exchange.first_s,
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
            },
        )

    def _copy(self, exchange: _Exchange, text: str) -> None:
        choice = exchange.choice
        placement = self.table.placements.get(choice.shadow or "")
        if placement is not None and self._observer.admits_copy(choice, exchange.caller):
            self._mirror.offer(Mirrored(choice, exchange.call, placement, text))

    def _copied(self, digest: str, project: str | None, answer: Answer) -> None:
        """A copy was answered: an engine worked for nobody's key."""
        if self._book is not None:
            counts = UsageCounts(busy_s=answer.engine_s)
            self._book.add(counts, digest=digest, project=project)

    def _headers(self, exchange: _Exchange, variant: str) -> dict[str, str]:
        return {
            VARIANT_HEADER: variant or _name(exchange.choice),
            ROLE_HEADER: exchange.choice.role,
            "x-request-id": _OPENAI_PREFIX[exchange.kind] + exchange.call.request_id,
        }

    def _changed(self, version: int, gone: frozenset[str]) -> None:
        self._metrics.table(version)
        for app in gone:
            self._backends.forget(app)


_REFUSALS: Mapping[type[Exception], Reply] = {
    Overloaded: refusal(429, "The model has too many requests; try again.", code="overloaded"),
    Unavailable: refusal(503, "The model does not answer; try again.", code="unavailable"),
    Late: refusal(503, "The model did not answer in time; try again.", code="timeout"),
}


def _is_other_version(item: StreamItem) -> bool:
    return isinstance(item, Answer) and item.code == "other_version"


def _refused(reply: Reply, headers: Mapping[str, str]) -> Response:
    return JSONResponse(reply.body, reply.status, dict(headers))


def _name(choice: Choice) -> str:
    return variant_id(choice.placement.name, choice.digest)
