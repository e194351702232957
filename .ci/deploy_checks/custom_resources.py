"""Custom resources against their definitions, as the API server does it.

    python custom_resources.py DEFINITIONS FILE...

Nulls that may not be are pruned, defaults are filled in, then the structural schema is applied
strictly (a field that it does not have is an error, as with `kubectl --validate=strict`), then the
rules in CEL. Rules on how a value may change (`oldSelf`) have no meaning for a new one and are left
out. Runs in the environment of the tools, which has a CEL.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

Schema = dict[str, Any]
#: libyaml reads the megabyte of a definition in a second; Python's own takes ten.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SHOWN = 200


def load_definitions(folder: Path) -> dict[tuple[str, str], Schema]:
    """Schemas by apiVersion and kind."""
    schemas = {}
    for path in sorted(folder.glob("crd-*.yaml")):
        definition = yaml.load(path.read_text(encoding="utf-8"), _LOADER)["spec"]
        for version in definition["versions"]:
            key = (f"{definition['group']}/{version['name']}", definition["names"]["kind"])
            schemas[key] = version["schema"]["openAPIV3Schema"]
    return schemas


def problems(document: dict[str, Any], schema: Schema) -> Iterator[str]:
    """What is wrong with a document, as `path: reason`."""
    prepared = filled(pruned(document, schema), schema)
    whole = strict(schema)
    # checked by the API server before any definition
    whole["properties"] |= {"metadata": {"type": "object"}, "apiVersion": {}, "kind": {}}
    validator = jsonschema.Draft202012Validator(whole)
    for error in validator.iter_errors(prepared):
        yield f"{'.'.join(map(str, error.path))}: {error.message[:_SHOWN]}"
    yield from broken_rules(prepared, schema, "")


def pruned(value: Any, schema: Schema) -> Any:
    """A value without the nulls that its schema does not allow."""
    if isinstance(value, dict):
        return {
            name: pruned(item, schema_of(schema, name))
            for name, item in value.items()
            if item is not None or schema_of(schema, name).get("nullable")
        }
    if isinstance(value, list):
        return [pruned(item, schema.get("items", {})) for item in value]
    return value


def filled(value: Any, schema: Schema) -> Any:
    """A value with the defaults of its schema."""
    if isinstance(value, dict):
        whole = dict(value)
        for name, part in schema.get("properties", {}).items():
            if name not in whole and "default" in part:
                whole[name] = copy.deepcopy(part["default"])
        return {name: filled(item, schema_of(schema, name)) for name, item in whole.items()}
    if isinstance(value, list):
        return [filled(item, schema.get("items", {})) for item in value]
    return value


def schema_of(schema: Schema, name: str) -> Schema:
    """Schema of a field; empty where nothing is said of it."""
    part = schema.get("properties", {}).get(name)
    if part is None:
        part = schema.get("additionalProperties")
    return part if isinstance(part, dict) else {}


def strict(schema: Schema) -> Schema:
    """A structural schema as JSON Schema, with no field that it does not name."""
    made = {name: part for name, part in schema.items() if not name.startswith("x-kubernetes-")}
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if made.pop("nullable", False) and "type" in made:
        made["type"] = [made["type"], "null"]
    if "properties" in schema:
        made["properties"] = {name: strict(p) for name, p in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    for name in ("items", "additionalProperties"):
        if isinstance(made.get(name), dict):
            made[name] = strict(made[name])
    return made


def broken_rules(value: Any, schema: Schema, path: str) -> Iterator[str]:
    """Rules in CEL that a value does not keep."""
    for rule in schema.get("x-kubernetes-validations", []):
        if "oldSelf" not in rule["rule"] and not keeps(value, rule["rule"]):
            yield f"{path}: {' '.join(rule.get('message', rule['rule']).split())}"
    if isinstance(value, dict):
        for name, item in value.items():
            yield from broken_rules(item, schema_of(schema, name), f"{path}.{name}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from broken_rules(item, schema.get("items", {}), f"{path}.{number}")


def keeps(value: Any, rule: str) -> bool:
    """Whether a value keeps a rule."""
    import celpy  # of the tools' environment

    environment = celpy.Environment()
    program = environment.program(environment.compile(rule))
    return bool(program.evaluate({"self": celpy.json_to_cel(value)}))


def main() -> int:
    """Look at files; the exit status is 1 where something is wrong."""
    schemas = load_definitions(Path(sys.argv[1]))
    status = 0
    for file in map(Path, sys.argv[2:]):
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        key = (document["apiVersion"], document["kind"])
        wrong = list(problems(document, schemas[key])) if key in schemas else [f"no kind {key}"]
        for problem in wrong:
            status = 1
            print(f"{file}: {problem}")
    return status


if __name__ == "__main__":
    sys.exit(main())
