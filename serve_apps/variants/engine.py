"""vLLM's async engine on one model, answering requests in OpenAI's form.

The only file here that imports vLLM. Requests, chat templates, sampling, log-probabilities and the
shape of answers and stream events are vLLM's own OpenAI serving layer; this file builds it around
an engine that the calling process drives, brings its errors into OpenAI's form, and watches that it
makes progress. An engine can have several faces: the variants that its weights are one after the
other, or the adapters that it holds. It knows nothing of HTTP and of Ray, and lets every request
in: which face answers, and when, is decided in `serve_apps.variants.replica`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import pickle
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.generate.base.protocol import StreamOptions
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.entrypoints.openai.models.protocol import BaseModelPath
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve import create_error_response
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.utils.fingerprint import set_default_fingerprint_mode
from vllm.lora.request import LoRARequest
from vllm.renderers.online_renderer import OnlineRenderer
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.metrics.loggers import StatLoggerBase

from serve_apps.variants.events import EventStream
from serve_apps.variants.identity import ModelIdentity
from serve_apps.variants.memory import resident_bytes
from serve_apps.variants.options import engine_options
from serve_apps.variants.proof import Ask, prove, prove_plain, warm_up
from serve_apps.variants.wire import (
    Kind,
    Reply,
    count_prompts,
    event_error,
    openai_error,
    refusal,
)
from ztom.blending.chain import Chain
from ztom.engines.model_fit import check_adapter_fit, check_chain_fit, check_folder_fit
from ztom.errors import BlendError, EngineError, EngineTimeoutError
from ztom.rollout.options import ServingArgs

logger = logging.getLogger(__name__)

# Serve has let requests finish by then; there is nothing left to save.
_STOP_GRACE_S = 1.0
# Their messages can quote what a client sent; `_error_reply` logs what an operator needs.
_QUOTING_LOGGER = "vllm.entrypoints"
_REQUEST_TYPES = {"chat": ChatCompletionRequest, "completion": CompletionRequest}


@dataclass
class EngineLoad:
    """What an engine has done and has in hand.

    Attributes:
        steps: Scheduler steps since the start; it stands still only when the engine does.
        running: Sequences being generated.
        waiting: Sequences that wait to be scheduled.
        generated_tokens: Tokens generated since the start.
    """

    steps: int = 0
    running: int = 0
    waiting: int = 0
    generated_tokens: int = 0


@dataclass(frozen=True, eq=False)
class Face:
    """One variant that answers, with vLLM's serving layer under its name.

    Attributes:
        identity: Identity of the variant.
        chat: vLLM's serving layer of chat completions.
        completion: vLLM's serving layer of completions.
        adapter: Request by which vLLM knows the adapter; None for full weights.
    """

    identity: ModelIdentity
    chat: OpenAIServingChat
    completion: OpenAIServingCompletion
    adapter: LoRARequest | None = None


class VariantEngine:
    """One vLLM engine. Make it with `start`."""

    def __init__(
        self,
        client: AsyncLLM,
        load: EngineLoad,
        *,
        args: ServingArgs,
        identity: ModelIdentity,
        on_gpu: bool,
    ) -> None:
        self.load = load
        self._args = args
        self._client = client
        self._on_gpu = on_gpu
        self._steps_at_check = -1
        self._device_bytes = 0
        self.home = self.face(identity)

    @classmethod
    def start(cls, args: ServingArgs, identity: ModelIdentity, *, on_gpu: bool) -> VariantEngine:
        """Load a model. Blocks while it loads; call it inside a running event loop.

        Args:
            args: How to run it; of which kind they are decides on swapping and adapters.
            identity: Identity of the model.
            on_gpu: Whether there is a GPU for it.

        Raises:
            EngineError: vLLM refuses the model or the options, with its reason, or the tensors do
                not fit the model.
            CheckpointError: The folder holds no model.
        """
        check_folder_fit(identity.folder)
        load = EngineLoad()
        logging.getLogger(_QUOTING_LOGGER).setLevel(logging.CRITICAL)
        # What vLLM can stamp is one value for the process; answers are stamped here instead.
        set_default_fingerprint_mode("none")
        options = engine_options(args, identity, on_gpu=on_gpu)
        try:
            client = AsyncLLM.from_engine_args(
                AsyncEngineArgs(**options),
                stat_loggers=[_load_keeper(load)],
            )
        except Exception as error:
            raise EngineError(
                "the engine does not start on this variant",
                got=f"{type(error).__name__}: {' '.join(str(error).split())}",
                fix="The log of the replica has the engine's own messages. Too little memory is a "
                "usual cause: try a smaller kv_cache_gib or max_model_len.",
            ) from error
        return cls(client, load, args=args, identity=identity, on_gpu=on_gpu)

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together."""
        return int(self._client.model_config.max_model_len)

    @property
    def has_chat_template(self) -> bool:
        """Whether the model's tokenizer brings a chat template."""
        return bool(getattr(self._client.get_tokenizer(), "chat_template", None))

    def face(self, identity: ModelIdentity, *, adapter_number: int | None = None) -> Face:
        """A face for a variant.

        Args:
            identity: Identity of the variant.
            adapter_number: Number that no other adapter had before; None for full weights.
        """
        adapter = None
        if adapter_number is not None:
            adapter = LoRARequest(identity.digest, adapter_number, str(identity.folder))
        chat, completion = _serving_layer(self._client, identity, adapter)
        return Face(identity, chat, completion, adapter)

    async def answer(
        self,
        kind: Kind,
        body: Mapping[str, Any],
        *,
        face: Face | None = None,
        request_id: str | None = None,
        trace: Mapping[str, str] | None = None,
    ) -> Reply | EventStream:
        """Answer one request: a reply, or a stream of server-sent events when it asked for one.

        Cancelling the call, or closing the stream, aborts the generation. Nothing but cancellation
        is raised: every failure is a reply with its status.

        Args:
            kind: Which of OpenAI's two endpoints was called.
            body: Body that `check_request` has checked; its ``model`` does not matter.
            face: Face that answers; `home` when not given.
            request_id: Tail of the answer's id; random when not given.
            trace: Headers of the trace that the request belongs to, for vLLM's own spans.
        """
        face = face or self.home
        try:
            request: Any = _REQUEST_TYPES[kind].model_validate(body)
            shows_usage = _prepare(request, face, request_id)
            serve: Any = (
                face.chat.create_chat_completion
                if kind == "chat"
                else face.completion.create_completion
            )
            result = await serve(request, _raw_request(trace))
            if isinstance(result, AsyncGenerator):
                prompts = count_prompts(body) if kind == "completion" else 1
                choices = (request.n or 1) * prompts
                return await _open_stream(result, face, choices=choices, shows_usage=shows_usage)
        except Exception as error:
            return _error_reply(error)
        _stay_cancelled()
        if isinstance(result, ErrorResponse):
            return openai_error(result.error.model_dump())
        result.system_fingerprint = face.identity.fingerprint
        return Reply(200, result.model_dump(mode="json"))

    async def prove(self, face: Face | None = None) -> None:
        """Generate for real, once plainly and once through the chat template.

        Raises:
            VariantError: An answer is refused, empty, or its log-probability is not a number.
            EngineTimeoutError: No answer came within ``load_timeout_s``.
        """
        await self._in_time(prove(self._asking(face), chat=self.has_chat_template))

    async def prove_one_token(self, face: Face) -> None:
        """The first half of `prove`, for weights that came into an engine that was proved.

        Raises:
            VariantError: The variant does not answer; see `prove`.
            EngineTimeoutError: The answer does not come in time; see `prove`.
        """
        await self._in_time(prove_plain(self._asking(face)))

    async def warm_up(self) -> None:
        """Generate a few answers at once, so that no client has to wait for first times.

        Raises:
            VariantError: An answer is refused or empty.
            EngineTimeoutError: They did not come within ``load_timeout_s``.
        """
        await self._in_time(warm_up(self.answer, longest=self.max_model_len // 2))

    async def check_health(self) -> None:
        """Pass when the engine has stepped since the last check, or else generates a token.

        Raises:
            EngineError: The engine is dead.
            EngineTimeoutError: It is alive and does nothing.
        """
        if self._client.errored:
            raise EngineError("the engine is dead", fix="The replica is started again.")
        if self.load.steps == self._steps_at_check:
            await self._generate_one_token()
        self._steps_at_check = self.load.steps

    async def hold(self, chain: Chain, dtype: str) -> str:
        """Have the workers hold a chain, to `blend` from; returns where they placed it.

        Args:
            chain: Chain that was opened and checked.
            dtype: Dtype that blends are cast to, as a recipe says it. Loading a blend is then
                loading the file that such a recipe writes, whatever dtype the engine computes in.

        Raises:
            EngineError: It cannot be held, with the reason, or its blends do not fit the model.
        """
        await asyncio.to_thread(check_chain_fit, self.home.identity.folder, chain)
        placed = await self._rpc("ztom_hold_as", pickle.dumps(chain), dtype)
        return str(placed[0])

    async def blend(self, factors: Sequence[float], *, instead: Sequence[float]) -> None:
        """Replace the weights by a blend of the chain that is held. Nothing may be generating.

        Args:
            factors: Scaling factors of the blend, one per transition.
            instead: Scaling factors of the blend to take should this one fail half-way.

        Raises:
            BlendError: It failed. The weights are a mixture of the two, and `restore` mends them.
            EngineError: It failed in a way that leaves no usable weights.
        """
        failures = await self._rpc("ztom_try_blend", tuple(factors), tuple(instead))
        if failed := [failure for failure in failures if failure]:
            raise BlendError("the variant cannot be blended", got=failed[0])

    async def restore(self, factors: Sequence[float]) -> None:
        """Replace the weights by a blend that is known to be good.

        Raises:
            EngineError: It failed: there are no usable weights.
        """
        await self._rpc("ztom_blend", tuple(factors))

    async def forget_prefixes(self) -> None:
        """Empty the prefix cache. Entries are salted by variant, so this gives memory back only."""
        if not await self._client.reset_prefix_cache():
            logger.warning("the prefix cache could not be emptied")

    async def load_adapter(self, face: Face) -> None:
        """Read an adapter into the engine's memory.

        Raises:
            AdapterUnsupportedError: It adapts modules that the base does not have.
            EngineError: vLLM refuses it, with its reason.
        """
        base = self.home.identity.folder
        await asyncio.to_thread(check_adapter_fit, face.identity.folder, base)
        try:
            await self._client.add_lora(face.adapter)
        except Exception as error:
            raise EngineError(
                f"the engine does not load the adapter {face.identity.pinned}",
                got=f"{type(error).__name__}: {' '.join(str(error).split())}",
            ) from error

    async def remove_adapter(self, face: Face) -> None:
        """Remove an adapter from the engine's memory. No request may be using it.

        Raises:
            EngineError: The engine is dead.
        """
        if face.adapter is None:
            return
        try:
            await self._client.remove_lora(face.adapter.lora_int_id)
        except Exception as error:
            raise EngineError(
                f"the engine does not remove the adapter {face.identity.pinned}",
                got=f"{type(error).__name__}: {error}",
            ) from error

    async def memory_bytes(self) -> int:
        """Bytes that are resident, of all processes, on the CPU; on a GPU those allocated there.

        An engine that is busy for a second gives what it gave last.
        """
        if not self._on_gpu:
            return await asyncio.to_thread(resident_bytes)
        try:
            async with asyncio.timeout(1.0):
                self._device_bytes = sum(await self._rpc("ztom_device_bytes"))
        except TimeoutError:
            pass
        return self._device_bytes

    def stop(self) -> None:
        """End the engine and its processes. Requests in work fail."""
        self._client.shutdown(timeout=_STOP_GRACE_S)

    async def _rpc(self, method: str, *arguments: object) -> list[Any]:
        task = method.removeprefix("ztom_")
        limit_s = self._args.load_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                results: list[Any] = await self._client.collective_rpc(method, args=arguments)
        except TimeoutError as error:
            raise EngineTimeoutError(
                f"the engine's workers do not come back from {task}", got=f"{limit_s:g} s"
            ) from error
        except Exception as error:
            raise EngineError(
                f"the engine's workers fail in {task}",
                got=f"{type(error).__name__}: {' '.join(str(error).split())}",
            ) from error
        return results

    def _asking(self, face: Face | None) -> Ask:
        return functools.partial(self.answer, face=face)

    async def _in_time(self, check: Awaitable[object]) -> None:
        try:
            async with asyncio.timeout(self._args.load_timeout_s):
                await check
        except TimeoutError as error:
            raise EngineTimeoutError(
                "the loaded variant does not answer",
                got=f"nothing within {self._args.load_timeout_s:g} s",
                fix="A chat template that never ends is one cause; load_timeout_s is the other.",
            ) from error

    async def _generate_one_token(self) -> None:
        body = {"prompt": [0], "max_tokens": 1, "temperature": 0}
        limit_s = self._args.health_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                reply = await self.answer("completion", body)
        except TimeoutError as error:
            raise EngineTimeoutError(
                "the engine makes no progress", got=f"no token within {limit_s:g} s"
            ) from error
        if isinstance(reply, Reply) and reply.status != 200:
            raise EngineError("the engine does not answer", got=reply.body["error"]["message"])


def _load_keeper(load: EngineLoad) -> type[StatLoggerBase]:
    """A statistics logger, vLLM's own hook, that keeps ``load`` up to date."""

    class LoadKeeper(StatLoggerBase):  # type: ignore[misc]  # vLLM is not typed
        def __init__(self, vllm_config: object, engine_index: int = 0) -> None:
            pass

        def record(
            self,
            scheduler_stats: Any,
            iteration_stats: Any,
            mm_cache_stats: object = None,
            engine_idx: int = 0,
        ) -> None:
            load.steps += 1
            if scheduler_stats is not None:
                load.running = scheduler_stats.num_running_reqs
                load.waiting = scheduler_stats.num_waiting_reqs
            if iteration_stats is not None:
                load.generated_tokens += iteration_stats.num_generation_tokens

        def log_engine_initialized(self) -> None:
            pass

    return LoadKeeper


class _OneModel(OpenAIServingModels):  # type: ignore[misc]  # vLLM is not typed
    """vLLM's list of models for one face. Requests name nothing but the adapter, if it is one."""

    def __init__(
        self, client: AsyncLLM, identity: ModelIdentity, adapter: LoRARequest | None
    ) -> None:
        super().__init__(client, [BaseModelPath(identity.pinned, str(identity.folder))])
        if adapter is not None:
            self.lora_requests = {adapter.lora_name: adapter}

    def model_name(self, lora_request: LoRARequest | None = None) -> str:
        """What answers bear as ``model``."""
        return str(self.base_model_paths[0].name)


def _serving_layer(
    client: AsyncLLM, identity: ModelIdentity, adapter: LoRARequest | None
) -> tuple[OpenAIServingChat, OpenAIServingCompletion]:
    models = _OneModel(client, identity, adapter)
    # Templates come from the model's tokenizer only, and no logger ever sees a prompt.
    template: dict[str, Any] = {
        "request_logger": None,
        "chat_template": None,
        "chat_template_content_format": "auto",
    }
    renderer = OnlineRenderer(client.model_config, client.renderer, **template)
    chat = OpenAIServingChat(
        client, models, "assistant", online_renderer=renderer, enable_log_deltas=False, **template
    )
    completion = OpenAIServingCompletion(
        client, models, online_renderer=renderer, request_logger=None
    )
    return chat, completion


def _prepare(request: Any, face: Face, request_id: str | None) -> bool:
    """Fill in what is not the client's to say; returns whether it wants to see the usage."""
    request.model = None if face.adapter is None else face.adapter.lora_name
    # A block that was computed with other weights can never be found again.
    request.cache_salt = face.identity.digest
    if request_id is not None:
        request.request_id = request_id
    shows_usage = request.stream_options is not None and bool(request.stream_options.include_usage)
    if request.stream and not shows_usage:
        request.stream_options = StreamOptions(include_usage=True)
    return shows_usage


def _raw_request(trace: Mapping[str, str] | None) -> Request | None:
    """What vLLM reads trace headers from: an HTTP request with nothing else in it."""
    if not trace:
        return None
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in trace.items()]
    return Request({"type": "http", "headers": headers})


def _stay_cancelled() -> None:
    """Be cancelled, where vLLM has made of it the answer that the client has disconnected."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _open_stream(
    events: AsyncGenerator[str, None], face: Face, *, choices: int, shows_usage: bool
) -> Reply | EventStream:
    """Wait for the first event, so that a request that fails at once gets its status, not a 200."""
    first = await anext(events)
    error = event_error(first)
    if error is not None:
        await events.aclose()
        return openai_error(error)
    return EventStream(
        first,
        events,
        fingerprint=face.identity.fingerprint,
        choices=choices,
        shows_usage=shows_usage,
        explain=_error_reply,
    )


def _error_reply(error: Exception) -> Reply:
    """The reply to a request that raised. Logs say what kind of error, never what was asked."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        # Below the field's name, the location names branches of unions that no client knows.
        field = str(first["loc"][0]) if first["loc"] else None
        return refusal(400, f"{field or 'The request'}: {first['msg']}", param=field)
    if isinstance(error, EngineDeadError):
        return refusal(503, "The engine is being restarted; try again.", code="engine_restarting")
    reply = openai_error(create_error_response(error).error.model_dump())
    if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("a request failed with %s", type(error).__name__)
    return reply
