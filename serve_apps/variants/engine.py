"""vLLM's async engine on one variant, answering requests in OpenAI's form.

The only file here that imports vLLM. Requests, chat templates, sampling, log-probabilities and the
shape of answers and stream events are vLLM's own OpenAI serving layer; this file builds it around
an engine that the calling process drives, brings its errors into OpenAI's form, and watches that it
makes progress. It knows nothing of HTTP and of Ray.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.entrypoints.openai.models.protocol import BaseModelPath
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve import create_error_response
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.utils.fingerprint import set_default_fingerprint_mode
from vllm.renderers.online_renderer import OnlineRenderer
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.metrics.loggers import StatLoggerBase

from serve_apps.variants.args import VariantArgs
from serve_apps.variants.identity import ModelIdentity
from serve_apps.variants.wire import DONE_EVENT, Kind, Reply, event, event_error, refusal
from ztom.errors import EngineError, EngineTimeoutError, VariantError

logger = logging.getLogger(__name__)

_CPU_KV_CACHE_BYTES = 2**29
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


class VariantEngine:
    """One vLLM engine on one variant. Make it with `start`."""

    def __init__(
        self, client: AsyncLLM, load: EngineLoad, *, args: VariantArgs, identity: ModelIdentity
    ) -> None:
        self.identity = identity
        self.load = load
        self._args = args
        self._client = client
        self._steps_at_check = -1
        self._chat, self._completion = _serving_layer(client, identity)

    @classmethod
    def start(cls, args: VariantArgs, identity: ModelIdentity, *, on_gpu: bool) -> VariantEngine:
        """Load the variant. Blocks while it loads; call it inside a running event loop.

        Raises:
            EngineError: vLLM refuses the variant or the options, with its reason.
        """
        load = EngineLoad()
        logging.getLogger(_QUOTING_LOGGER).setLevel(logging.CRITICAL)
        try:
            client = AsyncLLM.from_engine_args(
                _engine_args(args, on_gpu=on_gpu), stat_loggers=[_load_keeper(load)]
            )
        except Exception as error:
            raise EngineError(
                "the engine does not start on this variant",
                got=f"{type(error).__name__}: {' '.join(str(error).split())}",
                fix="The log of the replica has the engine's own messages.",
            ) from error
        return cls(client, load, args=args, identity=identity)

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together."""
        return int(self._client.model_config.max_model_len)

    @property
    def has_chat_template(self) -> bool:
        """Whether the variant's tokenizer brings a chat template."""
        return bool(getattr(self._client.get_tokenizer(), "chat_template", None))

    async def answer(
        self, kind: Kind, body: Mapping[str, Any]
    ) -> Reply | AsyncGenerator[str, None]:
        """Answer one request: a reply, or a stream of server-sent events when it asked for one.

        Cancelling the call, or closing the stream, aborts the generation. Nothing but cancellation
        is raised: every failure is a reply with its status.
        """
        try:
            request = _REQUEST_TYPES[kind].model_validate(body)
            serve = (
                self._chat.create_chat_completion
                if kind == "chat"
                else self._completion.create_completion
            )
            result = await serve(request)
            if isinstance(result, AsyncGenerator):
                return await _opened(result)
        except Exception as error:
            return _error_reply(error)
        if isinstance(result, ErrorResponse):
            return _in_openai_form(result.error.model_dump())
        return Reply(200, result.model_dump(mode="json"))

    async def prove(self) -> None:
        """Generate for real, once plainly and once through the chat template.

        Raises:
            VariantError: An answer is refused, empty, or its log-probability is not a number.
            EngineTimeoutError: No answer came within ``load_timeout_s``.
        """
        one_token = {"model": self.identity.name, "max_tokens": 1, "temperature": 0}
        try:
            async with asyncio.timeout(self._args.load_timeout_s):
                plain = {"prompt": [0], "logprobs": 1, **one_token}
                _require_answer(await self.answer("completion", plain))
                if self.has_chat_template:
                    chat = {"messages": [{"role": "user", "content": "Hello"}], **one_token}
                    _require_answer(await self.answer("chat", chat))
        except TimeoutError as error:
            raise EngineTimeoutError(
                "the loaded variant does not answer",
                got=f"nothing within {self._args.load_timeout_s:g} s",
                fix="A chat template that never ends is one cause; load_timeout_s is the other.",
            ) from error

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

    async def _generate_one_token(self) -> None:
        body = {"model": self.identity.name, "prompt": [0], "max_tokens": 1, "temperature": 0}
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

    def stop(self) -> None:
        """End the engine and its processes. Requests in work fail."""
        self._client.shutdown(timeout=_STOP_GRACE_S)


def _engine_args(args: VariantArgs, *, on_gpu: bool) -> AsyncEngineArgs:
    options: dict[str, Any] = {}
    if not on_gpu:
        # Without these vLLM sizes its cache by the whole machine's memory, and often cannot start.
        options = {
            "enforce_eager": True,
            "gpu_memory_utilization": 0.05,
            "kv_cache_memory_bytes": args.kv_cache_bytes or _CPU_KV_CACHE_BYTES,
        }
    elif args.kv_cache_bytes is not None:
        options = {"kv_cache_memory_bytes": args.kv_cache_bytes}
    return AsyncEngineArgs(
        model=str(args.variant),
        tokenizer=str(args.variant),
        trust_remote_code=False,
        load_format="safetensors",
        dtype=args.dtype,
        max_model_len=args.max_model_len,
        tensor_parallel_size=args.tensor_parallel_size,
        enable_log_requests=False,
        disable_log_stats=True,
        **options,
    )


def _load_keeper(load: EngineLoad) -> type[StatLoggerBase]:
    """A statistics logger, vLLM's own hook, that keeps ``load`` up to date."""

    class LoadKeeper(StatLoggerBase):
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


def _serving_layer(
    client: AsyncLLM, identity: ModelIdentity
) -> tuple[OpenAIServingChat, OpenAIServingCompletion]:
    set_default_fingerprint_mode("custom", identity.fingerprint)
    models = OpenAIServingModels(
        client, [BaseModelPath(name=name, model_path=name) for name in identity.ids]
    )
    # Templates come from the variant's tokenizer only, and no logger ever sees a prompt.
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


async def _opened(events: AsyncGenerator[str, None]) -> Reply | AsyncGenerator[str, None]:
    """Wait for the first event, so that a request that fails at once gets its status, not a 200."""
    first = await anext(events)
    error = event_error(first)
    if error is None:
        return _events(first, events)
    await events.aclose()
    return _in_openai_form(error)


async def _events(first: str, rest: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    async with aclosing(rest):
        try:
            yield first
            async for text in rest:
                error = event_error(text)
                yield text if error is None else event(_in_openai_form(error).body)
        except Exception as error:
            yield event(_error_reply(error).body)
            yield DONE_EVENT


def _error_reply(error: Exception) -> Reply:
    """The reply to a request that raised. Logs say what kind of error, never what was asked."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        # Below the field's name, the location names branches of unions that no client knows.
        field = str(first["loc"][0]) if first["loc"] else None
        return refusal(400, f"{field or 'The request'}: {first['msg']}", param=field)
    if isinstance(error, EngineDeadError):
        return refusal(503, "The engine is being restarted; try again.", code="engine_restarting")
    reply = _in_openai_form(create_error_response(error).error.model_dump())
    if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("a request failed with %s", type(error).__name__)
    return reply


def _in_openai_form(error: Mapping[str, Any]) -> Reply:
    """A vLLM error object as OpenAI's clients know it, with OpenAI's codes where there is one."""
    status = int(error["code"])
    message, param = str(error["message"]), error.get("param")
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return refusal(status, "The server had an error while processing the request.")
    if status == HTTPStatus.NOT_FOUND:
        return refusal(status, message, param=param, code="model_not_found")
    too_long = param == "input_tokens" or "context length" in message
    return refusal(
        status, message, param=param, code="context_length_exceeded" if too_long else None
    )


def _require_answer(reply: Reply | AsyncGenerator[str, None]) -> None:
    if not isinstance(reply, Reply) or reply.status != 200:
        got = reply.body["error"]["message"] if isinstance(reply, Reply) else "a stream"
        raise VariantError("the loaded variant does not answer", got=got)
    choice = reply.body["choices"][0]
    logprobs = (choice.get("logprobs") or {}).get("token_logprobs") or ()
    if reply.body["usage"]["completion_tokens"] < 1:
        raise VariantError("the loaded variant generates nothing")
    if not all(value is not None and math.isfinite(value) for value in logprobs):
        raise VariantError("the loaded variant generates log-probabilities that are not numbers")
