"""A replica without Ray: calls in, answers out, on an engine that serves one variant or many.

`VariantReplica` serves one full-weight variant, which a live swap can replace by another;
`SharedReplica` serves the adapters of one base. Both answer calls in the same way and differ in who
answers, and when it may.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pydantic_core

from serve_apps.variants.adapters import AdapterShelf, NotLoadedError
from serve_apps.variants.args import BaseArgs, VariantArgs
from serve_apps.variants.calls import (
    Answer,
    Call,
    Opened,
    ReplicaState,
    StreamEnd,
    StreamItem,
    SwapReport,
)
from serve_apps.variants.drain import Gate
from serve_apps.variants.environment import prepare_environment
from serve_apps.variants.events import EventStream, joined
from serve_apps.variants.identity import SHORT_DIGEST_LENGTH, ModelIdentity, identify
from serve_apps.variants.meter import WorkMeter
from serve_apps.variants.swap import LiveSwap, read_blended
from serve_apps.variants.wire import (
    Reply,
    check_request,
    engine_body,
    no_chat_template,
    refusal,
)
from ztom.engines.embedding_models import gives_embeddings
from ztom.errors import ConfigError, EngineError, ZtomError
from ztom.io.places import StoragePlace, parse_place
from ztom.settings import Settings
from ztom.stack import require_stack

if TYPE_CHECKING:
    from serve_apps.variants.engine import VariantEngine
    from serve_apps.variants.vllm_server import Face

logger = logging.getLogger(__name__)


class RefusedError(Exception):
    """A call that nobody here may answer."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.body["error"]["message"])
        self.reply = reply


class Replica(ABC):
    """Answers calls on one engine.

    Attributes:
        engine: The engine.
        load_s: Seconds that it took to load it.
    """

    def __init__(self, engine: VariantEngine) -> None:
        self.engine = engine
        self._meter = WorkMeter()
        self._name = uuid.uuid4().hex
        self.load_s = 0.0

    @property
    @abstractmethod
    def digests(self) -> tuple[str, ...]:
        """The variants it can answer for without being told a folder."""

    @abstractmethod
    def _admit(self, call: Call) -> AbstractAsyncContextManager[Face]:
        """The face that answers a call, which stays the same until the end of the block.

        Raises:
            RefusedError: Nobody answers it.
        """

    async def ask(self, call: Call) -> Answer:
        """Answer a call at once. Cancelling it aborts the generation.

        Nothing is raised for what a client or a variant can do wrong: that is an answer with its
        status.
        """
        async with aclosing(self._respond(call, streamed=False)) as items:
            async for item in items:
                if isinstance(item, Answer):
                    return item
        raise EngineError("a call was not answered")

    async def stream(self, call: Call) -> AsyncGenerator[StreamItem, None]:
        """Answer a call piece by piece. Closing the stream aborts the generation.

        Yields:
            One `Answer` if the call is refused. Otherwise `Opened`, then server-sent events as
            text, one or more at a time, then `StreamEnd`.
        """
        async with aclosing(self._respond(call, streamed=True)) as items:
            async for item in items:
                yield item

    async def state(self) -> ReplicaState:
        """What it holds and does."""
        load = self.engine.load
        return ReplicaState(
            pid=os.getpid(),
            digests=self.digests,
            running=load.running,
            waiting=load.waiting,
            generated_tokens=load.generated_tokens,
            steps=load.steps,
            memory_bytes=await self.engine.memory_bytes(),
            replica=self._name,
            load_s=self.load_s,
            up_s=self._meter.up_s,
            busy_s=self._meter.busy_s,
            untold_s=self._meter.untold_s,
        )

    async def check_health(self) -> None:
        """Pass when the engine makes progress.

        Raises:
            EngineError: It is dead, does nothing, or has no usable weights.
        """
        await self.engine.check_health()

    def stop(self) -> None:
        """End the engine. Calls in work fail."""
        self.engine.stop()

    async def _respond(self, call: Call, *, streamed: bool) -> AsyncGenerator[StreamItem, None]:
        body = self._check(call, streamed=streamed)
        if isinstance(body, Reply):
            yield _refused(call, body)
            return
        try:
            async with self._admit(call) as face:
                if call.kind == "chat" and not face.chats:
                    yield _refused(call, no_chat_template())
                    return
                async with aclosing(self._answer_with(face, call, body)) as items:
                    async for item in items:
                        yield item
        except RefusedError as error:
            yield _refused(call, error.reply)

    async def _answer_with(
        self, face: Face, call: Call, body: dict[str, Any]
    ) -> AsyncGenerator[StreamItem, None]:
        """Answer with a face, and say how much of the engine's time that took."""
        share = self._meter.begin()
        try:
            result = await self.engine.answer(
                call.kind, body, face=face, request_id=call.request_id, trace=call.trace
            )
            if isinstance(result, Reply):
                answer = _answer(result, face.identity)
                yield replace(answer, engine_s=self._meter.tell(share))
                return
            pace = self.engine.stream_interval_s
            async with aclosing(_streamed(result, face.identity, pace)) as items:
                async for item in items:
                    if isinstance(item, StreamEnd):
                        yield replace(item, engine_s=self._meter.tell(share))
                    else:
                        yield item
        finally:
            self._meter.end(share)

    @property
    def _may_chat(self) -> bool:
        """Whether anything that it answers for can have a chat template."""
        return self.engine.has_chat_template

    def _check(self, call: Call, *, streamed: bool) -> dict[str, Any] | Reply:
        refused = check_request(
            call.kind,
            call.body,
            has_chat_template=self._may_chat,
            has_tools=self.engine.tool_parser is not None,
            embeds=self.engine.embeds,
            limits=call.limits,
            longest=self.engine.max_model_len,
        )
        if refused is not None:
            return refused
        body = engine_body(call.kind, call.body)
        return body if call.kind == "embedding" else body | {"stream": streamed}


class VariantReplica(Replica):
    """One full-weight variant. Make it with `start`."""

    def __init__(self, engine: VariantEngine, gate: Gate, swap: LiveSwap | None) -> None:
        super().__init__(engine)
        self._gate = gate
        self._swap = swap

    @classmethod
    async def start(cls, args: VariantArgs, *, on_gpu: bool) -> VariantReplica:
        """Verify the variant, load it, prove that it answers, warm it up.

        Raises:
            VariantError: It does not verify or does not answer.
            ConfigError: It has no model name.
            EngineError: The engine does not start.
            ZtomError: `live_swap` is asked for and the chain cannot be held.
        """
        began = time.monotonic()
        identity = await asyncio.to_thread(identify, args)
        if args.live_swap:
            _require_text(identity, "live_swap", fix="Deploy it without live_swap.")
        engine = _start_engine(args, identity, on_gpu=on_gpu)
        try:
            gate, swap = Gate(), None
            if args.live_swap:
                current = await asyncio.to_thread(
                    read_blended, args.variant, args.name, home=identity.folder
                )
                swap = await LiveSwap.prepare(engine, gate, current, engine.home)
            await engine.prove()
            await engine.warm_up()
        except BaseException:
            engine.stop()
            raise
        replica = cls(engine, gate, swap)
        replica.load_s = time.monotonic() - began
        return replica

    @property
    def identity(self) -> ModelIdentity:
        """The variant that answers now."""
        return self._face.identity

    @property
    def digests(self) -> tuple[str, ...]:
        """Digest of the variant that answers now, alone."""
        return (self.identity.digest,)

    async def swap(self, folder: StoragePlace, name: str | None, wait_s: float) -> SwapReport:
        """Make another variant answer; see `LiveSwap.to`.

        Raises:
            ConfigError: The chain is not held.
            ZtomError: The swap failed; see `LiveSwap.to`.
        """
        if self._swap is None:
            raise ConfigError(
                "this replica cannot swap",
                fix="Deploy the variant with live_swap: true.",
            )
        return await self._swap.to(folder, name, wait_s)

    async def check_health(self) -> None:
        """See `Replica.check_health`; a swap under way has its own limits of time."""
        if self._swap is not None and self._swap.broken:
            raise EngineError(self._swap.broken, fix="The replica is started again.")
        if self._swap is None or not self._swap.under_way:
            await super().check_health()

    @property
    def _face(self) -> Face:
        face: Face = self.engine.home if self._swap is None else self._swap.face
        return face

    @asynccontextmanager
    async def _admit(self, call: Call) -> AsyncIterator[Face]:
        async with self._gate.passing():
            if self._swap is not None and self._swap.broken:
                raise RefusedError(_restarting())
            face = self._face
            if call.exact and call.digest != face.identity.digest:
                message = f"This replica serves {face.identity.pinned} now."
                raise RefusedError(refusal(503, message, code="other_version"))
            yield face


class SharedReplica(Replica):
    """The adapters of one base. Make it with `start`."""

    def __init__(self, engine: VariantEngine, shelf: AdapterShelf) -> None:
        super().__init__(engine)
        self._shelf = shelf

    @classmethod
    async def start(cls, args: BaseArgs, *, on_gpu: bool) -> SharedReplica:
        """Open the base, load it, prove that it answers, warm it up.

        Raises:
            CheckpointError: The base cannot be opened, or is not the one of the digest.
            VariantError: It does not answer.
            EngineError: The engine does not start.
        """
        began = time.monotonic()
        identity = await asyncio.to_thread(open_base, args)
        _require_text(identity, "adapters", fix="Write the variant in its dense form.")
        engine = _start_engine(args, identity, on_gpu=on_gpu)
        try:
            await engine.prove()
            await engine.warm_up()
        except BaseException:
            engine.stop()
            raise
        shelf = AdapterShelf(
            engine,
            places=args.max_cpu_loras,
            base_digest=args.digest,
            max_rank=args.max_lora_rank,
        )
        replica = cls(engine, shelf)
        replica.load_s = time.monotonic() - began
        return replica

    @property
    def _may_chat(self) -> bool:
        """An adapter may bring a template that its base lacks."""
        return True

    @property
    def digests(self) -> tuple[str, ...]:
        """Digests of all adapters that were loaded once and not forgotten."""
        return self._shelf.digests

    async def load(self, digest: str, folder: StoragePlace, name: str | None) -> None:
        """Load an adapter and prove that it answers, before there is traffic for it.

        Raises:
            VariantError: It does not verify or does not belong here, or does not answer.
            EngineError: The engine refuses it.
        """
        async with self._shelf.holding(digest, folder, name):
            pass

    async def forget(self, digest: str) -> None:
        """Remove an adapter once nobody uses it; one that is not known is no work."""
        await self._shelf.forget(digest)

    @asynccontextmanager
    async def _admit(self, call: Call) -> AsyncIterator[Face]:
        folder = None if call.folder is None else parse_place(call.folder)
        holding = self._shelf.holding(call.digest, folder, call.name)
        try:
            face = await holding.__aenter__()
        except ZtomError as error:
            raise RefusedError(_unusable(error)) from error
        try:
            yield face
        finally:
            await holding.__aexit__(None, None, None)


def open_base(args: BaseArgs) -> ModelIdentity:
    """Check the base against its digest, reading every byte, and have it as a local folder.

    Raises:
        CheckpointError: It cannot be opened, or has another digest.
        ConfigError: It is an adapter itself.
    """
    from ztom.checkpoints.checkpoint import open_checkpoint  # it imports torch
    from ztom.checkpoints.fetch import fetch_folder

    settings = Settings()
    checkpoint = open_checkpoint(args.base, settings=settings, sha256=args.digest)
    if checkpoint.kind != "full":
        raise ConfigError("the base is no whole model", got=f"an adapter at {args.base}")
    folder = fetch_folder(checkpoint, None, settings)
    return ModelIdentity(args.name or "base", args.digest, created=0, folder=folder)


def _require_text(identity: ModelIdentity, what: str, *, fix: str) -> None:
    if gives_embeddings(identity.folder):
        raise ConfigError(
            f"{what}: only models that give text are served so",
            got=f"{identity.pinned}, which gives embeddings",
            fix=fix,
        )


def _start_engine(
    args: VariantArgs | BaseArgs, identity: ModelIdentity, *, on_gpu: bool
) -> VariantEngine:
    require_stack("vllm")
    prepare_environment(args, on_gpu=on_gpu)
    from serve_apps.variants.engine import VariantEngine

    return VariantEngine.start(args, identity, on_gpu=on_gpu)


async def _streamed(
    events: EventStream, identity: ModelIdentity, interval_s: float
) -> AsyncGenerator[StreamItem, None]:
    # Both: what is joined is closed by the joining only once that has begun.
    async with aclosing(events), aclosing(joined(events, interval_s=interval_s)) as pieces:
        yield Opened(identity.pinned, identity.digest)
        async for piece in pieces:
            yield piece
    yield StreamEnd(
        events.prompt_tokens, events.completion_tokens, events.empty, failed=events.failed
    )


def _answer(reply: Reply, identity: ModelIdentity) -> Answer:
    usage = reply.body.get("usage") or {}
    return Answer(
        status=reply.status,
        body=pydantic_core.to_json(reply.body),
        variant=identity.pinned,
        digest=identity.digest,
        prompt_tokens=usage.get("prompt_tokens") or 0,
        completion_tokens=usage.get("completion_tokens") or 0,
        empty=reply.status == 200 and not all(map(_has_text, reply.body.get("choices", ()))),
    )


def _has_text(choice: dict[str, Any]) -> bool:
    return bool(choice["message"].get("content") if "message" in choice else choice.get("text"))


def _refused(call: Call, reply: Reply) -> Answer:
    """A refusal before any variant took the call bears the name of the one that was wanted."""
    variant = f"{call.name or 'variant'}@{call.digest[:SHORT_DIGEST_LENGTH]}"
    body = pydantic_core.to_json(reply.body)
    return Answer(reply.status, body, variant, call.digest, code=reply.code)


def _restarting() -> Reply:
    return refusal(503, "The engine is being restarted; try again.", code="engine_restarting")


def _unusable(error: ZtomError) -> Reply:
    """What a client is told of an adapter that cannot be used; the log has the rest."""
    logger.error("an adapter cannot be used: %s", error)
    if isinstance(error, NotLoadedError):
        return refusal(503, "The variant is not loaded here.", code="variant_not_loaded")
    return refusal(503, "The variant cannot be loaded.", code="variant_unusable")
