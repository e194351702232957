"""Blended tensors into safetensors shards, streamed: one shard in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from ztom.blending.apply import Observer, Reader, blend_tensor
from ztom.blending.plan import BlendPlan, TensorPlan

INDEX = "model.safetensors.index.json"


def plan_shards(tensors: Sequence[TensorPlan], max_shard_bytes: int) -> list[list[TensorPlan]]:
    """Deal tensors out to shards in order; a tensor larger than a shard gets one of its own."""
    shards: list[list[TensorPlan]] = []
    room = 0
    for tensor in tensors:
        if not shards or tensor.nbytes > room:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(tensor)
        room -= tensor.nbytes
    return shards


def write_shards(
    plan: BlendPlan,
    read: Reader,
    folder: Path,
    *,
    max_shard_bytes: int,
    observe: Observer | None = None,
) -> Iterator[int]:
    """Blend and write every tensor; yields the bytes written so far after each tensor.

    The files are those of a Hugging Face checkpoint, with an index where there are several shards.
    The same plan gives the same bytes.

    Raises:
        BlendError: A blended value is not finite.
    """
    shards = plan_shards(plan.tensors, max_shard_bytes)
    names = _file_names(len(shards))
    done = 0
    for name, shard in zip(names, shards, strict=True):
        blended: dict[str, torch.Tensor] = {}
        for tensor in shard:
            blended[tensor.name] = blend_tensor(tensor, read, observe=observe)
            done += tensor.nbytes
            yield done
        save_tensors(blended, folder / name)
    if len(shards) > 1:
        weight_map = {t.name: n for n, shard in zip(names, shards, strict=True) for t in shard}
        index = {"metadata": {"total_size": plan.nbytes}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, sort_keys=True, indent=1) + "\n")


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file that may be read by whoever may read other new files.

    The library writes a private temporary file and renames it.
    """
    path.touch()
    mode = path.stat().st_mode
    save_file(dict(tensors), path, metadata={"format": "pt"})
    path.chmod(mode & 0o777)


def _file_names(count: int) -> list[str]:
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
