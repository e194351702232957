"""How a variant is served: the options of an engine and of its replicas, checked before it starts.

`ServingArgs` holds for any engine; `DeployOptions` adds what counts where endpoints are.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ztom.rollout.routing import Digest


class ServingArgs(BaseModel):
    """How an engine runs and scales, whatever it serves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_replicas: int = Field(default=1, ge=0, le=1000, description="0 lets an idle variant leave")
    max_replicas: int = Field(default=1, ge=1, le=1000)
    idle_s: float = Field(
        default=600,
        ge=0,
        le=86_400,
        description="with min_replicas 0: idle seconds to the last's end",
    )
    target_ongoing_requests: float = Field(
        default=16, gt=0, le=10_000, description="requests in work per replica that scaling aims at"
    )
    max_ongoing_requests: int = Field(
        default=64, ge=1, le=10_000, description="requests one replica works on at a time"
    )
    max_queued_requests: int = Field(
        default=256, ge=1, description="requests that wait for a replica; beyond it, status 503"
    )

    device: Literal["auto", "cpu", "gpu"] = Field(
        default="auto",
        description="auto takes GPUs where the Ray cluster has any, or a pool that brings them",
    )
    accelerator_type: str | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="kind of GPU that replicas run on, as Ray names it, such as L4",
    )
    label_selector: dict[str, str] = Field(
        default={}, description="labels of the nodes that replicas run on, as Ray selects by them"
    )
    resources: dict[str, float] = Field(
        default={}, description="amounts of custom resources that one replica takes of its node"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="auto is the dtype the variant was written, and proved, in"
    )
    max_model_len: int | None = Field(
        default=None, ge=1, description="tokens of prompt and answer together; else the model's own"
    )
    tensor_parallel_size: int = Field(default=1, ge=1, le=64)
    tool_parser: str = Field(
        default="auto",
        pattern=r"^[a-z0-9_]{1,40}$",
        description="vLLM's parser for calls of tools, such as hermes or llama3_json; auto takes "
        "it from the chat template, none serves without",
    )
    gpu_fraction: float = Field(
        default=1.0, gt=0, le=1, description="share of its GPU that one replica may take"
    )
    kv_cache_gib: float | None = Field(
        default=None, gt=0, le=1024, description="else 0.5 on CPU, what is left over on a GPU"
    )
    num_cpus: float = Field(
        default=1,
        ge=0.01,
        le=1024,
        description="CPUs reserved for one replica; without a GPU, the threads it computes with",
    )

    stream_interval_ms: float = Field(
        default=25,
        ge=0,
        le=1000,
        description="least milliseconds between two pieces of a stream, after the first token; 0 "
        "sends each token as it comes",
    )
    drain_s: float = Field(
        default=120,
        ge=0,
        le=3600,
        description="seconds a leaving replica has for its requests",
    )
    max_body_bytes: int = Field(default=8 * 2**20, ge=1024, description="longest request body")
    load_timeout_s: float = Field(
        default=300, gt=0, description="seconds for the check that a loaded replica answers"
    )
    health_period_s: float = Field(default=10, gt=0, description="seconds between health checks")
    health_timeout_s: float = Field(
        default=30, gt=0, description="seconds an idle engine has to produce one token"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas is {self.max_replicas}, below min_replicas {self.min_replicas}"
            )
        if self.target_ongoing_requests > self.max_ongoing_requests:
            raise ValueError(
                f"target_ongoing_requests is {self.target_ongoing_requests:g}, above "
                f"max_ongoing_requests {self.max_ongoing_requests}: it would never scale up"
            )
        if self.device == "cpu" and self.dtype == "float16":
            raise ValueError("dtype float16 is for GPUs; on the CPU take float32 or bfloat16")
        if self.device == "cpu" and self.accelerator_type is not None:
            raise ValueError("accelerator_type is a kind of GPU: leave out device cpu")
        if any(amount <= 0 for amount in self.resources.values()):
            raise ValueError("resources are amounts above 0")
        if self.gpu_fraction < 1 and self.tensor_parallel_size > 1:
            raise ValueError("gpu_fraction is for one GPU: tensor_parallel_size must be 1")
        return self

    @property
    def kv_cache_bytes(self) -> int | None:
        """Bytes for the key-value cache, or None for the engine's own choice."""
        return None if self.kv_cache_gib is None else int(self.kv_cache_gib * 2**30)


class DeployOptions(ServingArgs):
    """What can be set when a variant is deployed."""

    timeout_s: float = Field(
        default=120, gt=0, le=3600, description="seconds until an answer must have begun"
    )
    price_per_hour: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="of one replica, for the cost metric"
    )
    live_swap: bool = Field(
        default=False, description="hold the chain, so that other blends of it can be swapped in"
    )
    swap_into: Digest | None = Field(
        default=None, description="variant whose running application this one is swapped into"
    )
    max_loras: int = Field(default=8, ge=1, le=256, description="see BaseArgs")
    max_cpu_loras: int = Field(default=64, ge=1, le=10_000, description="see BaseArgs")
    max_lora_rank: int = Field(default=64, ge=1, le=512, description="see BaseArgs")
