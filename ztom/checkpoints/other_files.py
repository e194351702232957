"""Files of a checkpoint's folder besides weights, configuration and tokenizer: kept, or named.

A folder holds more than transformers reads: ``modules.json`` and ``1_Pooling/config.json`` of
sentence-transformers, licences, notes. They belong to the model, so whoever writes it anew keeps
them. Not kept are weights that a blend replaces, a trainer's own state, pickles, code and hidden
files; they are never opened, and the report names them with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ztom.checkpoints.checkpoint import Checkpoint
from ztom.checkpoints.kept_paths import leads_out, why_left_out
from ztom.checkpoints.layout import CODE_KEYS, MAX_JSON_BYTES, read_json
from ztom.checkpoints.source import Source
from ztom.errors import CheckpointError


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
        checkpoint: Checkpoint that was opened.
        max_bytes: Largest size of all files that are kept, bytes.
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
            named, reason = why_left_out(path)
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


def _unreadable(source: Source, path: str) -> str | None:
    """What only a look at the file tells."""
    if leads_out(source, path):
        return "a link that leads out of the folder"
    if not path.endswith("config.json") or source.size(path) > MAX_JSON_BYTES:
        return None
    try:
        content = read_json(source, path)
    except CheckpointError:
        return None  # whatever it is, it is no configuration that anybody reads
    return "asks for code of its own" if any(content.get(key) for key in CODE_KEYS) else None
