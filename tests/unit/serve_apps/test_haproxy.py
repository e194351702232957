"""What HAProxy reads instead of what Ray Serve wrote."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from cluster.node_settings import HAPROXY_PROGRAM
from serve_apps.server import haproxy_rules
from serve_apps.server.haproxy import (
    KNOWN_RAY,
    UnknownRayWarning,
    warn_of_unknown_ray,
    write_haproxy,
)
from serve_apps.server.haproxy_rules import _GUARDS, _TABLES, rewrite

GOLDEN = Path(__file__).parents[2] / "golden"
METRICS, STATS = 18404, 18403
PRIVATE = (METRICS, STATS)


def recorded(case: str) -> str:
    release = "_".join(map(str, KNOWN_RAY))
    return (GOLDEN / f"haproxy_ray_{release}_{case}.cfg").read_text(encoding="utf-8")


def stripped(configuration: str) -> list[str]:
    return [line.strip() for line in configuration.splitlines()]


def starting(lines: list[str], start: str) -> list[str]:
    return [line for line in lines if line.startswith(start)]


@pytest.mark.parametrize("case", ["empty", "application"])
def test_only_what_is_meant_changes(case: str) -> None:
    before, after = recorded(case).splitlines(), rewrite(recorded(case), PRIVATE).splitlines()
    gone = [line.strip() for line in before if line not in after]
    assert [line.split(" content-type")[0] for line in gone] == [
        "timeout client 3600s",
        "errorfile 502 /run/ztom/500.http",
        "errorfile 503 /run/ztom/500.http",
        "errorfile 504 /run/ztom/500.http",
        f"bind :{METRICS}",
        "http-request return status 404",
        f"bind *:{STATS}",
    ]
    more = 1 if case == "application" else 0  # the answer where only Serve's proxy is left
    assert len(after) == len(before) + 3 + more + len(_GUARDS) + len(_TABLES)


def test_haproxys_own_pages_are_for_this_machine_only() -> None:
    lines = stripped(rewrite(recorded("application"), PRIVATE))
    assert starting(lines, "bind") == [
        f"bind 127.0.0.1:{METRICS}",
        "bind 127.0.0.1:8000",
        f"bind 127.0.0.1:{STATS}",
    ]


@pytest.mark.parametrize("address", ["0.0.0.0:18404", "[::]:18404", "*:18404 ssl", "eth0:18404"])
def test_pages_that_would_be_open_all_the_same_are_an_error(address: str) -> None:
    configuration = recorded("empty").replace(f"bind :{METRICS}", f"bind {address}")
    with pytest.raises(ValueError, match="to the network"):
        rewrite(configuration, PRIVATE)


def test_a_client_has_a_deadline_for_its_headers() -> None:
    lines = stripped(rewrite(recorded("application"), PRIVATE))
    assert lines[lines.index("defaults") + 1] == "timeout http-request 15s"
    assert lines.count("timeout http-request 15s") == 1


def test_a_client_is_not_silent_for_an_hour() -> None:
    lines = stripped(rewrite(recorded("application"), PRIVATE))
    assert starting(lines, "timeout client") == ["timeout client 120s"]


def test_strangers_are_counted_before_anything_else_happens_to_a_request() -> None:
    lines = stripped(rewrite(recorded("application"), PRIVATE))
    begin = lines.index("frontend http_frontend") + 2
    assert lines[begin - 1] == "acl ztom_proxy always_false"
    assert tuple(lines[begin : begin + len(_GUARDS)]) == _GUARDS
    assert [line for line in lines if line.startswith("stick-table")] == [
        "stick-table type ipv6 size 100k expire 1m store conn_cur"
    ] * 2


def test_no_application_yet_is_no_wrong_address() -> None:
    (line,) = starting(
        stripped(rewrite(recorded("empty"), PRIVATE)), "http-request return status 503 content-type"
    )[-1:]
    assert "not found" in line
    assert line.endswith("hdr retry-after 1")


def test_a_gateway_that_is_not_reached_is_told_as_openai_tells_errors() -> None:
    lines = stripped(rewrite(recorded("application"), PRIVATE))
    for status in (502, 503, 504):
        (line,) = starting(lines, f"http-error status {status}")
        assert json.loads(line.split("'")[1])["error"]["code"] == "unavailable"
        assert line.endswith("hdr retry-after 1")
    backup = lines.index("server serve-proxy 127.0.0.1:18406 check backup")
    assert lines[backup + 1].startswith("http-response return status 503")
    assert lines[backup + 1].endswith("if { status 500 } { srv_name -m str serve-proxy }")


def test_a_configuration_is_changed_once() -> None:
    once = rewrite(recorded("application"), PRIVATE)
    assert rewrite(once, PRIVATE) == once


@pytest.mark.parametrize("case", ["empty", "application"])
def test_the_program_changes_the_file_and_becomes_haproxy(tmp_path: Path, case: str) -> None:
    configuration = tmp_path / "haproxy.cfg"
    text = recorded(case).replace("/run/ztom", str(tmp_path))
    configuration.write_text(text, encoding="utf-8")
    proxies = ("192.0.2.80", "2001:db8::80")
    program = write_haproxy(tmp_path, private_ports=PRIVATE, trusted=proxies)
    checked = subprocess.run([program, "-c", "-f", configuration], capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    changed = configuration.read_text(encoding="utf-8")
    assert changed == rewrite(text, PRIVATE, proxies)
    assert "acl ztom_proxy src 192.0.2.80 2001:db8::80" in changed


def test_the_program_starts_no_haproxy_that_would_show_its_pages(tmp_path: Path) -> None:
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(f"listen stats\n  bind 0.0.0.0:{STATS}\n", encoding="utf-8")
    program = write_haproxy(tmp_path, private_ports=PRIVATE)
    checked = subprocess.run([program, "-c", "-f", configuration], capture_output=True, check=False)
    assert checked.returncode != 0
    assert b"to the network" in checked.stderr


def test_a_program_that_the_variable_names_is_not_wrapped_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an image the variable names our own program, which would then call itself for ever."""
    first = write_haproxy(tmp_path, private_ports=PRIVATE)
    monkeypatch.setenv(HAPROXY_PROGRAM, str(first))
    (tmp_path / "second").mkdir()
    second = write_haproxy(tmp_path / "second", private_ports=PRIVATE)
    assert str(first) not in second.read_text()
    version = subprocess.run([second, "-v"], capture_output=True, timeout=30, check=False)
    assert b"HAProxy" in version.stdout
    # another program that an operator names is taken as it is
    own = tmp_path / "own"
    own.write_text("#!/bin/sh\nexec true\n")
    own.chmod(0o755)
    monkeypatch.setenv(HAPROXY_PROGRAM, str(own))
    assert str(own) in write_haproxy(tmp_path, private_ports=PRIVATE).read_text()


def test_the_rules_import_nothing_that_takes_time() -> None:
    program = (
        "import sys; from runpy import run_path; run_path(sys.argv[1]); "
        "print(*{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    )
    command = [sys.executable, "-I", "-S", "-c", program, haproxy_rules.__file__]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "__main__"


def test_the_installed_ray_is_the_one_that_is_known() -> None:
    warn_of_unknown_ray(version("ray"))
    release = "_".join(map(str, KNOWN_RAY))
    digest = (GOLDEN / f"haproxy_ray_{release}.sha256").read_text(encoding="utf-8").strip()
    ray = find_spec("ray")
    assert ray is not None
    assert ray.origin is not None
    template = Path(ray.origin).parent / "serve/_private/haproxy_templates.py"
    # on another digest, run tests/golden/make_haproxy_configuration.py and read what changed
    assert hashlib.sha256(template.read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("installed", ["2.61.0", "3.0.0.dev0"])
def test_another_ray_is_warned_of(installed: str) -> None:
    with pytest.warns(UnknownRayWarning, match=f"this is Ray {installed}"):
        warn_of_unknown_ray(installed)
