"""CORS of a server of one variant, by option."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from serve_apps.variants.args import parse_args
from serve_apps.variants.cors import CorsByOption
from ztom.errors import ConfigError

PAGE = "https://app.example.org"


def _client(*origins: str) -> TestClient:
    app = FastAPI()
    app.add_middleware(CorsByOption, origins=lambda: origins)
    app.get("/v1/models")(lambda: {})
    return TestClient(app)


def _preflight(client: TestClient) -> tuple[int, str | None]:
    headers = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    answer = client.options("/v1/models", headers=headers)
    return answer.status_code, answer.headers.get("access-control-allow-origin")


def test_only_the_origins_that_are_named_may_call() -> None:
    assert _preflight(_client(PAGE)) == (200, PAGE)
    assert _preflight(_client("*")) == (200, "*")
    assert _preflight(_client("https://other.example.org"))[1] is None
    assert _preflight(_client()) == (405, None)
    answer = _client(PAGE).get("/v1/models", headers={"Origin": PAGE})
    assert answer.headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize("origin", ["app.example.org", f"{PAGE}/", f"{PAGE}/page", ""])
def test_what_is_no_origin_is_refused(tmp_path, origin: str) -> None:
    with pytest.raises(ConfigError, match="no origin"):
        parse_args({"variant": tmp_path, "cors_origins": [origin]})


def test_the_application_starts_before_its_options_are_known() -> None:
    """Serve runs the application's start before it makes the replica that has the options."""
    seen: list[str] = []

    def origins() -> tuple[str, ...]:
        seen.append("asked")
        return (PAGE,)

    app = FastAPI()
    app.add_middleware(CorsByOption, origins=origins)
    with TestClient(app):
        assert seen == []
