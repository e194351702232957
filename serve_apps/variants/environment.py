"""The process environment vLLM needs, set before it is imported for the first time."""

from __future__ import annotations

import os

from serve_apps.tracing import engine_variables
from ztom.rollout.options import ServingArgs


def prepare_environment(args: ServingArgs, *, on_gpu: bool) -> None:
    """Set the variables that vLLM and the Hugging Face libraries read when they are imported.

    Nothing is downloaded and no usage is reported: a variant is complete on disk. On the CPU with
    one worker the executor lives inside the engine's process; otherwise vLLM starts one more
    process, with one more import of everything, for no gain.
    """
    os.environ.update(
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        TOKENIZERS_PARALLELISM="false",
        VLLM_NO_USAGE_STATS="1",
        VLLM_DO_NOT_TRACK="1",
        VLLM_HOST_IP="127.0.0.1",
        # Forking a process that runs gRPC threads, as Ray's workers do, can deadlock the child.
        VLLM_WORKER_MULTIPROC_METHOD="spawn",
    )
    os.environ.update(engine_variables())
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    # Where the reason is read from that an engine of its own process ends for.
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    if on_gpu:
        return
    # The engine runs eagerly, but vLLM compiles its log-probabilities all the same: whoever asks
    # for them first would wait for that. Torch reads it when vLLM is imported.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    # Engines that each take every core wait for one another at every step.
    os.environ["OMP_NUM_THREADS"] = str(max(1, int(args.num_cpus)))
    if args.tensor_parallel_size == 1:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
