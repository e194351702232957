"""Registries of models: by what their REST interfaces answer, recorded or made from the schema."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import httpx
import pytest
from toy_checkpoints import llama_tensors, write_checkpoint

from ztom import plugins
from ztom.checkpoints.checkpoint import open_checkpoint
from ztom.checkpoints.reference import parse_reference
from ztom.checkpoints.registries import resolve
from ztom.checkpoints.registries.mlflow import MlflowRegistry
from ztom.checkpoints.registries.protocol import RegisteredModel
from ztom.checkpoints.registries.vertex import VertexRegistry
from ztom.errors import CheckpointError, ConfigError, ReferenceRefusedError, StorageError
from ztom.settings import Settings
from ztom.testing import RegistryConformance

Answers = Callable[[httpx.Request], httpx.Response]
MISSING = {
    "error_code": "RESOURCE_DOES_NOT_EXIST",
    "message": "Registered Model with name=nothing not found",
}


def mlflow_answers(folder: Path) -> Answers:
    """Answers of MLflow 3.17's server that hands out the files of a folder itself."""
    root = "0/models/m-1/artifacts"

    def answer(request: httpx.Request) -> httpx.Response:
        path, query = request.url.path, request.url.params
        if path.startswith("/api/2.0/mlflow-artifacts/artifacts/"):
            name = path.removeprefix(f"/api/2.0/mlflow-artifacts/artifacts/{root}/")
            return httpx.Response(200, content=(folder / name).read_bytes())
        if path == "/api/2.0/mlflow-artifacts/artifacts":
            below = folder / query["path"].removeprefix(root).strip("/")
            return httpx.Response(200, json={"files": [_entry(p) for p in sorted(below.iterdir())]})
        if query.get("name") != "support" or query.get("version", "3") != "3":
            return httpx.Response(404, json=MISSING)
        if path.endswith("/registered-models/alias"):
            if query["alias"] != "champion":
                return httpx.Response(400, json={"error_code": "INVALID", "message": "no alias"})
            return httpx.Response(200, json={"model_version": {"name": "support", "version": "3"}})
        assert path == "/api/2.0/mlflow/model-versions/get-download-uri"
        return httpx.Response(200, json={"artifact_uri": f"mlflow-artifacts:/{root}"})

    return answer


def _entry(path: Path) -> dict[str, Any]:
    if path.is_dir():
        return {"path": path.name, "is_dir": True}
    return {"path": path.name, "is_dir": False, "file_size": path.stat().st_size}


def vertex_answers(request: httpx.Request) -> httpx.Response:
    """A ``Model`` as the published schema has it, and a status as all Google services answer."""
    assert request.headers["Authorization"] == "Bearer token"
    if "/models/4711" not in request.url.path:
        error = {"code": 404, "message": "The Model does not exist.", "status": "NOT_FOUND"}
        return httpx.Response(404, json={"error": error})
    model = {
        "name": "projects/12/locations/europe-west4/models/4711",
        "displayName": "support",
        "versionId": "2",
        "versionAliases": ["default"],
        "artifactUri": "gs://models/support/2",
        "containerSpec": {"imageUri": "eu-docker.pkg.dev/a/b/c"},
        "supportedDeploymentResourcesTypes": ["DEDICATED_RESOURCES"],
    }
    return httpx.Response(200, json=model)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = write_checkpoint(tmp_path / "artifacts", llama_tensors(1))
    (made / "1_Pooling").mkdir()
    (made / "1_Pooling" / "config.json").write_text("{}")
    return made


@pytest.fixture(autouse=True)
def _server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.test:5000")
    for name in ("MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME"):
        monkeypatch.delenv(name, raising=False)


class TestMlflow(RegistryConformance):
    address = "models:/support/3"
    moving_address = "models:/support@champion"
    missing_address = "models:/nothing/1"
    malformed_addresses = ("models:/support", "models:/support/three", "models:/a/b/3")

    @pytest.fixture
    def registry(self, folder: Path) -> MlflowRegistry:
        return MlflowRegistry(httpx.MockTransport(mlflow_answers(folder)))


class TestVertex(RegistryConformance):
    address = "vertex://team/europe-west4/models/4711@2"
    moving_address = "vertex://team/europe-west4/models/4711@default"
    missing_address = "vertex://team/europe-west4/models/1"
    malformed_addresses = ("vertex://team/models/4711", "vertex://team/europe-west4/endpoints/1")

    @pytest.fixture
    def registry(self) -> VertexRegistry:
        return VertexRegistry(lambda: "token", httpx.MockTransport(vertex_answers))


def through(monkeypatch: pytest.MonkeyPatch, registry: object) -> None:
    monkeypatch.setattr(resolve, "build_registry", lambda scheme: registry)


def test_what_mlflow_hands_out_is_a_checkpoint_with_a_pinned_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    through(monkeypatch, MlflowRegistry(httpx.MockTransport(mlflow_answers(folder))))
    settings = Settings(allowed_roots=("models:/support",))
    opened = open_checkpoint("models:/support@champion", settings=settings)
    assert opened.reference == "models:/support/3"
    assert opened.digest == open_checkpoint(str(folder), settings=Settings()).digest
    assert "1_Pooling/config.json" in opened.source.paths()


def test_what_was_logged_as_a_transformers_model_is_one_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged = tmp_path / "logged"
    (logged / "components" / "tokenizer").mkdir(parents=True)
    (logged / "components" / "tokenizer" / "tokenizer.json").write_text("{}")
    folder.rename(logged / "model")
    flavors = {"transformers": {"model_binary": "model", "components": ["tokenizer"]}}
    (logged / "MLmodel").write_text(json.dumps({"flavors": flavors}))
    through(monkeypatch, MlflowRegistry(httpx.MockTransport(mlflow_answers(logged))))
    opened = open_checkpoint("models:/support/3", settings=Settings())
    assert opened.reference == "models:/support/3"
    assert "tokenizer.json" in opened.files
    flavors["transformers"]["source_model_name"] = "acme/base"
    (logged / "MLmodel").write_text(json.dumps({"flavors": flavors}))
    (logged / "model" / "config.json").unlink()
    with pytest.raises(CheckpointError, match="the name acme/base only.*Use hf://acme/base"):
        open_checkpoint("models:/support/3", settings=Settings())


def test_the_place_that_a_registry_names_has_to_be_allowed_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Elsewhere:
        def resolve(self, address: str, cache: Path) -> RegisteredModel:
            return RegisteredModel("models:/support/3", str(folder))

    through(monkeypatch, Elsewhere())
    assert open_checkpoint("models:/support/3", settings=Settings()).kind == "full"
    with pytest.raises(ReferenceRefusedError, match="outside the allowed roots"):
        open_checkpoint("models:/support/3", settings=Settings(allowed_roots=("models:/",)))


@pytest.mark.parametrize(
    "settings", [Settings(allowed_schemes=("file", "gs")), Settings(allowed_roots=("/models",))]
)
def test_an_operator_can_do_without_registries(settings: Settings) -> None:
    for text in ("models:/support/3", "vertex://team/europe-west4/models/1@1"):
        with pytest.raises(ReferenceRefusedError):
            parse_reference(text, settings=settings)


@pytest.mark.parametrize("text", ["models:/a/../b", "models:/a//3", "models:/a%2f3", "models:/a#3"])
def test_odd_addresses_are_refused(text: str) -> None:
    with pytest.raises(ReferenceRefusedError):
        parse_reference(text, settings=Settings())


def test_without_a_server_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "sqlite:///mlflow.db", "./mlruns"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", value)
        with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI.*mlflow server"):
            MlflowRegistry().resolve("models:/support/3", Path("cache"))


def test_credentials_are_sent_and_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("Authorization"))
        return httpx.Response(401, text="You are not authenticated")

    registry = MlflowRegistry(httpx.MockTransport(answer))
    with pytest.raises(ConfigError, match="401.*MLFLOW_TRACKING_TOKEN"):
        registry.resolve("models:/support/3", tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    with pytest.raises(ConfigError):
        registry.resolve("models:/support/3", tmp_path)
    assert seen == [None, "Bearer secret"]


def test_a_registry_that_says_nothing_is_named(tmp_path: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectTimeout("timed out", request=request)

    with pytest.raises(StorageError, match="no answer of http://mlflow.test:5000.*10 s"):
        MlflowRegistry(httpx.MockTransport(answer)).resolve("models:/support/3", tmp_path)


def test_a_file_that_does_not_come_whole_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    whole = mlflow_answers(folder)

    def answer(request: httpx.Request) -> httpx.Response:
        got = whole(request)
        return (
            httpx.Response(200, content=got.content[:-1])
            if "safetensors" in str(request.url)
            else got
        )

    with pytest.raises(StorageError, match="did not come whole"):
        MlflowRegistry(httpx.MockTransport(answer)).resolve("models:/support/3", tmp_path / "c")
    assert list((tmp_path / "c").iterdir()) == []


def test_a_registry_is_added_like_an_error_function(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry point of the group, called as the scheme."""
    entry = EntryPoint("shelf", f"{__name__}:make_shelf", plugins.Group.REGISTRIES)

    def offers(*, group: str, name: str | None = None) -> list[EntryPoint]:
        return [entry] if group == entry.group and name in (None, "shelf") else []

    monkeypatch.setattr(plugins, "entry_points", offers)
    monkeypatch.setenv("SHELF", str(folder))
    opened = open_checkpoint("shelf:/support/newest", settings=Settings())
    assert opened.reference == "shelf:/support/1"
    with pytest.raises(ReferenceRefusedError):
        parse_reference("shelf:/support/1", settings=Settings(allowed_schemes=("file",)))
    with pytest.raises(ReferenceRefusedError):
        parse_reference("shelf:/support/1", settings=Settings(allowed_roots=("/",)))


def make_shelf() -> object:
    class Shelf:
        def resolve(self, address: str, cache: Path) -> RegisteredModel:
            import os

            return RegisteredModel("shelf:/support/1", os.environ["SHELF"])

    return Shelf()


def test_vertex_without_credentials_says_how_to_log_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key.json"
    key.write_text(json.dumps({"type": "nonsense"}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    with pytest.raises(ConfigError, match="gcloud auth application-default login"):
        VertexRegistry().resolve("vertex://team/europe-west4/models/1@1", tmp_path)
