"""Whatever the OpenAPI document allows, and what it does not, is answered without a 5xx."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import pytest
import schemathesis
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator
from pydantic import BaseModel
from server_helpers import Server, serving
from toys import make_plain_chain

import ztom.wire
from serve_apps.control_plane.config import ServerConfig
from serve_apps.server.app import create_app


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("schema")
    make_plain_chain(home / "roots" / "chain")
    config = ServerConfig(
        data=home / "data", pointer_roots=(str(home / "roots"),), poll_s=0.2, body_timeout_s=2
    )
    with serving(config) as server:
        yield server


@pytest.fixture(scope="module")
def headers(server: Server) -> dict[str, str]:
    session = server.as_user("chief", admin=True)
    return {"Authorization": str(session.headers["Authorization"])}


def test_no_answer_is_a_server_error(server: Server, headers: dict[str, str]) -> None:
    schema = schemathesis.openapi.from_dict(create_app(server.services).openapi())
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 50
    for operation in operations:
        _try(operation, server, headers)


def _try(operation: schemathesis.APIOperation, server: Server, headers: dict[str, str]) -> None:
    @given(case=operation.as_strategy())
    @settings(
        max_examples=4,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def run(case: schemathesis.Case) -> None:
        if case.path.startswith("/api/auth/admin/") and case.method in ("DELETE", "PATCH"):
            case.path_parameters["user_id"] = "0" * 32  # the test still has to be let in
        answer = case.call(base_url=server.url, headers=headers, timeout=60)
        where = f"{operation.label}: {answer.status_code} {answer.text[:300]}"
        assert answer.status_code < 500 or answer.status_code == 501, where
        if answer.status_code >= 400 and answer.headers.get("content-type") == "application/json":
            assert set(answer.json()) == {"detail"}, where

    run()


def test_the_document_is_where_it_should_be(server: Server) -> None:
    import requests

    document = requests.get(f"{server.url}/v3/api-docs", timeout=30).json()
    assert document["openapi"] == "3.1.0", "what users' generators expect"
    assert requests.get(f"{server.url}/docs", timeout=30).status_code == 200


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    return create_app(server.services).openapi()


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def successes(operation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Answers that are no refusals, by status; 501 is all that some routes have."""
    return {status: a for status, a in operation["responses"].items() if status != "default"}


def contents(operation: dict[str, Any]) -> list[dict[str, Any]]:
    """Bodies of the request and of the answers, by media type."""
    bodies = [operation.get("requestBody", {}), *successes(operation).values()]
    return [content for body in bodies for content in body.get("content", {}).values()]


def test_the_document_has_every_route(server: Server, document) -> None:
    routes = [r for r in create_app(server.services).routes if isinstance(r, APIRoute)]
    assert len(operations(document)) == sum(len(route.methods) for route in routes)


def test_every_operation_has_an_id_a_tag_a_summary_and_a_schema(document) -> None:
    tags = {tag["name"] for tag in document["tags"] if tag["description"]}
    for label, operation in operations(document):
        assert operation["operationId"].isidentifier(), label
        assert len(operation["tags"]) == 1, label
        assert operation["tags"][0] in tags, label
        assert operation["summary"][0].isupper(), label
        (answer,) = successes(operation).items()
        schemas = [content["schema"] for content in answer[1].get("content", {}).values()]
        assert (answer[0] == "204") == (schemas == []), label
        assert all(schemas), label
        assert operation["responses"]["default"]["content"]["application/json"]["schema"], label
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(ids)) == len(ids)


def test_every_operation_has_an_example(document) -> None:
    for label, operation in operations(document):
        parameters = [parameter["schema"] for parameter in operation.get("parameters", ())]
        shown = [content for content in contents(operation) if "example" in content]
        shown += [schema for schema in parameters if "examples" in schema]
        assert shown, label
        for content in contents(operation):
            is_bytes = content["schema"].get("format") == "binary"
            assert ("example" in content) != is_bytes, label


def test_examples_are_what_their_schemas_say(document) -> None:
    shown = 0
    for label, operation in operations(document):
        for content in contents(operation):
            if "example" not in content:
                continue
            schema = {**content["schema"], "components": document["components"]}
            problems = list(Draft202012Validator(schema).iter_errors(content["example"]))
            assert not problems, f"{label}: {problems[0].message}"
            shown += 1
    assert shown > 100


def test_models_read_the_examples(document) -> None:
    """Each schema is a model's, and what it shows is what the server and the client read."""
    modules = [f"ztom.wire.{module.name}" for module in iter_modules(ztom.wire.__path__)]
    models = {
        name: value
        for module in map(import_module, modules)
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, BaseModel)
    }
    read = 0
    for name, schema in document["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            if name in models:
                models[name].model_validate(example)
                read += 1
    assert read > 50
