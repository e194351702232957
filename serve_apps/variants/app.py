"""The Ray Serve application: one mastered variant behind ``/v1``, autoscaled by ongoing requests.

``serve run serve_apps.variants.app:build variant=/path/to/variant max_replicas=4``

The deployment is thin: it reads a body, lets `wire` judge it and `engine` answer it. vLLM is
imported only inside a replica.
"""

# No `from __future__ import annotations`: Serve and FastAPI read these annotations at run time. And
# what the routes call stands in other modules: Serve pickles them while this one is being executed.
import os
from typing import Any

import ray
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from starlette.exceptions import HTTPException

from serve_apps.variants.args import VariantArgs
from serve_apps.variants.environment import prepare_environment
from serve_apps.variants.identity import identify
from serve_apps.variants.responses import event_stream, json_response, read_body
from serve_apps.variants.wire import (
    Kind,
    Reply,
    check_request,
    engine_body,
    no_such_model,
    parse_body,
    refusal,
)
from ztom.errors import ConfigError, ZtomError

DEPLOYMENT_NAME = "variant"
# What Serve allows beyond the replica's own limit, so that the clearer of the two speaks.
_HEALTH_MARGIN_S = 5.0

http = FastAPI(title="Z-TOM variant", docs_url=None, redoc_url=None, openapi_url=None)


@http.exception_handler(HTTPException)
async def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    return json_response(refusal(error.status_code, str(error.detail)))


@http.exception_handler(Exception)
async def _unexpected_error(request: Request, error: Exception) -> JSONResponse:
    return json_response(refusal(500, "The server had an error while processing the request."))


@serve.deployment(name=DEPLOYMENT_NAME)
@serve.ingress(http)
class Variant:
    """A replica: one engine on one verified variant."""

    async def __init__(self, args: VariantArgs, on_gpu: bool) -> None:
        self._args = args
        identity = identify(args)
        prepare_environment(args, on_gpu=on_gpu)
        from serve_apps.variants.engine import VariantEngine

        self._engine = VariantEngine.start(args, identity, on_gpu=on_gpu)
        await self._engine.prove()

    @http.post("/v1/chat/completions")
    async def chat_completions(self, request: Request) -> Response:
        """OpenAI's chat completions."""
        return await self._respond("chat", request)

    @http.post("/v1/completions")
    async def completions(self, request: Request) -> Response:
        """OpenAI's completions."""
        return await self._respond("completion", request)

    @http.get("/v1/models")
    async def models(self) -> JSONResponse:
        """The names this variant answers to."""
        cards = [self._card(name) for name in self._engine.identity.ids]
        return JSONResponse({"object": "list", "data": cards})

    @http.get("/v1/models/{name}")
    async def model(self, name: str) -> JSONResponse:
        """One of them."""
        if name not in self._engine.identity.ids:
            return json_response(no_such_model(name))
        return JSONResponse(self._card(name))

    @http.get("/health")
    async def health(self) -> JSONResponse:
        """Whether the replica that was reached is healthy, and what it is doing."""
        try:
            await self._engine.check_health()
        except ZtomError as error:
            return json_response(refusal(503, str(error), code="unhealthy"))
        load = self._engine.load
        return JSONResponse(
            {
                "status": "ok",
                "model": self._engine.identity.ids[1],
                "running": load.running,
                "waiting": load.waiting,
                "generated_tokens": load.generated_tokens,
                "pid": os.getpid(),
            }
        )

    async def check_health(self) -> None:
        """What Serve calls; a replica that fails it three times in a row is replaced."""
        await self._engine.check_health()

    def __del__(self) -> None:
        engine = getattr(self, "_engine", None)
        if engine is not None:
            engine.stop()

    async def _respond(self, kind: Kind, request: Request) -> Response:
        raw = await read_body(request, self._args.max_body_bytes)
        body = parse_body(raw) if isinstance(raw, bytes) else raw
        if isinstance(body, Reply):
            return json_response(body)
        refused = check_request(kind, body, has_chat_template=self._engine.has_chat_template)
        if refused is not None:
            return json_response(refused)
        answer = await self._engine.answer(kind, engine_body(body))
        return json_response(answer) if isinstance(answer, Reply) else event_stream(answer)

    def _card(self, name: str) -> dict[str, Any]:
        identity = self._engine.identity
        return {
            "id": name,
            "object": "model",
            "created": identity.created,
            "owned_by": "ztom",
            "digest": identity.digest,
            "max_model_len": self._engine.max_model_len,
        }


def build(args: VariantArgs) -> serve.Application:
    """Check everything that can be checked without an engine, and describe the application.

    Raises:
        VariantError: The variant's manifest does not verify.
        ConfigError: The options do not fit the cluster.
    """
    identify(args)
    on_gpu = _takes_gpus(args)
    return Variant.options(
        autoscaling_config=scaling(args),
        max_ongoing_requests=args.max_ongoing_requests,
        max_queued_requests=args.max_queued_requests,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=1),
        health_check_period_s=args.health_period_s,
        health_check_timeout_s=args.health_timeout_s + _HEALTH_MARGIN_S,
        # A variant that does not load will not load the second time either.
        max_constructor_retry_count=1,
        ray_actor_options={
            "num_cpus": args.num_cpus,
            "num_gpus": args.tensor_parallel_size if on_gpu else 0,
        },
    ).bind(args, on_gpu)


def scaling(args: VariantArgs) -> AutoscalingConfig:
    """Replicas by ongoing requests. One is always started: a bad variant shows at once."""
    return AutoscalingConfig(
        min_replicas=args.min_replicas,
        initial_replicas=max(1, args.min_replicas),
        max_replicas=args.max_replicas,
        target_ongoing_requests=args.target_ongoing_requests,
    )


def _takes_gpus(args: VariantArgs) -> bool:
    available = int(ray.cluster_resources().get("GPU", 0)) if ray.is_initialized() else 0
    if args.device == "gpu" and available < args.tensor_parallel_size:
        raise ConfigError(
            "the cluster has too few GPUs",
            got=available,
            expected=f"at least {args.tensor_parallel_size} (tensor_parallel_size)",
            fix="Take device=cpu, or a cluster with GPUs.",
        )
    return args.device != "cpu" and available > 0
