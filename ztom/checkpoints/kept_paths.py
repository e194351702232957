"""Which paths of a checkpoint's folder are kept beside the model, told by their names alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from ztom.checkpoints.reference import is_plain_path
from ztom.checkpoints.source import Source
from ztom.errors import ReferenceRefusedError

#: Names of files that only unpickling reads.
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.joblib")
_TRAINER_FOLDER = re.compile(r"(checkpoint-|global_step)\d+")
_TRAINER = (
    *("trainer_state.json", "training_args.*", "optimizer.*", "scheduler.*", "scaler.*"),
    *("rng_state*", "zero_to_fp32.py", "latest", "events.out.tfevents.*"),
)
_CODE = ("*.py", "*.pyc", "*.so", "*.so.*", "*.pyd", "*.dll", "*.dylib", "*.sh", "*.exe", "*.jar")
_OTHER_WEIGHTS = ("*.h5", "*.msgpack", "*.onnx", "*.onnx_data", "*.ot", "*.gguf", "*.tflite")
_INDEX = "*.index.json"
_ADAPTER_CONFIG = "adapter_config.json"


def paths_to_send(source: Source) -> list[str]:
    """What a copy of a folder holds: the files at its top, and below it those that are kept."""
    below = [path for path in source.paths() if "/" in path and why_left_out(path)[1] is None]
    return sorted({*source.names(), *(path for path in below if not leads_out(source, path))})


def leads_out(source: Source, path: str) -> bool:
    """Whether a path is a link to something that is not the folder's."""
    try:
        source.size(path)
    except ReferenceRefusedError:
        return True
    return False


def why_left_out(path: str) -> tuple[str, str | None]:
    """What to name in a report, and why a path is left out; no reason where it is kept."""
    parts = path.split("/")
    for depth, part in enumerate(parts[:-1], start=1):
        folder = "/".join(parts[:depth]) + "/"
        if part.startswith("."):
            return folder, "hidden"
        if _TRAINER_FOLDER.fullmatch(part):
            return folder, "a trainer's state"
    if path.endswith("/"):
        return path, "a link to a folder"
    return path, _reason(path, parts[-1])


def _reason(path: str, name: str) -> str | None:
    if name.startswith("."):
        return "hidden"
    if not is_plain_path(path):
        return "a name that is not plain"
    if _is_any(name, _TRAINER):
        return "a trainer's state"
    if _is_any(name, PICKLES):
        return "a pickle"
    if _is_any(name, _CODE):
        return "code"
    if _is_any(name, _OTHER_WEIGHTS):
        return "weights in another format, which are not the blend's"
    if path == name and (name.endswith(".safetensors") or fnmatchcase(name, _INDEX)):
        return "weights besides the checkpoint's"
    if path == _ADAPTER_CONFIG:
        return "of an adapter that is not there"
    return None


def _is_any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name.lower(), pattern) for pattern in patterns)
