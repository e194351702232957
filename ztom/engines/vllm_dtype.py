"""The dtype that vLLM is told to deploy a model in."""

from __future__ import annotations

from pathlib import Path

import torch

from ztom.checkpoints.checkpoint import open_folder
from ztom.settings import Settings


def vllm_dtype(dtype: str, folder: Path) -> str:
    """A value for vLLM's ``dtype``.

    Under ``auto`` Z-TOM deploys what is stored, and vLLM does not: it takes 16 bits for weights in
    float32 (``_resolve_auto_dtype`` of vLLM 0.32), which is not what was proved.

    Args:
        dtype: Dtype as it was configured.
        folder: Folder of the model's files.

    Raises:
        CheckpointError: The folder holds no model.
    """
    if dtype != "auto":
        return dtype
    stored = open_folder(folder, settings=Settings()).dtype
    return "float32" if stored is torch.float32 else dtype
