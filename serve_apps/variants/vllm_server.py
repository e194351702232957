"""vLLM's async engine with its OpenAI serving layer around it.

Only this file and `serve_apps.variants.vllm_renderer` import vLLM here. Requests, sampling,
log-probabilities and the shape of answers and stream events are vLLM's own; this file builds its
serving layer around an engine that the calling process drives, and brings its errors into OpenAI's
form. What a replica does with an engine is `serve_apps.variants.engine`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
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
from vllm.entrypoints.pooling.embed.protocol import EmbeddingCompletionRequest
from vllm.entrypoints.pooling.embed.serving import ServingEmbedding
from vllm.entrypoints.serve import create_error_response
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.utils.fingerprint import set_default_fingerprint_mode
from vllm.lora.request import LoRARequest
from vllm.renderers.chat_utils import ChatTemplateConfig
from vllm.renderers.online_renderer import OnlineRenderer
from vllm.tool_parsers import ToolParserManager
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.metrics.loggers import PrometheusStatLogger

from serve_apps.variants.adapter_tokenizer import chat_template_of
from serve_apps.variants.events import EventStream
from serve_apps.variants.identity import ModelIdentity
from serve_apps.variants.load import EngineLoad
from serve_apps.variants.request_fields import Kind
from serve_apps.variants.request_size import count_prompts
from serve_apps.variants.schema_check import SchemaCheck, schemas_of
from serve_apps.variants.tool_parsers import named_parser
from serve_apps.variants.vllm_renderer import bounded
from serve_apps.variants.wire import Reply, event_error, openai_error, refusal
from ztom.io.problem_words import words_for

logger = logging.getLogger(__name__)

# Serve has let requests finish by then; there is nothing left to save.
_STOP_GRACE_S = 1.0
# Their messages can quote what a client sent; `_error_reply` logs what an operator needs.
_QUOTING_LOGGER = "vllm.entrypoints"
_REQUEST_TYPES: Mapping[Kind, Any] = {
    "chat": ChatCompletionRequest,
    "completion": CompletionRequest,
    "embedding": EmbeddingCompletionRequest,
}
_Serve = Callable[[Any, Request | None], Awaitable[Any]]
# Templates come from the model's tokenizer, or from the adapter that answers; never from callers.
_TEMPLATE: Mapping[str, Any] = {
    "chat_template": None,
    "chat_template_content_format": "auto",
}


@dataclass(frozen=True, eq=False)
class Face:
    """One variant that answers, with vLLM's serving layer under its name.

    Attributes:
        identity: Identity of the variant.
        serve: vLLM's serving layer of each endpoint that the model answers.
        adapter: Request by which vLLM knows the adapter; None for full weights.
        chats: Whether there is a chat template, its own or the model's.
    """

    identity: ModelIdentity
    serve: Mapping[Kind, _Serve]
    adapter: LoRARequest | None = None
    chats: bool = False


class VllmServer:
    """One vLLM engine that answers requests in OpenAI's form.

    Blocks while the model loads; make it inside a running event loop.

    Args:
        options: Arguments of vLLM's own engine.
        tool_parser: Name of vLLM's parser for calls of tools; ``auto`` tells it from the chat
            template, ``none`` is without.

    Raises:
        Exception: Whatever vLLM raises when it refuses the model or the options.

    Attributes:
        load: What it has done and has in hand, kept up to date.
        tool_parser: Name of the parser for calls of tools; None without one.
    """

    def __init__(self, options: Mapping[str, Any], *, tool_parser: str = "none") -> None:
        self.load = EngineLoad()
        if tool_parser not in ("auto", "none"):
            ToolParserManager.get_tool_parser(tool_parser)
        logging.getLogger(_QUOTING_LOGGER).setLevel(logging.CRITICAL)
        # What vLLM can stamp is one value for the process; answers are stamped here instead.
        set_default_fingerprint_mode("none")
        self._client = AsyncLLM.from_engine_args(
            AsyncEngineArgs(**options), stat_loggers=[_load_keeper(self.load)]
        )
        self.tool_parser = named_parser(tool_parser, self._chat_template)
        self._schemas = SchemaCheck(self._vocabulary)

    @property
    def is_dead(self) -> bool:
        """Whether the engine has failed for good."""
        return bool(self._client.errored)

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together."""
        return int(self._client.model_config.max_model_len)

    @property
    def has_chat_template(self) -> bool:
        """Whether the model's tokenizer brings a chat template."""
        return bool(self._chat_template)

    @property
    def embeds(self) -> bool:
        """Whether it gives embeddings, and no text."""
        return bool(self._client.model_config.runner_type == "pooling")

    @property
    def _chat_template(self) -> object:
        return getattr(self._client.get_tokenizer(), "chat_template", None)

    def face(self, identity: ModelIdentity, *, adapter_number: int | None = None) -> Face:
        """A face for a variant.

        Args:
            identity: Identity of the variant.
            adapter_number: Number that no other adapter had before; None for full weights.
        """
        adapter = template = None
        if adapter_number is not None:
            template = chat_template_of(identity.folder)
            adapter = LoRARequest(identity.digest, adapter_number, str(identity.folder))
        models = _OneModel(self._client, identity, adapter)
        if self.embeds:
            return Face(identity, {"embedding": _Embedding(self._client, models)}, adapter)
        layer = _text_layer(self._client, models, self.tool_parser, template)
        return Face(identity, layer, adapter, chats=bool(template or self._chat_template))

    async def answer(
        self,
        kind: Kind,
        body: Mapping[str, Any],
        *,
        face: Face,
        request_id: str | None = None,
        trace: Mapping[str, str] | None = None,
    ) -> Reply | EventStream:
        """Answer one request: a reply, or a stream of server-sent events when it asked for one.

        Cancelling the call, or closing the stream, aborts the generation. Nothing but cancellation
        is raised: every failure is a reply with its status.

        Args:
            kind: Which of OpenAI's endpoints was called.
            body: Body that `check_request` has checked; its ``model`` does not matter.
            face: Face that answers.
            request_id: Tail of the answer's id; random when not given.
            trace: Headers of the trace that the request belongs to, for vLLM's own spans.
        """
        if (schemas := schemas_of(body)) and (problem := await self._schemas.problem(schemas)):
            param = "response_format" if "response_format" in body else "tools"
            return refusal(400, f"{param!r}: {problem}.", param=param)
        try:
            request: Any = _REQUEST_TYPES[kind].model_validate(body)
            _prepare(request, face, request_id)
            shows_usage = kind != "embedding" and _count_usage(request)
            result = await face.serve[kind](request, _raw_request(trace))
            if isinstance(result, AsyncGenerator):
                prompts = count_prompts(body) if kind == "completion" else 1
                choices = (request.n or 1) * prompts
                return await _open_stream(result, face, choices=choices, shows_usage=shows_usage)
        except Exception as error:
            return _for_the_format(_error_reply(error), body)
        _stay_cancelled()
        if isinstance(result, ErrorResponse):
            return _for_the_format(openai_error(result.error.model_dump()), body)
        if isinstance(result, Reply):
            return result
        result.system_fingerprint = face.identity.fingerprint
        return Reply(200, result.model_dump(mode="json"))

    async def add_adapter(self, face: Face) -> None:
        """Read an adapter into the engine's memory; raises what vLLM raises."""
        await self._client.add_lora(face.adapter)

    async def remove_adapter(self, face: Face) -> None:
        """Remove an adapter from there; raises what vLLM raises. Full weights are no work."""
        if face.adapter is not None:
            await self._client.remove_lora(face.adapter.lora_int_id)

    async def forget_prefixes(self) -> bool:
        """Empty the prefix cache; returns whether it is empty."""
        return bool(await self._client.reset_prefix_cache())

    async def call_workers(self, method: str, *arguments: object) -> list[Any]:
        """Call a method of every worker; raises what vLLM raises."""
        results: list[Any] = await self._client.collective_rpc(method, args=arguments)
        return results

    def stop(self) -> None:
        """End the engine and its processes. Requests in work fail."""
        self._schemas.close()
        self._client.shutdown(timeout=_STOP_GRACE_S)

    def _vocabulary(self) -> str:
        """The tokenizer as xgrammar's, in its own JSON."""
        import xgrammar

        info = xgrammar.TokenizerInfo.from_huggingface(
            self._client.get_tokenizer(), vocab_size=self._client.model_config.get_vocab_size()
        )
        return str(info.serialize_json())


def _load_keeper(load: EngineLoad) -> type[PrometheusStatLogger]:
    """A statistics logger, vLLM's own hook, that keeps ``load`` up to date.

    It stands in the place of vLLM's series for Prometheus, which nobody could read here: a replica
    has no page for them, and they cost a tenth of what it does for a token.
    """

    class LoadKeeper(PrometheusStatLogger):  # type: ignore[misc]  # vLLM is not typed
        def __init__(self, vllm_config: object, engine_indexes: object = None) -> None:
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

        def record_admission_rejection(self, reason: str) -> None:
            pass

        def record_sleep_state(self, sleep: int = 0, level: int = 0) -> None:
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


class _Embedding(ServingEmbedding):  # type: ignore[misc]  # vLLM is not typed
    """vLLM's embeddings, as a reply instead of a response."""

    def __init__(self, client: AsyncLLM, models: _OneModel) -> None:
        config = ChatTemplateConfig(**_TEMPLATE)
        super().__init__(client, models, request_logger=None, chat_template_config=config)
        self.json_response_cls = _embeddings

    async def __call__(self, request: Any, raw_request: Request | None = None) -> Any:
        """Answer a request; raises what vLLM raises."""
        if request.dimensions is not None and not self.model_config.is_matryoshka:
            size = self.model_config.embedding_size
            return refusal(
                400,
                f"This model does not support 'dimensions': its embeddings have {size} numbers.",
                param="dimensions",
            )
        return await super().__call__(request, raw_request)

    def _build_response(self, ctx: Any) -> Any:
        if not all(bool(item.outputs.data.isfinite().all()) for item in ctx.final_res_batch):
            raise RuntimeError("an embedding has numbers that are not finite")
        return super()._build_response(ctx)


def _embeddings(content: dict[str, Any]) -> Reply:
    """The reply of embeddings, whose usage has what OpenAI's has."""
    usage = content["usage"]
    counts = {name: usage[name] for name in ("prompt_tokens", "total_tokens")}
    return Reply(200, content | {"usage": counts})


def _text_layer(
    client: AsyncLLM, models: _OneModel, tool_parser: str | None, own_template: str | None
) -> Mapping[Kind, _Serve]:
    # No logger ever sees a prompt.
    template: dict[str, Any] = {
        "request_logger": None,
        **_TEMPLATE,
        "chat_template": own_template,
    }
    tools: dict[str, Any] = {"tool_parser": tool_parser, "enable_auto_tools": bool(tool_parser)}
    renderer = OnlineRenderer(client.model_config, bounded(client.renderer), **template, **tools)
    chat = OpenAIServingChat(
        client,
        models,
        "assistant",
        online_renderer=renderer,
        enable_log_deltas=False,
        **template,
        **tools,
    )
    completion = OpenAIServingCompletion(
        client, models, online_renderer=renderer, request_logger=None
    )
    return {"chat": chat.create_chat_completion, "completion": completion.create_completion}


def _prepare(request: Any, face: Face, request_id: str | None) -> None:
    """Fill in what is not the client's to say."""
    request.model = None if face.adapter is None else face.adapter.lora_name
    # A block that was computed with other weights can never be found again.
    request.cache_salt = face.identity.digest
    if request_id is not None:
        request.request_id = request_id


def _count_usage(request: Any) -> bool:
    """Have a stream count its tokens; returns whether the client wants to see the usage."""
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


def _for_the_format(reply: Reply, body: Mapping[str, Any]) -> Reply:
    """A failure of the engine to keep to a format as the refusal of that format."""
    if reply.status != HTTPStatus.INTERNAL_SERVER_ERROR or "response_format" not in body:
        return reply
    return refusal(400, "The engine cannot keep to this format.", param="response_format")


def _error_reply(error: Exception) -> Reply:
    """The reply to a request that raised. Logs say what kind of error, never what was asked."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        # Below the field's name, the location names branches of unions that no client knows.
        field = str(first["loc"][0]) if first["loc"] else None
        return refusal(400, f"{field or 'The request'}: {words_for(first)}", param=field)
    if isinstance(error, EngineDeadError):
        return refusal(503, "The engine is being restarted; try again.", code="engine_restarting")
    reply = openai_error(create_error_response(error).error.model_dump())
    if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("a request failed with %s", type(error).__name__)
    return reply
