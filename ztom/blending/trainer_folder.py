"""A Trainer's output folder as a chain: its ``checkpoint-N`` in the order of N.

transformers.Trainer, and what is built on it (TRL, Axolotl, LLaMA-Factory), writes one folder per
saved step, and often the final model beside them. What cannot be a member of the chain (a
checkpoint that was cut off, the final model where it is the last checkpoint again) is left out and
named; so is what stands beside the weights to resume a training.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ztom.errors import ChainError, CheckpointError
from ztom.io.hub_address import HUB, is_bare_repo
from ztom.settings import Settings

if TYPE_CHECKING:
    from ztom.checkpoints.checkpoint import Checkpoint

_STEP = re.compile(r"checkpoint-(\d+)")
_FINAL = "final"


@dataclass(frozen=True, slots=True)
class TrainerRun:
    """What a Trainer's folder gives a chain.

    Attributes:
        members: Reference and tag of each member, the base first.
        left_out: Reason why something of the folder is not in the chain, by its path from there.
        has_base: Whether the first member is the model that the training began from.
    """

    members: tuple[tuple[str, str], ...]
    left_out: Mapping[str, str]
    has_base: bool


def is_trainer_folder(folder: Path) -> bool:
    """Whether a folder holds ``checkpoint-N``, and so is a Trainer's."""
    return folder.is_dir() and bool(_steps(folder))


def read_trainer_folder(
    folder: Path, *, base: str | None = None, settings: Settings | None = None
) -> TrainerRun:
    """Look at every checkpoint of the folder; headers and configurations are read, no weights.

    Only where a final model lies beside the checkpoints is it compared with them, byte by byte.

    Args:
        folder: Output folder of the training.
        base: Reference of the model that the training began from; None for what adapters name.
        settings: Settings of opening the checkpoints; those of this installation when None.

    Raises:
        ChainError: There are fewer than two members, or adapters whose base is not known.
    """
    settings = settings or Settings()
    left_out: dict[str, str] = {}
    steps: list[tuple[str, Checkpoint]] = []
    for name in _steps(folder):
        checkpoint = _open(folder / name, settings)
        if isinstance(checkpoint, str):
            left_out[name] = checkpoint
        else:
            steps.append((name, checkpoint))
    final = _final_model(folder, steps, settings, left_out)
    opened = [*steps, *([(_FINAL, final)] if final is not None else [])]
    for path, reason in _passed_over(opened).items():
        left_out[path] = reason
    start = base or (_named_base(folder, opened[0][1].config) if opened else None)
    members = [(checkpoint.reference, name) for name, checkpoint in opened]
    if start is not None:
        members.insert(0, (start, "base"))
    if len(members) < 2:
        raise ChainError(
            f"{folder} gives no chain",
            got=_count(members, left_out),
            expected="two checkpoints, or one and its base (--base)",
        )
    return TrainerRun(tuple(members), left_out, start is not None)


def _steps(folder: Path) -> list[str]:
    """Names of the checkpoints' folders, in the order of their steps."""
    steps = {
        int(match[1]): entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and (match := _STEP.fullmatch(entry.name))
    }
    return [steps[step] for step in sorted(steps)]


def _open(folder: Path, settings: Settings) -> Checkpoint | str:
    """A checkpoint, or why it is none."""
    from ztom.checkpoints.checkpoint import open_checkpoint

    try:
        return open_checkpoint(str(folder.absolute()), settings=settings)
    except (CheckpointError, OSError) as error:
        return f"cannot be used: {error}"


def _final_model(
    folder: Path,
    steps: list[tuple[str, Checkpoint]],
    settings: Settings,
    left_out: dict[str, str],
) -> Checkpoint | None:
    """The model at the top, where it is none of the checkpoints."""
    if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        return None
    final = _open(folder, settings)
    if isinstance(final, str):
        left_out["."] = final
        return None
    for name, checkpoint in reversed(steps):
        if _same_weights(final, checkpoint):
            left_out["."] = f"the final model, the same weights as {name}"
            return None
    return final


def _same_weights(one: Checkpoint, other: Checkpoint) -> bool:
    sizes = [{file: c.source.size(file) for file in c.weight_files} for c in (one, other)]
    return sizes[0] == sizes[1] and all(
        one.source.sha256(file) == other.source.sha256(file) for file in one.weight_files
    )


def _passed_over(opened: list[tuple[str, Checkpoint]]) -> dict[str, str]:
    """What stands beside the weights to resume a training, once for all checkpoints."""
    from ztom.checkpoints.kept_paths import why_left_out

    reasons: dict[str, set[str]] = defaultdict(set)
    for name, checkpoint in opened:
        if name == _FINAL:
            continue
        used = set(checkpoint.used_files)
        for path in checkpoint.source.paths():
            named, reason = why_left_out(path)
            if path not in used and reason is not None:
                reasons[f"checkpoint-*/{named}"].add(reason)
    return {path: ", ".join(sorted(why)) for path, why in sorted(reasons.items())}


def _named_base(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The base that an adapter's configuration names; None for a full model.

    Raises:
        ChainError: It names none, or one that is not here.
    """
    if "peft_type" not in config:
        return None
    name = config.get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise ChainError(
            f"the adapters of {folder} name no base model",
            fix="Say which with --base: a folder or a name on the Hub.",
        )
    for place in (Path(name), folder / name):
        if place.is_dir():
            return str(place.absolute())
    if is_bare_repo(name):
        revision = config.get("revision")
        return f"{HUB}://{name}@{revision}" if revision else f"{HUB}://{name}"
    raise ChainError(
        f"the base model of the adapters of {folder} is not here",
        got=f"base_model_name_or_path {name}",
        expected="a folder of this machine or a name on the Hub",
        fix="Say where it is with --base.",
    )


def _count(members: list[tuple[str, str]], left_out: Mapping[str, str]) -> str:
    names = ", ".join(name for _, name in members) or "no checkpoint"
    wrong = [f"{path} {why}" for path, why in left_out.items() if why.startswith("cannot")]
    return f"{names}{'; ' if wrong else ''}{'; '.join(wrong[:3])}"
