"""Who used how much: counted where it is answered, seen by those whose it is."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from server_helpers import ENGINE_S, Server, serving
from variant_folders import deploy, reading_variants

from serve_apps.control_plane.config import ServerConfig
from serve_apps.control_plane.usage_report import Prices, usage_lines
from ztom.client import Client
from ztom.ledger.usage import UsageCounts, UsageKey, UsageNames
from ztom.wire.usage import UsageBy, UsageReport

A, B = "a" * 64, "b" * 64


def say(server: Server, key: str, *, model: str = "support", stream: bool = False) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "?"}], "stream": stream}
    answer = requests.post(
        f"{server.url}/v1/chat/completions",
        json=body,
        headers={"Authorization": f"Bearer {key}"},
        timeout=30,
    )
    assert answer.text
    return answer.status_code


def written(server: Server) -> None:
    """Have what was counted written, as it is every second."""
    server.services.gateway._book.write()  # type: ignore[union-attr]


def test_requests_tokens_and_seconds_by_key_project_variant_and_day(
    server: Server, admin: Client, key: str, ztom: Any
) -> None:
    project = admin.create_project("shop")
    _, one = deploy(server, admin, "one", project_id=project.id)
    admin.accounts.add_member("shop", "ada@example.org", ["READ"])
    admin_key = admin.key
    assert [say(server, admin_key), say(server, admin_key, stream=True)] == [200, 200]
    server.stage.actor(one).status = 503
    assert say(server, admin_key) == 503
    written(server)
    report = admin.accounts.usage()
    today = datetime.now(UTC).date().isoformat()
    (line,) = [line for line in report.lines if line.requests]
    assert (line.day, line.project, line.digest) == (today, "shop", one)
    assert line.variant == f"one@{one[:12]}"
    assert (line.requests, line.failed) == (3, 1)
    assert (line.prompt_tokens, line.completion_tokens) == (6, 6)
    assert line.busy_seconds == pytest.approx(2 * ENGINE_S)
    assert line.key is not None
    assert report.not_counted == ()
    deadline = time.monotonic() + 20
    while not any(line.held_seconds for line in admin.accounts.usage().lines):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (day,) = admin.accounts.usage(by=["day"], price_per_hour=3600).lines
    assert day.held_seconds >= 7, "the seconds that it took to load"
    assert day.idle_seconds > 0
    seconds = day.busy_seconds + day.idle_seconds + day.held_seconds
    assert day.cost == pytest.approx(seconds)
    assert (day.key, day.project, day.variant) == (None, None, None)
    shown = ztom("usage", "--by", "project", "--price-per-1000-completion-tokens", "500")
    assert "shop" in shown.out
    assert "held s" in shown.out
    ran = ztom("usage", "--by", "week")
    assert ran.status != 0
    assert "one of 'key', 'project', 'variant' or 'day'" in ran.err


def test_a_key_sees_its_projects_and_administrators_all(
    server: Server, admin: Client, key: str
) -> None:
    shops = [admin.create_project(name) for name in ("shop", "bank")]
    for number, project in enumerate(shops):
        deploy(server, admin, f"v{number}", alias=f"{project.name}-x", project_id=project.id)
    for alias in ("shop-x", "bank-x", "bank-x"):
        assert say(server, admin.key, model=alias) == 200
    written(server)

    def requests_of(secret: str, **options: Any) -> dict[str | None, int]:
        with Client(server.url, key=secret) as client:
            report = client.accounts.usage(by=["project"], **options)
        return {line.project: line.requests for line in report.lines if line.requests}

    assert requests_of(admin.key) == {"shop": 1, "bank": 2}
    assert requests_of(key) == {}, "a member of none"
    admin.accounts.add_member("shop", "ada@example.org", ["READ"])
    assert requests_of(key) == {"shop": 1}
    assert requests_of(admin.key, project_id="bank") == {"bank": 2}
    answer = requests.get(
        f"{server.url}/v1/usage",
        params={"projectId": shops[1].id},
        headers={"Authorization": f"Bearer {key}"},
        timeout=30,
    )
    assert answer.status_code == 404, "whether it exists is nobody else's business"


@pytest.mark.parametrize(
    "query",
    [
        {"from": "2026-03-02", "to": "2026-03-01"},
        {"from": "2020-01-01", "to": "2026-03-01"},
        {"from": "yesterday"},
        {"by": "week"},
        {"pricePerHour": -1},
        {"pricePerHour": "nan"},
    ],
)
def test_what_cannot_be_asked(server: Server, admin: Client, query: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {admin.key}"}
    url = f"{server.url}/v1/usage"
    assert requests.get(url, params=query, headers=headers, timeout=30).status_code == 422


def test_a_server_that_is_stopped_loses_nothing(tmp_path: Path) -> None:
    with reading_variants(tmp_path) as server:
        from variant_folders import chief_of

        with chief_of(server) as admin:
            deploy(server, admin, "one")
            for _ in range(3):
                assert say(server, admin.key) == 200
        config = server.services.config
    with serving(ServerConfig(data=config.data)) as again:
        session = again.as_user("root2", admin=True)
        answer = session.get(f"{again.url}/v1/usage", params={"by": "variant"}, timeout=30)
        report = UsageReport.parse(answer.json())
        assert sum(line.requests for line in report.lines) == 3
        assert report.not_counted == ()


def test_prices_and_lines() -> None:
    sums = [
        (UsageKey("2026-03-01", "k", "p", A), UsageCounts(2, 0, 1000, 2000, 1800, 900, 900)),
        (UsageKey("2026-03-01", "k", "p", B), UsageCounts(1, 1, 0, 0, 3600, 0, 0)),
        (UsageKey("2026-03-01", "", "", A), UsageCounts(idle_s=36)),
    ]
    names = UsageNames({"k": "ci"}, {"p": "shop"}, {A: "one"}, {A: 2.0})
    by = (UsageBy.PROJECT,)
    lines = usage_lines(sums, by, names, Prices())
    assert [(line.project, line.requests, line.cost) for line in lines] == [
        ("shop", 3, 2.0),
        (None, 0, pytest.approx(0.02)),
    ]
    priced = usage_lines(sums, (UsageBy.VARIANT,), names, Prices(hour=4, prompt=0.5, completion=1))
    costs = {line.variant: line.cost for line in priced}
    assert costs == {
        f"one@{A[:12]}": pytest.approx(4.04 + 0.5 + 2),
        B[:12]: pytest.approx(4.0),
    }
    unpriced = UsageNames({}, {}, {}, {})
    assert usage_lines(sums[:1], by, unpriced, Prices())[0].cost is None
