"""A client that is generated from the OpenAPI document, as users make one for themselves."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import requests
from openapi_python_client import Config, generate
from openapi_python_client.config import ConfigFile, MetaType
from server_helpers import PASSWORD, Server, serving

from serve_apps.control_plane.config import ServerConfig

PACKAGE = "ztom_generated"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("generated")
    with serving(ServerConfig(data=home / "data", poll_s=0.05)) as server:
        yield server


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    return requests.get(f"{server.url}/v3/api-docs", timeout=30).json()


@pytest.fixture(scope="module")
def generated(document, tmp_path_factory) -> Iterator[Path]:
    """The folder of the generated package, which can be imported."""
    home = tmp_path_factory.mktemp("package")
    source = home / "api.json"
    source.write_text(json.dumps(document))
    config = Config.from_sources(
        ConfigFile(
            package_name_override=PACKAGE,
            post_hooks=[f"{sys.executable} -P -m ruff format --quiet ."],
        ),
        MetaType.NONE,
        source,
        "utf-8",
        overwrite=False,
        output_path=home / PACKAGE,
    )
    problems = [f"{problem.header} {problem.detail}" for problem in generate(config=config)]
    assert problems == []
    sys.path.insert(0, str(home))
    try:
        yield home / PACKAGE
    finally:
        sys.path.remove(str(home))
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]


def module(name: str) -> ModuleType:
    return importlib.import_module(f"{PACKAGE}.{name}")


def test_it_has_a_function_for_every_operation(document, generated: Path) -> None:
    operations = [op for path in document["paths"].values() for op in path.values()]
    for operation in operations:
        (tag,) = operation["tags"]
        found = module(f"api.{tag.replace(' ', '_')}.{operation['operationId']}")
        assert callable(found.sync_detailed)
    assert len(operations) > 70


def test_it_logs_in_and_lists_projects(server: Server, generated: Path) -> None:
    server.as_user("ada")
    anonymous = module("client").Client(server.url)
    models = module("models")
    credentials = models.Login(username="ada", password=PASSWORD)
    token = module("api.accounts.login").sync(client=anonymous, body=credentials)
    client = module("client").AuthenticatedClient(server.url, token=token)
    made = module("api.projects.create_project").sync(
        client=client, body=models.NewProject(name="support", description="for tests")
    )
    assert isinstance(made, models.Project)
    (listed,) = module("api.projects.projects").sync(client=client)
    assert (listed.id, listed.name, listed.file_list) == (made.id, "support", [])


def test_it_reads_refusals(server: Server, generated: Path) -> None:
    server.as_user("ada")
    client = module("client").AuthenticatedClient(server.url, token=server.token("ada"))
    models = module("models")
    missing = module("api.projects.project").sync(client=client, project_id="0" * 32)
    assert isinstance(missing, models.Problem)
    assert missing.detail == "there is no such project: got " + "0" * 32
    malformed = module("api.projects.create_project").sync(
        client=client, body=models.NewProject(name="")
    )
    (issue,) = malformed.detail
    assert issue.loc == ["body", "name"]
