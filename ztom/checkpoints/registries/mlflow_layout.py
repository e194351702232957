"""A model that was logged with MLflow's ``transformers`` flavour, as a checkpoint's folder.

The flavour keeps the weights in one folder and the tokenizer in another; ``MLmodel`` says which.
Both are put into one folder of the cache. What was logged as plain files is a checkpoint as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ztom.checkpoints.cache import publish_folder, staging_folder, write_new_file
from ztom.checkpoints.layout import CONFIG
from ztom.checkpoints.local import LocalSource
from ztom.checkpoints.outgoing import pieces_of
from ztom.checkpoints.reference import is_plain_path
from ztom.checkpoints.source import Source
from ztom.errors import CheckpointError
from ztom.io.hub_address import HUB
from ztom.io.yaml import parse_yaml
from ztom.settings import Settings

_ML_MODEL = "MLmodel"
_MOST_BYTES = 2**20


def checkpoint_in(source: Source, *, settings: Settings) -> Source:
    """The checkpoint among a model's artifacts.

    Args:
        source: Artifacts of a version.
        settings: Settings with the cache.

    Raises:
        CheckpointError: MLflow keeps a name only, no weights.
        StorageError: The artifacts cannot be read, or the cache not written.
    """
    names = source.names()
    if _ML_MODEL not in names or CONFIG in names or source.size(_ML_MODEL) > _MOST_BYTES:
        return source
    flavor = _flavor(source)
    if not flavor:
        return source
    places = _places(source, str(flavor.get("model_binary") or "model"))
    if CONFIG not in places.values():
        raise _name_only(source, flavor)
    key = json.dumps([source.reference, [[p, source.size(p)] for p in places]]).encode()
    shelf = settings.cache / "registries" / "layouts"
    target = shelf / hashlib.sha256(key).hexdigest()
    if not target.is_dir():
        with staging_folder(shelf) as staging:
            fresh = staging / "checkpoint"
            fresh.mkdir()
            for piece in pieces_of(source, list(places)):
                name = places[piece.name]
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                write_new_file(fresh / name, piece.chunks())
            publish_folder(fresh, target)
    return LocalSource(source.reference, target, settings=settings.also_allowing(target))


def _flavor(source: Source) -> Mapping[str, Any]:
    text = source.read(_ML_MODEL).decode("utf-8", errors="replace")
    content = parse_yaml(text, source=f"{source.reference}: {_ML_MODEL}", json_only=False)
    flavors = content.get("flavors") if isinstance(content, dict) else None
    flavor = flavors.get("transformers") if isinstance(flavors, dict) else None
    return flavor if isinstance(flavor, dict) else {}


def _places(source: Source, binary: str) -> dict[str, str]:
    """Where each file goes; the model's own come before those of its components."""
    places: dict[str, str] = {}
    for path in sorted(source.paths(), key=lambda path: not path.startswith(f"{binary}/")):
        if path.startswith(f"{binary}/"):
            name = path.removeprefix(f"{binary}/")
        elif path.startswith("components/") and path.count("/") > 1:
            name = path.split("/", 2)[2]
        else:
            continue
        if is_plain_path(name) and name not in places.values():
            places[path] = name
    return places


def _name_only(source: Source, flavor: Mapping[str, Any]) -> CheckpointError:
    name, revision = flavor.get("source_model_name"), flavor.get("source_model_revision")
    address = f"{HUB}://{name}{f'@{revision}' if revision else ''}"
    return CheckpointError(
        f"{source.reference} holds no weights",
        got=f"the name {name} only" if name else "no config.json",
        expected="a model that was logged with its weights (save_pretrained=True)",
        fix=f"Use {address} in its place." if name else None,
    )
