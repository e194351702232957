"""The dtype that a model is deployed in on a device that does not compute in every one.

A T4 has no bfloat16. vLLM then takes float16 without a word about what was proved in bfloat16; here
the dtype is settled before a search starts, and search, variant and proof all have it.
"""

from __future__ import annotations

from ztom.engines.gpus import Gpu
from ztom.errors import EngineError

#: Models that overflow float16, as vLLM 0.32 refuses them (`vllm.config.model`).
_NO_FLOAT16 = ("gemma2", "gemma3", "gemma3_text", "glm4")


def settle_dtype(dtype: str, *, stored: str, model_type: str, gpu: Gpu | None) -> tuple[str, str]:
    """The dtype to deploy in, and a note where it is not the one that was asked for or stored.

    Args:
        dtype: Dtype as it was configured; ``auto`` is what is stored.
        stored: Dtype of the checkpoint's weights.
        model_type: The checkpoint's ``model_type``.
        gpu: Kind of GPU; None for a CPU, or for one that is not known.

    Returns:
        The dtype, ``auto`` where nothing had to be settled; and the note, which may be empty.

    Raises:
        EngineError: bfloat16 was asked for by name, and the GPU has none.
    """
    if gpu is None or gpu.has_bfloat16 or "bfloat16" not in (dtype, stored):
        return dtype, ""
    other = "float32" if model_type in _NO_FLOAT16 else "float16"
    if dtype == "bfloat16":
        raise EngineError(
            f"a {gpu.name} does not compute in bfloat16",
            got="dtype bfloat16",
            expected=f"{other}, as dtype auto takes there",
            fix="Set dtype: auto, or name a GPU of compute capability 8.0 or more.",
        )
    if dtype != "auto":
        return dtype, ""
    why = f"; {model_type} overflows float16" if other == "float32" else ""
    return other, (
        f"The checkpoints are stored in bfloat16, in which a {gpu.name} does not compute: the "
        f"search, its proof and the variant are in {other}{why}."
    )
