"""The process that reads pickled weights: one file in, one safetensors file out.

It is run by its path, in isolated mode, with a clean environment and with limits set before
anything is read: ``weights_only`` lets a pickle make tensors and plain containers and nothing else,
and what should get past it all the same is alone here. It prints one JSON object.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any

_NESTED = ("state_dict", "model_state_dict", "module", "model")


def convert(source: str, target: str, memory_bytes: int) -> dict[str, Any]:
    """Convert one file; returns the names of its tensors, or what is in the way.

    Args:
        source: Path of the file that was pickled.
        target: Path of the safetensors file to be.
        memory_bytes: Most memory that may be written, bytes.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    import torch
    from safetensors.torch import save_file

    tensors, others = {}, []
    for name, value in _weights(torch.load(source, map_location="cpu", weights_only=True)).items():
        if isinstance(value, torch.Tensor) and isinstance(name, str):
            # with memory of its own: tied ones share it, slices keep all of it
            tensors[name] = value.detach().clone().contiguous()
        else:
            others.append(str(name)[:200])
    if not tensors or others:
        return {"error": "it holds no tensors", "others": others[:5]}
    save_file(tensors, target, metadata={"format": "pt"})
    os.chmod(target, 0o644)
    return {"names": sorted(tensors)}


def _weights(state: Any) -> dict[Any, Any]:
    """Names and tensors, which training scripts put one level down."""
    if not isinstance(state, dict):
        return {}
    nested = [state[key] for key in _NESTED if isinstance(state.get(key), dict)]
    return nested[0] if nested else state


def main() -> None:
    """Convert what the command line names, and print what came of it."""
    try:
        reply = convert(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    except Exception as error:  # a pickle raises anything
        reply = {"error": f"{type(error).__name__}: {str(error)[:500]}"}
    sys.stdout.write(f"{json.dumps(reply)}\n")


if __name__ == "__main__":
    main()
