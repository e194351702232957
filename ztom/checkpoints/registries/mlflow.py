"""MLflow's model registry: ``models:/name/version`` and ``models:/name@alias``.

The registry is asked by its REST interface, with the variables of MLflow's own client:
``MLFLOW_REGISTRY_URI`` or ``MLFLOW_TRACKING_URI``, ``MLFLOW_TRACKING_TOKEN`` or
``MLFLOW_TRACKING_USERNAME`` and ``MLFLOW_TRACKING_PASSWORD``. Where the server hands the files out
itself (``mlflow-artifacts:``) they are copied into the cache; else they are read where they lie.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from ztom.checkpoints.cache import publish_folder, staging_folder, write_new_file
from ztom.checkpoints.reference import is_plain_path
from ztom.checkpoints.registries.calls import TIMEOUT_S, check_status, get_json, unreachable
from ztom.checkpoints.registries.protocol import RegisteredModel
from ztom.errors import ConfigError, ReferenceRefusedError, StorageError

_ADDRESS = re.compile(
    r"models:/{1,2}(?P<name>[^/@:]+)(?:/(?P<version>\d{1,9})|@(?P<alias>[A-Za-z0-9_.-]{1,255}))"
)
_API = "/api/2.0/mlflow"
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
_LOG_IN = (
    "Set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, to an "
    "account that may read it."
)
_CHUNK = 2**20
_MOST_FILES = 10_000


class MlflowRegistry:
    """The registry that MLflow's own variables name.

    Args:
        transport: Transport of the calls; httpx's own when None.
    """

    def __init__(self, transport: httpx.BaseTransport | None = None) -> None:
        self._transport = transport

    def resolve(self, address: str, cache: Path) -> RegisteredModel:
        """See `ztom.checkpoints.registries.protocol.Registry.resolve`."""
        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise ReferenceRefusedError(
                f"{address} is no address of MLflow's registry",
                expected="models:/name/3 or models:/name@alias",
            )
        with self._client() as client:
            version = match["version"] or _version_of(client, match["name"], match["alias"])
            place = _artifacts_of(client, match["name"], version)
            pinned = f"models:/{match['name']}/{version}"
            if urlsplit(place).scheme != "mlflow-artifacts":
                return RegisteredModel(pinned, place)
            folder = _fetch(client, place, cache, what=pinned)
            return RegisteredModel(pinned, str(folder), is_own_copy=True)

    def _client(self) -> httpx.Client:
        server = os.environ.get("MLFLOW_REGISTRY_URI") or os.environ.get("MLFLOW_TRACKING_URI")
        if not server or urlsplit(server).scheme not in ("http", "https"):
            raise ConfigError(
                "there is no MLflow server to ask",
                got=f"MLFLOW_TRACKING_URI {server or 'is not set'}",
                expected="http://host:port",
                fix="Start one beside a local store with `mlflow server`, and set the variable.",
            )
        token, user = os.environ.get("MLFLOW_TRACKING_TOKEN"), _user()
        return httpx.Client(
            base_url=server.rstrip("/"),
            headers={"Authorization": f"Bearer {token}"} if token else {},
            auth=None if token else user,
            timeout=TIMEOUT_S,
            transport=self._transport,
        )


def _user() -> tuple[str, str] | None:
    name = os.environ.get("MLFLOW_TRACKING_USERNAME")
    return (name, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if name else None


def _version_of(client: httpx.Client, name: str, alias: str) -> str:
    answer = get_json(
        client,
        f"{_API}/registered-models/alias",
        {"name": name, "alias": alias},
        what=f"model {name}@{alias} in MLflow's registry",
        log_in=_LOG_IN,
    )
    return str((answer.get("model_version") or {}).get("version"))


def _artifacts_of(client: httpx.Client, name: str, version: str) -> str:
    """Where the files of a version are, as the registry says."""
    answer = get_json(
        client,
        f"{_API}/model-versions/get-download-uri",
        {"name": name, "version": version},
        what=f"model {name}, version {version}, in MLflow's registry",
        log_in=_LOG_IN,
    )
    place = answer.get("artifact_uri")
    if not isinstance(place, str) or not place:
        raise StorageError(f"models:/{name}/{version} has no files", got="no artifact_uri")
    return place


def _fetch(client: httpx.Client, place: str, cache: Path, *, what: str) -> Path:
    """Copy what the server hands out, unless a copy of just that is there."""
    root = urlsplit(place).path.strip("/")
    files = dict(sorted(_list_files(client, root, what)))
    if not files:
        raise StorageError(f"{what} has no files", got=f"nothing in {place}")
    key = json.dumps([str(client.base_url), root, files]).encode()
    target = cache / hashlib.sha256(key).hexdigest()
    if target.is_dir():
        return target
    with staging_folder(cache) as staging:
        fresh = staging / "artifacts"
        fresh.mkdir()
        for path, size in files.items():
            (fresh / path).parent.mkdir(parents=True, exist_ok=True)
            write_new_file(fresh / path, _bytes(client, f"{root}/{path}", size, what))
        publish_folder(fresh, target)
    return target


def _list_files(client: httpx.Client, root: str, what: str) -> Iterator[tuple[str, int]]:
    """Path and size of every file, the folders below included."""
    folders, count = [""], 0
    while folders:
        folder = folders.pop()
        query = {"path": f"{root}/{folder}".strip("/")}
        for entry in get_json(client, _ARTIFACTS, query, what=what, log_in=_LOG_IN).get(
            "files", ()
        ):
            path = f"{folder}/{_name(entry, what)}".strip("/")
            count += 1
            if count > _MOST_FILES:
                raise StorageError(f"{what} has too many files", expected=f"at most {_MOST_FILES}")
            if entry.get("is_dir"):
                folders.append(path)
            else:
                yield path, int(entry.get("file_size") or 0)


def _name(entry: dict[str, Any], what: str) -> str:
    name = str(entry.get("path") or "").rpartition("/")[2]
    if not is_plain_path(name):
        raise StorageError(f"{what} has a file whose name is not plain", got=ascii(name))
    return name


def _bytes(client: httpx.Client, path: str, size: int, what: str) -> Iterator[bytes]:
    """A file's content, a piece at a time."""
    count = 0
    try:
        with client.stream("GET", f"{_ARTIFACTS}/{quote(path)}") as answer:
            if not answer.is_success:
                answer.read()
            check_status(answer, what=f"{path} of {what}", log_in=_LOG_IN)
            for chunk in answer.iter_bytes(_CHUNK):
                count += len(chunk)
                yield chunk
    except httpx.HTTPError as error:
        raise unreachable(client, what, error) from error
    if count != size:
        raise StorageError(
            f"{path} of {what} did not come whole", got=f"{count} bytes", expected=f"{size} bytes"
        )
