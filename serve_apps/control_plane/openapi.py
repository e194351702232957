"""The OpenAPI document: what users generate clients from, and read under ``/docs``.

Schemas come from `ztom.wire`, summaries from the docstrings of the routes; each operation's example
is that of its models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.routing import APIRoute

from ztom.wire.base import WireAnswer
from ztom.wire.examples import example_of
from ztom.wire.problems import Problem

#: What users' generators expect.
VERSION = "3.1.0"
#: The tags of the routes, in the order of the document.
TAGS = [
    {"name": "accounts", "description": "Logging in, users, administrators, API keys."},
    {"name": "files", "description": "Checkpoints of a project, and data sets for its searches."},
    {"name": "projects", "description": "Projects, and who works on them."},
    {
        "name": "edits and analyses",
        "description": "Factors set by hand, training removed, checkpoints compared and asked.",
    },
    {"name": "searches", "description": "Searches for the best factors, and what came of them."},
    {"name": "deployments", "description": "Variants that are to be served."},
    {"name": "endpoints", "description": "Which variant answers under an alias."},
    {"name": "releases", "description": "The gradual move of an alias' traffic to a candidate."},
    {"name": "verdicts", "description": "What the gate said of models."},
    {"name": "models", "description": "OpenAI's routes, and feedback on the answers."},
    {"name": "usage", "description": "Who used how much of what is served."},
    {"name": "health", "description": "Whether the server is up."},
]
#: What every route may answer besides; see `serve_apps.control_plane.errors`.
REFUSED: dict[int | str, dict[str, Any]] = {
    "default": {"model": Problem, "description": "Refused, or failed."}
}
BYTES = "application/octet-stream"
#: Options of a route that answers with bytes.
SENDS_BYTES: dict[str, Any] = {
    "response_class": StreamingResponse,
    "responses": {
        200: {
            "description": "The bytes.",
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        },
        **REFUSED,
    },
}


#: Options of a route that answers with an address, as a JSON string, or with JSON.
SENDS_ADDRESS: dict[str, Any] = {
    "response_class": JSONResponse,
    "responses": {
        200: {
            "description": "An address, or the JSON that it gives.",
            "content": {
                "application/json": {
                    "schema": {"anyOf": [{"type": "string"}, {"type": "object"}]},
                    "example": "http://127.0.0.1:8000/v1/artifacts?token=eyJhbGciOi...",
                }
            },
        },
        **REFUSED,
    },
}


def sends_text(example: str, media_type: str = "text/plain") -> dict[str, Any]:
    """Options of a route that answers with text.

    Args:
        example: Example of an answer's body.
        media_type: Media type of the answer; ``text/event-stream`` for server-sent events.
    """
    content = {media_type: {"schema": {"type": "string"}, "example": example}}
    return {
        "response_class": StreamingResponse,
        "responses": {200: {"description": "Text.", "content": content}, **REFUSED},
    }


def sends_events(name: str, model: type[WireAnswer]) -> dict[str, Any]:
    """Options of a route that answers with server-sent events.

    Args:
        name: Name of the event that the example shows.
        model: Model of the event's data.
    """
    data = model.parse(example_of(model.model_json_schema())).to_json()
    return sends_text(f"event: {name}\ndata: {data}\n\n", "text/event-stream")


def operation_id(route: APIRoute) -> str:
    """What generated clients call an operation: the name of its function here."""
    return route.name


def describe(app: FastAPI) -> None:
    """Write into the document how callers say who they are, and the examples of the models."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        document = plain()
        components = document.setdefault("components", {})
        components.setdefault("securitySchemes", {})["bearer"] = {
            "type": "http",
            "scheme": "bearer",
        }
        schemas = components.get("schemas", {})
        for schema in schemas.values():
            _drop_object_defaults(schema)
            for example in schema.get("examples", ()):
                _restore_nulls(example, schema, schemas)
        for content in _contents(document):
            example = _example(content.get("schema", {}), schemas)
            if example is not None:
                content.setdefault("example", example)
        return document

    app.openapi = described  # type: ignore[method-assign]


def _contents(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every body of a request or an answer in the document."""
    for path in document["paths"].values():
        for operation in path.values():
            bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
            for body in bodies:
                yield from body.get("content", {}).values()


def _restore_nulls(value: Any, schema: Mapping[str, Any], models: Mapping[str, Any]) -> None:
    """FastAPI leaves every null out of its document: put those back that an example needs."""
    if "$ref" in schema:
        _restore_nulls(value, models[schema["$ref"].rpartition("/")[2]], models)
    elif isinstance(value, list):
        for item in value:
            _restore_nulls(item, schema.get("items", {}), models)
    elif isinstance(value, dict):
        for choice in schema.get("anyOf", ()):
            _restore_nulls(value, choice, models)
        for name in schema.get("required", ()):
            value.setdefault(name, None)
        for name, field in schema.get("properties", {}).items():
            _restore_nulls(value.get(name), field, models)


def _drop_object_defaults(schema: Mapping[str, Any]) -> None:
    """Generators take an object as the default of a plain value for a mistake."""
    for field in schema.get("properties", {}).values():
        if isinstance(field.get("default"), dict):
            del field["default"]


def _example(schema: Mapping[str, Any], models: Mapping[str, Any]) -> Any:
    """An example of a schema; None where its model has none."""
    if "$ref" in schema:
        return _example(models[schema["$ref"].rpartition("/")[2]], models)
    if "examples" in schema:
        return example_of(schema)
    if schema.get("type") == "array":
        item = _example(schema.get("items", {}), models)
        return None if item is None else [item]
    choices = (_example(choice, models) for choice in schema.get("anyOf", ()))
    return next((choice for choice in choices if choice is not None), None)
