"""The Ray Serve applications: one mastered variant, or one base with many adapters.

``serve run serve_apps.variants.app:build variant=/path/to/variant max_replicas=4``

`build` is one full-weight variant. It answers over HTTP behind ``/v1``, and to a gateway through
the methods of its handle; deployed with ``route_prefix=None`` it does only the latter.
`build_shared` is one base, whose adapters are reached through the handle only. Both are autoscaled
by ongoing requests, and thin: what they do is `serve_apps.variants.replica`. vLLM is imported only
inside a replica.
"""

# No `from __future__ import annotations`: Serve and FastAPI read these annotations at run time. And
# what the routes call stands in other modules: Serve pickles them while this one is being executed.
import os
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import ray
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from ray.serve.schema import LoggingConfig
from starlette.exceptions import HTTPException

from cluster.capacity import ClusterCapacity, NodeNeeds
from cluster.pools import cluster_capacity
from serve_apps.variants.args import (
    SHARED_DEPLOYMENT,
    VARIANT_DEPLOYMENT,
    BaseArgs,
    VariantArgs,
)
from serve_apps.variants.calls import Answer, Call, ReplicaState, StreamItem, SwapReport
from serve_apps.variants.cors import CorsByOption
from serve_apps.variants.identity import check_papers, identify
from serve_apps.variants.replica import Replica, SharedReplica, VariantReplica
from serve_apps.variants.request_fields import Kind
from serve_apps.variants.responses import (
    answer_response,
    json_response,
    read_openai,
    stream_response,
)
from serve_apps.variants.wire import Reply, no_such_model, refusal
from ztom.errors import ZtomError
from ztom.io.places import StoreAddress, parse_place
from ztom.rollout.options import ServingArgs

# What Serve allows beyond the replica's own limit, so that the clearer of the two speaks.
_HEALTH_MARGIN_S = 5.0


def _cors_origins() -> tuple[str, ...]:
    """The origins that the options of the running replica allow."""
    variant: Any = serve.get_replica_context().servable_object
    origins: tuple[str, ...] = variant._args.cors_origins
    return origins


http = FastAPI(title="Z-TOM variant", docs_url=None, redoc_url=None, openapi_url=None)
http.add_middleware(CorsByOption, origins=_cors_origins)


@http.exception_handler(HTTPException)
async def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    return json_response(refusal(error.status_code, str(error.detail)))


@http.exception_handler(Exception)
async def _unexpected_error(request: Request, error: Exception) -> JSONResponse:
    return json_response(refusal(500, "The server had an error while processing the request."))


class AnswersCalls:
    """What both deployments offer to a gateway, and to Serve."""

    _replica: Replica

    async def ask(self, call: Call) -> Answer:
        """Answer a call at once; see `Replica.ask`."""
        return await self._replica.ask(call)

    async def stream(self, call: Call) -> AsyncGenerator[StreamItem, None]:
        """Answer a call piece by piece; see `Replica.stream`."""
        async with aclosing(self._replica.stream(call)) as items:
            async for item in items:
                yield item

    async def state(self) -> ReplicaState:
        """What the replica holds and does."""
        return await self._replica.state()

    async def check_health(self) -> None:
        """What Serve calls; a replica that fails it three times in a row is replaced."""
        await self._replica.check_health()

    def __del__(self) -> None:
        replica = getattr(self, "_replica", None)
        if replica is not None:
            replica.stop()


class HoldsVariant(AnswersCalls):
    """One engine on one verified variant."""

    _replica: VariantReplica

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, args: VariantArgs, on_gpu: bool
    ) -> None:
        self._args = args
        self._replica = await VariantReplica.start(args, on_gpu=on_gpu)

    async def swap(self, folder: str, name: str | None, wait_s: float) -> SwapReport:
        """Make another blend of the same chain answer; see `VariantReplica.swap`."""
        return await self._replica.swap(parse_place(folder), name, wait_s)


#: The gateway logs every answer, with more than Serve knows of it.
_NO_ACCESS_LOG = LoggingConfig(enable_access_log=False)


@serve.deployment(name=VARIANT_DEPLOYMENT, logging_config=_NO_ACCESS_LOG)
class CalledVariant(HoldsVariant):
    """A replica behind a gateway: it is called through handles only, and takes no HTTP.

    Serve gives the first deployment of every application an HTTP port, which asks nobody for a key.
    """


@serve.deployment(name=VARIANT_DEPLOYMENT)
@serve.ingress(http)
class Variant(HoldsVariant):
    """A replica with an API of its own, for a server of one variant."""

    @http.post("/v1/chat/completions")
    async def chat_completions(self, request: Request) -> Response:
        """OpenAI's chat completions."""
        return await self._respond("chat", request)

    @http.post("/v1/completions")
    async def completions(self, request: Request) -> Response:
        """OpenAI's completions."""
        return await self._respond("completion", request)

    @http.post("/v1/embeddings")
    async def embeddings(self, request: Request) -> Response:
        """OpenAI's embeddings."""
        return await self._respond("embedding", request)

    @http.get("/v1/models")
    async def models(self) -> JSONResponse:
        """The names this variant answers to."""
        cards = [self._card(name) for name in self._replica.identity.ids]
        return JSONResponse({"object": "list", "data": cards})

    @http.get("/v1/models/{name}")
    async def model(self, name: str) -> JSONResponse:
        """One of them."""
        if name not in self._replica.identity.ids:
            return json_response(no_such_model(name))
        return JSONResponse(self._card(name))

    @http.get("/health")
    async def health(self) -> JSONResponse:
        """Whether the replica that was reached is healthy, and what it is doing."""
        try:
            await self._replica.check_health()
        except ZtomError as error:
            return json_response(refusal(503, str(error), code="unhealthy"))
        load = self._replica.engine.load
        return JSONResponse(
            {
                "status": "ok",
                "model": self._replica.identity.pinned,
                "running": load.running,
                "waiting": load.waiting,
                "generated_tokens": load.generated_tokens,
                "pid": os.getpid(),
            }
        )

    async def _respond(self, kind: Kind, request: Request) -> Response:
        body, _ = await read_openai(request, self._args.max_body_bytes)
        if isinstance(body, Reply):
            return json_response(body)
        identity = self._replica.identity
        name = body.get("model")
        if name is not None and name not in identity.ids:
            return json_response(no_such_model(str(name)))
        pinned = name == identity.pinned
        call = Call(kind, body, identity.digest, uuid.uuid4().hex, exact=pinned)
        if body.get("stream") is True:
            return await stream_response(self._replica.stream(call))
        return answer_response(await self._replica.ask(call))

    def _card(self, name: str) -> dict[str, Any]:
        identity = self._replica.identity
        return {
            "id": name,
            "object": "model",
            "created": identity.created,
            "owned_by": "ztom",
            "digest": identity.digest,
            "max_model_len": self._replica.engine.max_model_len,
        }


@serve.deployment(name=SHARED_DEPLOYMENT, logging_config=_NO_ACCESS_LOG)
class SharedBase(AnswersCalls):
    """A replica: one engine on one base, and the adapters that were asked for."""

    _replica: SharedReplica

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, args: BaseArgs, on_gpu: bool
    ) -> None:
        self._replica = await SharedReplica.start(args, on_gpu=on_gpu)

    async def load(self, digest: str, folder: str, name: str | None) -> None:
        """Load an adapter before there is traffic for it; see `SharedReplica.load`."""
        await self._replica.load(digest, parse_place(folder), name)

    async def forget(self, digest: str) -> None:
        """Remove an adapter; see `SharedReplica.forget`."""
        await self._replica.forget(digest)


def build(args: VariantArgs) -> serve.Application:
    """Check everything that can be checked without an engine, and describe the application.

    Raises:
        VariantError: The variant's manifest does not verify; of one in a store the files are
            compared with it by the node that loads them.
        ConfigError: The options do not fit the cluster.
    """
    if isinstance(args.variant, StoreAddress):
        check_papers(args)
    else:
        identify(args)
    return _bound(Variant, args)


def build_called(args: VariantArgs) -> serve.Application:
    """The application of `build` for a gateway that calls it: without an API of its own.

    The variant's files are compared with its manifest by the node that loads them.

    Raises:
        VariantError: It is no variant, or an adapter.
        ConfigError: The options do not fit the cluster.
    """
    check_papers(args)
    return _bound(CalledVariant, args)


def build_shared(args: BaseArgs) -> serve.Application:
    """Describe the application of a base; its replicas check the base against its digest.

    Raises:
        ConfigError: The options do not fit the cluster.
    """
    return _bound(SharedBase, args)


def _bound(deployment: serve.Deployment, args: ServingArgs) -> serve.Application:
    needs = replica_needs(args, cluster_capacity() if ray.is_initialized() else None)
    return deployment.options(**_options(args, needs)).bind(args, needs.gpus > 0)


def scaling(args: ServingArgs) -> AutoscalingConfig:
    """Replicas by ongoing requests. One is always started: a bad variant shows at once.

    An application is idle once its mean over Serve's look-back is nothing; a short ``idle_s``
    shortens that, down to what Serve accepts.
    """
    fields = AutoscalingConfig.model_fields
    usual, least = (
        fields[f"{name}_s"].default for name in ("look_back_period", "metrics_interval")
    )
    return AutoscalingConfig(
        look_back_period_s=min(usual, max(args.idle_s, 1.1 * least)),
        min_replicas=args.min_replicas,
        initial_replicas=max(1, args.min_replicas),
        max_replicas=args.max_replicas,
        target_ongoing_requests=args.target_ongoing_requests,
        downscale_to_zero_delay_s=args.idle_s,
    )


def _options(args: ServingArgs, needs: NodeNeeds) -> dict[str, Any]:
    actor: dict[str, Any] = {"num_cpus": needs.cpus, "num_gpus": needs.gpus}
    if needs.accelerator_type is not None:
        actor["accelerator_type"] = needs.accelerator_type
    if needs.label_selector:
        actor["label_selector"] = dict(needs.label_selector)
    if needs.resources:
        actor["resources"] = dict(needs.resources)
    return {
        "autoscaling_config": scaling(args),
        "max_ongoing_requests": args.max_ongoing_requests,
        "max_queued_requests": args.max_queued_requests,
        "backpressure_config": BackpressureConfig(status_code=503, retry_after_s=1),
        "graceful_shutdown_timeout_s": args.drain_s,
        "health_check_period_s": args.health_period_s,
        "health_check_timeout_s": args.health_timeout_s + _HEALTH_MARGIN_S,
        # What does not load will not load the second time either.
        "max_constructor_retry_count": 1,
        # one actor is on one node, with all GPUs that its engine is split over
        "ray_actor_options": actor,
    }


def replica_needs(args: ServingArgs, capacity: ClusterCapacity | None) -> NodeNeeds:
    """What one replica asks of its node.

    Args:
        args: Options of serving.
        capacity: What the cluster has, and could have; None before there is one.

    Raises:
        ConfigError: No node has what was asked for by name, and no pool brings one.
    """
    gpus = args.tensor_parallel_size if args.gpu_fraction == 1 else args.gpu_fraction
    wanted = NodeNeeds(
        gpus=gpus,
        cpus=args.num_cpus,
        accelerator_type=args.accelerator_type,
        label_selector=args.label_selector,
        resources=args.resources,
    )
    capacity = capacity or ClusterCapacity(())
    needs = capacity.choose(wanted, args.device)
    if args.device == "gpu" or args.accelerator_type or needs.label_selector or needs.resources:
        # CPUs are left to Ray, which says where a replica waits for them
        capacity.require(replace(needs, cpus=0.0), what="a replica")
    return needs
