"""Files of a checkpoint's folder besides weights, configuration and tokenizer: kept, or named.

A folder holds more than transformers reads: ``modules.json`` and ``1_Pooling/config.json`` of
sentence-transformers, licences, notes. They belong to the model, so whoever writes it anew keeps
them. Not kept are weights that a blend replaces, a trainer's own state, pickles, code and hidden
files; they are never opened, and the report names them with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from ztom.checkpoints.checkpoint import Checkpoint
from ztom.checkpoints.layout import ADAPTER_CONFIG, CODE_KEYS, MAX_JSON_BYTES, PICKLES, read_json
from ztom.checkpoints.reference import is_plain_path
from ztom.checkpoints.storage import Source
from ztom.errors import CheckpointError, ReferenceRefusedError

_TRAINER_FOLDER = re.compile(r"(checkpoint-|global_step)\d+")
_TRAINER = (
    *("trainer_state.json", "training_args.*", "optimizer.*", "scheduler.*", "scaler.*"),
    *("rng_state*", "zero_to_fp32.py", "latest", "events.out.tfevents.*"),
)
_CODE = ("*.py", "*.pyc", "*.so", "*.so.*", "*.pyd", "*.dll", "*.dylib", "*.sh", "*.exe", "*.jar")
_OTHER_WEIGHTS = ("*.h5", "*.msgpack", "*.onnx", "*.onnx_data", "*.ot", "*.gguf", "*.tflite")
_INDEX = "*.index.json"


@dataclass(frozen=True, slots=True)
class OtherFiles:
    """The other files of one checkpoint.

    Attributes:
        kept: Paths from its folder, sorted.
        left_out: Why each of the rest is left out, by its path; a folder's ends with a slash.
    """

    kept: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)


def find_other_files(
    checkpoint: Checkpoint, *, max_bytes: int, replaced: Iterable[str] = ()
) -> OtherFiles:
    """Decide about every file of a checkpoint's folder that is none of its `used_files`.

    Args:
        checkpoint: Opened.
        max_bytes: Of all that is kept.
        replaced: Names that whoever asks writes itself.

    Raises:
        CheckpointError: They are too many, or too large.
        StorageError: The store failed.
    """
    source, used, own = checkpoint.source, set(checkpoint.used_files), set(replaced)
    kept: list[str] = []
    left_out: dict[str, str] = {}
    nbytes = 0
    for path in source.paths():
        if path in used:
            continue
        named, reason = path, "written anew" if path in own else None
        if reason is None:
            named, reason = _left_out(path)
        if reason is None:
            reason = _unreadable(source, path)
        if reason is not None:
            left_out.setdefault(named, reason)
            continue
        nbytes += source.size(path)
        if nbytes > max_bytes:
            raise CheckpointError(
                f"{checkpoint.reference} holds too much besides the model: {path}",
                got=f"{nbytes} bytes or more",
                expected=f"at most {max_bytes} (ZTOM_MAX_KEPT_BYTES)",
                fix="Move what does not belong to the model out of its folder.",
            )
        kept.append(path)
    return OtherFiles(tuple(kept), left_out)


def paths_to_send(source: Source) -> list[str]:
    """What a copy of a folder holds: the files at its top, and below it those that are kept."""
    below = [path for path in source.paths() if "/" in path and _left_out(path)[1] is None]
    return sorted({*source.names(), *below})


def _left_out(path: str) -> tuple[str, str | None]:
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
    if path == ADAPTER_CONFIG:
        return "of an adapter that is not there"
    return None


def _unreadable(source: Source, path: str) -> str | None:
    """What only a look at the file tells."""
    try:
        size = source.size(path)
    except ReferenceRefusedError:
        return "a link that leads out of the folder"
    if not path.endswith("config.json") or size > MAX_JSON_BYTES:
        return None
    try:
        content = read_json(source, path)
    except CheckpointError:
        return None  # whatever it is, it is no configuration that anybody reads
    return "asks for code of its own" if any(content.get(key) for key in CODE_KEYS) else None


def _is_any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name.lower(), pattern) for pattern in patterns)
