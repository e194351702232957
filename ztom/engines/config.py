"""Which engine runs a model, and with what: the ``engine`` part of a configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from ztom.plugins import Group, check_name

#: Engines that come with the package.
BUILT_IN = ("vllm", "torch")
EngineName = Annotated[
    str,
    AfterValidator(lambda name: check_name(Group.ENGINES, name, BUILT_IN)),
    Field(examples=list(BUILT_IN)),
]
ChatTemplate = Literal["auto", "always", "never"]


class EngineConfig(BaseModel):
    """How models are run.

    Attributes:
        name: ``vllm`` for text generation, ``torch`` for classifiers, plain modules and debugging,
            or an engine of one's own: the name of an entry point ``ztom.engines``, or
            ``package.module:function``, called with this configuration, the checkpoint's folder and
            the chain (None for one fixed model).
        dtype: Dtype that weights are deployed in; ``auto`` is what they are stored in. Search and
            proof use the same one.
        device: ``auto`` takes GPUs where the cluster has any, or has a pool that brings them.
        tensor_parallel_size: GPUs that one engine is split over (vLLM); all on one node.
        accelerator_type: Kind of GPU that engines run on, as Ray names it, such as ``L4``.
        label_selector: Labels of the nodes that engines run on, as Ray selects by them.
        resources: Amounts of custom resources that one engine takes of its node.
        replicas: Engine actors that answer trials side by side.
        max_model_len: Tokens of prompt and answer together; the model's own limit when None.
        kv_cache_gib: Memory of the key-value cache on a CPU, GiB (vLLM).
        gpu_memory_utilization: Share of a GPU's memory that vLLM takes; what is left holds the
            checkpoints of the chain. Where it is not given, it is planned so that both fit if
            they can.
        max_num_seqs: Sequences in one batch.
        chat_template: Whether the tokenizer's chat template is applied to plain-text prompts.
        template: Chat template in Jinja that is used instead of the tokenizer's.
        module: Torch only: ``package.module:function`` that makes a plain `torch.nn.Module`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: EngineName = "vllm"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cpu", "gpu"] = Field(
        default="auto", exclude_if=lambda value: value == "auto"
    )
    tensor_parallel_size: int = Field(default=1, ge=1, le=64)
    accelerator_type: str | None = Field(
        default=None, min_length=1, exclude_if=lambda value: value is None
    )
    label_selector: dict[str, str] = Field(default={}, exclude_if=lambda value: not value)
    resources: dict[str, float] = Field(default={}, exclude_if=lambda value: not value)
    replicas: int = Field(default=1, ge=1, le=256)
    max_model_len: int | None = Field(default=None, ge=8)
    kv_cache_gib: float = Field(default=0.5, gt=0, le=1024)
    gpu_memory_utilization: float = Field(default=0.5, gt=0, lt=1)
    max_num_seqs: int = Field(default=64, ge=1, le=4096)
    chat_template: ChatTemplate = "auto"
    # left out where there is none: digests of configurations stay what they were
    template: str | None = Field(default=None, min_length=1, exclude_if=lambda value: value is None)
    module: str | None = Field(default=None, pattern=r"^[\w.]+:\w+$")

    @model_validator(mode="after")
    def _module_is_for_torch(self) -> EngineConfig:
        if self.module is not None and self.name != "torch":
            raise ValueError("module makes a plain torch module: set name: torch")
        return self

    @model_validator(mode="after")
    def _accelerator_is_a_gpu(self) -> EngineConfig:
        if self.device == "cpu" and self.accelerator_type is not None:
            raise ValueError("accelerator_type is a kind of GPU: leave out device: cpu")
        if any(amount <= 0 for amount in self.resources.values()):
            raise ValueError("resources are amounts above 0")
        return self
