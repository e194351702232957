"""Alerts, recordings, dashboards: they parse, do what they say, and know only series that exist."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from deploy_checks.tools import CLUSTER, ROOT, run

MONITORING = CLUSTER / "monitoring"
_RULES = ("recording.yml", "alerts.yml")
_SERIES = re.compile(r"\bray_\w+")
_SUFFIXES = {"Counter": ("_total",), "Gauge": ("",), "Histogram": ("_bucket", "_sum", "_count")}


def check_rules() -> list[str]:
    """`promtool` takes the rules and the configuration."""
    done = run("promtool", "check", "rules", *(MONITORING / name for name in _RULES))
    whole = run("promtool", "check", "config", MONITORING / "prometheus.yml")
    return [part.problem for part in (done, whole) if part.status]


def check_behaviour() -> list[str]:
    """Alerts fire when their tests say so, and each has a test in which it does."""
    done = run("promtool", "test", "rules", MONITORING / "alerts_test.yml")
    tests = _yaml("alerts_test.yml")["tests"]
    fired = {
        part["alertname"]
        for test in tests
        for part in test.get("alert_rule_test", [])
        if part["exp_alerts"]
    }
    findings = [
        f"no test has {rule['alert']} fire" for rule in alerts() if rule["alert"] not in fired
    ]
    return [*findings, *([done.problem] if done.status else [])]


def check_runbooks() -> list[str]:
    """Every alert has a severity and a section that exists."""
    headings = re.findall(r"^## (\w+)$", (MONITORING / "runbooks.md").read_text("utf-8"), re.M)
    findings = [f"runbooks.md: {name} is no alert" for name in headings if name not in names()]
    for rule in alerts():
        name = rule["alert"]
        wanted = f"cluster/monitoring/runbooks.md#{name.lower()}"
        if rule["annotations"].get("runbook") != wanted or name not in headings:
            findings.append(f"{name}: no section {wanted}")
        if rule["labels"].get("severity") not in ("page", "ticket", "note"):
            findings.append(f"{name}: severity is page, ticket or note")
    return findings


def check_series() -> list[str]:
    """Rules and dashboards ask only for series of the product and of Ray."""
    known = product_series() | ray_series()
    return [
        f"{place}: nobody exports {series}"
        for place, text in expressions()
        for series in sorted(set(_SERIES.findall(text)) - known)
    ]


def check_dashboards() -> list[str]:
    """Search, serving and gate have a dashboard each, with an id of its own."""
    found = {path.stem: json.loads(path.read_text("utf-8")) for path in _dashboards()}
    findings = [f"no dashboard {name}" for name in {"search", "serving", "gate"} - set(found)]
    ids = [board["uid"] for board in found.values()]
    if len(set(ids)) != len(ids):
        findings.append(f"dashboards share an id: {sorted(ids)}")
    return findings


def alerts() -> list[dict[str, Any]]:
    """The alerts."""
    return [rule for group in _yaml("alerts.yml")["groups"] for rule in group["rules"]]


def names() -> set[str]:
    """Names of the alerts."""
    return {rule["alert"] for rule in alerts()}


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression, with its place."""
    for file in _RULES:
        for group in _yaml(file)["groups"]:
            for rule in group["rules"]:
                yield f"{file}, {rule.get('alert') or rule['record']}", rule["expr"]
    for path in _dashboards():
        for panel in json.loads(path.read_text("utf-8"))["panels"]:
            for target in panel.get("targets", []):
                yield f"{path.name}, {panel['title']}", target["expr"]


@cache
def product_series() -> frozenset[str]:
    """Series that the product exports, read from its source."""
    found = set()
    for path in (ROOT / "serve_apps").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                name = node.args[0]
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    suffixes = _SUFFIXES.get(node.func.id, ())
                    found |= {f"ray_{name.value}{suffix}" for suffix in suffixes}
    return frozenset(found)


@cache
def ray_series() -> frozenset[str]:
    """Series that the installed Ray's own dashboards draw."""
    spec = find_spec("ray")
    if spec is None or spec.origin is None:
        raise RuntimeError("ray is not installed: make setup")
    folder = Path(spec.origin).parent / "dashboard" / "modules" / "metrics" / "dashboards"
    text = "\n".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    return frozenset(_SERIES.findall(text))


def _dashboards() -> list[Path]:
    return sorted((MONITORING / "grafana").glob("*.json"))


def _yaml(name: str) -> Any:
    return yaml.safe_load((MONITORING / name).read_text(encoding="utf-8"))
